"""From the settings of a config to its loss."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from yolojax import datasets, lookup
from yolojax.losses.classifiers import (
    cross_entropy,
    multi_class_hinge,
    squared_error,
)
from yolojax.losses.classifying import multi_label_loss, single_label_loss
from yolojax.losses.darknet import yolov3_loss, yolov4_loss
from yolojax.losses.detection import scale_gains, yolov5_loss
from yolojax.losses.table import read_parts
from yolojax.models.classifier import Classifier
from yolojax.models.model import Model
from yolojax.models.network import Network

# What every loss takes besides keyword arguments.
ARRAYS = ("maps", "boxes", "labels", "valid", "left_out")


class LossEntry(NamedTuple):
    """A loss, which kinds of `Decoding.sizes` it is for, and whether gains scale."""

    function: Callable[..., Any]
    sizes: tuple[str, ...]
    scaled: bool


LOSSES = {
    "yolov3": LossEntry(yolov3_loss, ("exponential",), False),
    "yolov4": LossEntry(yolov4_loss, ("exponential", "square"), False),
    "yolov5": LossEntry(yolov5_loss, ("square",), True),
}


# Losses of classifiers, and which of them are of several labels a picture.
LABEL_LOSSES: dict[str, Callable[..., Any]] = {
    "cross_entropy": functools.partial(single_label_loss, element=cross_entropy),
    "hinge": functools.partial(single_label_loss, element=multi_class_hinge),
    "squared_error": functools.partial(single_label_loss, element=squared_error),
    "multi_label": multi_label_loss,
}
MULTI_LABEL = frozenset({"multi_label"})


def make_loss(
    settings: Mapping[str, Any],
    model: Network,
    class_counts: Sequence[int] | None = None,
) -> Any:
    """The loss `f(maps, boxes, labels, valid)` of the config.

    Args:
        settings: a complete config.
        model: the network.
        class_counts: training boxes of each class, for weights that go by them; where
            not given, of all classes the same.

    Raises:
        ValueError: an unknown loss or argument, or a loss for heads of another kind
            than the model's.
    """
    if isinstance(model, Classifier):
        return _make_label_loss(settings, model, class_counts)
    if not isinstance(model, Model):
        raise TypeError(f"{model.name} is neither a detector nor a classifier")
    chosen = settings["loss"]
    _check_kind(chosen["name"], LABEL_LOSSES, LOSSES, f"the detector {model.name}")
    entry = lookup.pick(LOSSES, chosen["name"], "loss")
    counts = class_counts or [1] * model.num_classes
    parts, class_weights = read_parts(chosen, counts)
    arguments = {
        "anchors": model.anchors,
        "strides": model.strides,
        "scales": model.decoding.scales,
        "sizes": model.decoding.sizes,
        "priors": model.priors,
        "anchor_ratio": chosen["anchor_ratio"],
        "label_smoothing": chosen["label_smoothing"],
        "focal_gamma": chosen["focal_gamma"],
        "box_gain": chosen["box"],
        "objectness_gain": chosen["objectness"],
        "class_gain": chosen["classes"],
        "parts": parts,
        "class_weights": class_weights,
    }
    if model.decoding.sizes not in entry.sizes:
        fitting = [n for n, e in LOSSES.items() if model.decoding.sizes in e.sizes]
        raise ValueError(
            f"loss {chosen['name']!r} is for other heads than that of {model.name}, "
            f"whose sizes are {model.decoding.sizes}. Set config.loss.name to "
            f"{' or '.join(fitting)}"
        )
    known = inspect.signature(entry.function).parameters
    own = [name for name in known if name not in (*arguments, *ARRAYS)]
    for name in chosen["arguments"]:
        if name not in own:
            raise ValueError(
                f"config.loss.arguments: loss {chosen['name']!r} has no {name!r}."
                f"{lookup.hint(name, own)} Choices: {', '.join(own)}"
            )
    if chosen["scale_gains"] and entry.scaled:
        arguments |= scale_gains(
            box=chosen["box"],
            objectness=chosen["objectness"],
            classes=chosen["classes"],
            num_levels=len(model.strides),
            num_classes=model.num_classes,
            image_size=datasets.image_size_of(settings),
        )
    arguments = {name: value for name, value in arguments.items() if name in known}
    return functools.partial(entry.function, **arguments, **chosen["arguments"])


def _make_label_loss(
    settings: Mapping[str, Any],
    model: Classifier,
    class_counts: Sequence[int] | None,
) -> Any:
    """The loss of a classifier."""
    chosen = settings["loss"]
    name = chosen["name"]
    _check_kind(name, LOSSES, LABEL_LOSSES, f"the classifier {model.name}")
    function = lookup.pick(LABEL_LOSSES, name, "loss")
    if chosen["parts"]:
        raise ValueError("config.loss.parts is for detectors; leave it empty")
    _, class_weights = read_parts(chosen, class_counts or [1] * model.num_classes)
    arguments: dict[str, Any] = {"class_weights": class_weights}
    if name == "hinge":
        if chosen["label_smoothing"]:
            raise ValueError(
                "config.loss.label_smoothing: the hinge loss has no targets to smooth"
            )
    else:
        arguments["label_smoothing"] = chosen["label_smoothing"]
    own = ["auxiliary", *(["margin"] if name == "hinge" else [])]
    for key, value in chosen["arguments"].items():
        where = f"config.loss.arguments.{key}"
        if key not in own:
            raise ValueError(
                f"config.loss.arguments: loss {name!r} has no {key!r}."
                f"{lookup.hint(key, own)} Choices: {', '.join(own)}"
            )
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0:
            raise ValueError(f"{where} must be a number of at least 0, not {value!r}")
    return functools.partial(function, **arguments, **chosen["arguments"])


def _check_kind(
    name: str, others: Mapping[str, Any], own: Mapping[str, Any], what: str
) -> None:
    """Check that a loss is not one of the other kind of network."""
    if name in others:
        raise ValueError(
            f"config.loss.name {name!r} is not for {what}. Choices: "
            f"{', '.join(sorted(own))}"
        )


def is_multi_label(settings: Mapping[str, Any]) -> bool:
    """Whether each class of the config's classifier is decided by itself."""
    return settings["loss"]["name"] in MULTI_LABEL


def noun_of(source: Any) -> str:
    """What a picture of the source is labelled with: `class` or `box`."""
    return "class" if hasattr(source, "multi_label") else "box"


def check_kinds(settings: Mapping[str, Any], model: Network, **sources: Any) -> None:
    """Check that network, loss and data are all of detection or of classification.

    Args:
        settings: a complete config.
        model: the network.
        sources: by their part of `config.data`; None: there is none.

    Raises:
        ValueError: they are not, or pictures have several labels where the loss takes
            one each.
    """
    classifies = isinstance(model, Classifier)
    for part, source in sources.items():
        if source is None:
            continue
        if hasattr(source, "multi_label") != classifies:
            kind = "a classifier" if classifies else "a detector"
            other = "boxes" if classifies else "classes of whole pictures"
            raise ValueError(
                f"config.model.name {model.name!r} is {kind}, but config.data.{part} "
                f"has {other}: take another model or another source"
            )
        if classifies and source.multi_label != is_multi_label(settings):
            several = "several labels" if source.multi_label else "one label"
            fitting = sorted(
                n for n in LABEL_LOSSES if (n in MULTI_LABEL) == source.multi_label
            )
            raise ValueError(
                f"config.data.{part} has {several} a picture, which config.loss.name "
                f"{settings['loss']['name']!r} is not for. Choices: "
                f"{', '.join(fitting)}"
            )
