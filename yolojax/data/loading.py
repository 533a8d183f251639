"""Pictures decoded by threads straight into the arrays of a batch.

Both OpenCV and libjpeg let go of the interpreter's lock, and no picture is copied to be
stacked.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from yolojax.data.polygons import outline_edges
from yolojax.data.sources.base import Source
from yolojax.ops.letterbox import Letterbox, letterbox_origin
from yolojax.records import Batch, Example

Indices = Sequence[int] | np.ndarray
Origin = tuple[float, float, float, float]


class Counts(NamedTuple):
    """What preparing pictures took, added up over threads and pictures."""

    pictures: int
    decode_seconds: float
    boxes_cut: int


@dataclasses.dataclass(frozen=True)
class Layout:
    """How a picture comes to lie in a batch.

    Attributes:
        image_size: (height, width) of the batch's pictures.
        max_boxes: rows for boxes of each picture.
        fill: grey level beside the picture.
        place: (height, width) of the original -> where it goes.
        read: (index, example, size, out) puts the picture into `out`, uint8 RGB
            [*size, 3].
        origin: (height, width) of the original, its place -> `Batch.origin`.
        num_edges: of each outline in `Batch.polygons`; 0: none.
    """

    image_size: tuple[int, int]
    max_boxes: int
    fill: int
    place: Callable[[tuple[int, int]], Letterbox]
    read: Callable[[int, Example, tuple[int, int], np.ndarray], object]
    origin: Callable[[tuple[int, int], Letterbox], Origin] = letterbox_origin
    num_edges: int = 0

    def empty(self, rows: int) -> Batch:
        """A batch of padded rows, whose pictures are not yet written."""
        return Batch(
            image=np.empty((rows, *self.image_size, 3), np.uint8),
            size=np.zeros((rows, 2), np.int32),
            boxes=np.zeros((rows, self.max_boxes, 4), np.float32),
            labels=np.zeros((rows, self.max_boxes), np.int32),
            valid=np.zeros((rows, self.max_boxes), np.bool_),
            image_id=np.full((rows,), -1, np.int32),
            origin=np.tile(np.array([1, 1, 0, 0], np.float32), (rows, 1)),
            polygons=np.zeros((rows, self.max_boxes, self.num_edges, 4), np.float32),
            left_out=np.zeros((rows, 0, 4), np.float32),
        )


class Loader:
    """Decodes pictures of a source into batches, in threads."""

    def __init__(self, source: Source, num_threads: int):
        if num_threads < 1:
            raise ValueError(f"num_threads must be at least 1, not {num_threads}")
        self._source = source
        self._pool = ThreadPoolExecutor(num_threads, thread_name_prefix="decode")

    def start(
        self, indices: Indices, layout: Layout
    ) -> tuple[Batch, list[Future[Counts]]]:
        """A batch to be filled, and the work that fills it; index -1 is padding."""
        batch = layout.empty(len(indices))
        work = [
            self._pool.submit(self._fill, batch, row, int(index), layout)
            for row, index in enumerate(indices)
        ]
        return batch, work

    def load(self, indices: Indices, layout: Layout) -> tuple[Batch, Counts]:
        """The batch of these pictures, and what it took."""
        return finish(*self.start(indices, layout))

    def close(self) -> None:
        """Let the threads go; work not yet begun is dropped."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _fill(self, batch: Batch, row: int, index: int, layout: Layout) -> Counts:
        if index < 0:
            batch.image[row] = layout.fill
            return Counts(0, 0.0, 0)
        start = time.perf_counter()
        example = self._source[index]
        place = layout.place(example.size)
        area = _fill_around(batch.image[row], place, layout.fill)
        if min(place.offset) < 0:
            whole = np.empty((*place.size, 3), np.uint8)
            layout.read(index, example, place.size, whole)
            top, left = (max(0, -offset) for offset in place.offset)
            area[...] = whole[top:, left:][: area.shape[0], : area.shape[1]]
        else:
            layout.read(index, example, place.size, area)
        origin = layout.origin(example.size, place)
        boxes_cut = _write_boxes(batch, row, example, origin)
        batch.size[row] = area.shape[:2]
        batch.image_id[row] = index
        batch.origin[row] = origin
        return Counts(1, time.perf_counter() - start, boxes_cut)


def finish(batch: Batch, work: list[Future[Counts]]) -> tuple[Batch, Counts]:
    """The batch of `Loader.start` once its work is done, and what that took."""
    return batch, added([part.result() for part in work])


def added(parts: Sequence[Counts]) -> Counts:
    """The sums of all counts."""
    return Counts(*(sum(values) for values in zip(*parts, strict=True)))


def _fill_around(canvas: np.ndarray, place: Letterbox, fill: int) -> np.ndarray:
    """Write what lies around the picture; returns the part that it will take."""
    bottom, right = (sum(ends) for ends in zip(place.offset, place.size, strict=True))
    top, left = (max(0, offset) for offset in place.offset)
    canvas[:top] = fill
    canvas[bottom:] = fill
    canvas[top:bottom, :left] = fill
    canvas[top:bottom, right:] = fill
    return canvas[top:bottom, left:right]


def _write_boxes(
    batch: Batch,
    row: int,
    example: Example,
    origin: Origin,
) -> int:
    """Write the boxes that training uses; returns how many found no row."""
    y_scale, x_scale, top, left = origin
    scale = np.array([x_scale, y_scale, x_scale, y_scale], np.float32)
    offset = np.array([left, top, left, top], np.float32)
    boxes = np.asarray(example.boxes, np.float32).reshape(-1, 4) * scale + offset
    sides = boxes[:, 2:] - boxes[:, :2]
    # NaN fails the comparison as well.
    use = ~example.crowd & (sides > 0).all(axis=1) & np.isfinite(boxes).all(axis=1)
    boxes, labels = boxes[use], example.labels[use]
    count = min(len(boxes), batch.boxes.shape[1])
    batch.boxes[row, :count] = boxes[:count]
    batch.labels[row, :count] = labels[:count]
    batch.valid[row, :count] = True
    num_edges = batch.polygons.shape[2]
    for place, index in enumerate(np.flatnonzero(use)[:count] if num_edges else ()):
        parts = example.polygons[index] if example.polygons else ()
        edges = outline_edges(parts, example.boxes[index], num_edges)
        batch.polygons[row, place] = edges * scale + offset
    return len(boxes) - count
