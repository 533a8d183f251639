"""From the raw maps of an anchor head to boxes in pixels."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from yolojax.ops.boxes import centres_to_corners


def decode_offsets(
    logits: Float[Array, "*n 4"], anchors: Float[Array, "*#n 2"]
) -> Float[Array, "*n 4"]:
    """Centre, relative to its cell's low corner, and size of predicted boxes.

    Args:
        logits: raw `x y w h` of the head.
        anchors: width and height of each prediction's anchor.

    Returns:
        `x y w h`: the centre in cells, within (-0.5, 1.5); the size in the unit of
        `anchors`, up to four times the anchor.

    Source: YOLOv5 v6.0, as published in its documentation ("Eliminate grid
    sensitivity").
    """
    share = jax.nn.sigmoid(logits) * 2
    return jnp.concatenate(
        [share[..., :2] - 0.5, share[..., 2:] ** 2 * anchors], axis=-1
    )


def decode_level(
    raw: Float[Array, "b gh gw a channels"], anchors: np.ndarray, stride: int
) -> Float[Array, "b a gh gw 4"]:
    """Corners in pixels of the boxes of one level's raw map.

    Args:
        raw: the head's map; channels are `x y w h objectness`, then the classes.
        anchors: [a, 2], width and height in pixels.
        stride: pixels per cell.
    """
    _, height, width, num_anchors, _ = raw.shape
    sizes = jnp.asarray(anchors, raw.dtype).reshape(1, num_anchors, 1, 1, 2)
    cells = jnp.stack(
        jnp.meshgrid(jnp.arange(width), jnp.arange(height), indexing="xy"), axis=-1
    ).astype(raw.dtype)
    local = decode_offsets(jnp.moveaxis(raw[..., :4], 3, 1), sizes)
    centres = (local[..., :2] + cells[None, None]) * stride
    return centres_to_corners(jnp.concatenate([centres, local[..., 2:]], axis=-1))


def decode_yolov5(
    maps: Sequence[Float[Array, "b _gh _gw a channels"]],
    *,
    anchors: np.ndarray,
    strides: Sequence[int],
) -> tuple[Float[Array, "b n 4"], Float[Array, "b n"], Float[Array, "b n c"]]:
    """Boxes, objectness and class probabilities of a YOLOv5 head's raw maps.

    Args:
        maps: one raw map a level, channels `x y w h objectness` and the classes.
        anchors: [levels, a, 2], width and height in pixels.
        strides: pixels per cell of each level.

    Returns:
        boxes: corners x1 y1 x2 y2 in pixels, not clipped to the picture.
        objectness: in [0, 1].
        probabilities: of each class given an object, in [0, 1]; a detection's score
            is their product with the objectness.
        The order is level, then anchor, then row, then column, as published.
    """
    boxes, objectness, probabilities = [], [], []
    for raw, sizes, stride in zip(maps, anchors, strides, strict=True):
        batch, _, _, _, channels = raw.shape
        boxes.append(decode_level(raw, sizes, stride).reshape(batch, -1, 4))
        shares = jax.nn.sigmoid(jnp.moveaxis(raw[..., 4:], 3, 1))
        shares = shares.reshape(batch, -1, channels - 4)
        objectness.append(shares[..., 0])
        probabilities.append(shares[..., 1:])
    return (
        jnp.concatenate(boxes, axis=1),
        jnp.concatenate(objectness, axis=1),
        jnp.concatenate(probabilities, axis=1),
    )
