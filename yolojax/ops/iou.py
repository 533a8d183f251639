"""Intersection over union and the measures that grew out of it.

Boxes without area give finite values and finite gradients everywhere: every
denominator holds `EPS`, no square root is taken, and a point has a fixed angle.
Boxes of 16 bits are compared in float32. The loss is 1 less the measure.

Every measure is the IoU less its penalties; with a `power`, which is above 0, the IoU
and each penalty are raised to it before (alpha-IoU: He et al. 2021, arXiv:2110.13675,
which recommends 3).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from yolojax.ops.boxes import box_area
from yolojax.ops.precision import computed_in_single

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


def _raised(values: Float[Array, "*n"], power: float) -> Float[Array, "*n"]:
    """The values to a power, with a finite gradient at 0."""
    if power == 1:
        return values
    return jnp.maximum(values, jnp.finfo(values.dtype).tiny ** 0.5) ** power


@computed_in_single
def paired_iou(
    boxes: Float[Array, "*n 4"], targets: Float[Array, "*n 4"], *, power: float = 1.0
) -> Float[Array, "*n"]:
    """Intersection over union of each box with the target at the same index.

    Args:
        boxes: corners x1 y1 x2 y2, in pixels or grid cells.
        targets: corners in the same unit as `boxes`.
        power: see the module.

    Returns:
        Values in [0, 1]; 0 where either box has no area.
    """
    return _raised(_overlap(boxes, targets).iou, power)


@computed_in_single
def paired_giou(
    boxes: Float[Array, "*n 4"], targets: Float[Array, "*n 4"], *, power: float = 1.0
) -> Float[Array, "*n"]:
    """Generalised IoU of each box with the target at the same index.

    Args:
        boxes: corners x1 y1 x2 y2, in pixels or grid cells.
        targets: corners in the same unit as `boxes`.
        power: see the module.

    Returns:
        Values in [-1, 1]; 1 for equal boxes, negative when far apart. Boxes
        without area give a finite value and a finite gradient.

    Source: Rezatofighi et al. 2019, arXiv:1902.09630, Algorithm 1.
    """
    iou, union, hull = _overlap(boxes, targets)
    hull_area = hull[..., 0] * hull[..., 1] + EPS
    return _raised(iou, power) - _raised((hull_area - union) / hull_area, power)


@computed_in_single
def paired_diou(
    boxes: Float[Array, "*n 4"], targets: Float[Array, "*n 4"], *, power: float = 1.0
) -> Float[Array, "*n"]:
    """Distance IoU of each box with the target at the same index.

    Args:
        boxes: corners x1 y1 x2 y2, in pixels or grid cells.
        targets: corners in the same unit as `boxes`.
        power: see the module.

    Returns:
        Values in [-1, 1]; IoU less the squared distance of the centres over the
        squared diagonal of the box around both.

    Source: Zheng et al. 2019, arXiv:1911.08287, equation 7.
    """
    iou, _, hull = _overlap(boxes, targets)
    distance = _centre_distance(boxes, targets, hull)
    return _raised(iou, power) - _raised(distance, power)


@computed_in_single
def paired_ciou(
    boxes: Float[Array, "*n 4"], targets: Float[Array, "*n 4"], *, power: float = 1.0
) -> Float[Array, "*n"]:
    """Complete IoU of each box with the target at the same index.

    Args:
        boxes: corners x1 y1 x2 y2, in pixels or grid cells.
        targets: corners in the same unit as `boxes`.
        power: see the module.

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
    distance = _centre_distance(boxes, targets, hull)
    penalties = _raised(distance, power), _raised(weight * aspect, power)
    return _raised(iou, power) - penalties[0] - penalties[1]


@computed_in_single
def paired_eiou(
    boxes: Float[Array, "*n 4"], targets: Float[Array, "*n 4"], *, power: float = 1.0
) -> Float[Array, "*n"]:
    """Efficient IoU of each box with the target at the same index.

    Args:
        boxes: corners x1 y1 x2 y2, in pixels or grid cells.
        targets: corners in the same unit as `boxes`.
        power: see the module.

    Returns:
        Distance IoU less the squared differences of width and of height, each over
        the squared side of the box around both; in [-3, 1].

    Source: Zhang et al. 2021, arXiv:2101.08158.
    """
    iou, _, hull = _overlap(boxes, targets)
    sides = (boxes[..., 2:] - boxes[..., :2]) - (targets[..., 2:] - targets[..., :2])
    shape = _raised(sides**2 / (hull**2 + EPS), power)
    distance = _raised(_centre_distance(boxes, targets, hull), power)
    return _raised(iou, power) - distance - jnp.sum(shape, axis=-1)


@computed_in_single
def paired_siou(
    boxes: Float[Array, "*n 4"],
    targets: Float[Array, "*n 4"],
    *,
    shape_power: float = 4.0,
    power: float = 1.0,
) -> Float[Array, "*n"]:
    """SCYLLA-IoU of each box with the target at the same index.

    Args:
        boxes: corners x1 y1 x2 y2, in pixels or grid cells.
        targets: corners in the same unit as `boxes`.
        shape_power: theta, how much a small difference of sides counts; 2 to 6.
        power: see the module.

    Returns:
        IoU less half the sum of the distance cost, which weighs x and y by the angle
        between the centres, and of the shape cost; in [-2, 1].

    Source: Gevorgyan 2022, arXiv:2205.12740, section 2. The published
    1 - 2 sin^2(arcsin(sin a) - pi / 4) is written as sin 2a, which has a gradient
    where the centres stand side by side.
    """
    iou, _, hull = _overlap(boxes, targets)
    apart = (targets[..., :2] + targets[..., 2:] - boxes[..., :2] - boxes[..., 2:]) / 2
    angle = 2 * jnp.prod(jnp.abs(apart), axis=-1) / (jnp.sum(apart**2, axis=-1) + EPS)
    ratio = apart**2 / (hull**2 + EPS)
    distance = jnp.sum(1 - jnp.exp((angle - 2)[..., None] * ratio), axis=-1)
    sides = jnp.maximum(boxes[..., 2:] - boxes[..., :2], 0)
    others = jnp.maximum(targets[..., 2:] - targets[..., :2], 0)
    change = jnp.abs(sides - others) / (jnp.maximum(sides, others) + EPS)
    shape = jnp.sum(_raised(1 - jnp.exp(-change), shape_power), axis=-1)
    return _raised(iou, power) - _raised((distance + shape) / 2, power)


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
