"""MobileNet v1, v2 and v3: rows of depthwise-separable blocks.

Sources: v1 Howard et al. 2017, arXiv:1704.04861, table 1; v2 Sandler et al. 2018,
arXiv:1801.04381, table 2; v3 Howard et al. 2019, arXiv:1905.02244, tables 1 and 2.
Counts of parameters at 1000 classes: 4,231,976 (v1, the paper's 4.2 million); 3,504,872
(v2), 2,542,856 and 5,483,032 (v3 small and large) as in torchvision's tables of
weights. Dropout 0.2 and the numbers of batch normalisation are those of these weights.

Departures: convolutions are padded by half their kernel on every side, as in published
PyTorch weights; the original pads even sizes at the right and the bottom only. Of a
side of n pixels stride 2 makes ceil(n / 2), so any size works. v3's hard sigmoid is
relu6(x + 3) / 6, its rows with "RE" keep ReLU whatever the activation is. The last 1x1
convolution is part of the head.
"""

from __future__ import annotations

import dataclasses

from yolojax.models.classifier import BackboneAndHead, Classifier, LinearHead
from yolojax.models.dropping import check_rate
from yolojax.models.heads import ConvHead
from yolojax.models.network import check_common
from yolojax.models.separable import Block, Row, RowOfBlocks, rounded_channels
from yolojax.models.specs import check_multiple


@dataclasses.dataclass(frozen=True)
class MobileNetSpec:
    """A row of blocks and what follows it.

    Attributes:
        row: the backbone.
        features: channels of the last 1x1 unit; 0: there is none.
        hidden: width of the linear layer before the last; 0: there is none.
        activation: of all blocks that name none, and of the head.
        dropout: before the last layer.
    """

    row: Row
    features: int = 0
    hidden: int = 0
    activation: str = "relu"
    dropout: float = 0.0

    def widened(self, width: float) -> MobileNetSpec:
        """All channels times `width`, in multiples of 8; the head's not below 1."""

        def scaled(channels: int) -> int:
            return rounded_channels(channels * width) if channels else 0

        blocks = tuple(
            dataclasses.replace(
                block,
                features=scaled(block.features),
                hidden=scaled(block.hidden),
                squeezed=scaled(block.squeezed),
            )
            for block in self.row.blocks
        )
        wider = max(width, 1.0)
        return dataclasses.replace(
            self,
            row=dataclasses.replace(
                self.row, stem=scaled(self.row.stem), blocks=blocks
            ),
            features=rounded_channels(self.features * wider) if self.features else 0,
            hidden=rounded_channels(self.hidden * wider) if self.hidden else 0,
        )


def _v1() -> MobileNetSpec:
    features = (64, 128, 128, 256, 256, *(512,) * 6, 1024, 1024)
    halves = (1, 3, 5, 11)
    blocks = (Block(c, 2 if i in halves else 1) for i, c in enumerate(features))
    return MobileNetSpec(Row(32, tuple(blocks)))


def _v2() -> MobileNetSpec:
    blocks, inputs = [], 32
    # Expansion, channels, repeats, stride of the first.
    for expansion, features, repeats, stride in (
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    ):
        for i in range(repeats):
            step = stride if i == 0 else 1
            blocks.append(Block(features, step, hidden=inputs * expansion))
            inputs = features
    return MobileNetSpec(
        Row(32, tuple(blocks)), features=1280, activation="relu6", dropout=0.2
    )


def _v3(hidden: int, *lines: tuple[int, int, int, bool, str, int]) -> MobileNetSpec:
    """Lines of the paper's tables: kernel, expanded, out, SE, activation, stride."""
    blocks = tuple(
        Block(
            features,
            stride,
            size,
            expanded,
            squeezed=rounded_channels(expanded / 4) if excited else 0,
            activation="relu" if activation == "RE" else "",
        )
        for size, expanded, features, excited, activation, stride in lines
    )
    row = Row(16, blocks, gate="hard_sigmoid", epsilon=1e-3, momentum=0.01)
    last = blocks[-1].hidden
    return MobileNetSpec(row, last, hidden, activation="hard_swish", dropout=0.2)


MOBILENET = {
    "mobilenet_v1": _v1(),
    "mobilenet_v2": _v2(),
    "mobilenet_v3_small": _v3(
        1024,
        (3, 16, 16, True, "RE", 2),
        (3, 72, 24, False, "RE", 2),
        (3, 88, 24, False, "RE", 1),
        (5, 96, 40, True, "HS", 2),
        (5, 240, 40, True, "HS", 1),
        (5, 240, 40, True, "HS", 1),
        (5, 120, 48, True, "HS", 1),
        (5, 144, 48, True, "HS", 1),
        (5, 288, 96, True, "HS", 2),
        (5, 576, 96, True, "HS", 1),
        (5, 576, 96, True, "HS", 1),
    ),
    "mobilenet_v3_large": _v3(
        1280,
        (3, 16, 16, False, "RE", 1),
        (3, 64, 24, False, "RE", 2),
        (3, 72, 24, False, "RE", 1),
        (5, 72, 40, True, "RE", 2),
        (5, 120, 40, True, "RE", 1),
        (5, 120, 40, True, "RE", 1),
        (3, 240, 80, False, "HS", 2),
        (3, 200, 80, False, "HS", 1),
        (3, 184, 80, False, "HS", 1),
        (3, 184, 80, False, "HS", 1),
        (3, 480, 112, True, "HS", 1),
        (3, 672, 112, True, "HS", 1),
        (5, 672, 160, True, "HS", 2),
        (5, 960, 160, True, "HS", 1),
        (5, 960, 160, True, "HS", 1),
    ),
}


def build_mobilenet(
    name: str,
    *,
    num_classes: int,
    dtype: str = "float32",
    activation: str | None = None,
    dropout: float | None = None,
    width: float = 1.0,
) -> Classifier:
    """A network of the table `MOBILENET`.

    Args:
        name: a line of the table.
        num_classes: at least 1.
        dtype: of the computation.
        activation: see `layers.activate`; the published one where none is given.
        dropout: before the last layer; None: the published one.
        width: multiple of the published channels, in multiples of 8 (the papers' width
            multiplier).

    Raises:
        ValueError: something out of range.
    """
    check_common(name, num_classes=num_classes, dtype=dtype)
    spec = MOBILENET[name]
    rate = spec.dropout if dropout is None else dropout
    check_rate(rate, f"dropout of {name}")
    check_multiple(width, f"width of {name}")
    spec = spec if width == 1 else spec.widened(width)
    active = spec.activation if activation is None else activation
    backbone = RowOfBlocks(spec.row, active, dtype)
    if spec.features:
        head = ConvHead(
            num_classes,
            spec.features,
            spec.hidden,
            dropout=float(rate),
            activation=active,
            dtype=dtype,
            epsilon=spec.row.epsilon,
            momentum=spec.row.momentum,
        )
    else:
        head = LinearHead(num_classes, float(rate), dtype)
    return Classifier(
        name=name,
        family="mobilenet",
        num_classes=num_classes,
        max_stride=1,
        feature_info=spec.row.feature_info,
        dtype=dtype,
        spec=spec,
        module=BackboneAndHead(backbone, head),
        backbone=backbone,
        smallest=1,
    )
