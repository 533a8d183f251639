"""The optimisers, by their names in Optax.

Each is built of Optax's pieces, with the learning rate, the momentum and the weight
decay that the config gives for all of them: `config.optim.momentum` is what Optax
calls `momentum` (sgd, lars), `b1` (the Adam family, lion, schedule-free) or `beta`
(muon), and warms up. Where the weight decay acts differs, as it does in the sources:
in the gradient, where it is the same as L2; or beside it, multiplied by the learning
rate alone ("decoupled"). Each builder says which.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import optax

from yolojax import lookup
from yolojax.optim import adaptive, layerwise, transforms, wrappers
from yolojax.optim.borrowed import borrowed
from yolojax.optim.pieces import Pieces, decoupled
from yolojax.optim.transforms import Transform


def sgd(pieces: Pieces, *, nesterov: bool = True) -> Transform:
    """SGD with momentum; the weight decay is part of the gradient.

    Args:
        pieces: see `Pieces`.
        nesterov: whether to use Nesterov's correction.
    """
    return optax.named_chain(
        ("decay", pieces.decay),
        ("trace", transforms.scheduled_trace(pieces.momentum, nesterov=nesterov)),
        ("rates", pieces.rates),
    )


def schedule_free_sgd(pieces: Pieces, *, weight_lr_power: float = 2.0) -> Transform:
    """SGD and an average of its iterates, which is evaluated; decay in the gradient.

    `config.optim.momentum` is the share of the average in the point where gradients
    are taken. The schedule should be `constant`.

    Args:
        pieces: see `Pieces`.
        weight_lr_power: exponent of the largest rate so far in the average's weights.

    Source: Defazio et al. 2024, arXiv:2405.15682.
    """
    inner = optax.named_chain(("decay", pieces.decay), ("rates", pieces.rates))
    return wrappers.schedule_free(
        inner, pieces.rate, pieces.momentum, power=weight_lr_power
    )


def schedule_free_adamw(
    pieces: Pieces,
    *,
    b2: float = 0.999,
    eps: float = 1e-8,
    weight_lr_power: float = 2.0,
) -> Transform:
    """AdamW without its first average, and an average of its iterates; decay beside.

    Args:
        pieces: see `Pieces`.
        b2: decay rate of the average of squares.
        eps: added to the root of the average of squares.
        weight_lr_power: as for `schedule_free_sgd`, like all the rest.

    Source: Defazio et al. 2024, arXiv:2405.15682, Algorithm 1.
    """
    direction = optax.scale_by_rms(
        decay=b2, eps=eps, eps_in_sqrt=False, bias_correction=True
    )
    inner = decoupled(pieces, borrowed(direction))
    return wrappers.schedule_free(
        inner, pieces.rate, pieces.momentum, power=weight_lr_power
    )


# Builders take the pieces, and their own arguments by keyword.
OPTIMIZERS: dict[str, Callable[..., Transform]] = {
    "adadelta": adaptive.adadelta,
    "adafactor": layerwise.adafactor,
    "adagrad": adaptive.adagrad,
    "adam": adaptive.adam,
    "adamax": adaptive.adamax,
    "adamw": adaptive.adamw,
    "lamb": layerwise.lamb,
    "lars": layerwise.lars,
    "lion": adaptive.lion,
    "muon": layerwise.muon,
    "nadam": adaptive.nadam,
    "radam": adaptive.radam,
    "rmsprop": adaptive.rmsprop,
    "schedule_free_adamw": schedule_free_adamw,
    "schedule_free_sgd": schedule_free_sgd,
    "sgd": sgd,
    "yogi": adaptive.yogi,
}

# What Optax takes as an argument and is a key of the config here.
ELSEWHERE = {
    "adam_b1": "momentum",
    "adam_weight_decay": "weight_decay",
    "b1": "momentum",
    "beta": "momentum",
    "learning_rate": "learning_rate",
    "mask": "groups",
    "momentum": "momentum",
    "trust_ratio_mask": "arguments.kernels_only",
    "weight_decay": "weight_decay",
    "weight_decay_mask": "groups",
    "weight_decay_rate": "weight_decay",
}


def keywords(function: Callable[..., Any]) -> list[str]:
    """The names of a function's keyword-only arguments."""
    parameters = inspect.signature(function).parameters.values()
    return [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]


def make_optimizer(
    name: str, arguments: Mapping[str, Any], *, others: Sequence[str] = ()
) -> Callable[[Pieces], Transform]:
    """The builder of an optimiser with its own arguments.

    Args:
        name: an entry of `OPTIMIZERS`.
        arguments: by keyword.
        others: what else a caller may have meant, for the hint.

    Raises:
        ValueError: no such optimiser, it has no such argument, or a number or a switch
            is something else.
    """
    builder = lookup.pick(OPTIMIZERS, name, "optimizer")
    own = keywords(builder)
    for argument, value in arguments.items():
        if argument in own:
            _check_kind(name, inspect.signature(builder).parameters[argument], value)
            continue
        if argument in ELSEWHERE:
            raise ValueError(
                f"optimizer {name!r} takes no argument {argument!r} here; it is "
                f"config.optim.{ELSEWHERE[argument]}"
            )
        choices = sorted({*own, *others})
        raise ValueError(
            f"optimizer {name!r} has no argument {argument!r}."
            f"{lookup.hint(argument, choices)} Choices: {', '.join(choices)}"
        )
    return functools.partial(builder, **arguments)


def _check_kind(name: str, parameter: inspect.Parameter, value: Any) -> None:
    default = parameter.default
    if value is None and "None" in str(parameter.annotation):
        return
    if isinstance(default, bool):
        fits, kind = isinstance(value, bool), "True or False"
    elif isinstance(default, int | float):
        fits = isinstance(value, int | float) and not isinstance(value, bool)
        kind = "a number"
    else:
        return
    if not fits:
        raise ValueError(
            f"config.optim.arguments: {parameter.name} of {name} must be {kind}, not "
            f"{value!r}"
        )
