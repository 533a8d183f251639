"""YOLOv3 and YOLOv4, and any detector that a Darknet `.cfg` describes.

The tables list the layers of the published networks in the order and by the numbers
of Darknet, so that published `.weights` files are in their order. Every convolution
is followed by batch normalisation, but for the raw maps of the head.

Sources: Redmon and Farhadi 2018, arXiv:1804.02767 (YOLOv3); Bochkovskiy et al. 2020,
arXiv:2004.10934 (YOLOv4: CSPDarknet-53, pyramid pooling, path aggregation, Mish); Wang
et al. 2020, arXiv:2011.08036 (YOLOv4-CSP and -tiny); He et al. 2014, arXiv:1406.4729
(pyramid pooling in YOLOv3-SPP).
"""

from __future__ import annotations

import dataclasses
from typing import Any

from yolojax.models.cfg import Section, parse_cfg, read_cfg
from yolojax.models.darknet_graph import DarknetSpec, changed_spec, darknet_spec
from yolojax.models.graph import graph_model, with_drop_path
from yolojax.models.model import Anchors, Model, check_common, checked_anchors

Layers = tuple[Section, ...]

_V3 = "10,13,16,30,33,23,30,61,62,45,59,119,116,90,156,198,373,326"
_V4 = "12,16,19,36,40,28,36,75,76,55,72,146,142,110,192,243,459,401"
_TINY = "10,14,23,27,37,58,81,82,135,169,344,319"


def _section(kind: str, **options: Any) -> Section:
    return Section(kind, {key: str(value) for key, value in options.items()})


def _conv(filters: int, size: int = 1, stride: int = 1, act: str = "leaky") -> Section:
    return _section(
        "convolutional",
        batch_normalize=1,
        filters=filters,
        size=size,
        stride=stride,
        pad=1,
        activation=act,
    )


def _pool(size: int, stride: int = 1) -> Section:
    return _section("maxpool", size=size, stride=stride)


def _route(*layers: int, **options: int) -> Section:
    return _section("route", layers=",".join(map(str, layers)), **options)


def _residuals(count: int, inner: int, outer: int, act: str = "leaky") -> Layers:
    """A 1x1 and a 3x3 convolution with the input added, `count` times."""
    add = _section("shortcut", **{"from": -3}, activation="linear")
    return (_conv(inner, act=act), _conv(outer, 3, act=act), add) * count


