"""Element-wise losses of box regression, in grid cells.

All take corners x1 y1 x2 y2 of predictions and of targets in the same unit and give
one value a pair, 0 for equal boxes. Boxes with sides of 0 give a finite value and a
finite gradient. No gradient is meant to go to the targets.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from yolojax.ops import iou
from yolojax.ops.boxes import centres_to_corners, corners_to_centres
from yolojax.ops.grid import decode_offsets
from yolojax.ops.precision import computed_in_single

Boxes = Float[Array, "*n 4"]
Losses = Float[Array, "*n"]


def predicted_boxes(
    logits: Float[Array, "*n 4"], anchors: Float[Array, "*n 2"], **decoding: Any
) -> Float[Array, "*n 4"]:
    """Corners of raw predictions, in cells, relative to the low corner of their cell.

    Args:
        logits: raw `x y w h` of the head.
        anchors: width and height of each prediction's anchor, in cells.
        **decoding: see `ops.grid.decode_offsets`.
    """
    return centres_to_corners(decode_offsets(logits, anchors, **decoding))


def predicted_ciou(
    logits: Float[Array, "*n 4"],
    anchors: Float[Array, "*n 2"],
    targets: Float[Array, "*n 4"],
) -> Float[Array, "*n"]:
    """Complete IoU of raw predictions with their targets; the loss is 1 less it.

    Args:
        logits: raw `x y w h` of the head.
        anchors: width and height of each prediction's anchor, in cells.
        targets: `x y w h` in cells, the centre relative to the cell's low corner.

    Returns:
        Values in [-2, 1]; finite, as is the gradient, for targets without area.

    Source: CIoU as in `yolojax.ops.iou.paired_ciou`, decoding as in
    `yolojax.ops.grid.decode_offsets`.
    """
    return iou.paired_ciou(
        predicted_boxes(logits, anchors), centres_to_corners(targets)
    )


@computed_in_single
def iou_loss(boxes: Boxes, targets: Boxes, *, power: float = 1.0) -> Losses:
    """1 - IoU; see `ops.iou.paired_iou`. Boxes apart have no gradient."""
    return 1 - iou.paired_iou(boxes, targets, power=power)


@computed_in_single
def giou_loss(boxes: Boxes, targets: Boxes, *, power: float = 1.0) -> Losses:
    """1 - generalised IoU; see `ops.iou.paired_giou`."""
    return 1 - iou.paired_giou(boxes, targets, power=power)


@computed_in_single
def diou_loss(boxes: Boxes, targets: Boxes, *, power: float = 1.0) -> Losses:
    """1 - distance IoU; see `ops.iou.paired_diou`."""
    return 1 - iou.paired_diou(boxes, targets, power=power)


@computed_in_single
def ciou_loss(boxes: Boxes, targets: Boxes, *, power: float = 1.0) -> Losses:
    """1 - complete IoU; see `ops.iou.paired_ciou`."""
    return 1 - iou.paired_ciou(boxes, targets, power=power)


@computed_in_single
def eiou_loss(boxes: Boxes, targets: Boxes, *, power: float = 1.0) -> Losses:
    """1 - efficient IoU; see `ops.iou.paired_eiou`."""
    return 1 - iou.paired_eiou(boxes, targets, power=power)


@computed_in_single
def siou_loss(
    boxes: Boxes, targets: Boxes, *, shape_power: float = 4.0, power: float = 1.0
) -> Losses:
    """1 - SCYLLA-IoU; see `ops.iou.paired_siou`."""
    return 1 - iou.paired_siou(boxes, targets, shape_power=shape_power, power=power)


@computed_in_single
def wise_iou_loss(boxes: Boxes, targets: Boxes, *, power: float = 1.0) -> Losses:
    """1 - IoU, weighted up by the distance of the centres; in [0, e].

    The weight is the exponential of the squared distance over the squared diagonal
    of the box around both, which counts as a constant in the gradient.

    Args:
        boxes: predictions.
        targets: what they should be.
        power: of the IoU.

    Source: Wise-IoU v1, Tong et al. 2023, arXiv:2301.10051.
    """
    low = jnp.minimum(boxes[..., :2], targets[..., :2])
    high = jnp.maximum(boxes[..., 2:], targets[..., 2:])
    diagonal = jax.lax.stop_gradient(jnp.sum((high - low) ** 2, axis=-1) + iou.EPS)
    apart = (corners_to_centres(boxes) - corners_to_centres(targets))[..., :2]
    weight = jnp.exp(jnp.sum(apart**2, axis=-1) / diagonal)
    return weight * iou_loss(boxes, targets, power=power)


@computed_in_single
def l1_loss(boxes: Boxes, targets: Boxes) -> Losses:
    """Sum of the absolute differences of `x y w h`, in the boxes' unit."""
    apart = corners_to_centres(boxes) - corners_to_centres(targets)
    return jnp.sum(jnp.abs(apart), axis=-1)


@computed_in_single
def smooth_l1_loss(boxes: Boxes, targets: Boxes, *, beta: float = 1.0) -> Losses:
    """Sum of the smooth absolute differences of `x y w h`, in the boxes' unit.

    Args:
        boxes: predictions.
        targets: what they should be.
        beta: the difference up to which the loss is d^2 / (2 beta); beyond it is
            |d| - beta / 2.

    Source: Girshick 2015, arXiv:1504.08083, equation 3, where beta is 1.
    """
    apart = jnp.abs(corners_to_centres(boxes) - corners_to_centres(targets))
    near = jnp.minimum(apart, beta)
    return jnp.sum(near**2 / (2 * beta) + (apart - near), axis=-1)
