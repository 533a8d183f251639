"""The usual input pipeline of a detector, for comparison: all of it on the CPU.

For each sample four pictures are decoded and laid into a mosaic of twice the size, one
affine warp brings it back to size, then follow HSV, a flip and the order that the
network wants. Worker processes make whole batches and leave them in shared memory.
"""

from __future__ import annotations

import multiprocessing
from multiprocessing.shared_memory import SharedMemory
from types import TracebackType
from typing import Any

import cv2
import numpy as np

_GREY = 114
_AHEAD = 2  # batches that each worker prepares, as usual


def load_sample(
    paths: list[str], boxes: np.ndarray, size: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """One augmented sample: mosaic, affine, flip, HSV.

    Args:
        paths: all pictures.
        boxes: float32 [pictures, n, 4], corners in pixels.
        size: side of the result in pixels.
        rng: decides everything.

    Returns:
        uint8 RGB [3, size, size], and boxes float32 [4 n, 4].
    """
    canvas, corners = _mosaic(paths, boxes, size, rng)
    matrix = _affine(size, rng)
    picture = cv2.warpAffine(
        canvas, matrix[:2], (size, size), borderValue=(_GREY, _GREY, _GREY)
    )
    corners = _warp_boxes(corners, matrix, size)
    _shift_hsv(picture, rng)
    if rng.random() < 0.5:
        picture = np.fliplr(picture)
        corners[:, [0, 2]] = size - corners[:, [2, 0]]
    return np.ascontiguousarray(picture.transpose(2, 0, 1)[::-1]), corners


def _mosaic(
    paths: list[str], boxes: np.ndarray, size: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    centre_y, centre_x = rng.integers(size // 2, size + size // 2, 2)
    canvas = np.full((2 * size, 2 * size, 3), _GREY, np.uint8)
    corners = []
    for place, index in enumerate(rng.integers(len(paths), size=4)):
        picture = cv2.imread(paths[index])
        assert picture is not None, paths[index]
        scale = size / max(picture.shape[:2])
        if scale != 1:
            shape = (round(picture.shape[1] * scale), round(picture.shape[0] * scale))
            method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
            picture = cv2.resize(picture, shape, interpolation=method)
        height, width = picture.shape[:2]
        top = centre_y - height if place < 2 else centre_y
        left = centre_x - width if place % 2 == 0 else centre_x
        y1, y2 = max(top, 0), min(top + height, 2 * size)
        x1, x2 = max(left, 0), min(left + width, 2 * size)
        canvas[y1:y2, x1:x2] = picture[y1 - top : y2 - top, x1 - left : x2 - left]
        corners.append(boxes[index] * scale + (left, top, left, top))
    return canvas, np.concatenate(corners).clip(0, 2 * size)


def _affine(size: int, rng: np.random.Generator) -> np.ndarray:
    scale = rng.uniform(0.5, 1.5)
    move = rng.uniform(0.4, 0.6, 2) * size - scale * size
    return np.array([[scale, 0, move[0]], [0, scale, move[1]], [0, 0, 1]])


def _warp_boxes(corners: np.ndarray, matrix: np.ndarray, size: int) -> np.ndarray:
    """The boxes' four corners through the matrix, what encloses them, clipped."""
    points = corners[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 2)
    points = np.concatenate([points, np.ones((len(points), 1))], axis=1) @ matrix.T
    points = points[:, :2].reshape(-1, 4, 2)
    boxes = np.concatenate([points.min(axis=1), points.max(axis=1)], axis=1)
    return boxes.clip(0, size).astype(np.float32)


def _shift_hsv(picture: np.ndarray, rng: np.random.Generator) -> None:
    """In place, by look-up tables."""
    hue, saturation, value = rng.uniform(-1, 1, 3) * (0.015, 0.7, 0.4) + 1
    levels = np.arange(256)
    tables = (
        (levels * hue % 180).astype(np.uint8),
        np.clip(levels * saturation, 0, 255).astype(np.uint8),
        np.clip(levels * value, 0, 255).astype(np.uint8),
    )
    planes = cv2.split(cv2.cvtColor(picture, cv2.COLOR_BGR2HSV))
    planes = [cv2.LUT(p, table) for p, table in zip(planes, tables, strict=True)]
    cv2.cvtColor(cv2.merge(planes), cv2.COLOR_HSV2BGR, dst=picture)


def _work(
    tasks: Any, results: Any, paths: list[str], boxes: np.ndarray, size: int, name: str
) -> None:
    cv2.setNumThreads(0)
    memory = SharedMemory(name)
    batches = np.ndarray(
        (memory.size // (3 * size * size), 3, size, size), np.uint8, memory.buf
    )
    results.put((-1, None))
    while (task := tasks.get()) is not None:
        slot, count, seed = task
        rng = np.random.default_rng(seed)
        labels = []
        for row in range(slot * count, (slot + 1) * count):
            batches[row], corners = load_sample(paths, boxes, size, rng)
            labels.append(corners)
        results.put((slot, labels))
    del batches
    memory.close()


class CpuPipeline:
    """Worker processes that make batches; to be used in a `with`."""

    def __init__(
        self,
        paths: list[str],
        boxes: np.ndarray,
        *,
        size: int,
        batch_size: int,
        num_workers: int,
    ):
        self._batch_size = batch_size
        self._seed = 0
        self._slots = num_workers * _AHEAD
        self._memory = SharedMemory(
            create=True, size=self._slots * batch_size * 3 * size * size
        )
        context = multiprocessing.get_context("spawn")
        self._tasks, self._results = context.Queue(), context.Queue()
        self._workers = [
            context.Process(
                target=_work,
                args=(
                    *(self._tasks, self._results),
                    *(paths, boxes, size, self._memory.name),
                ),
            )
            for _ in range(num_workers)
        ]
        for worker in self._workers:
            worker.start()
        for _ in self._workers:
            self._results.get()

    def run(self, num_batches: int) -> None:
        """Makes so many batches, from an empty queue on."""
        for slot in range(min(self._slots, num_batches)):
            self._order(slot)
        for done in range(num_batches):
            slot, labels = self._results.get()
            assert len(labels) == self._batch_size
            if done + self._slots < num_batches:
                self._order(slot)

    def _order(self, slot: int) -> None:
        self._seed += 1
        self._tasks.put((slot, self._batch_size, self._seed))

    def __enter__(self) -> CpuPipeline:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for _ in self._workers:
            self._tasks.put(None)
        for worker in self._workers:
            worker.join()
        self._memory.close()
        self._memory.unlink()
