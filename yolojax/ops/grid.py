"""From the raw maps of an anchor head to boxes in pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from yolojax.ops.boxes import centres_to_corners

# e^10 anchors are wider than any picture; beyond it exponents overflow.
LARGEST_LOGIT = 10.0


class Decoding(NamedTuple):
    """How the raw numbers of a head become boxes.

    Attributes:
        sizes: `square`: a side is (2 sigmoid)^2 anchors; `exponential`: exp anchors.
        scales: of each level, finest first: how far a centre reaches, in cells; 1 keeps
            it within its cell, s lets it out by (s - 1) / 2 on every side.
    """

    sizes: str
    scales: tuple[float, ...]


def decode_offsets(
    logits: Float[Array, "*n 4"],
    anchors: Float[Array, "*#n 2"],
    *,
    scale: float | Float[Array, "*#m"] = 2.0,
    sizes: str = "square",
) -> Float[Array, "*n 4"]:
    """Centre, relative to its cell's low corner, and size of predicted boxes.

    Args:
        logits: raw `x y w h` of the head.
        anchors: width and height of each prediction's anchor.
        scale: how far centres reach, in cells; see `Decoding`. An array ends in 1.
        sizes: see `Decoding`.

    Returns:
        `x y w h`: the centre in cells, within ((1 - scale) / 2, (1 + scale) / 2); the
        size in the unit of `anchors`: with `square` up to four times the anchor, with
        `exponential` up to e^10 times.

    Raises:
        ValueError: an unknown `sizes`.

    Source: `exponential`: Redmon and Farhadi 2018, arXiv:1804.02767, section 2.1; the
    scale: Bochkovskiy et al. 2020, arXiv:2004.10934, section 3.4; `square`: YOLOv5
    v6.0, as published in its documentation ("Eliminate grid sensitivity").
    """
    share = jax.nn.sigmoid(logits[..., :2])
    if sizes == "square":
        sides = (jax.nn.sigmoid(logits[..., 2:]) * 2) ** 2 * anchors
    elif sizes == "exponential":
        sides = jnp.exp(jnp.minimum(logits[..., 2:], LARGEST_LOGIT)) * anchors
    else:
        raise ValueError(f"sizes must be square or exponential, not {sizes!r}")
    return jnp.concatenate([share * scale - (scale - 1) / 2, sides], axis=-1)


def decode_level(
    raw: Float[Array, "b gh gw a channels"],
    anchors: np.ndarray,
    stride: int,
    *,
    scale: float = 2.0,
    sizes: str = "square",
) -> Float[Array, "b a gh gw 4"]:
    """Corners in pixels of the boxes of one level's raw map.

    Args:
        raw: the head's map; channels are `x y w h objectness`, then the classes.
        anchors: [a, 2], width and height in pixels.
        stride: pixels per cell.
        scale: see `decode_offsets`.
        sizes: see `decode_offsets`.
    """
    _, height, width, num_anchors, _ = raw.shape
    priors = jnp.asarray(anchors, raw.dtype).reshape(1, num_anchors, 1, 1, 2)
    cells = jnp.stack(
        jnp.meshgrid(jnp.arange(width), jnp.arange(height), indexing="xy"), axis=-1
    ).astype(raw.dtype)
    local = decode_offsets(
        jnp.moveaxis(raw[..., :4], 3, 1), priors, scale=scale, sizes=sizes
    )
    centres = (local[..., :2] + cells[None, None]) * stride
    return centres_to_corners(jnp.concatenate([centres, local[..., 2:]], axis=-1))


def decode_maps(
    maps: Sequence[Float[Array, "b _gh _gw a channels"]],
    *,
    anchors: np.ndarray,
    strides: Sequence[int],
    decoding: Decoding,
) -> tuple[Float[Array, "b n 4"], Float[Array, "b n"], Float[Array, "b n c"]]:
    """Boxes, objectness and class probabilities of an anchor head's raw maps.

    Args:
        maps: one raw map a level, channels `x y w h objectness` and the classes.
        anchors: [levels, a, 2], width and height in pixels.
        strides: pixels per cell of each level.
        decoding: how raw numbers become boxes.

    Returns:
        boxes: corners x1 y1 x2 y2 in pixels, not clipped to the picture.
        objectness: in [0, 1].
        probabilities: of each class given an object, in [0, 1]; a detection's score
            is their product with the objectness.
        The order is level, then anchor, then row, then column, as published.
    """
    boxes, objectness, probabilities = [], [], []
    levels = zip(maps, anchors, strides, decoding.scales, strict=True)
    for raw, priors, stride, scale in levels:
        batch, _, _, _, channels = raw.shape
        corners = decode_level(raw, priors, stride, scale=scale, sizes=decoding.sizes)
        boxes.append(corners.reshape(batch, -1, 4))
        shares = jax.nn.sigmoid(jnp.moveaxis(raw[..., 4:], 3, 1))
        shares = shares.reshape(batch, -1, channels - 4)
        objectness.append(shares[..., 0])
        probabilities.append(shares[..., 1:])
    return (
        jnp.concatenate(boxes, axis=1),
        jnp.concatenate(objectness, axis=1),
        jnp.concatenate(probabilities, axis=1),
    )
