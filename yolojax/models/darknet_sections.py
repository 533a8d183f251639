"""What each section of a Darknet `.cfg` becomes, seen by itself.

Sizes of maps are known as functions of the picture's: `step` n + `offset` pixels for n
pixels, exact for every n that the network's largest stride divides.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

from yolojax.lookup import hint
from yolojax.models import cfg
from yolojax.models.cfg import Section
from yolojax.models.darknet_layers import EPSILON, MOMENTUM

# Limits far above every published network: a damaged file shall end in a message.
MAX_CHANNELS = 2**16
MAX_WINDOW = 127

ACTIVATIONS = {
    "leaky": "leaky",
    "mish": "mish",
    "linear": "linear",
    "logistic": "logistic",
    "swish": "silu",
    "relu": "relu",
}
# Options by which a layer computes something else, unless they are 0.
_REFUSED = {
    "convolutional": (
        *("binary", "xnor", "bin_output", "antialiasing", "share_index", "deform"),
        *("sway", "rotate", "stretch", "stretch_sway", "assisted_excitation"),
    ),
    "maxpool": ("maxpool_depth", "antialiasing"),
    "route": ("stream",),
    "shortcut": ("weights_type", "weights_normalization"),
    "softmax": ("spatial", "noloss"),
}
# Options that a slip of the pen must not leave out.
_NEEDED = {
    "convolutional": (
        *("filters", "size", "stride", "pad", "padding", "groups", "activation"),
        *("batch_normalize", "dilation", "stride_x", "stride_y"),
    ),
    "maxpool": ("size", "stride", "padding", "stride_x", "stride_y"),
    "route": ("layers", "groups", "group_id"),
    "shortcut": ("from", "activation"),
    "upsample": ("stride",),
    "yolo": ("mask", "anchors", "num", "classes", "scale_x_y", "new_coords"),
}


class Shape(NamedTuple):
    """The shape of a map: channels, and pixels a side as a function of the picture."""

    channels: int
    step: Fraction
    offset: int

    def __str__(self) -> str:
        side = f"{self.step} of the picture" if self.step else "no part of the picture"
        return f"{self.channels} channels, {side} {self.offset:+d} px"

    def windowed(self, channels: int, size: int, stride: int, padding: int) -> Shape:
        """After windows of `size` pixels; `padding` is that of both sides together."""
        offset = (self.offset + padding - size) // stride + 1
        return Shape(channels, self.step / stride, offset)


class Layer(NamedTuple):
    """What a section becomes.

    Attributes:
        kind: of the node; nothing where the map stays as it is.
        shape: of its map.
        arguments: of its module.
        parameters: how many numbers it has, statistics included.
    """

    kind: str
    shape: Shape
    arguments: Mapping[str, Any]
    parameters: int = 0


class Yolo(NamedTuple):
    """A `[yolo]` section.

    Attributes:
        anchors: (width, height) in pixels of those that its mask names.
        priors: all that it lists.
        num_classes: at least 1.
        scale: how far centres reach, in cells.
        squared: whether the layer before it has the activation, and sizes are squared.
    """

    anchors: tuple[tuple[float, float], ...]
    priors: tuple[tuple[float, float], ...]
    num_classes: int
    scale: float
    squared: bool


def references(section: Section) -> tuple[int, ...]:
    """The layers that a section names: counted from 0, or, below 0, backwards.

    Raises:
        ValueError: it must name some, and does not.
    """
    key = {"route": "layers", "shortcut": "from"}.get(section.kind)
    if key is None:
        return ()
    found = cfg.wholes(section, key)
    if not found:
        raise ValueError(f"{section.where}: {key}= is missing")
    return found


def read_layer(section: Section, shapes: Sequence[Shape]) -> Layer:
    """The layer of a section.

    Args:
        section: any but a `[yolo]`.
        shapes: of the maps that it takes.

    Raises:
        ValueError: an unknown kind, or options that are not supported or do not fit.
    """
    if section.kind not in _READERS:
        kinds = (*_READERS, "yolo")
        raise ValueError(
            f"{section.where}: layers of this kind are not supported."
            f"{hint(section.kind[:40], kinds)} Choices: {', '.join(kinds)}"
        )
    _check_options(section)
    layer = _READERS[section.kind](section, *shapes)
    if layer.shape.channels > MAX_CHANNELS:
        raise ValueError(
            f"{section.where}: its map has {layer.shape.channels} channels; at most "
            f"{MAX_CHANNELS} are supported"
        )
    return layer


def read_yolo(section: Section) -> Yolo:
    """A `[yolo]` section's anchors and how it decodes.

    Raises:
        ValueError: its options do not fit each other.
    """
    _check_options(section)
    flat = cfg.numbers(section, "anchors")
    if not flat or len(flat) % 2 or not all(0 < side <= 1e5 for side in flat):
        raise ValueError(
            f"{section.where}: anchors= must be pairs of a width and a height above 0, "
            f"in pixels"
        )
    priors = tuple(zip(flat[::2], flat[1::2], strict=True))
    count = len(priors)
    num = cfg.whole(section, "num", count, low=1, high=MAX_CHANNELS)
    if num != count:
        raise ValueError(f"{section.where}: num={num}, but anchors= has {count} pairs")
    mask = cfg.wholes(section, "mask") or tuple(range(count))
    if not all(0 <= place < count for place in mask):
        raise ValueError(
            f"{section.where}: mask={','.join(map(str, mask[:10]))} names anchors that "
            f"are not there; there are 0 to {count - 1}"
        )
    return Yolo(
        anchors=tuple(priors[place] for place in mask),
        priors=priors,
        num_classes=cfg.whole(section, "classes", low=1, high=MAX_CHANNELS),
        scale=cfg.number(section, "scale_x_y", 1, low=0.5, high=10),
        squared=bool(cfg.whole(section, "new_coords", 0, low=0, high=1)),
    )


def read_raw_map(section: Section, yolo: Yolo, below: Shape) -> Layer:
    """The raw map that a `[convolutional]` before a `[yolo]` gives.

    Raises:
        ValueError: it is another convolution than detectors have there.
    """
    _check_options(section)
    activation = "logistic" if yolo.squared else "linear"
    expected = {"size": 1, "stride": 1, "groups": 1, "batch_normalize": 0}
    found = {
        "size": cfg.whole(section, "size", 1, low=1, high=MAX_WINDOW),
        "stride": _stride(section),
        "groups": cfg.whole(section, "groups", 1, low=1, high=MAX_CHANNELS),
        "batch_normalize": cfg.whole(section, "batch_normalize", 0, low=0, high=1),
    }
    padded = cfg.whole(section, "padding", 0, low=0, high=MAX_WINDOW)
    padded = padded and not cfg.whole(section, "pad", 0, low=0, high=1)
    given = cfg.word(section, "activation", tuple(ACTIVATIONS))
    if found != expected or padded or given != activation:
        because = ", since it has new_coords=1" if yolo.squared else ""
        raise ValueError(
            f"{section.where}: before [yolo] there must be a convolution of size=1, "
            f"stride=1, without groups, padding and batch_normalize, with "
            f"activation={activation}{because}"
        )
    anchors = len(yolo.anchors)
    needed = anchors * (5 + yolo.num_classes)
    filters = cfg.whole(section, "filters", low=1, high=MAX_CHANNELS)
    if filters != needed:
        raise ValueError(
            f"{section.where}: filters={filters}, but the [yolo] after it needs "
            f"{needed}: {anchors} anchors of 5 + {yolo.num_classes} outputs each"
        )
    return Layer(
        "yolo",
        Shape(filters, below.step, below.offset),
        {"num_anchors": anchors, "num_classes": yolo.num_classes},
        filters * (below.channels + 1),
    )


def _convolutional(section: Section, below: Shape) -> Layer:
    filters = cfg.whole(section, "filters", low=1, high=MAX_CHANNELS)
    groups = cfg.whole(section, "groups", 1, low=1, high=MAX_CHANNELS)
    if below.channels % groups or filters % groups:
        raise ValueError(
            f"{section.where}: groups={groups} must divide both the "
            f"{below.channels} channels that come in and filters={filters}"
        )
    cfg.whole(section, "dilation", 1, low=1, high=1)
    size = cfg.whole(section, "size", 1, low=1, high=MAX_WINDOW)
    stride = _stride(section)
    padding = cfg.whole(section, "padding", 0, low=0, high=MAX_WINDOW)
    if cfg.whole(section, "pad", 0, low=0, high=1):
        padding = size // 2
    arguments = {
        "features": filters,
        "kernel_size": size,
        "stride": stride,
        "padding": padding,
        "groups": groups,
        "activation": _activation(section),
    }
    kind = "biased"
    if cfg.whole(section, "batch_normalize", 0, low=0, high=1):
        kind = "convolutional"
        arguments |= {"epsilon": EPSILON, "momentum": MOMENTUM}
    shape = below.windowed(filters, size, stride, 2 * padding)
    numbers = filters * (below.channels // groups * size**2 + 4)
    return Layer(kind, shape, arguments, numbers)


def _maxpool(section: Section, below: Shape) -> Layer:
    stride = _stride(section)
    size = cfg.whole(section, "size", stride, low=1, high=MAX_WINDOW)
    # With more, windows would lie in the padding as a whole.
    most = 2 * (size - 1)
    padding = cfg.whole(section, "padding", size - 1, low=0, high=most)
    arguments = {"size": size, "stride": stride, "padding": padding}
    shape = below.windowed(below.channels, size, stride, padding)
    return Layer("maxpool", shape, arguments)


def _route(section: Section, *shapes: Shape) -> Layer:
    groups = cfg.whole(section, "groups", 1, low=1, high=MAX_CHANNELS)
    group = cfg.whole(section, "group_id", 0, low=0, high=groups - 1)
    first = shapes[0]
    for shape in shapes:
        if shape[1:] != first[1:]:
            raise ValueError(
                f"{section.where}: its layers have maps of different sizes: {first}, "
                f"and {shape}"
            )
        if shape.channels % groups:
            raise ValueError(
                f"{section.where}: groups={groups} does not divide the "
                f"{shape.channels} channels of a layer"
            )
    if len(shapes) == groups == 1:
        return Layer("", first, {})
    channels = sum(shape.channels for shape in shapes) // groups
    shape = Shape(channels, first.step, first.offset)
    return Layer("route", shape, {"groups": groups, "group": group})


def _shortcut(section: Section, *shapes: Shape) -> Layer:
    first = shapes[0]
    for shape in shapes:
        if shape != first:
            raise ValueError(
                f"{section.where}: only maps of one shape are added, not {first}, and "
                f"{shape}"
            )
    return Layer("shortcut", first, {"activation": _activation(section)})


def _upsample(section: Section, below: Shape) -> Layer:
    stride = cfg.whole(section, "stride", 2, low=1, high=16)
    cfg.number(section, "scale", 1, low=1, high=1)
    shape = Shape(below.channels, below.step * stride, below.offset * stride)
    if shape.step > 4:
        raise ValueError(
            f"{section.where}: its map is {shape.step} times as wide as the picture; "
            f"at most 4 are supported"
        )
    return Layer("upsample", shape, {"stride": stride})


def _avgpool(section: Section, below: Shape) -> Layer:
    del section
    return Layer("avgpool", Shape(below.channels, Fraction(0), 1), {})


def _softmax(section: Section, below: Shape) -> Layer:
    cfg.whole(section, "groups", 1, low=1, high=1)
    cfg.number(section, "temperature", 1, low=1, high=1)
    return Layer("softmax", below, {})


def _dropout(section: Section, below: Shape) -> Layer:
    del section
    return Layer("", below, {})


_READERS = {
    "convolutional": _convolutional,
    "maxpool": _maxpool,
    "route": _route,
    "shortcut": _shortcut,
    "upsample": _upsample,
    "avgpool": _avgpool,
    "softmax": _softmax,
    "dropout": _dropout,
}


def _activation(section: Section) -> str:
    return ACTIVATIONS[cfg.word(section, "activation", tuple(ACTIVATIONS))]


def _stride(section: Section) -> int:
    """The one step of windows; Darknet also has one for each direction."""
    stride = cfg.whole(section, "stride", 1, low=1, high=MAX_WINDOW)
    keys = ("stride_x", "stride_y")
    sides = [cfg.whole(section, k, stride, low=1, high=MAX_WINDOW) for k in keys]
    if sides[0] != sides[1]:
        raise ValueError(
            f"{section.where}: stride_x={sides[0]} and stride_y={sides[1]} differ, "
            f"which is not supported"
        )
    return sides[0]


def _check_options(section: Section) -> None:
    """Refuse what would be computed otherwise, and what looks mistyped."""
    for key in _REFUSED.get(section.kind, ()):
        if section.options.get(key, "0") not in ("0", "none"):
            value = ascii(section.options[key][:40])[1:-1]
            raise ValueError(f"{section.where}: {key}={value} is not supported")
    needed = _NEEDED.get(section.kind, ())
    for key in section.options:
        near = difflib.get_close_matches(key[:40], needed, n=1, cutoff=0.8)
        if near and key not in needed:
            raise ValueError(
                f"{section.where}: no option is called {ascii(key[:40])}. Did you mean "
                f"{near[0]!r}?"
            )
