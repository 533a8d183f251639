"""Detectors by name."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from yolojax.lookup import check_arguments, pick
from yolojax.models.backboned import build_backboned
from yolojax.models.darknet import DARKNET, build_darknet, build_darknet_table
from yolojax.models.described import build_described
from yolojax.models.dropping import check_rate
from yolojax.models.model import Anchors, Model, check_common, checked_anchors
from yolojax.models.normalised import normalised
from yolojax.models.specs import YOLOV5, CspSpec, check_multiple
from yolojax.models.yolov5 import Yolov5
from yolojax.ops.grid import Decoding


def build_yolov5(
    name: str,
    *,
    num_classes: int,
    dtype: str = "float32",
    anchors: Anchors | None = None,
    width: float | None = None,
    depth: float | None = None,
    drop_path: float = 0.0,
    dropout: float = 0.0,
) -> Model:
    """A YOLOv5 v6.0.

    Args:
        name: a line of the table `YOLOV5`.
        num_classes: at least 1.
        dtype: of the computation: `float32`, `bfloat16`, `float16` or `float64`.
        anchors: (width, height) in pixels per anchor and level, finest level first,
            instead of the published ones; equally many on every level.
        width: multiple of the channels instead of the published one.
        depth: multiple of the numbers of blocks instead of the published one.
        drop_path: chance that the backbone's last block with a shortcut is left out
            in training; that of earlier ones grows up to it.
        dropout: chance of each number that the head sees to be left out in training.

    Raises:
        ValueError: no class, or an argument that does not fit.
    """
    check_common(name, num_classes=num_classes, dtype=dtype)
    check_rate(drop_path, f"drop_path of {name}")
    check_rate(dropout, f"dropout of {name}")
    spec = _changed(YOLOV5[name], name, anchors=anchors, width=width, depth=depth)
    levels = len(spec.anchors)
    sizes = np.asarray(spec.anchors, np.float32)
    features = spec.stage_features[-levels:]
    return Model(
        name=name,
        family="yolov5",
        num_classes=num_classes,
        strides=spec.strides,
        anchors=sizes,
        priors=sizes.reshape(-1, 2),
        decoding=Decoding("square", (2.0,) * levels),
        levels=tuple(f"level{stride.bit_length() - 1}" for stride in spec.strides),
        max_stride=spec.strides[-1],
        feature_info=tuple(zip(features, spec.strides, strict=True)),
        dtype=dtype,
        spec=spec,
        module=Yolov5(spec, num_classes, dtype, float(drop_path), float(dropout)),
    )


# Name -> builder; its keyword arguments are those of `config.model`.
MODELS: dict[str, Callable[..., Model]] = {
    **{name: functools.partial(build_yolov5, name) for name in YOLOV5},
    **{name: functools.partial(build_darknet_table, name) for name in DARKNET},
    "darknet": functools.partial(build_darknet, "darknet"),
    "yaml": functools.partial(build_described, "yaml"),
    "yolo": functools.partial(build_backboned, "yolo"),
}


def build_model(
    name: str, *, normalise: str | Mapping[str, Any] = "unit", **arguments: Any
) -> Model:
    """The detector called `name`.

    Args:
        name: an entry of `MODELS`.
        normalise: see `normalised`.
        **arguments: of the entry's builder; all take `num_classes`, at least 1, and
            `dtype`.

    Raises:
        ValueError: an unknown name or argument, or one that does not fit.
    """
    build = pick(MODELS, name, "model")
    check_arguments(build, arguments, f"model {name!r}")
    return normalised(build(**arguments), normalise)


def _changed(
    spec: CspSpec,
    name: str,
    *,
    anchors: Anchors | None,
    width: float | None,
    depth: float | None,
) -> CspSpec:
    changes: dict[str, Any] = {}
    for key, value in (("width", width), ("depth", depth)):
        if value is not None:
            check_multiple(value, f"{key} of {name}")
            changes[key] = value
    if anchors is not None:
        changes["anchors"] = checked_anchors(
            anchors, name, num_levels=len(spec.anchors)
        )
    return dataclasses.replace(spec, **changes)
