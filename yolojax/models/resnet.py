"""ResNet 18 to 152, and their form D.

Source: He et al. 2016, arXiv:1512.03385, table 1 and figure 5. Form D: He et al. 2019,
arXiv:1812.01187, figure 2: three 3x3 convolutions in the place of the first one, of
7x7, and a shortcut that takes the mean of 2x2 pixels before its 1x1 convolution.

Departure: a bottleneck has its stride in the 3x3 convolution and not in the one before
it, as in the weights that torchvision publishes ("v1.5").

Names: the number after `stage` is the logarithm of the stride of what comes out.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from yolojax.lookup import pick
from yolojax.models.classifier import (
    EPSILON,
    MOMENTUM,
    BackboneAndHead,
    Classifier,
    LinearHead,
)
from yolojax.models.dropping import DropPath, check_rate, linear_rates
from yolojax.models.layers import ConvUnit, activate, max_pool, mean_pool
from yolojax.models.network import check_common
from yolojax.models.specs import check_multiple, scaled

# Whether the stem is deep, and whether shortcuts take means.
STEMS = {"plain": False, "deep": True}
SHORTCUTS = {"strided": False, "pooled": True}


@dataclasses.dataclass(frozen=True)
class ResNetSpec:
    """A residual network.

    Attributes:
        blocks: of each stage.
        bottleneck: whether blocks are 1x1, 3x3, 1x1 rather than two of 3x3.
        stem: `plain`, one 7x7 convolution, or `deep`, three of 3x3.
        shortcut: `strided`, or `pooled`, the mean of 2x2 pixels first.
        channels: of the stem, and inside the blocks of each stage, before `width`.
        width: multiple of the channels.
        activation: see `layers.activate`.
    """

    blocks: tuple[int, ...]
    bottleneck: bool
    stem: str = "plain"
    shortcut: str = "strided"
    channels: tuple[int, ...] = (64, 64, 128, 256, 512)
    width: float = 1.0
    activation: str = "relu"

    @property
    def expansion(self) -> int:
        """Channels that come out of a block for each one inside."""
        return 4 if self.bottleneck else 1

    @property
    def features(self) -> tuple[int, ...]:
        """Channels of the stem and of the stages' maps."""
        first, *rest = (scaled(count, self.width) for count in self.channels)
        return (first, *(count * self.expansion for count in rest))


def _form_d(blocks: tuple[int, ...], bottleneck: bool) -> ResNetSpec:
    return ResNetSpec(blocks, bottleneck, stem="deep", shortcut="pooled")


# He et al. 2016, table 1.
RESNET = {
    "resnet18": ResNetSpec((2, 2, 2, 2), bottleneck=False),
    "resnet34": ResNetSpec((3, 4, 6, 3), bottleneck=False),
    "resnet50": ResNetSpec((3, 4, 6, 3), bottleneck=True),
    "resnet101": ResNetSpec((3, 4, 23, 3), bottleneck=True),
    "resnet152": ResNetSpec((3, 8, 36, 3), bottleneck=True),
    "resnet18d": _form_d((2, 2, 2, 2), bottleneck=False),
    "resnet34d": _form_d((3, 4, 6, 3), bottleneck=False),
    "resnet50d": _form_d((3, 4, 6, 3), bottleneck=True),
    "resnet101d": _form_d((3, 4, 23, 3), bottleneck=True),
    "resnet152d": _form_d((3, 8, 36, 3), bottleneck=True),
}


class DeepStem(nn.Module):
    """Three 3x3 units, the first with stride 2 and the first two half as wide."""

    features: int
    dtype: str = "float32"
    activation: str = "relu"

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        half = self.features // 2
        for number, features in enumerate((half, half, self.features)):
            stride = 1 if number else 2
            unit = _unit(features, 3, stride, self.dtype, self.activation)
            x = unit(name=f"unit{number}")(x, train=train)
        return x


class ResidualBlock(nn.Module):
    """Convolutions whose result is added to the input.

    Attributes:
        features: channels inside.
        stride: step of its 3x3 convolution, of the first one where there are two.
        spec: of the network.
        dtype: of the computation.
        drop_path: see `dropping.DropPath`; of what is added.
    """

    features: int
    stride: int
    spec: ResNetSpec
    dtype: str = "float32"
    drop_path: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        n, act = self.features, self.spec.activation
        if self.spec.bottleneck:
            rows = [
                ("reduce", n, 1, 1, act),
                ("spatial", n, 3, self.stride, act),
                ("expand", n * self.spec.expansion, 1, 1, "linear"),
            ]
        else:
            rows = [
                ("first", n, 3, self.stride, act),
                ("second", n, 3, 1, "linear"),
            ]
        y = x
        for name, features, size, stride, activation in rows:
            unit = _unit(features, size, stride, self.dtype, activation)
            y = unit(name=name)(y, train=train)
        past = self._shortcut(x, y.shape[-1], train)
        y = DropPath(self.drop_path, name="drop_path")(y, train=train)
        return activate(past + y, act)

    def _shortcut(self, x: jax.Array, features: int, train: bool) -> jax.Array:
        if self.stride == 1 and x.shape[-1] == features:
            return x
        stride = self.stride
        if SHORTCUTS[self.spec.shortcut] and stride > 1:
            # The last row or column of an odd number makes a mean of its own, as the
            # 3x3 convolution beside makes a pixel of it.
            odd = [(0, x.shape[axis] % stride) for axis in (1, 2)]
            x = jnp.pad(x, [(0, 0), *odd, (0, 0)], mode="edge")
            x, stride = mean_pool(x, stride, stride), 1
        unit = _unit(features, 1, stride, self.dtype, "linear")
        return unit(name="shortcut")(x, train=train)


