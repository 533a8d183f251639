"""Dynamic loss scaling, which keeps gradients in float16 from vanishing.

The loss is multiplied before the backward pass, and the gradients, in float32 by then,
are divided afterwards. All scales are powers of two times the initial one, so neither
rounds if that is a power of two.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

State = dict[str, jax.Array]

# Where the loss as it is overflows, another scale is no help.
LOWEST = 1.0


class LossScaling(NamedTuple):
    """How the scale moves.

    Attributes:
        initial: the scale to start from.
        growth_steps: finite steps in a row after which it is doubled.
    """

    initial: float = 32768.0
    growth_steps: int = 2000


def init(initial: float) -> State:
    """The state before the first step.

    Args:
        initial: the scale to start from; too large a one costs a step each halving.

    Returns:
        `scale`, a float32 scalar, and `good_steps`, int32, finite steps since it
        last changed.
    """
    return {
        "scale": jnp.asarray(initial, jnp.float32),
        "good_steps": jnp.zeros((), jnp.int32),
    }


def update(state: State, finite: jax.Array, *, growth_steps: int) -> State:
    """The scale after a step: half of it after an overflow, twice after many without.

    Args:
        state: see `init`.
        finite: bool scalar: whether the step's loss and gradients were.
        growth_steps: finite steps in a row after which the scale is doubled.

    Source: Micikevicius et al. 2018, arXiv:1710.03740, section 3.2, with the factor 2
    both ways.
    """
    good = state["good_steps"] + 1
    grows = good >= growth_steps
    doubled = jnp.minimum(state["scale"] * 2.0, jnp.float32(2.0**126))
    halved = jnp.maximum(state["scale"] * 0.5, LOWEST)
    scale = jnp.where(finite, jnp.where(grows, doubled, state["scale"]), halved)
    return {
        "scale": scale,
        "good_steps": jnp.where(finite & ~grows, good, jnp.zeros_like(good)),
    }


def can_fall(state: State) -> jax.Array:
    """Whether an overflow may be the scale's fault, a bool scalar."""
    return state["scale"] > LOWEST
