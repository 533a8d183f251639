"""Darknet-19 and Darknet-53 as classifiers, and as backbones of detectors.

Sources: Redmon and Farhadi 2017, arXiv:1612.08242, table 6 (Darknet-19); Redmon and
Farhadi 2018, arXiv:1804.02767, table 1 (Darknet-53).

Departures: Darknet-19 takes the mean of the last map before its last 1x1 convolution,
which is then a linear layer, and not after it: as both are linear, the logits are the
same. Normalisation has the epsilon of other published classifiers.

Names: the number after `stage` is the logarithm of the stride that its convolutions
work at. Not to be confused with the family `darknet`, whose networks are detectors that
a list of sections describes.
"""

from __future__ import annotations

import dataclasses
import functools

import flax.linen as nn
import jax

from yolojax.models.classifier import (
    EPSILON,
    MOMENTUM,
    BackboneAndHead,
    Classifier,
    LinearHead,
)
from yolojax.models.dropping import DropPath, check_rate, linear_rates
from yolojax.models.layers import ConvUnit, max_pool
from yolojax.models.network import check_common
from yolojax.models.specs import check_multiple, scaled


@dataclasses.dataclass(frozen=True)
class PlainDarknetSpec:
    """3x3 and 1x1 convolutions in turn, with 2x2 maxima between the stages.

    Attributes:
        stages: channels of the convolutions of each, before `width`.
        width: multiple of the channels.
        activation: see `layers.activate`.
    """

    stages: tuple[tuple[int, ...], ...]
    width: float = 1.0
    activation: str = "leaky"

    @property
    def info(self) -> tuple[tuple[int, int], ...]:
        """(channels, stride) of the stages' maps."""
        return tuple(
            (scaled(stage[-1], self.width), 2**level)
            for level, stage in enumerate(self.stages)
        )


@dataclasses.dataclass(frozen=True)
class ResidualDarknetSpec:
    """A convolution with stride 2 and residual blocks in every stage.

    Attributes:
        blocks: of each stage.
        channels: of the stem, and of each stage, before `width`.
        width: multiple of the channels.
        activation: see `layers.activate`.
    """

    blocks: tuple[int, ...]
    channels: tuple[int, ...] = (32, 64, 128, 256, 512, 1024)
    width: float = 1.0
    activation: str = "leaky"

    @property
    def info(self) -> tuple[tuple[int, int], ...]:
        """(channels, stride) of the stages' maps."""
        return tuple(
            (scaled(channels, self.width), 2**level)
            for level, channels in enumerate(self.channels)
        )[1:]


DARKNETS: dict[str, PlainDarknetSpec | ResidualDarknetSpec] = {
    "darknet19": PlainDarknetSpec(
        (
            (32,),
            (64,),
            (128, 64, 128),
            (256, 128, 256),
            (512, 256, 512, 256, 512),
            (1024, 512, 1024, 512, 1024),
        )
    ),
    "darknet53": ResidualDarknetSpec((1, 2, 8, 8, 4)),
}


class DarkBlock(nn.Module):
    """A 1x1 and a 3x3 unit, whose result is added to the input.

    Attributes:
        hidden: channels between the two.
        dtype: of the computation.
        activation: see `layers.activate`.
        drop_path: see `dropping.DropPath`; of what is added.
    """

    hidden: int
    dtype: str = "float32"
    activation: str = "leaky"
    drop_path: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        make = make_unit(self.dtype, self.activation)
        y = make(self.hidden, 1, name="point")(x, train=train)
        y = make(x.shape[-1], 3, name="spatial")(y, train=train)
        return x + DropPath(self.drop_path, name="drop_path")(y, train=train)


class PlainStage(nn.Module):
    """3x3 and 1x1 units in turn."""

    channels: tuple[int, ...]
    dtype: str
    activation: str

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        make = make_unit(self.dtype, self.activation)
        for number, channels in enumerate(self.channels):
            x = make(channels, 1 if number % 2 else 3, name=f"unit{number}")(
                x, train=train
            )
        return x


