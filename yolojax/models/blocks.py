"""Blocks of the CSP family: bottlenecks, CSP stages and pyramid pooling."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from yolojax.models.layers import ConvUnit, max_pool_same


class Bottleneck(nn.Module):
    """A 1x1 and a 3x3 unit, with the input added where `shortcut` says so.

    Attributes:
        features: channels in and out.
        shortcut: whether to add the input.
        dtype: of the computation.

    Source: He et al. 2016, arXiv:1512.03385, section 3; here without the expansion.
    """

    features: int
    shortcut: bool = True
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        y = ConvUnit(self.features, dtype=self.dtype, name="point")(x, train=train)
        y = ConvUnit(self.features, 3, dtype=self.dtype, name="spatial")(y, train=train)
        return x + y if self.shortcut else y


class CspStage(nn.Module):
    """A cross-stage partial stage with three 1x1 units around its bottlenecks.

    Half of the channels pass the bottlenecks, half go past them.

    Attributes:
        features: channels that come out.
        num_blocks: bottlenecks.
        shortcut: whether the bottlenecks add their input.
        dtype: of the computation.

    Source: Wang et al. 2019, arXiv:1911.11929, section 3; the form with three units
    is that of YOLOv5 v6.0 ("C3").
    """

    features: int
    num_blocks: int
    shortcut: bool = True
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        half = self.features // 2
        y = ConvUnit(half, dtype=self.dtype, name="main")(x, train=train)
        for i in range(self.num_blocks):
            block = Bottleneck(half, self.shortcut, self.dtype, name=f"block{i}")
            y = block(y, train=train)
        past = ConvUnit(half, dtype=self.dtype, name="bypass")(x, train=train)
        y = jnp.concatenate((y, past), axis=-1)
        return ConvUnit(self.features, dtype=self.dtype, name="merge")(y, train=train)


class PyramidPooling(nn.Module):
    """The map beside its own maxima over windows of 5, 9 and 13 pixels.

    Attributes:
        features: channels that come out.
        dtype: of the computation.

    Source: He et al. 2014, arXiv:1406.4729; windows of 9 and 13 come from pooling
    twice and three times with 5, as in YOLOv5 v6.0 ("SPPF").
    """

    features: int
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        squeeze = ConvUnit(x.shape[-1] // 2, dtype=self.dtype, name="squeeze")
        maps = [squeeze(x, train=train)]
        for _ in range(3):
            maps.append(max_pool_same(maps[-1], 5))
        x = jnp.concatenate(maps, axis=-1)
        return ConvUnit(self.features, dtype=self.dtype, name="merge")(x, train=train)
