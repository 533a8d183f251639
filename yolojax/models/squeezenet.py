"""SqueezeNet 1.0 and 1.1: few channels, then many, over and over.

Source: Iandola et al. 2016, arXiv:1602.07360, table 1 (1.0) and the authors' later
version with less computation (1.1). Counts of parameters at 1000 classes, as in
torchvision's tables of weights: 1,248,424 and 1,235,496. No normalisation; dropout 0.5
as published.

Departures: none in the mathematics of the classifier. Its first convolution has no
padding and its pooling keeps windows that the border cuts (ceil mode), so that 224 px
make maps of 54 (1.0; 1.1: 55), 27 and 13 pixels, not 56, 28 and 14. As the backbone of
a detector, the first convolution is padded by half its kernel, which makes maps of
multiples of 16 px as large as their strides say; parameters are the same. There is no
map of stride 32.
"""

from __future__ import annotations

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from yolojax.models.classifier import (
    BackboneAndHead,
    Classifier,
    Maps,
    mean_of_map,
)
from yolojax.models.dropping import Dropout, check_rate
from yolojax.models.layers import Conv, activate, max_pool_ceil, wide_dtype
from yolojax.models.network import check_common
from yolojax.models.specs import check_multiple, scaled


@dataclasses.dataclass(frozen=True)
class SqueezeNetSpec:
    """The first convolution, and the modules between the poolings.

    Attributes:
        stem: channels of the first convolution.
        size: height and width of its kernel.
        fires: of each stride from 4 on, (squeezed, expanded) of its modules.
        smallest: the least height and width of a picture.
    """

    stem: int
    size: int
    fires: tuple[tuple[tuple[int, int], ...], ...]
    smallest: int

    def widened(self, width: float) -> SqueezeNetSpec:
        """All channels times `width`, rounded up to multiples of 8."""
        fires = tuple(
            tuple((scaled(few, width), scaled(many, width)) for few, many in stage)
            for stage in self.fires
        )
        return dataclasses.replace(self, stem=scaled(self.stem, width), fires=fires)

    @property
    def feature_info(self) -> tuple[tuple[int, int], ...]:
        """(channels, stride) of the last map of each stride."""
        return tuple(
            (2 * fires[-1][1], 4 * 2**level) for level, fires in enumerate(self.fires)
        )


_A, _B, _C, _D = (16, 64), (32, 128), (48, 192), (64, 256)

SQUEEZENET = {
    "squeezenet1_0": SqueezeNetSpec(96, 7, ((_A, _A, _B), (_B, _C, _C, _D), (_D,)), 21),
    "squeezenet1_1": SqueezeNetSpec(64, 3, ((_A, _A), (_B, _B), (_C, _C, _D, _D)), 17),
}


class Fire(nn.Module):
    """1x1 to few channels, then 1x1 and 3x3 to many, side by side.

    Attributes:
        squeezed: the few.
        expanded: the many, of each of the two.
        activation: of all three, see `layers.activate`.
        dtype: of the computation.

    Source: section 3.2.
    """

    squeezed: int
    expanded: int
    activation: str = "relu"
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        def layer(x: jax.Array, features: int, size: int, name: str) -> jax.Array:
            conv = Conv(features, size, dtype=self.dtype, use_bias=True, name=name)
            return activate(conv(x), self.activation)

        x = layer(x, self.squeezed, 1, "squeeze")
        sides = (
            layer(x, self.expanded, 1, "point"),
            layer(x, self.expanded, 3, "spatial"),
        )
        return jnp.concatenate(sides, axis=-1)


class Backbone(nn.Module):
    """The last map of each stride from 4 on, finest first.

    Attributes:
        spec: channels of everything.
        activation: see `layers.activate`.
        dtype: of the computation.
        padded: whether the first convolution is padded, for detectors.
    """

    spec: SqueezeNetSpec
    activation: str = "relu"
    dtype: str = "float32"
    padded: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> Maps:
        stem = Conv(
            self.spec.stem,
            self.spec.size,
            2,
            self.spec.size // 2 if self.padded else 0,
            self.dtype,
            use_bias=True,
            name="stem",
        )
        x = activate(stem(x), self.activation)
        maps, number = [], 2  # The paper counts from the convolution, which is 1.
        for fires in self.spec.fires:
            x = max_pool_ceil(x, 3, 2)
            for squeezed, expanded in fires:
                fire = Fire(
                    squeezed,
                    expanded,
                    self.activation,
                    self.dtype,
                    name=f"fire{number}",
                )
                x = fire(x)
                number += 1
            maps.append(x)
        return tuple(maps)


class ConvolutionalHead(nn.Module):
    """Dropout of the last map, a 1x1 convolution to the classes, and its mean.

    Attributes:
        num_classes: logits that come out; none is below 0 with ReLU, as published.
        dropout: of the map.
        activation: of the convolution, see `layers.activate`.
        dtype: of the computation; logits are float32.
    """

    num_classes: int
    dropout: float = 0.5
    activation: str = "relu"
    dtype: str = "float32"

    @nn.compact
    def __call__(self, maps: Maps, *, train: bool) -> Maps:
        x = Dropout(self.dropout, name="dropout")(maps[-1], train=train)
        conv = Conv(self.num_classes, dtype=self.dtype, use_bias=True, name="linear")
        x = activate(conv(x).astype(wide_dtype(self.dtype)), self.activation)
        return (mean_of_map(x),)


def build_squeezenet(
    name: str,
    *,
    num_classes: int,
    dtype: str = "float32",
    activation: str = "relu",
    dropout: float = 0.5,
    width: float = 1.0,
) -> Classifier:
    """A network of the table `SQUEEZENET`.

    Args:
        name: a line of the table.
        num_classes: at least 1.
        dtype: of the computation.
        activation: see `layers.activate`.
        dropout: before the last convolution.
        width: multiple of the channels, rounded up to multiples of 8.

    Raises:
        ValueError: something out of range.
    """
    check_common(name, num_classes=num_classes, dtype=dtype)
    check_rate(dropout, f"dropout of {name}")
    check_multiple(width, f"width of {name}")
    spec = SQUEEZENET[name].widened(width)
    head = ConvolutionalHead(num_classes, float(dropout), activation, dtype)
    return Classifier(
        name=name,
        family="squeezenet",
        num_classes=num_classes,
        max_stride=1,
        feature_info=spec.feature_info,
        dtype=dtype,
        spec=spec,
        module=BackboneAndHead(Backbone(spec, activation, dtype), head),
        backbone=Backbone(spec, activation, dtype, padded=True),
        smallest=spec.smallest,
    )
