"""From a file of published weights to a network: which one, and its variables."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from yolojax.files import open_file
from yolojax.models.cfg import parse_cfg, read_cfg
from yolojax.models.classifiers import build_classifier
from yolojax.models.darknet import DARKNET
from yolojax.models.darknet_graph import darknet_spec
from yolojax.models.detector import build_model
from yolojax.models.model import Model
from yolojax.models.network import Network
from yolojax.models.specs import YOLOV5
from yolojax.models.yolov5_rows import is_yolov5
from yolojax.trees import flatten
from yolojax.weights import classifiers, darknet, own
from yolojax.weights.contents import Contents
from yolojax.weights.descriptions import described_arguments, in_detect_order
from yolojax.weights.mapping import (
    classes_of,
    from_state_dict,
    published_anchors,
    to_state_dict,
)
from yolojax.weights.pytorch import read_pytorch
from yolojax.weights.safetensors import read_safetensors, write_safetensors

_STEM = "model.0.conv.weight"
_FOCUS = "model.0.conv.conv.weight"
_STEMS = (f".{_STEM}", f".{_FOCUS}")
# Number of the head in the published description, by levels.
_HEADS = {3: 24, 4: 33}
# Levels, and sides of anchors on one; published networks have four and six.
_MAX_ROW = 64


@dataclasses.dataclass(frozen=True)
class Published:
    """A network out of a file.

    Attributes:
        model: a detector or a classifier.
        arguments: what it is built from, as in `config.model`.
        variables: `params` and `batch_stats`, NumPy.
        class_names: the file's, or `class0`, `class1`, ...
        contents: what else the file holds.
    """

    model: Any
    arguments: dict[str, Any]
    variables: dict[str, Any]
    class_names: tuple[str, ...]
    contents: Contents

    @property
    def settings(self) -> dict[str, Any]:
        """A config's keys for it; the size is the one of the published training."""
        if own.is_own(self.model):
            told = own.settings_of(self.model, self.contents.description)
            return {"model": self.arguments, **told}
        size = 20 * self.model.max_stride
        sides = getattr(self.model.spec, "image_size", None) or (size, size)
        if any(side % self.model.max_stride for side in sides):
            sides = (size, size)
        return {"model": self.arguments, "image_size": sides}


def read_weights(path: str | Path) -> Contents:
    """Names and arrays of a PyTorch or `.safetensors` file; its content says which.

    Raises:
        ValueError: there is no such file, or it cannot be read.
    """
    path = Path(path)
    if not path.exists():
        raise ValueError(f"no weights at {path}: there is no such file")
    with open_file(path) as file:
        start = file.read(9)
    if start[8:9] == b"{" or path.suffix == ".safetensors":
        return read_safetensors(path)
    return read_pytorch(path)


def read_published(path: str | Path, cfg: str | Path = "") -> Published:
    """The network that a file holds.

    That is a YOLOv5 v6.0, another network of which the file has YOLOv5's description
    (any release's, and YOLOv3 in that form), a Darknet network, a classifier (see
    `classifiers.KNOWN`), or what `write_published` wrote.

    Args:
        path: a PyTorch or `.safetensors` file with the original's names, or Darknet's
            `.weights` or `.cfg`.
        cfg: the description of a `.weights` file; see `darknet.find_pair`.

    Raises:
        ValueError: it cannot be read, or holds another network; the message says what
            was found.
    """
    if cfg or Path(path).suffix in darknet.SUFFIXES:
        return _read_darknet(path, cfg)
    contents = read_weights(path)
    state = _without_prefix(contents.state)
    try:
        arguments, model, variables = _network(state, contents)
    except ValueError as error:
        raise ValueError(f"{path}: {error}; {_found(contents)}") from error
    names = contents.class_names
    ours = contents.description.get("class_names") is not None
    if names is not None and ours and len(names) != model.num_classes:
        raise ValueError(
            f"{path}: its metadata has {len(names)} class names, and the network has "
            f"{model.num_classes} classes"
        )
    if names is None or len(names) != model.num_classes:
        names = placeholder_names(model.num_classes)
    return Published(model, arguments, variables, names, contents)


def _network(
    state: Mapping[str, np.ndarray], contents: Contents
) -> tuple[dict[str, Any], Network, dict[str, Any]]:
    """Arguments, model and variables, by the file's description or by shapes."""
    if (described := own.described(contents.description)) is not None:
        arguments, network = described
        read = own.from_own if own.has_own_paths(state) else from_state_dict
        return arguments, network, read(network, state)
    if (found := classifiers.recognised(state)) is not None:
        network = build_classifier(**found.arguments)
        variables = from_state_dict(network, found.state)
        return found.arguments, network, jax.tree.map(np.float32, variables)

    def fitted(arguments: dict[str, Any], model: Model) -> Any:
        strides, expected = contents.strides, in_detect_order(model, model.strides)
        if strides is not None and strides != expected:
            raise ValueError(f"its strides are {strides}, not {expected}")
        return arguments, model, jax.tree.map(np.float32, from_state_dict(model, state))

    wrong = None
    try:
        arguments = described_arguments(state, contents)
        if arguments is not None:
            model = build_model(**arguments)
            if not _by_shapes(state, contents, model):
                return fitted(arguments, model)
    except ValueError as error:
        wrong = error
    try:
        arguments = infer_arguments(state, contents.description)
        return fitted(arguments, build_model(**arguments))
    except ValueError:
        if wrong is None:
            raise
    # What is wrong with a description tells more than that nothing else fits.
    raise wrong


