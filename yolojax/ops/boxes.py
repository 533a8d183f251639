"""Conversions of boxes between corner and centre form, areas and clipping."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def corners_to_centres(boxes: Float[Array, "*n 4"]) -> Float[Array, "*n 4"]:
    """Centre and size, `x y w h`, of boxes given by their corners.

    Args:
        boxes: corners x1 y1 x2 y2, in any unit, which the result keeps.
    """
    low, high = boxes[..., :2], boxes[..., 2:]
    return jnp.concatenate([(low + high) / 2, high - low], axis=-1)


def centres_to_corners(boxes: Float[Array, "*n 4"]) -> Float[Array, "*n 4"]:
    """Corners x1 y1 x2 y2 of boxes given by centre and size; the inverse.

    Args:
        boxes: `x y w h`, in any unit, which the result keeps.
    """
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return jnp.concatenate([centre - half, centre + half], axis=-1)


def box_area(boxes: Float[Array, "*n 4"]) -> Float[Array, "*n"]:
    """Area of each box, in square units; 0 for a box whose corners are swapped.

    Args:
        boxes: corners x1 y1 x2 y2.
    """
    sides = jnp.maximum(boxes[..., 2:] - boxes[..., :2], 0)
    return sides[..., 0] * sides[..., 1]


def clip_boxes(
    boxes: Float[Array, "*n 4"], size: Int[Array, "*#n 2"] | Float[Array, "*#n 2"]
) -> Float[Array, "*n 4"]:
    """The boxes cut to the picture; one that lies outside becomes a line or point.

    Args:
        boxes: corners x1 y1 x2 y2, in pixels.
        size: height and width of the picture, with as many axes as `boxes`: the
            leading ones are equal or 1.
    """
    limits = jnp.flip(size.astype(boxes.dtype), axis=-1)
    return jnp.clip(boxes, 0, jnp.concatenate([limits, limits], axis=-1))
