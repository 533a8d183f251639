"""Handwritten digits to classify, which need no download.

The pictures of the detection source `digits`, one digit each and nothing around it.
"""

from __future__ import annotations

import cv2
import numpy as np

from yolojax.data.report import Report
from yolojax.data.sources.digits import load_split
from yolojax.data.sources.labelled import ClassifiedPictures
from yolojax.data.splits import SPLITS
from yolojax.lookup import pick

# Of ten digits of those that the detection source trains on, one is for val.
_VAL_EVERY = 10


class HandwrittenSource(ClassifiedPictures):
    """The 1,797 digits of the UCI test set, white on black, in three splits.

    Test has what the detection source keeps for val (a fifth of each class), val a
    tenth of the others.
    """

    def __init__(self, *, split: str = "train", size: int = 32) -> None:
        """Load the digits.

        Args:
            split: `train`, `val` or `test`.
            size: side of the pictures in pixels, at least the original's 8; they are
                enlarged smoothly, for training does not enlarge what it is given.

        Raises:
            ValueError: an unknown split, or a size below 8.
        """
        pick(dict.fromkeys(SPLITS), split, "split")
        if not isinstance(size, int) or size < 8:
            raise ValueError(f"size must be at least 8 pixels, not {size!r}")
        images, labels = load_split("val" if split == "test" else "train")
        if split != "test":
            rank = np.zeros(len(labels), np.int64)
            for label in range(10):
                mine = labels == label
                rank[mine] = np.arange(mine.sum())
            use = (rank % _VAL_EVERY == _VAL_EVERY - 1) == (split == "val")
            images, labels = images[use], labels[use]
        self._pixels = np.stack([_enlarged(image, size) for image in images])
        super().__init__(
            names=[f"handwritten {split} {number}" for number in range(len(labels))],
            sizes=[(size, size)] * len(labels),
            labels=labels[:, None].tolist(),
            class_names=tuple("0123456789"),
            report=Report(),
        )

    def _image(self, index: int) -> np.ndarray:
        return np.repeat(self._pixels[index][:, :, None], 3, axis=2)


def _enlarged(ink: np.ndarray, size: int) -> np.ndarray:
    """uint8 [size, size] of the share of ink, float32 [8, 8]."""
    smooth = cv2.resize(ink, (size, size), interpolation=cv2.INTER_LINEAR)
    return np.rint(smooth * 255).astype(np.uint8)
