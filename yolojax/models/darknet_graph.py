"""From the sections of a Darknet `.cfg` to a `GraphSpec`.

A layer is called by its number, `layer81`, as in Darknet's own listings and in the
names of published partial weights (`yolov4.conv.137`). All but the raw maps are in the
part `body`; the convolution before a `[yolo]`, which gives a raw map, is in `head`.
Dropout is left out: outside of training it does nothing, and no training step here
has a key for it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import NamedTuple

from yolojax.models import cfg
from yolojax.models.cfg import Section
from yolojax.models.darknet_layers import KINDS
from yolojax.models.darknet_sections import (
    Layer,
    Shape,
    Yolo,
    read_layer,
    read_raw_map,
    read_yolo,
    references,
)
from yolojax.models.graph import GraphSpec, Node
from yolojax.ops.grid import Decoding

# Limits far above every published network: a damaged file shall end in a message.
MAX_PARAMETERS = 2**30
MAX_STRIDE = 4_096
MAX_SIDE = 8_192

# Options of a [yolo] that say how its network was trained.
HINTS = (
    *("ignore_thresh", "iou_thresh", "iou_loss", "iou_normalizer", "obj_normalizer"),
    *("cls_normalizer", "objectness_smooth", "label_smooth_eps", "focal_loss"),
)


@dataclasses.dataclass(frozen=True, eq=False)
class DarknetSpec(GraphSpec):
    """A detector out of a Darknet description.

    Attributes: as `GraphSpec`, and
        sections: the description, `[net]` first.
        image_size: (height, width) of the pictures it was made for; None where it
            does not say so.
        training_hints: how it was trained, by option of its `[yolo]` sections and in
            their words; where levels differ, all values, finest level first.
    """

    sections: tuple[Section, ...]
    image_size: tuple[int, int] | None
    training_hints: Mapping[str, str]


class _Map(NamedTuple):
    """A map that layers can take."""

    node: int
    shape: Shape


class _Level(NamedTuple):
    """A `[yolo]` and the raw map before it."""

    node: int
    below: Shape
    yolo: Yolo
    section: Section

    @property
    def stride(self) -> int:
        return self.below.step.denominator


def darknet_spec(sections: Sequence[Section]) -> DarknetSpec:
    """The network that the sections of a `.cfg` describe.

    Args:
        sections: see `cfg.parse_cfg`.

    Raises:
        ValueError: a layer is not supported or does not fit those before it, or the
            network is no detector; the message names the line.
    """
    net, layers = sections[0], sections[1:]
    cfg.whole(net, "channels", 3, low=3, high=3)
    image_size = _image_size(net)
    nodes, maps, levels = _read(layers)
    if not levels:
        kinds = ", ".join(dict.fromkeys(section.kind for section in layers))
        raise ValueError(
            f"no [yolo] section: this describes no detector of YOLOv3's or YOLOv4's "
            f"kind; its layers are {kinds or 'none'}"
        )
    levels.sort(key=lambda level: level.stride)
    _check_levels(levels)
    sizes = "square" if levels[0].yolo.squared else "exponential"
    priors = (prior for level in levels for prior in level.yolo.priors)
    return DarknetSpec(
        nodes=tuple(nodes),
        outputs=tuple(level.node for level in levels),
        kinds=KINDS,
        strides=tuple(level.stride for level in levels),
        features=tuple(level.below.channels for level in levels),
        anchors=tuple(level.yolo.anchors for level in levels),
        priors=tuple(dict.fromkeys(priors)),
        decoding=Decoding(sizes, tuple(level.yolo.scale for level in levels)),
        num_classes=levels[0].yolo.num_classes,
        max_stride=_max_stride(maps, layers),
        sections=tuple(sections),
        image_size=image_size,
        training_hints=_hints([level.section for level in levels]),
    )


def changed_spec(
    spec: DarknetSpec,
    *,
    num_classes: int,
    anchors: Sequence[Sequence[Sequence[float]]] | None = None,
) -> DarknetSpec:
    """The network with a head for other classes or anchors; its sections say so too.

    Args:
        spec: the network.
        num_classes: that the head tells apart.
        anchors: (width, height) in pixels per level and anchor, finest level first,
            equally many on each; None for those of `spec`.
    """
    if num_classes == spec.num_classes and anchors is None:
        return spec
    sections = list(spec.sections)
    for level, index in enumerate(spec.outputs):
        count = len((anchors or spec.anchors)[level])
        # Layer 0 is the second section, and the [yolo] follows its raw map.
        place = int(spec.nodes[index].name.removeprefix("layer")) + 1
        head, yolo = sections[place], sections[place + 1]
        sections[place] = head.changed(filters=count * (5 + num_classes))
        sections[place + 1] = yolo.changed(classes=num_classes)
        if anchors is not None:
            sides = [side for row in anchors for pair in row for side in pair]
            mask = range(level * count, (level + 1) * count)
            sections[place + 1] = sections[place + 1].changed(
                anchors=",".join(f"{float(side)!r}" for side in sides),
                num=len(sides) // 2,
                mask=",".join(map(str, mask)),
            )
    return darknet_spec(sections)


def _read(
    layers: Sequence[Section],
) -> tuple[list[Node], list[_Map | None], list[_Level]]:
    """The nodes, every layer's map (None where no layer can take it), the levels."""
    nodes: list[Node] = []
    maps: list[_Map | None] = []
    levels: list[_Level] = []
    total = 0
    for number, section in enumerate(layers):
        if section.kind == "yolo":
            if not number or layers[number - 1].kind != "convolutional":
                raise ValueError(f"{section.where}: it must follow a [convolutional]")
            maps.append(None)
            continue
        taken = _taken(layers, number, maps)
        following = layers[number + 1] if number + 1 < len(layers) else section
        if section.kind == "convolutional" and following.kind == "yolo":
            below, yolo = taken[0].shape, read_yolo(following)
            layer = read_raw_map(section, yolo, below)
            _check_cells(following, below)
            levels.append(_Level(len(nodes), below, yolo, following))
            nodes.append(_node(layer, taken, "head", number, section))
            maps.append(None)
        else:
            layer = read_layer(section, [entry.shape for entry in taken])
            if layer.kind:
                nodes.append(_node(layer, taken, "body", number, section))
                maps.append(_Map(len(nodes) - 1, layer.shape))
            else:
                maps.append(taken[0])
        total += layer.parameters
        if total > MAX_PARAMETERS:
            raise ValueError(
                f"{section.where}: up to here the network has {total:,} parameters; "
                f"at most {MAX_PARAMETERS:,} are supported"
            )
    return nodes, maps, levels


