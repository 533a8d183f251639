"""Handwritten digits on photographs: a detection data set that needs no download.

The digits are the 1,797 of the UCI test set (43 writers, 8 x 8 pixels, 17 grey levels)
and the backgrounds crops of two photographs; scikit-learn's wheel carries both. Writing
is scaled, coloured and placed at random, the labels are exact, and digits of one split
are never shown in the other.

Source: Alpaydin and Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine
Learning Repository, 1998.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import cv2
import numpy as np

from yolojax.data.report import Report
from yolojax.records import Example

SPLITS = ("train", "val")
# Of five digits of a class, the fifth is kept for val.
_VAL_EVERY = 5
# Not the user's seed: a digit stays in its split whatever the seed.
_SPLIT_SEED = 1797
# Keeps these draws apart from others that are keyed by (seed, number) as well.
_DOMAIN = 2

# Share of full ink from which a pixel belongs to the digit and thus to its box.
INK = 0.5
_MAX_OVERLAP = 0.1  # of the smaller of two boxes
_TRIES = 10
# Least difference between the brightness of digit and background, of 255.
_CONTRAST = 90
# Rec. 601 luma of R, G, B
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


class Glyph(NamedTuple):
    """An enlarged digit.

    Attributes:
        alpha: float32 [h, w], share of ink, in [0, 1].
        box: (x1, y1, x2, y2), the pixels whose share is `INK` or more, corners in
            pixels of `alpha`.
    """

    alpha: np.ndarray
    box: tuple[int, int, int, int]


class DigitsSource:
    """Handwritten digits on crops of photographs, each drawn when it is asked for.

    Attributes:
        class_names: "0" to "9".
        category_ids: 0 to 9.
        report: empty, for nothing can be wrong.
    """

    def __init__(
        self,
        *,
        length: int,
        split: str = "train",
        size: int | tuple[int, int] = 128,
        seed: int = 0,
        max_digits: int = 6,
        digit_ratio: tuple[float, float] = (0.16, 0.42),
    ):
        """Load digits and photographs.

        Args:
            length: number of pictures.
            split: `train` or `val`; no digit and no picture is in both.
            size: (height, width) of the pictures, or the side of square ones.
            seed: pictures are functions of (seed, split, index).
            max_digits: each picture holds 1 to so many digits.
            digit_ratio: smallest and largest height of a digit, as a share of the
                picture's shorter side.

        Raises:
            ValueError: an argument is out of range.
        """
        height, width = (size, size) if isinstance(size, int) else size
        if split not in SPLITS:
            raise ValueError(f"split must be train or val, not {split!r}")
        if length < 1 or max_digits < 1:
            raise ValueError(
                f"length and max_digits must be at least 1, not {length}, {max_digits}"
            )
        if min(height, width) < 32:
            raise ValueError(f"size must be at least 32 pixels, not {size}")
        if not 0 < digit_ratio[0] <= digit_ratio[1] <= 0.8:
            raise ValueError(
                "digit_ratio must be (smallest, largest) within 0 and 0.8, not "
                f"{digit_ratio}"
            )
        self.class_names = tuple("0123456789")
        self.category_ids = tuple(range(10))
        self.report = Report()
        self._length = length
        self._size = (height, width)
        self._seed = seed
        self._split = SPLITS.index(split)
        self._max_digits = max_digits
        self._lowest, self._highest = (r * min(height, width) for r in digit_ratio)
        self._digits, self._labels = load_split(split)
        self._photographs = _load_photographs(self._size)

    def __len__(self) -> int:
        """The number of pictures."""
        return self._length

    def __getitem__(self, index: int, /) -> Example:
        """The picture and boxes at `index`, the same at every call."""
        if not 0 <= index < self._length:
            raise IndexError(f"picture {index} of {self._length}")
        rng = np.random.Generator(
            np.random.Philox(
                key=np.array([self._seed % 2**64, index], np.uint64),
                counter=np.array([0, 0, self._split, _DOMAIN], np.uint64),
            )
        )
        canvas = self._background(rng)
        boxes: list[tuple[int, int, int, int]] = []
        labels: list[int] = []
        for _ in range(int(rng.integers(1, self._max_digits, endpoint=True))):
            chosen = int(rng.integers(len(self._digits)))
            glyph = self._enlarged(rng, self._digits[chosen])
            place = self._free_place(rng, glyph, boxes)
            if place is None:
                continue
            _paint(rng, canvas, glyph.alpha, *place)
            boxes.append(_moved(glyph.box, *place))
            labels.append(int(self._labels[chosen]))
        corners = np.array(boxes, np.float32)
        sides = corners[:, 2:] - corners[:, :2]
        return Example(
            image=canvas,
            boxes=corners,
            labels=np.array(labels, np.int32),
            crowd=np.zeros(len(boxes), np.bool_),
            areas=sides[:, 0] * sides[:, 1],
            image_id=index,
            size=self._size,
            name=f"digits {SPLITS[self._split]} {index}",
        )

    def _background(self, rng: np.random.Generator) -> np.ndarray:
        photograph = self._photographs[int(rng.integers(len(self._photographs)))]
        height, width = self._size
        top = int(rng.integers(photograph.shape[0] - height, endpoint=True))
        left = int(rng.integers(photograph.shape[1] - width, endpoint=True))
        crop = photograph[top : top + height, left : left + width]
        return (crop[:, ::-1] if rng.random() < 0.5 else crop).copy()

    def _enlarged(self, rng: np.random.Generator, digit: np.ndarray) -> Glyph:
        height = rng.uniform(self._lowest, self._highest)
        width = height * rng.uniform(0.85, 1.15)
        return enlarge(digit, max(8, round(height)), max(8, round(width)))

    def _free_place(
        self,
        rng: np.random.Generator,
        glyph: Glyph,
        taken: list[tuple[int, int, int, int]],
    ) -> tuple[int, int] | None:
        """(top, left) where the digit hides no other, or None after ten tries."""
        height, width = glyph.alpha.shape
        for _ in range(_TRIES):
            top = int(rng.integers(self._size[0] - height, endpoint=True))
            left = int(rng.integers(self._size[1] - width, endpoint=True))
            box = _moved(glyph.box, top, left)
            if all(_overlap(box, other) <= _MAX_OVERLAP for other in taken):
                return top, left
        return None


def load_split(split: str) -> tuple[np.ndarray, np.ndarray]:
    """The handwriting of one split: of each class, every fifth digit is val's.

    Returns:
        float32 [n, 8, 8] share of ink in [0, 1], and int32 [n] classes.
    """
    from sklearn.datasets import load_digits  # takes most of a second

    digits: Any = load_digits()
    words = np.random.Philox(key=_SPLIT_SEED).random_raw(len(digits.target))
    order = np.argsort(words, kind="stable")
    labels = digits.target[order]
    rank = np.zeros(len(order), np.int64)
    for label in range(10):
        mine = labels == label
        rank[mine] = np.arange(mine.sum())
    is_val = rank % _VAL_EVERY == _VAL_EVERY - 1
    use = is_val if split == "val" else ~is_val
    images = (digits.images[order[use]] / 16).astype(np.float32)
    return images, labels[use].astype(np.int32)


def enlarge(digit: np.ndarray, height: int, width: int) -> Glyph:
    """The digit at another size, with edges made steep again.

    Args:
        digit: float32 [8, 8], share of ink.
        height: of the result, in pixels.
        width: of the result, in pixels.
    """
    smooth = cv2.resize(digit, (width, height), interpolation=cv2.INTER_CUBIC)
    # The strokes of 8 x 8 digits are often no darker than .6.
    alpha = np.clip((smooth / smooth.max() - 0.32) / 0.4, 0, 1)
    ink = alpha >= INK
    rows = np.flatnonzero(ink.any(axis=1))
    columns = np.flatnonzero(ink.any(axis=0))
    box = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
    return Glyph(alpha, (int(box[0]), int(box[1]), int(box[2]), int(box[3])))


def _load_photographs(size: tuple[int, int]) -> list[np.ndarray]:
    """The two photographs at three scales, each no smaller than `size`."""
    from sklearn.datasets import load_sample_images

    photographs = []
    for picture in load_sample_images().images:
        needed = max(size[0] / picture.shape[0], size[1] / picture.shape[1])
        for scale in (1.0, 0.7, 0.5):
            used = max(scale, needed)
            height = max(size[0], round(picture.shape[0] * used))
            width = max(size[1], round(picture.shape[1] * used))
            method = cv2.INTER_AREA if used < 1 else cv2.INTER_LINEAR
            photographs.append(
                cv2.resize(picture, (width, height), interpolation=method)
            )
    return photographs


def _paint(
    rng: np.random.Generator, canvas: np.ndarray, alpha: np.ndarray, top: int, left: int
) -> None:
    """Blend the digit into the canvas in a colour that stands out there."""
    region = canvas[top : top + alpha.shape[0], left : left + alpha.shape[1]]
    below = float(region.mean(axis=(0, 1), dtype=np.float32) @ _LUMA)
    darker, lighter = below - _CONTRAST, 255 - below - _CONTRAST
    # Dark on light or light on dark, as often as the background leaves room for it.
    dark = rng.uniform(0, max(darker, 0) + max(lighter, 0)) < darker
    wanted = rng.uniform(0, darker) if dark else rng.uniform(below + _CONTRAST, 255)
    colour = _coloured(rng, wanted)
    opacity = np.float32(rng.uniform(0.75, 1))
    share = (alpha * opacity)[..., None]
    region[...] = np.rint(region + (colour - region) * share).astype(np.uint8)


def _coloured(rng: np.random.Generator, luma: float) -> np.ndarray:
    """A random colour, float32 [3] in [0, 255], of the brightness wanted."""
    tint = rng.uniform(-80, 80, 3).astype(np.float32)
    tint -= tint @ _LUMA
    # Shrink the tint until no channel leaves the range, which would change the luma.
    room = np.where(tint > 0, 255 - luma, luma) / np.maximum(np.abs(tint), 1e-3)
    return np.float32(luma) + tint * np.float32(min(1.0, float(room.min())))


def _moved(
    box: tuple[int, int, int, int], top: int, left: int
) -> tuple[int, int, int, int]:
    return box[0] + left, box[1] + top, box[2] + left, box[3] + top


def _overlap(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> float:
    """What two boxes share, as a share of the smaller one."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = ((x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in (a, b))
    return width * height / min(areas)
