"""Published names of classifiers' weights, and which classifier they are of.

ResNet, VGG and AlexNet are called as torchvision calls them, ResNet-D, Darknet-53,
CSPDarknet-53 and CSPResNet-50 as timm does (1.0). Both normalise pictures by the
statistics of ImageNet.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from yolojax.models.cspnets import CSPNETS, CspNetSpec
from yolojax.models.darknets import DARKNETS, ResidualDarknetSpec
from yolojax.models.network import Network
from yolojax.models.resnet import RESNET
from yolojax.models.vgg import VGG, VggSpec
from yolojax.trees import flatten

KNOWN = "ResNet, VGG, AlexNet, Darknet-53, CSPDarknet-53 or CSPResNet-50"

State = Mapping[str, np.ndarray]

# The slope of timm's leaky activations.
_LEAKY = "leaky=0.01"
# What wrappers put before every name.
_PREFIXES = ("module.", "model.")
_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}
_RESNET_UNITS = {"reduce": 1, "first": 1, "spatial": 2, "second": 2, "expand": 3}
_DARK_UNITS = {
    "down": "conv_down",
    "split": "conv_exp",
    "after": "conv_transition_b",
    "merge": "conv_transition",
    "point": "conv1",
    "reduce": "conv1",
    "spatial": "conv2",
    "expand": "conv3",
}
_VGG_HEAD = {"dense0": 0, "dense1": 3, "linear": 6}
_ALEXNET_HEAD = {"dense0": 1, "dense1": 4, "linear": 6}
_ALEXNET_CONVS = (0, 3, 6, 8, 10)
# timm's names of VGG's linear layers; its first two are convolutions.
_TIMM_VGG = {
    "pre_logits.fc1": "classifier.0",
    "pre_logits.fc2": "classifier.3",
    "head.fc": "classifier.6",
}


class Recognised(NamedTuple):
    """A classifier out of named arrays.

    Attributes:
        arguments: what `build_classifier` takes for it, as `config.model` does.
        state: the arrays by the names of `published_names`.
    """

    arguments: dict[str, Any]
    state: State


def has_names(model: Network) -> bool:
    """Whether there are published names of a network's variables."""
    return model.family in _NAMES and model.name != "darknet19"


def published_names(
    model: Network, shapes: Mapping[str, Any] | None = None
) -> dict[str, str]:
    """The published name of every variable, by our path; see `mapping`.

    Args:
        model: one for which `has_names` is true.
        shapes: `model.shapes()`, if they are known already.
    """
    name_of = _NAMES[model.family]
    names = {}
    for path in flatten(shapes or model.shapes()):
        _, *parts, leaf = path.split("/")
        names[path] = f"{name_of(model.spec, parts)}.{_LEAVES[leaf]}"
    return names


def recognised(state: State) -> Recognised | None:
    """The classifier that arrays are of; None where they are of none that is known.

    Only names and numbers of blocks are looked at; whether all shapes fit shows later.

    Args:
        state: arrays by published name, perhaps behind `module.` or `model.`.
    """
    for _ in _PREFIXES:
        for find in (_resnet, _vgg, _alexnet, _dark):
            found = find(state)
            if found is not None:
                return found
        state = _without_prefix(state)
    return None


def _resnet_name(spec: Any, parts: Sequence[str]) -> str:
    part, layer, *units = parts
    if part == "head":
        return "fc"
    *units, kind = units
    if layer == "stem" and not units:
        return "conv1" if kind == "conv" else "bn1"
    if layer == "stem":
        # Convolution, normalisation, activation; the last two stand outside.
        number = int(units[0].removeprefix("unit"))
        if (number, kind) == (2, "norm"):
            return "bn1"
        return f"conv1.{3 * number + (kind == 'norm')}"
    stage = int(layer.removeprefix("stage")) - 1
    prefix = f"layer{stage}.{units[0].removeprefix('block')}"
    if units[1] == "shortcut":
        # The mean, where there is one, comes first.
        place = (spec.shortcut == "pooled") + (kind == "norm")
        return f"{prefix}.downsample.{place}"
    kind = "conv" if kind == "conv" else "bn"
    return f"{prefix}.{kind}{_RESNET_UNITS[units[1]]}"


def _vgg_places(spec: VggSpec) -> dict[tuple[int, int], int]:
    """The number of each convolution, by its stage and number therein.

    Normalisations, activations and maxima have numbers, too.
    """
    places, place = {}, 0
    for stage, count in enumerate(spec.blocks):
        for number in range(count):
            places[stage, number] = place
            place += 3 if spec.norm else 2
        place += 1
    return places


def _vgg_name(spec: Any, parts: Sequence[str]) -> str:
    part, layer, *units = parts
    if part == "head":
        return f"classifier.{_VGG_HEAD[layer]}"
    stage = int(layer.removeprefix("stage"))
    number = int(units[0].removeprefix("unit").removeprefix("conv"))
    place = _vgg_places(spec)[stage, number]
    return f"features.{place + (units[-1] == 'norm')}"


