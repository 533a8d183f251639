"""Detectors by name: what the rest of the package sees of a network."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from yolojax.lookup import pick
from yolojax.models.initial import anchor_prior, draw_variables
from yolojax.models.specs import YOLOV5, CspSpec
from yolojax.models.yolov5 import Yolov5

Anchors = Sequence[Sequence[Sequence[float]]]

DTYPES = ("float32", "bfloat16", "float16", "float64")


@dataclasses.dataclass(frozen=True, eq=False)
class Model:
    """A detector: pure functions of its variables, and what a loss must know.

    Variables are nested dicts with `params` and `batch_stats`; their paths are public
    and start with `backbone`, `neck` and `head`.

    Attributes:
        name: as in `MODELS`.
        num_classes: classes that the head tells apart.
        strides: pixels per cell of every level, finest first.
        anchors: float32 [levels, a, 2], (width, height) in pixels.
        max_stride: what heights and widths of pictures must be divisible by.
        feature_info: (channels, stride) of the maps that the head sees.
        dtype: of the computation; parameters and raw maps are float32 (float64 maps
            for float64).
        spec: the line of the table that the network was built from.
        module: the network itself, opaque to the rest of the package.
    """

    name: str
    num_classes: int
    strides: tuple[int, ...]
    anchors: np.ndarray
    max_stride: int
    feature_info: tuple[tuple[int, int], ...]
    dtype: str
    spec: CspSpec
    module: Any

    def init(
        self, seed: int, image_size: tuple[int, int] | None = None
    ) -> dict[str, Any]:
        """First variables, NumPy float32, a function of `seed` and each path.

        Args:
            seed: any integer.
            image_size: (height, width) to check against the strides; the values do
                not depend on it.

        Raises:
            ValueError: `image_size` is not divisible by `max_stride`.
        """
        if image_size is not None:
            self.check_size(image_size)
        variables = draw_variables(self.shapes(), seed)
        head = variables["params"]["head"]
        for stride, row in zip(self.strides, self.anchors, strict=True):
            level = head[f"level{stride.bit_length() - 1}"]
            level["bias"] += anchor_prior(self.num_classes, stride, len(row))
        return variables

    def shapes(self) -> dict[str, Any]:
        """The variables as `jax.ShapeDtypeStruct`s; nothing is computed."""
        images = jax.ShapeDtypeStruct(
            (1, self.max_stride, self.max_stride, 3), "float32"
        )
        start = functools.partial(self.module.init, train=False)
        tree = jax.eval_shape(start, jax.random.key(0), images)
        return {"params": tree["params"], "batch_stats": tree["batch_stats"]}

    def apply(
        self, variables: Mapping[str, Any], images: jax.Array, *, train: bool
    ) -> tuple[tuple[jax.Array, ...], Any]:
        """Raw maps of every level, and the batch statistics after it.

        Args:
            variables: `params` and `batch_stats`.
            images: float [b, h, w, 3] in [0, 1]; h and w divisible by `max_stride`.
            train: normalise by the batch and move the running statistics; otherwise
                use them and return them as they are.

        Returns:
            Maps float32 [b, h / stride, w / stride, a, 5 + c], finest first, and
            `batch_stats` in the same structure as came in.

        Raises:
            ValueError: not [b, h, w, 3], or a size is not divisible by `max_stride`.
        """
        if images.ndim != 4 or images.shape[-1] != 3:
            raise ValueError(f"images must be [b, h, w, 3]; got {list(images.shape)}")
        self.check_size(images.shape[1:3])
        variables = {k: variables[k] for k in ("params", "batch_stats")}
        images = images.astype(jnp.dtype(self.dtype))
        if not train:
            maps = self.module.apply(variables, images, train=False)
            return maps, variables["batch_stats"]
        maps, changed = self.module.apply(
            variables, images, train=True, mutable=["batch_stats"]
        )
        return maps, changed["batch_stats"]

    def check_size(self, image_size: Sequence[int]) -> None:
        """Check that (height, width) fit the strides.

        Raises:
            ValueError: they do not; the message names sizes that do.
        """
        if any(side < 1 or side % self.max_stride for side in image_size):
            lower = [max(s // self.max_stride, 1) * self.max_stride for s in image_size]
            upper = [
                -(-max(s, 1) // self.max_stride) * self.max_stride for s in image_size
            ]
            near = " or ".join(dict.fromkeys(f"({h}, {w})" for h, w in (lower, upper)))
            raise ValueError(
                f"image size (height, width) {tuple(image_size)} is not divisible by "
                f"{self.max_stride}, the largest stride of {self.name}; take {near}"
            )


def build_yolov5(
    spec: CspSpec, name: str, *, num_classes: int, dtype: str = "float32"
) -> Model:
    """The detector of a spec; see `build_model`."""
    levels = len(spec.anchors)
    return Model(
        name=name,
        num_classes=num_classes,
        strides=spec.strides,
        anchors=np.asarray(spec.anchors, np.float32),
        max_stride=spec.strides[-1],
        feature_info=tuple(
            zip(spec.stage_features[-levels:], spec.strides, strict=True)
        ),
        dtype=dtype,
        spec=spec,
        module=Yolov5(spec, num_classes, dtype),
    )


# Name -> (spec, builder of the family).
MODELS: dict[str, tuple[CspSpec, Callable[..., Model]]] = {
    name: (spec, build_yolov5) for name, spec in YOLOV5.items()
}


def build_model(
    name: str,
    *,
    num_classes: int,
    dtype: str = "float32",
    anchors: Anchors | None = None,
    width: float | None = None,
    depth: float | None = None,
) -> Model:
    """The detector called `name`.

    Args:
        name: an entry of `MODELS`.
        num_classes: at least 1.
        dtype: of the computation: `float32`, `bfloat16`, `float16` or `float64`.
        anchors: (width, height) in pixels per anchor and level, finest level first,
            instead of the published ones; equally many on every level.
        width: multiple of the channels instead of the published one.
        depth: multiple of the numbers of blocks instead of the published one.

    Raises:
        ValueError: an unknown name or dtype, no class, or anchors that do not fit.
    """
    spec, build = pick(MODELS, name, "model")
    if num_classes < 1:
        raise ValueError(f"num_classes is {num_classes}; a detector needs at least 1")
    if dtype not in DTYPES:
        raise ValueError(f"no dtype named {dtype!r}. Choices: {', '.join(DTYPES)}")
    changes: dict[str, Any] = {}
    for key, value in (("width", width), ("depth", depth)):
        if value is not None:
            if value <= 0:
                raise ValueError(f"{key} of {name} is {value}; it must be above 0")
            changes[key] = value
    if anchors is not None:
        changes["anchors"] = _checked_anchors(anchors, spec, name)
    spec = dataclasses.replace(spec, **changes)
    return build(spec, name, num_classes=num_classes, dtype=dtype)


def _checked_anchors(
    anchors: Anchors, spec: CspSpec, name: str
) -> tuple[tuple[tuple[float, float], ...], ...]:
    rule = (
        f"{len(spec.anchors)} levels of equally many (width, height) pairs above 0, "
        f"in pixels"
    )
    error = ValueError(f"anchors of {name} must be {rule}; got {anchors!r}")
    sizes = {len(level) for level in anchors}
    pairs = [tuple(pair) for level in anchors for pair in level]
    fits = len(anchors) == len(spec.anchors) and len(sizes) == 1 and sizes != {0}
    if not fits or any(len(pair) != 2 for pair in pairs):
        raise error
    if not all(math.isfinite(side) and side > 0 for pair in pairs for side in pair):
        raise error
    return tuple(tuple((float(w), float(h)) for w, h in level) for level in anchors)
