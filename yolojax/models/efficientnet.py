"""EfficientNet B0 to B3: one row of blocks, made deeper and wider together.

Source: Tan and Le 2019, arXiv:1905.11946, table 1 (B0) and section 3.3; the multiples
of the others as in the authors' tables. Dropout is 0.2 for B0 and grows with the size,
the last block stays with the chance 0.8 (section 5.2). Counts of parameters at 1000
classes, as in torchvision's tables of weights: 5,288,548 (B0), 7,794,184, 9,109,994 and
12,233,232 (B3).

Departures: convolutions are padded by half their kernel on every side, and batch
normalisation has the numbers 1e-5 and 0.1, as in published PyTorch weights; the
original pads even sizes at the right and the bottom only and has 1e-3 and 0.01. Of a
side of n pixels stride 2 makes ceil(n / 2), so any size works. The last 1x1
convolution is part of the head.
"""

from __future__ import annotations

import dataclasses
import math

from yolojax.models.classifier import BackboneAndHead, Classifier
from yolojax.models.dropping import check_rate, linear_rates
from yolojax.models.heads import ConvHead
from yolojax.models.network import check_common
from yolojax.models.separable import Block, Row, RowOfBlocks, rounded_channels
from yolojax.models.specs import check_multiple

# Of B0: expansion, kernel, stride of the first block, channels, blocks.
_STAGES = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)


@dataclasses.dataclass(frozen=True)
class EfficientNetSpec:
    """Multiples of B0's channels and blocks, and the dropout of the head."""

    width: float
    depth: float
    dropout: float

    @property
    def features(self) -> int:
        """Channels of the head's 1x1 unit."""
        return rounded_channels(1280 * self.width)

    @property
    def row(self) -> Row:
        """The backbone; channels in multiples of 8, blocks rounded up."""
        stem = inputs = rounded_channels(32 * self.width)
        blocks = []
        for expansion, size, stride, channels, repeats in _STAGES:
            features = rounded_channels(channels * self.width)
            for i in range(math.ceil(repeats * self.depth)):
                block = Block(
                    features,
                    stride if i == 0 else 1,
                    size,
                    inputs * expansion,
                    squeezed=max(1, inputs // 4),
                )
                blocks.append(block)
                inputs = features
        return Row(stem, tuple(blocks), squeeze_activation="")


EFFICIENTNET = {
    "efficientnet_b0": EfficientNetSpec(width=1.0, depth=1.0, dropout=0.2),
    "efficientnet_b1": EfficientNetSpec(width=1.0, depth=1.1, dropout=0.2),
    "efficientnet_b2": EfficientNetSpec(width=1.1, depth=1.2, dropout=0.3),
    "efficientnet_b3": EfficientNetSpec(width=1.2, depth=1.4, dropout=0.3),
}


def build_efficientnet(
    name: str,
    *,
    num_classes: int,
    dtype: str = "float32",
    activation: str = "silu",
    dropout: float | None = None,
    drop_path: float = 0.2,
    width: float | None = None,
    depth: float | None = None,
) -> Classifier:
    """A network of the table `EFFICIENTNET`.

    Args:
        name: a line of the table.
        num_classes: at least 1.
        dtype: of the computation.
        activation: see `layers.activate`.
        dropout: before the last layer; None: the published one.
        drop_path: chance that a block with a shortcut is left out in training: of the
            i-th of n blocks, counted from 0, i / n times this.
        width: multiple of B0's channels instead of the published one.
        depth: multiple of B0's blocks instead of the published one.

    Raises:
        ValueError: something out of range.
    """
    check_common(name, num_classes=num_classes, dtype=dtype)
    spec = EFFICIENTNET[name]
    changes = {"width": width, "depth": depth, "dropout": dropout}
    changes = {key: value for key, value in changes.items() if value is not None}
    spec = dataclasses.replace(spec, **changes)
    check_rate(spec.dropout, f"dropout of {name}")
    check_rate(drop_path, f"drop_path of {name}")
    check_multiple(spec.width, f"width of {name}")
    check_multiple(spec.depth, f"depth of {name}")
    row = spec.row
    rates = (0.0, *linear_rates(float(drop_path), len(row.blocks))[:-1])
    backbone = RowOfBlocks(row, activation, dtype, rates)
    head = ConvHead(
        num_classes,
        spec.features,
        dropout=float(spec.dropout),
        activation=activation,
        dtype=dtype,
        epsilon=row.epsilon,
        momentum=row.momentum,
    )
    return Classifier(
        name=name,
        family="efficientnet",
        num_classes=num_classes,
        max_stride=1,
        feature_info=row.feature_info,
        dtype=dtype,
        spec=spec,
        module=BackboneAndHead(backbone, head),
        backbone=backbone,
        smallest=1,
    )
