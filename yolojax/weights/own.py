"""Networks in files of our own: what they were built from, and arrays by our paths.

Where a network has published names its arrays have these, and the arguments of its
builder stand beside; where it has none, arrays are called by our paths, as
`params/backbone/stem/conv/kernel`, in our layout.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from yolojax.models.classifier import Classifier
from yolojax.models.classifiers import CLASSIFIERS, build_classifier
from yolojax.models.detector import build_model
from yolojax.models.network import Network
from yolojax.ops.letterbox import LETTERBOXES
from yolojax.printable import printable
from yolojax.trees import flatten, unflatten_variables
from yolojax.weights.descriptions import plain
from yolojax.weights.inert import shown
from yolojax.weights.safetensors import MAX_SIDE

_KEY = "model"
_PARTS = ("params/", "batch_stats/")
# Detectors that are read by what stands beside their arrays.
_DETECTORS = ("yolo",)
# Height and width that published weights were trained for, in pixels.
_SIDES = {"darknets": 256, "cspnets": 256, "backbone": 640}
_SIDE = 224
# The deepest published networks have a depth of 5.
_MAX_DEPTH = 6
# What builders raise for arguments of a wrong kind that they do not check.
_UNFIT = (TypeError, AttributeError, LookupError, ArithmeticError, RecursionError)


def is_own(model: Network) -> bool:
    """Whether the arguments of a network are written beside its arrays."""
    return model.name in CLASSIFIERS or model.name in _DETECTORS


def description_of(model: Network, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What is written beside the arrays of a network.

    Args:
        model: the network.
        settings: the config that it was built from, as far as it is known.
    """
    classes = {"name": model.name, "num_classes": model.num_classes}
    about: dict[str, Any] = {_KEY: {**settings.get("model", {}), **classes}}
    if "image_size" in settings:
        about["image_size"] = list(settings["image_size"])
    if "loss" in settings:
        about["loss"] = settings["loss"]["name"]
    if "evaluate" in settings:
        about["letterbox"] = settings["evaluate"]["letterbox"]
    return about


def settings_of(model: Network, description: Mapping[str, Any]) -> dict[str, Any]:
    """A config's keys besides the model: size and place of pictures, and loss.

    A classifier's file that says nothing is another project's: those are evaluated on
    the middle of pictures.

    Args:
        model: the network.
        description: what stands beside its arrays, or nothing.
    """
    classifies = isinstance(model, Classifier)
    side = _SIDES.get(model.family, _SIDE)
    size: Any = description.get("image_size")
    whole = isinstance(size, list) and [type(n) for n in size] == [int, int]
    fits = whole and min(size) > 0 and max(size) <= MAX_SIDE
    size = tuple(size) if fits else (side, side)
    loss = description.get("loss")
    if not isinstance(loss, str):
        loss = "cross_entropy" if classifies else "yolov5"
    letterbox = description.get("letterbox")
    if not isinstance(letterbox, str) or letterbox not in LETTERBOXES:
        foreign = classifies and _KEY not in description
        letterbox = "centre_crop" if foreign else "square"
    return {
        "image_size": size,
        "loss": {"name": loss},
        "evaluate": {"letterbox": letterbox},
    }


def described(description: Mapping[str, Any]) -> tuple[dict[str, Any], Network] | None:
    """Arguments and network of what stands beside arrays; None where it says nothing.

    Raises:
        ValueError: an argument is unknown or does not fit.
    """
    given = description.get(_KEY)
    name = given.get("name") if isinstance(given, dict) else None
    if not isinstance(name, str) or (
        name not in CLASSIFIERS and name not in _DETECTORS
    ):
        return None
    arguments = plain(given)
    _check_depth(arguments)
    build = build_classifier if name in CLASSIFIERS else build_model
    try:
        return arguments, build(**arguments)
    except _UNFIT as error:
        raise ValueError(
            f"its description of {name} cannot be built "
            f"({type(error).__name__}: {printable(error, 200)})"
        ) from error


def _check_depth(arguments: Mapping[str, Any]) -> None:
    """Check that a network is not so deep that to build it would take minutes."""
    for key, value in arguments.items():
        if isinstance(value, dict):
            _check_depth(value)
        elif key == "depth" and isinstance(value, (int, float)) and value > _MAX_DEPTH:
            raise ValueError(
                f"its description has depth {value:g}; at most {_MAX_DEPTH} is read"
            )


def has_own_paths(state: Mapping[str, np.ndarray]) -> bool:
    """Whether arrays are called by our paths."""
    return bool(state) and all(name.startswith(_PARTS) for name in state)


def to_own(model: Network, variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Arrays by our paths; the inverse of `from_own`."""
    del model
    parts = {key: variables[key] for key in ("params", "batch_stats")}
    return {path: np.asarray(leaf) for path, leaf in flatten(parts).items()}


def from_own(model: Network, state: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Variables of a network out of arrays by our paths.

    Raises:
        ValueError: names are missing or left over, or shapes differ.
    """
    shapes = {path: leaf.shape for path, leaf in flatten(model.shapes()).items()}
    found = {path: np.shape(array) for path, array in state.items()}
    wrong = [p for p in shapes.keys() | found if shapes.get(p) != found.get(p)]
    if wrong:
        first = min(wrong)
        raise ValueError(
            f"the weights do not fit {model.name}: {len(wrong)} of its arrays are "
            f"missing, unused or mis-shaped, as {shown(first)}: expected "
            f"{shapes.get(first, 'nothing')}, came {found.get(first, 'nothing')}"
        )
    return unflatten_variables({p: np.array(array) for p, array in state.items()})
