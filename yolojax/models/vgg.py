"""VGG 11 to 19, with and without batch normalisation, and AlexNet.

Sources: Simonyan and Zisserman 2015, arXiv:1409.1556, table 1 (columns A, B, D, E);
with batch normalisation as torchvision publishes them. Krizhevsky 2014,
arXiv:1404.5997, section 5, for AlexNet in one column, in torchvision's form: 64
channels first, no local normalisation, 61,100,840 parameters for 1000 classes.

Departure: maps are pooled to 7x7 (6x6) before the linear layers, which changes nothing
for pictures of 224 px, and lets others in.

Names: the number after `stage` is the logarithm of the stride that it works at.
"""

from __future__ import annotations

import dataclasses
from typing import TypeVar

import flax.linen as nn
import jax

from yolojax.models.classifier import (
    EPSILON,
    MOMENTUM,
    BackboneAndHead,
    Classifier,
    DenseHead,
)
from yolojax.models.dropping import check_rate
from yolojax.models.layers import Conv, ConvUnit, activate, max_pool
from yolojax.models.network import check_common
from yolojax.models.specs import check_multiple, scaled

Spec = TypeVar("Spec", "VggSpec", "AlexNetSpec")


@dataclasses.dataclass(frozen=True)
class VggSpec:
    """Stages of 3x3 convolutions, each followed by 2x2 maxima.

    Attributes:
        blocks: convolutions of each stage.
        norm: whether each is followed by batch normalisation.
        channels: of each stage, before `width`.
        hidden: widths of the linear layers before the last, before `width`.
        width: multiple of the channels.
        activation: see `layers.activate`.
    """

    blocks: tuple[int, ...]
    norm: bool = False
    channels: tuple[int, ...] = (64, 128, 256, 512, 512)
    hidden: tuple[int, ...] = (4096, 4096)
    width: float = 1.0
    activation: str = "relu"

    @property
    def features(self) -> tuple[int, ...]:
        """Channels of the stages."""
        return tuple(scaled(count, self.width) for count in self.channels)


@dataclasses.dataclass(frozen=True)
class AlexNetSpec:
    """Convolutions, some followed by 3x3 maxima with stride 2.

    Attributes:
        layers: channels before `width`, size of the kernel, stride, padding, and
            whether maxima follow.
        hidden: widths of the linear layers before the last, before `width`.
        width: multiple of the channels.
        activation: see `layers.activate`.
    """

    layers: tuple[tuple[int, int, int, int, bool], ...]
    hidden: tuple[int, ...] = (4096, 4096)
    width: float = 1.0
    activation: str = "relu"


VGG = {
    "vgg11": VggSpec((1, 1, 2, 2, 2)),
    "vgg13": VggSpec((2, 2, 2, 2, 2)),
    "vgg16": VggSpec((2, 2, 3, 3, 3)),
    "vgg19": VggSpec((2, 2, 4, 4, 4)),
    "vgg11_bn": VggSpec((1, 1, 2, 2, 2), norm=True),
    "vgg13_bn": VggSpec((2, 2, 2, 2, 2), norm=True),
    "vgg16_bn": VggSpec((2, 2, 3, 3, 3), norm=True),
    "vgg19_bn": VggSpec((2, 2, 4, 4, 4), norm=True),
}
ALEXNET = {
    "alexnet": AlexNetSpec(
        (
            (64, 11, 4, 2, True),
            (192, 5, 1, 2, True),
            (384, 3, 1, 1, False),
            (256, 3, 1, 1, False),
            (256, 3, 1, 1, True),
        )
    ),
}


class PlainStage(nn.Module):
    """Convolutions of one width."""

    features: int
    count: int
    spec: VggSpec
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        for number in range(self.count):
            if self.spec.norm:
                unit = ConvUnit(
                    self.features,
                    3,
                    dtype=self.dtype,
                    activation=self.spec.activation,
                    epsilon=EPSILON,
                    momentum=MOMENTUM,
                    use_bias=True,
                    name=f"unit{number}",
                )
                x = unit(x, train=train)
            else:
                conv = Conv(
                    self.features,
                    3,
                    dtype=self.dtype,
                    use_bias=True,
                    name=f"conv{number}",
                )
                x = activate(conv(x), self.spec.activation)
        return x


