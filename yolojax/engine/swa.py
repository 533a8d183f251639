"""Stochastic weight averaging: the mean of the parameters at the last epochs' ends.

Source: Izmailov et al. 2018, arXiv:1803.05407, Algorithm 1 with a cycle of one epoch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp


def check_epochs(swa_epochs: int, epochs: int) -> None:
    """Check that the averaged epochs are a part of the run.

    Raises:
        ValueError: they are not.
    """
    if swa_epochs >= epochs > 0 and swa_epochs:
        raise ValueError(
            f"config.swa.epochs is {swa_epochs}, but the run, or its last stage, has "
            f"{epochs} epochs: average fewer, of the end"
        )


class WeightAverage:
    """The mean of the parameters after each of the last epochs.

    Which snapshot a step is follows from its number, so nothing is counted.

    Args:
        variables: `params` and `batch_stats`, copied: what there is before the first
            snapshot, or what a checkpoint holds.
        start: steps done before the first epoch that counts.
        every: steps of an epoch.
        recompute: from the mean parameters to their batch statistics, see
            `mean_statistics`.

    Attributes:
        variables: the mean parameters; batch statistics after `finish`.
    """

    def __init__(
        self,
        variables: Mapping[str, Any],
        *,
        start: int,
        every: int,
        recompute: Callable[[Mapping[str, Any]], Any],
    ):
        # A copy: the state's buffers are donated to the next step.
        self.variables = jax.tree.map(jnp.copy, dict(variables))
        self._start, self._every = start, every
        self._recompute = recompute
        self._mean = jax.jit(_running_mean, donate_argnums=0)

    def snapshots(self, step: int) -> int:
        """How many snapshots there are after so many steps."""
        return max(0, step - self._start) // self._every

    def add(self, step: int, params: Any) -> None:
        """Take the parameters after `step` steps in, where an epoch has ended."""
        if step <= self._start or (step - self._start) % self._every:
            return
        count = jnp.float32(self.snapshots(step))
        mean = self._mean(self.variables["params"], params, count)
        self.variables = {**self.variables, "params": mean}

    def finish(self) -> None:
        """Give the mean parameters batch statistics of their own."""
        self.variables = {
            **self.variables,
            "batch_stats": self._recompute(self.variables),
        }


def _running_mean(mean: Any, new: Any, count: jax.Array) -> Any:
    return jax.tree.map(lambda a, b: (a * (count - 1) + b) / count, mean, new)


def mean_statistics(
    statistics: Callable[[Any, Any], Any],
    batch_stats: Any,
    batches: Iterable[Any],
) -> Any:
    """Batch statistics as means over batches, in place of running means.

    Args:
        statistics: from running means and a batch to the running means after it, which
            move by a share of their own towards those of the batch.
        batch_stats: nested dict; what `statistics` does not move stays as it is here.
        batches: at least one.

    Source: Izmailov et al. 2018, arXiv:1803.05407, section 3.2.
    """
    zeros = jax.tree.map(jnp.zeros_like, batch_stats)
    total, kept, count = zeros, zeros, 0
    for batch in batches:
        moved = statistics(zeros, batch)
        if not count:
            # From 1 instead of 0 the end differs by the share that is kept.
            ones = jax.tree.map(jnp.ones_like, batch_stats)
            kept = jax.tree.map(jnp.subtract, statistics(ones, batch), moved)
        total = jax.tree.map(jnp.add, total, moved)
        count += 1
    if not count:
        raise ValueError("no batch to take statistics of")

    def mean(total: Any, kept: Any, before: Any) -> Any:
        share = 1 - kept
        fixed = share < 1e-6
        return jnp.where(
            fixed, before, total / (count * jnp.where(fixed, 1.0, share))
        ).astype(before.dtype)

    return jax.tree.map(mean, total, kept, batch_stats)
