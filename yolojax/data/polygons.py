"""Outlines of objects, from the lists that label files hold to rows of a batch."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

# More edges than these an outline does not have; longer ones are simplified. Polygons
# of people and animals then stay within about a pixel.
MOST_EDGES = 32
# A quadrilateral: the fewest that keep every simplified part within its box.
FEWEST_EDGES = 4
# Where simplifying starts, as a distance from the outline in pixels.
_TOLERANCE = 0.25


def read_polygon(values: Sequence[float]) -> np.ndarray:
    """float32 [k, 2] points of the numbers `x1 y1 x2 y2 ...`."""
    return np.asarray(values, np.float32).reshape(-1, 2)


def as_column(polygons: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
    """One object a row, for arrays that are indexed by the row of a box."""
    column = np.empty(len(polygons), object)
    for row, parts in enumerate(polygons):
        column[row] = tuple(parts)
    return column


def clip_polygons(
    polygons: np.ndarray, sizes: np.ndarray, picture: np.ndarray
) -> np.ndarray:
    """Polygons whose points lie in their pictures.

    Args:
        polygons: a tuple of float32 [k, 2] a row, in pixels.
        sizes: (height, width) of each picture.
        picture: index of each row's picture.
    """
    limits = sizes[:, ::-1].astype(np.float32)
    return as_column(
        [
            [np.clip(part, 0, limits[index]) for part in parts]
            for parts, index in zip(polygons, picture, strict=True)
        ]
    )


def count_edges(parts: Sequence[np.ndarray]) -> int:
    """How many edges an outline needs as it is; one of two points has none."""
    return sum(len(part) for part in parts if len(part) > 2)


def outline_edges(
    parts: Sequence[np.ndarray], box: np.ndarray, num_edges: int
) -> np.ndarray:
    """The edges of an object's outline.

    Args:
        parts: closed polygons, float32 [k, 2]; the object is what lies inside of an odd
            number of them.
        box: float32 [4], taken for an object of no part.
        num_edges: rows of the result, at least 4. An outline that has more is
            simplified: points are left out that are near to the line between their
            neighbours, but none at which it touches its box; of more parts than fit,
            the largest stay.

    Returns:
        float32 [num_edges, 4], `x1 y1 x2 y2` each; rows that are not needed hold edges
        without length.
    """
    if count_edges(parts) > num_edges:
        parts = _simplified(parts, num_edges)
    parts = [part for part in parts if len(part) > 2]
    if not parts:
        x1, y1, x2, y2 = box
        parts = [np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]], np.float32)]
    edges = np.concatenate(
        [np.concatenate([part, np.roll(part, -1, axis=0)], axis=1) for part in parts]
    )
    padded = np.empty((num_edges, 4), np.float32)
    padded[: len(edges)] = edges
    padded[len(edges) :] = np.tile(edges[-1, 2:], 2)
    return padded


def _simplified(parts: Sequence[np.ndarray], num_edges: int) -> list[np.ndarray]:
    """The parts with no more than so many points together."""
    by_area = sorted(parts, key=lambda part: -abs(cv2.contourArea(part)))
    parts = by_area[: num_edges // FEWEST_EDGES]
    tolerance = _TOLERANCE
    simple = parts
    while count_edges(simple) > num_edges:
        simple = [_approximate(part, tolerance) for part in parts]
        tolerance *= 1.5
    return simple


def _approximate(part: np.ndarray, tolerance: float) -> np.ndarray:
    """The polygon by fewer points, its four extremes among them."""
    extremes = np.unique(np.concatenate([part.argmin(axis=0), part.argmax(axis=0)]))
    pieces = []
    for start, stop in zip(extremes, np.roll(extremes, -1), strict=True):
        stop = stop if stop > start else stop + len(part)
        arc = part.take(np.arange(start, stop + 1), axis=0, mode="wrap")
        points = cv2.approxPolyDP(arc[:, None], tolerance, closed=False)
        pieces.append(points[:-1, 0])
    return np.concatenate(pieces)
