"""What the rest of the package sees of a classifier, and the heads that they share.

A classifier is a backbone and a head. Backbones give the maps of their stages, finest
first, whose channels and strides `feature_info` names: the head takes the last one, and
a detector's neck several. Normalisation has the epsilon and momentum that published
classifiers were trained with, not those of YOLO.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from yolojax.models.dropping import Dropout
from yolojax.models.layers import activate, wide_dtype
from yolojax.models.network import Network

# Of batch normalisation, unless a family says otherwise.
EPSILON = 1e-5
MOMENTUM = 0.1

Maps = tuple[jax.Array, ...]


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Classifier(Network):
    """A classifier: pure functions of its variables.

    The paths of its variables start with `backbone` and `head` (auxiliary heads:
    `auxiliary`); `family` is that of its file. `apply` gives logits float32 [b, c],
    in training followed by those of auxiliary heads.

    Attributes: as `Network`, and
        backbone: the module that gives the maps of `feature_info`, for detectors.
        smallest: the least height and width of a picture.
    """

    backbone: Any
    smallest: int

    @property
    def example_size(self) -> tuple[int, int]:
        """The (height, width) of pictures that show the shapes of all variables."""
        return (self.smallest, self.smallest)

    def check_size(self, image_size: Sequence[int]) -> None:
        """Check that (height, width) are large enough.

        Raises:
            ValueError: they are not; the message names the least that is.
        """
        if any(side < self.smallest for side in image_size):
            raise ValueError(
                f"image size (height, width) {tuple(image_size)} is too small for "
                f"{self.name}, which takes {self.smallest} px and more"
            )


class BackboneAndHead(nn.Module):
    """A whole classifier: pictures [b, h, w, 3] to a tuple of logits [b, c].

    Attributes:
        backbone: from pictures to the maps of its stages.
        head: from these maps to a tuple of logits, the main ones first.
    """

    backbone: nn.Module
    head: nn.Module

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> tuple[jax.Array, ...]:
        return self.head(self.backbone(images, train=train), train=train)  # type: ignore[operator]


class LinearHead(nn.Module):
    """The mean of the last map, and one linear layer.

    Attributes:
        num_classes: logits that come out.
        dropout: of the mean.
        dtype: of the computation; logits are float32.
    """

    num_classes: int
    dropout: float = 0.0
    dtype: str = "float32"

    @nn.compact
    def __call__(self, maps: Maps, *, train: bool) -> tuple[jax.Array, ...]:
        x = mean_of_map(maps[-1])
        x = Dropout(self.dropout, name="dropout")(x, train=train)
        return (logits(x, self.num_classes, self.dtype),)


class DenseHead(nn.Module):
    """The last map pooled to a fixed size, and several linear layers.

    Attributes:
        num_classes: logits that come out.
        hidden: width of the layers before the last.
        size: height and width that the map is pooled to.
        dropout: before each layer that `dropped` names.
        dropped: numbers of the layers, from 0, that dropout comes before.
        activation: see `layers.activate`.
        dtype: of the computation; logits are float32.
    """

    num_classes: int
    hidden: tuple[int, ...]
    size: int
    dropout: float = 0.0
    dropped: tuple[int, ...] = ()
    activation: str = "relu"
    dtype: str = "float32"

    @nn.compact
    def __call__(self, maps: Maps, *, train: bool) -> tuple[jax.Array, ...]:
        x = adaptive_mean(maps[-1], self.size)
        # The order of published files: channels first.
        x = jnp.transpose(x, (0, 3, 1, 2)).reshape(x.shape[0], -1)
        for number, width in enumerate(self.hidden):
            x = self._dropped(x, number, train)
            dense = nn.Dense(width, dtype=jnp.dtype(self.dtype), name=f"dense{number}")
            x = activate(dense(x), self.activation)
        x = self._dropped(x, len(self.hidden), train)
        return (logits(x, self.num_classes, self.dtype),)

    def _dropped(self, x: jax.Array, number: int, train: bool) -> jax.Array:
        if number not in self.dropped:
            return x
        return Dropout(self.dropout, name=f"dropout{number}")(x, train=train)


def logits(x: jax.Array, num_classes: int, dtype: str) -> jax.Array:
    """The last layer of a head, called `linear`: [b, n] to float32 [b, c].

    To be called in a module's compact method.
    """
    dense = nn.Dense(num_classes, dtype=jnp.dtype(dtype), name="linear")
    return dense(x).astype(wide_dtype(dtype))


def mean_of_map(x: jax.Array) -> jax.Array:
    """The mean over rows and columns of [b, h, w, c], summed in float32."""
    wide = wide_dtype(x.dtype.name)
    return jnp.mean(x.astype(wide), axis=(1, 2)).astype(x.dtype)


def adaptive_mean(x: jax.Array, size: int) -> jax.Array:
    """The means of `size` x `size` parts of [b, h, w, c] that cover it evenly.

    Part i of n pixels goes from floor(i n / size) to ceil((i + 1) n / size), so that
    parts share pixels where `size` does not divide n, and repeat them where n is less.
    """
    for axis in (1, 2):
        length = x.shape[axis]
        if length == size:
            continue
        parts = [
            jnp.mean(
                jax.lax.slice_in_dim(
                    x, i * length // size, -(-(i + 1) * length // size), axis=axis
                ),
                axis=axis,
                keepdims=True,
            )
            for i in range(size)
        ]
        x = jnp.concatenate(parts, axis=axis)
    return x
