"""The moving average of parameters and batch statistics that is evaluated and kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike


def ema_decay(updates: ArrayLike, *, decay: float, ramp: float) -> jax.Array:
    """The share of the old average that an update keeps, a float32 scalar.

    decay * (1 - exp(-updates / ramp)): near 0 at first, so that the average forgets
    the initial parameters, then rising to `decay`.

    Args:
        updates: number of the update, counted from 1.
        decay: the limit, in [0, 1).
        ramp: updates after which the share has reached 63 % of the limit.

    Source: the rule of YOLOv5 v7.0, with decay 0.9999 and ramp 2000.
    """
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
