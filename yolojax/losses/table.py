"""Element-wise losses by name, and the parts of a detector's loss from a config."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax

from yolojax.lookup import hint, pick
from yolojax.losses import boxes, classification, classifiers
from yolojax.losses.weights import balanced_weights, effective_weights

ElementLoss = Callable[..., jax.Array]

# Of corners x1 y1 x2 y2 and their targets.
BOX_LOSSES: dict[str, ElementLoss] = {
    "iou": boxes.iou_loss,
    "giou": boxes.giou_loss,
    "diou": boxes.diou_loss,
    "ciou": boxes.ciou_loss,
    "eiou": boxes.eiou_loss,
    "siou": boxes.siou_loss,
    "wise_iou": boxes.wise_iou_loss,
    "l1": boxes.l1_loss,
    "smooth_l1": boxes.smooth_l1_loss,
}

# Of logits and targets in [0, 1], each by itself.
BINARY_LOSSES: dict[str, ElementLoss] = {
    "bce": classification.weighted_cross_entropy,
    "focal": classification.focal_loss,
    "quality_focal": classification.quality_focal_loss,
    "varifocal": classification.varifocal_loss,
    "poly": classification.poly_loss,
    "mse": classification.brier_loss,
    "hinge": classification.hinge_loss,
}

# Of the logits of all classes of a picture, and its label.
CLASSIFIER_LOSSES: dict[str, ElementLoss] = {
    "cross_entropy": classifiers.cross_entropy,
    "mse": classifiers.squared_error,
    "multi_label": classifiers.multi_label_cross_entropy,
    "hinge": classifiers.multi_class_hinge,
}

_PARTS: dict[str, dict[str, ElementLoss]] = {
    "box": BOX_LOSSES,
    "objectness": BINARY_LOSSES,
    "classes": {
        **BINARY_LOSSES,
        "class_balanced": classification.class_balanced_loss,
    },
}

# Smallest and largest value of arguments, by name or by loss and name.
_RANGES: dict[str, tuple[float, float]] = {
    "power": (0.1, math.inf),
    "shape_power": (1, math.inf),
    "alpha": (0, 1),
    "gamma": (0, math.inf),
    "beta": (0, math.inf),
    "smooth_l1.beta": (1e-6, math.inf),
    "class_balanced.beta": (0, 1 - 1e-12),
    "epsilon": (-1, math.inf),
    "margin": (0, math.inf),
    "positive_weight": (0, math.inf),
}


class PartLosses(NamedTuple):
    """Element-wise losses of a detector's parts; None: as the detector published it.

    Attributes:
        box: of corners x1 y1 x2 y2 in cells, and their targets.
        objectness: of logits and targets.
        classes: likewise.
        quality: whether the target of a pair's class is times its overlap.
    """

    box: ElementLoss | None = None
    objectness: ElementLoss | None = None
    classes: ElementLoss | None = None
    quality: bool = False


PARTS = PartLosses()


def read_parts(
    settings: Mapping[str, Any], counts: Sequence[int]
) -> tuple[PartLosses, tuple[float, ...]]:
    """The losses of the parts, and the weights of the classes, of a config.

    Args:
        settings: `config.loss`.
        counts: training boxes of each class.

    Returns:
        The losses, and a weight per class; no weights: 1 each.

    Raises:
        ValueError: an unknown part, loss or argument, a value out of range, weights
            that are not one per class, or settings that contradict each other.
    """
    parts = settings["parts"]
    for part in parts:
        if part not in _PARTS:
            raise ValueError(
                f"config.loss.parts has no part {part!r}.{hint(part, _PARTS)} "
                f"Parts: {', '.join(_PARTS)}"
            )
    if settings["focal_gamma"] > 0 and parts.keys() - {"box"}:
        raise ValueError(
            "config.loss.focal_gamma is of the losses that config.loss.parts replaces: "
            "set it to 0, and write dict(name='focal', gamma=...) into the parts"
        )
    weights = _class_weights(settings["class_weights"], counts)
    chosen: dict[str, Any] = {}
    for part, given in parts.items():
        where = f"config.loss.parts.{part}"
        name, arguments = _read_part(part, given, where)
        if name == "varifocal" and part == "classes" and settings["label_smoothing"]:
            raise ValueError(
                f"{where}: varifocal takes what is above 0 for a positive; set "
                "config.loss.label_smoothing to 0"
            )
        if name == "class_balanced":
            if weights:
                raise ValueError(
                    f"{where}: class_balanced has weights of its own; leave "
                    "config.loss.class_weights empty"
                )
            beta = arguments.pop("beta", 0.999)
            weights = effective_weights(counts, beta=beta)
        if part == "classes":
            chosen["quality"] = arguments.pop("quality", False)
        loss = _PARTS[part][name]
        chosen[part] = functools.partial(loss, **arguments) if arguments else loss
    return PartLosses(**chosen), weights


def _read_part(part: str, given: Any, where: str) -> tuple[str, dict[str, Any]]:
    """Name and arguments of a part's loss, checked."""
    if not isinstance(given, Mapping) or "name" not in given:
        raise ValueError(
            f"{where} must be a dict with a name, as dict(name="
            f"{next(iter(_PARTS[part]))!r}), not {given!r}"
        )
    arguments = dict(given)
    name = arguments.pop("name")
    signature = inspect.signature(pick(_PARTS[part], name, f"{part} loss"))
    known = [p.name for p in signature.parameters.values() if p.kind is p.KEYWORD_ONLY]
    if part == "classes":
        known.append("quality")
    for argument, value in arguments.items():
        if argument not in known:
            raise ValueError(
                f"{where}: loss {name!r} has no argument {argument!r}."
                f"{hint(argument, known)} Choices: {', '.join(known) or 'none'}"
            )
        if argument == "quality":
            if not isinstance(value, bool):
                raise ValueError(f"{where}.quality must be True or False, not {value}")
            continue
        low, high = _RANGES.get(f"{name}.{argument}", _RANGES[argument])
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number or not math.isfinite(value) or not low <= value <= high:
            limits = f"at least {low}" if high == math.inf else f"from {low} to {high}"
            raise ValueError(f"{where}.{argument} must be {limits}, not {value!r}")
    return name, arguments


def _class_weights(given: Sequence[Any], counts: Sequence[int]) -> tuple[float, ...]:
    """One weight per class; none if none are given."""
    given = tuple(given)
    rules = {"balanced": balanced_weights, "effective": effective_weights}
    where = "config.loss.class_weights"
    if len(given) == 1 and isinstance(given[0], str):
        return pick(rules, given[0], f"rule of {where}")(counts)
    if given and len(given) != len(counts):
        raise ValueError(
            f"{where} has {len(given)} weights, but there are {len(counts)} classes"
        )
    for value in given:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number or not math.isfinite(value) or value < 0:
            raise ValueError(
                f"{where} must be 'balanced', 'effective' or numbers of at least 0, "
                f"not {value!r}"
            )
    return tuple(map(float, given))
