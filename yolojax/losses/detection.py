"""The loss of a YOLOv5 detector from raw maps and boxes."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from yolojax.losses.assign import (
    Assignment,
    assign_anchors,
    is_last_of_cell,
    local_targets,
)
from yolojax.losses.boxes import predicted_ciou
from yolojax.losses.cells import read_cells, write_cells
from yolojax.losses.classification import binary_cross_entropy, smooth_one_hot
from yolojax.ops.boxes import corners_to_centres

# Weight of each level's objectness, finest first, by number of levels (P5 and P6).
BALANCE = {3: (4.0, 1.0, 0.4), 5: (4.0, 1.0, 0.25, 0.06, 0.02)}


def scale_gains(
    *,
    box: float,
    objectness: float,
    classes: float,
    num_levels: int,
    num_classes: int,
    image_size: int | tuple[int, int],
) -> dict[str, float]:
    """Gains of `yolov5_loss` from those published for 3 levels, 80 classes, 640 px.

    Args:
        box: published gain of the box part.
        objectness: published gain of the objectness part.
        classes: published gain of the class part.
        num_levels: maps of the head.
        num_classes: classes of the data.
        image_size: side of the square, or height and width, in pixels.

    Returns:
        `box_gain`, `objectness_gain` and `class_gain`.

    Source: YOLOv5 v7.0, as published in its training recipe.
    """
    height, width = (
        (image_size, image_size) if isinstance(image_size, int) else image_size
    )
    levels = 3 / num_levels
    return {
        "box_gain": box * levels,
        "objectness_gain": objectness * height * width / 640**2 * levels,
        "class_gain": classes * num_classes / 80 * levels,
    }


def yolov5_loss(
    maps: Sequence[Float[Array, "b _gh _gw a channels"]],
    boxes: Float[Array, "b n 4"],
    labels: Int[Array, "b n"],
    valid: Bool[Array, "b n"],
    *,
    anchors: np.ndarray,
    strides: Sequence[int],
    box_gain: float = 0.05,
    objectness_gain: float = 1.0,
    class_gain: float = 0.5,
    anchor_ratio: float = 4.0,
    label_smoothing: float = 0.0,
    focal_gamma: float = 0.0,
    class_positive_weight: float = 1.0,
    objectness_positive_weight: float = 1.0,
    balance: Sequence[float] | None = None,
    num_slots: int | None = None,
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """Sum over the batch of box, objectness and class loss, and its parts.

    The box part is the mean of 1 - CIoU over the pairs of a level, the objectness
    part the mean cross entropy over all of its cells, whose targets are the CIoU of
    the pair (not differentiated, at least 0), the class part the mean over pairs and
    classes; each is summed over levels. One class has no class part. All means are
    over the whole batch, also when it is split over devices.

    Args:
        maps: one raw map a level, finest first; channels are `x y w h objectness`
            and the classes.
        boxes: corners x1 y1 x2 y2 in pixels of the network's input.
        labels: class index of each box.
        valid: False for padding, which changes nothing. A picture, or a batch,
            without boxes has objectness loss only.
        anchors: [levels, a, 2], width and height in pixels.
        strides: pixels per cell of each level.
        box_gain: factor of the box part.
        objectness_gain: factor of the objectness part.
        class_gain: factor of the class part.
        anchor_ratio: how many times longer a box's side may be than the anchor's,
            and the reverse, exclusive.
        label_smoothing: see `smooth_one_hot`.
        focal_gamma: see `binary_cross_entropy`; of classes and objectness.
        class_positive_weight: see `binary_cross_entropy`.
        objectness_positive_weight: see `binary_cross_entropy`.
        balance: weight of each level's objectness; published values for 3 and 5
            levels if not given.
        num_slots: pairs per picture and level that the fast path holds; the result
            is the same with any number. About 3 per padded box if not given.

    Returns:
        loss: the gained parts' sum times the batch size, as published.
        parts: `box`, `objectness`, `class` with their gains, not times the batch
            size, and `targets`, int32 [levels], the number of pairs.

    Raises:
        ValueError: no published balance for this number of levels.

    Source: YOLOv5 v7.0, as published in its documentation ("Compute losses").
    Departures: of two boxes on one cell the later one always gives the objectness
    target; the automatic balance between levels is left out.
    """
    if balance is None:
        if len(maps) not in BALANCE:
            raise ValueError(
                f"no published objectness balance for {len(maps)} levels, only for "
                f"{', '.join(map(str, BALANCE))}; give `balance`"
            )
        balance = BALANCE[len(maps)]
    dtype = jnp.promote_types(maps[0].dtype, jnp.float32)
    batch, num_boxes, _ = boxes.shape
    grids = [(raw.shape[1], raw.shape[2]) for raw in maps]
    num_anchors = maps[0].shape[3]
    pixels = jnp.asarray(np.asarray(strides)[:, None, None], dtype)
    sizes = jnp.asarray(anchors, dtype) / pixels
    centres = corners_to_centres(jnp.where(valid[..., None], boxes.astype(dtype), 0))
    centres = centres[:, None] / pixels[None]
    assignment = assign_anchors(
        centres, valid, sizes, grids=grids, anchor_ratio=anchor_ratio
    )
    targets = local_targets(centres, assignment, grids=grids, num_anchors=num_anchors)
    pairs = assignment, targets, jnp.take_along_axis(labels[:, None], assignment.box, 2)
    flat = tuple(raw.astype(dtype).reshape(batch, -1, raw.shape[-1]) for raw in maps)
    pair_loss = functools.partial(
        _pair_loss,
        label_smoothing=label_smoothing,
        focal_gamma=focal_gamma,
        class_positive_weight=class_positive_weight,
        objectness_positive_weight=objectness_positive_weight,
    )

    # There are slots for every pair that could be; real pictures fill a tenth of
    # them. Recomputing spares a branch the other's residuals.
    @jax.checkpoint
    def all_pairs(flat, pairs):
        return pair_loss(flat, *pairs, sizes, balance)

    @jax.checkpoint
    def first_pairs(flat, pairs):
        pairs = jax.tree.map(lambda x: x[:, :, :num_slots], pairs)
        return pair_loss(flat, *pairs, sizes, balance)

    count = jnp.sum(assignment.valid, axis=2, dtype=jnp.int32)
    if num_slots is None:
        num_slots = max(64, 3 * num_boxes)
    fits = jnp.max(count, initial=0) <= num_slots
    box, objectness, classes = jax.lax.cond(fits, first_pairs, all_pairs, flat, pairs)
    parts = {
        "box": box_gain * box,
        "objectness": objectness_gain * objectness,
        "class": class_gain * classes,
    }
    loss = sum(parts.values()) * batch
    return loss, {**parts, "targets": jnp.sum(count, axis=0)}


def _pair_loss(
    maps: tuple[Float[Array, "b _cells channels"], ...],
    assignment: Assignment,
    targets: Float[Array, "b l k 4"],
    labels: Int[Array, "b l k"],
    anchors: Float[Array, "l a 2"],
    balance: Sequence[float],
    *,
    label_smoothing: float,
    focal_gamma: float,
    class_positive_weight: float,
    objectness_positive_weight: float,
) -> tuple[Float[Array, ""], Float[Array, ""], Float[Array, ""]]:
    """Box, objectness and class part without gains, summed over levels."""
    batch, _, channels = maps[0].shape
    num_classes = channels - 5
    cell, _, valid = assignment
    last = is_last_of_cell(assignment)
    objectness, rows = read_cells(maps, cell, last)
    count = jnp.maximum(jnp.sum(valid, axis=(0, 2)), 1).astype(rows.dtype)
    share = jnp.where(valid, 1 / count[None, :, None], 0)

    anchor = (cell % anchors.shape[1])[..., None]
    sizes = jnp.take_along_axis(anchors[None], anchor, axis=2)
    targets = jnp.where(valid[..., None], targets, 1)
    overlap = predicted_ciou(rows[..., :4], sizes, targets)
    box = jnp.sum(share * (1 - overlap))

    num_cells = [flat.shape[1] for flat in maps]
    weight = [w / (batch * n) for w, n in zip(balance, num_cells, strict=True)]
    truth = jax.lax.stop_gradient(jnp.maximum(overlap, 0))
    entropy = binary_cross_entropy(
        objectness,
        write_cells(truth, cell, last, sizes=num_cells),
        positive_weight=objectness_positive_weight,
        focal_gamma=focal_gamma,
    )
    objectness = jnp.sum(
        entropy * jnp.asarray(np.repeat(weight, num_cells)[None], rows.dtype)
    )
    if num_classes == 1:
        return box, objectness, jnp.zeros_like(box)
    class_entropy = binary_cross_entropy(
        rows[..., 5:],
        smooth_one_hot(
            labels, num_classes, label_smoothing=label_smoothing, dtype=rows.dtype
        ),
        positive_weight=class_positive_weight,
        focal_gamma=focal_gamma,
    )
    return box, objectness, jnp.sum(share * jnp.mean(class_entropy, axis=-1))
