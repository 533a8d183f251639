"""The moving average of parameters and batch statistics that is evaluated and kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from yolojax import lookup


class Decay(NamedTuple):
    """The arguments of `ema_decay`."""

    decay: float
    ramp: float


# From the decay and ramp of a config to those that are used. With a decay of 0 the
# average is the parameters and statistics themselves, to the bit.
EMAS: dict[str, Callable[[float, float], Decay]] = {
    "ramp": Decay,
    "constant": lambda decay, ramp: Decay(decay, 0.0),
    "none": lambda decay, ramp: Decay(0.0, 0.0),
}


def choose_decay(name: str, *, decay: float, ramp: float) -> Decay:
    """What `config.ema` asks for.

    Args:
        name: `ramp`, as published; `constant`, the same decay from the first update
            on; `none`, no average: the raw weights are evaluated and kept.
        decay: the limit, in [0, 1).
        ramp: see `ema_decay`.

    Raises:
        ValueError: there is no such average.
    """
    return lookup.pick(EMAS, name, "average (config.ema.name)")(decay, ramp)


def ema_decay(updates: ArrayLike, *, decay: float, ramp: float) -> jax.Array:
    """The share of the old average that an update keeps, a float32 scalar.

    decay * (1 - exp(-updates / ramp)): near 0 at first, so that the average forgets
    the initial parameters, then rising to `decay`.

    Args:
        updates: number of the update, counted from 1.
        decay: the limit, in [0, 1).
        ramp: updates after which the share has reached 63 % of the limit; 0: it is
            the limit throughout.

    Source: the rule of YOLOv5 v7.0, with decay 0.9999 and ramp 2000.
    """
    if ramp == 0:
        return jnp.float32(decay)
    number = jnp.asarray(updates, jnp.float32)
    # expm1 keeps the digits that 1 - exp loses in the first updates.
    return -decay * jnp.expm1(-number / ramp)


def update_ema(
    ema: Mapping[str, Any],
    params: Any,
    batch_stats: Any,
    updates: ArrayLike,
    *,
    decay: float,
    ramp: float,
) -> dict[str, Any]:
    """The moving average after one more optimiser step.

    Args:
        ema: dict with `params` and `batch_stats`, float32.
        params: the parameters after the step.
        batch_stats: the batch statistics after the step.
        updates: updates done before this one.
        decay: see `ema_decay`.
        ramp: see `ema_decay`.
    """
    number = jnp.asarray(updates, jnp.int32) + 1
    keep = ema_decay(number, decay=decay, ramp=ramp)

    def average(old: jax.Array, new: jax.Array) -> jax.Array:
        return keep * old + (1.0 - keep) * new

    return {
        "params": jax.tree.map(average, ema["params"], params),
        "batch_stats": jax.tree.map(average, ema["batch_stats"], batch_stats),
    }
