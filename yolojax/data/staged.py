"""The training stream of a run whose stages see different parts of the data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from yolojax.data.sampling import Stream, epoch_length, fraction_of


class Part(NamedTuple):
    """What one stage takes from the data.

    Attributes:
        fraction: share of the pictures.
        first_step: steps done before it.
        first_epoch: epochs done before it.
    """

    fraction: float
    first_step: int
    first_epoch: int


def steps_of_part(
    seed: int,
    num_pictures: int,
    repeats: np.ndarray | None,
    *,
    batch_size: int,
    fraction: float,
) -> int:
    """Batches of one pass over a share of the data; see `StagedStream`."""
    part, own = _part_of(seed, num_pictures, repeats, fraction)
    return -(-epoch_length(len(part), own) // batch_size)


def _part_of(
    seed: int, num_pictures: int, repeats: np.ndarray | None, fraction: float
) -> tuple[np.ndarray, np.ndarray | None]:
    part = fraction_of(seed, num_pictures, fraction)
    return part, None if repeats is None else repeats[part]


class StagedStream:
    """As `sampling.Stream`, of one part of the pictures after the other.

    A smaller part is contained in a larger one, and the numbers of epochs go on, so
    that no order comes twice.

    Attributes:
        steps_per_epoch: of the first part.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        *,
        seed: int,
        num_pictures: int,
        batch_size: int,
        repeats: np.ndarray | None = None,
    ):
        """Set up the stream.

        Args:
            parts: in the order of their first steps, the first of which is 0.
            seed: decides the parts and the order.
            num_pictures: at least 1.
            batch_size: pictures a batch, at least 1.
            repeats: see `sampling.epoch_order`.
        """
        self._parts = []
        for part in parts:
            pictures, own = _part_of(seed, num_pictures, repeats, part.fraction)
            stream = Stream(
                seed=seed,
                num_pictures=len(pictures),
                batch_size=batch_size,
                repeats=own,
            )
            self._parts.append((part, pictures, stream))
        self.steps_per_epoch = self._parts[0][2].steps_per_epoch

    def places(self, step: int) -> np.ndarray:
        """Which pictures make the batch of `step`, int64 [batch_size]."""
        part, pictures, stream = max(
            (found for found in self._parts if found[0].first_step <= step),
            key=lambda found: found[0].first_step,
        )
        before = part.first_epoch * stream.steps_per_epoch
        return pictures[stream.places(before + step - part.first_step)]
