"""Between our parameter paths and the names of published state dicts.

A published YOLOv5 numbers its layers in the order of its description: stem, the
stages with their stride-2 convolutions, the pooling, the neck from coarse to fine
and back (upsampling and concatenation count too), and the head. Networks from
descriptions have the numbers of their rows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from yolojax.models.blocks import NormedCspStage, ParallelPooling, PyramidPooling
from yolojax.models.model import Model
from yolojax.models.network import Network
from yolojax.models.reshaping import PlainConv
from yolojax.printable import printable
from yolojax.trees import flatten, unflatten_variables
from yolojax.weights import classifiers
from yolojax.weights.inert import shown

# What published files hold besides parameters; the model has its own anchors.
_MAX_ANCHORS = 4_096
_NOT_PARAMETERS = ("num_batches_tracked", "anchors", "anchor_grid", "stride")

_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}
_UNITS = {
    "conv": "conv",
    "norm": "bn",
    "unit": "conv",
    # CSP stages and bottlenecks
    "main": "cv1",
    "bypass": "cv2",
    "merge": "cv3",
    "after": "cv3",
    "point": "cv1",
    "spatial": "cv2",
    "squeeze": "cv1",
    "row": "cv1",
    "column": "cv2",
    # ghost modules
    "primary": "cv1",
    "cheap": "cv2",
    "expand": "conv.0",
    "depthwise": "conv.1",
    "project": "conv.2",
    "shortcut_depthwise": "shortcut.0",
    "shortcut_point": "shortcut.1",
    # attention
    "attention": "m",
    "position": "linear",
    "query": "q",
    "key": "k",
    "value": "v",
    "in_projection": "ma.in_proj",
    "out_projection": "ma.out_proj",
    "first": "fc1",
    "second": "fc2",
}
_NUMBERED = {"block": "m.", "layer": "tr.", "repeat": ""}
# Paths of matrices: in attention, and in the heads of classifiers.
_LINEAR = re.compile("/attention/|^params/head/(linear|dense[0-9]+)/")
# What is called otherwise in some modules.
_UNITS_OF: dict[type, dict[str, str]] = {
    NormedCspStage: {"merge": "cv4"},
    ParallelPooling: {"merge": "cv2"},
    PyramidPooling: {"merge": "cv2"},
    PlainConv: {"conv": ""},
}


def published_names(
    model: Network, shapes: Mapping[str, Any] | None = None
) -> dict[str, str]:
    """The published name of every variable, by our path.

    Paths start with `params/` or `batch_stats/`, as in
    `params/backbone/stem/conv/kernel` -> `model.0.conv.weight`.

    Args:
        model: a YOLOv5, a network from a description, or a classifier whose weights
            are published.
        shapes: `model.shapes()`, if they are known already.

    Raises:
        ValueError: networks of this family have no state dicts.
    """
    _check_family(model)
    if model.family == "yolov5":
        return yolov5_names(model, shapes)
    if model.family == "yaml":
        return described_names(model, shapes)
    return classifiers.published_names(model, shapes)


def _check_family(model: Network) -> None:
    """Check that a network has published names, before its shapes are worked out."""
    if model.family not in ("yolov5", "yaml") and not classifiers.has_names(model):
        raise ValueError(
            f"{model.name}: there are no state dicts of {model.family} models"
        )


def yolov5_names(
    model: Network, shapes: Mapping[str, Any] | None = None
) -> dict[str, str]:
    """`published_names` of a YOLOv5 v6.0."""
    layers = layer_numbers(model)
    names = {}
    for path in flatten(shapes or model.shapes()):
        _, part, block, *rest = path.split("/")
        number = f"model.{layers[f'{part}/{block}']}"
        if part == "head":
            level = model.spec.strides.index(2 ** int(block.removeprefix("level")))
            inner = ["m", str(level), _LEAVES[rest[-1]]]
        else:
            inner = _inner(rest, PyramidPooling if block == "pool" else None)
        names[path] = ".".join([number, *inner])
    return names


def described_names(
    model: Network, shapes: Mapping[str, Any] | None = None
) -> dict[str, str]:
    """`published_names` of a network from a description."""
    modules = {}
    for node in model.spec.nodes:
        repeated = node.arguments.get("module")
        kind = repeated or model.spec.kinds[node.kind]
        modules[f"{node.part}/{node.name}"] = kind
    names = {}
    for path in flatten(shapes or model.shapes()):
        _, part, node, *rest = path.split("/")
        block = f"{part}/{node}"
        inner = _inner(rest, modules[block])
        names[path] = ".".join([model.spec.prefixes[block], *inner])
    return names


def layer_numbers(model: Network) -> dict[str, int]:
    """The public number of each layer, by its path, as `backbone/stem` -> 0.

    They count from 0 and as published, so layers without parameters count, too: for a
    YOLOv5 those of its description, for networks from a description the rows of it,
    for Darknet networks the sections after [net]. Layers of a number that has no
    parameters may be missing. Networks without published numbers count their layers
    with parameters, in the order that they are called in.
    """
    if model.family == "yolov5":
        return dict(_layer_numbers(model))
    if model.family == "yaml":
        # As in model.24.m.0.
        return {path: int(p.split(".")[1]) for path, p in model.spec.prefixes.items()}
    if model.family == "darknet":
        return {
            f"{node.part}/{node.name}": int(node.name.removeprefix("layer"))
            for node in model.spec.nodes
        }
    return {path: number for number, path in enumerate(model.layer_paths())}


def from_state_dict(model: Network, state: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Variables of `model` from a published state dict.

    Args:
        model: see `published_names`.
        state: arrays by published name; convolutions [out, in, h, w]. Counters and
            anchors are passed over (see `published_anchors`). Half precision becomes
            float32.

    Returns:
        Nested dicts of NumPy float32 arrays (float64 where the file holds float64).

    Raises:
        ValueError: names are missing or left over, or shapes differ; some are listed.
    """
    _check_family(model)
    shapes = flatten(model.shapes())
    names = published_names(model, shapes)
    missing, misshaped, leaves = [], [], {}
    for path, name in names.items():
        if name not in state:
            missing.append(f"{name} ({path})")
            continue
        array = _to_ours(np.asarray(state[name]), path, len(shapes[path].shape))
        if array.shape == shapes[path].shape:
            # Only now a copy: a wrong shape may be any size.
            wide = np.float64 if array.dtype == np.float64 else np.float32
            leaves[path] = np.ascontiguousarray(array.astype(wide))
        else:
            expected = _their_shape(shapes[path].shape, path)
            came = tuple(np.shape(state[name]))
            misshaped.append(f"{name} ({path}): expected {expected}, came {came}")
    known = set(names.values())
    unused = [
        name
        for name in state
        if name not in known and name.rpartition(".")[2] not in _NOT_PARAMETERS
    ]
    problems = [
        listed(kind, items)
        for kind, items in (
            ("missing", missing),
            ("unused", unused),
            ("mis-shaped", misshaped),
        )
        if items
    ]
    if problems:
        raise ValueError(
            f"the weights do not fit {model.name} with {model.num_classes} classes: "
            + "; ".join(problems)
        )
    return unflatten_variables(leaves)


