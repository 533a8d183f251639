"""Heads of classifiers that start with a convolution."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from yolojax.models.classifier import EPSILON, MOMENTUM, Maps, logits, mean_of_map
from yolojax.models.dropping import Dropout
from yolojax.models.layers import ConvUnit, activate


class ConvHead(nn.Module):
    """A 1x1 unit on the last map, its mean, and one or two linear layers.

    Attributes:
        num_classes: logits that come out.
        features: channels of the unit.
        hidden: width of the linear layer before the last; 0: there is none.
        dropout: before the last layer.
        activation: of the unit and the hidden layer, see `layers.activate`.
        dtype: of the computation; logits are float32.
        epsilon: of batch normalisation.
        momentum: likewise.
    """

    num_classes: int
    features: int
    hidden: int = 0
    dropout: float = 0.0
    activation: str = "relu"
    dtype: str = "float32"
    epsilon: float = EPSILON
    momentum: float = MOMENTUM

    @nn.compact
    def __call__(self, maps: Maps, *, train: bool) -> tuple[jax.Array, ...]:
        unit = ConvUnit(
            self.features,
            dtype=self.dtype,
            activation=self.activation,
            epsilon=self.epsilon,
            momentum=self.momentum,
            name="conv",
        )
        x = mean_of_map(unit(maps[-1], train=train))
        if self.hidden:
            dense = nn.Dense(self.hidden, dtype=jnp.dtype(self.dtype), name="dense")
            x = activate(dense(x), self.activation)
        x = Dropout(self.dropout, name="dropout")(x, train=train)
        return (logits(x, self.num_classes, self.dtype),)
