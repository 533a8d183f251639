"""Inception v1, GoogLeNet: four branches of different windows beside each other.

Source: Szegedy et al. 2015, arXiv:1409.4842, table 1 and section 5. Counts of
parameters at 1000 classes, as in torchvision: 13,004,888 with both auxiliary heads,
6,624,904 without.

Departures, all of them those of the weights that torchvision publishes: convolutions
are followed by batch normalisation (Ioffe and Szegedy 2015, arXiv:1502.03167), and
there is no local response normalisation; the branch that the paper gives 5x5 windows
has 3x3 ones; the last pooling has 2x2 windows; the auxiliary heads pool to 4x4 by parts
that cover the map evenly, which takes any size, where the paper has 5x5 windows at
stride 3. Dropout is the paper's: 0.4, and 0.7 in the auxiliary heads.

Pooling keeps windows that the border cuts (ceil mode): sides that are multiples of 32
give exact strides; of others, a map has up to one pixel more than stride 8, 16 or 32
says.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from yolojax.models.auxiliary import WithAuxiliary, check_auxiliary
from yolojax.models.classifier import (
    MOMENTUM,
    BackboneAndHead,
    Classifier,
    LinearHead,
    Maps,
    adaptive_mean,
    logits,
)
from yolojax.models.dropping import Dropout, check_rate
from yolojax.models.layers import ConvUnit, activate, max_pool, max_pool_ceil
from yolojax.models.network import check_common
from yolojax.models.specs import check_multiple, scaled

_EPSILON = 1e-3
_AUXILIARY_DROPOUT = 0.7

# Channels of a block: 1x1; 3x3 and what it is reduced to before; "5x5" and likewise;
# of the 1x1 convolution after pooling.
Channels = tuple[int, int, int, int, int, int]


@dataclasses.dataclass(frozen=True)
class GoogLeNetSpec:
    """Channels as in table 1 of the paper.

    Attributes:
        stem: of the three convolutions before the blocks.
        stages: of the blocks, a stage for each of the strides 8, 16 and 32.
        taps: blocks of the stage of stride 16, from 0, that auxiliary heads follow.
        auxiliary: channels of an auxiliary head's convolution, and the width of its
            linear layer.
    """

    stem: tuple[int, int, int]
    stages: tuple[tuple[Channels, ...], ...]
    taps: tuple[int, ...] = (0, 3)
    auxiliary: tuple[int, int] = (128, 1024)

    def widened(self, width: float) -> GoogLeNetSpec:
        """All channels times `width`, rounded up to multiples of 8."""

        def wide(channels: Any) -> Any:
            return tuple(scaled(count, width) for count in channels)

        return dataclasses.replace(
            self,
            stem=wide(self.stem),
            stages=tuple(tuple(map(wide, stage)) for stage in self.stages),
            auxiliary=wide(self.auxiliary),
        )

    @property
    def feature_info(self) -> tuple[tuple[int, int], ...]:
        """(channels, stride) of the last map of each stage."""
        last = (_joined(stage[-1]) for stage in self.stages)
        return ((self.stem[-1], 4), *zip(last, (8, 16, 32), strict=True))


def _joined(channels: Channels) -> int:
    """Channels that come out of a block."""
    return channels[0] + channels[2] + channels[4] + channels[5]


GOOGLENET = {
    "googlenet": GoogLeNetSpec(
        stem=(64, 64, 192),
        stages=(
            ((64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64)),
            (
                (192, 96, 208, 16, 48, 64),
                (160, 112, 224, 24, 64, 64),
                (128, 128, 256, 24, 64, 64),
                (112, 144, 288, 32, 64, 64),
                (256, 160, 320, 32, 128, 128),
            ),
            ((256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128)),
        ),
    ),
}


class Inception(nn.Module):
    """Four branches side by side: 1x1, two of 3x3 windows, and pooling.

    Attributes:
        channels: see `Channels`.
        activation: of every unit, see `layers.activate`.
        dtype: of the computation.
    """

    channels: Channels
    activation: str = "relu"
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        common = _unit_arguments(self.activation, self.dtype)

        def unit(x: jax.Array, features: int, size: int, name: str) -> jax.Array:
            return ConvUnit(features, size, **common, name=name)(x, train=train)

        point, reduced, spatial, reduced_second, second, projected = self.channels
        pooled = max_pool(x, 3, 1, (1, 1))
        branches = (
            unit(x, point, 1, "point"),
            unit(unit(x, reduced, 1, "reduce"), spatial, 3, "spatial"),
            unit(unit(x, reduced_second, 1, "reduce_second"), second, 3, "second"),
            unit(pooled, projected, 1, "project"),
        )
        return jnp.concatenate(branches, axis=-1)


class Stem(nn.Module):
    """7x7 at stride 2, pooling, 1x1 and 3x3: the map of stride 4."""

    channels: tuple[int, int, int]
    activation: str = "relu"
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        common = _unit_arguments(self.activation, self.dtype)
        first, reduced, last = self.channels
        x = ConvUnit(first, 7, 2, **common, name="first")(x, train=train)
        x = max_pool_ceil(x, 3, 2)
        x = ConvUnit(reduced, **common, name="reduce")(x, train=train)
        return ConvUnit(last, 3, **common, name="spatial")(x, train=train)


class Stage(nn.Module):
    """Blocks one after the other, and what comes out of each."""

    blocks: tuple[Channels, ...]
    activation: str = "relu"
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> Maps:
        maps = []
        for number, channels in enumerate(self.blocks):
            name = f"block{number}"
            block = Inception(channels, self.activation, self.dtype, name=name)
            x = block(x, train=train)
            maps.append(x)
        return tuple(maps)


class Backbone(nn.Module):
    """The last map of each stage, finest first, and then those of auxiliary heads.

    Attributes:
        spec: channels of everything.
        activation: see `layers.activate`.
        dtype: of the computation.
        auxiliary: whether the maps of auxiliary heads are given.
    """

    spec: GoogLeNetSpec
    activation: str = "relu"
    dtype: str = "float32"
    auxiliary: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> Maps:
        common = (self.activation, self.dtype)
        x = Stem(self.spec.stem, *common, name="stem")(x, train=train)
        maps, tapped = [x], []
        for level, blocks in enumerate(self.spec.stages, start=3):
            x = max_pool_ceil(x, 3 if level < 5 else 2, 2)
            inside = Stage(blocks, *common, name=f"stage{level}")(x, train=train)
            if level == 4:
                tapped = [inside[i] for i in self.spec.taps]
            x = inside[-1]
            maps.append(x)
        return (*maps, *tapped) if self.auxiliary else tuple(maps)


class AuxiliaryHead(nn.Module):
    """A map pooled to 4x4, a 1x1 unit, and two linear layers.

    Attributes:
        num_classes: logits that come out.
        widths: channels of the unit, and the width of the first linear layer.
        activation: of both, see `layers.activate`.
        dtype: of the computation; logits are float32.
    """

    num_classes: int
    widths: tuple[int, int]
    activation: str = "relu"
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        features, hidden = self.widths
        common = _unit_arguments(self.activation, self.dtype)
        x = ConvUnit(features, **common, name="conv")(adaptive_mean(x, 4), train=train)
        # The order of published files: channels first.
        x = jnp.transpose(x, (0, 3, 1, 2)).reshape(x.shape[0], -1)
        dense = nn.Dense(hidden, dtype=jnp.dtype(self.dtype), name="dense")
        x = activate(dense(x), self.activation)
        x = Dropout(_AUXILIARY_DROPOUT, name="dropout")(x, train=train)
        return logits(x, self.num_classes, self.dtype)


class AuxiliaryHeads(nn.Module):
    """The logits of each auxiliary head."""

    spec: GoogLeNetSpec
    num_classes: int
    activation: str = "relu"
    dtype: str = "float32"

    @nn.compact
    def __call__(self, maps: Maps, *, train: bool) -> Maps:
        given = (self.spec.auxiliary, self.activation, self.dtype)
        return tuple(
            AuxiliaryHead(self.num_classes, *given, name=f"head{i}")(x, train=train)
            for i, x in enumerate(maps)
        )


def build_googlenet(
    name: str,
    *,
    num_classes: int,
    dtype: str = "float32",
    activation: str = "relu",
    dropout: float = 0.4,
    auxiliary: bool = True,
    width: float = 1.0,
) -> Classifier:
    """A network of the table `GOOGLENET`.

    Args:
        name: a line of the table.
        num_classes: at least 1.
        dtype: of the computation.
        activation: see `layers.activate`.
        dropout: before the main head's linear layer.
        auxiliary: whether there are the two auxiliary heads, whose logits come after
            the main ones in training.
        width: multiple of the channels, rounded up to multiples of 8.

    Raises:
        ValueError: something out of range.
    """
    check_common(name, num_classes=num_classes, dtype=dtype)
    check_rate(dropout, f"dropout of {name}")
    check_auxiliary(auxiliary, name)
    check_multiple(width, f"width of {name}")
    spec = GOOGLENET[name].widened(width)
    backbone = Backbone(spec, activation, dtype)
    head = LinearHead(num_classes, float(dropout), dtype)
    module: nn.Module = BackboneAndHead(backbone, head)
    if auxiliary:
        module = WithAuxiliary(
            Backbone(spec, activation, dtype, auxiliary=True),
            head,
            AuxiliaryHeads(spec, num_classes, activation, dtype),
            len(spec.taps),
        )
    return Classifier(
        name=name,
        family="googlenet",
        num_classes=num_classes,
        max_stride=1,
        feature_info=spec.feature_info,
        dtype=dtype,
        spec=spec,
        module=module,
        backbone=backbone,
        smallest=15,
    )


def _unit_arguments(activation: str, dtype: str) -> dict[str, Any]:
    return {
        "dtype": dtype,
        "activation": activation,
        "epsilon": _EPSILON,
        "momentum": MOMENTUM,
    }