class Vgg(nn.Module):
    """The maps of the stages before their maxima, strides 1 to 16, and the last."""

    spec: VggSpec
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> tuple[jax.Array, ...]:
        maps = []
        stages = zip(self.spec.features, self.spec.blocks, strict=True)
        for level, (features, count) in enumerate(stages):
            stage = PlainStage(
                features, count, self.spec, self.dtype, name=f"stage{level}"
            )
            maps.append(stage(x, train=train))
            x = max_pool(maps[-1], 2, 2, (0, 0))
        return (*maps, x)


class AlexNet(nn.Module):
    """The maps before the maxima, strides about 4 to 16, and the last.

    Windows are not padded so that strides would divide: a map is a pixel or two
    smaller than the picture over its stride.
    """

    spec: AlexNetSpec
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> tuple[jax.Array, ...]:
        del train
        maps = []
        for number, (channels, size, stride, padding, pooled) in enumerate(
            self.spec.layers
        ):
            conv = Conv(
                scaled(channels, self.spec.width),
                size,
                stride,
                padding,
                self.dtype,
                use_bias=True,
                name=f"conv{number}",
            )
            x = activate(conv(x), self.spec.activation)
            if pooled:
                maps.append(x)
                x = max_pool(x, 3, 2, (0, 0))
        return (*maps, x)


def build_vgg(
    name: str,
    *,
    num_classes: int,
    dtype: str = "float32",
    activation: str = "relu",
    dropout: float = 0.5,
    width: float = 1.0,
) -> Classifier:
    """A network of the table `VGG`.

    Args:
        name: a line of the table.
        num_classes: at least 1.
        dtype: of the computation.
        activation: see `layers.activate`.
        dropout: before each linear layer but the first.
        width: multiple of the channels, and of the widths of the linear layers.

    Raises:
        ValueError: something out of range.
    """
    spec = _checked(VGG[name], name, num_classes, dtype, activation, dropout, width)
    levels = range(len(spec.features))
    info = [(spec.features[level], 2**level) for level in levels]
    info.append((spec.features[-1], 2 ** len(levels)))
    return _classifier(
        name,
        "vgg",
        spec,
        Vgg(spec, dtype),
        _head(spec, num_classes, dtype, dropout, size=7, dropped=(1, 2)),
        tuple(info),
        smallest=32,
    )


def build_alexnet(
    name: str,
    *,
    num_classes: int,
    dtype: str = "float32",
    activation: str = "relu",
    dropout: float = 0.5,
    width: float = 1.0,
) -> Classifier:
    """A network of the table `ALEXNET`; the arguments are those of `build_vgg`.

    Dropout is before the first and the second linear layer.
    """
    spec = ALEXNET[name]
    spec = _checked(spec, name, num_classes, dtype, activation, dropout, width)
    maps = [scaled(row[0], spec.width) for row in spec.layers if row[-1]]
    strides = [2 ** (number + 2) for number in range(len(maps) + 1)]
    return _classifier(
        name,
        "alexnet",
        spec,
        AlexNet(spec, dtype),
        _head(spec, num_classes, dtype, dropout, size=6, dropped=(0, 1)),
        tuple(zip((*maps, maps[-1]), strides, strict=True)),
        # The least that leaves a pixel after the last maxima.
        smallest=63,
    )


def _checked(
    spec: Spec,
    name: str,
    num_classes: int,
    dtype: str,
    activation: str,
    dropout: float,
    width: float,
) -> Spec:
    check_common(name, num_classes=num_classes, dtype=dtype)
    check_rate(dropout, f"dropout of {name}")
    check_multiple(width, f"width of {name}")
    return dataclasses.replace(spec, width=float(width), activation=activation)


def _head(
    spec: VggSpec | AlexNetSpec,
    num_classes: int,
    dtype: str,
    dropout: float,
    *,
    size: int,
    dropped: tuple[int, ...],
) -> DenseHead:
    return DenseHead(
        num_classes,
        tuple(scaled(count, spec.width) for count in spec.hidden),
        size,
        dropout=float(dropout),
        dropped=dropped,
        activation=spec.activation,
        dtype=dtype,
    )


def _classifier(
    name: str,
    family: str,
    spec: VggSpec | AlexNetSpec,
    backbone: nn.Module,
    head: DenseHead,
    feature_info: tuple[tuple[int, int], ...],
    *,
    smallest: int,
) -> Classifier:
    return Classifier(
        name=name,
        family=family,
        num_classes=head.num_classes,
        max_stride=1,
        feature_info=feature_info,
        dtype=head.dtype,
        spec=spec,
        module=BackboneAndHead(backbone, head),
        backbone=backbone,
        smallest=smallest,
    )
