"""Batches of decoded pictures: endless and shuffled to train, in order to evaluate.

Grain does the index arithmetic, prepares batches ahead of use and keeps the state that
a checkpoint saves. One element of its stream is a whole batch. Augmentation is not done
here but on the device.
"""

from __future__ import annotations

import collections
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import grain
import numpy as np

from yolojax.data.box_rows import counts_of
from yolojax.data.cache import Cache, read_picture
from yolojax.data.loading import Counts, Indices, Layout, Loader, added, finish
from yolojax.data.polygons import FEWEST_EDGES, MOST_EDGES, count_edges
from yolojax.data.room import CACHES, NO_LIMIT, Room
from yolojax.data.sampling import Stream, shard_rows
from yolojax.data.sources.base import Source
from yolojax.data.staged import StagedStream
from yolojax.lookup import pick
from yolojax.ops.letterbox import (
    Letterbox,
    batch_canvas,
    centred,
    letterbox_shape,
    published_origin,
)
from yolojax.records import Batch, Example

# (height, width) of a picture and of its canvas -> where it lies.
Place = Callable[[tuple[int, int], tuple[int, int]], Letterbox]

# Batches prepared ahead; more only costs memory once decoding keeps up on average.
_AHEAD = 2
# Grey of the published letterbox.
_GREY = 114


