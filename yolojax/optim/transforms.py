"""Gradient transforms that take their time from `step`, to be chained with Optax.

They are `optax.GradientTransformationExtraArgs` whose `update` takes the iteration
as `step=`; none of them counts iterations in its state.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from yolojax.optim.schedules import Schedule

Transform = optax.GradientTransformationExtraArgs


def tree_where(flag: ArrayLike, new: Any, old: Any) -> Any:
    """`new` if `flag`, else `old`, leaf by leaf.

    Nothing that is not finite in the tree left out gets through, so this is how a
    step whose loss or gradient is not finite is undone.

    Args:
        flag: bool scalar.
        new: a tree of arrays.
        old: a tree of the same structure, shapes and types.
    """
    return jax.tree.map(lambda n, o: jnp.where(flag, n, o), new, old)


def zeros_like(tree: Any) -> Any:
    """Float32 zeros in the shapes of a tree's leaves."""
    return jax.tree.map(lambda x: jnp.zeros(jnp.shape(x), jnp.float32), tree)


def transform(init: Any, update: Any) -> Transform:
    """A transform whose `update` may require extra arguments."""
    # Any: Optax's own types leave no room for a required extra argument.
    return Transform(init, update)


def stateless(update: Any) -> Transform:
    """A transform without a state."""
    return transform(lambda params: optax.EmptyState(), update)


def clip_by_norm(max_norm: float) -> Transform:
    """Shrink the gradient as a whole where its norm exceeds `max_norm`.

    The factor is max / (norm + 1e-6), as PyTorch has it; Optax leaves the 1e-6 out.

    Args:
        max_norm: the largest Euclidean norm over all parameters together.
    """

    def update(updates, state, params=None, **extra):
        del params, extra
        factor = jnp.minimum(max_norm / (optax.tree.norm(updates) + 1e-6), 1.0)
        return jax.tree.map(lambda g: g * factor, updates), state

    return stateless(update)


class TraceState(NamedTuple):
    """The momentum buffers, a float32 tree like the parameters."""

    trace: Any


def scheduled_trace(momentum: Schedule, *, nesterov: bool) -> Transform:
    """Momentum whose factor depends on the iteration.

    buffer = m * buffer + g; the update is the buffer, or g + m * buffer with
    Nesterov's correction. There is no dampening.

    Args:
        momentum: m at an iteration.
        nesterov: whether to look ahead.

    Source: Sutskever et al. 2013, section 2, in the form that PyTorch's SGD has.
    """

    def init(params):
        return TraceState(zeros_like(params))

    def update(updates, state, params=None, *, step, **extra):
        del params, extra
        m = momentum(step)
        trace = jax.tree.map(lambda g, t: m * t + g, updates, state.trace)
        if nesterov:
            updates = jax.tree.map(lambda g, t: g + m * t, updates, trace)
        else:
            updates = trace
        return updates, TraceState(trace)

    return transform(init, update)


class AdamState(NamedTuple):
    """The moving averages of Adam.

    Attributes:
        first: average of the gradient, a float32 tree like the parameters.
        second: average of its square.
        first_weight: float32 scalar, how much of `first` comes from gradients rather
            than from its start at zero.
        second_weight: the same for `second`.
    """

    first: Any
    second: Any
    first_weight: jax.Array
    second_weight: jax.Array


def scheduled_adam(
    momentum: Schedule,
    *,
    b2: float,
    eps: float,
    eps_root: float = 0.0,
    nesterov: bool = False,
) -> Transform:
    """Adam's direction, whose first decay rate depends on the iteration.

    The bias correction divides by the weight that an average really has, which is
    1 - b^t for a constant rate and stays right for one that changes.

    Args:
        momentum: the decay rate of the average of gradients at an iteration.
        b2: the decay rate of the average of squares.
        eps: added to the root of the average of squares.
        eps_root: added under the root.
        nesterov: whether to look one gradient ahead, as NAdam does.

    Source: Kingma and Ba 2015, arXiv:1412.6980, Algorithm 1; Dozat 2016, Algorithm 2,
    without its factor b2 on the squares, as Optax has it.
    """

    def init(params):
        # Two scalars: a donated buffer must not appear twice.
        weights = (jnp.zeros((), jnp.float32) for _ in range(2))
        return AdamState(zeros_like(params), zeros_like(params), *weights)

    def update(updates, state, params=None, *, step, **extra):
        del params, extra
        b1 = momentum(step)
        first = jax.tree.map(lambda g, m: b1 * m + (1.0 - b1) * g, updates, state.first)
        second = jax.tree.map(
            lambda g, v: b2 * v + (1.0 - b2) * g * g, updates, state.second
        )
        first_weight = b1 * state.first_weight + (1.0 - b1)
        second_weight = b2 * state.second_weight + (1.0 - b2)
        mean = first
        mean_weight = first_weight
        if nesterov:
            # The next average were this gradient to come again; each of its two parts
            # has the weight that it would then have.
            ahead = b1 * first_weight + (1.0 - b1)
            mean = jax.tree.map(
                lambda g, m: b1 * m / ahead + (1.0 - b1) * g / first_weight,
                updates,
                first,
            )
            mean_weight = jnp.ones((), jnp.float32)

        def direction(m, v):
            squares = v / second_weight
            # Bit for bit the published steps where nothing is added.
            root = jnp.sqrt(squares + eps_root if eps_root else squares)
            return m / mean_weight / (root + eps)

        updates = jax.tree.map(direction, mean, second)
        return updates, AdamState(first, second, first_weight, second_weight)

    return transform(init, update)


