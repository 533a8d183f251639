"""Batches of decoded pictures: endless and shuffled to train, in order to evaluate.

Grain does the index arithmetic, prepares batches ahead of use and keeps the state that
a checkpoint saves. One element of its stream is a whole batch, whose pictures a pool of
threads decodes straight into one array: both OpenCV and libjpeg let go of the
interpreter's lock, and no picture is copied to be stacked. Augmentation is not done
here but on the device.
"""

from __future__ import annotations

import collections
import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import grain
import numpy as np

from yolojax.data.cache import CACHES, Cache, read_picture
from yolojax.data.sampling import Stream, shard_rows
from yolojax.data.sources.base import Source
from yolojax.lookup import pick
from yolojax.ops.letterbox import Letterbox, letterbox_origin, letterbox_shape
from yolojax.records import Batch, Example

Indices = Sequence[int] | np.ndarray

# Batches prepared ahead; more only costs memory once decoding keeps up on average.
_AHEAD = 2
# Grey of the published letterbox.
_GREY = 114


class Counts(NamedTuple):
    """What preparing pictures took, added up over threads and pictures."""

    pictures: int
    decode_seconds: float
    boxes_cut: int


@dataclasses.dataclass(frozen=True)
class _Layout:
    """How a picture comes to lie in a batch.

    Attributes:
        image_size: (height, width) of the batch's pictures.
        max_boxes: rows for boxes of each picture.
        fill: grey level beside the picture.
        place: (height, width) of the original -> where it goes.
        read: (index, example, size) -> uint8 RGB [*size, 3].
    """

    image_size: tuple[int, int]
    max_boxes: int
    fill: int
    place: Callable[[tuple[int, int]], Letterbox]
    read: Callable[[int, Example, tuple[int, int]], np.ndarray]

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
        )


class _Loader:
    """Decodes pictures of a source into batches, in threads."""

    def __init__(self, source: Source, layout: _Layout, num_threads: int):
        if num_threads < 1:
            raise ValueError(f"num_threads must be at least 1, not {num_threads}")
        self._source = source
        self._layout = layout
        self._pool = ThreadPoolExecutor(num_threads, thread_name_prefix="decode")

    def start(self, indices: Indices) -> tuple[Batch, list[Future[Counts]]]:
        """A batch to be filled, and the work that fills it; index -1 is padding."""
        batch = self._layout.empty(len(indices))
        work = [
            self._pool.submit(self._fill, batch, row, int(index))
            for row, index in enumerate(indices)
        ]
        return batch, work

    def load(self, indices: Indices) -> tuple[Batch, Counts]:
        """The batch of these pictures, and what it took."""
        return _finish(*self.start(indices))

    def close(self) -> None:
        """Let the threads go; work not yet begun is dropped."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _fill(self, batch: Batch, row: int, index: int) -> Counts:
        if index < 0:
            batch.image[row] = self._layout.fill
            return Counts(0, 0.0, 0)
        start = time.perf_counter()
        example = self._source[index]
        place = self._layout.place(example.size)
        picture = self._layout.read(index, example, place.size)
        _write_picture(batch.image[row], picture, place, self._layout.fill)
        origin = letterbox_origin(example.size, place)
        boxes_cut = _write_boxes(batch, row, example, origin)
        batch.size[row] = place.size
        batch.image_id[row] = index
        batch.origin[row] = origin
        return Counts(1, time.perf_counter() - start, boxes_cut)


class TrainBatches(Iterator[Batch]):
    """The endless stream of training batches; made by `make_train_batches`.

    Attributes:
        steps_per_epoch: batches an epoch.
        max_boxes: rows for boxes of each picture.
        cache_bytes_estimate: bytes of memory that the cache will come to take.
        grain_iterator: Grain's iterator underneath, for Orbax's Grain handler; it
            yields pairs of `Batch` and `Counts`.
    """

    def __init__(
        self,
        loader: _Loader,
        stream: Stream,
        rows: slice,
        keep: np.ndarray,
        *,
        max_boxes: int,
        cache: Cache,
        cache_bytes_estimate: int,
        start_step: int,
    ):
        self.steps_per_epoch = stream.steps_per_epoch
        self.max_boxes = max_boxes
        self.cache_bytes_estimate = cache_bytes_estimate
        self._loader = loader
        self._cache = cache
        self._counts = Counts(0, 0.0, 0)
        self._batches = 0
        self._wait_seconds = 0.0
        steps = grain.MapDataset.range(2**40).map(
            lambda step: loader.load(keep[stream.places(int(step))[rows]])
        )
        # As many threads as batches: these only wait for those that decode.
        ahead = grain.ReadOptions(num_threads=_AHEAD, prefetch_buffer_size=_AHEAD)
        self.grain_iterator = iter(steps.to_iter_dataset(ahead))
        self.set_state({"next_index": start_step})

    def __next__(self) -> Batch:
        """The next batch.

        Raises:
            ImageError: a picture cannot be read any more; the message names it.
        """
        start = time.perf_counter()
        batch, counts = next(self.grain_iterator)
        self._wait_seconds += time.perf_counter() - start
        self._batches += 1
        self._counts = _added([self._counts, counts])
        return batch

    def get_state(self) -> dict[str, Any]:
        """Where the stream stands, as plain values that JSON can hold.

        It counts the batches handed out, not those prepared ahead.
        """
        return self.grain_iterator.get_state()

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on where `get_state` was called, on this stream or an equal one."""
        self.grain_iterator.set_state(state)

    @property
    def stats(self) -> dict[str, float]:
        """Sums over the batches handed out since this object was made.

        Returns:
            `batches`; `pictures`; `boxes_cut`, boxes left out since their picture has
            more than `max_boxes`; `decode_seconds`, of all threads together;
            `wait_seconds`, for which `next` made its caller wait; `cache_bytes`, held
            in memory now.
        """
        return {
            "batches": self._batches,
            **self._counts._asdict(),
            "wait_seconds": self._wait_seconds,
            "cache_bytes": self._cache.num_bytes,
        }

    def close(self) -> None:
        """Stop preparing batches; the stream cannot be read any more."""
        self.grain_iterator.close()
        self._loader.close()


