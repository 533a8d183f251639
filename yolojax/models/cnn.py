"""The course's network: five convolutions with pooling, three linear layers.

Source: the network of the food-11 exercise of Hung-yi Lee's machine learning course
(National Taiwan University, spring 2021 to 2023): 3x3 convolutions with bias, batch
normalisation, ReLU and 2x2 maxima, with 64, 128, 256, 512 and 512 channels on pictures
of 128 px, then linear layers of 8192, 1024 and 512 inputs.

Departure: pictures of another size are pooled to 4x4 before the linear layers, which
changes nothing at 128 px.
"""

from __future__ import annotations

import dataclasses

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
from yolojax.models.layers import ConvUnit, max_pool
from yolojax.models.network import check_common


@dataclasses.dataclass(frozen=True)
class CnnSpec:
    """Channels of each block, and widths of the linear layers before the last."""

    channels: tuple[int, ...]
    hidden: tuple[int, ...]
    pooled: int


CNN = {
    "cnn11": CnnSpec(channels=(64, 128, 256, 512, 512), hidden=(1024, 512), pooled=4),
    # Not published: for small pictures.
    "cnn5": CnnSpec(channels=(32, 64, 128), hidden=(128,), pooled=2),
}


class Blocks(nn.Module):
    """Convolution, normalisation, activation and 2x2 maxima, over and over."""

    channels: tuple[int, ...]
    activation: str = "relu"
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> tuple[jax.Array, ...]:
        maps = []
        for number, features in enumerate(self.channels):
            unit = ConvUnit(
                features,
                3,
                dtype=self.dtype,
                activation=self.activation,
                epsilon=EPSILON,
                momentum=MOMENTUM,
                use_bias=True,
                name=f"block{number}",
            )
            x = max_pool(unit(x, train=train), 2, 2, (0, 0))
            maps.append(x)
        return tuple(maps)


def build_cnn(
    name: str,
    *,
    num_classes: int,
    dtype: str = "float32",
    activation: str = "relu",
    dropout: float = 0.0,
) -> Classifier:
    """A network of the table `CNN`.

    Args:
        name: a line of the table.
        num_classes: at least 1.
        dtype: of the computation.
        activation: see `layers.activate`.
        dropout: before each linear layer but the first.

    Raises:
        ValueError: something out of range.
    """
    check_common(name, num_classes=num_classes, dtype=dtype)
    check_rate(dropout, f"dropout of {name}")
    spec = CNN[name]
    backbone = Blocks(spec.channels, activation, dtype)
    head = DenseHead(
        num_classes,
        spec.hidden,
        spec.pooled,
        dropout=float(dropout),
        dropped=tuple(range(1, len(spec.hidden) + 1)),
        activation=activation,
        dtype=dtype,
    )
    strides = [2 ** (number + 1) for number in range(len(spec.channels))]
    return Classifier(
        name=name,
        family="cnn",
        num_classes=num_classes,
        max_stride=1,
        feature_info=tuple(zip(spec.channels, strides, strict=True)),
        dtype=dtype,
        spec=spec,
        module=BackboneAndHead(backbone, head),
        backbone=backbone,
        smallest=strides[-1],
    )
