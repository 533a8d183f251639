"""Networks from YOLOv5's own model descriptions.

    model = build_model("yaml", path="yolov5s-ghost.yaml", num_classes=3)

Rows become the nodes of a graph: `backbone/layer0`, ..., `neck/layer10`, ... under the
numbers of the published names, and each level of Detect a `head/level3`, where 3 is the
logarithm of its stride.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from yolojax.files import read_description as read_file
from yolojax.models.arguments import Arguments, Layer, Map
from yolojax.models.blocks import num_bottlenecks
from yolojax.models.description import (
    MAX_CHANNELS,
    MAX_LAYERS,
    Description,
    Row,
    read_description,
)
from yolojax.models.graph import AnchorMap, GraphSpec, Node, graph_model, with_drop_path
from yolojax.models.model import Anchors, Model, check_common, checked_anchors
from yolojax.models.modules import DETECT, MODULES, Module, module_of
from yolojax.models.reshaping import Repeat
from yolojax.models.specs import COCO_ANCHORS_P5, COCO_ANCHORS_P6
from yolojax.ops.grid import Decoding

# Limits for strangers' files; the largest published network has 145 million
# parameters and a stride of 128.
_MAX_WEIGHTS = 2**31
_MAX_STRIDE = 1024
_MAX_EXTRA = 1024

_PUBLISHED_ANCHORS = {(8, 16, 32): COCO_ANCHORS_P5, (8, 16, 32, 64): COCO_ANCHORS_P6}
_KINDS = {name: module.build for name, module in MODULES.items()} | {
    "Repeat": Repeat,
    DETECT: AnchorMap,
}


@dataclasses.dataclass(frozen=True, eq=False)
class DescribedSpec(GraphSpec):
    """A network from a description.

    Attributes:
        text: the description as it was built, JSON; it gives the same network again.
        depth: multiple of the numbers of blocks.
        width: multiple of the numbers of channels.
        prefixes: what published names of a node start with, as `backbone/layer0` ->
            `model.0`.
        detect_row: the number of Detect's row.
        detect_order: for each level its place among Detect's inputs.
    """

    text: str
    depth: float
    width: float
    prefixes: Mapping[str, str]
    detect_row: int
    detect_order: tuple[int, ...]

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the published trainings."""
        side = 640 if self.max_stride <= 32 else 1280
        return side, side


def build_described(
    name: str,
    *,
    num_classes: int,
    dtype: str = "float32",
    path: str = "",
    description: str = "",
    anchors: Anchors | None = None,
    width: float | None = None,
    depth: float | None = None,
    activation: str = "",
    drop_path: float = 0.0,
) -> Model:
    """The network of a YOLOv5 model description.

    Args:
        name: what it is called.
        num_classes: instead of the description's `nc`, which counts at 0.
        dtype: of the computation: `float32`, `bfloat16`, `float16` or `float64`.
        path: the file that the description is read from; for messages only, where
            `description` is given.
        description: its text, YAML or JSON.
        anchors: (width, height) in pixels per anchor and level, finest level first,
            instead of the description's; equally many on every level. Where neither
            says them (`anchors: 3`), they are those published for COCO at strides 8
            to 32 or 64 and three a level, and else squares of 2 to 8 strides.
        width: multiple of the channels instead of `width_multiple`.
        depth: multiple of the numbers of blocks instead of `depth_multiple`.
        activation: of all units instead of the description's, as `nn.ReLU()` or
            `relu`.
        drop_path: as of `yolov5`, of Bottleneck, C3 and BottleneckCSP.

    Raises:
        ValueError: the description cannot be read or built, with the row where it is
            one's fault; or another argument does not fit.
    """
    what = path or "the model description"
    changes: dict[str, Any] = {"nc": num_classes} if num_classes else {}
    given = {
        "anchors": anchors,
        "width_multiple": width,
        "depth_multiple": depth,
        "activation": activation or None,
    }
    changes |= {key: value for key, value in given.items() if value is not None}
    found = read_description(description or _read(path), what, changes)
    check_common(name, num_classes=found.num_classes, dtype=dtype)
    try:
        spec = _Builder(found).spec(name, anchors)
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from error
    spec = with_drop_path(spec, drop_path, _num_bottlenecks, name)
    return graph_model(spec, name=name, family="yaml", dtype=dtype)


def _num_bottlenecks(node: Node) -> int:
    """Those of a row that `drop_path` is for."""
    own = {"module": _KINDS[node.kind], "arguments": node.arguments, "times": 1}
    own |= node.arguments if own["module"] is Repeat else {}
    count = own["times"] * num_bottlenecks(own["module"], own["arguments"])
    return count if node.part == "backbone" else 0


def _read(path: str) -> str:
    if not path:
        raise ValueError("model 'yaml' needs path, a YOLOv5 model description")
    return read_file(path)


class _Head(NamedTuple):
    """One convolution of the head: what it takes, its published prefix, its node."""

    source: int
    prefix: str
    node: int = -1


