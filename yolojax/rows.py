"""Rows for the boxes of a picture, before and after augmentation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from yolojax.augment.policy import most_pictures
from yolojax.data.box_rows import counts_of, expected_cut
from yolojax.data.pipeline import max_boxes_of
from yolojax.datasets import Data
from yolojax.models.classifier import Classifier
from yolojax.models.network import Network

# Rows for boxes of an augmented picture, unless the config says how many. They cost
# 1.6 ms each hundred on two CPU cores, for 16 pictures at 640 px.
MOST_ROWS = 1024


class Rows(NamedTuple):
    """How many boxes of an augmented picture are taught; see `output_rows`.

    Attributes:
        boxes: rows for boxes that are taught.
        left_out: rows for boxes that are neither taught nor background.
        taught: of the boxes of a picture before augmentation.
    """

    boxes: int
    left_out: int
    taught: int


def output_rows(settings: Mapping[str, Any], max_boxes: int) -> Rows:
    """Rows for boxes after augmentation, given the number of rows before.

    By default there are as many as all pictures of an output can have together, each
    the fullest, and at most `MOST_ROWS`.

    Args:
        settings: a complete config of a detector.
        max_boxes: rows for the boxes of a picture before augmentation.

    Raises:
        ValueError: see `make_augment`.
    """
    pictures = most_pictures(settings["augment"]["policy"])
    taught = min(settings["data"]["max_boxes"] or max_boxes, max_boxes)
    needed = pictures * taught
    boxes = settings["augment"]["max_boxes"] or min(needed, MOST_ROWS)
    beyond = max(0, needed - boxes)
    left_out = pictures * (max_boxes - taught) + beyond
    return Rows(boxes, left_out, taught)


def rows_before(settings: Mapping[str, Any], model: Network, train: Data) -> int:
    """Rows for the boxes, or labels, of an image before augmentation.

    A detector has a row for every box, also for those beyond `data.max_boxes`, whose
    places have to be known.
    """
    classifies = isinstance(model, Classifier)
    if classifies and settings["data"]["max_boxes"]:
        return settings["data"]["max_boxes"]
    most = max_boxes_of(train.source, train.keep)
    if classifies and most <= 1:
        return 1
    return max(8, math.ceil(most / 8) * 8)


def row_notes(
    settings: Mapping[str, Any], max_boxes: int, train: Data
) -> tuple[str, ...]:
    """What share of the boxes may have no row after augmentation; () where none."""
    rows = output_rows(settings, max_boxes)
    counts = counts_of(train.source, train.keep)
    shown = most_pictures(settings["augment"]["policy"])
    counts = np.minimum(counts, rows.taught)
    most = shown * int(np.max(counts, initial=0))
    if most <= rows.boxes:
        return ()
    share = expected_cut(counts, shown, rows.boxes, seed=settings["seed"])
    return (
        f"an augmented image can show {most} boxes, but has {rows.boxes} rows for "
        f"them: up to {share:.2%} of the boxes have none, and are left out of the "
        f"loss. For a row each: config.augment.max_boxes={most}",
    )