def _alexnet_name(spec: Any, parts: Sequence[str]) -> str:
    del spec
    part, layer = parts
    if part == "head":
        return f"classifier.{_ALEXNET_HEAD[layer]}"
    return f"features.{_ALEXNET_CONVS[int(layer.removeprefix('conv'))]}"


def _dark_name(spec: CspNetSpec | ResidualDarknetSpec, parts: Sequence[str]) -> str:
    part, layer, *units = parts
    if part == "head":
        return "head.fc"
    *units, kind = units
    kind = "conv" if kind == "conv" else "bn"
    if layer == "stem":
        return f"stem.conv1.{kind}"
    first = spec.first_level if isinstance(spec, CspNetSpec) else 1
    inner = [f"stages.{int(layer.removeprefix('stage')) - first}"]
    if len(units) == 2:
        inner.append(f"blocks.{units[0].removeprefix('block')}")
    return ".".join([*inner, _DARK_UNITS[units[-1]], kind])


# By family, from what the network was built from and a path without its last part.
_NAMES: dict[str, Callable[[Any, Sequence[str]], str]] = {
    "resnet": _resnet_name,
    "vgg": _vgg_name,
    "alexnet": _alexnet_name,
    "darknets": _dark_name,
    "cspnets": _dark_name,
}


def _resnet(state: State) -> Recognised | None:
    blocks = tuple(_count(state, f"layer{number}.") for number in (1, 2, 3, 4))
    bottleneck = "layer1.0.conv3.weight" in state
    pooled = "layer2.0.downsample.2.running_mean" in state
    asked = {
        "stem": "deep" if "conv1.0.weight" in state else "plain",
        "shortcut": "pooled" if pooled else "strided",
    }
    changes = {
        name: {k: v for k, v in asked.items() if getattr(spec, k) != v}
        for name, spec in RESNET.items()
        if (spec.blocks, spec.bottleneck) == (blocks, bottleneck)
    }
    if not changes or "fc.weight" not in state:
        return None
    name = min(changes, key=lambda name: len(changes[name]))
    return _told(name, changes[name], state, "fc.weight")


def _vgg(state: State) -> Recognised | None:
    if "pre_logits.fc1.weight" in state:
        state = dict(map(_as_torchvision, state, state.values()))
    norm = "features.1.running_mean" in state
    kernels = {n for n in state if n.startswith("features.") and state[n].ndim == 4}
    for name, spec in VGG.items():
        places = {f"features.{n}.weight" for n in _vgg_places(spec).values()}
        if (places, spec.norm) == (kernels, norm) and "classifier.6.weight" in state:
            return _told(name, {}, state, "classifier.6.weight")
    return None


def _alexnet(state: State) -> Recognised | None:
    kernels = {n for n in state if n.startswith("features.") and state[n].ndim == 4}
    places = {f"features.{n}.weight" for n in _ALEXNET_CONVS}
    if kernels != places or "classifier.6.weight" not in state:
        return None
    return _told("alexnet", {}, state, "classifier.6.weight")


def _dark(state: State) -> Recognised | None:
    stages = range(_count(state, "stages."))
    blocks = tuple(_count(state, f"stages.{n}.blocks.") for n in stages)
    crossed = "stages.0.conv_exp.conv.weight" in state
    specs: dict[str, Any] = {**CSPNETS} if crossed else {**DARKNETS}
    if "stem.conv1.conv.weight" not in state or "head.fc.weight" not in state:
        return None
    for name, spec in specs.items():
        if getattr(spec, "blocks", ()) == blocks:
            return _told(name, {"activation": _LEAKY}, state, "head.fc.weight")
    return None


def _told(name: str, changes: Mapping[str, Any], state: State, last: str) -> Recognised:
    """An entry of the table, with as many classes as its last layer has rows."""
    rows = state[last].shape[:1]
    arguments = {"name": name, "num_classes": rows[0] if rows else 0, **changes}
    return Recognised(arguments | {"normalise": "statistics"}, state)


def _as_torchvision(name: str, array: np.ndarray) -> tuple[str, np.ndarray]:
    """A variable of timm's VGG as that of torchvision's."""
    layer, _, leaf = name.rpartition(".")
    if layer not in _TIMM_VGG:
        return name, array
    if array.ndim == 4:
        array = array.reshape(len(array), -1)
    return f"{_TIMM_VGG[layer]}.{leaf}", array


def _without_prefix(state: State) -> State:
    """The arrays without what a wrapper put before all of their names."""
    for prefix in _PREFIXES:
        if state and all(name.startswith(prefix) for name in state):
            return {n.removeprefix(prefix): array for n, array in state.items()}
    return state


def _count(state: State, prefix: str) -> int:
    """How many numbered parts there are below `prefix`."""
    rest = (name.removeprefix(prefix) for name in state if name.startswith(prefix))
    return len({name.partition(".")[0] for name in rest})
