"""The formulas of the schedules: factors of the learning rate over the epochs done.

Each takes `epoch`, the epochs done as a float32 in [0, epochs], the run's `epochs` and
`final_ratio`, and its own arguments by keyword.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp


def constant(epoch: jax.Array, *, epochs: int, final_ratio: float) -> jax.Array:
    """1 throughout; nothing else has a part in it."""
    del epochs, final_ratio
    return jnp.ones_like(epoch)


def linear(epoch: jax.Array, *, epochs: int, final_ratio: float) -> jax.Array:
    """From 1 down to `final_ratio` on a straight line.

    Args:
        epoch: epochs done, in [0, epochs]; so it is for all schedules.
        epochs: those of the run.
        final_ratio: the value at the end.
    """
    share = epoch / epochs
    return (1.0 - share) * (1.0 - final_ratio) + final_ratio


def cosine(epoch: jax.Array, *, epochs: int, final_ratio: float) -> jax.Array:
    """From 1 down to `final_ratio` on half a period of the cosine.

    Source: He et al. 2019, arXiv:1812.01187, section 3.1, here with a floor.
    """
    return _half_wave(epoch / epochs, final_ratio)


def step(
    epoch: jax.Array,
    *,
    epochs: int,
    final_ratio: float,
    milestones: Sequence[float] = (),
    every: int = 0,
    factor: float = 0.1,
) -> jax.Array:
    """Multiplied by `factor` at each milestone, or every so many epochs.

    Args:
        epoch: epochs done.
        epochs: those of the run.
        final_ratio: has no part in it.
        milestones: epochs at which it falls, rising, within the run.
        every: in place of milestones: it falls after each `every` epochs.
        factor: above 0.

    Raises:
        ValueError: both or none of `milestones` and `every`, or they do not lie
            within the run.
    """
    del final_ratio
    if bool(milestones) == bool(every):
        raise ValueError("step takes either milestones or every, an epoch or more")
    places = tuple(milestones) or tuple(range(every, epochs, every))
    if not places or max(places) >= epochs:
        last = max(places, default=every)
        raise ValueError(
            f"step falls at epoch {last}, but the run has {epochs} epochs. Give "
            "earlier ones, or raise config.epochs"
        )
    if min(places) <= 0 or list(places) != sorted(set(places)) or factor <= 0:
        raise ValueError(
            f"milestones {places} must be above 0 and rise, and factor {factor} must "
            "be above 0"
        )
    fallen = jnp.sum(epoch >= jnp.asarray(places, jnp.float32))
    return jnp.float32(factor) ** fallen.astype(jnp.float32)


def exponential(
    epoch: jax.Array, *, epochs: int, final_ratio: float, factor: float = 0.0
) -> jax.Array:
    """Multiplied by the same factor in each epoch.

    Args:
        epoch: epochs done.
        epochs: those of the run.
        final_ratio: the value at the end, where `factor` is 0.
        factor: of an epoch; 0: such that the end is `final_ratio`.

    Raises:
        ValueError: the factor is below 0, or it and `final_ratio` are both 0.
    """
    if factor < 0 or (factor == 0 and final_ratio <= 0):
        raise ValueError(
            f"exponential needs a factor above 0, not {factor}, or "
            f"config.optim.final_ratio above 0, not {final_ratio}"
        )
    rate = math.log(factor) if factor else math.log(final_ratio) / epochs
    return jnp.exp(rate * epoch)


def polynomial(
    epoch: jax.Array, *, epochs: int, final_ratio: float, power: float = 2.0
) -> jax.Array:
    """(1 - share done)^power, from 1 down to `final_ratio`.

    Args:
        epoch: epochs done.
        epochs: those of the run.
        final_ratio: the value at the end.
        power: 1 is `linear`.

    Raises:
        ValueError: `power` is not above 0.
    """
    if power <= 0:
        raise ValueError(f"power must be above 0, not {power}")
    share = epoch / epochs
    return (1.0 - share) ** power * (1.0 - final_ratio) + final_ratio


def cosine_restarts(
    epoch: jax.Array,
    *,
    epochs: int,
    final_ratio: float,
    period: int = 10,
    growth: float = 1.0,
) -> jax.Array:
    """Half a period of the cosine, again and again, each `growth` times as long.

    Args:
        epoch: epochs done.
        epochs: those of the run; at its end the value is that at the end of a wave.
        final_ratio: the value that each wave falls to.
        period: epochs of the first wave.
        growth: of the period, at least 1.

    Raises:
        ValueError: the first wave is longer than the run, or `growth` is below 1.

    Source: Loshchilov and Hutter 2017, arXiv:1608.03983, equation 5.
    """
    if not 1 <= period <= epochs or growth < 1:
        raise ValueError(
            f"cosine_restarts has a period of {period} epochs and growth {growth}; "
            f"the run has {epochs} epochs, and growth is at least 1"
        )
    lengths, starts = [float(period)], [0.0]
    while starts[-1] + lengths[-1] < epochs:
        starts.append(starts[-1] + lengths[-1])
        lengths.append(lengths[-1] * growth)
    wave = jnp.sum(epoch >= jnp.asarray(starts, jnp.float32)) - 1
    since = epoch - jnp.asarray(starts, jnp.float32)[wave]
    return _half_wave(since / jnp.asarray(lengths, jnp.float32)[wave], final_ratio)


def one_cycle(
    epoch: jax.Array,
    *,
    epochs: int,
    final_ratio: float,
    rise: float = 0.3,
    start_ratio: float = 0.04,
    lowest_momentum: float = 0.85,
) -> jax.Array:
    """Up from `start_ratio` to 1, then down to `final_ratio`, each half a cosine.

    Args:
        epoch: epochs done.
        epochs: those of the run.
        final_ratio: the value at the end.
        rise: share of the run in which it rises, in (0, 1).
        start_ratio: the value at the start.
        lowest_momentum: the momentum where the rate is highest; it moves against the
            rate, from the config's momentum down and back.

    Raises:
        ValueError: `rise` or `lowest_momentum` does not lie between 0 and 1.

    Source: Smith 2018, arXiv:1803.09820, section 4.3; cosines in place of lines.
    """
    _check_share("rise", rise)
    _check_share("lowest_momentum", lowest_momentum)
    share = epoch / epochs
    up = _half_wave(jnp.minimum(share / rise, 1.0), start_ratio, rising=True)
    down = _half_wave(jnp.maximum(share - rise, 0.0) / (1.0 - rise), final_ratio)
    return jnp.where(share < rise, up, down)


def one_cycle_momentum(
    epoch: jax.Array,
    momentum: float,
    *,
    epochs: int,
    rise: float = 0.3,
    lowest_momentum: float = 0.85,
    **_: Any,
) -> jax.Array:
    """The momentum of `one_cycle`: from `momentum` down to the lowest, and back."""
    share = epoch / epochs
    down = jnp.minimum(share / rise, 1.0)
    up = jnp.maximum(share - rise, 0.0) / (1.0 - rise)
    wave = (1.0 - jnp.cos(jnp.pi * jnp.where(share < rise, down, 1.0 - up))) / 2.0
    return momentum + (lowest_momentum - momentum) * wave


def trapezoid(
    epoch: jax.Array,
    *,
    epochs: int,
    final_ratio: float,
    rise: float = 0.0,
    fall: float = 0.2,
) -> jax.Array:
    """Up to 1 on a line, constant, and down to `final_ratio` on a line.

    Args:
        epoch: epochs done.
        epochs: those of the run.
        final_ratio: the value at the end.
        rise: share of the run in which it rises from 0; the config's own warm-up
            comes on top.
        fall: share of the run in which it falls.

    Raises:
        ValueError: a share is below 0, or both are longer than the run.

    Source: Zhai et al. 2022, arXiv:2106.04560, section 3.5, and as "trapezoidal" or
    "warm-up, stable, decay" since.
    """
    if min(rise, fall) < 0 or rise + fall > 1:
        raise ValueError(
            f"trapezoid rises over {rise} and falls over {fall} of the run, which is "
            "more than all of it, or less than nothing"
        )
    share = epoch / epochs
    up = share / rise if rise else jnp.ones_like(share)
    left = (1.0 - share) / fall if fall else jnp.ones_like(share)
    down = final_ratio + (1.0 - final_ratio) * jnp.minimum(left, 1.0)
    return jnp.minimum(jnp.minimum(up, 1.0), down)


def reduce_on_plateau(
    epoch: jax.Array,
    *,
    epochs: int,
    final_ratio: float,
    factor: float = 0.1,
    patience: int = 10,
    min_change: float = 0.0,
    cooldown: int = 0,
) -> jax.Array:
    """1; the evaluations' factor is a state, see `wrappers.on_plateau`."""
    del epochs, final_ratio, factor, patience, min_change, cooldown
    return jnp.ones_like(epoch)


def _half_wave(share: jax.Array, low: float, *, rising: bool = False) -> jax.Array:
    if rising:
        share = 1.0 - share
    return (1.0 - jnp.cos(jnp.pi * share)) / 2.0 * (low - 1.0) + 1.0


def _check_share(name: str, value: float) -> None:
    if not 0 < value < 1:
        raise ValueError(f"{name} must lie between 0 and 1, not {value}")
