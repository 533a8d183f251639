"""What a row of a description becomes: its module, its arguments and its map.

One function a module. Each reads the row's arguments, checks them against the maps
that come in, and says what goes out.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import flax.linen as nn

from yolojax.lookup import hint
from yolojax.models.arguments import MAX_WINDOW, Arguments, Layer, Map
from yolojax.models.attention import AttentionCspStage
from yolojax.models.blocks import (
    Bottleneck,
    CrossBlock,
    CspStage,
    NormedCspStage,
    ParallelPooling,
    PyramidPooling,
)
from yolojax.models.description import Row
from yolojax.models.ghost import GhostBottleneck, GhostCspStage, GhostUnit
from yolojax.models.layers import BatchNorm, ConvUnit
from yolojax.models.reshaping import (
    Concat,
    Contract,
    Expand,
    Focus,
    MaxPool,
    PlainConv,
    Upsample,
    ZeroPad,
)
from yolojax.yaml_text import number_in

_HEADS = 4  # of attention, as published

Planner = Callable[[Arguments, Sequence[Map]], Layer]


@dataclasses.dataclass(frozen=True)
class Module:
    """A module that rows may name.

    Attributes:
        build: its class.
        arguments: names of its positional arguments.
        plan: from arguments and maps to the layer.
        has_blocks: whether a row's number is that of blocks inside; otherwise the
            module is repeated.
        many: whether it takes several maps.
    """

    build: type[nn.Module]
    arguments: str
    plan: Planner
    has_blocks: bool = False
    many: bool = False


def _conv(a: Arguments, maps: Sequence[Map]) -> Layer:
    return _unit(a, maps[0])


def _unit(a: Arguments, x: Map, times: int = 1) -> Layer:
    """A unit whose arguments are those of "Conv", over `times` as many channels."""
    features, size, stride = a.features(), a.window("kernel", 1), a.integer("stride", 1)
    inputs = x.channels * times
    padding = None
    if a.get("padding", None) is not None:
        padding = a.integer("padding", low=0, high=MAX_WINDOW)
    groups = a.groups(inputs, features)
    arguments = {
        "features": features,
        "kernel_size": size,
        "stride": stride,
        "padding": padding,
        "groups": groups,
        "activation": _activation(a),
    }
    pad = size // 2 if padding is None else padding
    weights = inputs // groups * features * size**2
    return Layer(arguments, x.slid(features, size, stride, pad), weights)


def _activation(a: Arguments) -> str:
    """The activation of a unit that may be dilated; here it is not."""
    # Before v7.0 the activation stood where there is the dilation now.
    activation, dilation = a.get("activation", True), a.get("dilation", 1)
    if isinstance(dilation, (bool, str)):
        activation, dilation = dilation, 1
    if dilation != 1:
        raise a.wrong("dilation", "1")
    return a.activation(activation)


def _focus(a: Arguments, maps: Sequence[Map]) -> Layer:
    x = maps[0]
    if any(extra % 2 for extra in x.extra):
        raise ValueError(f"{a.where}: takes even sizes, not {x}")
    rows, columns = (extra // 2 for extra in x.extra)
    return _unit(a, Map(x.channels, x.stride * 2, (rows, columns)), 4)


def _depthwise(a: Arguments, maps: Sequence[Map]) -> Layer:
    x, features = maps[0], a.features()
    size, stride = a.window("kernel", 1), a.integer("stride", 1)
    groups = math.gcd(x.channels, features)
    arguments = {
        "features": features,
        "kernel_size": size,
        "stride": stride,
        "groups": groups,
        "activation": _activation(a),
    }
    weights = x.channels // groups * features * size**2
    return Layer(arguments, x.slid(features, size, stride, size // 2), weights)


def _bottleneck(a: Arguments, maps: Sequence[Map]) -> Layer:
    x, features = maps[0], a.features()
    hidden = a.hidden(features, 0.5)
    arguments = {
        "features": features,
        "shortcut": a.flag("shortcut", True),
        "hidden": hidden,
        "groups": a.groups(hidden, features),
        "activation": a.activation(),
    }
    weights = hidden * (x.channels + 9 * features)
    return Layer(arguments, dataclasses.replace(x, channels=features), weights)


def _stage(a: Arguments, maps: Sequence[Map], multiple_of: int = 1) -> Layer:
    x, features = maps[0], a.features()
    hidden = a.hidden(features, 0.5, multiple_of)
    arguments = {
        "features": features,
        "num_blocks": a.blocks,
        "shortcut": a.flag("shortcut", True),
        "hidden": hidden,
        "groups": a.groups(hidden) if multiple_of == 1 else 1,
        "activation": a.activation(),
    }
    weights = 2 * hidden * (x.channels + features) + 10 * hidden**2 * a.blocks
    return Layer(arguments, dataclasses.replace(x, channels=features), weights)


def _normed_stage(a: Arguments, maps: Sequence[Map]) -> Layer:
    layer = _stage(a, maps)
    joint = {"joint_activation": a.about.csp_activation}
    return dataclasses.replace(layer, arguments={**layer.arguments, **joint})


def _by_four(a: Arguments, maps: Sequence[Map]) -> Layer:
    """A stage whose channels inside are halved twice, or parted among the heads."""
    return _stage(a, maps, _HEADS)


def _ghost_unit(a: Arguments, maps: Sequence[Map]) -> Layer:
    x, features = maps[0], a.features(2)
    size, stride = a.window("kernel", 1), a.integer("stride", 1)
    groups = a.groups(x.channels, features // 2)
    arguments = {
        "features": features,
        "kernel_size": size,
        "stride": stride,
        "groups": groups,
        "activation": a.activation(a.get("activation", True)),
    }
    weights = features // 2 * (x.channels // groups * size**2 + 25)
    return Layer(arguments, x.slid(features, size, stride, size // 2), weights)


def _ghost_bottleneck(a: Arguments, maps: Sequence[Map]) -> Layer:
    x, features = maps[0], a.features(4)
    size, stride = a.window("kernel", 3), a.integer("stride", 1, 1, 2)
    if stride == 1 and x.channels != features:
        raise ValueError(
            f"{a.where}: at stride 1 its input is added to what comes out; "
            f"{x.channels} channels come in and {features} go out"
        )
    arguments = {
        "features": features,
        "kernel_size": size,
        "stride": stride,
        "activation": a.activation(),
    }
    result = x.slid(features, size, stride, size // 2) if stride == 2 else x
    return Layer(arguments, result, features * (2 * x.channels + features))


def _parallel_pooling(a: Arguments, maps: Sequence[Map]) -> Layer:
    x, features = maps[0], a.features()
    sizes = a.get("kernels", [5, 9, 13])
    sizes = [sizes] if type(sizes) is int else sizes
    fits = isinstance(sizes, list) and 1 <= len(sizes) <= 16
    if not fits or not all(
        type(k) is int and k % 2 and 1 <= k <= MAX_WINDOW for k in sizes
    ):
        raise a.wrong("kernels", f"a list of odd numbers up to {MAX_WINDOW}")
    return _pooled(a, x, features, {"sizes": tuple(sizes)}, len(sizes) + 1)


def _chain_pooling(a: Arguments, maps: Sequence[Map]) -> Layer:
    features, size = a.features(), a.window("kernel", 5, odd=True)
    return _pooled(a, maps[0], features, {"size": size}, 4)


def _pooled(a: Arguments, x: Map, features: int, more: dict, parts: int) -> Layer:
    half = x.channels // 2
    if not half:
        raise ValueError(f"{a.where}: halves the channels; only {x.channels} come in")
    arguments = {"features": features, "activation": a.activation(), **more}
    weights = half * (x.channels + parts * features)
    return Layer(arguments, dataclasses.replace(x, channels=features), weights)


def _cross(a: Arguments, maps: Sequence[Map]) -> Layer:
    x, features = maps[0], a.features()
    size, stride = a.window("kernel", 3), a.integer("stride", 1)
    hidden = a.hidden(features, 1.0)
    shortcut = a.flag("shortcut", False)
    result = x.slid(features, size, stride, size // 2)
    if shortcut and x.channels == features and not x.same_place(result):
        raise ValueError(f"{a.where}: its input, {x}, cannot be added to {result}")
    arguments = {
        "features": features,
        "size": size,
        "stride": stride,
        "hidden": hidden,
        "groups": a.groups(hidden, features),
        "shortcut": shortcut,
        "activation": a.activation(),
    }
    return Layer(arguments, result, hidden * size * (x.channels + features))


def _concat(a: Arguments, maps: Sequence[Map]) -> Layer:
    a.integer("dimension", 1, 1, 1)
    if any(not x.same_place(maps[0]) for x in maps):
        raise ValueError(
            f"{a.where}: maps of different sizes cannot be put beside each other: "
            f"{'; '.join(map(str, maps))}"
        )
    channels = sum(x.channels for x in maps)
    return Layer({}, dataclasses.replace(maps[0], channels=channels))


def _upsample(a: Arguments, maps: Sequence[Map]) -> Layer:
    if a.get("size", None) is not None:
        raise a.wrong("size", "None")
    factor = number_in(a.get("factor"))
    if factor is None or factor not in range(1, 17):
        raise a.wrong("factor", "a whole number, 1 to 16")
    if a.get("mode", "nearest") != "nearest":
        raise a.wrong("mode", "'nearest'")
    x, scale = maps[0], int(factor)
    rows, columns = (extra * scale for extra in x.extra)
    return Layer({"scale": scale}, Map(x.channels, x.stride / scale, (rows, columns)))


def _plain_conv(a: Arguments, maps: Sequence[Map]) -> Layer:
    x, features = maps[0], a.features()
    size, stride = a.window("kernel"), a.integer("stride", 1)
    padding = a.integer("padding", 0, 0, MAX_WINDOW)
    a.integer("dilation", 1, 1, 1)
    groups = a.groups(x.channels, features)
    arguments = {
        "features": features,
        "kernel_size": size,
        "stride": stride,
        "padding": padding,
        "groups": groups,
        "use_bias": a.flag("bias", True),
    }
    weights = x.channels // groups * features * size**2
    return Layer(arguments, x.slid(features, size, stride, padding), weights)


def _norm(a: Arguments, maps: Sequence[Map]) -> Layer:
    return Layer({}, maps[0], maps[0].channels)


def _max_pool(a: Arguments, maps: Sequence[Map]) -> Layer:
    x, size = maps[0], a.window("kernel")
    stride = size
    if a.get("stride", None) is not None:
        stride = a.integer("stride")
    padding = a.integer("padding", 0, 0, size // 2)
    arguments = {"size": size, "stride": stride, "padding": padding}
    return Layer(arguments, x.slid(x.channels, size, stride, padding))


def _zero_pad(a: Arguments, maps: Sequence[Map]) -> Layer:
    x, widths = maps[0], a.get("widths")
    widths = [widths] * 4 if type(widths) is int else widths
    if (
        not isinstance(widths, list)
        or len(widths) != 4
        or not all(type(w) is int and 0 <= w <= MAX_WINDOW for w in widths)
    ):
        raise a.wrong("widths", "[left, right, top, bottom] in pixels")
    left, right, top, bottom = widths
    extra = (x.extra[0] + top + bottom, x.extra[1] + left + right)
    return Layer({"widths": tuple(widths)}, dataclasses.replace(x, extra=extra))


def _contract(a: Arguments, maps: Sequence[Map]) -> Layer:
    x, gain = maps[0], a.integer("gain", 2)
    if any(extra % gain for extra in x.extra):
        raise ValueError(f"{a.where}: {gain} does not divide the sides of {x}")
    rows, columns = (extra // gain for extra in x.extra)
    return Layer(
        {"gain": gain}, Map(x.channels * gain**2, x.stride * gain, (rows, columns))
    )


def _expand(a: Arguments, maps: Sequence[Map]) -> Layer:
    x, gain = maps[0], a.integer("gain", 2)
    if x.channels % gain**2:
        raise ValueError(
            f"{a.where}: {gain} x {gain} pixels do not part {x.channels} channels"
        )
    rows, columns = (extra * gain for extra in x.extra)
    result = Map(x.channels // gain**2, x.stride / gain, (rows, columns))
    return Layer({"gain": gain}, result)


_CONV = "channels kernel stride padding groups dilation activation"
_STAGE = "channels shortcut groups expansion"

MODULES: dict[str, Module] = {
    "Conv": Module(ConvUnit, _CONV, _conv),
    "Focus": Module(Focus, _CONV, _focus),
    "DWConv": Module(
        ConvUnit, "channels kernel stride dilation activation", _depthwise
    ),
    "Bottleneck": Module(Bottleneck, "channels shortcut groups expansion", _bottleneck),
    "BottleneckCSP": Module(NormedCspStage, _STAGE, _normed_stage, has_blocks=True),
    "C3": Module(CspStage, _STAGE, _stage, has_blocks=True),
    "C3TR": Module(AttentionCspStage, _STAGE, _by_four, has_blocks=True),
    "C3Ghost": Module(GhostCspStage, _STAGE, _by_four, has_blocks=True),
    "GhostConv": Module(
        GhostUnit, "channels kernel stride groups activation", _ghost_unit
    ),
    "GhostBottleneck": Module(
        GhostBottleneck, "channels kernel stride", _ghost_bottleneck
    ),
    "SPP": Module(ParallelPooling, "channels kernels", _parallel_pooling),
    "SPPF": Module(PyramidPooling, "channels kernel", _chain_pooling),
    "CrossConv": Module(
        CrossBlock, "channels kernel stride groups expansion shortcut", _cross
    ),
    "Concat": Module(Concat, "dimension", _concat, many=True),
    "nn.Upsample": Module(Upsample, "size factor mode", _upsample),
    "nn.Conv2d": Module(
        PlainConv, "channels kernel stride padding dilation groups bias", _plain_conv
    ),
    "nn.BatchNorm2d": Module(BatchNorm, "channels", _norm),
    "nn.MaxPool2d": Module(MaxPool, "kernel stride padding", _max_pool),
    "nn.ZeroPad2d": Module(ZeroPad, "widths", _zero_pad),
    "Contract": Module(Contract, "gain", _contract),
    "Expand": Module(Expand, "gain", _expand),
}
DETECT = "Detect"


def module_of(row: Row) -> str:
    """The name of a row's module, as in `MODULES`, or `Detect`.

    Raises:
        ValueError: there is no such module.
    """
    name = row.module.removeprefix("torch.")
    name = f"nn.{name}" if f"nn.{name}" in MODULES else name
    known = (*MODULES, DETECT)
    if name not in known:
        raise ValueError(
            f"{row.where}: no module named {name!r}.{hint(name, known)} "
            f"Choices: {', '.join(known)}"
        )
    return name
