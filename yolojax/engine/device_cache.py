"""All training pictures in the accelerators' memory; the host only tells which.

Each device holds its shard of the pictures and draws its part of the batch, and the
other pictures of a mosaic, from the whole shard. No picture travels between devices,
and nothing but a few row numbers between host and device.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding

from yolojax.data.cache import NoCache
from yolojax.data.loading import Layout, Loader, finish
from yolojax.data.pipeline import training_layout
from yolojax.data.room import available_bytes, readable
from yolojax.data.sources.base import Source
from yolojax.data.stored import Shards, StoredRows
from yolojax.engine import sharding
from yolojax.records import Batch, Stored

# Pictures that go to a device at a time: few enough for the host's memory, and enough
# to keep all threads at work.
_CHUNK = 64


class DeviceCache:
    """The pictures on the devices; made empty, then filled.

    Attributes:
        note: what it takes and what there is, to be told before `fill`.
        rows: this host's stream of row numbers.
    """

    def __init__(
        self,
        source: Source,
        keep: np.ndarray,
        shards: Shards,
        mesh: Mesh,
        *,
        image_size: tuple[int, int],
        max_boxes: int,
        num_threads: int,
        num_edges: int = 0,
        budget: int = 0,
        step_bytes: int = 0,
    ):
        """Reckon what is needed.

        Args:
            source: the data set.
            keep: indices of the pictures that are used.
            shards: which of them each device of `mesh` gets.
            mesh: the devices.
            image_size: (height, width) of the pictures' arrays.
            max_boxes: rows for boxes of each picture.
            num_threads: threads that decode.
            num_edges: rows for the edges of each outline, see `num_edges_of`.
            budget: most bytes that a device may give; 0: what is free.
            step_bytes: what a device needs besides, for a training step.

        Raises:
            ValueError: it does not fit; the message has both figures.
        """
        self._source, self._shards, self._mesh = source, shards, mesh
        self._layout: Layout = training_layout(
            image_size, max_boxes, NoCache(), num_edges
        )
        self._num_threads = num_threads
        self._keep = np.asarray(keep, np.int64)
        self._own = [
            (shard, device)
            for shard, device in enumerate(mesh.devices.flat)
            if device.process_index == jax.process_index()
        ]
        self.rows = StoredRows([shards.streams[shard] for shard, _ in self._own])
        self._stored: Stored | None = None
        one = jax.tree.leaves(self._layout.empty(1))
        need = shards.rows * sum(array.nbytes for array in one)
        free = free_bytes([device for _, device in self._own])
        self.note = _check_room(
            f"cache 'device': {len(self._keep)} pictures at "
            f"{image_size[0]}x{image_size[1]} take {readable(need)} on each of "
            f"{mesh.devices.size} device(s)",
            need,
            free,
            budget,
            step_bytes,
        )

    def fill(self, progress: Callable[[int, int], None] | None = None) -> None:
        """Decode this host's pictures and bring them to its devices.

        Args:
            progress: `progress(done, total)`, called now and then.

        Raises:
            ImageError: a picture cannot be read any more; the message names it.
        """
        loader = Loader(self._source, self._num_threads)
        total = sum(len(self._shards.pictures[shard]) for shard, _ in self._own)
        done = 0

        def note_progress(count: int) -> None:
            nonlocal done
            done += count
            if progress is not None:
                progress(done, total)

        try:
            parts = [
                self._fill_device(loader, shard, device, note_progress)
                for shard, device in self._own
            ]
        finally:
            loader.close()
        place = sharding.split(self._mesh)
        pictures = jax.tree.map(
            lambda *shards: _joined(shards, place, self._mesh.devices.size), *parts
        )
        counts = [len(self._shards.pictures[shard]) for shard, _ in self._own]
        self._stored = Stored(
            pictures=pictures,
            rows=None,
            first=None,
            count=sharding.put_batch(np.array(counts, np.int32), self._mesh),
        )

    def put(self, rows: np.ndarray) -> Stored:
        """The step's pictures: the store, and the rows on their devices.

        Args:
            rows: from this host's stream.
        """
        assert self._stored is not None, "fill comes first"
        return self._stored._replace(rows=sharding.put_batch(rows, self._mesh))

    def _fill_device(
        self,
        loader: Loader,
        shard: int,
        device: Any,
        progress: Callable[[int], None],
    ) -> Batch:
        """The arrays of one shard, on its device."""
        indices = self._keep[self._shards.pictures[shard]]
        like = self._layout.empty(1)
        store = jax.jit(
            lambda: jax.tree.map(
                lambda x: jnp.zeros((self._shards.rows, *x.shape[1:]), x.dtype), like
            ),
            out_shardings=SingleDeviceSharding(device),
        )()
        chunks = [
            indices[start : start + _CHUNK] for start in range(0, len(indices), _CHUNK)
        ]
        # The next chunk is decoded while this one travels.
        started = [loader.start(chunks[0], self._layout)]
        for number, chunk in enumerate(chunks):
            if number + 1 < len(chunks):
                started.append(loader.start(chunks[number + 1], self._layout))
            batch, _ = finish(*started.pop(0))
            batch = jax.device_put(batch, device)
            store = _write(store, batch, number * _CHUNK)
            # Else all chunks would wait in the host's memory.
            jax.block_until_ready(store)
            progress(len(chunk))
        return store


@functools.partial(jax.jit, donate_argnums=0)
def _write(store: Batch, chunk: Batch, start: Any) -> Batch:
    return jax.tree.map(
        lambda whole, part: lax.dynamic_update_slice_in_dim(whole, part, start, 0),
        store,
        chunk,
    )


def _joined(parts: Sequence[jax.Array], place: NamedSharding, count: int) -> jax.Array:
    """One array over all devices from this host's parts of it."""
    shape = (count * parts[0].shape[0], *parts[0].shape[1:])
    return jax.make_array_from_single_device_arrays(shape, place, list(parts))


