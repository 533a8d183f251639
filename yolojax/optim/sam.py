"""Sharpness-aware minimisation: gradients taken a little way up the hill.

Each method is a function from the gradient at the parameters, and a way to take it at
others, to the gradient that goes on to the optimiser, whatever that is. Directions are
normalised, so it does not matter what the loss is multiplied with. With accumulation
each iteration's batch has its own direction (m-sharpness, with m the batch size, as
Foret et al. define it in section 4.1).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from yolojax import lookup

Gradient = Callable[[Any], Any]
"""From parameters to the loss's gradient there."""

# Keeps 0/0 out where a gradient is zero.
_TINY = 1e-12


@dataclasses.dataclass(frozen=True)
class Sam:
    """A method with its arguments.

    Attributes:
        init: from parameters to its own state, () if there is none.
        gradient: `gradient(grads, gradient_at, params, state, step=..., share=...,
            look=...)` gives the new gradient and state: `grads` that at `params`,
            `step` the iteration, `share` the learning rate over `peak`, `look`
            whether it is one of those with a second gradient, where that is known
            already; None: it follows from `step`.
        peak: the base learning rate.
        period: iterations from one second gradient to the next.
    """

    init: Callable[[Any], Any]
    gradient: Callable[..., tuple[Any, Any]]
    peak: float = 1.0
    period: int = 1


def _no_state(params: Any) -> tuple[()]:
    del params
    return ()


def _along(params: Any, direction: Any, length: Any) -> Any:
    return jax.tree.map(lambda p, d: p + length * d, params, direction)


def ascent(grads: Any, rho: Any) -> Any:
    """The step of length `rho` along the gradient.

    Source: Foret et al. 2021, arXiv:2010.01412, equation 2 with p = 2.
    """
    factor = rho / (optax.tree.norm(grads) + _TINY)
    return jax.tree.map(lambda g: factor * g, grads)


def sam(*, rho: float = 0.05) -> Sam:
    """The gradient at the worst point near by, to first order.

    Args:
        rho: the distance, Euclidean over all trained parameters.

    Source: Foret et al. 2021, arXiv:2010.01412, Algorithm 1.
    """

    def gradient(grads, gradient_at, params, state, **_):
        return gradient_at(_along(params, ascent(grads, rho), 1.0)), state

    return Sam(_no_state, gradient)


def asam(*, rho: float = 0.5, eta: float = 0.01) -> Sam:
    """SAM with a neighbourhood that grows with each parameter's size.

    The step is rho T^2 g / |T g| with T = |w| + eta, element by element.

    Args:
        rho: the distance, relative to the parameters' size.
        eta: added to it, for parameters near 0.

    Source: Kwon et al. 2021, arXiv:2102.11600, equation 6 and section 3.2.
    """

    def gradient(grads, gradient_at, params, state, **_):
        sizes = jax.tree.map(lambda w: jnp.abs(w) + eta, params)
        scaled = jax.tree.map(jnp.multiply, sizes, grads)
        step = jax.tree.map(jnp.multiply, sizes, ascent(scaled, rho))
        return gradient_at(_along(params, step, 1.0)), state

    return Sam(_no_state, gradient)


def gsam(*, rho: float = 0.05, alpha: float = 0.2, rho_min: float | None = None) -> Sam:
    """SAM that also closes the gap between the worst point's loss and the loss itself.

    From SAM's gradient it takes `alpha` times the part of the plain gradient that is
    orthogonal to it.

    Args:
        rho: the distance; where the learning rate is largest, if `rho_min` is given.
        alpha: weight of the surrogate gap.
        rho_min: the distance at a learning rate of 0, linear in between; None: `rho`
            throughout. The paper has it at the schedule's lowest rate.

    Source: Zhuang et al. 2022, arXiv:2203.08065, Algorithm 1.
    """

    def gradient(grads, gradient_at, params, state, *, share, **_):
        length = rho if rho_min is None else rho_min + (rho - rho_min) * share
        worst = gradient_at(_along(params, ascent(grads, length), 1.0))
        across = _orthogonal(grads, worst)
        return _along(worst, across, -alpha), state

    return Sam(_no_state, gradient)


def look_sam(*, rho: float = 0.05, k: int = 5, alpha: float = 0.7) -> Sam:
    """SAM's second gradient in every k-th iteration only.

    What it differs by, orthogonal to the plain gradient, changes slowly: in between it
    is used again, `alpha` times as long as the gradient of the iteration.

    Args:
        rho: the distance.
        k: iterations from one second gradient to the next.
        alpha: length of the part used again, relative to the gradient.

    Source: Liu et al. 2022, arXiv:2203.02714, Algorithm 1.
    """

    def gradient(grads, gradient_at, params, state, *, step, look=None, **_):
        # In a condition, so that the second gradient is not paid for in between.
        def first():
            worst = gradient_at(_along(params, ascent(grads, rho), 1.0))
            return worst, _orthogonal(worst, grads)

        def reuse():
            length = alpha * optax.tree.norm(grads) / (optax.tree.norm(state) + _TINY)
            return _along(grads, state, length), state

        if look is not None:
            return first() if look else reuse()
        return jax.lax.cond(step % k == 0, first, reuse)

    def init(params):
        return jax.tree.map(lambda x: jnp.zeros(jnp.shape(x), jnp.float32), params)

    return Sam(init, gradient, period=k)


def _orthogonal(tree: Any, to: Any) -> Any:
    """The part of `tree` that is orthogonal to another one, as one long vector."""
    share = optax.tree.vdot(tree, to) / (optax.tree.vdot(to, to) + _TINY**2)
    return _along(tree, to, -share)


METHODS: dict[str, Callable[..., Sam]] = {
    "asam": asam,
    "gsam": gsam,
    "looksam": look_sam,
    "sam": sam,
}


def make_sam(chosen: Mapping[str, Any], *, peak: float = 1.0) -> Sam | None:
    """The method of `config.optim.sam`, or None where that is empty.

    Args:
        chosen: `name`, an entry of `METHODS`, and the method's arguments.
        peak: the base learning rate.

    Raises:
        ValueError: an unknown name or argument, or one out of range.
    """
    if not chosen:
        return None
    where = "config.optim.sam"
    arguments = dict(chosen)
    if "name" not in arguments:
        raise ValueError(f"{where} needs name=...; choices: {', '.join(METHODS)}")
    method = lookup.pick(METHODS, arguments.pop("name"), "SAM method")
    lookup.check_arguments(method, arguments, where)
    for name, value in arguments.items():
        whole = name == "k"
        kind, least = ("a whole number", 1) if whole else ("a number", 0)
        fits = isinstance(value, int if whole else (int, float))
        if isinstance(value, bool) or not fits or not least <= value < float("inf"):
            raise ValueError(
                f"{where}.{name} must be {kind}, at least {least}, not {value!r}"
            )
    return dataclasses.replace(method(**arguments), peak=peak)
