"""Blocks with depthwise convolutions, and a backbone that is a row of them.

Any spec may use them. A depthwise convolution has a filter of its own for every
channel; the 1x1 convolution beside it mixes the channels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax

from yolojax.models.classifier import EPSILON, MOMENTUM, mean_of_map
from yolojax.models.dropping import DropPath
from yolojax.models.layers import Conv, ConvUnit, activate


@dataclasses.dataclass(frozen=True)
class Block:
    """A block of a `Row`.

    Attributes:
        features: channels that come out.
        stride: of the depthwise convolution.
        size: height and width of its kernel.
        hidden: channels of the depthwise convolution of an `InvertedResidual`; 0 for a
            `DepthwiseSeparable`.
        squeezed: channels of its squeeze-and-excitation; 0: there is none.
        activation: in place of the row's, which "" stands for.
    """

    features: int
    stride: int = 1
    size: int = 3
    hidden: int = 0
    squeezed: int = 0
    activation: str = ""


@dataclasses.dataclass(frozen=True)
class Row:
    """A 3x3 convolution of stride 2, and blocks one after the other.

    Attributes:
        stem: channels of the convolution.
        blocks: in order.
        squeeze_activation: of squeeze-and-excitation, between its two layers; ""
            stands for the row's.
        gate: of squeeze-and-excitation, see `SqueezeExcite`.
        epsilon: of batch normalisation.
        momentum: likewise.
    """

    stem: int
    blocks: tuple[Block, ...]
    squeeze_activation: str = "relu"
    gate: str = "logistic"
    epsilon: float = EPSILON
    momentum: float = MOMENTUM

    @property
    def strides(self) -> tuple[int, ...]:
        """Pixels of the picture a pixel of the map, after the stem and each block."""
        strides = [2]
        for block in self.blocks:
            strides.append(strides[-1] * block.stride)
        return tuple(strides)

    @property
    def feature_info(self) -> tuple[tuple[int, int], ...]:
        """(channels, stride) of the last map of each stride, finest first."""
        channels = (self.stem, *(block.features for block in self.blocks))
        last = {s: c for c, s in zip(channels, self.strides, strict=True)}
        return tuple((c, s) for s, c in last.items())


def rounded_channels(channels: float, divisor: int = 8) -> int:
    """The nearest multiple of `divisor`; the next one where that is under 90 %.

    Source: the rule of the published MobileNet v2 and v3 and of EfficientNet.
    """
    near = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return near + divisor if near < 0.9 * channels else near


class DepthwiseSeparable(nn.Module):
    """A depthwise unit and a 1x1 unit.

    Attributes:
        features: channels that come out.
        size: height and width of the depthwise kernel.
        stride: of the depthwise convolution.
        activation: of both, see `layers.activate`.
        dtype: of the computation.
        epsilon: of batch normalisation.
        momentum: likewise.

    Source: Howard et al. 2017, arXiv:1704.04861, section 3.1 and figure 3.
    """

    features: int
    size: int = 3
    stride: int = 1
    activation: str = "relu"
    dtype: str = "float32"
    epsilon: float = EPSILON
    momentum: float = MOMENTUM

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        common: dict[str, Any] = {
            "dtype": self.dtype,
            "activation": self.activation,
            "epsilon": self.epsilon,
            "momentum": self.momentum,
        }
        inputs = x.shape[-1]
        depthwise = ConvUnit(
            inputs, self.size, self.stride, groups=inputs, **common, name="depthwise"
        )
        x = depthwise(x, train=train)
        return ConvUnit(self.features, **common, name="point")(x, train=train)


class SqueezeExcite(nn.Module):
    """Every channel times a factor that the means of all channels decide.

    Attributes:
        squeezed: channels between the two layers.
        activation: between them, see `layers.activate`.
        gate: what makes factors of the second layer's outputs, likewise.
        dtype: of the computation.

    Source: Hu et al. 2018, arXiv:1709.01507, section 3.
    """

    squeezed: int
    activation: str = "relu"
    gate: str = "logistic"
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = mean_of_map(x)[:, None, None, :]
        y = Conv(self.squeezed, dtype=self.dtype, use_bias=True, name="squeeze")(y)
        y = activate(y, self.activation)
        y = Conv(x.shape[-1], dtype=self.dtype, use_bias=True, name="expand")(y)
        return x * activate(y, self.gate)


class InvertedResidual(nn.Module):
    """1x1 to more channels, depthwise, 1x1 to fewer; with the input added.

    The first unit is left out where it would not add channels; the last has no
    activation; the input is added where the result has its shape.

    Attributes:
        features: channels that come out.
        hidden: channels of the depthwise unit.
        size: height and width of its kernel.
        stride: of it.
        squeezed: channels of squeeze-and-excitation after it; 0: there is none.
        squeeze_activation: see `SqueezeExcite`.
        gate: likewise.
        activation: of the first two units, see `layers.activate`.
        drop_path: see `dropping.DropPath`; of what is added to the input.
        dtype: of the computation.
        epsilon: of batch normalisation.
        momentum: likewise.

    Source: Sandler et al. 2018, arXiv:1801.04381, section 3.4 and table 1; with
    squeeze-and-excitation Howard et al. 2019, arXiv:1905.02244, section 5.3.
    """

    features: int
    hidden: int
    size: int = 3
    stride: int = 1
    squeezed: int = 0
    squeeze_activation: str = "relu"
    gate: str = "logistic"
    activation: str = "relu6"
    drop_path: float = 0.0
    dtype: str = "float32"
    epsilon: float = EPSILON
    momentum: float = MOMENTUM

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        common: dict[str, Any] = {
            "dtype": self.dtype,
            "epsilon": self.epsilon,
            "momentum": self.momentum,
        }
        active = {**common, "activation": self.activation}
        y = x
        if self.hidden != x.shape[-1]:
            y = ConvUnit(self.hidden, **active, name="expand")(y, train=train)
        depthwise = ConvUnit(
            self.hidden,
            self.size,
            self.stride,
            groups=self.hidden,
            **active,
            name="depthwise",
        )
        y = depthwise(y, train=train)
        if self.squeezed:
            excite = SqueezeExcite(
                self.squeezed,
                self.squeeze_activation or self.activation,
                self.gate,
                self.dtype,
                name="excite",
            )
            y = excite(y)
        project = ConvUnit(self.features, activation="linear", **common, name="project")
        y = project(y, train=train)
        if self.stride != 1 or x.shape[-1] != self.features:
            return y
        return x + DropPath(self.drop_path, name="drop_path")(y, train=train)


class RowOfBlocks(nn.Module):
    """The last map of each stride of a `Row`, finest first.

    Attributes:
        row: what it is made of.
        activation: of all blocks that name none, see `layers.activate`.
        dtype: of the computation.
        drop_path: see `dropping.DropPath`; a rate per block, none: all 0.
    """

    row: Row
    activation: str
    dtype: str = "float32"
    drop_path: Sequence[float] = ()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> tuple[jax.Array, ...]:
        row = self.row
        common: dict[str, Any] = {
            "dtype": self.dtype,
            "epsilon": row.epsilon,
            "momentum": row.momentum,
        }
        stem = ConvUnit(
            row.stem, 3, 2, activation=self.activation, **common, name="stem"
        )
        x = stem(x, train=train)
        maps = {row.strides[0]: x}
        for number, (block, stride) in enumerate(
            zip(row.blocks, row.strides[1:], strict=True)
        ):
            shape = (block.size, block.stride)
            # Blocks are counted from 1: the stem stands before them.
            given = {
                **common,
                "activation": block.activation or self.activation,
                "name": f"block{number + 1}",
            }
            if block.hidden:
                module: nn.Module = InvertedResidual(
                    block.features,
                    block.hidden,
                    *shape,
                    squeezed=block.squeezed,
                    squeeze_activation=row.squeeze_activation,
                    gate=row.gate,
                    drop_path=self.drop_path[number] if self.drop_path else 0.0,
                    **given,
                )
            else:
                module = DepthwiseSeparable(block.features, *shape, **given)
            x = module(x, train=train)  # type: ignore[operator]
            maps[stride] = x
        return tuple(maps.values())
