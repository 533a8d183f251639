"""Which cells of the maps answer for which boxes.

Everything is per picture with static shapes; the batch axis is never mixed, so that
it can be split over devices. All levels go through one set of operations, to keep the
graph, and so the time to compile it, small.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from yolojax.losses.cells import set_values
from yolojax.ops.boxes import corners_to_centres

# The cell of the centre, then the neighbours left of it, above, right and below, as
# x and y in half cells. The order decides which box wins a cell.
OFFSETS = np.array([[0, 0], [1, 0], [0, 1], [-1, 0], [0, -1]]) / 2


class Assignment(NamedTuple):
    """Pairs of a cell and a box of each level, sorted by cell, padding last.

    A cell here is one anchor at one place: index `(row * gw + column) * a + anchor`
    within its level. Pairs of the same cell stand side by side in the published
    order: by offset, then anchor, then box; the last one gives the cell its
    objectness target.

    Attributes:
        cell: int32 [b, l, k], 0 for padding.
        box: int32 [b, l, k], index into the picture's boxes, 0 for padding.
        valid: bool [b, l, k], False for padding.
    """

    cell: Int[Array, "b l k"]
    box: Int[Array, "b l k"]
    valid: Bool[Array, "b l k"]


def assign_anchors(
    boxes: Float[Array, "b l n 4"],
    valid: Bool[Array, "b n"],
    anchors: Float[Array, "l a 2"],
    *,
    grids: Sequence[tuple[int, int]],
    anchor_ratio: float = 4.0,
) -> Assignment:
    """All pairs of cells and boxes, as YOLOv5 makes them.

    An anchor takes a box if neither side is `anchor_ratio` times longer than the
    other's, in either direction. Its cells are that of the box's centre and the
    neighbours across the nearer border in x and in y, except across the map's edge.

    Args:
        boxes: `x y w h` in cells of each level.
        valid: False for padding, which takes no cell.
        anchors: width and height in cells of each level.
        grids: rows and columns of each level's map.
        anchor_ratio: the limit, exclusive.

    Returns:
        k = 5 a n pairs a level, enough for every case.

    Source: YOLOv5 v7.0, as published in its documentation ("Build targets").
    """
    batch, levels, num_boxes, _ = boxes.shape
    num_anchors = anchors.shape[1]
    num_pairs = len(OFFSETS) * num_anchors * num_boxes
    num_cells = max(height * width for height, width in grids) * num_anchors
    centre, size = boxes[..., :2], boxes[..., 2:]
    # x before y, as in boxes: [1, l, 1, 2].
    limits = np.asarray(grids)[None, :, None, ::-1]
    far = jnp.asarray(limits, boxes.dtype) - centre
    near_low = (centre % 1 < 0.5) & (centre > 1)
    near_high = (far % 1 < 0.5) & (far > 1)
    centred = jnp.ones((batch, levels, num_boxes, 1), bool)
    has_cell = jnp.concatenate([centred, near_low, near_high], axis=-1)

    # From here [b, l, offset, anchor, box]: the published order, when flattened.
    ratio = size[:, :, None] / anchors[None, :, :, None]
    fits = jnp.max(jnp.maximum(ratio, 1 / ratio), axis=-1) < anchor_ratio
    fits &= valid[:, None, None]
    taken = jnp.moveaxis(has_cell, 3, 2)[:, :, :, None] & fits[:, :, None]

    shift = jnp.asarray(OFFSETS[None, None, :, None], boxes.dtype)
    place = (centre[:, :, None] - shift).astype(jnp.int32)
    place = jnp.clip(place, 0, jnp.asarray(limits[:, :, None] - 1, jnp.int32))
    widths = jnp.asarray(limits[..., 0, None], jnp.int32)
    first = (place[..., 1] * widths + place[..., 0]) * num_anchors
    anchor = jnp.arange(num_anchors, dtype=jnp.int32)[None, None, None, :, None]
    cell = jnp.where(taken, first[:, :, :, None] + anchor, num_cells)

    order = jnp.arange(num_pairs, dtype=jnp.int32)[None, None]
    cell = cell.reshape(batch, levels, num_pairs)
    if (num_cells + 1) * num_pairs < 2**31:
        # One key holds cell and order: a sort of pairs takes six times as long on a
        # CPU.
        keys = jnp.sort(cell * num_pairs + order, axis=-1)
        cell, order = keys // num_pairs, keys % num_pairs
    else:
        order = jnp.broadcast_to(order, cell.shape)
        cell, order = jax.lax.sort((cell, order), num_keys=1, is_stable=True)
    matched = cell < num_cells
    return Assignment(
        cell=jnp.where(matched, cell, 0),
        box=jnp.where(matched, order % num_boxes, 0),
        valid=matched,
    )


def left_out_cells(
    left_out: Float[Array, "b m 4"],
    anchors: Float[Array, "l a 2"],
    *,
    grids: Sequence[tuple[int, int]],
    pixels: Float[Array, "l 1 1"],
    anchor_ratio: float = 4.0,
) -> Bool[Array, "b all_cells"]:
    """The cells that would answer for objects which have no row.

    Args:
        left_out: corners x1 y1 x2 y2 in pixels; boxes without area are padding.
        anchors: width and height in cells of each level.
        grids: rows and columns of each level's map.
        pixels: pixels per cell of each level.
        anchor_ratio: see `assign_anchors`.

    Returns:
        One value a cell, level after level.
    """
    there = jnp.all(left_out[..., 2:] > left_out[..., :2], axis=-1)
    pairs = assign_anchors(
        corners_to_centres(left_out)[:, None] / pixels[None],
        there,
        anchors,
        grids=grids,
        anchor_ratio=anchor_ratio,
    )
    return taken_cells(pairs, [h * w * anchors.shape[1] for h, w in grids])


def taken_cells(
    assignment: Assignment, sizes: Sequence[int]
) -> Bool[Array, "b all_cells"]:
    """Whether each cell answers for a box.

    Args:
        assignment: from `assign_anchors`.
        sizes: cells of each level.

    Returns:
        One value a cell, level after level.
    """
    cell, valid = assignment.cell, assignment.valid
    marks = jnp.zeros((len(cell), sum(sizes)), jnp.float32)
    ones = jnp.ones(valid.shape, marks.dtype)
    return set_values(marks, cell, valid, ones, sizes=sizes) > 0


def local_targets(
    boxes: Float[Array, "b l n 4"],
    assignment: Assignment,
    *,
    grids: Sequence[tuple[int, int]],
    num_anchors: int,
) -> Float[Array, "b l k 4"]:
    """The assigned boxes, with centres relative to the low corner of their cells.

    Args:
        boxes: `x y w h` in cells, as given to `assign_anchors`.
        assignment: its result.
        grids: rows and columns of each level's map.
        num_anchors: anchors per place.
    """
    targets = jnp.take_along_axis(boxes, assignment.box[..., None], axis=2)
    place = assignment.cell // num_anchors
    widths = jnp.asarray(np.asarray(grids)[None, :, 1:], jnp.int32)
    corner = jnp.stack([place % widths, place // widths], axis=-1).astype(boxes.dtype)
    return jnp.concatenate([targets[..., :2] - corner, targets[..., 2:]], axis=-1)
