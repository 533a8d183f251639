"""What is left to see of boxes when part of their picture is covered."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from yolojax.ops.boxes import box_area

# A row or column of a box counts as seen from this much of a pixel on: above what a
# matrix unit may lose by rounding, and less than anyone would see.
SEEN = 0.01


def rectangle_mask(
    rectangles: Float[Array, "b k 4"], image_size: tuple[int, int]
) -> Bool[Array, "b h w"]:
    """The pixels whose centre lies in one of a picture's rectangles.

    Args:
        rectangles: corners x1 y1 x2 y2, in pixels; one without area covers nothing.
        image_size: height and width of the mask.
    """
    height, width = image_size
    x = (jnp.arange(width, dtype=jnp.float32) + 0.5)[None, None, :]
    y = (jnp.arange(height, dtype=jnp.float32) + 0.5)[None, :, None]
    mask = jnp.zeros((rectangles.shape[0], height, width), bool)
    for index in range(rectangles.shape[1]):
        x1, y1, x2, y2 = (rectangles[:, index, i, None, None] for i in range(4))
        mask = mask | ((x >= x1) & (x < x2) & (y >= y1) & (y < y2))
    return mask


def uncovered_boxes(
    boxes: Float[Array, "*b n 4"], rectangles: Float[Array, "*b k 4"]
) -> tuple[Float[Array, "*b n 4"], Float[Array, "*b n"]]:
    """What rectangles leave of boxes: the box around it, and its share of the area.

    Exact, also where rectangles overlap. The rectangles' sides cut a box into cells,
    each of which is covered or not, so that the work grows with the square of `k`.

    Args:
        boxes: corners x1 y1 x2 y2.
        rectangles: what lies over the boxes, in the same unit; those without area
            cover nothing.

    Returns:
        Boxes, zeros where nothing is left, and shares in [0, 1], 0 for a box without
        area.
    """
    (x_low, x_high, x_in), (y_low, y_high, y_in) = (
        _cells(boxes, rectangles, axis) for axis in (0, 1)
    )
    # [*b, n, cells of y, cells of x]
    covered = jnp.any(x_in[..., None, :, :] & y_in[..., :, None, :], axis=-1)
    areas = (x_high - x_low)[..., None, :] * (y_high - y_low)[..., :, None]
    left = ~covered & (areas > 0)
    area = box_area(boxes)
    share = jnp.sum(jnp.where(left, areas, 0.0), axis=(-2, -1))
    by_x, by_y = jnp.any(left, axis=-2), jnp.any(left, axis=-1)
    around = jnp.stack(
        [
            jnp.min(jnp.where(by_x, x_low, jnp.inf), axis=-1),
            jnp.min(jnp.where(by_y, y_low, jnp.inf), axis=-1),
            jnp.max(jnp.where(by_x, x_high, -jnp.inf), axis=-1),
            jnp.max(jnp.where(by_y, y_high, -jnp.inf), axis=-1),
        ],
        axis=-1,
    )
    some = jnp.any(by_x, axis=-1)
    return (
        jnp.where(some[..., None], around, 0.0),
        jnp.where(some, jnp.minimum(share / jnp.where(some, area, 1.0), 1.0), 0.0),
    )


def unmasked_boxes(
    boxes: Float[Array, "b n 4"], mask: Bool[Array, "b h w"]
) -> tuple[Float[Array, "b n 4"], Float[Array, "b n"]]:
    """What a mask leaves of boxes: the box around it, and its share of the area.

    Two products of matrices for a picture, whatever the shape of the mask.

    Args:
        boxes: corners x1 y1 x2 y2, in pixels, within the picture.
        mask: True for covered pixels.

    Returns:
        As `uncovered_boxes`; sides that nothing covers are as they were, to the bit.
    """
    _, height, width = mask.shape
    covered = mask.astype(jnp.float32)
    by_x = _overlaps(boxes[..., 0], boxes[..., 2], width)
    by_y = _overlaps(boxes[..., 1], boxes[..., 3], height)
    columns = jnp.einsum("bnh,bhw->bnw", by_y, covered)
    rows = jnp.einsum("bnw,bhw->bnh", by_x, covered)
    sides = boxes[..., 2:] - boxes[..., :2]
    x_seen = (by_x > 0) & (sides[..., 1:] - columns > SEEN)
    y_seen = (by_y > 0) & (sides[..., :1] - rows > SEEN)
    area = box_area(boxes)
    some = jnp.any(x_seen, axis=-1) & jnp.any(y_seen, axis=-1) & (area > 0)
    low_x, high_x = _seen(x_seen, boxes[..., 0], boxes[..., 2])
    low_y, high_y = _seen(y_seen, boxes[..., 1], boxes[..., 3])
    around = jnp.stack([low_x, low_y, high_x, high_y], axis=-1)
    share = 1.0 - jnp.sum(columns * by_x, axis=-1) / jnp.where(some, area, 1.0)
    return (
        jnp.where(some[..., None], around, 0.0),
        jnp.where(some, jnp.clip(share, 0.0, 1.0), 0.0),
    )


def _cells(
    boxes: Float[Array, "*b n 4"], rectangles: Float[Array, "*b k 4"], axis: int
) -> tuple[Float[Array, "*b n c"], Float[Array, "*b n c"], Bool[Array, "*b n c k"]]:
    """Along one axis: both ends of each cell, and which rectangles reach over it."""
    low, high = boxes[..., axis, None], boxes[..., axis + 2, None]
    first, last = rectangles[..., None, :, axis], rectangles[..., None, :, axis + 2]
    cuts = [low, jnp.clip(first, low, high), jnp.clip(last, low, high), high]
    ends = jnp.sort(jnp.concatenate(cuts, axis=-1), axis=-1)
    start, stop = ends[..., :-1], ends[..., 1:]
    inside = (start[..., None] >= first[..., None, :]) & (
        stop[..., None] <= last[..., None, :]
    )
    return start, stop, inside


def _overlaps(
    low: Float[Array, "b n"], high: Float[Array, "b n"], length: int
) -> Float[Array, "b n l"]:
    """How much of each pixel of an axis lies between two positions."""
    pixel = jnp.arange(length, dtype=jnp.float32)[None, None]
    first = jnp.maximum(pixel, low[..., None])
    return jnp.maximum(jnp.minimum(pixel + 1.0, high[..., None]) - first, 0.0)


def _seen(
    seen: Bool[Array, "b n l"], low: Float[Array, "b n"], high: Float[Array, "b n"]
) -> tuple[Float[Array, "b n"], Float[Array, "b n"]]:
    """From where to where pixels are seen, within `low` and `high`."""
    first = jnp.argmax(seen, axis=-1)
    last: Int[Array, "b n"] = seen.shape[-1] - jnp.argmax(seen[..., ::-1], axis=-1)
    return (
        jnp.maximum(low, first.astype(jnp.float32)),
        jnp.minimum(high, last.astype(jnp.float32)),
    )
