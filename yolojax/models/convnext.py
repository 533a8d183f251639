"""ConvNeXt: a residual network made of depthwise convolutions and layer norm.

Source: Liu et al. 2022, arXiv:2201.03545, section 2 and table 9 (T). Count of
parameters at 1000 classes: 28,589,128, as in torchvision's table of weights (the
paper's 29 million). Layer scale starts at 1e-6 and drop path is 0.1 for T (table 5).

Departures: none in the mathematics; kernels start as everywhere in this package, not
from a truncated normal. The stem's and the stages' convolutions have as many pixels as
their step and no padding: of sides that are not multiples of 32, the pixels that are
left over at the right and the bottom are not seen. The normalisation before the last
layer is part of the head: a detector's neck sees maps as they leave the stages.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from yolojax.models.classifier import (
    BackboneAndHead,
    Classifier,
    Maps,
    logits,
    mean_of_map,
)
from yolojax.models.dropping import Dropout, DropPath, check_rate, linear_rates
from yolojax.models.layers import Conv, activate, wide_dtype
from yolojax.models.network import check_common
from yolojax.models.specs import check_multiple, scaled

_EPSILON = 1e-6
_EXPANSION = 4


@dataclasses.dataclass(frozen=True)
class ConvNextSpec:
    """Channels and blocks of each stage; the strides are 4, 8, 16 and 32."""

    channels: tuple[int, ...]
    blocks: tuple[int, ...]

    @property
    def feature_info(self) -> tuple[tuple[int, int], ...]:
        """(channels, stride) of the stages."""
        return tuple((c, 4 * 2**i) for i, c in enumerate(self.channels))


CONVNEXT = {
    "convnext_tiny": ConvNextSpec(channels=(96, 192, 384, 768), blocks=(3, 3, 9, 3)),
}


class LayerNorm(nn.Module):
    """Normalises the channels of every pixel by their own mean and variance.

    Attributes:
        dtype: the dtype that comes out.
        epsilon: added to the variance.

    Source: Ba et al. 2016, arXiv:1607.06450, section 3.
    """

    dtype: str = "float32"
    epsilon: float = _EPSILON

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        wide = wide_dtype(self.dtype)
        shape = (x.shape[-1],)
        scale = self.param("scale", nn.initializers.ones, shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, shape, jnp.float32)
        x = x.astype(wide)
        centred = x - jnp.mean(x, axis=-1, keepdims=True)
        variance = jnp.mean(jnp.square(centred), axis=-1, keepdims=True)
        unit = centred * jax.lax.rsqrt(variance + self.epsilon)
        return (unit * _along(scale, x) + _along(bias, x)).astype(self.dtype)


class LayerScale(nn.Module):
    """Every channel times a learned factor, which starts near 0.

    Attributes:
        start: its first value; the classifier's `starts` have to say so, too.

    Source: Touvron et al. 2021, arXiv:2103.17239, section 2.
    """

    start: float = 1e-6

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        first = nn.initializers.constant(self.start)
        scale = self.param("scale", first, (x.shape[-1],), jnp.float32)
        return x * _along(scale.astype(x.dtype), x)


class Block(nn.Module):
    """Depthwise 7x7, layer norm, and two 1x1 layers; added to the input.

    Attributes:
        layer_scale: first value of the factor of what is added; 0: there is none.
        activation: between the 1x1 layers, see `layers.activate`.
        drop_path: see `dropping.DropPath`; of what is added.
        dtype: of the computation.

    Source: section 2.6 and figure 4.
    """

    layer_scale: float = 1e-6
    activation: str = "gelu"
    drop_path: float = 0.0
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        features = x.shape[-1]
        depthwise = Conv(
            features,
            7,
            dtype=self.dtype,
            groups=features,
            use_bias=True,
            name="depthwise",
        )
        y = LayerNorm(self.dtype, name="norm")(depthwise(x))
        wide = features * _EXPANSION
        y = Conv(wide, dtype=self.dtype, use_bias=True, name="expand")(y)
        y = activate(y, self.activation)
        y = Conv(features, dtype=self.dtype, use_bias=True, name="project")(y)
        if self.layer_scale:
            y = LayerScale(self.layer_scale, name="layer_scale")(y)
        return x + DropPath(self.drop_path, name="drop_path")(y, train=train)


class Patches(nn.Module):
    """A convolution over parts that touch each other, normalised before or after.

    Attributes:
        features: channels that come out.
        size: height and width of a part.
        norm_first: whether layer norm comes before.
        dtype: of the computation.
    """

    features: int
    size: int
    norm_first: bool
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        size = self.size
        conv = Conv(
            self.features, size, size, 0, self.dtype, use_bias=True, name="conv"
        )
        norm = LayerNorm(self.dtype, name="norm")
        return conv(norm(x)) if self.norm_first else norm(conv(x))


class Stage(nn.Module):
    """Blocks one after the other, one for each rate of `drop_path`."""

    drop_path: Sequence[float]
    layer_scale: float = 1e-6
    activation: str = "gelu"
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        for number, rate in enumerate(self.drop_path):
            block = Block(
                self.layer_scale,
                self.activation,
                rate,
                self.dtype,
                name=f"block{number}",
            )
            x = block(x, train=train)
        return x


class Backbone(nn.Module):
    """The maps of the stages, finest first.

    Attributes:
        spec: channels and blocks.
        layer_scale: see `Block`.
        drop_path: of the last block; the first has 0, those between by equal steps.
        activation: see `layers.activate`.
        dtype: of the computation.
    """

    spec: ConvNextSpec
    layer_scale: float = 1e-6
    drop_path: float = 0.0
    activation: str = "gelu"
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> Maps:
        rates = (0.0, *linear_rates(self.drop_path, sum(self.spec.blocks) - 1))
        maps = []
        stages = zip(self.spec.channels, self.spec.blocks, strict=True)
        for level, (features, blocks) in enumerate(stages, start=2):
            first = level == 2
            down = Patches(
                features,
                4 if first else 2,
                not first,
                self.dtype,
                name="stem" if first else f"down{level}",
            )
            own, rates = rates[:blocks], rates[blocks:]
            stage = Stage(
                own, self.layer_scale, self.activation, self.dtype, name=f"stage{level}"
            )
            x = stage(down(x), train=train)
            maps.append(x)
        return tuple(maps)


class NormedHead(nn.Module):
    """The mean of the last map, layer norm, and one linear layer.

    Attributes:
        num_classes: logits that come out.
        dropout: after the norm.
        dtype: of the computation; logits are float32.
    """

    num_classes: int
    dropout: float = 0.0
    dtype: str = "float32"

    @nn.compact
    def __call__(self, maps: Maps, *, train: bool) -> Maps:
        x = LayerNorm(self.dtype, name="norm")(mean_of_map(maps[-1]))
        x = Dropout(self.dropout, name="dropout")(x, train=train)
        return (logits(x, self.num_classes, self.dtype),)


def build_convnext(
    name: str,
    *,
    num_classes: int,
    dtype: str = "float32",
    activation: str = "gelu",
    dropout: float = 0.0,
    drop_path: float = 0.1,
    layer_scale: float = 1e-6,
    width: float = 1.0,
) -> Classifier:
    """A network of the table `CONVNEXT`.

    Args:
        name: a line of the table.
        num_classes: at least 1.
        dtype: of the computation.
        activation: see `layers.activate`.
        dropout: before the last layer.
        drop_path: chance that the last block is left out in training; that of earlier
            ones grows from 0 to it by equal steps.
        layer_scale: first value of the factors of what blocks add, in [0, 1]; 0 for
            blocks without them.
        width: multiple of the channels, rounded up to multiples of 8.

    Raises:
        ValueError: something out of range.
    """
    check_common(name, num_classes=num_classes, dtype=dtype)
    check_rate(dropout, f"dropout of {name}")
    check_rate(drop_path, f"drop_path of {name}")
    if not isinstance(layer_scale, (int, float)) or not 0 <= layer_scale <= 1:
        raise ValueError(
            f"layer_scale of {name} is {layer_scale!r}; it must be between 0 and 1"
        )
    check_multiple(width, f"width of {name}")
    spec, start = CONVNEXT[name], float(layer_scale)
    channels = tuple(scaled(count, width) for count in spec.channels)
    spec = dataclasses.replace(spec, channels=channels)
    backbone = Backbone(spec, start, float(drop_path), activation, dtype)
    return Classifier(
        name=name,
        family="convnext",
        num_classes=num_classes,
        max_stride=1,
        feature_info=spec.feature_info,
        dtype=dtype,
        spec=spec,
        module=BackboneAndHead(
            backbone, NormedHead(num_classes, float(dropout), dtype)
        ),
        backbone=backbone,
        smallest=32,
        starts={"layer_scale/scale": start} if start else None,
    )


def _along(values: jax.Array, x: jax.Array) -> jax.Array:
    """Values per channel in the rank and the dtype of `x`."""
    return values.astype(x.dtype).reshape((1,) * (x.ndim - 1) + (-1,))