class EvalBatches:
    """One pass over pictures in order; can be iterated again and again.

    Attributes:
        max_boxes: rows for boxes of each picture.
    """

    def __init__(
        self,
        source: Source,
        keep: np.ndarray,
        layout: _Layout,
        *,
        batch_size: int,
        rows: slice,
        num_threads: int,
    ):
        self.max_boxes = layout.max_boxes
        self._source = source
        self._layout = layout
        self._num_threads = num_threads
        padding = np.full(-len(keep) % batch_size, -1, np.int64)
        self._indices = np.concatenate([keep, padding]).reshape(-1, batch_size)[:, rows]

    def __len__(self) -> int:
        """The number of batches."""
        return len(self._indices)

    def __iter__(self) -> Iterator[Batch]:
        """Batches in the order of `keep`; the next two are decoded meanwhile."""
        loader = _Loader(self._source, self._layout, self._num_threads)
        started: collections.deque[Any] = collections.deque()
        try:
            for indices in self._indices:
                started.append(loader.start(indices))
                if len(started) > _AHEAD:
                    yield _finish(*started.popleft())[0]
            while started:
                yield _finish(*started.popleft())[0]
        finally:
            loader.close()


def make_train_batches(
    source: Source,
    keep: Indices,
    *,
    image_size: tuple[int, int],
    batch_size: int,
    max_boxes: int,
    seed: int,
    num_threads: int,
    cache: str = "none",
    start_step: int = 0,
    steps_per_epoch: int | None = None,
    shard: tuple[int, int] = (0, 1),
) -> TrainBatches:
    """The shuffled, endless stream of training batches.

    Pictures are shrunk to fit, never enlarged, and lie at the top left, the rest being
    zero. Crowd boxes are left out. The batch of a step depends on the source, the seed
    and the step alone.

    Args:
        source: the data set.
        keep: indices of its pictures that are used.
        image_size: (height, width) of the batch's pictures.
        batch_size: pictures over all hosts.
        max_boxes: rows for boxes of each picture, see `max_boxes_of`; boxes that find
            no row are counted in `stats`.
        seed: decides the order.
        num_threads: threads that decode; more than the cores do no good.
        cache: a name in `CACHES`: where pictures are kept after their first use.
        start_step: the step of the first batch.
        steps_per_epoch: batches an epoch; None takes as many as hold every picture.
        shard: (index, count) of this host, which gets its rows of each batch.

    Raises:
        ValueError: no pictures, an unknown cache or one that memory cannot hold, or
            a batch that the hosts do not divide.
    """
    keep = np.asarray(keep, np.int64)
    rows = shard_rows(batch_size, shard)
    stream = Stream(
        seed=seed,
        num_pictures=len(keep),
        batch_size=batch_size,
        steps_per_epoch=steps_per_epoch,
    )
    store, estimate = pick(CACHES, cache, "cache")(source, keep, image_size)
    layout = _Layout(
        image_size=image_size,
        max_boxes=max_boxes,
        fill=0,
        place=lambda size: letterbox_shape(size, image_size, scale_up=False)._replace(
            offset=(0, 0)
        ),
        read=store.read,
    )
    return TrainBatches(
        _Loader(source, layout, num_threads),
        stream,
        rows,
        keep,
        max_boxes=max_boxes,
        cache=store,
        cache_bytes_estimate=estimate,
        start_step=start_step,
    )


