"""What all optimisers are built of: momentum, weight decay, rates."""

from __future__ import annotations

from typing import Any, NamedTuple

import optax

from yolojax import trees
from yolojax.optim.schedules import Schedule
from yolojax.optim.transforms import Transform


class Pieces(NamedTuple):
    """What every optimiser is built of besides its own arguments.

    Attributes:
        momentum: at an iteration, with its warm-up.
        decay: adds the decayed weights.
        rates: multiplies by minus the learning rate of each group.
        rate: the base learning rate at an iteration.
        params: the parameters, of which only paths and shapes are used.
    """

    momentum: Schedule
    decay: Transform
    rates: Transform
    rate: Schedule
    params: Any


def kernels(params: Any) -> Any:
    """A tree of booleans: which parameters are kernels."""
    paths = trees.flatten(params)
    return trees.unflatten({p: p.rsplit("/", 1)[-1] == "kernel" for p in paths})


def coupled(pieces: Pieces, direction: Transform) -> Transform:
    """A direction of the gradient with the weight decay in it, times the rates."""
    return optax.named_chain(
        ("decay", pieces.decay), ("direction", direction), ("rates", pieces.rates)
    )


def decoupled(pieces: Pieces, *directions: Transform) -> Transform:
    """Directions one upon the other, with the weight decay beside, times the rates."""
    named = [(f"direction{i}", piece) for i, piece in enumerate(directions)]
    return optax.named_chain(*named, ("decay", pieces.decay), ("rates", pieces.rates))
