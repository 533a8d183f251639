"""From a description beside the weights to the network that they are of."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from yolojax.models.described import build_described
from yolojax.models.description import KEYS
from yolojax.models.model import Model
from yolojax.weights.contents import Contents
from yolojax.weights.mapping import classes_of, published_anchors
from yolojax.yaml_text import MAX_CHARACTERS

T = TypeVar("T")

# Classes of activations as modules are built from them, as descriptions name them.
_ACTIVATIONS = {
    "LeakyReLU": "nn.LeakyReLU(0.1)",
    "SiLU": "nn.SiLU()",
    "Hardswish": "nn.Hardswish()",
    "Mish": "nn.Mish()",
    "ReLU": "nn.ReLU()",
    "ReLU6": "nn.ReLU6()",
    "GELU": "nn.GELU()",
    "ELU": "nn.ELU()",
    "SELU": "nn.SELU()",
    "Softplus": "nn.Softplus()",
    "Tanh": "nn.Tanh()",
    "Sigmoid": "nn.Sigmoid()",
}
_MAX_VALUES = 30_000


def described_arguments(
    state: Mapping[str, np.ndarray], contents: Contents
) -> dict[str, Any] | None:
    """What `build_model` takes for the network that a file describes.

    Args:
        state: arrays by the original's names; they say how many classes there are,
            and the anchors.
        contents: the file's description, and what modules are made of: up to v5.0
            releases differed in their activations, which no description names.

    Returns:
        None where the file lists no layers.

    Raises:
        ValueError: the description cannot be built, or does not fit the arrays.
    """
    given = contents.description
    if "backbone" not in given or "head" not in given:
        return None
    content = plain({key: given[key] for key in KEYS if key in given})
    content |= {k: v for k, v in _activations(contents).items() if k not in content}
    text = json.dumps(content)
    arguments: dict[str, Any] = {"name": "yaml", "description": text}
    model = build_described(**arguments, num_classes=1)
    _check_blocks(model, len(state))
    anchors = published_anchors(state, in_detect_order(model, model.strides))
    if anchors is not None:
        arguments["anchors"] = by_level(model, anchors)
    per_level = len(anchors[0]) if anchors else model.anchors.shape[1]
    name = f"{model.spec.prefixes[f'head/{model.levels[0]}']}.weight"
    if name not in state or state[name].ndim != 4:
        raise ValueError(f"its description has a head at {name}, which is not there")
    return {**arguments, "num_classes": classes_of(len(state[name]), per_level)}


def _check_blocks(model: Model, num_arrays: int) -> None:
    """Check that there are arrays for all blocks: to build thousands takes minutes."""
    counts = (node.arguments for node in model.spec.nodes)
    count = sum(max(a.get("num_blocks", 1), a.get("times", 1)) for a in counts)
    if count > num_arrays + len(model.spec.nodes):
        raise ValueError(
            f"its description has {count:,} blocks, and the file {num_arrays:,} arrays"
        )


def in_detect_order(model: Model, levels: Sequence[T]) -> tuple[T, ...]:
    """What goes by level, finest first, in the order of the head's published parts."""
    order = getattr(model.spec, "detect_order", range(len(levels)))
    places = dict(zip(order, levels, strict=True))
    return tuple(places[place] for place in range(len(levels)))


def by_level(model: Model, parts: Sequence[T]) -> tuple[T, ...]:
    """The inverse of `in_detect_order`."""
    order = getattr(model.spec, "detect_order", range(len(parts)))
    return tuple(parts[place] for place in order)


def plain(value: Any) -> Any:
    """A copy of a file's value that JSON can write.

    Raises:
        ValueError: it holds something else than lists, dicts, texts and numbers, is
            nested too deep, or is too large.
    """
    left, letters = _MAX_VALUES, MAX_CHARACTERS

    def copied(value: Any, depth: int) -> Any:
        nonlocal left, letters
        left -= 1
        if isinstance(value, str):
            letters -= len(value)
        elif isinstance(value, dict):
            letters -= sum(len(key) for key in value if isinstance(key, str))
        if left < 0 or letters < 0 or depth > 8:
            raise ValueError("its description is too large, or contains itself")
        if isinstance(value, dict) and all(isinstance(key, str) for key in value):
            return {key: copied(part, depth + 1) for key, part in value.items()}
        if isinstance(value, (list, tuple)):
            return [copied(part, depth + 1) for part in value]
        if value is None or isinstance(value, (bool, float, str)):
            return value
        if isinstance(value, int) and abs(value) < 2**63:
            return value
        raise ValueError(f"its description holds a {type(value).__name__}")

    return copied(value, 0)


def _activations(contents: Contents) -> dict[str, str]:
    """Activations by their key, as far as the modules' classes tell them.

    Modules come in the order of the layers, so that of the first unit is first.
    """
    found = [_ACTIVATIONS[kind] for kind in contents.kinds if kind in _ACTIVATIONS]
    if not found:
        return {}
    activations = {"activation": found[0]}
    if "BottleneckCSP" in contents.kinds and len(found) > 1:
        activations["csp_activation"] = found[1]
    return activations
