"""How many boxes images have, and how many an augmented image can show."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from yolojax.data.sources.base import Source

# Augmented images drawn for `expected_cut`: a share of 1 in 1,000 is known to a tenth.
_DRAWS = 20_000


def counts_of(source: Source, keep: Sequence[int] | np.ndarray) -> np.ndarray:
    """Number of boxes of each image, crowds not counted; int64 [len(keep)]."""
    counts = [np.count_nonzero(~source[int(index)].crowd) for index in keep]
    return np.asarray(counts, np.int64)


def expected_cut(
    counts: np.ndarray, num_images: int, num_rows: int, *, seed: int
) -> float:
    """Share of the boxes that have no row when an output shows several images.

    Every output shows `num_images` images drawn at random, and all of their boxes: an
    upper bound, since augmentation moves some boxes out of sight.

    Args:
        counts: boxes of each image.
        num_images: images of an output.
        num_rows: rows for the boxes of an output.
        seed: of the draws.

    Returns:
        A share in [0, 1]; 0 where there is no box.
    """
    if not np.sum(counts):
        return 0.0
    draws = np.random.default_rng(seed).integers(len(counts), size=(_DRAWS, num_images))
    shown = np.asarray(counts)[draws].sum(axis=1)
    return float(np.maximum(shown - num_rows, 0).sum() / max(1, shown.sum()))
