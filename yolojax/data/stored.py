"""The training stream where the devices hold the pictures: only rows are told.

Each device has a shard of the pictures and takes its part of every batch from it. An
epoch of a shard is a permutation of it (or what a sampler makes of it), a function of
the seed, the epoch and the shard.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from yolojax.data.sampling import Stream, shard_pictures


class Shards(NamedTuple):
    """The pictures of each device.

    Attributes:
        pictures: int64 for each shard, places in the list of pictures; together each
            once.
        streams: which row of its shard stands where in its stream.
        rows: the rows of a shard's arrays, the same for all; the last one may be empty.
    """

    pictures: list[np.ndarray]
    streams: list[Stream]
    rows: int


def make_shards(
    *,
    seed: int,
    num_pictures: int,
    num_shards: int,
    batch_size: int,
    steps_per_epoch: int,
    repeats: np.ndarray | None = None,
) -> Shards:
    """Pictures and streams of all devices.

    Args:
        seed: decides which pictures a shard has, and their order.
        num_pictures: how many there are.
        num_shards: how many devices.
        batch_size: pictures over all devices.
        steps_per_epoch: batches an epoch.
        repeats: see `epoch_order`; within a shard they count in proportion.

    Raises:
        ValueError: fewer pictures than devices, or a batch that they do not divide.
    """
    if num_pictures < num_shards:
        raise ValueError(
            f"{num_pictures} pictures cannot be stored on {num_shards} devices, one at "
            "least on each; use fewer (config.devices) or config.data.cache='encoded'"
        )
    if batch_size % num_shards:
        raise ValueError(
            f"a batch of {batch_size} cannot be divided among {num_shards} devices"
        )
    pictures = shard_pictures(seed, num_pictures, num_shards)
    if repeats is not None and not all(repeats[own].sum() > 0 for own in pictures):
        raise ValueError(
            f"of {num_shards} devices one has no picture that config.data.sampling "
            "ever takes; use fewer devices, or config.data.cache='encoded'"
        )
    streams = [
        Stream(
            seed=seed,
            num_pictures=len(own),
            batch_size=batch_size // num_shards,
            steps_per_epoch=steps_per_epoch,
            repeats=None if repeats is None else repeats[own],
            shard=shard,
            own=own,
        )
        for shard, own in enumerate(pictures)
    ]
    return Shards(pictures, streams, max(map(len, pictures)))


class StoredRows(Iterator[np.ndarray]):
    """The endless stream of the rows that this host's devices take.

    Attributes:
        steps_per_epoch: batches an epoch.
        streams: of this host's devices.
    """

    def __init__(self, streams: Sequence[Stream], *, start_step: int = 0):
        """Set up the stream.

        Args:
            streams: of this host's devices, in their order.
            start_step: the step of the first batch.
        """
        self.steps_per_epoch = streams[0].steps_per_epoch
        self.streams = streams
        self._step = start_step
        self._batches = 0

    def __next__(self) -> np.ndarray:
        """int32 [b]: for each device in turn, rows of its shard."""
        rows = [stream.places(self._step) for stream in self.streams]
        self._step += 1
        self._batches += 1
        return np.concatenate(rows).astype(np.int32)

    def get_state(self) -> dict[str, Any]:
        """Where the stream stands, as plain values that JSON can hold."""
        return {"next_index": self._step}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on where `get_state` was called, on this stream or an equal one."""
        self._step = int(state["next_index"])

    @property
    def stats(self) -> dict[str, float]:
        """As `TrainBatches.stats`; after the store is filled, nothing is decoded."""
        size = sum(stream.batch_size for stream in self.streams)
        return {
            "batches": self._batches,
            "pictures": self._batches * size,
            "boxes_cut": 0,
            "decode_seconds": 0.0,
            "wait_seconds": 0.0,
            "cache_bytes": 0,
        }

    def close(self) -> None:
        """Nothing to let go."""
