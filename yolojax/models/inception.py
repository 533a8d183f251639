"""Inception v3: branches of factorised windows beside each other.

Source: Szegedy et al. 2016, arXiv:1512.00567, table 1, figures 5 to 10 and sections 4
and 6. Counts of parameters at 1000 classes, as in torchvision's table of weights:
27,161,264 with the auxiliary head, 23,834,568 without. Batch normalisation has the
epsilon 1e-3, dropout is 0.5, both of these weights; they also have the branch of the
auxiliary head.

Convolutions and poolings that halve a map, and two of the stem's, have no padding: the
paper's pictures of 299 px make maps of 35, 17 and 8 pixels, and 75 px are the least.
The auxiliary head's 5x5 windows at stride 3 make 5x5 of 17x17. Two departures:

- A map of less than 17 pixels (pictures below 299 px) is averaged by 5x5 parts that
  cover it evenly, so that the auxiliary head takes any size, too.
- As the backbone of a detector, every convolution and pooling is padded by half its
  window, which makes maps of multiples of 32 px as large as their strides say;
  parameters are the same.
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
    mean_of_map,
)
from yolojax.models.dropping import check_rate
from yolojax.models.layers import ConvUnit, max_pool, mean_pool
from yolojax.models.network import check_common
from yolojax.models.specs import check_multiple, scaled

_EPSILON = 1e-3


@dataclasses.dataclass(frozen=True)
class InceptionSpec:
    """Channels that differ from block to block; the others are the modules' own.

    Attributes:
        fine: of each block of the stage of stride 8, behind its pooling.
        middle: of each block of the stage of stride 16, inside its 7x7 branches.
        coarse: blocks of the stage of stride 32.
        width: multiple of all channels.
    """

    fine: tuple[int, ...]
    middle: tuple[int, ...]
    coarse: int
    width: float = 1.0

    def scaled(self, channels: int) -> int:
        """Published channels times `width`."""
        return scaled(channels, self.width)

    @property
    def feature_info(self) -> tuple[tuple[int, int], ...]:
        """(channels, stride) of the maps: of the stem and of each stage."""
        joined = (
            (192,),
            (64, 64, 96, self.fine[-1]),
            (192,) * 4,
            (320, 384, 384, 384, 384, 192),
        )
        channels = (sum(map(self.scaled, parts)) for parts in joined)
        return tuple(zip(channels, (4, 8, 16, 32), strict=True))


INCEPTION = {
    "inception_v3": InceptionSpec(
        fine=(32, 64, 64), middle=(128, 160, 160, 192), coarse=2
    ),
}


class Part(nn.Module):
    """What the modules below share.

    Attributes:
        spec: channels of everything.
        activation: of every unit, see `layers.activate`.
        dtype: of the computation.
        padded: whether what halves a map is padded, for detectors.
        inside: the channels that this block differs by, where there are any.
    """

    spec: InceptionSpec
    activation: str = "relu"
    dtype: str = "float32"
    padded: bool = False
    inside: int = 0

    def unit(
        self,
        x: jax.Array,
        features: int,
        size: int | tuple[int, int],
        name: str,
        train: bool,
        *,
        stride: int = 1,
        cut: bool = False,
    ) -> jax.Array:
        """A unit; `cut` says that the paper gives it no padding."""
        unit = ConvUnit(
            self.spec.scaled(features),
            size,
            stride,
            0 if cut and not self.padded else None,
            self.dtype,
            activation=self.activation,
            epsilon=_EPSILON,
            momentum=MOMENTUM,
            name=name,
        )
        return unit(x, train=train)

    def halved(self, x: jax.Array) -> jax.Array:
        """Maxima over 3x3 pixels at stride 2."""
        return max_pool(x, 3, 2, (1, 1) if self.padded else (0, 0))


class Stem(Part):
    """Five convolutions and a pooling: the map of stride 4."""

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        x = self.unit(x, 32, 3, "conv1a", train, stride=2, cut=True)
        x = self.unit(x, 32, 3, "conv2a", train, cut=True)
        x = self.halved(self.unit(x, 64, 3, "conv2b", train))
        x = self.unit(x, 80, 1, "conv3b", train)
        return self.unit(x, 192, 3, "conv4a", train, cut=True)


class Fine(Part):
    """1x1, 5x5, two 3x3 in a row, and pooling; figure 5."""

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        wide = self.unit(x, 48, 1, "reduce_wide", train)
        twice = self.unit(x, 64, 1, "reduce_twice", train)
        twice = self.unit(twice, 96, 3, "twice0", train)
        branches = (
            self.unit(x, 64, 1, "point", train),
            self.unit(wide, 64, 5, "wide", train),
            self.unit(twice, 96, 3, "twice1", train),
            self.unit(mean_pool(x, 3, 1, 1), self.inside, 1, "project", train),
        )
        return jnp.concatenate(branches, axis=-1)


class FineToMiddle(Part):
    """3x3, two 3x3 in a row, and pooling, all of stride 2; figure 10."""

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        twice = self.unit(x, 64, 1, "reduce_twice", train)
        twice = self.unit(twice, 96, 3, "twice0", train)
        branches = (
            self.unit(x, 384, 3, "once", train, stride=2, cut=True),
            self.unit(twice, 96, 3, "twice1", train, stride=2, cut=True),
            self.halved(x),
        )
        return jnp.concatenate(branches, axis=-1)


class Middle(Part):
    """1x1, 7x7 once and twice as rows and columns, and pooling; figure 6."""

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        row, column, c = (1, 7), (7, 1), self.inside
        once = self.unit(x, c, 1, "reduce_once", train)
        once = self.unit(once, c, row, "once_row", train)
        twice = self.unit(x, c, 1, "reduce_twice", train)
        twice = self.unit(twice, c, column, "twice_column0", train)
        twice = self.unit(twice, c, row, "twice_row0", train)
        twice = self.unit(twice, c, column, "twice_column1", train)
        branches = (
            self.unit(x, 192, 1, "point", train),
            self.unit(once, 192, column, "once_column", train),
            self.unit(twice, 192, row, "twice_row1", train),
            self.unit(mean_pool(x, 3, 1, 1), 192, 1, "project", train),
        )
        return jnp.concatenate(branches, axis=-1)


class MiddleToCoarse(Part):
    """3x3, 7x7 and 3x3, and pooling, all of stride 2."""

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        once = self.unit(x, 192, 1, "reduce_once", train)
        wide = self.unit(x, 192, 1, "reduce_wide", train)
        wide = self.unit(wide, 192, (1, 7), "wide_row", train)
        wide = self.unit(wide, 192, (7, 1), "wide_column", train)
        branches = (
            self.unit(once, 320, 3, "once", train, stride=2, cut=True),
            self.unit(wide, 192, 3, "wide", train, stride=2, cut=True),
            self.halved(x),
        )
        return jnp.concatenate(branches, axis=-1)


class Coarse(Part):
    """1x1, rows beside columns after 1x1 and after 3x3, and pooling; figure 7."""

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        once = self.unit(x, 384, 1, "reduce_once", train)
        twice = self.unit(x, 448, 1, "reduce_twice", train)
        twice = self.unit(twice, 384, 3, "twice", train)
        branches = (
            self.unit(x, 320, 1, "point", train),
            self.unit(once, 384, (1, 3), "once_row", train),
            self.unit(once, 384, (3, 1), "once_column", train),
            self.unit(twice, 384, (1, 3), "twice_row", train),
            self.unit(twice, 384, (3, 1), "twice_column", train),
            self.unit(mean_pool(x, 3, 1, 1), 192, 1, "project", train),
        )
        return jnp.concatenate(branches, axis=-1)


class Stage(Part):
    """Blocks of one kind, one after the other.

    Attributes: as `Part`, and
        kind: the blocks' class.
        blocks: `inside` of each.
    """

    kind: type[Part] = Fine
    blocks: tuple[int, ...] = ()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        for number, inside in enumerate(self.blocks):
            block = self.kind(
                self.spec,
                self.activation,
                self.dtype,
                inside=inside,
                name=f"block{number}",
            )
            x = block(x, train=train)  # type: ignore[operator]
        return x


class Backbone(Part):
    """The last map of each stride from 4 on, finest first, then the auxiliary head's.

    Attributes: as `Part`, and
        auxiliary: whether the map of the auxiliary head is given.
    """

    auxiliary: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> Maps:
        spec, common = self.spec, (self.spec, self.activation, self.dtype, self.padded)
        stem = Stem(*common, name="stem")(x, train=train)
        stage = Stage(*common, kind=Fine, blocks=spec.fine, name="stage3")
        fine = stage(self.halved(stem), train=train)
        x = FineToMiddle(*common, name="down4")(fine, train=train)
        stage = Stage(*common, kind=Middle, blocks=spec.middle, name="stage4")
        middle = stage(x, train=train)
        x = MiddleToCoarse(*common, name="down5")(middle, train=train)
        stage = Stage(*common, kind=Coarse, blocks=(0,) * spec.coarse, name="stage5")
        maps = (stem, fine, middle, stage(x, train=train))
        return (*maps, middle) if self.auxiliary else maps


class AuxiliaryHead(Part):
    """A map pooled to 5x5, 1x1, 5x5 without padding, the mean and a linear layer.

    Attributes: as `Part`, and
        num_classes: logits that come out, float32.
    """

    num_classes: int = 1

    @nn.compact
    def __call__(self, maps: Maps, *, train: bool) -> Maps:
        x = maps[-1]
        large = min(x.shape[1:3]) >= 17
        x = mean_pool(x, 5, 3) if large else adaptive_mean(x, 5)
        x = self.unit(x, 128, 1, "conv0", train)
        x = self.unit(x, 768, 5, "conv1", train, cut=True)
        return (logits(mean_of_map(x), self.num_classes, self.dtype),)


def build_inception(
    name: str,
    *,
    num_classes: int,
    dtype: str = "float32",
    activation: str = "relu",
    dropout: float = 0.5,
    auxiliary: bool = True,
    width: float = 1.0,
) -> Classifier:
    """A network of the table `INCEPTION`.

    Args:
        name: a line of the table.
        num_classes: at least 1.
        dtype: of the computation.
        activation: see `layers.activate`.
        dropout: before the main head's linear layer.
        auxiliary: whether there is the auxiliary head, whose logits come after the main
            ones in training.
        width: multiple of the channels, rounded up to multiples of 8.

    Raises:
        ValueError: something out of range.
    """
    check_common(name, num_classes=num_classes, dtype=dtype)
    check_rate(dropout, f"dropout of {name}")
    check_auxiliary(auxiliary, name)
    check_multiple(width, f"width of {name}")
    spec = dataclasses.replace(INCEPTION[name], width=width)
    common: Any = (spec, activation, dtype)
    head = LinearHead(num_classes, float(dropout), dtype)
    module: nn.Module = BackboneAndHead(Backbone(*common), head)
    if auxiliary:
        module = WithAuxiliary(
            Backbone(*common, auxiliary=True),
            head,
            AuxiliaryHead(*common, num_classes=num_classes),
            1,
        )
    return Classifier(
        name=name,
        family="inception",
        num_classes=num_classes,
        max_stride=1,
        feature_info=spec.feature_info,
        dtype=dtype,
        spec=spec,
        module=module,
        backbone=Backbone(*common, padded=True),
        smallest=75,
    )
