"""Pictures by the losses that they had: the stream that the training weighs anew.

The weights of an epoch are a function of the losses known at its start, which are part
of the stream's state: a run that goes on in the midst of an epoch goes on with them.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np


def array_to_text(values: np.ndarray) -> str:
    """A float32 array in a form for JSON."""
    packed = zlib.compress(np.ascontiguousarray(values, np.float32).tobytes(), 1)
    return base64.b64encode(packed).decode()


def array_from_text(text: str) -> np.ndarray:
    """float32 [n], what `array_to_text` was given."""
    found = zlib.decompress(base64.b64decode(text))
    return np.frombuffer(found, np.float32).copy()


def weights_of_losses(
    losses: np.ndarray, *, power: float, least: float = 0.1
) -> np.ndarray:
    """How often each picture is expected in an epoch, by its last loss; 1 on average.

    Args:
        losses: [pictures], not negative; NaN counts as the mean of the others.
        power: pictures come in proportion to this power of their losses.
        least: how often a picture without a loss is expected; the rest is shared out.
            Without it a picture that the network has learnt would never be seen again.

    Returns:
        float64 [pictures]; all 1 where there are no losses yet.
    """
    losses = np.asarray(losses, np.float64)
    seen = np.isfinite(losses)
    if not seen.any():
        return np.ones(len(losses))
    losses = np.maximum(np.where(seen, losses, losses[seen].mean()), 0.0)
    weights = (losses / max(losses.max(), 1e-300)) ** power
    if not weights.any():
        return np.ones(len(losses))
    return least + (1.0 - least) * weights / weights.mean()


class WeighedBatches(Iterator[Any]):
    """A training stream whose pictures come as often as their losses say.

    It has what the stream has, `stats` and the others.
    """

    def __init__(
        self, batches: Any, weigh: Callable[[np.ndarray], np.ndarray], keep: np.ndarray
    ):
        """Wrap a stream; all pictures weigh the same until losses are told.

        Args:
            batches: with `streams`, each with `reweigh`.
            weigh: from the losses of the pictures used to how often each comes.
            keep: int64, the pictures used, by their index in the source.
        """
        self._batches, self._weigh, self._keep = batches, weigh, keep
        self._take(np.full(len(keep), np.nan, np.float32))

    def __next__(self) -> Any:
        """The next batch."""
        return next(self._batches)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batches, name)

    def see_losses(self, step: int, losses: np.ndarray) -> None:
        """Take the losses for the next epoch; between two epochs, else nothing is done.

        Batches prepared ahead are dropped.

        Args:
            step: steps done.
            losses: the last loss of each picture of the source, NaN if there is none.
        """
        if step % self._batches.steps_per_epoch == 0:
            state = self._batches.get_state()
            self._take(losses[self._keep])
            self._batches.set_state(state)

    def get_state(self) -> dict[str, Any]:
        """As that of the stream, with the losses that this epoch goes by."""
        known = np.isfinite(self._losses).any()
        losses = array_to_text(self._losses) if known else ""
        return {**self._batches.get_state(), "losses": losses}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on where `get_state` was called, or with equal weights.

        Raises:
            ValueError: the losses are those of other pictures.
        """
        state = dict(state)
        losses = np.full(len(self._keep), np.nan, np.float32)
        if text := state.pop("losses", ""):
            losses = array_from_text(text)
        if len(losses) != len(self._keep):
            raise ValueError(
                f"the checkpoint has the losses of {len(losses)} training pictures, "
                f"but there are {len(self._keep)} now. Use another --workdir, or the "
                "same data"
            )
        self._take(losses)
        self._batches.set_state(state)

    def _take(self, losses: np.ndarray) -> None:
        self._losses = np.array(losses, np.float32)
        repeats = self._weigh(self._losses)
        for stream in self._batches.streams:
            stream.reweigh(repeats)
