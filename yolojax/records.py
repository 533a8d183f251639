"""The records that cross package borders.

Conventions, stated once: boxes are corners `x1 y1 x2 y2` in pixels of the picture
that they travel with; sizes are `(height, width)`; the origin is the top left
corner of the top left pixel, so a pixel's centre lies at .5. Padded rows hold zeros
and are marked by `valid`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

# A picture or a class in the data set's own numbering; COCO files also have texts.
Id: TypeAlias = int | str


class Decoding(NamedTuple):
    """How the images of a data set are decoded, the same for all of them.

    Attributes:
        white: of 16 bits, the value that becomes 255; 0: each file decides for itself.
        max_bytes: memory that decoding one image may take.
    """

    white: int = 0
    max_bytes: int = 300_000_000


DECODING = Decoding()


@dataclasses.dataclass(frozen=True)
class Example:
    """One labelled picture on the host, as a source yields it.

    Attributes:
        image: encoded bytes, the path of a file, or decoded uint8 RGB [h, w, 3].
        boxes: float32 [n, 4], in pixels of the picture as it is shown (EXIF applied).
        labels: int32 [n], index into the source's `class_names`.
        crowd: bool [n]; such boxes are left out of training and ignored by the
            evaluator.
        areas: float32 [n], the area that the evaluator sorts sizes by, in square
            pixels.
        image_id: the picture's id in the source's own numbering.
        size: (height, width) of the picture as it is shown.
        name: what a report calls the picture, usually its path.
        polygons: one tuple a box of closed polygons, float32 [k, 2], in pixels of the
            picture: the outline of its object, () where only the box is known. None:
            the source was not asked for them.
        decoding: how `image` is decoded.
    """

    image: bytes | str | np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray
    areas: np.ndarray
    image_id: Id
    size: tuple[int, int]
    name: str
    polygons: Sequence[tuple[np.ndarray, ...]] | None = None
    decoding: Decoding = DECODING


class Batch(NamedTuple):
    """Pictures and boxes of one step, padded to static shapes.

    Attributes:
        image: uint8 [b, h, w, 3] from the host; float32 in [0, 1] after `augment`.
        size: int32 [b, 2], height and width of the part that holds the picture.
        boxes: float32 [b, n, 4], in pixels of `image`.
        labels: int32 [b, n].
        valid: bool [b, n], False for padding; after the `augment` of a classifier
            float32, the share that the picture has of each label.
        image_id: int32 [b], index of the picture in its source; -1 for a padded row.
        origin: float32 [b, 4], `scale_y scale_x offset_y offset_x`: a point of the
            original picture times scale plus offset is the point in `image`.
        polygons: float32 [b, n, e, 4], the outline of each box's object as edges
            `x1 y1 x2 y2`, see `ops.outlines`, in pixels of `image`; `e` is 0 where the
            source was not asked for them. () after `augment`.
        left_out: float32 [b, m, 4], boxes of objects that have no row in `boxes`, in
            pixels of `image`; zeros for padding. They are neither taught nor
            background. m is 0 before `augment`, and after it where every object has a
            row.
    """

    image: Any
    size: Any
    boxes: Any
    labels: Any
    valid: Any
    image_id: Any
    origin: Any
    polygons: Any = ()
    left_out: Any = ()


class Stored(NamedTuple):
    """A step's pictures, as rows of all pictures that a device holds.

    Attributes:
        pictures: the batch of all pictures of the shard.
        rows: int32 [b], which of them the step takes.
        first: int32 scalar, place of the first of them in the batch over all devices.
        count: int32 scalar, how many rows of `pictures` hold one; mosaic takes its
            other pictures from these. None: all.
    """

    pictures: Batch
    rows: Any
    first: Any = 0
    count: Any = None


def num_pictures(batch: Batch | Stored) -> int:
    """How many pictures a step takes."""
    return len(batch.rows if isinstance(batch, Stored) else batch.image_id)


def labels_of(batch: Batch) -> tuple[Any, ...]:
    """What a loss takes of an augmented batch besides the network's maps."""
    rows = batch.boxes, batch.labels, batch.valid
    empty = isinstance(batch.left_out, tuple) or batch.left_out.shape[1] == 0
    return rows if empty else (*rows, batch.left_out)


class Detections(NamedTuple):
    """Found boxes of a batch, best first, padded to k a picture.

    Attributes:
        boxes: float32 [b, k, 4].
        scores: float32 [b, k], in [0, 1], falling.
        labels: int32 [b, k].
        valid: bool [b, k], False for padding.
    """

    boxes: Any
    scores: Any
    labels: Any
    valid: Any


class TrainState(NamedTuple):
    """Everything that a training step changes.

    Attributes:
        step: int32 scalar, steps done; schedules and random keys are functions of it.
        params: nested dict of float32 parameters.
        batch_stats: nested dict of float32 running means and variances.
        opt_state: state of the Optax transform.
        ema: dict with `params` and `batch_stats`, the moving average of both.
        ema_updates: int32 scalar, how often the average was updated.
        skipped: int32 scalar, steps skipped because their loss or gradient was not
            finite.
        skipped_in_a_row: int32 scalar, the current run of such steps; those of a loss
            scale that can still fall are left out.
        loss_scale: state of the loss scaling, see `optim.loss_scale`; () without it.
        sam: state of `optim.sam`; () where the method has none.
        swa: dict with `params` and `batch_stats`, the mean of the last epochs' ends;
            () where a run has none, and in the training step.
    """

    step: Any
    params: Any
    batch_stats: Any
    opt_state: Any
    ema: Any
    ema_updates: Any
    skipped: Any
    skipped_in_a_row: Any
    loss_scale: Any = ()
    sam: Any = ()
    swa: Any = ()
