"""Intersection over union and its generalised, distance and complete forms.

Boxes without area give finite values and finite gradients everywhere: every
denominator holds `EPS`, no square root is taken, and a point has a fixed angle.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from yolojax.ops.boxes import box_area

# The value of the published losses; far below any box of a pixel, or a grid cell.
EPS = 1e-7


class _Overlap(NamedTuple):
    iou: Float[Array, "*n"]
    union: Float[Array, "*n"]
    hull: Float[Array, "*n 2"]


def _overlap(boxes: Float[Array, "*n 4"], targets: Float[Array, "*n 4"]) -> _Overlap:
    """IoU, area of the union, and sides of the smallest box around each pair."""
    low, high = boxes[..., :2], boxes[..., 2:]
    target_low, target_high = targets[..., :2], targets[..., 2:]
    sides = jnp.minimum(high, target_high) - jnp.maximum(low, target_low)
    sides = jnp.maximum(sides, 0)
    intersection = sides[..., 0] * sides[..., 1]
    union = box_area(boxes) + box_area(targets) - intersection + EPS
    hull = jnp.maximum(high, target_high) - jnp.minimum(low, target_low)
    return _Overlap(intersection / union, union, hull)


def _centre_distance(
    boxes: Float[Array, "*n 4"],
    targets: Float[Array, "*n 4"],
    hull: Float[Array, "*n 2"],
) -> Float[Array, "*n"]:
    """Squared distance of the centres over the squared diagonal of the hull."""
    twice = targets[..., :2] + targets[..., 2:] - boxes[..., :2] - boxes[..., 2:]
    return jnp.sum(twice**2, axis=-1) / 4 / (jnp.sum(hull**2, axis=-1) + EPS)


def paired_iou(
    boxes: Float[Array, "*n 4"], targets: Float[Array, "*n 4"]
) -> Float[Array, "*n"]:
    """Intersection over union of each box with the target at the same index.

    Args:
        boxes: corners x1 y1 x2 y2, in pixels or grid cells.
        targets: corners in the same unit as `boxes`.

    Returns:
        Values in [0, 1]; 0 where either box has no area.
    """
    return _overlap(boxes, targets).iou


def paired_giou(
    boxes: Float[Array, "*n 4"], targets: Float[Array, "*n 4"]
) -> Float[Array, "*n"]:
    """Generalised IoU of each box with the target at the same index.

    Args:
        boxes: corners x1 y1 x2 y2, in pixels or grid cells.
        targets: corners in the same unit as `boxes`.

    Returns:
        Values in [-1, 1]; 1 for equal boxes, negative when far apart. Boxes
        without area give a finite value and a finite gradient.

    Source: Rezatofighi et al. 2019, arXiv:1902.09630, Algorithm 1.
    """
    iou, union, hull = _overlap(boxes, targets)
    hull_area = hull[..., 0] * hull[..., 1] + EPS
    return iou - (hull_area - union) / hull_area


def paired_diou(
    boxes: Float[Array, "*n 4"], targets: Float[Array, "*n 4"]
) -> Float[Array, "*n"]:
    """Distance IoU of each box with the target at the same index.

    Args:
        boxes: corners x1 y1 x2 y2, in pixels or grid cells.
        targets: corners in the same unit as `boxes`.

    Returns:
        Values in [-1, 1]; IoU less the squared distance of the centres over the
        squared diagonal of the box around both.

    Source: Zheng et al. 2019, arXiv:1911.08287, equation 7.
    """
    iou, _, hull = _overlap(boxes, targets)
    return iou - _centre_distance(boxes, targets, hull)


def paired_ciou(
    boxes: Float[Array, "*n 4"], targets: Float[Array, "*n 4"]
) -> Float[Array, "*n"]:
    """Complete IoU of each box with the target at the same index.

    Args:
        boxes: corners x1 y1 x2 y2, in pixels or grid cells.
        targets: corners in the same unit as `boxes`.

    Returns:
        Distance IoU less a penalty for a different aspect ratio, in [-2, 1]. The
        penalty's weight (alpha) counts as a constant in the gradient, as published.

    Source: Zheng et al. 2019, arXiv:1911.08287, equations 8 to 11. Departure: a box
    with neither width nor height counts as square and has no gradient from the
    aspect ratio, where the published code gives NaN.
    """
    iou, _, hull = _overlap(boxes, targets)
    aspect = (4 / math.pi**2) * (_angle(targets) - _angle(boxes)) ** 2
    weight = jax.lax.stop_gradient(aspect / (aspect - iou + (1 + EPS)))
    return iou - _centre_distance(boxes, targets, hull) - weight * aspect


def _angle(boxes: Float[Array, "*n 4"]) -> Float[Array, "*n"]:
    """Angle of the diagonal to the vertical, in radians: arctan(w / h)."""
    sides = boxes[..., 2:] - boxes[..., :2]
    is_point = jnp.all(jnp.abs(sides) < EPS, axis=-1)
    # Chosen before the arc tangent, whose gradient at (0, 0) is NaN even if unused.
    sides = jnp.where(is_point[..., None], jnp.ones_like(sides), sides)
    return jnp.arctan2(sides[..., 0], sides[..., 1])


def pairwise_iou(
    boxes: Float[Array, "n 4"], others: Float[Array, "m 4"]
) -> Float[Array, "n m"]:
    """Intersection over union of every box with every other box.

    Args:
        boxes: corners x1 y1 x2 y2, in pixels.
        others: corners in the same unit as `boxes`.

    Returns:
        Values in [0, 1]; 0 where either box has no area.
    """
    shape = (boxes.shape[0], others.shape[0], 4)
    return paired_iou(
        jnp.broadcast_to(boxes[:, None], shape), jnp.broadcast_to(others[None], shape)
    )
