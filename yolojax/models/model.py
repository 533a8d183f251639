"""What the rest of the package sees of a detector's network."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from yolojax.models.dropping import STREAM
from yolojax.models.initial import anchor_prior, draw_variables
from yolojax.models.layers import running_statistics
from yolojax.ops.grid import Decoding, decode_maps

Anchors = Sequence[Sequence[Sequence[float]]]

DTYPES = ("float32", "bfloat16", "float16", "float64")


@dataclasses.dataclass(frozen=True, eq=False)
class Model:
    """A detector: pure functions of its variables, and what a loss must know.

    Variables are nested dicts with `params` and `batch_stats`; their paths are public
    and start with the part of the network: `backbone`, `neck` and `head`, or, where a
    Darknet description makes no such difference, `body` and `head`.

    Attributes:
        name: as in `MODELS`.
        family: what its variables are called in published files goes by it: `yolov5`,
            `yaml` or `darknet`.
        num_classes: classes that the head tells apart.
        strides: pixels per cell of every level, finest first.
        anchors: float32 [levels, a, 2], (width, height) in pixels.
        priors: float32 [p, 2], all anchors that boxes are compared with, also those
            that no level uses.
        decoding: how raw maps become boxes.
        levels: names of the head's layers, finest first.
        max_stride: what heights and widths of pictures must be divisible by.
        feature_info: (channels, stride) of the maps that the head sees.
        dtype: of the computation; parameters and raw maps are float32 (float64 maps
            for float64).
        spec: what the network was built from.
        module: the network itself, opaque to the rest of the package.
        normalise: from pictures in [0, 1] to what the network takes; None: nothing.
    """

    name: str
    family: str
    num_classes: int
    strides: tuple[int, ...]
    anchors: np.ndarray
    priors: np.ndarray
    decoding: Decoding
    levels: tuple[str, ...]
    max_stride: int
    feature_info: tuple[tuple[int, int], ...]
    dtype: str
    spec: Any
    module: Any
    normalise: Callable[[jax.Array], jax.Array] | None = None

    def init(
        self,
        seed: int,
        image_size: tuple[int, int] | None = None,
        *,
        kernels: str = "",
    ) -> dict[str, Any]:
        """First variables, NumPy float32, a function of `seed` and each path.

        Args:
            seed: any integer.
            image_size: (height, width) to check against the strides; the values do
                not depend on it.
            kernels: see `initial.draw_variables`.

        Raises:
            ValueError: `image_size` is not divisible by `max_stride`, or an unknown
                name in `kernels`.
        """
        if image_size is not None:
            self.check_size(image_size)
        variables = draw_variables(self.shapes(), seed, kernels=kernels)
        head = variables["params"]["head"]
        rows = zip(self.levels, self.strides, self.anchors, strict=True)
        for level, stride, anchors in rows:
            prior = anchor_prior(self.num_classes, stride, len(anchors))
            head[level]["bias"] += prior
        return variables

    def shapes(self) -> dict[str, Any]:
        """The variables as `jax.ShapeDtypeStruct`s; nothing is computed."""
        images = jax.ShapeDtypeStruct(
            (1, self.max_stride, self.max_stride, 3), "float32"
        )
        start = functools.partial(self.module.init, train=False)
        tree = jax.eval_shape(start, jax.random.key(0), images)
        return {"params": tree["params"], "batch_stats": tree.get("batch_stats", {})}

    def apply(
        self,
        variables: Mapping[str, Any],
        images: jax.Array,
        *,
        train: bool,
        frozen: Collection[str] = (),
        key: jax.Array | None = None,
    ) -> tuple[tuple[jax.Array, ...], Any]:
        """Raw maps of every level, and the batch statistics after it.

        Args:
            variables: `params` and `batch_stats`.
            images: float [b, h, w, 3] in [0, 1]; h and w divisible by `max_stride`.
            train: normalise by the batch and move the running statistics; otherwise
                use them and return them as they are.
            frozen: paths of normalisations, as `backbone/stem/norm`, that use their
                running statistics and leave them as they are in training, too.
            key: decides what a network that leaves parts out at random in training
                leaves out; without it nothing is.

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
        if self.normalise is not None:
            images = self.normalise(images)
        images = images.astype(jnp.dtype(self.dtype))
        if not train:
            maps = self.module.apply(variables, images, train=False)
            return maps, variables["batch_stats"]
        with running_statistics(frozen):
            maps, changed = self.module.apply(
                variables,
                images,
                train=True,
                mutable=["batch_stats"],
                rngs=None if key is None else {STREAM: key},
            )
        return maps, changed.get("batch_stats", {})

    def decode(
        self, maps: Sequence[jax.Array]
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Boxes, objectness and class probabilities; see `ops.grid.decode_maps`."""
        return decode_maps(
            maps, anchors=self.anchors, strides=self.strides, decoding=self.decoding
        )

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


def check_common(name: str, *, num_classes: int, dtype: str) -> None:
    """Check what every family takes.

    Raises:
        ValueError: no class, or an unknown dtype.
    """
    if num_classes < 1:
        raise ValueError(
            f"num_classes of {name} is {num_classes}; a detector needs at least 1"
        )
    if dtype not in DTYPES:
        raise ValueError(f"no dtype named {dtype!r}. Choices: {', '.join(DTYPES)}")


def checked_anchors(
    anchors: Anchors, name: str, *, num_levels: int
) -> tuple[tuple[tuple[float, float], ...], ...]:
    """Anchors as tuples of (width, height) in pixels, a row per level.

    Raises:
        ValueError: another number of levels, not equally many on each, or a side that
            is not above 0.
    """
    error = ValueError(
        f"anchors of {name} must be {num_levels} levels of equally many "
        f"(width, height) pairs above 0, in pixels; got {anchors!r}"
    )
    sizes = {len(level) for level in anchors}
    pairs = [tuple(pair) for level in anchors for pair in level]
    fits = len(anchors) == num_levels and len(sizes) == 1 and sizes != {0}
    if not fits or any(len(pair) != 2 for pair in pairs):
        raise error
    if not all(math.isfinite(side) and side > 0 for pair in pairs for side in pair):
        raise error
    return tuple(tuple((float(w), float(h)) for w, h in level) for level in anchors)