def abstract_stored(
    shards: Shards,
    mesh: Mesh,
    image_size: tuple[int, int],
    max_boxes: int,
    num_edges: int = 0,
) -> Stored:
    """Shapes, types and places of what a step takes, without any memory."""
    one = training_layout(image_size, max_boxes, NoCache(), num_edges).empty(1)
    place = sharding.split(mesh)
    count = mesh.devices.size

    def array(shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=place)

    batch_size = sum(stream.batch_size for stream in shards.streams)
    return Stored(
        pictures=jax.tree.map(
            lambda x: array((count * shards.rows, *x.shape[1:]), x.dtype), one
        ),
        rows=array((batch_size,), np.int32),
        first=None,
        count=array((count,), np.int32),
    )


def step_bytes(step: Any, state: Any, stored: Stored) -> int:
    """Bytes that a device needs while a jitted step runs, besides its arguments.

    Compiles the step, which with the persistent compilation cache is not done twice.
    """
    memory = step.lower(state, stored).compile().memory_analysis()
    return int(memory.temp_size_in_bytes) if memory else 0


def has_own_memory(mesh: Mesh) -> bool:
    """Whether the devices say how much memory they have, as accelerators do."""
    return all(device.memory_stats() for device in mesh.local_devices)


def free_bytes(devices: Sequence[Any]) -> int:
    """Bytes that each of these devices can still take."""
    stats = [device.memory_stats() for device in devices]
    if all(stats):
        return min(s["bytes_limit"] - s["bytes_in_use"] for s in stats)
    return available_bytes() // len(devices)


def _check_room(name: str, need: int, free: int, budget: int, step_bytes: int) -> str:
    """The note on what the store takes.

    Raises:
        ValueError: there is not that much.
    """
    text = f"{name}; {readable(free)} are free there"
    if step_bytes:
        text += f", {readable(step_bytes)} are needed for a step"
    if budget:
        text += f", config.data.cache_bytes allows {readable(budget)}"
    if need + step_bytes > free or 0 < budget < need:
        raise ValueError(
            f"{text}: it does not fit. Use config.data.cache='encoded' or 'disk', a "
            "smaller image size, more devices, or a part of the data: "
            "config.data.sampling.fraction"
        )
    return text


def on_each_device(augment: Callable[..., Any], mesh: Mesh) -> Callable[..., Any]:
    """The augmentation, which of stored pictures sees those of its own device only.

    Args:
        augment: see `make_augment`.
        mesh: the devices.

    Returns:
        As `augment`. Of a `Stored` it takes `pictures`, `rows` and `count` (int32, one
        a device) that are split over the mesh, and gives a batch split likewise.
    """
    split, whole = PartitionSpec(sharding.AXIS), PartitionSpec()

    def augmented(key: Any, batch: Batch | Stored, **options: Any) -> Any:
        if not isinstance(batch, Stored):
            return augment(key, batch, **options)

        def own(key: Any, stored: Stored, options: Any) -> Any:
            first = lax.axis_index(sharding.AXIS) * stored.rows.shape[0]
            stored = stored._replace(first=first, count=stored.count[0])
            shown, cut = augment(key, stored, **options)
            return shown, lax.psum(cut, sharding.AXIS)

        return jax.shard_map(
            own,
            mesh=mesh,
            in_specs=(whole, split, whole),
            out_specs=(split, whole),
            # Else a loop that starts from constants is refused, as that of copy_paste.
            check_vma=False,
        )(key, batch, options)

    return augmented
