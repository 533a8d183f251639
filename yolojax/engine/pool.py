"""The images of the last batches, kept on the devices as partners of a mosaic.

A mosaic takes its other images from a ring of the last batches. With partners from the
batch alone each image of a step stands in four of its outputs; the published loader
draws partners from the whole set. Every image is still decoded once an epoch: the ring
is filled before the first step by decoding its batches ahead.

What the ring holds in a step follows from the stream and the step. A run that goes on
decodes it again, and a checkpoint holds no images. Each device has a ring of its own
part of the batches, as it has its own shard with `data.cache = "device"`.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, PartitionSpec

from yolojax.data.pipeline import TrainBatches
from yolojax.engine import sharding
from yolojax.engine.feed import Feed
from yolojax.records import Batch, Stored


class Pooled(NamedTuple):
    """What the host has for a step.

    Attributes:
        place: of the step's batch in the ring.
        writes: batches to write first, and their places.
    """

    place: int
    writes: Iterator[tuple[int, Batch]]


class PooledBatches(Iterator[Pooled]):
    """A training stream that says what the ring must hold in each step.

    It has what the stream has, `stats` and the others.
    """

    def __init__(self, batches: TrainBatches, length: int):
        """Wrap a stream.

        Args:
            batches: its batches must follow from the step alone.
            length: batches in the ring, at least 1.
        """
        self._batches, self._length = batches, length
        self._step = int(batches.get_state()["next_index"])
        self._filled = False

    def __next__(self) -> Pooled:
        """The next step's."""
        step, length = self._step, self._length
        self._step += 1
        # The first `length` batches are decoded ahead of their steps.
        end = max(step + 1, length)
        first = end - length
        if self._filled:
            first = max(step, length)
        else:
            self._batches.set_state({"next_index": first})
        self._filled = True
        return Pooled(step % length, self._decoded(range(first, end)))

    def _decoded(self, numbers: range) -> Iterator[tuple[int, Batch]]:
        for number in numbers:
            yield number % self._length, next(self._batches)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batches, name)

    def get_state(self) -> dict[str, Any]:
        """Where the stream stands: the step, not the batches decoded ahead."""
        return {**self._batches.get_state(), "next_index": self._step}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on where `get_state` was called; the ring is filled anew."""
        self._step, self._filled = int(state["next_index"]), False


class Ring:
    """The images of the last batches on the devices, split over them.

    Args:
        mesh: the devices.
        length: batches.
    """

    def __init__(self, mesh: Mesh, length: int):
        self._mesh, self._length = mesh, length
        self._images: Batch | None = None
        split, whole = PartitionSpec(sharding.AXIS), PartitionSpec()
        self._write = jax.jit(
            jax.shard_map(
                _write,
                mesh=mesh,
                in_specs=(split, split, whole),
                out_specs=split,
                check_vma=False,
            ),
            donate_argnums=0,
        )

    def put(self, pooled: Pooled) -> Stored:
        """The ring after the writes of a step, and the rows of the step's batch.

        The ring given before must not be used any more.
        """
        for place, batch in pooled.writes:
            batch = sharding.put_batch(batch, self._mesh)
            if self._images is None:
                self._images = self._empty(batch)
            self._images = self._write(self._images, batch, np.int32(place))
        images = self._images
        assert images is not None
        local = self._mesh.local_mesh.devices.size
        each = len(images.image_id) // self._mesh.devices.size // self._length
        rows = pooled.place * each + np.arange(each, dtype=np.int32)
        count = np.full(local, self._length * each, np.int32)
        return Stored(
            pictures=images,
            rows=sharding.put_batch(np.tile(rows, local), self._mesh),
            first=None,
            count=sharding.put_batch(count, self._mesh),
        )

    def _empty(self, batch: Batch) -> Batch:
        make = functools.partial(_zeros, length=self._length)
        return jax.jit(make, out_shardings=sharding.split(self._mesh))(batch)


def _zeros(batch: Batch, *, length: int) -> Batch:
    return jax.tree.map(
        lambda x: jnp.zeros((length * x.shape[0], *x.shape[1:]), x.dtype), batch
    )


def _write(images: Batch, batch: Batch, place: Any) -> Batch:
    """One device's ring with its part of a batch at its place."""
    return jax.tree.map(
        lambda whole, part: lax.dynamic_update_slice_in_dim(
            whole, part, place * part.shape[0], 0
        ),
        images,
        batch,
    )


def pooled(batches: TrainBatches, mesh: Mesh, length: int) -> Feed:
    """Batches of the host whose mosaics take partners from the last ones.

    Args:
        batches: see `PooledBatches`.
        mesh: the devices.
        length: batches in the ring.
    """
    return Feed(
        PooledBatches(batches, length),
        put=Ring(mesh, length).put,
        fill=lambda progress: None,
        note=batches.cache_note,
    )