class _Builder:
    """Goes through the rows of a description and collects nodes and maps."""

    def __init__(self, about: Description):
        self.about = about
        self.nodes: list[Node] = []
        self.maps: list[Map] = []
        self.prefixes: dict[str, str] = {}
        self.count = self.weights = 0

    def spec(self, name: str, anchors: Anchors | None) -> DescribedSpec:
        """The whole network; `anchors` of its levels, if not the description's."""
        *rows, last = self.about.rows
        for row in rows:
            if module_of(row) == DETECT:
                raise ValueError(f"{row.where}: Detect must be the last row")
            self._add(row)
        if module_of(last) != DETECT:
            raise ValueError(f"{last.where}: the last row must be Detect")
        heads = self._heads(last)
        strides = [self._stride(last, head.source) for head in heads]
        order = sorted(range(len(heads)), key=strides.__getitem__)
        heads = [heads[i] for i in order]
        levels = tuple(sorted(strides))
        chosen = self._anchors(last, strides, order, name, anchors)
        content = dict(self.about.content)
        if anchors is not None:
            # As rows of a description, they go by Detect's order.
            content["anchors"] = [chosen[order.index(i)] for i in range(len(order))]
        outputs = tuple(
            self._add_head(last, head, stride)
            for head, stride in zip(heads, levels, strict=True)
        )
        return DescribedSpec(
            nodes=tuple(self.nodes),
            outputs=outputs,
            kinds=_KINDS,
            strides=levels,
            features=tuple(self._map(head.source).channels for head in heads),
            anchors=chosen,
            priors=tuple(pair for level in chosen for pair in level),
            decoding=Decoding("square", (2.0,) * len(levels)),
            num_classes=self.about.num_classes,
            max_stride=self._max_stride(),
            text=json.dumps(content, default=str),
            depth=self.about.depth,
            width=self.about.width,
            prefixes=self.prefixes,
            detect_row=last.number,
            detect_order=tuple(order),
        )

    def _map(self, row: int) -> Map:
        return Map(3) if row < 0 else self.maps[row]

    def _add(self, row: Row) -> None:
        """Append a row's node and map."""
        name = module_of(row)
        module = MODULES[name]
        if not row.inputs or (len(row.inputs) > 1 and not module.many):
            takes = "rows" if module.many else "one row"
            raise ValueError(
                f"{row.where}: takes {takes}, `from` lists {len(row.inputs)}"
            )
        number = row.repeats
        if number > 1:
            number = max(round(number * self.about.depth), 1)
        self.count += number
        if self.count > MAX_LAYERS:
            raise ValueError(f"{row.where}: more than {MAX_LAYERS} layers up to here")
        maps = [self._map(i) for i in row.inputs]
        layer = self._planned(row, module, maps, number)
        if number > 1 and not module.has_blocks:
            layer = self._repeated(row, module, maps, layer, number)
            name = "Repeat"
        part = "backbone" if row.part == "backbone" else "neck"
        node = Node(
            kind=name,
            inputs=row.inputs,
            arguments=layer.arguments,
            part=part,
            name=f"layer{row.number}",
            where=row.where,
        )
        self.nodes.append(node)
        self.maps.append(layer.result)
        self.prefixes[f"{part}/{node.name}"] = f"model.{row.number}"

    def _planned(
        self, row: Row, module: Module, maps: Sequence[Map], blocks: int
    ) -> Layer:
        """A row's layer, within the limits."""
        arguments = Arguments(row, module.arguments, self.about, blocks)
        layer = module.plan(arguments, maps)
        x = layer.result
        if x.channels > MAX_CHANNELS or max(map(abs, x.extra)) > _MAX_EXTRA:
            raise ValueError(f"{row.where}: {x}; that is too large")
        if not 1 <= x.stride <= _MAX_STRIDE:
            raise ValueError(
                f"{row.where}: its stride is {x.stride} pixels; 1 to {_MAX_STRIDE} work"
            )
        self.weights += layer.weights
        if self.weights > _MAX_WEIGHTS:
            raise ValueError(
                f"{row.where}: more than {_MAX_WEIGHTS:,} parameters up to here"
            )
        return layer

    def _repeated(
        self, row: Row, module: Module, maps: Sequence[Map], first: Layer, times: int
    ) -> Layer:
        """The row's module `times` over, as it takes what it gives."""
        if module.many:
            raise ValueError(f"{row.where}: cannot be repeated {times} times")
        layer, channels = first, maps[0].channels
        for _ in range(times - 1):
            if layer.result.channels != channels:
                raise ValueError(
                    f"{row.where}: repeated {times} times, but takes {channels} "
                    f"channels and gives {layer.result.channels}"
                )
            layer = self._planned(row, module, [layer.result], 1)
        arguments = {
            "module": module.build,
            "times": times,
            "arguments": dict(first.arguments),
        }
        return dataclasses.replace(layer, arguments=arguments)

    def _heads(self, row: Row) -> list[_Head]:
        """The head's convolutions, in Detect's order."""
        where, arguments = row.where, row.arguments
        if row.repeats != 1:
            raise ValueError(f"{where}: cannot be repeated")
        if arguments != (self.about.num_classes, "anchors"):
            raise ValueError(
                f"{where}: its arguments must be the words nc and anchors, whose "
                "values stand at these keys"
            )
        if row.inputs:
            return [
                _Head(source, f"model.{row.number}.m.{i}")
                for i, source in enumerate(row.inputs)
            ]
        return self._convolutions_before(row)

    def _convolutions_before(self, row: Row) -> list[_Head]:
        """The same for v1.0, whose convolutions are rows of their own.

        They are those with as many outputs as a raw map has; the last comes first.
        """
        taken = {source for node in self.nodes for source in node.inputs}
        plain = {"kernel_size": 1, "stride": 1, "padding": 0, "groups": 1}
        plain |= {"features": self.about.num_outputs, "use_bias": True}
        heads = [
            _Head(node.inputs[0], f"model.{number}", number)
            for number, node in enumerate(self.nodes)
            if node.kind == "nn.Conv2d" and dict(node.arguments) == plain
        ]
        if not heads or taken.intersection(head.node for head in heads):
            raise ValueError(
                f"{row.where}: `from` is empty, and there are no nn.Conv2d rows with "
                f"{self.about.num_outputs} channels to end with"
            )
        return heads[::-1]

    def _stride(self, row: Row, source: int) -> int:
        """Pixels per cell of a level."""
        x = self._map(source)
        number = x.stride.numerator
        whole = x.stride.denominator == 1 and number & (number - 1) == 0
        if not whole or any(x.extra):
            raise ValueError(
                f"{row.where}: levels must be at strides that are powers of two; row "
                f"{source} gives {x}"
            )
        return number

    def _add_head(self, row: Row, head: _Head, stride: int) -> int:
        """Append a level's convolution, or put it in place of a row; its index."""
        name = f"level{stride.bit_length() - 1}"
        if f"head/{name}" in self.prefixes:
            raise ValueError(f"{row.where}: two of its inputs are at stride {stride}")
        self.prefixes[f"head/{name}"] = head.prefix
        arguments = {
            "num_anchors": self.about.num_anchors,
            "num_classes": self.about.num_classes,
        }
        node = Node(DETECT, (head.source,), arguments, "head", name, row.where)
        if head.node < 0:
            self.nodes.append(node)
            return len(self.nodes) - 1
        before = self.nodes[head.node]
        del self.prefixes[f"{before.part}/{before.name}"]
        self.nodes[head.node] = node
        return head.node

    def _anchors(
        self,
        row: Row,
        strides: Sequence[int],
        order: Sequence[int],
        name: str,
        own: Anchors | None,
    ) -> tuple[tuple[tuple[float, float], ...], ...]:
        """Anchors of each level, finest first; `strides` are in Detect's order."""
        count = len(strides)
        if own is not None:
            return checked_anchors(own, name, num_levels=count)
        rows = self.about.anchors
        if isinstance(rows, int):
            return _default_anchors(tuple(sorted(strides)), rows)
        if len(rows) != count:
            raise ValueError(
                f"{row.where}: takes {count} levels, but there are {len(rows)} rows "
                "of anchors"
            )
        # As published: rows go by Detect's order, unless sizes fall where strides rise.
        sizes = [sum(w * h for w, h in level) for level in rows]
        if (sizes[-1] - sizes[0]) * (strides[-1] - strides[0]) < 0:
            rows = rows[::-1]
        return tuple(rows[i] for i in order)

    def _max_stride(self) -> int:
        """What divides the sides of all pictures that the network takes."""
        stride = math.lcm(*(x.stride.numerator for x in self.maps))
        if stride > _MAX_STRIDE:
            raise ValueError(f"sides of pictures would have to be divided by {stride}")
        for row, x in zip(self.about.rows, self.maps, strict=False):
            if stride / x.stride + min(x.extra) < 1:
                raise ValueError(
                    f"{row.where}: {x} leave nothing of a picture of {stride} px"
                )
        return stride


def _default_anchors(
    strides: tuple[int, ...], count: int
) -> tuple[tuple[tuple[float, float], ...], ...]:
    """Anchors for a description that gives only their number.

    The published ones where there are any for these strides, else squares whose
    sides are spread evenly, by their logarithm, from 2 to 8 strides.
    """
    published = _PUBLISHED_ANCHORS.get(strides)
    if published is not None and count == len(published[0]):
        return tuple(tuple((float(w), float(h)) for w, h in row) for row in published)
    sides = [2 * 4 ** ((i + 0.5) / count) for i in range(count)]
    return tuple(tuple((s * side, s * side) for side in sides) for s in strides)