def to_state_dict(
    model: Network, variables: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """A state dict under published names; the inverse of `from_state_dict`."""
    leaves = flatten({k: variables[k] for k in ("params", "batch_stats")})
    return {
        name: _to_theirs(np.asarray(leaves[path]), path)
        for path, name in published_names(model).items()
    }


def renamed(
    variables: Mapping[str, Any], source: Model, target: Model
) -> dict[str, Any]:
    """Variables of one model under the paths of another, by their published names.

    Args:
        variables: of `source`.
        source: where they come from.
        target: whose paths they get; those whose name it does not know keep theirs.
    """
    shapes = flatten(target.shapes())
    paths = {name: path for path, name in published_names(target, shapes).items()}
    names = published_names(source)
    leaves = {}
    for path, leaf in flatten(variables).items():
        ours = paths.get(names.get(path, ""))
        if ours is None:
            leaves[path] = leaf
        else:
            array = _to_theirs(np.asarray(leaf), path)
            leaves[ours] = _to_ours(array, ours, len(shapes[ours].shape))
    return unflatten_variables(leaves)


def published_anchors(
    state: Mapping[str, np.ndarray], strides: Sequence[int]
) -> tuple[tuple[tuple[float, float], ...], ...] | None:
    """The anchors that a state dict holds, as `build_model` takes them.

    Args:
        state: arrays by published name; `model.N.anchors` is in cells.
        strides: pixels per cell of every level, finest first.

    Returns:
        (width, height) in pixels per level and anchor; None where there are none.

    Raises:
        ValueError: they are for another number of levels.
    """
    for name, array in state.items():
        if not name.endswith(".anchors"):
            continue
        if array.ndim != 3 or len(array) != len(strides) or array.size > _MAX_ANCHORS:
            raise ValueError(
                f"{shown(name)} has shape {array.shape}; expected "
                f"[{len(strides)}, anchors, 2]"
            )
        cells = np.asarray(array, np.float64)
        pixels = cells * np.asarray(strides, np.float64)[:, None, None]
        return tuple(tuple((float(w), float(h)) for w, h in row) for row in pixels)
    return None


def classes_of(outputs: int, per_level: int) -> int:
    """How many classes a head tells apart, by the outputs of a level.

    Args:
        outputs: channels of a level's raw map.
        per_level: anchors of a level.

    Raises:
        ValueError: no number of classes gives so many outputs.
    """
    each, rest = divmod(outputs, max(per_level, 1))
    if rest or each < 6:
        raise ValueError(
            f"its head has {outputs} outputs, which {per_level} anchors do not divide "
            f"into a box, its confidence and classes"
        )
    return each - 5


def _layer_numbers(model: Network) -> Iterator[tuple[str, int]]:
    """Our block, as `part/block`, with its number in the published description."""
    last, levels = len(model.spec.channels), len(model.spec.anchors)
    yield "backbone/stem", 0
    number = 1
    for level in range(2, last + 1):
        yield f"backbone/down{level}", number
        yield f"backbone/stage{level}", number + 1
        number += 2
    yield "backbone/pool", number
    number += 1
    first = last - levels + 1
    for level in range(last, first, -1):
        yield f"neck/lateral{level}", number
        # Upsampling and concatenation stand between the two.
        yield f"neck/top_down{level - 1}", number + 3
        number += 4
    for level in range(first + 1, last + 1):
        yield f"neck/down{level}", number
        yield f"neck/bottom_up{level}", number + 2
        number += 3
    for level in range(first, last + 1):
        yield f"head/level{level}", number


def _inner(rest: list[str], module: type | None) -> list[str]:
    """The published name below the number of a layer, from the rest of our path."""
    table = _UNITS | (_UNITS_OF.get(module, {}) if module else {})
    *units, leaf = rest
    inner = [_numbered(unit) or table[unit] for unit in units]
    if inner and inner[-1] == "ma.in_proj":
        return [*inner[:-1], f"ma.in_proj_{_LEAVES[leaf]}"]
    return [name for name in (*inner, _LEAVES[leaf]) if name]


def _numbered(unit: str) -> str:
    """`m.3` for `block3`; nothing where there is no number."""
    kind = unit.rstrip("0123456789")
    return f"{_NUMBERED[kind]}{unit[len(kind) :]}" if kind in _NUMBERED else ""


def _is_linear(path: str) -> bool:
    """Whether a kernel is a matrix in published files, too, and no 1x1 convolution."""
    return _LINEAR.search(path) is not None


def _to_ours(array: np.ndarray, path: str, rank: int) -> np.ndarray:
    """Out of published order: [o, i, h, w] to [h, w, i, o], or [i, o] for 1x1."""
    if not path.endswith("/kernel"):
        return array
    if _is_linear(path):
        return array.T if array.ndim == 2 else array
    if array.ndim != 4:
        return array
    array = array.transpose(2, 3, 1, 0)
    if rank == 2 and array.shape[:2] == (1, 1):
        array = array[0, 0]
    return array


def _to_theirs(array: np.ndarray, path: str) -> np.ndarray:
    """Into published order; the inverse of `_to_ours`."""
    if not path.endswith("/kernel"):
        return array
    if _is_linear(path):
        return np.ascontiguousarray(array.T)
    if array.ndim == 2:
        array = array[None, None]
    return np.ascontiguousarray(array.transpose(3, 2, 0, 1))


def _their_shape(shape: tuple[int, ...], path: str) -> tuple[int, ...]:
    """The shape that `_to_theirs` gives an array of ours."""
    if not path.endswith("/kernel"):
        return shape
    if _is_linear(path):
        return shape[::-1]
    height, width, inputs, outputs = (1, 1, *shape)[-4:]
    return outputs, inputs, height, width


def listed(kind: str, items: list[str], limit: int = 4) -> str:
    """How many items there are, and up to `limit` of them, in one line."""
    more = f", and {len(items) - limit} more" if len(items) > limit else ""
    return f"{kind} ({len(items)}): {', '.join(map(printable, items[:limit]))}{more}"
