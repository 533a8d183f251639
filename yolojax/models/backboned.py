"""YOLO detectors with any classifier as their backbone.

The backbone's maps of strides 8, 16 and 32 go through the neck and the head of YOLOv5
v6.0 (see `yolov5`), whose channels and blocks `width` and `depth` decide. Parameter
paths are those of the classifier, `backbone/...`, and of a YOLOv5's `neck/...` and
`head/...`, so that a classifier's weights fit the backbone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from yolojax.lookup import check_arguments, pick
from yolojax.models.classifier import Classifier
from yolojax.models.classifiers import CLASSIFIERS, build_classifier
from yolojax.models.dropping import Dropout, check_rate
from yolojax.models.model import Anchors, Model, check_common, checked_anchors
from yolojax.models.specs import CspSpec, check_multiple
from yolojax.models.yolov5 import AnchorHead, PathAggregation
from yolojax.ops.grid import Decoding

STRIDES = (8, 16, 32)


@dataclasses.dataclass(frozen=True)
class BackbonedSpec:
    """A classifier's backbone, and what follows it.

    Attributes:
        backbone: name of the classifier.
        arguments: what it is built with besides `num_classes` and `dtype`.
        maps: which of the backbone's maps are used, finest first.
        neck: of the neck and the head; its own backbone is not used.
    """

    backbone: str
    arguments: Mapping[str, Any]
    maps: tuple[int, ...]
    neck: CspSpec

    @property
    def width(self) -> float:
        """Multiple of the channels of the neck."""
        return self.neck.width

    @property
    def depth(self) -> float:
        """Multiple of the numbers of blocks of the neck."""
        return self.neck.depth


class Backboned(nn.Module):
    """The whole network: pictures [b, h, w, 3] to raw maps per level."""

    backbone: nn.Module
    spec: BackbonedSpec
    num_classes: int
    dtype: str = "float32"
    dropout: float = 0.0

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> tuple[jax.Array, ...]:
        found = self.backbone(images, train=train)  # type: ignore[operator]
        maps = tuple(found[index] for index in self.spec.maps)
        neck = PathAggregation(self.spec.neck, self.dtype, name="neck")
        maps = tuple(
            Dropout(self.dropout, name=f"dropout{index}")(x, train=train)
            for index, x in enumerate(neck(maps, train=train))
        )
        head = AnchorHead(self.spec.neck, self.num_classes, self.dtype, name="head")
        return head(maps)


def build_backboned(
    name: str,
    *,
    num_classes: int,
    backbone: str = "",
    dtype: str = "float32",
    anchors: Anchors | None = None,
    width: float = 0.5,
    depth: float = 0.33,
    dropout: float = 0.0,
    backbone_arguments: Mapping[str, Any] | None = None,
) -> Model:
    """A YOLO with a classifier's backbone.

    Args:
        name: of the entry in `MODELS`.
        num_classes: at least 1.
        backbone: a name in `CLASSIFIERS`.
        dtype: of the computation; see `build_model`.
        anchors: (width, height) in pixels per anchor for strides 8, 16 and 32 instead
            of the published ones of YOLOv5; equally many on every level.
        width: multiple of the channels of the neck: 256, 512 and 1024 at 1.
        depth: multiple of the numbers of blocks of the neck, 3 at 1.
        dropout: chance of each number that the head sees to be left out in training.
        backbone_arguments: of the classifier's builder, as `dict(activation="silu")`.

    Raises:
        ValueError: no class, no such backbone, one that has not the maps that are
            needed, or an argument that does not fit.
    """
    check_common(name, num_classes=num_classes, dtype=dtype)
    check_rate(dropout, f"dropout of {name}")
    check_multiple(width, f"width of {name}")
    check_multiple(depth, f"depth of {name}")
    arguments = dict(backbone_arguments or {})
    classifier = _classifier(name, backbone, arguments, dtype)
    spec = CspSpec(depth, width)
    if anchors is not None:
        given = checked_anchors(anchors, name, num_levels=len(STRIDES))
        spec = dataclasses.replace(spec, anchors=given)
    maps = _maps(classifier)
    sizes = np.asarray(spec.anchors, np.float32)
    whole = BackbonedSpec(backbone, arguments, maps, spec)
    return Model(
        name=name,
        family="backbone",
        num_classes=num_classes,
        strides=STRIDES,
        anchors=sizes,
        priors=sizes.reshape(-1, 2),
        decoding=Decoding("square", (2.0,) * len(STRIDES)),
        levels=tuple(f"level{stride.bit_length() - 1}" for stride in STRIDES),
        max_stride=STRIDES[-1],
        feature_info=tuple(classifier.feature_info[index] for index in maps),
        dtype=dtype,
        spec=whole,
        module=Backboned(
            classifier.backbone, whole, num_classes, dtype, float(dropout)
        ),
        starts=classifier.starts,
    )


def _classifier(
    name: str, backbone: str, arguments: Mapping[str, Any], dtype: str
) -> Classifier:
    """The classifier whose backbone is taken."""
    if not backbone:
        raise ValueError(
            f"model {name!r} needs backbone, the name of a classifier: "
            f"{', '.join(sorted(CLASSIFIERS))}"
        )
    where = f"backbone_arguments of {name}"
    build = pick(CLASSIFIERS, backbone, "backbone")
    for key in ("num_classes", "dtype", "normalise"):
        if key in arguments:
            raise ValueError(f"{where} has {key}, which is an argument of {name}")
    check_arguments(build, {"num_classes": 1, **arguments}, where)
    return build_classifier(backbone, num_classes=1, dtype=dtype, **arguments)


def _maps(classifier: Classifier) -> tuple[int, ...]:
    """Which maps have the strides of the levels.

    Raises:
        ValueError: there are none, or their sizes are not those of the pictures over
            the strides.
    """
    strides = [stride for _, stride in classifier.feature_info]
    missing = [stride for stride in STRIDES if stride not in strides]
    if missing:
        raise ValueError(
            f"{classifier.name} cannot be a detector's backbone: it has maps of "
            f"strides {', '.join(map(str, strides))}, and none of "
            f"{', '.join(map(str, missing))}"
        )
    # The last of a stride has seen most.
    last = {stride: index for index, stride in enumerate(strides)}
    side = -(-classifier.smallest // STRIDES[-1]) * STRIDES[-1]
    images = jax.ShapeDtypeStruct((1, side, side, 3), "float32")

    def run(images: jax.Array) -> Any:
        key = jax.random.key(0)
        return classifier.backbone.init_with_output(key, images, train=False)[0]

    shapes = jax.eval_shape(run, images)
    for stride in STRIDES:
        height = shapes[last[stride]].shape[1]
        if height * stride != side:
            raise ValueError(
                f"{classifier.name} cannot be a detector's backbone: of {side} px its "
                f"map of stride {stride} has {height} rows, not {side // stride}, as "
                f"it does not pad all of its windows"
            )
    return tuple(last[stride] for stride in STRIDES)
