"""Ghost modules: half of the channels by cheap, depthwise convolutions.

Source: Han et al. 2020, arXiv:1911.11907, section 3; sizes as in YOLOv5 v6.0.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from yolojax.models.blocks import CspStage
from yolojax.models.layers import ConvUnit


class GhostUnit(nn.Module):
    """A unit for half of the channels, and beside it a 5x5 depthwise one of those.

    Attributes:
        features: channels that come out, even.
        kernel_size: of the first unit.
        stride: likewise.
        groups: likewise.
        dtype: of the computation.
        activation: of both, see `layers.activate`.
    """

    features: int
    kernel_size: int = 1
    stride: int = 1
    groups: int = 1
    dtype: str = "float32"
    activation: str = "silu"

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        half = self.features // 2
        common: dict[str, Any] = {"dtype": self.dtype, "activation": self.activation}
        primary = ConvUnit(
            half,
            self.kernel_size,
            self.stride,
            groups=self.groups,
            **common,
            name="primary",
        )
        y = primary(x, train=train)
        cheap = ConvUnit(half, 5, groups=half, **common, name="cheap")
        return jnp.concatenate((y, cheap(y, train=train)), axis=-1)


class GhostBottleneck(nn.Module):
    """Two ghost units, and the input added to what they give.

    Where the stride is 2, a depthwise unit stands between the two, and the input comes
    through a depthwise and a 1x1 unit; none of these has an activation.

    Attributes:
        features: channels that come out, a multiple of 4; at stride 1 as many as come
            in.
        kernel_size: of the depthwise units.
        stride: 1 or 2.
        dtype: of the computation.
        activation: of the first ghost unit, the only one that has any.
    """

    features: int
    kernel_size: int = 3
    stride: int = 1
    dtype: str = "float32"
    activation: str = "silu"

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        half = self.features // 2
        expand = GhostUnit(
            half, dtype=self.dtype, activation=self.activation, name="expand"
        )
        y = expand(x, train=train)
        if self.stride == 2:
            y = self._depthwise("depthwise", half)(y, train=train)
        linear: dict[str, Any] = {"dtype": self.dtype, "activation": "linear"}
        y = GhostUnit(self.features, **linear, name="project")(y, train=train)
        if self.stride == 2:
            x = self._depthwise("shortcut_depthwise", x.shape[-1])(x, train=train)
            point = ConvUnit(self.features, **linear, name="shortcut_point")
            x = point(x, train=train)
        return x + y

    def _depthwise(self, name: str, features: int) -> ConvUnit:
        return ConvUnit(
            features,
            self.kernel_size,
            self.stride,
            dtype=self.dtype,
            groups=features,
            activation="linear",
            name=name,
        )


class GhostCspStage(CspStage):
    """A `CspStage` of ghost bottlenecks; `shortcut` and `groups` change nothing."""

    def inside(self, y: jax.Array, *, train: bool) -> jax.Array:
        for i in range(self.num_blocks):
            block = GhostBottleneck(
                y.shape[-1],
                dtype=self.dtype,
                activation=self.activation,
                name=f"block{i}",
            )
            y = block(y, train=train)
        return y