def _by_shapes(
    state: Mapping[str, np.ndarray], contents: Contents, described: Model
) -> bool:
    """Whether a described network is the YOLOv5 v6.0 that its shapes say."""
    try:
        model = build_model(**infer_arguments(state, contents.description))
    except ValueError:
        return False
    return is_yolov5(described, model)


def _read_darknet(path: str | Path, cfg: str | Path) -> Published:
    weights, described = darknet.find_pair(path, cfg)
    if isinstance(described, str):
        num_classes = darknet_spec(DARKNET[described].sections).num_classes
        arguments = {"name": described, "num_classes": num_classes}
    else:
        text = read_cfg(described)
        try:
            num_classes = darknet_spec(parse_cfg(text)).num_classes
        except ValueError as error:
            raise ValueError(f"{described}: {error}") from error
        arguments = {"name": "darknet", "num_classes": num_classes}
        arguments |= {"path": str(described), "description": text}
    model = build_model(**arguments)
    found = darknet.read_darknet(weights, model)
    about = {"described": str(described), "header": found.header}
    contents = Contents(
        state=flatten(found.variables),
        class_names=darknet.names_beside(weights, num_classes),
        description=about | {"not_finite": found.not_finite},
    )
    names = contents.class_names or placeholder_names(num_classes)
    return Published(model, arguments, found.variables, names, contents)


def write_published(
    path: str | Path,
    model: Any,
    variables: Mapping[str, Any],
    class_names: Sequence[str],
    settings: Mapping[str, Any] | None = None,
) -> tuple[Path, ...]:
    """Write a network in the original's form.

    That is a `.safetensors` state dict under the original's names, with anchors in
    cells, or, for a Darknet network, a `.weights` file with its `.cfg` and `.names`
    beside, where its classes have names. Networks without an original are written
    under our own paths. `read_published` gives the same bits back.

    Args:
        path: the file.
        model: the network.
        variables: `params` and `batch_stats`.
        class_names: what its classes are called.
        settings: of a classifier, or of a detector with a classifier's backbone: the
            config that it was built from.

    Returns:
        The files that were written.

    Raises:
        ValueError: `path` has another ending than such files.
    """
    if model.family == "darknet":
        if Path(path).suffix != ".weights":
            raise ValueError(f"{path}: Darknet networks are written as .weights only")
        known = tuple(class_names) != placeholder_names(len(class_names))
        names = tuple(class_names) if known else ()
        return darknet.write_pair(path, model, variables, names)
    if Path(path).suffix == ".weights":
        raise ValueError(
            f"{path}: only a Darknet network can be written as .weights, and this is "
            f"{model.name}; take .safetensors"
        )
    if Path(path).suffix != ".safetensors":
        raise ValueError(f"{path}: state dicts are written as .safetensors only")
    if own.is_own(model):
        named = classifiers.has_names(model)
        state = (to_state_dict if named else own.to_own)(model, variables)
        about = own.description_of(model, settings or {})
        write_safetensors(path, state, about | {"class_names": list(class_names)})
        return (Path(path),)
    state = to_state_dict(model, variables)
    cells = model.anchors / np.asarray(model.strides, np.float32)[:, None, None]
    if model.family == "yaml":
        head = model.spec.detect_row
        cells = np.stack(in_detect_order(model, tuple(cells)))
        about = json.loads(model.spec.text)
    else:
        head = _HEADS[len(model.strides)]
        about = {
            "depth_multiple": model.spec.depth,
            "width_multiple": model.spec.width,
        }
    state[f"model.{head}.anchors"] = cells
    write_safetensors(path, state, about | {"class_names": list(class_names)})
    return (Path(path),)


def missing_names(path: str | Path, model: Network, class_names: Sequence[str]) -> str:
    """A line on how a Darknet pair gets its class names; nothing where it has them.

    Args:
        path: the file that the network was read from.
        model: the network.
        class_names: what its classes are called.
    """
    count = model.num_classes
    unknown = tuple(class_names) == placeholder_names(count)
    if model.family != "darknet" or not unknown or not Path(path).is_file():
        return ""
    names = Path(path).with_suffix(".names").name
    return f"no class names: put {names} ({count} lines) beside the weights"


def placeholder_names(num_classes: int) -> tuple[str, ...]:
    """What classes are called where a file does not say: `class0`, `class1`, ..."""
    return tuple(f"class{number}" for number in range(num_classes))


