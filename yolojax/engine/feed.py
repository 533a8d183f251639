"""Where a training step's pictures come from: the host's threads, or the devices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from jax.sharding import Mesh

from yolojax.data.pipeline import TrainBatches
from yolojax.engine.device_cache import DeviceCache
from yolojax.engine.sharding import put_batch
from yolojax.records import Batch, Stored


class Feed(NamedTuple):
    """The stream of training batches, and how they come to the devices.

    Attributes:
        batches: endless iterator of what the host prepares, with `get_state()`,
            `set_state()`, `stats` and `close()`.
        put: from one of these to what the step takes.
        fill: what is to be done before the first step; takes `progress(done, total)`.
        note: what it will take, to be told before `fill`; may be empty.
    """

    batches: Any
    put: Callable[[Any], Batch | Stored]
    fill: Callable[[Callable[[int, int], None] | None], None]
    note: str


def from_host(batches: TrainBatches, mesh: Mesh) -> Feed:
    """Batches that the host decodes, and splits over the mesh."""
    return Feed(
        batches,
        put=lambda batch: put_batch(batch, mesh),
        fill=lambda progress: None,
        note=batches.cache_note,
    )


def from_devices(cache: DeviceCache) -> Feed:
    """Rows of the pictures that the devices hold."""
    return Feed(cache.rows, put=cache.put, fill=cache.fill, note=cache.note)