class ResidualStage(nn.Module):
    """Blocks of the same width, the first with the stride."""

    features: int
    stride: int
    spec: ResNetSpec
    dtype: str
    drop_path: tuple[float, ...]

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        for number, rate in enumerate(self.drop_path):
            block = ResidualBlock(
                self.features,
                1 if number else self.stride,
                self.spec,
                self.dtype,
                rate,
                name=f"block{number}",
            )
            x = block(x, train=train)
        return x


class ResNet(nn.Module):
    """The maps of stem and stages, strides 2 to 32."""

    spec: ResNetSpec
    dtype: str = "float32"
    drop_path: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> tuple[jax.Array, ...]:
        spec = self.spec
        first, *rest = (scaled(count, spec.width) for count in spec.channels)
        if STEMS[spec.stem]:
            stem: Any = DeepStem(first, self.dtype, spec.activation, name="stem")
        else:
            stem = _unit(first, 7, 2, self.dtype, spec.activation)(name="stem")
        maps = [stem(x, train=train)]
        x = max_pool(maps[0], 3, 2, (1, 1))
        rates = linear_rates(self.drop_path, sum(spec.blocks))
        stages = zip(rest, spec.blocks, strict=True)
        for level, (features, count) in enumerate(stages, start=2):
            own, rates = rates[:count], rates[count:]
            stage = ResidualStage(
                features,
                1 if level == 2 else 2,
                spec,
                self.dtype,
                own,
                name=f"stage{level}",
            )
            x = stage(x, train=train)
            maps.append(x)
        return tuple(maps)


def build_resnet(
    name: str,
    *,
    num_classes: int,
    dtype: str = "float32",
    activation: str = "relu",
    dropout: float = 0.0,
    drop_path: float = 0.0,
    width: float = 1.0,
    stem: str | None = None,
    shortcut: str | None = None,
    zero_init: bool = False,
) -> Classifier:
    """A network of the table `RESNET`.

    Args:
        name: a line of the table.
        num_classes: at least 1.
        dtype: of the computation.
        activation: see `layers.activate`.
        dropout: before the linear layer.
        drop_path: chance that the last block's branch is left out in training; that of
            earlier ones grows up to it.
        width: multiple of the channels.
        stem: `plain` or `deep` instead of the table's.
        shortcut: `strided` or `pooled` instead of the table's.
        zero_init: whether each branch starts at nothing, by the scale of its last
            normalisation (Goyal et al. 2017, arXiv:1706.02677, section 5.1).

    Raises:
        ValueError: something out of range.
    """
    check_common(name, num_classes=num_classes, dtype=dtype)
    check_rate(dropout, f"dropout of {name}")
    check_rate(drop_path, f"drop_path of {name}")
    check_multiple(width, f"width of {name}")
    spec = RESNET[name]
    stem, shortcut = stem or spec.stem, shortcut or spec.shortcut
    pick(STEMS, stem, f"stem of {name}")
    pick(SHORTCUTS, shortcut, f"shortcut of {name}")
    spec = dataclasses.replace(
        spec,
        stem=stem,
        shortcut=shortcut,
        width=float(width),
        activation=activation,
    )
    backbone = ResNet(spec, dtype, float(drop_path))
    strides = [2 ** (number + 1) for number in range(len(spec.features))]
    last = "expand" if spec.bottleneck else "second"
    return Classifier(
        name=name,
        family="resnet",
        num_classes=num_classes,
        max_stride=1,
        feature_info=tuple(zip(spec.features, strides, strict=True)),
        dtype=dtype,
        spec=spec,
        module=BackboneAndHead(
            backbone, LinearHead(num_classes, float(dropout), dtype)
        ),
        backbone=backbone,
        smallest=strides[-1],
        starts={f"{last}/norm/scale": 0.0} if zero_init else None,
    )


def _unit(
    features: int, size: int, stride: int, dtype: str, activation: str
) -> functools.partial[ConvUnit]:
    return functools.partial(
        ConvUnit,
        features,
        size,
        stride,
        dtype=dtype,
        activation=activation,
        epsilon=EPSILON,
        momentum=MOMENTUM,
    )
