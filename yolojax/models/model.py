"""What the rest of the package sees of a detector's network."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from yolojax.models.initial import anchor_prior
from yolojax.models.network import DTYPES, Network, check_common
from yolojax.ops.grid import Decoding, decode_maps

__all__ = ["DTYPES", "Anchors", "Model", "check_common", "checked_anchors"]

Anchors = Sequence[Sequence[Sequence[float]]]


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Model(Network):
    """A detector: pure functions of its variables, and what a loss must know.

    The paths of its variables start with `backbone`, `neck` and `head`, or, where a
    Darknet description makes no such difference, `body` and `head`. `family` is
    `yolov5`, `yaml`, `darknet` or `backbone`.

    Attributes: as `Network`, and
        strides: pixels per cell of every level, finest first.
        anchors: float32 [levels, a, 2], (width, height) in pixels.
        priors: float32 [p, 2], all anchors that boxes are compared with, also those
            that no level uses.
        decoding: how raw maps become boxes.
        levels: names of the head's layers, finest first.
    """

    strides: tuple[int, ...]
    anchors: np.ndarray
    priors: np.ndarray
    decoding: Decoding
    levels: tuple[str, ...]

    def init(
        self,
        seed: int,
        image_size: tuple[int, int] | None = None,
        *,
        kernels: str = "",
    ) -> dict[str, Any]:
        """First variables, see `Network.init`, with the prior of the head's biases."""
        variables = super().init(seed, image_size, kernels=kernels)
        head = variables["params"]["head"]
        rows = zip(self.levels, self.strides, self.anchors, strict=True)
        for level, stride, anchors in rows:
            prior = anchor_prior(self.num_classes, stride, len(anchors))
            head[level]["bias"] += prior
        return variables

    def decode(
        self, maps: Sequence[jax.Array]
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Boxes, objectness and class probabilities; see `ops.grid.decode_maps`."""
        return decode_maps(
            maps, anchors=self.anchors, strides=self.strides, decoding=self.decoding
        )


def checked_anchors(
    anchors: Anchors, name: str, *, num_levels: int
) -> tuple[tuple[tuple[float, float], ...], ...]:
    """Anchors as tuples of (width, height) in pixels, a row per level.

    Raises:
        ValueError: another number of levels, not equally many on each, or a side that
            is not above 0.
    """
    error = ValueError(
        f"anchors of {name} must be {num_levels} levels of equally many "
        f"(width, height) pairs above 0, in pixels; got {anchors!r}"
    )
    sizes = {len(level) for level in anchors}
    pairs = [tuple(pair) for level in anchors for pair in level]
    fits = len(anchors) == num_levels and len(sizes) == 1 and sizes != {0}
    if not fits or any(len(pair) != 2 for pair in pairs):
        raise error
    if not all(math.isfinite(side) and side > 0 for pair in pairs for side in pair):
        raise error
    return tuple(tuple((float(w), float(h)) for w, h in level) for level in anchors)