class TrainBatches(Iterator[Batch]):
    """The endless stream of training batches; made by `make_train_batches`.

    Attributes:
        steps_per_epoch: batches an epoch.
        streams: which pictures make which batch, one for all hosts.
        max_boxes: rows for boxes of each picture.
        cache_note: what the cache will come to take; empty without one.
        grain_iterator: Grain's iterator underneath, for Orbax's Grain handler; it
            yields pairs of `Batch` and `Counts`.
    """

    def __init__(
        self,
        loader: Loader,
        layout: Layout,
        stream: Stream | StagedStream,
        rows: slice,
        keep: np.ndarray,
        *,
        cache: Cache,
        cache_note: str,
        start_step: int,
    ):
        self.steps_per_epoch, self.streams = stream.steps_per_epoch, [stream]
        self.max_boxes = layout.max_boxes
        self.cache_note = cache_note
        self._loader = loader
        self._cache = cache
        self._counts = Counts(0, 0.0, 0)
        self._batches = 0
        self._wait_seconds = 0.0
        steps = grain.MapDataset.range(2**40).map(
            lambda step: loader.load(keep[stream.places(int(step))[rows]], layout)
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
        self._counts = added([self._counts, counts])
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
    """One pass over pictures in a fixed order; can be iterated again and again.

    Attributes:
        max_boxes: rows for boxes of each picture.
        shapes: the distinct (height, width) of the batches; each is compiled once.
    """

    def __init__(
        self,
        source: Source,
        indices: np.ndarray,
        layouts: Sequence[Layout],
        *,
        num_threads: int,
    ):
        self.max_boxes = max([1, *(layout.max_boxes for layout in layouts)])
        self.shapes = tuple(dict.fromkeys(layout.image_size for layout in layouts))
        self._source = source
        self._indices = indices
        self._layouts = layouts
        self._num_threads = num_threads

    def __len__(self) -> int:
        """The number of batches."""
        return len(self._indices)

    def __iter__(self) -> Iterator[Batch]:
        """The batches; the next two are decoded meanwhile."""
        loader = Loader(self._source, self._num_threads)
        started: collections.deque[Any] = collections.deque()
        try:
            for indices, layout in zip(self._indices, self._layouts, strict=True):
                started.append(loader.start(indices, layout))
                if len(started) > _AHEAD:
                    yield finish(*started.popleft())[0]
            while started:
                yield finish(*started.popleft())[0]
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
    room: Room = NO_LIMIT,
    start_step: int = 0,
    steps_per_epoch: int | None = None,
    repeats: np.ndarray | None = None,
    num_edges: int = 0,
    shard: tuple[int, int] = (0, 1),
    stream: StagedStream | None = None,
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
        room: what the cache may take.
        start_step: the step of the first batch.
        steps_per_epoch: batches an epoch; None takes as many as hold every picture.
        repeats: how often each picture of `keep` is expected in an epoch, see
            `epoch_order`; None: once.
        num_edges: rows for the edges of each outline, see `num_edges_of`.
        shard: (index, count) of this host, which gets its rows of each batch.
        stream: which pictures make which batch, instead of what `seed`,
            `steps_per_epoch` and `repeats` say.

    Raises:
        ValueError: no pictures, an unknown cache or one that memory cannot hold, or
            a batch that the hosts do not divide.
    """
    keep = np.asarray(keep, np.int64)
    rows = shard_rows(batch_size, shard)
    order = stream or Stream(
        seed=seed,
        num_pictures=len(keep),
        batch_size=batch_size,
        steps_per_epoch=steps_per_epoch,
        repeats=repeats,
    )
    store, note = pick(CACHES, cache, "cache")(source, keep, image_size, room)
    return TrainBatches(
        Loader(source, num_threads),
        training_layout(image_size, max_boxes, store, num_edges),
        order,
        rows,
        keep,
        cache=store,
        cache_note=note,
        start_step=start_step,
    )


def training_layout(
    image_size: tuple[int, int], max_boxes: int, cache: Cache, num_edges: int = 0
) -> Layout:
    """Pictures shrunk to fit, never enlarged, at the top left; the rest is zero."""
    return Layout(
        image_size=image_size,
        max_boxes=max_boxes,
        fill=0,
        place=lambda size: letterbox_shape(size, image_size, scale_up=False)._replace(
            offset=(0, 0)
        ),
        read=cache.read,
        num_edges=num_edges,
    )


def fitted_place(size: tuple[int, int], canvas: tuple[int, int]) -> Letterbox:
    """Resized to fit and centred, with the roundings of the published evaluation."""
    return letterbox_shape(size, canvas, round_up=True)


def make_eval_batches(
    source: Source,
    keep: Indices,
    *,
    image_size: tuple[int, int],
    batch_size: int,
    num_threads: int,
    shard: tuple[int, int] = (0, 1),
    max_boxes: int | None = None,
    place: Place = fitted_place,
) -> EvalBatches:
    """One pass over the pictures, in the order of `keep`, all on the same canvas.

    Pictures are resized to fit, also enlarged, and centred on grey 114 as published, or
    lie as `place` says. Crowd boxes are left out. The last batch is filled up with rows
    of image id -1.

    Args:
        source: the data set.
        keep: indices of its pictures that are used.
        image_size: (height, width) of the batch's pictures.
        batch_size: pictures over all hosts.
        num_threads: threads that decode.
        shard: (index, count) of this host, which gets its rows of each batch.
        max_boxes: rows for boxes of each picture; None takes as many as are needed.
        place: (height, width) of a picture and of the canvas -> where it lies.

    Raises:
        ValueError: a batch that the hosts do not divide, or of no picture.
    """
    indices = _rows_of_batches(np.asarray(keep, np.int64), batch_size)
    layout = Layout(
        image_size=image_size,
        max_boxes=max_boxes_of(source, keep) if max_boxes is None else max_boxes,
        fill=_GREY,
        place=lambda size: place(size, image_size),
        read=_read_exactly,
    )
    return EvalBatches(
        source,
        indices[:, shard_rows(batch_size, shard)],
        [layout] * len(indices),
        num_threads=num_threads,
    )


def make_rectangular_batches(
    source: Source,
    keep: Indices,
    *,
    image_size: tuple[int, int],
    stride: int,
    batch_size: int,
    num_threads: int,
    shard: tuple[int, int] = (0, 1),
) -> EvalBatches:
    """One pass over the pictures, each batch on the smallest canvas that suits it.

    The published evaluation to the letter, `published_origin` included: pictures go by
    their height over width, from wide to tall; those of a batch share the canvas of
    `batch_canvas`, in whose middle they lie as large as `make_eval_batches` makes them.

    Which pictures share a batch decides the canvas, and so has some influence on the
    result: on 128 pictures .01 of mAP50 between batches of 8, 16 and 32, and .006
    between orders of pictures of the same ratio. These are left, as published, in the
    order of NumPy's fastest sort, which is the same on every x86 CPU with AVX2.

    Args:
        source: the data set.
        keep: indices of its pictures that are used.
        image_size: (height, width) that pictures are resized to fit; multiples of
            `stride`.
        stride: the largest of the detector; the canvases' sides are multiples of it.
        batch_size: pictures over all hosts.
        num_threads: threads that decode.
        shard: (index, count) of this host, which gets its rows of each batch.

    Raises:
        ValueError: a batch that the hosts do not divide, or of no picture.
    """
    keep = np.asarray(keep, np.int64)
    sizes = [source[int(index)].size for index in keep]
    order = np.argsort([height / width for height, width in sizes])
    indices = _rows_of_batches(keep[order], batch_size)
    max_boxes = max_boxes_of(source, keep)

    def layout_of(batch: int) -> Layout:
        rows = order[batch * batch_size : (batch + 1) * batch_size]
        canvas = batch_canvas([sizes[i] for i in rows], image_size, stride=stride)

        return Layout(
            image_size=canvas,
            max_boxes=max_boxes,
            fill=_GREY,
            place=lambda size: centred(
                letterbox_shape(size, image_size, round_up=True), canvas
            ),
            read=_read_exactly,
            origin=lambda size, place: published_origin(size, place, canvas),
        )

    return EvalBatches(
        source,
        indices[:, shard_rows(batch_size, shard)],
        [layout_of(batch) for batch in range(len(indices))],
        num_threads=num_threads,
    )


def _read_exactly(
    _: int, example: Example, size: tuple[int, int], out: np.ndarray
) -> None:
    read_picture(example, size, scaled=False, out=out)


def _rows_of_batches(indices: np.ndarray, batch_size: int) -> np.ndarray:
    """The indices, cut into rows of a batch each; the last one is filled up with -1."""
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, not {batch_size}")
    padding = np.full(-len(indices) % batch_size, -1, np.int64)
    return np.concatenate([indices, padding]).reshape(-1, batch_size)


def max_boxes_of(source: Source, keep: Indices) -> int:
    """The most boxes that a picture has, crowds not counted; at least 1."""
    return max(1, int(np.max(counts_of(source, keep), initial=0)))


def num_edges_of(source: Source, keep: Indices) -> int:
    """Rows for the edges of each outline; 0 if the source was not asked for polygons.

    As many as the longest outline has, rounded up to a multiple of 8, and at most
    `MOST_EDGES`.
    """
    most = 0
    for index in keep:
        polygons = source[int(index)].polygons
        if polygons is None:
            return 0
        most = max([most, FEWEST_EDGES, *map(count_edges, polygons)])
    return min(MOST_EDGES, -(-most // 8) * 8)
