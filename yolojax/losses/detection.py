"""The loss of a YOLOv5 detector from raw maps and boxes."""

from __future__ import annotations

import functools
import operator
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from yolojax.losses.assign import (
    Assignment,
    assign_anchors,
    left_out_cells,
    local_targets,
    taken_cells,
)
from yolojax.losses.boxes import predicted_boxes
from yolojax.losses.cells import Maps, add_rows, gather_rows, set_values
from yolojax.losses.classification import binary_cross_entropy, smooth_one_hot
from yolojax.losses.table import PARTS, PartLosses
from yolojax.losses.weights import weight_of_labels
from yolojax.ops.boxes import centres_to_corners, corners_to_centres
from yolojax.ops.iou import paired_ciou

# Where objectness stands in `x y w h objectness classes`.
OBJECTNESS = 4

# Pairs per picture and level that are treated at once: about ten boxes. Of 64, 128 and
# 256, 64 was the fastest on a CPU at 8 to 100 boxes a picture.
CHUNK = 64

# Weight of each level's objectness, finest first, by number of levels; the published
# trainer has one row for three levels and takes as much of another as there are others.
BALANCE: dict[int, tuple[float, ...]] = {
    1: (4.0,),
    2: (4.0, 1.0),
    3: (4.0, 1.0, 0.4),
    4: (4.0, 1.0, 0.25, 0.06),
    5: (4.0, 1.0, 0.25, 0.06, 0.02),
}


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
    left_out: Float[Array, "b m 4"] | None = None,
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
    parts: PartLosses = PARTS,
    class_weights: Sequence[float] = (),
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
            without boxes has objectness loss only. No gradient goes to boxes.
        left_out: corners of objects that have no row in `boxes`; without area: padding.
            The cells that would answer for them, and for no box with a row, have no
            objectness loss; the mean is still over all cells.
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
        balance: weight of each level's objectness; published values for up to
            5 levels if not given.
        parts: other losses than the published ones. The objectness target stays the
            CIoU, and a pair's quality is that, too.
        class_weights: factor of the class part of each pair, by the class of its box.

    Returns:
        loss: the gained parts' sum times the batch size, as published.
        parts: `box`, `objectness`, `class` with their gains, not times the batch
            size; `targets`, int32 [levels], the number of pairs; `per_picture` [b],
            each picture's share of the loss, without gradient: their mean is the
            loss by the batch size.

    Raises:
        ValueError: no published balance for this number of levels.

    Source: YOLOv5 v7.0, as published in its documentation ("Compute losses").
    Departures: of two boxes on one cell the later one always gives the objectness
    target; the automatic balance between levels is left out.
    """
    level_gains = balance or BALANCE.get(len(maps))
    if level_gains is None:
        raise ValueError(
            f"no published objectness balance for {len(maps)} levels, only for "
            f"{', '.join(map(str, BALANCE))}; give `balance`"
        )
    # Half precision is not enough for sums over cells.
    dtype = jnp.float64 if maps[0].dtype == jnp.float64 else jnp.float32
    batch, num_anchors, channels = maps[0].shape[0], *maps[0].shape[3:]
    grids = [(raw.shape[1], raw.shape[2]) for raw in maps]
    flat = tuple(raw.astype(dtype).reshape(batch, -1, channels) for raw in maps)
    pixels = jnp.asarray(np.asarray(strides)[:, None, None], dtype)
    sizes = jnp.asarray(anchors, dtype) / pixels
    boxes = jnp.where(valid[..., None], boxes.astype(dtype), 0)
    centres = corners_to_centres(boxes)[:, None] / pixels[None]
    assignment = assign_anchors(
        centres, valid, sizes, grids=grids, anchor_ratio=anchor_ratio
    )
    num_pairs = jnp.sum(assignment.valid, axis=2, dtype=jnp.int32)
    targets = jnp.sum(num_pairs, axis=0)

    cross_entropy = functools.partial(binary_cross_entropy, focal_gamma=focal_gamma)
    settings = _Settings(
        tuple(grids),
        num_anchors,
        label_smoothing,
        parts._replace(
            classes=parts.classes
            or functools.partial(cross_entropy, positive_weight=class_positive_weight)
        ),
        tuple(class_weights),
    )
    truth = _Truth(
        assignment=_pad_to_chunks(assignment),
        boxes=centres,
        labels=labels,
        anchors=sizes,
        shares=1 / jnp.maximum(targets, 1).astype(dtype),
        # As many as the picture with most pairs needs.
        num_chunks=(jnp.max(num_pairs) + CHUNK - 1) // CHUNK,
    )
    box, classes, objectness, overlap = _pair_parts(settings, flat, truth)
    objectness_loss = parts.objectness or functools.partial(
        cross_entropy, positive_weight=objectness_positive_weight
    )
    entropy = objectness_loss(objectness, overlap)
    if left_out is not None:
        cells = functools.partial(left_out_cells, grids=grids, pixels=pixels)
        hidden = cells(left_out.astype(dtype), sizes, anchor_ratio=anchor_ratio)
        taken = taken_cells(assignment, [level.shape[1] for level in flat])
        entropy = jnp.where(hidden & ~taken, 0, entropy)
    num_cells = [cells.shape[1] for cells in flat]
    weight = [w / (batch * n) for w, n in zip(level_gains, num_cells, strict=True)]
    weight = jnp.asarray(np.repeat(weight, num_cells)[None], dtype)
    shares = {
        "box": box_gain * box,
        "objectness": objectness_gain * jnp.sum(entropy * weight, axis=1),
        "class": class_gain * classes,
    }
    return sum_pictures(shares, batch, targets)


def sum_pictures(
    pictures: Mapping[str, Float[Array, " b"]],
    factor: int,
    targets: Int[Array, " levels"],
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """A loss and its parts from each picture's share of the parts.

    Args:
        pictures: the parts, gained, by the batch's denominators.
        factor: of the loss; the parts go without it.
        targets: passed on.
    """
    parts = {name: jnp.sum(each) for name, each in pictures.items()}
    loss = functools.reduce(operator.add, parts.values())
    shares = functools.reduce(operator.add, pictures.values())
    return loss * factor, {
        **parts,
        "targets": targets,
        "per_picture": jax.lax.stop_gradient(shares * factor),
    }


class _Settings(NamedTuple):
    grids: tuple[tuple[int, int], ...]
    num_anchors: int
    label_smoothing: float
    parts: PartLosses
    class_weights: tuple[float, ...]


class _Truth(NamedTuple):
    assignment: Assignment
    boxes: Float[Array, "b l n 4"]
    labels: Int[Array, "b n"]
    anchors: Float[Array, "l a 2"]
    shares: Float[Array, " l"]
    num_chunks: Int[Array, ""]


def _pair_parts_value(
    settings: _Settings, maps: Maps, truth: _Truth
) -> tuple[
    Float[Array, " b"],
    Float[Array, " b"],
    Float[Array, "b all_cells"],
    Float[Array, "b all_cells"],
]:
    """Box and class part of a picture, raw objectness, its target; without gains.

    There is room for every pair that could be, of which real pictures fill a tenth.
    So the pairs are taken `CHUNK` at a time, as often as the fullest picture needs;
    a loop of unknown length has no gradient of its own, hence the rule below. It
    writes the dense gradient of a map once.
    """
    sizes = [flat.shape[1] for flat in maps]

    def add_chunk(index, carry):
        box, classes, target = carry
        chunk = _take_chunk(settings, truth, index)
        rows = gather_rows(maps, chunk.cell)
        overlap, chunk_box, chunk_classes = _chunk_parts(
            settings, chunk, rows[..., :OBJECTNESS], rows[..., OBJECTNESS + 1 :]
        )
        target = set_values(
            target, chunk.cell, chunk.valid, jnp.maximum(overlap, 0), sizes=sizes
        )
        return box + chunk_box, classes + chunk_classes, target

    zero = jnp.zeros(len(maps[0]), maps[0].dtype)
    start = zero, zero, jnp.zeros((len(maps[0]), sum(sizes)), zero.dtype)
    box, classes, target = jax.lax.fori_loop(0, truth.num_chunks, add_chunk, start)
    objectness = jnp.concatenate([flat[..., OBJECTNESS] for flat in maps], axis=1)
    return box, classes, objectness, target


def _pair_parts_forward(settings, maps, truth):
    return _pair_parts_value(settings, maps, truth), (maps, truth)


def _pair_parts_backward(settings, saved, cotangents):
    maps, truth = saved
    box, classes, objectness, _ = cotangents
    sizes = [flat.shape[1] for flat in maps]
    after = maps[0].shape[-1] - OBJECTNESS - 1
    gradients = tuple(
        jnp.pad(level[..., None], ((0, 0), (0, 0), (OBJECTNESS, after)))
        for level in jnp.split(objectness, np.cumsum(sizes)[:-1], axis=1)
    )

    def add_chunk(index, gradients):
        chunk = _take_chunk(settings, truth, index)
        rows = gather_rows(maps, chunk.cell)
        channels = rows[..., :OBJECTNESS], rows[..., OBJECTNESS + 1 :]
        _, pull = jax.vjp(lambda *x: _chunk_parts(settings, chunk, *x)[1:], *channels)
        places, scores = pull((box, classes))
        rows = jnp.concatenate([places, jnp.zeros_like(places[..., :1]), scores], -1)
        return add_rows(gradients, chunk.cell, chunk.valid, rows)

    return jax.lax.fori_loop(0, truth.num_chunks, add_chunk, gradients), None


_pair_parts = jax.custom_vjp(_pair_parts_value, nondiff_argnums=(0,))
_pair_parts.defvjp(_pair_parts_forward, _pair_parts_backward)


class _Chunk(NamedTuple):
    cell: Int[Array, "b l k"]
    valid: Bool[Array, "b l k"]
    share: Float[Array, "b l k"]
    targets: Float[Array, "b l k 4"]
    anchors: Float[Array, "b l k 2"]
    labels: Int[Array, "b l k"]


def _pad_to_chunks(assignment: Assignment) -> Assignment:
    """The pairs, padded to a multiple of `CHUNK` of them and at least one chunk."""
    size = assignment.cell.shape[2]
    after = max(-(-size // CHUNK), 1) * CHUNK - size
    return jax.tree.map(lambda x: jnp.pad(x, ((0, 0), (0, 0), (0, after))), assignment)


def _take_chunk(settings: _Settings, truth: _Truth, index: Int[Array, ""]) -> _Chunk:
    """Pairs `index * CHUNK` and following of every picture and level."""
    part = jax.tree.map(
        lambda x: jax.lax.dynamic_slice_in_dim(x, index * CHUNK, CHUNK, axis=2),
        truth.assignment,
    )
    targets = local_targets(
        truth.boxes, part, grids=settings.grids, num_anchors=settings.num_anchors
    )
    anchor = (part.cell % settings.num_anchors)[..., None]
    return _Chunk(
        cell=part.cell,
        valid=part.valid,
        share=jnp.where(part.valid, truth.shares[None, :, None], 0),
        # A padded row needs a box with a finite gradient, to be multiplied by 0.
        targets=jnp.where(part.valid[..., None], targets, 1),
        anchors=jnp.take_along_axis(truth.anchors[None], anchor, axis=2),
        labels=jnp.take_along_axis(truth.labels[:, None], part.box, axis=2),
    )


def _chunk_parts(
    settings: _Settings,
    chunk: _Chunk,
    places: Float[Array, "b l k 4"],
    scores: Float[Array, "b l k c"],
) -> tuple[Float[Array, "b l k"], Float[Array, " b"], Float[Array, " b"]]:
    """CIoU of each pair, and the chunk's share of each picture's box and class part."""
    boxes = predicted_boxes(places, chunk.anchors)
    corners = centres_to_corners(chunk.targets)
    overlap = paired_ciou(boxes, corners)
    parts = settings.parts
    losses = 1 - overlap if parts.box is None else parts.box(boxes, corners)
    box = jnp.sum(chunk.share * losses, axis=(1, 2))
    num_classes = scores.shape[-1]
    if num_classes == 1 or parts.classes is None:
        return overlap, box, jnp.zeros_like(box)
    truth = smooth_one_hot(
        chunk.labels,
        num_classes,
        label_smoothing=settings.label_smoothing,
        dtype=scores.dtype,
    )
    if parts.quality:
        truth *= jnp.maximum(jax.lax.stop_gradient(overlap), 0)[..., None]
    share = chunk.share
    if settings.class_weights:
        share *= weight_of_labels(chunk.labels, settings.class_weights, share.dtype)
    classes = jnp.mean(parts.classes(scores, truth), axis=-1)
    return overlap, box, jnp.sum(share * classes, axis=(1, 2))
