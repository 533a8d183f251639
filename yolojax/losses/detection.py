"""The loss of a YOLOv5 detector from raw maps and boxes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

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


class LossParts(NamedTuple):
    """The three parts of the loss, as float scalars."""

    box: Float[Array, ""]
    objectness: Float[Array, ""]
    classes: Float[Array, ""]


class _Settings(NamedTuple):
    label_smoothing: float
    focal_gamma: float
    class_positive_weight: float
    objectness_positive_weight: float


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
    boxes = jnp.where(valid[..., None], boxes.astype(dtype), 0)
    centres = corners_to_centres(boxes)
    settings = _Settings(
        label_smoothing, focal_gamma, class_positive_weight, objectness_positive_weight
    )
    levels, targets = [], []
    for raw, sizes, stride in zip(maps, anchors, strides, strict=True):
        level, count = _level_parts(
            raw.astype(dtype),
            centres / stride,
            labels,
            valid,
            jnp.asarray(sizes, dtype) / stride,
            anchor_ratio=anchor_ratio,
            num_slots=num_slots or max(64, 3 * boxes.shape[1]),
            settings=settings,
        )
        levels.append(level)
        targets.append(count)
    box = box_gain * sum(level.box for level in levels)
    objectness = objectness_gain * sum(
        level.objectness * weight for level, weight in zip(levels, balance, strict=True)
    )
    classes = class_gain * sum(level.classes for level in levels)
    parts = {
        "box": box,
        "objectness": objectness,
        "class": classes,
        "targets": jnp.stack(targets),
    }
    return (box + objectness + classes) * boxes.shape[0], parts


def _level_parts(
    raw: Float[Array, "b gh gw a channels"],
    boxes: Float[Array, "b n 4"],
    labels: Int[Array, "b n"],
    valid: Bool[Array, "b n"],
    anchors: Float[Array, "a 2"],
    *,
    anchor_ratio: float,
    num_slots: int,
    settings: _Settings,
) -> tuple[LossParts, Int[Array, ""]]:
    """The ungained parts of one level, and its number of pairs."""
    batch, height, width, num_anchors, channels = raw.shape
    assignment = assign_anchors(
        boxes, valid, anchors, grid=(height, width), anchor_ratio=anchor_ratio
    )
    targets = local_targets(boxes, assignment, width=width, num_anchors=num_anchors)
    classes = jnp.take_along_axis(labels, assignment.box, axis=1)
    flat = raw.reshape(batch, height * width * num_anchors, channels)

    # Padding needs slots for every pair that could be; real pictures have a tenth.
    @jax.checkpoint
    def all_pairs(flat, assignment, targets, classes):
        return _pair_parts(flat, assignment, targets, classes, anchors, settings)

    @jax.checkpoint
    def first_pairs(flat, *pairs):
        pairs = jax.tree.map(lambda x: x[:, :num_slots], pairs)
        return _pair_parts(flat, *pairs, anchors, settings)

    count = jnp.sum(assignment.valid, axis=1, dtype=jnp.int32)
    parts = jax.lax.cond(
        jnp.max(count, initial=0) <= num_slots,
        first_pairs,
        all_pairs,
        flat,
        assignment,
        targets,
        classes,
    )
    return parts, jnp.sum(count)


def _pair_parts(
    flat: Float[Array, "b cells channels"],
    assignment: Assignment,
    targets: Float[Array, "b k 4"],
    classes: Int[Array, "b k"],
    anchors: Float[Array, "a 2"],
    settings: _Settings,
) -> LossParts:
    """The ungained parts of one level, from its pairs."""
    num_classes = flat.shape[2] - 5
    valid = assignment.valid
    last = is_last_of_cell(assignment)
    objectness, rows = read_cells(flat, assignment.cell, last)
    count = jnp.maximum(jnp.sum(valid), 1).astype(flat.dtype)

    sizes = jnp.take(anchors, assignment.cell % anchors.shape[0], axis=0)
    safe_targets = jnp.where(valid[..., None], targets, jnp.ones_like(targets))
    overlap = predicted_ciou(rows[..., :4], sizes, safe_targets)
    box = jnp.sum(jnp.where(valid, 1 - overlap, 0)) / count

    truth = jax.lax.stop_gradient(jnp.maximum(overlap, 0))
    entropy = binary_cross_entropy(
        objectness,
        write_cells(truth, assignment.cell, last, num_cells=flat.shape[1]),
        positive_weight=settings.objectness_positive_weight,
        focal_gamma=settings.focal_gamma,
    )
    if num_classes == 1:
        return LossParts(box, jnp.mean(entropy), jnp.zeros_like(box))
    class_entropy = binary_cross_entropy(
        rows[..., 5:],
        smooth_one_hot(
            classes,
            num_classes,
            label_smoothing=settings.label_smoothing,
            dtype=flat.dtype,
        ),
        positive_weight=settings.class_positive_weight,
        focal_gamma=settings.focal_gamma,
    )
    class_sum = jnp.sum(jnp.where(valid[..., None], class_entropy, 0))
    return LossParts(box, jnp.mean(entropy), class_sum / (count * num_classes))