def scale_by_rates(
    labels: Any, rates: Mapping[str, Schedule], factors: Any = None
) -> Transform:
    """Multiply by minus the learning rate of each parameter's group.

    `update` takes `plateau`, a scalar that multiplies all rates, if it is given.

    Args:
        labels: a tree like the parameters with the name of a group at each leaf.
        rates: the learning rate of each group at an iteration.
        factors: a tree like the parameters with a float that multiplies the rate; None:
            1 throughout.
    """

    def update(updates, state, params=None, *, step, plateau=None, **extra):
        del params, extra
        values = {name: rate(step) for name, rate in rates.items()}
        if plateau is not None:
            values = {name: value * plateau for name, value in values.items()}
        if factors is None:
            return jax.tree.map(lambda g, x: -values[x] * g, updates, labels), state
        return jax.tree.map(
            lambda g, x, f: -(values[x] * f) * g, updates, labels, factors
        ), state

    return stateless(update)


def add_parameters(amounts: Any) -> Transform:
    """Add each parameter times its amount: weight decay, or the gradient of L2.

    Args:
        amounts: a tree like the parameters with a float at each leaf; nothing is
            computed where it is 0.
    """

    def update(updates, state, params=None, **extra):
        del extra
        return jax.tree.map(
            lambda g, p, amount: g + amount * p if amount else g,
            updates,
            params,
            amounts,
        ), state

    return stateless(update)


def add_signs(amounts: Any) -> Transform:
    """Add the sign of each parameter times its amount: the gradient of L1.

    The sign of 0 is 0, so that a parameter that has come to rest there is left alone.

    Args:
        amounts: a tree like the parameters with a float at each leaf.
    """

    def update(updates, state, params=None, **extra):
        del extra
        return jax.tree.map(
            lambda g, p, amount: g + amount * jnp.sign(p) if amount else g,
            updates,
            params,
            amounts,
        ), state

    return stateless(update)


class AccumulateState(NamedTuple):
    """What accumulation keeps.

    Attributes:
        total: the sum of the gradients since the last optimiser step, float32.
        inner: the state of the transform inside.
    """

    total: Any
    inner: Any


def accumulate(inner: optax.GradientTransformation, stepped: Any) -> Transform:
    """Sum gradients, and hand the sum to `inner` at some iterations only.

    At the others the updates are zero and the inner state stays as it is. The
    gradients are summed, not averaged: a loss that is multiplied by its batch size,
    as YOLOv5's is, then gives the gradient of the larger batch. Where a caller undoes
    an iteration at which `inner` should have acted, the sum goes on to the next one.

    Args:
        inner: what to do with a sum.
        stepped: from the iteration to a bool scalar: whether `inner` acts at its end.
    """
    inner = optax.with_extra_args_support(inner)

    def init(params):
        return AccumulateState(zeros_like(params), inner.init(params))

    def update(updates, state, params=None, *, step, **extra):
        total = jax.tree.map(jnp.add, state.total, updates)
        zeros = jax.tree.map(jnp.zeros_like, total)

        def act():
            new, inner_state = inner.update(
                total, state.inner, params, step=step, **extra
            )
            return new, AccumulateState(zeros, inner_state)

        def wait():
            return zeros, AccumulateState(total, state.inner)

        return jax.lax.cond(stepped(step), act, wait)

    return transform(init, update)
