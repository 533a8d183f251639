"""What detectors and classifiers have in common: pure functions of their variables."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from yolojax.models.dropping import STREAM
from yolojax.models.initial import draw_variables
from yolojax.models.layers import BatchNorm, running_statistics

MAX_CLASSES = 1_000_000
DTYPES = ("float32", "bfloat16", "float16", "float64")


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Network:
    """Pure functions of the variables of a network.

    Variables are nested dicts with `params` and `batch_stats`; their paths are public
    and start with the part of the network.

    Attributes:
        name: as in the table of models.
        family: what its variables are called in published files goes by it.
        num_classes: classes that the head tells apart.
        max_stride: what heights and widths of pictures must be divisible by.
        feature_info: (channels, stride) of the maps that the head, or the neck of a
            detector, can see, finest first.
        dtype: of the computation; parameters and what comes out are float32 (float64
            comes out for float64).
        spec: what the network was built from.
        module: the network itself, opaque to the rest of the package.
        normalise: from pictures in [0, 1] to what the network takes; None: nothing.
        starts: see `initial.draw_variables`.
    """

    name: str
    family: str
    num_classes: int
    max_stride: int
    feature_info: tuple[tuple[int, int], ...]
    dtype: str
    spec: Any
    module: Any
    normalise: Callable[[jax.Array], jax.Array] | None = None
    starts: Mapping[str, float] | None = None

    @property
    def example_size(self) -> tuple[int, int]:
        """The (height, width) of pictures that show the shapes of all variables."""
        return (self.max_stride, self.max_stride)

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
            ValueError: `image_size` does not fit the network, or an unknown name in
                `kernels`.
        """
        if image_size is not None:
            self.check_size(image_size)
        shapes = self.shapes()
        return draw_variables(shapes, seed, kernels=kernels, starts=self.starts)

    def shapes(self) -> dict[str, Any]:
        """The variables as `jax.ShapeDtypeStruct`s; nothing is computed."""
        images = jax.ShapeDtypeStruct((1, *self.example_size, 3), "float32")
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
        """What the head says, and the batch statistics after it.

        Args:
            variables: `params` and `batch_stats`.
            images: float [b, h, w, 3] in [0, 1], of a size that fits the network.
            train: normalise by the batch and move the running statistics; otherwise
                use them and return them as they are.
            frozen: paths of normalisations, as `backbone/stem/norm`, that use their
                running statistics and leave them as they are in training, too.
            key: decides what a network that leaves parts out at random in training
                leaves out; without it nothing is.

        Returns:
            Of a detector maps float32 [b, h / stride, w / stride, a, 5 + c], finest
            first; of a classifier logits float32 [b, c], in training followed by those
            of its auxiliary heads. And `batch_stats` in the structure that came in.

        Raises:
            ValueError: not [b, h, w, 3], or a size that does not fit.
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

    def layer_paths(self) -> tuple[str, ...]:
        """The layers with parameters in the order that they are called in.

        A layer is a sub-module of a part, as `backbone/stem`.
        """
        order: dict[str, None] = {}

        def note(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
            if len(context.module.path) == 2:
                order.setdefault("/".join(context.module.path))
            return call(*args, **kwargs)

        with nn.intercept_methods(note):
            params = self.shapes()["params"]
        there = {f"{part}/{layer}" for part in params for layer in params[part]}
        return tuple(path for path in order if path in there)

    def norm_momenta(self) -> dict[str, float]:
        """The momentum of each batch normalisation, by its path."""
        found: dict[str, float] = {}

        def note(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
            if isinstance(context.module, BatchNorm):
                found["/".join(context.module.path)] = context.module.momentum
            return call(*args, **kwargs)

        with nn.intercept_methods(note):
            self.shapes()
        return found

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
        ValueError: no class or too many, or an unknown dtype.
    """
    if type(num_classes) is not int or num_classes < 1:
        raise ValueError(
            f"num_classes of {name} is {num_classes!r}; a network needs at least 1"
        )
    if num_classes > MAX_CLASSES:
        raise ValueError(
            f"num_classes of {name} is {num_classes:,}; at most {MAX_CLASSES:,} work"
        )
    if dtype not in DTYPES:
        raise ValueError(f"no dtype named {dtype!r}. Choices: {', '.join(DTYPES)}")
