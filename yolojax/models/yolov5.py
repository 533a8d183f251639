"""YOLOv5 v6.0: CSP-Darknet, SPPF, PANet and one 1x1 convolution per level.

Follows the published description of release 6.0 (June 2021, Jocher et al.,
doi:10.5281/zenodo.3908559) layer by layer, so that published weights fit; it was
written from the layer lists, not from the code. The backbone is Wang et al. 2019
(arXiv:1911.11929), the neck Liu et al. 2018 (arXiv:1803.01534).

Departures: none in the mathematics. Maps are channels-last, 1x1 convolutions are
matrix products, and the head returns raw maps: decoding and losses are elsewhere.

Names: the number after `down`, `stage`, `lateral`, `top_down`, `bottom_up` and
`level` is the logarithm of the stride of what comes out; a lateral unit works at
the stride of its input.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from yolojax.models.blocks import CspStage, PyramidPooling
from yolojax.models.dropping import Dropout, linear_rates
from yolojax.models.layers import ConvUnit, upsample_nearest, wide_dtype
from yolojax.models.specs import CspSpec


class Backbone(nn.Module):
    """The maps of the stages that the head sees, finest first.

    Attributes:
        spec: channels and blocks.
        dtype: of the computation.
        drop_path: of the last block; it grows from block to block.
        pooled: whether pyramid pooling follows the last stage.
        activation: see `layers.activate`.
    """

    spec: CspSpec
    dtype: str = "float32"
    drop_path: float = 0.0
    pooled: bool = True
    activation: str = "silu"

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> tuple[jax.Array, ...]:
        first, *rest = self.spec.stage_features
        common: dict[str, Any] = {"dtype": self.dtype, "activation": self.activation}
        x = ConvUnit(first, 6, 2, 2, **common, name="stem")(x, train=train)
        maps = []
        stages = zip(rest, self.spec.stage_blocks, strict=True)
        rates = linear_rates(self.drop_path, sum(self.spec.stage_blocks))
        for level, (features, blocks) in enumerate(stages, start=2):
            down = ConvUnit(features, 3, 2, **common, name=f"down{level}")
            own, rates = rates[:blocks], rates[blocks:]
            stage = CspStage(
                features, blocks, drop_path=own, **common, name=f"stage{level}"
            )
            x = stage(down(x, train=train), train=train)
            maps.append(x)
        if self.pooled:
            pool = PyramidPooling(rest[-1], **common, name="pool")
            maps[-1] = pool(x, train=train)
        return tuple(maps[-len(self.spec.anchors) :])


class PathAggregation(nn.Module):
    """Mixes the levels from coarse to fine and back; shapes stay what they were."""

    spec: CspSpec
    dtype: str = "float32"

    @nn.compact
    def __call__(
        self, maps: tuple[jax.Array, ...], *, train: bool
    ) -> tuple[jax.Array, ...]:
        features = self.spec.stage_features[-len(maps) :]
        first = len(self.spec.channels) - len(maps) + 1

        def stage(name: str, index: int, *inputs: jax.Array) -> jax.Array:
            block = CspStage(
                features[index],
                self.spec.neck_stage_blocks,
                shortcut=False,
                dtype=self.dtype,
                name=f"{name}{first + index}",
            )
            return block(jnp.concatenate(inputs, axis=-1), train=train)

        x = maps[-1]
        laterals: dict[int, jax.Array] = {}
        for index in reversed(range(len(maps) - 1)):
            lateral = ConvUnit(
                features[index], dtype=self.dtype, name=f"lateral{first + index + 1}"
            )
            laterals[index] = lateral(x, train=train)
            up = upsample_nearest(laterals[index])
            x = stage("top_down", index, up, maps[index])
        mixed = [x]
        for index in range(1, len(maps)):
            down = ConvUnit(
                features[index - 1], 3, 2, dtype=self.dtype, name=f"down{first + index}"
            )
            x = stage("bottom_up", index, down(x, train=train), laterals[index - 1])
            mixed.append(x)
        return tuple(mixed)


class AnchorHead(nn.Module):
    """Raw maps [b, gh, gw, a, 5 + c] per level: x y w h, objectness, classes."""

    spec: CspSpec
    num_classes: int
    dtype: str = "float32"

    @nn.compact
    def __call__(self, maps: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        first = len(self.spec.channels) - len(maps) + 1
        raw = []
        for index, (x, anchors) in enumerate(zip(maps, self.spec.anchors, strict=True)):
            outputs = self.num_classes + 5
            layer = nn.Dense(
                len(anchors) * outputs,
                dtype=jnp.dtype(self.dtype),
                kernel_init=nn.initializers.zeros,
                name=f"level{first + index}",
            )
            y = layer(x).astype(wide_dtype(self.dtype))
            raw.append(y.reshape(*y.shape[:-1], len(anchors), outputs))
        return tuple(raw)


class Yolov5(nn.Module):
    """The whole network: pictures [b, h, w, 3] in [0, 1] to raw maps per level."""

    spec: CspSpec
    num_classes: int
    dtype: str = "float32"
    drop_path: float = 0.0
    dropout: float = 0.0

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> tuple[jax.Array, ...]:
        backbone = Backbone(self.spec, self.dtype, self.drop_path, name="backbone")
        maps = backbone(images, train=train)
        maps = PathAggregation(self.spec, self.dtype, name="neck")(maps, train=train)
        maps = tuple(
            Dropout(self.dropout, name=f"dropout{index}")(x, train=train)
            for index, x in enumerate(maps)
        )
        return AnchorHead(self.spec, self.num_classes, self.dtype, name="head")(maps)
