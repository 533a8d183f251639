"""Blocks of the CSP family: bottlenecks, CSP stages and pyramid pooling."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from yolojax.models.dropping import DropPath
from yolojax.models.layers import (
    BatchNorm,
    Conv,
    ConvUnit,
    activate,
    max_pool_same,
)


class Bottleneck(nn.Module):
    """A 1x1 and a 3x3 unit, with the input added where `shortcut` says so.

    Attributes:
        features: channels that come out.
        shortcut: whether to add the input, where it has as many channels.
        dtype: of the computation.
        hidden: channels between the two; as many as come out, if 0.
        groups: of the 3x3 unit.
        activation: see `layers.activate`.
        drop_path: see `dropping.DropPath`; of what is added to the input.

    Source: He et al. 2016, arXiv:1512.03385, section 3.
    """

    features: int
    shortcut: bool = True
    dtype: str = "float32"
    hidden: int = 0
    groups: int = 1
    activation: str = "silu"
    drop_path: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        hidden = self.hidden or self.features
        common: dict[str, Any] = {"dtype": self.dtype, "activation": self.activation}
        y = ConvUnit(hidden, **common, name="point")(x, train=train)
        spatial = ConvUnit(
            self.features, 3, groups=self.groups, **common, name="spatial"
        )
        y = spatial(y, train=train)
        if not self.shortcut or x.shape[-1] != self.features:
            return y
        return x + DropPath(self.drop_path, name="drop_path")(y, train=train)


class CspStage(nn.Module):
    """A cross-stage partial stage with three 1x1 units around its bottlenecks.

    Half of the channels pass the bottlenecks, half go past them.

    Attributes:
        features: channels that come out.
        num_blocks: bottlenecks.
        shortcut: whether the bottlenecks add their input.
        dtype: of the computation.
        hidden: channels of each half; half of those that come out, if 0.
        groups: of the bottlenecks' 3x3 units.
        activation: see `layers.activate`.
        drop_path: see `dropping.DropPath`; a rate per bottleneck, none: all 0.

    Source: Wang et al. 2019, arXiv:1911.11929, section 3; the form with three units
    is that of YOLOv5 v6.0 ("C3").
    """

    features: int
    num_blocks: int
    shortcut: bool = True
    dtype: str = "float32"
    hidden: int = 0
    groups: int = 1
    activation: str = "silu"
    drop_path: tuple[float, ...] = ()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        half = self.hidden or self.features // 2
        common: dict[str, Any] = {"dtype": self.dtype, "activation": self.activation}
        y = ConvUnit(half, **common, name="main")(x, train=train)
        y = self.inside(y, train=train)
        past = ConvUnit(half, **common, name="bypass")(x, train=train)
        y = jnp.concatenate((y, past), axis=-1)
        return ConvUnit(self.features, **common, name="merge")(y, train=train)

    def inside(self, y: jax.Array, *, train: bool) -> jax.Array:
        """What the first half of the channels goes through."""
        for i in range(self.num_blocks):
            block = Bottleneck(
                y.shape[-1],
                self.shortcut,
                self.dtype,
                groups=self.groups,
                activation=self.activation,
                drop_path=self.drop_path[i] if self.drop_path else 0.0,
                name=f"block{i}",
            )
            y = block(y, train=train)
        return y


class NormedCspStage(nn.Module):
    """A cross-stage partial stage that normalises its two halves together.

    The half past the bottlenecks, and the other one after them, go through a 1x1
    convolution of their own, without bias; normalisation and activation follow where
    both are side by side.

    Attributes: as `CspStage`, and
        joint_activation: that of both halves together.

    Source: Wang et al. 2019, arXiv:1911.11929, section 3; the form is that of YOLOv5
    v1.0 to v4.0 ("BottleneckCSP").
    """

    features: int
    num_blocks: int
    shortcut: bool = True
    dtype: str = "float32"
    hidden: int = 0
    groups: int = 1
    activation: str = "silu"
    joint_activation: str = "silu"
    drop_path: tuple[float, ...] = ()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        half = self.hidden or self.features // 2
        common: dict[str, Any] = {"dtype": self.dtype, "activation": self.activation}
        y = ConvUnit(half, **common, name="main")(x, train=train)
        for i in range(self.num_blocks):
            block = Bottleneck(
                half,
                self.shortcut,
                groups=self.groups,
                **common,
                drop_path=self.drop_path[i] if self.drop_path else 0.0,
                name=f"block{i}",
            )
            y = block(y, train=train)
        y = Conv(half, dtype=self.dtype, name="after")(y)
        past = Conv(half, dtype=self.dtype, name="bypass")(x)
        y = jnp.concatenate((y, past), axis=-1)
        y = BatchNorm(self.dtype, name="norm")(y, train=train)
        y = activate(y, self.joint_activation)
        return ConvUnit(self.features, **common, name="merge")(y, train=train)


def num_bottlenecks(module: type[nn.Module], arguments: Mapping[str, Any]) -> int:
    """Bottlenecks with a shortcut in a module of these arguments."""
    if not arguments.get("shortcut", True):
        return 0
    if module in (CspStage, NormedCspStage):
        return arguments["num_blocks"]
    return int(module is Bottleneck)


class PyramidPooling(nn.Module):
    """The map beside its own maxima, pooled once, twice and three times.

    Attributes:
        features: channels that come out.
        dtype: of the computation.
        size: of the window, odd; with 5 the maxima are over 5, 9 and 13 pixels.
        activation: see `layers.activate`.

    Source: He et al. 2014, arXiv:1406.4729; in one chain as in YOLOv5 v6.0 ("SPPF").
    """

    features: int
    dtype: str = "float32"
    size: int = 5
    activation: str = "silu"

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        common: dict[str, Any] = {"dtype": self.dtype, "activation": self.activation}
        squeeze = ConvUnit(x.shape[-1] // 2, **common, name="squeeze")
        maps = [squeeze(x, train=train)]
        for _ in range(3):
            maps.append(max_pool_same(maps[-1], self.size))
        x = jnp.concatenate(maps, axis=-1)
        return ConvUnit(self.features, **common, name="merge")(x, train=train)


class ParallelPooling(nn.Module):
    """The map beside its own maxima over windows of several sizes.

    Attributes:
        features: channels that come out.
        dtype: of the computation.
        sizes: of the windows, odd.
        activation: see `layers.activate`.

    Source: He et al. 2014, arXiv:1406.4729; as in YOLOv5 up to v5.0 ("SPP").
    """

    features: int
    dtype: str = "float32"
    sizes: tuple[int, ...] = (5, 9, 13)
    activation: str = "silu"

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        common: dict[str, Any] = {"dtype": self.dtype, "activation": self.activation}
        x = ConvUnit(x.shape[-1] // 2, **common, name="squeeze")(x, train=train)
        x = jnp.concatenate([x, *(max_pool_same(x, k) for k in self.sizes)], axis=-1)
        return ConvUnit(self.features, **common, name="merge")(x, train=train)


class CrossBlock(nn.Module):
    """A 1 x k and a k x 1 unit, with the input added where `shortcut` says so.

    Attributes:
        features: channels that come out.
        size: k.
        stride: step in both directions, the columns' first.
        hidden: channels between the two.
        groups: of the second unit.
        shortcut: whether to add the input, where it has as many channels.
        dtype: of the computation.
        activation: see `layers.activate`.

    Source: Szegedy et al. 2016, arXiv:1512.00567, section 3.2; "CrossConv" of YOLOv5.
    """

    features: int
    size: int = 3
    stride: int = 1
    hidden: int = 0
    groups: int = 1
    shortcut: bool = False
    dtype: str = "float32"
    activation: str = "silu"

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        common: dict[str, Any] = {"dtype": self.dtype, "activation": self.activation}
        row = ConvUnit(
            self.hidden or self.features,
            (1, self.size),
            (1, self.stride),
            **common,
            name="row",
        )
        column = ConvUnit(
            self.features,
            (self.size, 1),
            (self.stride, 1),
            groups=self.groups,
            **common,
            name="column",
        )
        y = column(row(x, train=train), train=train)
        return x + y if self.shortcut and x.shape[-1] == self.features else y
