"""Element-wise losses of box regression."""

from __future__ import annotations

from jaxtyping import Array, Float

from yolojax.ops.boxes import centres_to_corners
from yolojax.ops.grid import decode_offsets
from yolojax.ops.iou import paired_ciou


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
    boxes = decode_offsets(logits, anchors)
    return paired_ciou(centres_to_corners(boxes), centres_to_corners(targets))
