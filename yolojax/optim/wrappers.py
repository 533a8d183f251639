"""What is put around an optimiser: schedule-free averaging, look-ahead, plateaus."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from yolojax.optim.schedules import Schedule
from yolojax.optim.transforms import Transform, transform, tree_where


class ScheduleFreeState(NamedTuple):
    """What schedule-free learning keeps.

    Attributes:
        z: the sequence that the optimiser inside moves, a float32 tree.
        share: float32 scalar, what the average has of the parameters.
        weight_sum: float32 scalar, sum of the weights so far.
        largest_rate: float32 scalar, of all so far.
        inner: the state of the optimiser inside.
    """

    z: Any
    share: jax.Array
    weight_sum: jax.Array
    largest_rate: jax.Array
    inner: Any


def schedule_free(
    inner: Transform, rate: Schedule, share: Schedule, *, power: float = 2.0
) -> Transform:
    """Averages of the iterates in place of a falling learning rate.

    The parameters y are share * x + (1 - share) * z: z is moved by `inner` with
    gradients at y, x is the average of all z, weighted by the largest rate so far to
    the power `power`. x is what should be evaluated, see `averaged_parameters`.

    Args:
        inner: without momentum, with its learning rate.
        rate: the learning rate, for the weights.
        share: of x in the parameters at an iteration; above 0.
        power: 0 weights all alike.

    Source: Defazio et al. 2024, arXiv:2405.15682, section 3 and Algorithm 1.
    """

    def init(params):
        # A copy: a donated buffer must not appear twice.
        z = jax.tree.map(jnp.copy, params)
        return ScheduleFreeState(
            z=z,
            share=jnp.copy(share(0)),
            weight_sum=jnp.zeros((), jnp.float32),
            largest_rate=jnp.zeros((), jnp.float32),
            inner=inner.init(params),
        )

    def update(updates, state, params=None, *, step, plateau=None, **extra):
        x = averaged_parameters(state, params)
        moves, inner_state = inner.update(
            updates, state.inner, params, step=step, plateau=plateau, **extra
        )
        z = jax.tree.map(jnp.add, state.z, moves)
        value = rate(step) if plateau is None else rate(step) * plateau
        largest = jnp.maximum(state.largest_rate, value)
        weight = largest**power
        total = state.weight_sum + weight
        c = jnp.where(total > 0, weight / jnp.where(total > 0, total, 1.0), 0.0)
        x = jax.tree.map(lambda x, z: (1.0 - c) * x + c * z, x, z)
        part = share(step)
        y = jax.tree.map(lambda x, z: part * x + (1.0 - part) * z, x, z)
        moves = jax.tree.map(jnp.subtract, y, params)
        return moves, ScheduleFreeState(z, part, total, largest, inner_state)

    return transform(init, update)


def averaged_parameters(state: ScheduleFreeState, params: Any) -> Any:
    """The average x that schedule-free learning is about, of its parameters."""
    part = state.share
    return jax.tree.map(lambda y, z: (y - (1.0 - part) * z) / part, params, state.z)


def find_state(opt_state: Any, kind: type) -> Any:
    """The one state of a kind in an optimiser's state, or None."""
    leaves = jax.tree.leaves(opt_state, is_leaf=lambda x: isinstance(x, kind))
    return next((leaf for leaf in leaves if isinstance(leaf, kind)), None)


class LookaheadState(NamedTuple):
    """What look-ahead keeps.

    Attributes:
        slow: the slow weights, a float32 tree.
        since: int32 scalar, optimiser steps since they were last moved.
        inner: the state of the optimiser inside.
    """

    slow: Any
    since: jax.Array
    inner: Any


def lookahead(inner: Transform, *, steps: int = 6, share: float = 0.5) -> Transform:
    """Every so many steps, go back a part of the way to where they began.

    Args:
        inner: the optimiser that moves the fast weights, which are the parameters.
        steps: optimiser steps between two moves of the slow weights.
        share: how far these go towards the fast ones, which then go on from there.

    Raises:
        ValueError: `steps` is below 1, or `share` is not in (0, 1].

    Source: Zhang et al. 2019, arXiv:1907.08610, Algorithm 1.
    """
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise ValueError(
            f"config.optim.lookahead: steps must be an integer from 1 on, not {steps!r}"
        )
    if not 0 < share <= 1:
        raise ValueError(
            f"config.optim.lookahead: share must be above 0 and at most 1, not {share}"
        )

    def init(params):
        slow = jax.tree.map(jnp.copy, params)
        return LookaheadState(slow, jnp.zeros((), jnp.int32), inner.init(params))

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> Any:
        moves, inner_state = inner.update(updates, state.inner, params, **extra)
        since = state.since + 1
        due = since >= steps
        fast = optax.apply_updates(params, moves)
        slow = jax.tree.map(lambda s, f: s + share * (f - s), state.slow, fast)
        back = jax.tree.map(jnp.subtract, slow, params)
        moves = tree_where(due, back, moves)
        slow = tree_where(due, slow, state.slow)
        return moves, LookaheadState(slow, jnp.where(due, 0, since), inner_state)

    return transform(init, update)


