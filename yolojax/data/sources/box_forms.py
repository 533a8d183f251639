"""What the four numbers of a box are: pixels or shares, sides or a second corner.

A label file uses one form for all its boxes, so that all of them together tell which.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from yolojax.data.polygons import as_column
from yolojax.data.report import Report
from yolojax.data.sources.base import MIN_SIDE, ROUNDING, Annotations

# Numbers up to the first are shares of an image whose sides are as long as the second.
_ONE, _SHORTEST = 1.001, 16
# When corners are read as x y width height, this part of the boxes or more leaves its
# image.
_MANY_OUTSIDE = 0.3


def in_pixels(
    found: Annotations,
    of_mask: np.ndarray,
    sizes: Sequence[tuple[int, int]],
    name: Callable[[int], str],
    file: Path,
    report: Report,
) -> tuple[np.ndarray, Annotations]:
    """Boxes in pixels, where a file gives them in shares of the image.

    The file decides: where some boxes are larger than a pixel, all are in pixels, and
    those within the first pixel are left out.

    Args:
        found: the boxes as read.
        of_mask: bool [m], boxes that are of a mask, and thus corners in any case.
        sizes: (height, width) of each image.
        name: what the report calls the box of a row.
        file: the label file.
        report: takes what was found.

    Returns:
        bool [m], which boxes to keep, and the boxes.

    Raises:
        ValueError: boxes in shares that need not be x y width height.
    """
    scales = _limits(found, sizes)
    usable, corner, side = _corner_and_side(found)
    values = np.concatenate([corner, side], axis=1)
    within = _all((values >= 1 - _ONE) & (values <= _ONE))
    shares = usable & within & _all(scales >= _SHORTEST)
    if not shares.any():
        return np.ones(len(usable), bool), found
    if shares.sum() < usable.sum():
        for row in np.flatnonzero(shares).tolist():
            came = " ".join(f"{value:.6g}" for value in values[row])
            message = f"{name(row)}: came x y width height = {came}, which is less "
            message += "than a pixel; are these shares of the image? dropped"
            report.add("box within the first pixel", file, None, message)
        return ~shares, found
    corner, side = (part[shares & ~of_mask] for part in (corner, side))
    fits = (corner + side <= _ONE).all()
    low, high = corner - side / 2, corner + side / 2
    centred = (low >= 1 - _ONE).all() and (high <= _ONE).all()
    cornered = (side > corner).all()
    if len(corner) and not (fits and not centred and not cornered):
        why = "could also be centres or second corners" if fits else "do not fit as"
        why += ", not only" if fits else ""
        raise ValueError(
            f"{file}: all {shares.sum()} boxes lie in [0, 1], as shares of the image, "
            f"and {why} x y width height; write bbox as x, y, width, height in pixels"
        )
    message = f"all {shares.sum()} boxes lie in [0, 1]; they are taken times the "
    message += "width and height of their image"
    report.note("file with boxes in shares of the image", file=file, message=message)
    return np.ones(len(usable), bool), _scaled(found, scales)


def _scaled(found: Annotations, scales: np.ndarray) -> Annotations:
    polygons = found.polygons
    if polygons is not None:
        polygons = as_column(
            [
                [part * scale[:2].astype(np.float32) for part in parts]
                if all((np.abs(part) <= _ONE).all() for part in parts)
                else parts
                for parts, scale in zip(polygons, scales, strict=True)
            ]
        )
    areas = np.full_like(found.areas, np.nan)
    boxes = found.boxes * scales
    return dataclasses.replace(found, boxes=boxes, areas=areas, polygons=polygons)


def check_sides(
    found: Annotations, sizes: Sequence[tuple[int, int]], file: Path
) -> None:
    """Check that boxes of sides were not written as two corners, x1 y1 x2 y2.

    Args:
        found: the boxes, read as x y width height.
        sizes: (height, width) of each image.
        file: the label file.

    Raises:
        ValueError: all fit as corners, and either many leave their image when they are
            read as x y width height, or their areas are those of corners.
    """
    usable, corner, side = _corner_and_side(found)
    limits = _limits(found, sizes)[:, :2]
    as_corners = _all((side > corner) & (side <= limits + 1))
    if not usable.any() or not as_corners[usable].all():
        return
    slack = np.maximum(1.0, ROUNDING * limits)
    outside = ~_all(corner + side <= limits + slack)[usable]
    many = len(outside) > 1 and outside.mean() >= _MANY_OUTSIDE
    known = usable & (found.areas > 0)
    area, of_sides = found.areas[known], side[known].prod(1)
    of_corners = (side - corner)[known].prod(1)
    agree = np.isclose(area, of_corners, 1e-3) & ~np.isclose(area, of_sides, 2e-3)
    if many or (len(area) and agree.all()):
        raise ValueError(
            f"{file}: bbox looks like x1, y1, x2, y2: "
            + (f"{outside.sum()} of {len(outside)} boxes leave" if many else "")
            + (" their image" if many else "the areas are those of such boxes")
            + " when they are read as COCO's x, y, width, height. Write x2 - x1 and "
            "y2 - y1 in the last two places; if they are right, clip the boxes to "
            "their images"
        )


def _corner_and_side(
    found: Annotations,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which boxes have an extent, bool [m]; `x y` and `width height` of all."""
    corner = np.where(np.isfinite(found.boxes[:, :2]), found.boxes[:, :2], 0.0)
    far = np.where(np.isfinite(found.boxes[:, 2:]), found.boxes[:, 2:], 0.0)
    side = far - corner
    long = np.tile(side, 2) > MIN_SIDE
    usable = _all(np.isfinite(found.boxes) & long)
    return usable, corner, side


def _limits(found: Annotations, sizes: Sequence[tuple[int, int]]) -> np.ndarray:
    """Width, height, width, height of each box's image, float64 [m, 4]."""
    shapes = np.array(sizes, np.float64).reshape(-1, 2)[found.picture]
    return np.concatenate([shapes[:, ::-1]] * 2, axis=1)


def _all(mask: np.ndarray) -> np.ndarray:
    """bool [m]: the row is true throughout."""
    return np.asarray(mask.all(axis=1))