class ResidualStage(nn.Module):
    """Half as many pixels, then blocks; `drop_path` has a rate for each."""

    features: int
    dtype: str
    activation: str
    drop_path: tuple[float, ...]

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        make = make_unit(self.dtype, self.activation)
        x = make(self.features, 3, 2, name="down")(x, train=train)
        for number, rate in enumerate(self.drop_path):
            block = DarkBlock(
                self.features // 2,
                self.dtype,
                self.activation,
                rate,
                name=f"block{number}",
            )
            x = block(x, train=train)
        return x


class PlainDarknet(nn.Module):
    """The maps of the stages before their maxima, strides 1 to 32."""

    spec: PlainDarknetSpec
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> tuple[jax.Array, ...]:
        maps = []
        for level, channels in enumerate(self.spec.stages):
            if level:
                x = max_pool(x, 2, 2, (0, 0))
            widths = tuple(scaled(count, self.spec.width) for count in channels)
            stage = PlainStage(
                widths, self.dtype, self.spec.activation, name=f"stage{level}"
            )
            x = stage(x, train=train)
            maps.append(x)
        return tuple(maps)


class ResidualDarknet(nn.Module):
    """The maps of the stages, strides 2 to 32."""

    spec: ResidualDarknetSpec
    dtype: str = "float32"
    drop_path: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> tuple[jax.Array, ...]:
        spec = self.spec
        make = make_unit(self.dtype, spec.activation)
        stem = make(scaled(spec.channels[0], spec.width), 3, name="stem")
        x = stem(x, train=train)
        maps = []
        rates = linear_rates(self.drop_path, sum(spec.blocks))
        stages = zip(spec.info, spec.blocks, strict=True)
        for level, ((features, _), count) in enumerate(stages, start=1):
            own, rates = rates[:count], rates[count:]
            stage = ResidualStage(
                features, self.dtype, spec.activation, own, name=f"stage{level}"
            )
            x = stage(x, train=train)
            maps.append(x)
        return tuple(maps)


def build_darknet_classifier(
    name: str,
    *,
    num_classes: int,
    dtype: str = "float32",
    activation: str = "leaky",
    dropout: float = 0.0,
    drop_path: float = 0.0,
    width: float = 1.0,
) -> Classifier:
    """A network of the table `DARKNETS`.

    Args:
        name: a line of the table.
        num_classes: at least 1.
        dtype: of the computation.
        activation: see `layers.activate`.
        dropout: before the linear layer.
        drop_path: chance that the last block's branch is left out in training; that of
            earlier ones grows up to it. Darknet-19 has no branches.
        width: multiple of the channels.

    Raises:
        ValueError: something out of range.
    """
    check_common(name, num_classes=num_classes, dtype=dtype)
    check_rate(dropout, f"dropout of {name}")
    check_rate(drop_path, f"drop_path of {name}")
    check_multiple(width, f"width of {name}")
    spec = dataclasses.replace(
        DARKNETS[name], width=float(width), activation=activation
    )
    if isinstance(spec, PlainDarknetSpec):
        if drop_path:
            raise ValueError(f"drop_path of {name} is {drop_path!r}; it has no branch")
        backbone: nn.Module = PlainDarknet(spec, dtype)
    else:
        backbone = ResidualDarknet(spec, dtype, float(drop_path))
    return Classifier(
        name=name,
        family="darknets",
        num_classes=num_classes,
        max_stride=1,
        feature_info=spec.info,
        dtype=dtype,
        spec=spec,
        module=BackboneAndHead(
            backbone, LinearHead(num_classes, float(dropout), dtype)
        ),
        backbone=backbone,
        smallest=32,
    )


def make_unit(dtype: str, activation: str) -> functools.partial[ConvUnit]:
    """A `ConvUnit` of classifiers; it needs channels, kernel, perhaps stride, name."""
    return functools.partial(
        ConvUnit,
        dtype=dtype,
        activation=activation,
        epsilon=EPSILON,
        momentum=MOMENTUM,
    )
