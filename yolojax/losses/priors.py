"""Which cells of the maps answer for which boxes in YOLOv3 and YOLOv4.

Everything is per picture with static shapes, as in `losses.assign`. A cell is one
anchor at one place: index `(row * gw + column) * a + anchor` within its level.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from yolojax.losses.classification import smooth_one_hot
from yolojax.ops.boxes import box_area

# Boxes that every cell is compared with in one turn of the loop. 1, 4, 8 and 16 take
# the same time on a CPU; an accelerator has fewer turns to wait for.
BLOCK = 8


class Positives(NamedTuple):
    """The pairs of a cell and a box, one slot for each level, anchor and box.

    Attributes:
        taken: the cell of the box's centre, on that level with that anchor, is
            positive for the box.
        owner: the last of the boxes that have taken the cell, -1 where not taken.
        owns: whether it is this box: true once for each positive cell.
        index: the cell within its level where owned; elsewhere a number of its own
            beyond all cells of the level, so that no two of a level are equal.
        centres: of the boxes, in cells, relative to the low corner of their cell;
            outside [0, 1] only where the centre lies outside the picture.
    """

    taken: Bool[Array, "b l a n"]
    owner: Int[Array, "b l a n"]
    owns: Bool[Array, "b l a n"]
    index: Int[Array, "b l a n"]
    centres: Float[Array, "b l n 2"]


def match_priors(
    sizes: Float[Array, "b n 2"],
    valid: Bool[Array, "b n"],
    *,
    anchors: np.ndarray,
    priors: np.ndarray,
    match_threshold: float = 1.0,
) -> Bool[Array, "b l a n"]:
    """Which anchors take which boxes, by their sizes alone.

    A box belongs to the prior with the largest IoU when both stand at the origin, the
    first one of equals; every anchor of that size takes it, on one level, on several,
    or on none. Beyond that, each anchor with an IoU above the threshold does.

    Args:
        sizes: width and height in pixels. A box without area is taken by none.
        valid: False for padding, which is taken by none.
        anchors: [levels, a, 2], in pixels.
        priors: [p, 2], in pixels: all sizes that compete, the anchors among them.
        match_threshold: exclusive; 1 and more leave the best prior only.

    Raises:
        ValueError: an anchor that is none of the priors.

    Source: Redmon and Farhadi 2018, arXiv:1804.02767, section 2.1; several anchors for
    a box: Bochkovskiy et al. 2020, arXiv:2004.10934, section 3.4.
    """
    anchors, priors = np.asarray(anchors, np.float32), np.asarray(priors, np.float32)
    same = np.all(anchors[:, :, None] == priors[None, None], axis=-1)
    if not same.any(axis=-1).all():
        strange = anchors[~same.any(axis=-1)][0].tolist()
        raise ValueError(
            f"anchor {strange} is none of the {len(priors)} priors that boxes are "
            f"compared with, {priors.tolist()}; give all anchors of the network, in "
            "pixels"
        )
    sizes = jnp.maximum(sizes, 0)[:, None]
    overlap = size_iou(sizes, jnp.asarray(priors, sizes.dtype)[None, :, None])
    exists = valid & (jnp.max(overlap, axis=1) > 0)
    best = jnp.asarray(same)[:, :, jnp.argmax(overlap, axis=1)]
    above = overlap[:, np.argmax(same, axis=-1)] > match_threshold
    return (jnp.moveaxis(best, 2, 0) | above) & exists[:, None, None]


def size_iou(
    sizes: Float[Array, "*#n 2"], others: Float[Array, "*#n 2"]
) -> Float[Array, "*n"]:
    """IoU of boxes with one corner in common, from their widths and heights.

    Args:
        sizes: width and height.
        others: in the same unit, with area.

    Returns:
        Values in [0, 1]; 0 for sizes without area.
    """
    common = jnp.prod(jnp.minimum(sizes, others), axis=-1)
    return common / (jnp.prod(sizes, axis=-1) + jnp.prod(others, axis=-1) - common)


def place_boxes(
    centres: Float[Array, "b n 2"],
    taken: Bool[Array, "b l a n"],
    *,
    grids: Sequence[tuple[int, int]],
    strides: Sequence[int],
) -> tuple[Positives, Bool[Array, "b all_cells"]]:
    """The cells that boxes take, and whether each cell of all levels is taken.

    Args:
        centres: in pixels; one outside the picture counts for the nearest cell.
        taken: result of `match_priors`.
        grids: rows and columns of each level's map.
        strides: pixels per cell of each level.
    """
    batch, levels, num_anchors, num_boxes = taken.shape
    # x before y, as in boxes: [1, l, 1, 2].
    limits = np.asarray(grids, np.int32)[None, :, None, ::-1]
    pixels = jnp.asarray(np.asarray(strides)[None, :, None, None], centres.dtype)
    scaled = centres[:, None] / pixels
    place = jnp.clip(jnp.floor(scaled).astype(jnp.int32), 0, jnp.asarray(limits - 1))
    first = place[..., 1] * jnp.asarray(limits[..., 0]) + place[..., 0]
    anchor = jnp.arange(num_anchors, dtype=jnp.int32)[None, None, :, None]
    cell = first[:, :, None] * num_anchors + anchor

    num_cells = np.prod(grids, axis=1, dtype=np.int32) * num_anchors
    starts = (np.cumsum(num_cells) - num_cells)[None, :, None, None]
    total = int(num_cells.sum())
    everywhere = jnp.where(taken, cell + jnp.asarray(starts, jnp.int32), total)
    everywhere = everywhere.reshape(batch, -1)
    box = jnp.arange(num_boxes, dtype=jnp.int32)[None, None, None]
    boxes = jnp.broadcast_to(box, taken.shape).reshape(batch, -1)
    last = _keep_last(jnp.full((batch, total), -1, jnp.int32), everywhere, boxes)
    owner = _look_up(last, everywhere).reshape(taken.shape)
    owns = taken & (owner == box)
    slot = jnp.arange(num_anchors * num_boxes, dtype=jnp.int32)
    beyond = slot.reshape(1, 1, num_anchors, num_boxes) + jnp.asarray(
        num_cells[None, :, None, None], jnp.int32
    )
    positives = Positives(
        taken=taken,
        owner=owner,
        owns=owns,
        index=jnp.where(owns, cell, beyond),
        centres=scaled - place.astype(scaled.dtype),
    )
    return positives, last >= 0


def take_cells(
    boxes: Float[Array, "b n 4"],
    valid: Bool[Array, "b n"],
    *,
    anchors: np.ndarray,
    priors: np.ndarray,
    match_threshold: float,
    grids: Sequence[tuple[int, int]],
    strides: Sequence[int],
) -> tuple[Positives, Bool[Array, "b all_cells"]]:
    """The cells that boxes take: `match_priors`, then `place_boxes`.

    Args:
        boxes: `x y w h` in pixels.
        valid: see `match_priors`, like the next three.
        anchors: see `valid`.
        priors: see `valid`.
        match_threshold: see `valid`.
        grids: see `place_boxes`.
        strides: see `place_boxes`.
    """
    taken = match_priors(
        boxes[..., 2:],
        valid,
        anchors=anchors,
        priors=priors,
        match_threshold=match_threshold,
    )
    return place_boxes(boxes[..., :2], taken, grids=grids, strides=strides)


# Mapped over the batch, so that each device writes its own pictures. The largest of
# integers is the same in whatever order they are written.
@jax.vmap
def _keep_last(cells, index, boxes):
    return cells.at[index].max(boxes, mode="drop")


@jax.vmap
def _look_up(cells, index):
    return cells.at[index].get(mode="fill", fill_value=-1)


def class_targets(
    labels: Int[Array, "b n"],
    positives: Positives,
    num_classes: int,
    *,
    label_smoothing: float = 0.0,
    dtype: jnp.dtype | type = jnp.float32,
) -> Float[Array, "b l a n {num_classes}"]:
    """Smoothed classes of each pair that owns a cell, of all boxes that have taken it.

    Args:
        labels: class index of each box; one outside the range is of no class.
        positives: result of `place_boxes`.
        num_classes: length of the last axis.
        label_smoothing: see `smooth_one_hot`.
        dtype: of the result.
    """
    batch, levels, num_anchors, num_boxes = shape = positives.taken.shape
    own = jnp.broadcast_to(labels[:, None, None], shape)
    targets = smooth_one_hot(
        own, num_classes, label_smoothing=label_smoothing, dtype=dtype
    )
    # A box without the cell adds its class to the slot of the box that owns it.
    first = jnp.arange(levels * num_anchors, dtype=jnp.int32) * num_boxes
    slot = first.reshape(1, levels, num_anchors, 1) + positives.owner
    # A negative label would count from the end.
    adds = positives.taken & (own >= 0)
    slot = jnp.where(adds, slot, levels * num_anchors * num_boxes)
    marked = _mark(
        targets.reshape(batch, -1, num_classes),
        slot.reshape(batch, -1),
        own.reshape(batch, -1),
        jnp.full(batch, 1 - label_smoothing / 2, dtype),
    )
    return marked.reshape(targets.shape)


@jax.vmap
def _mark(targets, slot, label, value):
    # Equal indices get equal values, so that the order of writing does not matter.
    return targets.at[slot, label].set(value, mode="drop")


def overlaps_any(
    predicted: Float[Array, "b m 4"],
    boxes: Float[Array, "b n 4"],
    valid: Bool[Array, "b n"],
    threshold: float,
) -> Bool[Array, "b m"]:
    """Whether a prediction's IoU with any of its picture's boxes is above a threshold.

    The boxes come a few at a time, as many as the fullest picture has, so that memory
    does not grow with them. There is no gradient.

    Args:
        predicted: corners x1 y1 x2 y2 in pixels.
        boxes: corners in the same unit.
        valid: False for padding.
        threshold: exclusive, at least 0.
    """
    predicted, boxes = jax.lax.stop_gradient((predicted, boxes))
    num_boxes = boxes.shape[1]
    if num_boxes == 0:
        return jnp.zeros(predicted.shape[:-1], bool)
    order = jnp.arange(1, num_boxes + 1, dtype=jnp.int32)[None]
    used = jnp.max(jnp.where(valid, order, 0), initial=0)
    # A box of size 0 has nothing in common with any.
    boxes = jnp.where(valid[..., None], boxes, 0)
    boxes = jnp.pad(boxes, ((0, 0), (0, -num_boxes % BLOCK), (0, 0)))
    left, top, right, bottom = jnp.moveaxis(predicted, -1, 0)
    area = box_area(predicted)

    def add_block(index, found):
        block = jax.lax.dynamic_slice_in_dim(boxes, index * BLOCK, BLOCK, axis=1)
        for place in range(BLOCK):
            x1, y1, x2, y2 = jnp.moveaxis(block[:, place, :, None], 1, 0)
            width = jnp.minimum(right, x2) - jnp.maximum(left, x1)
            height = jnp.minimum(bottom, y2) - jnp.maximum(top, y1)
            common = jnp.maximum(width, 0) * jnp.maximum(height, 0)
            union = area + box_area(block[:, place, None]) - common
            found |= common > threshold * union
        return found

    blocks = (used + BLOCK - 1) // BLOCK
    return jax.lax.fori_loop(0, blocks, add_block, jnp.zeros(area.shape, bool))