def _node(
    layer: Layer, taken: Sequence[_Map], part: str, number: int, section: Section
) -> Node:
    inputs = tuple(entry.node for entry in taken)
    name = f"layer{number}"
    return Node(layer.kind, inputs, layer.arguments, part, name, section.where)


def _taken(
    layers: Sequence[Section], number: int, maps: Sequence[_Map | None]
) -> list[_Map]:
    """The maps that a layer takes: the one before it, and those that it names."""
    section = layers[number]
    places = [number + p if p < 0 else p for p in references(section)]
    for place in places:
        if not 0 <= place < number:
            earlier = f"layers 0 to {number - 1}" if number else "no layer"
            raise ValueError(
                f"{section.where}: it names layer {place}, but it is layer {number} "
                f"itself and can take {earlier}"
            )
    if section.kind != "route":
        places.insert(0, number - 1)
    taken = []
    for place in places:
        entry = maps[place] if place >= 0 else _Map(-1, Shape(3, Fraction(1), 0))
        if entry is None:
            raise ValueError(
                f"{section.where}: layer {place} ({layers[place].where}) gives "
                f"detections, which no other layer can take"
            )
        taken.append(entry)
    return taken


def _check_cells(section: Section, below: Shape) -> None:
    if below.step.numerator != 1 or below.offset:
        raise ValueError(
            f"{section.where}: its cells must divide the picture evenly, but the map "
            f"has {below}"
        )


def _check_levels(levels: Sequence[_Level]) -> None:
    """Check that levels differ in their strides, and in nothing else that matters."""
    one = levels[0]
    for other, before in zip(levels[1:], levels, strict=False):
        if other.stride == before.stride:
            raise ValueError(
                f"{other.section.where}: a second [yolo] with stride {other.stride}; "
                f"the first: {before.section.where}"
            )
        for key, first, second in (
            ("classes", one.yolo.num_classes, other.yolo.num_classes),
            ("anchors in its mask", len(one.yolo.anchors), len(other.yolo.anchors)),
            ("new_coords", int(one.yolo.squared), int(other.yolo.squared)),
        ):
            if first != second:
                raise ValueError(
                    f"{other.section.where}: all [yolo] must have the same number of "
                    f"{key}; here {second}, but {first} in {one.section.where}"
                )


def _max_stride(maps: Sequence[_Map | None], layers: Sequence[Section]) -> int:
    """What sides of pictures must be divisible by, so that every map has pixels."""
    shapes = [entry.shape if entry else None for entry in maps]
    stride = math.lcm(*(shape.step.denominator for shape in shapes if shape))
    if stride > MAX_STRIDE:
        raise ValueError(
            f"sides of pictures would have to be multiples of {stride:,} px; at most "
            f"{MAX_STRIDE:,} px are supported"
        )
    for shape, section in zip(shapes, layers, strict=True):
        if shape and shape.step * stride + shape.offset < 1:
            raise ValueError(
                f"{section.where}: its map is empty for a picture of {stride} px; it "
                f"has {shape}"
            )
    return stride


def _image_size(net: Section) -> tuple[int, int] | None:
    """(height, width) of the network's pictures, where they are said."""
    if not {"width", "height"} <= net.options.keys():
        return None
    height, width = (
        cfg.whole(net, key, low=1, high=MAX_SIDE) for key in ("height", "width")
    )
    return height, width


def _hints(sections: Sequence[Section]) -> dict[str, str]:
    """Options about training: one value, or those of all levels, finest first."""
    found = {}
    for key in HINTS:
        # They are printed: no control characters, and no page of text.
        values = [
            ascii(section.options[key][:20])[1:-1] if key in section.options else None
            for section in sections
        ]
        given = [value for value in values if value is not None]
        if given:
            same = len(set(values)) == 1
            found[key] = given[0] if same else ", ".join(v or "-" for v in values)
    return found
