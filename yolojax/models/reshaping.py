"""Layers of a description that have no parameters of their own, and repetition."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from yolojax.models.layers import Conv, ConvUnit, max_pool, upsample_nearest


class Concat(nn.Module):
    """Maps beside each other along the channels."""

    dtype: str = "float32"

    @nn.compact
    def __call__(self, *maps: jax.Array, train: bool) -> jax.Array:
        del train
        return jnp.concatenate([x.astype(self.dtype) for x in maps], axis=-1)


class Upsample(nn.Module):
    """Every pixel `scale` x `scale` times."""

    scale: int = 2
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        del train
        return upsample_nearest(x, self.scale)


class MaxPool(nn.Module):
    """The largest value of each window.

    Attributes:
        size: of the window.
        stride: step between windows.
        padding: pixels on every side that never win.
        dtype: of the computation.
    """

    size: int
    stride: int
    padding: int = 0
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        del train
        return max_pool(x, self.size, self.stride, (self.padding, self.padding))


class ZeroPad(nn.Module):
    """Zeros around the map.

    Attributes:
        widths: pixels at the left, right, top and bottom.
        dtype: of the computation.
    """

    widths: tuple[int, int, int, int]
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        del train
        left, right, top, bottom = self.widths
        return jnp.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)))


class Contract(nn.Module):
    """Every square of pixels as channels of one pixel.

    Channel `(dy * gain + dx) * c + i` is channel i of the pixel at (dy, dx) of the
    square.

    Attributes:
        gain: side of the square.
        dtype: of the computation.
    """

    gain: int = 2
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        del train
        (b, h, w, c), k = x.shape, self.gain
        x = x.reshape(b, h // k, k, w // k, k, c).transpose(0, 1, 3, 2, 4, 5)
        return x.reshape(b, h // k, w // k, k * k * c)


class Expand(nn.Module):
    """Channels as a square of pixels: the inverse of `Contract`."""

    gain: int = 2
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        del train
        (b, h, w, c), k = x.shape, self.gain
        x = x.reshape(b, h, w, k, k, c // k**2).transpose(0, 1, 3, 2, 4, 5)
        return x.reshape(b, h * k, w * k, c // k**2)


class Focus(nn.Module):
    """A unit over squares of 2 x 2 pixels taken as channels.

    The four pixels come in the published order: column by column.

    Attributes: as `ConvUnit`.

    Source: the stem of YOLOv5 v1.0 to v5.0.
    """

    features: int
    kernel_size: int = 1
    stride: int = 1
    padding: int | None = None
    groups: int = 1
    dtype: str = "float32"
    activation: str = "silu"

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        columns = (x[:, :, 0::2], x[:, :, 1::2])
        squares = [part[:, row::2] for part in columns for row in (0, 1)]
        unit = ConvUnit(
            self.features,
            self.kernel_size,
            self.stride,
            self.padding,
            self.dtype,
            self.groups,
            self.activation,
            name="unit",
        )
        return unit(jnp.concatenate(squares, axis=-1), train=train)


class PlainConv(nn.Module):
    """A convolution with nothing after it; attributes as those of `Conv`."""

    features: int
    kernel_size: int = 1
    stride: int = 1
    padding: int = 0
    groups: int = 1
    use_bias: bool = True
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        del train
        return Conv(
            self.features,
            self.kernel_size,
            self.stride,
            self.padding,
            self.dtype,
            self.groups,
            self.use_bias,
            name="conv",
        )(x)


class Repeat(nn.Module):
    """The same module several times in a row, each time with its own parameters.

    Attributes:
        module: the class.
        times: how often.
        arguments: of the module, besides `dtype` and `name`.
        dtype: of the computation.
        drop_path: the module's own, each time; none: its default.
    """

    module: type[nn.Module]
    times: int
    arguments: Mapping[str, Any]
    dtype: str = "float32"
    drop_path: tuple[float, ...] = ()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        for i in range(self.times):
            rate = {"drop_path": self.drop_path[i]} if self.drop_path else {}
            module: Any = self.module(
                **self.arguments, **rate, dtype=self.dtype, name=f"repeat{i}"
            )
            x = module(x, train=train)
        return x
