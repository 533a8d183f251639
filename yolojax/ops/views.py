"""Other looks at the same pictures: smaller, larger, mirrored; and the way back.

A view shows all of a picture: mirrored first, then resized, then filled up with grey
at the bottom and the right to a size that the network takes.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

# That of the published letterbox, in [0, 1].
GREY = 114 / 255


class View(NamedTuple):
    """How a picture is looked at.

    Attributes:
        scale: of both sides.
        mirrored: left and right are exchanged.
    """

    scale: float = 1.0
    mirrored: bool = False


PLAIN = View()
# What the published test-time augmentation looks at.
USUAL = (PLAIN, View(0.83, mirrored=True), View(0.67))


def view_size(size: tuple[int, int], view: View) -> tuple[int, int]:
    """(height, width) of the resized picture, at least 1 each, before it is filled up.

    Args:
        size: (height, width) of the picture, in pixels.
        view: gives the scale.
    """
    height, width = (max(1, int(side * view.scale)) for side in size)
    return height, width


def view_of(
    images: Float[Array, "b h w 3"], view: View, *, stride: int
) -> Float[Array, "b gh gw 3"]:
    """The pictures as the view shows them.

    Args:
        images: in [0, 1].
        view: how they are looked at.
        stride: both sides of the result are multiples of it.

    Returns:
        Resized by linear interpolation between pixels' centres, without a filter
        before, as published; grey around.

    Source: YOLOv5 v6.0, its test-time augmentation.
    """
    batch_size, *size, _ = images.shape
    height, width = view_size((size[0], size[1]), view)
    if view.mirrored:
        images = images[:, :, ::-1]
    if [height, width] != size:
        shape = (batch_size, height, width, 3)
        images = jax.image.resize(images, shape, "linear", antialias=False)
    around = ((0, 0), (0, -height % stride), (0, -width % stride), (0, 0))
    return jnp.pad(images, around, constant_values=GREY)


def boxes_from_view(
    boxes: Float[Array, "*n 4"], view: View, *, size: tuple[int, int]
) -> Float[Array, "*n 4"]:
    """Boxes found on a view, as they lie on the pictures.

    Args:
        boxes: corners x1 y1 x2 y2, in pixels of the view.
        view: what they were found on.
        size: (height, width) of the pictures, in pixels.

    Returns:
        Corners in pixels of the pictures; exact for the sides that the view has after
        rounding. Where a box reaches into the grey, out of the picture.
    """
    height, width = size
    seen = view_size(size, view)
    scale = jnp.array([width / seen[1], height / seen[0]] * 2, boxes.dtype)
    x1, y1, x2, y2 = (boxes[..., i] * scale[i] for i in range(4))
    if view.mirrored:
        x1, x2 = width - x2, width - x1
    return jnp.stack([x1, y1, x2, y2], axis=-1)