class PlateauState(NamedTuple):
    """What reducing the rate on a plateau keeps.

    Attributes:
        factor: float32 scalar that all learning rates are multiplied with.
        best: float32 scalar, the largest value so far.
        since: int32 scalar, evaluations without a better one.
        cooldown: int32 scalar, evaluations that are still not counted.
        inner: the state of the optimiser inside.
    """

    factor: jax.Array
    best: jax.Array
    since: jax.Array
    cooldown: jax.Array
    inner: Any


def with_plateau(inner: Transform) -> Transform:
    """Multiply the learning rates of `inner` by a factor that `on_plateau` changes."""

    def init(params):
        return PlateauState(
            factor=jnp.ones((), jnp.float32),
            best=jnp.full((), -math.inf, jnp.float32),
            since=jnp.zeros((), jnp.int32),
            cooldown=jnp.zeros((), jnp.int32),
            inner=inner.init(params),
        )

    def update(updates, state, params=None, **extra):
        moves, inner_state = inner.update(
            updates, state.inner, params, plateau=state.factor, **extra
        )
        return moves, state._replace(inner=inner_state)

    return transform(init, update)


@jax.jit
def _after(
    factor: Any, best: Any, since: Any, cooldown: Any, value: Any, rule: dict[str, Any]
) -> dict[str, jax.Array]:
    """The four scalars of `PlateauState` after an evaluation, by name."""
    better = jnp.isfinite(value) & (value > best + rule["min_change"])
    since = jnp.where(better | (cooldown > 0), 0, since + 1)
    due = since >= rule["patience"]
    rest = jnp.where(due, rule["cooldown"], jnp.maximum(cooldown - 1, 0))
    return {
        "factor": jnp.where(due, factor * rule["factor"], factor),
        "best": jnp.where(better, value, best),
        "since": jnp.where(due, 0, since),
        "cooldown": rest,
    }


def on_plateau(
    opt_state: Any,
    value: float,
    *,
    factor: float = 0.1,
    patience: int = 10,
    min_change: float = 0.0,
    cooldown: int = 0,
) -> Any:
    """The optimiser's state after an evaluation; the rest of it stays as it is.

    Args:
        opt_state: with a `PlateauState` in it.
        value: what the evaluation gave; larger is better. One that is not finite
            counts as no better.
        factor: what the rates are multiplied with, in (0, 1).
        patience: evaluations without a better value after which that happens.
        min_change: how much better a value must be.
        cooldown: evaluations after it that do not count.
    """

    rule = {
        "factor": np.float32(factor),
        "patience": np.int32(patience),
        "min_change": np.float32(min_change),
        "cooldown": np.int32(cooldown),
    }

    def changed(state: PlateauState) -> PlateauState:
        found = _after(
            *(state.factor, state.best, state.since, state.cooldown),
            np.float32(value),
            rule,
        )
        # Placed as before, or the training step would be compiled once more.
        return state._replace(
            **{
                k: jax.device_put(v, getattr(state, k).sharding)
                for k, v in found.items()
            }
        )

    return jax.tree.map(
        lambda leaf: changed(leaf) if isinstance(leaf, PlateauState) else leaf,
        opt_state,
        is_leaf=lambda leaf: isinstance(leaf, PlateauState),
    )


def check_plateau(
    *, factor: float = 0.1, patience: int = 10, cooldown: int = 0, **_: Any
) -> None:
    """Check the arguments of `on_plateau`.

    Raises:
        ValueError: one is out of range.
    """
    if not 0 < factor < 1 or patience < 1 or cooldown < 0:
        raise ValueError(
            "config.optim.schedule_arguments: reduce_on_plateau needs a factor between "
            f"0 and 1, not {factor}, patience from 1 on, not {patience}, and cooldown "
            f"from 0 on, not {cooldown}"
        )
