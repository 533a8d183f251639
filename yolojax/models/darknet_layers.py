"""The layers of a Darknet network, as modules `module(*maps, train=train)`.

Normalisation follows Darknet: running statistics move by 0.01, and an epsilon of 1e-6
is added to the variance. Darknet's first version adds it to the root instead, and
later ones take 1e-5; files are read the same way with 1e-6 by OpenCV, whose outputs
ours are compared with.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from yolojax.models.dropping import DropPath
from yolojax.models.graph import AnchorMap
from yolojax.models.layers import (
    Conv,
    ConvUnit,
    activate,
    max_pool,
    upsample_nearest,
    wide_dtype,
)

EPSILON = 1e-6
MOMENTUM = 0.01


class BiasedUnit(nn.Module):
    """Convolution with bias and activation, without normalisation.

    Attributes: as `ConvUnit`.
    """

    features: int
    kernel_size: int = 1
    stride: int = 1
    padding: int = 0
    groups: int = 1
    activation: str = "linear"
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        del train
        conv = Conv(
            self.features,
            self.kernel_size,
            self.stride,
            self.padding,
            self.dtype,
            self.groups,
            use_bias=True,
            name="conv",
        )
        return activate(conv(x), self.activation)


class MaxPool(nn.Module):
    """The largest value of windows; pixels outside the map never win.

    Attributes:
        size: of the window, in pixels.
        stride: from window to window.
        padding: pixels around the map, of both sides together; the lower half of them
            is at the top and on the left, and an odd one is at the bottom and on the
            right.
        dtype: not used.
    """

    size: int
    stride: int = 1
    padding: int = 0
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        del train
        before = self.padding // 2
        return max_pool(x, self.size, self.stride, (before, self.padding - before))


class Route(nn.Module):
    """Maps side by side; of each only one group of its channels.

    Attributes:
        groups: parts that the channels of each map are divided into.
        group: which part is taken.
        dtype: not used.
    """

    groups: int = 1
    group: int = 0
    dtype: str = "float32"

    @nn.compact
    def __call__(self, *maps: jax.Array, train: bool) -> jax.Array:
        del train
        parts = (jnp.split(x, self.groups, axis=-1)[self.group] for x in maps)
        return jnp.concatenate(tuple(parts), axis=-1)


class Shortcut(nn.Module):
    """The activation of the sum of maps of one shape.

    Attributes:
        activation: see `layers.activate`.
        dtype: not used.
        drop_path: see `dropping.DropPath`; of the first map, that of the layer before.
    """

    activation: str = "linear"
    dtype: str = "float32"
    drop_path: float = 0.0

    @nn.compact
    def __call__(self, *maps: jax.Array, train: bool) -> jax.Array:
        total = DropPath(self.drop_path, name="drop_path")(maps[0], train=train)
        for other in maps[1:]:
            total = total + other
        return activate(total, self.activation)


class Upsample(nn.Module):
    """Every pixel `stride` x `stride` times.

    Attributes:
        stride: how many times in each direction.
        dtype: not used.
    """

    stride: int = 2
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        del train
        return upsample_nearest(x, self.stride)


class AveragePool(nn.Module):
    """The mean of every channel, [b, 1, 1, c].

    Attributes:
        dtype: of what comes out; the sum is taken in float32 at least.
    """

    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        del train
        wide = x.astype(wide_dtype(self.dtype))
        return jnp.mean(wide, axis=(1, 2), keepdims=True).astype(x.dtype)


class Softmax(nn.Module):
    """Shares of the channels of every pixel.

    Attributes:
        dtype: not used.
    """

    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        del train
        return nn.softmax(x, axis=-1)


# From a node's kind to its module: what a section becomes.
KINDS: dict[str, type[nn.Module]] = {
    "convolutional": ConvUnit,
    "biased": BiasedUnit,
    "maxpool": MaxPool,
    "route": Route,
    "shortcut": Shortcut,
    "upsample": Upsample,
    "avgpool": AveragePool,
    "softmax": Softmax,
    "yolo": AnchorMap,
}