def infer_arguments(
    state: Mapping[str, np.ndarray], description: Mapping[str, Any]
) -> dict[str, Any]:
    """What `build_model` takes for the network that the arrays are of.

    Args:
        state: arrays by the original's names.
        description: the network's own description, or empty; `depth_multiple`,
            `width_multiple` and `anchors` are used where the arrays leave a choice.

    Raises:
        ValueError: it is no YOLOv5 v6.0.
    """
    levels = [n for n, head in _HEADS.items() if f"model.{head}.m.0.weight" in state]
    if len(levels) != 1 or _STEM not in state:
        raise ValueError(
            f"not a YOLOv5 v6.0 detector: it has no {_STEM} with a head at "
            f"{' or '.join(f'model.{head}' for head in _HEADS.values())}; nor a "
            f"{classifiers.KNOWN} classifier"
        )
    base, changes = _variant(state, description, levels[0])
    spec = YOLOV5[base]
    anchors = published_anchors(state, spec.strides) or _described_anchors(description)
    outputs = _outputs(state, f"model.{_HEADS[levels[0]]}.m.0.weight")
    per_level = len(anchors[0]) if anchors else len(spec.anchors[0])
    num_classes = classes_of(outputs, per_level)
    arguments: dict[str, Any] = {"name": base, "num_classes": num_classes}
    if anchors is not None:
        arguments["anchors"] = anchors
    return arguments | changes


def _variant(
    state: Mapping[str, np.ndarray], description: Mapping[str, Any], levels: int
) -> tuple[str, dict[str, float]]:
    """The name of the published variant, and its width and depth if they are others."""
    specs = {name: spec for name, spec in YOLOV5.items() if len(spec.anchors) == levels}
    stages = [2 * i + 2 for i in range(len(next(iter(specs.values())).blocks))]
    blocks = tuple(_count(state, f"model.{stage}.m.") for stage in stages)
    features = tuple(
        _outputs(state, name)
        for name in (_STEM, *(f"model.{s}.cv3.conv.weight" for s in stages))
    )
    for name, spec in specs.items():
        if (spec.stage_blocks, spec.stage_features) == (blocks, features):
            return name, {}
    name, spec = next(iter(specs.items()))
    widths = _numbers(description, "width_multiple") + [
        have / base for have, base in zip(features, spec.channels, strict=True)
    ]
    depths = _numbers(description, "depth_multiple") + [
        have / base for have, base in zip(blocks, spec.blocks, strict=True)
    ]
    for width in widths:
        for depth in depths:
            changed = dataclasses.replace(spec, width=width, depth=depth)
            if (changed.stage_blocks, changed.stage_features) == (blocks, features):
                return name, {"width": width, "depth": depth}
    raise ValueError(
        f"no YOLOv5 v6.0 has {', '.join(map(str, features))} channels and "
        f"{', '.join(map(str, blocks))} blocks in its stages"
    )


def _outputs(state: Mapping[str, np.ndarray], name: str) -> int:
    """Channels that a convolution gives; 0 where there is none."""
    return state[name].shape[0] if name in state and state[name].ndim == 4 else 0


def _count(state: Mapping[str, np.ndarray], prefix: str) -> int:
    """How many numbered parts there are below `prefix`."""
    return len(
        {
            name.removeprefix(prefix).partition(".")[0]
            for name in state
            if name.startswith(prefix)
        }
    )


def _numbers(description: Mapping[str, Any], key: str) -> list[float]:
    value = description.get(key)
    if isinstance(value, (int, float)) and 0 < value < 100:
        return [float(value)]
    return []


def _described_anchors(description: Mapping[str, Any]) -> Any:
    """Anchors in pixels as a YOLOv5 description lists them, flat rows; or None."""
    rows = description.get("anchors")
    if not isinstance(rows, (list, tuple)) or not 1 <= len(rows) <= _MAX_ROW:
        return None
    if not all(isinstance(row, (list, tuple)) and len(row) <= _MAX_ROW for row in rows):
        return None
    if not all(isinstance(side, (int, float)) for row in rows for side in row):
        return None
    return tuple(tuple(zip(row[::2], row[1::2], strict=False)) for row in rows)


def _without_prefix(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Names from `model.` on, as where a wrapper put something before them."""
    stems = [name for name in state if f".{name}".endswith(_STEMS)]
    if len(stems) != 1:
        return dict(state)
    prefix = stems[0].removesuffix(_STEM).removesuffix(_FOCUS)
    return {name.removeprefix(prefix): array for name, array in state.items()}


def _found(contents: Contents) -> str:
    """What a file holds, for a message."""
    names = list(contents.state)
    shown = [f"{ascii(n)[1:-1][:80]} {contents.state[n].shape}" for n in names[:3]]
    text = f"found: {len(names)} tensors ({', '.join(shown)}, ...)"
    if contents.kinds:
        text += f"; built from {ascii(', '.join(contents.kinds[:20]))[1:-1][:200]}"
    return text


def count_parameters(variables: Mapping[str, Any]) -> tuple[int, int]:
    """How many trained numbers there are, and in how many arrays."""
    leaves = flatten(variables["params"]).values()
    return sum(int(np.size(leaf)) for leaf in leaves), len(leaves)
