"""Learning rate, momentum and accumulation as functions of the iteration.

Nothing here has a state: `step` is the number of iterations done before the present
one, and the same `step` gives the same values in a run that was resumed. The
formulas and the warm-up are those of YOLOv5 v7.0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from yolojax import lookup

Schedule = Callable[[ArrayLike], jax.Array]
"""From the iteration to a float32 scalar."""


def constant(share: jax.Array, *, final_ratio: float) -> jax.Array:
    """1 throughout; `final_ratio` has no part in it."""
    del final_ratio
    return jnp.ones_like(share)


def linear(share: jax.Array, *, final_ratio: float) -> jax.Array:
    """From 1 down to `final_ratio` on a straight line.

    Args:
        share: the part of the epochs that is done, in [0, 1].
        final_ratio: the value at the end.
    """
    return (1.0 - share) * (1.0 - final_ratio) + final_ratio


def cosine(share: jax.Array, *, final_ratio: float) -> jax.Array:
    """From 1 down to `final_ratio` on half a period of the cosine.

    Args:
        share: the part of the epochs that is done, in [0, 1].
        final_ratio: the value at the end.

    Source: He et al. 2019, arXiv:1812.01187, section 3.1, here with a floor.
    """
    return (1.0 - jnp.cos(jnp.pi * share)) / 2.0 * (final_ratio - 1.0) + 1.0


# What the base learning rate is multiplied with, by name.
SCHEDULES: dict[str, Callable[..., jax.Array]] = {
    "constant": constant,
    "cosine": cosine,
    "linear": linear,
}


def epoch_decay(
    name: str, *, final_ratio: float, steps_per_epoch: int, epochs: int
) -> Schedule:
    """The factor of the learning rate, which changes between epochs only.

    Args:
        name: an entry of `SCHEDULES`.
        final_ratio: the factor that the schedule falls to.
        steps_per_epoch: iterations in an epoch.
        epochs: epochs in the run; from then on the factor stays at its last value.

    Raises:
        ValueError: there is no such schedule, or a count is not positive.
    """
    schedule = lookup.pick(SCHEDULES, name, "schedule")
    for what, count in (("steps_per_epoch", steps_per_epoch), ("epochs", epochs)):
        if count < 1:
            raise ValueError(f"{what} is {count}; expected at least 1")

    def factor(step: ArrayLike) -> jax.Array:
        epoch = jnp.minimum(jnp.asarray(step, jnp.int32) // steps_per_epoch, epochs)
        share = epoch.astype(jnp.float32) / epochs
        return schedule(share, final_ratio=final_ratio)

    return factor


def warm_up(
    step: ArrayLike, *, start: float, end: ArrayLike, warmup_steps: int
) -> jax.Array:
    """`start` at iteration 0, `end` from `warmup_steps` on, linear in between.

    Args:
        step: iterations done.
        start: the value at iteration 0.
        end: the value afterwards; it may itself depend on the step.
        warmup_steps: length of the ramp in iterations; 0 for none.
    """
    end = jnp.asarray(end, jnp.float32)
    if warmup_steps < 1:
        return end
    done = jnp.minimum(jnp.asarray(step, jnp.int32), warmup_steps)
    share = done.astype(jnp.float32) / warmup_steps
    return start * (1.0 - share) + end * share


class AccumulationPlan(NamedTuple):
    """At which iterations the optimiser steps, as stretches of a constant period.

    Attributes:
        starts: int32 [k], the first iteration of each stretch; the first is 0.
        counts: int32 [k], iterations that are summed for one optimiser step.
        anchors: int32 [k], the last iteration before the stretch at which the
            optimiser stepped; -1 before the first.
    """

    starts: np.ndarray
    counts: np.ndarray
    anchors: np.ndarray

    @property
    def largest(self) -> int:
        """The most iterations that are ever summed."""
        return int(self.counts.max())

    def _stretch(self, step: ArrayLike) -> jax.Array:
        return jnp.sum(jnp.asarray(self.starts) <= jnp.asarray(step, jnp.int32)) - 1

    def count(self, step: ArrayLike) -> jax.Array:
        """Iterations in one optimiser step, int32, as of iteration `step`."""
        return jnp.asarray(self.counts)[self._stretch(step)]

    def stepped(self, step: ArrayLike) -> jax.Array:
        """Whether the optimiser steps at the end of iteration `step`, bool."""
        stretch = self._stretch(step)
        since = jnp.asarray(step, jnp.int32) - jnp.asarray(self.anchors)[stretch]
        return since % jnp.asarray(self.counts)[stretch] == 0


def plan_accumulation(
    *, batch_size: int, nominal_batch: int, warmup_steps: int
) -> AccumulationPlan:
    """When the optimiser steps, so that it sees `nominal_batch` pictures each time.

    The published rule: the period rises from 1 to nominal / batch over the warm-up,
    rounded at each iteration, and the optimiser steps when that many iterations lie
    behind its last step. The period never falls, so the rule has this closed form.

    Args:
        batch_size: pictures in an iteration, over all devices.
        nominal_batch: pictures that one optimiser step should see.
        warmup_steps: iterations of warm-up; 0 for none.

    Raises:
        ValueError: a batch is not positive.
    """
    if batch_size < 1 or nominal_batch < 1:
        raise ValueError(
            f"batch_size is {batch_size} and nominal_batch {nominal_batch}; "
            "expected at least 1"
        )
    ratio = nominal_batch / batch_size
    ramp = np.interp(np.arange(warmup_steps), [0, max(warmup_steps, 1)], [1.0, ratio])
    periods = np.maximum(np.round(np.append(ramp, ratio)), 1).astype(np.int32)
    starts = np.flatnonzero(np.diff(periods, prepend=0)).astype(np.int32)
    counts = periods[starts]
    anchors = np.full_like(starts, -1)
    for i in range(1, len(starts)):
        before, period = anchors[i - 1], counts[i - 1]
        anchors[i] = before + (starts[i] - 1 - before) // period * period
    return AccumulationPlan(starts, counts, anchors)
