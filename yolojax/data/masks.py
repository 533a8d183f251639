"""Boxes of the masks of COCO's `segmentation`: polygons and run lengths.

Run lengths count pixels down the columns, from the top left corner: first those
outside the mask, then those inside, and so on in turn. They are a list, or a text of
the same numbers: groups of five bits, the low ones first, each in a character from "0"
on; its sixth bit says that another group follows, and the highest bit of the last group
is the sign. From the fourth number on a number is the difference to the one two before.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from yolojax.data.json_fields import read_number

Corners = tuple[float, float, float, float]

# Far more than masks have; the arrays below take some 50 bytes for each of them.
MOST_RUNS = 2**21
MOST_NUMBERS = 2**18  # of all polygons of a mask
MOST_PIXELS = 2**40
_DEPTH = 3  # of lists: parts, points, coordinates
_GROUPS = 9  # of five bits, so that shifts stay within 63 bits


def mask_corners(segmentation: Any, size: tuple[int, int]) -> Corners:
    """x1 y1 x2 y2 around a mask.

    Args:
        segmentation: polygons, lists of `x y x y ...`; or an object with `counts` and
            `size`.
        size: (height, width) of the image.

    Raises:
        ValueError: it is neither, is empty, or is a mask of another size.
    """
    if isinstance(segmentation, dict):
        return _corners_of_runs(segmentation, size)
    if not isinstance(segmentation, list):
        raise ValueError("the segmentation is neither polygons nor run lengths")
    if is_too_long(segmentation):
        raise ValueError(f"the polygons have more than {MOST_NUMBERS:,} numbers")
    return _corners_of_polygons(segmentation)


def is_too_long(parts: list[Any]) -> bool:
    """Whether polygons have more numbers than we read, or more parts."""
    count = len(parts)
    for part in parts[:MOST_NUMBERS]:
        count += len(part) if isinstance(part, list) else 0
    return count > MOST_NUMBERS


def _corners_of_polygons(parts: list[Any]) -> Corners:
    if parts and not any(isinstance(part, list) for part in parts):
        parts = [parts]  # a single polygon without the list around it
    found = [np.fromiter(_numbers(part, _DEPTH), np.float64) for part in parts]
    for values in found:
        if len(values) % 2:
            raise ValueError(f"a polygon has {len(values)} numbers; expected pairs")
    points = np.concatenate([np.zeros(0), *found]).reshape(-1, 2)
    if not len(points):
        raise ValueError("the segmentation is empty")
    (x1, y1), (x2, y2) = points.min(axis=0), points.max(axis=0)
    return float(x1), float(y1), float(x2), float(y2)


def _numbers(value: Any, depth: int) -> Iterator[float]:
    """The numbers of nested lists, in order."""
    if isinstance(value, list) and depth:
        for item in value:
            yield from _numbers(item, depth - 1)
        return
    number = None if isinstance(value, list) else read_number(value)
    if number is None:
        raise ValueError("a polygon has something that is not a number")
    yield number


def _corners_of_runs(mask: dict[str, Any], size: tuple[int, int]) -> Corners:
    height, width = size
    given = mask.get("size")
    if given != [height, width]:
        raise ValueError(
            f"the mask's size [height, width] is not that of the image, {height} x "
            f"{width}"
        )
    counts = mask.get("counts")
    runs = _decode(counts) if isinstance(counts, str) else _checked(counts)
    if (runs < 0).any():
        raise ValueError("a run length is negative")
    if (runs > MOST_PIXELS).any() or int(runs.sum()) > height * width:
        raise ValueError(f"the run lengths exceed the mask's {height * width} pixels")
    ends = np.cumsum(runs)[1::2]
    inside = runs[1::2] > 0
    stops = ends[inside]
    starts = stops - runs[1::2][inside]
    if not len(stops):
        raise ValueError("the mask has no pixel")
    first, last = starts // height, (stops - 1) // height
    x1, x2 = int(first.min()), int(last.max()) + 1
    if (first < last).any():
        # A run over the foot of a column has the pixel below its head, and above.
        return float(x1), 0.0, float(x2), float(height)
    y1, y2 = int((starts % height).min()), int(((stops - 1) % height).max()) + 1
    return float(x1), float(y1), float(x2), float(y2)


def _checked(counts: Any) -> np.ndarray:
    """Run lengths that stand in a list, int64."""
    fine = isinstance(counts, list) and len(counts) <= MOST_RUNS
    if not fine or not all(type(count) is int for count in counts):
        raise ValueError("counts must be a text or a list of whole numbers")
    try:
        return np.array(counts, np.int64)
    except OverflowError as error:
        raise ValueError("a run length exceeds all images") from error


def _decode(text: str) -> np.ndarray:
    """Run lengths of a text, int64; see the module."""
    if len(text) > MOST_RUNS or not text.isascii():
        raise ValueError("counts is a text that is too long, or no run lengths")
    values = np.frombuffer(text.encode(), np.uint8).astype(np.int64) - ord("0")
    if (values < 0).any() or (values > 63).any() or (len(values) and values[-1] & 32):
        raise ValueError("counts is a text that holds no run lengths, or is cut short")
    ends = np.flatnonzero((values & 32) == 0)
    starts = np.concatenate([[0], ends[:-1] + 1]).astype(np.int64)[: len(ends)]
    groups = ends - starts + 1
    if (groups > _GROUPS).any():
        raise ValueError("a run length exceeds all images")
    place = np.arange(len(values)) - np.repeat(starts, groups)
    parts = (values & 31) << (5 * place)
    numbers = np.add.reduceat(parts, starts) if len(starts) else parts
    negative = (values[ends] & 16) != 0
    numbers = np.where(negative, numbers - (1 << (5 * groups)), numbers)
    numbers[1::2] = np.cumsum(numbers[1::2])
    numbers[2::2] = np.cumsum(numbers[2::2])
    return numbers
