"""Pieces of Optax, made to take their momentum from the iteration."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from yolojax.optim.schedules import Schedule
from yolojax.optim.transforms import Transform, transform

Inner = optax.GradientTransformation


@contextlib.contextmanager
def _own_rules() -> Iterator[None]:
    """Optax mixes types and ranks; it is not ours to change."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def borrowed(inner: Inner) -> Transform:
    """A transform of Optax that is told of the iteration and needs it not."""
    inner = optax.with_extra_args_support(inner)

    def init(params):
        with _own_rules():
            return inner.init(params)

    def update(updates, state, params=None, **extra):
        with _own_rules():
            return inner.update(updates, state, params, **extra)

    return transform(init, update)


class ScheduledState(NamedTuple):
    """A transform's state, and how much of its average comes from gradients.

    Attributes:
        inner: the state of the transform inside.
        weight: float32 scalar, in [0, 1].
    """

    inner: Any
    weight: jax.Array


def scheduled(
    make: Callable[[Any], Inner], momentum: Schedule, *, corrected: bool = False
) -> Transform:
    """A transform of Optax whose momentum depends on the iteration.

    Args:
        make: from the momentum to the transform; its state's structure must not
            depend on it.
        momentum: the momentum at an iteration.
        corrected: whether the transform divides its average by 1 - m^t, t updates
            done, and is proportional to it. The right divisor for an m that changes
            is the weight that the average really has, and is put in its place.
    """

    def init(params):
        with _own_rules():
            inner = make(0.9).init(params)
        if corrected:
            return ScheduledState(inner, jnp.zeros((), jnp.float32))
        return inner

    def update(updates, state, params=None, *, step, **extra):
        del extra
        m = momentum(step)
        inner = state.inner if corrected else state
        with _own_rules():
            updates, inner = make(m).update(updates, inner, params)
        if not corrected:
            return updates, inner
        weight = m * state.weight + (1.0 - m)
        count = optax.tree.get(inner, "count").astype(jnp.float32)
        ratio = (1.0 - m**count) / weight
        updates = jax.tree.map(lambda u: u * ratio, updates)
        return updates, ScheduledState(inner, weight)

    return transform(init, update)
