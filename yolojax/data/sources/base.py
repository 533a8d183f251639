"""What the sources share: flat arrays of boxes, the rules that clean them, listing."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np

from yolojax.data.decode import ImageError, image_size
from yolojax.data.formats import (
    DOCUMENT_SUFFIXES,
    IMAGE_SUFFIXES,
    UnreadFormat,
    unread_format,
)
from yolojax.data.numbering import image_ids_in_natural_order
from yolojax.data.polygons import as_column, clip_polygons
from yolojax.data.report import SHOWN, Report
from yolojax.data.walking import walk
from yolojax.records import DECODING, Decoding, Example, Id

# Those of formats that are not read are listed, too, so that each is reported.
PICTURE_SUFFIXES = IMAGE_SUFFIXES

# Arguments of sources that are paths, taken relative to `data.root`.
PATHS = ("yaml", "images", "annotations", "root", "csv", "classes_from")

MIN_SIDE = 1e-3  # pixels; a thinner box has no area
ROUNDING = 0.01  # share of a side by which rounding may push a box out (or 1 px)

# Files are waited for, not computed on, so more threads than cores.
NUM_READERS = 8

Item = TypeVar("Item")
Result = TypeVar("Result")

# Row of a box -> its file, its line if any, and a word on which box it is.
Where = Callable[[int], tuple[str, int | None, str]]


class Source(Protocol):
    """A data set: labelled pictures by index.

    Attributes:
        class_names: what the labels 0, 1, ... stand for.
        category_ids: the classes' ids in the source's own numbering.
        report: what was wrong with the labels.
    """

    class_names: tuple[str, ...]
    report: Report

    @property
    def category_ids(self) -> tuple[Id, ...]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Example: ...


@dataclasses.dataclass(frozen=True)
class Annotations:
    """All boxes of a source in flat arrays, a row a box.

    Attributes:
        boxes: float64 [m, 4], corners in pixels.
        labels: int32 [m].
        crowd: bool [m].
        areas: float64 [m], square pixels; NaN: the area of the box.
        picture: int64 [m], index of the picture.
        polygons: object [m], a tuple of float32 [k, 2] each, see `Example.polygons`;
            None: not read.
    """

    boxes: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray
    areas: np.ndarray
    picture: np.ndarray
    polygons: np.ndarray | None = None

    @classmethod
    def from_rows(
        cls,
        rows: Sequence[tuple[int, int, bool, float, Sequence[float]]],
        polygons: Sequence[Sequence[np.ndarray]] | None = None,
    ) -> Annotations:
        """From one (picture, label, crowd, area, corners) a box, and its polygons."""
        picture, labels, crowd, areas, boxes = (
            zip(*rows, strict=True) if rows else [()] * 5
        )
        return cls(
            np.array(boxes, np.float64).reshape(-1, 4),
            np.array(labels, np.int32),
            np.array(crowd, bool),
            np.array(areas, np.float64),
            np.array(picture, np.int64),
            None if polygons is None else as_column(polygons),
        )

    def take(self, rows: np.ndarray) -> Annotations:
        """The boxes that a mask or an index array selects."""
        return Annotations(
            self.boxes[rows],
            self.labels[rows],
            self.crowd[rows],
            self.areas[rows],
            self.picture[rows],
            None if self.polygons is None else self.polygons[rows],
        )


def clean(
    found: Annotations, sizes: np.ndarray, where: Where, report: Report
) -> Annotations:
    """The boxes that make sense, clipped to their pictures; the rest is reported.

    Dropped: boxes that are not finite, have corners out of order, no area, lie
    outside their picture, or repeat another of the same picture and class. A box
    that juts out by at most a pixel or 1 % of the side, as by rounding, is clipped
    and only counted; by more, clipped and reported.

    Args:
        found: the boxes as read.
        sizes: [pictures, 2], (height, width).
        where: tells the place of a row.
        report: takes what was found.
    """
    x1, y1, x2, y2 = boxes = found.boxes.T
    height, width = sizes.reshape(-1, 2)[found.picture].astype(np.float64).T
    keep = np.ones(len(found.labels), bool)

    def tell(kind: str, wrong: Any, expected: str, fate: str) -> None:
        rows = np.flatnonzero(wrong & keep)
        for row in rows[:SHOWN]:
            file, line, which = where(int(row))
            came = " ".join(f"{value:.6g}" for value in boxes[:, row])
            size = f"{width[row]:.0f} x {height[row]:.0f}"
            report.add(
                kind,
                file,
                line,
                f"{which}expected {expected}, came x1 y1 x2 y2 = {came} px in a "
                f"picture of {size}; {fate}",
            )
        report.add_uncited(kind, len(rows) - SHOWN)

    def drop(kind: str, wrong: Any, expected: str) -> None:
        tell(kind, wrong, expected, "dropped")
        keep[wrong] = False

    drop("box that is not finite", ~np.isfinite(boxes).all(0), "finite numbers")
    with np.errstate(invalid="ignore"):
        drop("box with corners out of order", (x2 < x1) | (y2 < y1), "x1 < x2, y1 < y2")
        thin = np.minimum(x2 - x1, y2 - y1) < MIN_SIDE
        drop("box without area", thin, "some width and height")
        limits = np.stack([width, height, width, height])
        clipped = np.clip(boxes, 0.0, limits)
        inside = np.minimum(clipped[2] - clipped[0], clipped[3] - clipped[1])
        drop("box outside its picture", inside < MIN_SIDE, "a box in the picture")
        over = np.abs(boxes - clipped)
        far = (over > np.maximum(1.0, ROUNDING * limits)).any(0)
        near = (over > MIN_SIDE).any(0) & ~far & keep
    tell("box partly outside its picture", far, "a box in the picture", "clipped")
    report.note("box clipped by a rounding error", int(near.sum()))

    rounded = clipped.astype(np.float32)
    drop("box given twice", _repeats(found, rounded, keep), "each box once")
    areas = np.where(
        np.isnan(found.areas),
        (clipped[2] - clipped[0]) * (clipped[3] - clipped[1]),
        found.areas,
    )
    return dataclasses.replace(found, boxes=rounded.T, areas=areas).take(keep)


def _repeats(found: Annotations, boxes: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """bool [m]: the row equals an earlier row that is kept."""
    rows = np.flatnonzero(keep)
    columns = [*boxes, found.crowd, found.labels, found.picture]
    # A stable sort brings equal rows together, the first one first.
    order = rows[np.lexsort([column[rows] for column in columns])]
    same = np.ones(max(len(order) - 1, 0), bool)
    for column in columns:
        same &= column[order[1:]] == column[order[:-1]]
    repeats = np.zeros(len(keep), bool)
    repeats[order[1:][same]] = True
    return repeats


class LabelledPictures:
    """Pictures on disk with their boxes in memory.

    A data set without ids of its own has those that `predict` gives to the files.

    Attributes: those of `Source`, and
        decoding: what its examples have; may be set once the images are looked at.

    Raises:
        ValueError: there is no picture.
    """

    decoding: Decoding = DECODING

    def __init__(
        self,
        *,
        paths: Sequence[str],
        ids: Sequence[Id] | None = None,
        sizes: Sequence[tuple[int, int]],
        annotations: Annotations,
        where: Where,
        class_names: Sequence[str],
        category_ids: Sequence[Id],
        report: Report,
    ) -> None:
        if not paths:
            raise ValueError(f"not one picture can be used:\n{report.render()}")
        self.class_names = tuple(class_names)
        self.category_ids = tuple(category_ids)
        self.report = report
        self._paths = list(paths)
        self._ids = image_ids_in_natural_order(paths) if ids is None else list(ids)
        self._sizes = np.array(sizes, np.int32).reshape(-1, 2)
        kept = clean(annotations, self._sizes, where, report)
        # Stable, so that the order within a picture stays.
        kept = kept.take(np.argsort(kept.picture, kind="stable"))
        self._boxes = np.ascontiguousarray(kept.boxes, np.float32)
        self._labels = kept.labels
        self._crowd = kept.crowd
        self._areas = kept.areas.astype(np.float32)
        self._starts = np.searchsorted(kept.picture, np.arange(len(paths) + 1))
        self._polygons = None
        if kept.polygons is not None:
            clipped = clip_polygons(kept.polygons, self._sizes, kept.picture)
            self._polygons = clipped
            boxes = sum(not parts for parts in clipped[~kept.crowd])
            report.note("box without a polygon, taken as its outline", boxes)

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int, /) -> Example:
        index = range(len(self))[index]
        rows = slice(self._starts[index], self._starts[index + 1])
        height, width = self._sizes[index].tolist()
        return Example(
            image=self._paths[index],
            boxes=self._boxes[rows].copy(),
            labels=self._labels[rows].copy(),
            crowd=self._crowd[rows].copy(),
            areas=self._areas[rows].copy(),
            image_id=self._ids[index],
            size=(height, width),
            name=self._paths[index],
            polygons=None if self._polygons is None else tuple(self._polygons[rows]),
            decoding=self.decoding,
        )


def list_pictures(folder: Path, report: Report) -> list[str]:
    """Paths of the pictures below a folder, sorted; told by their extension.

    Links to folders are followed, see `walk`. Images of formats that are not read are
    listed, so that each is reported. Hidden files, such as the `._` stubs of macOS, are
    left out and counted; documents and icons (PDF, SVG, ICO) are left out and noted.
    """
    paths, hidden = [], 0
    for parent, names in walk(folder, report, suffixes=PICTURE_SUFFIXES):
        for name in names:
            suffix = os.path.splitext(name)[1].lower()
            if suffix in PICTURE_SUFFIXES:
                if name.startswith("."):
                    hidden += 1
                else:
                    paths.append(os.path.join(parent, name))
            elif suffix in DOCUMENT_SUFFIXES and not name.startswith("."):
                report.note(
                    "document left out",
                    file=os.path.join(parent, name),
                    message=str(UnreadFormat(unread_format(b"", suffix))),
                )
    report.note("hidden file left out", hidden)
    return sorted(paths)


def read_sizes(paths: Iterable[str], report: Report) -> list[tuple[int, int] | None]:
    """(height, width) of each picture as shown; None, and reported, if unreadable."""

    def read(path: str) -> tuple[int, int] | ImageError:
        try:
            return image_size(path)
        except ImageError as error:
            return error

    sizes = []
    for path, size in zip(paths, in_threads(read, paths), strict=True):
        if isinstance(size, ImageError):
            reason = str(size).removeprefix(f"{path}: ")
            report.add("unreadable picture", path, None, f"{reason}; left out")
        sizes.append(None if isinstance(size, ImageError) else size)
    return sizes


def in_threads(
    function: Callable[[Item], Result], items: Iterable[Item]
) -> list[Result]:
    """The function's result for each item, in order; meant for small files."""
    items = list(items)
    # Handing over a single item costs more than a small file takes.
    chunks = [items[start : start + 64] for start in range(0, len(items), 64)]
    with ThreadPoolExecutor(NUM_READERS) as pool:
        parts = pool.map(lambda chunk: [function(item) for item in chunk], chunks)
        return [result for part in parts for result in part]


# What to do where the files of a data set are not found.
SET_ROOT = "set config.data.root (evaluate: --data_root)"


def describe(path: Path) -> str:
    """What lies at a path, or in its nearest folder that exists, for a message.

    Where no folder of the path exists, what lies beside would say nothing: the first
    that is missing is named.
    """
    missing = start = path
    # os.path.exists, unlike Path.exists, takes names that are too long.
    while not os.path.exists(path) and path != path.parent:
        missing, path = path, path.parent
    if path == path.parent and missing != start:
        return f"there is no folder {missing}"
    if path.is_file():
        return f"{path} is a file"
    if not path.is_dir():
        return f"{path} is not a regular file"
    names = sorted(p.name + "/" * p.is_dir() for p in path.iterdir())
    shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" * (len(names) > 8))
    return f"{path} holds {shown or 'nothing'}"
