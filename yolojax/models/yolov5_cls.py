"""YOLOv5-cls: the backbone of YOLOv5 v6.0 as a classifier.

Source: the published models of release 6.2 (August 2022, Jocher et al.,
doi:10.5281/zenodo.3908559), from their layer lists: the backbone without pyramid
pooling, a 1x1 unit to 1280 channels, the mean, and one linear layer. Worked out from
these, there are 2,493,000; 5,453,480; 12,957,640; 26,552,680 and 48,097,160 parameters
at 1000 classes. The published 2.5, 5.4, 12.9, 26.5 and 48.1 million are those with
normalisation folded into the convolutions, where each channel has one number less:
2,489,464; 5,447,688; 12,947,192; 26,535,976 and 48,072,600.

Departures: none in the mathematics. Any size of 2 px and more works: the stem rounds
half a side down, the other steps round up.
"""

from __future__ import annotations

import dataclasses

from yolojax.models.classifier import BackboneAndHead, Classifier
from yolojax.models.dropping import check_rate
from yolojax.models.heads import ConvHead
from yolojax.models.layers import NORM_EPSILON, NORM_MOMENTUM
from yolojax.models.network import check_common
from yolojax.models.specs import YOLOV5, check_multiple
from yolojax.models.yolov5 import Backbone

# Name -> the detector's specification.
YOLOV5_CLS = {f"yolov5{size}-cls": YOLOV5[f"yolov5{size}"] for size in "nsmlx"}

_FEATURES = 1280


def build_yolov5_cls(
    name: str,
    *,
    num_classes: int,
    dtype: str = "float32",
    activation: str = "silu",
    dropout: float = 0.0,
    drop_path: float = 0.0,
    width: float | None = None,
    depth: float | None = None,
) -> Classifier:
    """A network of the table `YOLOV5_CLS`.

    Args:
        name: a line of the table.
        num_classes: at least 1.
        dtype: of the computation.
        activation: see `layers.activate`.
        dropout: before the last layer.
        drop_path: chance that the last block with a shortcut is left out in training;
            that of earlier ones grows up to it.
        width: multiple of the channels of the backbone instead of the published one.
        depth: multiple of the numbers of blocks instead of the published one.

    Raises:
        ValueError: something out of range.
    """
    check_common(name, num_classes=num_classes, dtype=dtype)
    check_rate(dropout, f"dropout of {name}")
    check_rate(drop_path, f"drop_path of {name}")
    changes = {"width": width, "depth": depth}
    changes = {key: value for key, value in changes.items() if value is not None}
    for key, value in changes.items():
        check_multiple(value, f"{key} of {name}")
    spec = dataclasses.replace(YOLOV5_CLS[name], **changes)
    backbone = Backbone(
        spec, dtype, float(drop_path), pooled=False, activation=activation
    )
    head = ConvHead(
        num_classes,
        _FEATURES,
        dropout=float(dropout),
        activation=activation,
        dtype=dtype,
        epsilon=NORM_EPSILON,
        momentum=NORM_MOMENTUM,
    )
    features = spec.stage_features[-len(spec.strides) :]
    return Classifier(
        name=name,
        family="yolov5-cls",
        num_classes=num_classes,
        max_stride=1,
        feature_info=tuple(zip(features, spec.strides, strict=True)),
        dtype=dtype,
        spec=spec,
        module=BackboneAndHead(backbone, head),
        backbone=backbone,
        smallest=2,
    )