def _stage(filters: int, count: int) -> Layers:
    """Half as many pixels, then residuals: a stage of Darknet-53."""
    return (_conv(filters, 3, 2), *_residuals(count, filters // 2, filters))


def _csp(
    filters: int, count: int, half: int | None = None, inner: int | None = None
) -> Layers:
    """A stage of CSPDarknet-53: the residuals see one of two projections."""
    half = half or filters // 2
    point = _conv(half, act="mish")
    return (
        *(_conv(filters, 3, 2, "mish"), point, _route(-2), point),
        *_residuals(count, inner or half, half, "mish"),
        *(point, _route(-1, -3 * count - 4), _conv(filters, act="mish")),
    )


def _turns(filters: int, count: int) -> Layers:
    """`count` convolutions, in turn 1x1 to `filters` and 3x3 to twice as many."""
    return tuple(_conv(filters * (1 + i % 2), 1 + 2 * (i % 2)) for i in range(count))


def _up(filters: int, *layers: int, act: str = "leaky") -> Layers:
    """Narrower and twice as large, beside the named layers."""
    upsample = _section("upsample", stride=2)
    return (_conv(filters, act=act), upsample, _route(*layers))


def _up_pan(filters: int, layer: int, act: str = "leaky") -> Layers:
    """`_up`, beside an equally narrow projection of `layer`."""
    return (*_up(filters, layer, act=act), _conv(filters, act=act), _route(-1, -3))


def _tiny_csp(filters: int) -> Layers:
    """A stage of YOLOv4-tiny: half of the channels pass two convolutions."""
    half = _conv(filters // 2, 3)
    return (
        *(_conv(filters, 3), _route(-1, groups=2, group_id=1), half, half),
        *(_route(-1, -2), _conv(filters), _route(-6, -1), _pool(2, 2)),
    )


def _csp_neck(filters: int) -> Layers:
    """A stage of YOLOv4-CSP's neck: two bottlenecks beside a projection."""
    point, spatial = _conv(filters, act="mish"), _conv(filters, 3, act="mish")
    return (
        *(point, point, _route(-2), point, spatial, point, spatial),
        *(_route(-1, -6), point),
    )


def _head(anchors: str, mask: str, **options: Any) -> Layers:
    """A raw map for 80 classes, and how it is read."""
    act = "logistic" if options.get("new_coords") else "linear"
    count, num = mask.count(",") + 1, (anchors.count(",") + 1) // 2
    raw = {"size": 1, "stride": 1, "pad": 1, "filters": 85 * count, "activation": act}
    yolo = {"mask": mask, "anchors": anchors, "classes": 80, "num": num}
    return (
        _section("convolutional", **raw),
        _section("yolo", **yolo, ignore_thresh=0.7, truth_thresh=1, **options),
    )


def _head_v4(mask: str, scale: float) -> Layers:
    return _head(_V4, mask, scale_x_y=scale, iou_thresh=0.213, **_CIOU)


def _head_csp(mask: str, objectness: float) -> Layers:
    trained = {"iou_thresh": 0.2, "iou_loss": "ciou", "iou_normalizer": 0.05}
    gains = {"cls_normalizer": 0.5, "obj_normalizer": objectness}
    return _head(_V4, mask, scale_x_y=2.0, new_coords=1, **trained, **gains)


_CIOU = {"iou_loss": "ciou", "iou_normalizer": 0.07, "cls_normalizer": 1.0}

_DARKNET53 = (
    _conv(32, 3),
    *_stage(64, 1),
    *_stage(128, 2),
    *_stage(256, 8),  # up to layer 36
    *_stage(512, 8),  # up to layer 61
    *_stage(1024, 4),
)
_TOP_DOWN = (
    *(_conv(1024, 3), *_head(_V3, "6,7,8"), _route(-4), *_up(256, -1, 61)),
    *(*_turns(256, 5), _conv(512, 3), *_head(_V3, "3,4,5")),
    *(_route(-4), *_up(128, -1, 36)),
    *(*_turns(128, 5), _conv(256, 3), *_head(_V3, "0,1,2")),
)
_POOLS = (
    *(_pool(5), _route(-2), _pool(9), _route(-4), _pool(13)),
    _route(-1, -3, -5, -6),
)
_YOLOV3 = (*_DARKNET53, *_turns(512, 5), *_TOP_DOWN)
_YOLOV3_SPP = (*_DARKNET53, *_turns(512, 3), *_POOLS, *_turns(512, 3), *_TOP_DOWN)
_YOLOV3_TINY = (
    *(_conv(16, 3), _pool(2, 2), _conv(32, 3), _pool(2, 2), _conv(64, 3), _pool(2, 2)),
    *(_conv(128, 3), _pool(2, 2), _conv(256, 3), _pool(2, 2)),  # 8 is routed
    *(_conv(512, 3), _pool(2), _conv(1024, 3)),
    *(_conv(256), _conv(512, 3), *_head(_TINY, "3,4,5")),
    *(_route(-4), *_up(128, -1, 8), _conv(256, 3), *_head(_TINY, "0,1,2")),
)
_YOLOV4 = (
    _conv(32, 3, act="mish"),
    *_csp(64, 1, half=64, inner=32),
    *_csp(128, 2),
    *_csp(256, 8),  # up to layer 54
    *_csp(512, 8),  # up to layer 85
    *_csp(1024, 4),
    *(*_turns(512, 3), *_POOLS, *_turns(512, 3)),
    *(*_up_pan(256, 85), *_turns(256, 5)),
    *(*_up_pan(128, 54), *_turns(128, 5), _conv(256, 3), *_head_v4("0,1,2", 1.2)),
    *(_route(-4), _conv(256, 3, 2), _route(-1, -16)),
    *(*_turns(256, 5), _conv(512, 3), *_head_v4("3,4,5", 1.1)),
    *(_route(-4), _conv(512, 3, 2), _route(-1, -37)),
    *(*_turns(512, 5), _conv(1024, 3), *_head_v4("6,7,8", 1.05)),
)
_YOLOV4_TINY = (
    *(_conv(32, 3, 2), _conv(64, 3, 2)),
    *(*_tiny_csp(64), *_tiny_csp(128), *_tiny_csp(256)),  # 23 is routed
    *(_conv(512, 3), _conv(256), _conv(512, 3)),
    *_head(_TINY, "3,4,5", scale_x_y=1.05, **_CIOU),
    *(_route(-4), *_up(128, -1, 23), _conv(256, 3)),
    *_head(_TINY, "1,2,3", scale_x_y=1.05, **_CIOU),
)
_YOLOV4_CSP = (
    *(
        _conv(32, 3, act="mish"),
        _conv(64, 3, 2, "mish"),
        *_residuals(1, 32, 64, "mish"),
    ),
    *_csp(128, 2),
    *_csp(256, 8),  # up to layer 48
    *_csp(512, 8),  # up to layer 79
    *_csp(1024, 4),
    *(_conv(512, act="mish"), _route(-2)),
    *(_conv(512, act="mish"), _conv(512, 3, act="mish"), _conv(512, act="mish")),
    *(*_POOLS, _conv(512, act="mish"), _conv(512, 3, act="mish")),
    *(_route(-1, -13), _conv(512, act="mish")),
    *(*_up_pan(256, 79, "mish"), *_csp_neck(256)),
    *(*_up_pan(128, 48, "mish"), *_csp_neck(128)),
    *(_conv(256, 3, act="mish"), *_head_csp("0,1,2", 4.0)),
    *(_route(-4), _conv(256, 3, 2, "mish"), _route(-1, -20), *_csp_neck(256)),
    *(_conv(512, 3, act="mish"), *_head_csp("3,4,5", 1.0)),
    *(_route(-4), _conv(512, 3, 2, "mish"), _route(-1, -49), *_csp_neck(512)),
    *(_conv(1024, 3, act="mish"), *_head_csp("6,7,8", 0.4)),
)


@dataclasses.dataclass(frozen=True)
class DarknetTable:
    """A published network.

    Attributes:
        layers: its sections after `[net]`.
        side: height and width of the pictures that it is published for, in pixels.
    """

    layers: Layers
    side: int

    @property
    def sections(self) -> Layers:
        """Its description, as `cfg.parse_cfg` gives it."""
        net = _section("net", width=self.side, height=self.side, channels=3)
        return (net, *self.layers)


DARKNET = {
    "yolov3": DarknetTable(_YOLOV3, side=608),
    "yolov3-spp": DarknetTable(_YOLOV3_SPP, side=608),
    "yolov3-tiny": DarknetTable(_YOLOV3_TINY, side=416),
    "yolov4": DarknetTable(_YOLOV4, side=608),
    "yolov4-tiny": DarknetTable(_YOLOV4_TINY, side=416),
    "yolov4-csp": DarknetTable(_YOLOV4_CSP, side=512),
}


def build_darknet_table(
    name: str,
    *,
    num_classes: int,
    dtype: str = "float32",
    anchors: Anchors | None = None,
    drop_path: float = 0.0,
) -> Model:
    """A YOLOv3 or YOLOv4.

    Args:
        name: a line of the table `DARKNET`.
        num_classes: at least 1.
        dtype: of the computation; see `build_model`.
        anchors: (width, height) in pixels per anchor and level, finest level first,
            instead of the published ones; equally many on every level.
        drop_path: chance that the branch of the last shortcut is left out in
            training; that of those before grows linearly up to it.

    Raises:
        ValueError: no class, or an argument that does not fit.
    """
    check_common(name, num_classes=num_classes, dtype=dtype)
    spec = darknet_spec(DARKNET[name].sections)
    return _built(spec, name, num_classes, dtype, anchors, drop_path)


def build_darknet(
    name: str,
    *,
    num_classes: int,
    dtype: str = "float32",
    path: str = "",
    description: str = "",
    anchors: Anchors | None = None,
    drop_path: float = 0.0,
) -> Model:
    """The detector of a Darknet `.cfg`.

    Args:
        name: of the entry in `MODELS`.
        num_classes: at least 1; where the description has other classes, the head is
            made for these instead.
        dtype: of the computation; see `build_model`.
        path: the `.cfg` file; read where there is no `description`.
        description: its text.
        anchors: as in `build_darknet_table`, instead of the description's.
        drop_path: as in `build_darknet_table`.

    Raises:
        ValueError: no class, no description, or one that is not supported; the
            message names the line.
    """
    check_common(name, num_classes=num_classes, dtype=dtype)
    if not (path or description):
        raise ValueError(f"model {name!r} needs path, the file of its .cfg")
    text = description or read_cfg(path)
    try:
        spec = darknet_spec(parse_cfg(text))
    except ValueError as error:
        raise ValueError(f"{path or 'the description'}: {error}") from error
    return _built(spec, name, num_classes, dtype, anchors, drop_path)


def _built(
    spec: DarknetSpec,
    name: str,
    num_classes: int,
    dtype: str,
    anchors: Anchors | None,
    drop_path: float,
) -> Model:
    if anchors is not None:
        anchors = checked_anchors(anchors, name, num_levels=len(spec.strides))
    spec = changed_spec(spec, num_classes=num_classes, anchors=anchors)
    spec = with_drop_path(
        spec, drop_path, lambda node: int(node.kind == "shortcut"), name
    )
    return graph_model(spec, name=name, family="darknet", dtype=dtype)
