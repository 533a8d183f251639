"""Learning rate, momentum and accumulation as functions of the iteration.

Nothing here has a state: `step` is the number of iterations done before the present
one, and the same `step` gives the same values in a run that was resumed. The
formulas and the warm-up are those of YOLOv5 v7.0.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from yolojax import lookup
from yolojax.optim import decays

Schedule = Callable[[ArrayLike], jax.Array]
"""From the iteration to a float32 scalar."""


class Decay(NamedTuple):
    """A schedule of the learning rate, and of the momentum where it has one.

    Attributes:
        rate: the factor of the base rate after so many epochs, 1 at its highest.
        momentum: from the epochs done and the config's momentum to the one in use;
            None: it stays.
        per_step: whether it moves in every iteration rather than between epochs.
    """

    rate: Callable[..., jax.Array]
    momentum: Callable[..., jax.Array] | None = None
    per_step: bool = False


PLATEAU = "reduce_on_plateau"

# What the base learning rate is multiplied with, by name.
SCHEDULES: dict[str, Decay] = {
    "constant": Decay(decays.constant),
    "cosine": Decay(decays.cosine),
    "cosine_restarts": Decay(decays.cosine_restarts),
    "exponential": Decay(decays.exponential),
    "linear": Decay(decays.linear),
    "one_cycle": Decay(decays.one_cycle, decays.one_cycle_momentum, per_step=True),
    "polynomial": Decay(decays.polynomial),
    PLATEAU: Decay(decays.reduce_on_plateau),
    "step": Decay(decays.step),
    "trapezoid": Decay(decays.trapezoid, per_step=True),
}


class Course(NamedTuple):
    """A schedule as functions of the iteration.

    Attributes:
        factor: what the base learning rate is multiplied with.
        momentum: the momentum, before its warm-up.
    """

    factor: Schedule
    momentum: Schedule


def epoch_decay(
    name: str,
    *,
    final_ratio: float,
    steps_per_epoch: int,
    epochs: int,
    momentum: float = 0.0,
    arguments: Mapping[str, Any] | None = None,
) -> Course:
    """A schedule by its name, over a run.

    Args:
        name: an entry of `SCHEDULES`.
        final_ratio: the factor that the schedule falls to.
        steps_per_epoch: iterations in an epoch.
        epochs: epochs in the run; from then on the factor stays at its last value.
        momentum: the config's.
        arguments: the schedule's own, and `per_step`: whether it moves in every
            iteration, as `one_cycle` and `trapezoid` do unless told otherwise, or
            between epochs only, as the published ones do.

    Raises:
        ValueError: there is no such schedule or argument, a count is not positive, or
            the schedule is longer than the run.
    """
    entry = lookup.pick(SCHEDULES, name, "schedule")
    own = dict(arguments or {})
    for what, count in (("steps_per_epoch", steps_per_epoch), ("epochs", epochs)):
        if count < 1:
            raise ValueError(f"{what} is {count}; expected at least 1")
    known = [*inspect.signature(entry.rate).parameters, "per_step"]
    known = [k for k in known if k not in ("epoch", "epochs", "final_ratio")]
    for argument in own:
        if argument not in known:
            raise ValueError(
                f"config.optim.schedule_arguments: schedule {name!r} has no argument "
                f"{argument!r}.{lookup.hint(argument, known)} Choices: "
                f"{', '.join(sorted(known))}"
            )
    per_step = own.pop("per_step", entry.per_step)

    def done(step: ArrayLike) -> jax.Array:
        step = jnp.asarray(step, jnp.int32)
        if per_step:
            end = epochs * steps_per_epoch
            return jnp.minimum(step, end).astype(jnp.float32) / steps_per_epoch
        return jnp.minimum(step // steps_per_epoch, epochs).astype(jnp.float32)

    def factor(step: ArrayLike) -> jax.Array:
        return entry.rate(done(step), epochs=epochs, final_ratio=final_ratio, **own)

    def momentum_at(step: ArrayLike) -> jax.Array:
        if entry.momentum is None:
            return jnp.float32(momentum)
        return entry.momentum(done(step), momentum, epochs=epochs, **own)

    try:
        jax.eval_shape(factor, 0)
    except TypeError as error:
        raise ValueError(
            f"config.optim.schedule_arguments: a value of schedule {name!r} is of the "
            f"wrong kind: {error}"
        ) from error
    return Course(factor, momentum_at)


def held(course: Course, start: int, factor: float) -> Course:
    """The course with one factor from iteration `start` on.

    Source: Izmailov et al. 2018, arXiv:1803.05407, section 3.2, a constant rate.
    """

    def at(step: ArrayLike) -> jax.Array:
        late = jnp.asarray(step, jnp.int32) >= start
        return jnp.where(late, jnp.float32(factor), course.factor(step))

    return course._replace(factor=at)


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


def pictures_of_step(batch_size: int, nominal_batch: int) -> int:
    """Pictures of an optimiser step after the warm-up: whole batches, about nominal."""
    return batch_size * max(round(nominal_batch / batch_size), 1)


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
