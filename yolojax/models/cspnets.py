"""CSPDarknet-53 and CSPResNet-50 as classifiers, and as backbones of detectors.

Sources: Wang et al. 2019, arXiv:1911.11929, section 3 and table 1, with the channels of
the authors' descriptions (csdarknet53.cfg and csresnet50.cfg of
github.com/WongKinYiu/CrossStagePartialNetworks); Bochkovskiy et al. 2020,
arXiv:2004.10934, has CSPDarknet-53 with Mish (`activation="mish"`).

Departures, all as in the weights that timm publishes: the two 1x1 convolutions at the
start of a stage are one, whose result is split; in CSPResNet-50 no stage has an
activation after it (the description has one in the first and the last), and the stem's
maxima are over 3x3 pixels and not 2x2. A leaky activation has the authors' slope of
0.1, where timm's has 0.01 (`activation="leaky=0.01"`).

Names: the number after `stage` is the logarithm of the stride of what comes out.
"""

from __future__ import annotations

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from yolojax.models.classifier import BackboneAndHead, Classifier, LinearHead
from yolojax.models.darknets import DarkBlock, make_unit
from yolojax.models.dropping import DropPath, check_rate, linear_rates
from yolojax.models.layers import activate, max_pool
from yolojax.models.network import check_common
from yolojax.models.specs import check_multiple, scaled


@dataclasses.dataclass(frozen=True)
class CspNetSpec:
    """Stages of which one half of the channels goes past the blocks.

    Attributes:
        stem: channels before `width`, size of its kernel, and its stride; with stride 2
            maxima follow, which halve the map again.
        channels: of each stage, before `width`.
        blocks: of each stage.
        halves: channels of each half of a stage, before `width`.
        hidden: channels inside the blocks of each stage, before `width`.
        bottleneck: whether blocks are 1x1, 3x3, 1x1 with an activation after the sum,
            rather than 1x1, 3x3.
        grows: whether the convolution with stride 2 that a stage begins with gives as
            many channels as the stage, rather than as many as it gets.
        linear: whether no activation follows the convolution that is split.
        width: multiple of the channels.
        activation: see `layers.activate`.
    """

    stem: tuple[int, int, int]
    channels: tuple[int, ...]
    blocks: tuple[int, ...]
    halves: tuple[int, ...]
    hidden: tuple[int, ...]
    bottleneck: bool = False
    grows: bool = False
    linear: bool = False
    width: float = 1.0
    activation: str = "leaky"

    @property
    def first_level(self) -> int:
        """Logarithm of the stride of the first stage's map."""
        return 1 if self.stem[2] == 1 else 2

    @property
    def info(self) -> tuple[tuple[int, int], ...]:
        """(channels, stride) of the stages' maps."""
        return tuple(
            (scaled(channels, self.width), 2**level)
            for level, channels in enumerate(self.channels, start=self.first_level)
        )


CSPNETS = {
    "cspdarknet53": CspNetSpec(
        stem=(32, 3, 1),
        channels=(64, 128, 256, 512, 1024),
        blocks=(1, 2, 8, 8, 4),
        halves=(64, 64, 128, 256, 512),
        hidden=(32, 64, 128, 256, 512),
        grows=True,
    ),
    "cspresnet50": CspNetSpec(
        stem=(64, 7, 2),
        channels=(128, 256, 512, 1024),
        blocks=(3, 3, 5, 2),
        halves=(128, 256, 512, 1024),
        hidden=(64, 128, 256, 512),
        bottleneck=True,
        linear=True,
    ),
}


class CspBottleneck(nn.Module):
    """1x1, 3x3 and 1x1 units, the sum with the input, and an activation.

    Attributes: as `DarkBlock`.
    """

    hidden: int
    dtype: str = "float32"
    activation: str = "leaky"
    drop_path: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        make = make_unit(self.dtype, self.activation)
        y = make(self.hidden, 1, name="reduce")(x, train=train)
        y = make(self.hidden, 3, name="spatial")(y, train=train)
        y = make(x.shape[-1], 1, activation="linear", name="expand")(y, train=train)
        y = DropPath(self.drop_path, name="drop_path")(y, train=train)
        return activate(x + y, self.activation)


class CrossStage(nn.Module):
    """One stage.

    Attributes:
        spec: of the network.
        number: of the stage, from 0.
        dtype: of the computation.
        drop_path: a rate for each block.
    """

    spec: CspNetSpec
    number: int
    dtype: str
    drop_path: tuple[float, ...]

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        spec = self.spec
        make = make_unit(self.dtype, spec.activation)
        features, half, hidden = (
            scaled(row[self.number], spec.width)
            for row in (spec.channels, spec.halves, spec.hidden)
        )
        if self.number or spec.first_level == 1:
            channels = features if spec.grows else x.shape[-1]
            x = make(channels, 3, 2, name="down")(x, train=train)
        act = "linear" if spec.linear else spec.activation
        x = make(2 * half, 1, activation=act, name="split")(x, train=train)
        past, x = x[..., :half], x[..., half:]
        block = CspBottleneck if spec.bottleneck else DarkBlock
        for number, rate in enumerate(self.drop_path):
            layer = block(
                hidden, self.dtype, spec.activation, rate, name=f"block{number}"
            )
            x = layer(x, train=train)
        x = make(half, 1, name="after")(x, train=train)
        x = jnp.concatenate((past, x), axis=-1)
        return make(features, 1, name="merge")(x, train=train)


class CspNet(nn.Module):
    """The maps of the stages, up to stride 32."""

    spec: CspNetSpec
    dtype: str = "float32"
    drop_path: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> tuple[jax.Array, ...]:
        spec = self.spec
        channels, size, stride = spec.stem
        make = make_unit(self.dtype, spec.activation)
        stem = make(scaled(channels, spec.width), size, stride, name="stem")
        x = stem(x, train=train)
        if stride > 1:
            x = max_pool(x, 3, 2, (1, 1))
        maps = []
        rates = linear_rates(self.drop_path, sum(spec.blocks))
        for number, count in enumerate(spec.blocks):
            own, rates = rates[:count], rates[count:]
            level = spec.first_level + number
            stage = CrossStage(spec, number, self.dtype, own, name=f"stage{level}")
            x = stage(x, train=train)
            maps.append(x)
        return tuple(maps)


def build_cspnet(
    name: str,
    *,
    num_classes: int,
    dtype: str = "float32",
    activation: str = "leaky",
    dropout: float = 0.0,
    drop_path: float = 0.0,
    width: float = 1.0,
) -> Classifier:
    """A network of the table `CSPNETS`.

    Args:
        name: a line of the table.
        num_classes: at least 1.
        dtype: of the computation.
        activation: see `layers.activate`.
        dropout: before the linear layer.
        drop_path: chance that the last block's branch is left out in training; that of
            earlier ones grows up to it.
        width: multiple of the channels.

    Raises:
        ValueError: something out of range.
    """
    check_common(name, num_classes=num_classes, dtype=dtype)
    check_rate(dropout, f"dropout of {name}")
    check_rate(drop_path, f"drop_path of {name}")
    check_multiple(width, f"width of {name}")
    spec = dataclasses.replace(CSPNETS[name], width=float(width), activation=activation)
    backbone = CspNet(spec, dtype, float(drop_path))
    return Classifier(
        name=name,
        family="cspnets",
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