def make_eval_batches(
    source: Source,
    keep: Indices,
    *,
    image_size: tuple[int, int],
    batch_size: int,
    num_threads: int,
    shard: tuple[int, int] = (0, 1),
    max_boxes: int | None = None,
    round_up: bool = True,
) -> EvalBatches:
    """One pass over the pictures, letterboxed, in the order of `keep`.

    Pictures are resized to fit, also enlarged, and centred on grey 114 as published.
    Crowd boxes are left out. The last batch is filled up with rows of image id -1.

    Args:
        source: the data set.
        keep: indices of its pictures that are used.
        image_size: (height, width) of the batch's pictures.
        batch_size: pictures over all hosts.
        num_threads: threads that decode.
        shard: (index, count) of this host, which gets its rows of each batch.
        max_boxes: rows for boxes of each picture; None takes as many as are needed.
        round_up: see `letterbox_shape`; published evaluations do.

    Raises:
        ValueError: a batch that the hosts do not divide, or of no picture.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, not {batch_size}")
    layout = _Layout(
        image_size=image_size,
        max_boxes=max_boxes_of(source, keep) if max_boxes is None else max_boxes,
        fill=_GREY,
        place=lambda size: letterbox_shape(size, image_size, round_up=round_up),
        read=lambda _, example, size: read_picture(example, size, scaled=False),
    )
    return EvalBatches(
        source,
        np.asarray(keep, np.int64),
        layout,
        batch_size=batch_size,
        rows=shard_rows(batch_size, shard),
        num_threads=num_threads,
    )


def max_boxes_of(source: Source, keep: Indices) -> int:
    """The most boxes that a picture has, crowds not counted; at least 1."""
    counts = (np.count_nonzero(~source[int(index)].crowd) for index in keep)
    return max([1, *map(int, counts)])


def _finish(batch: Batch, work: list[Future[Counts]]) -> tuple[Batch, Counts]:
    return batch, _added([part.result() for part in work])


def _added(parts: Sequence[Counts]) -> Counts:
    return Counts(*(sum(values) for values in zip(*parts, strict=True)))


def _write_picture(
    canvas: np.ndarray, picture: np.ndarray, place: Letterbox, fill: int
) -> None:
    top, left = place.offset
    bottom, right = top + place.size[0], left + place.size[1]
    canvas[top:bottom, left:right] = picture
    canvas[:top] = fill
    canvas[bottom:] = fill
    canvas[top:bottom, :left] = fill
    canvas[top:bottom, right:] = fill


def _write_boxes(
    batch: Batch,
    row: int,
    example: Example,
    origin: tuple[float, float, float, float],
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
    return len(boxes) - count
