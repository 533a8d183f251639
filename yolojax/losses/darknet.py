"""The losses of YOLOv3 and YOLOv4 detectors from raw maps and boxes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from yolojax.losses.classification import binary_cross_entropy
from yolojax.losses.detection import OBJECTNESS, sum_pictures
from yolojax.losses.owned import read_cells, spread_values
from yolojax.losses.priors import (
    Positives,
    class_targets,
    overlaps_any,
    take_cells,
)
from yolojax.losses.table import PARTS, PartLosses
from yolojax.losses.weights import weight_of_labels
from yolojax.ops.boxes import centres_to_corners, corners_to_centres
from yolojax.ops.grid import decode_level, decode_offsets
from yolojax.ops.iou import paired_ciou, paired_iou

# Pictures that the published learning rates are for: they are divided by it.
NOMINAL_BATCH = 64


def yolov3_loss(
    maps: Sequence[Float[Array, "b _gh _gw a channels"]],
    boxes: Float[Array, "b n 4"],
    labels: Int[Array, "b n"],
    valid: Bool[Array, "b n"],
    left_out: Float[Array, "b m 4"] | None = None,
    *,
    anchors: np.ndarray,
    strides: Sequence[int],
    scales: Sequence[float],
    priors: np.ndarray,
    box_gain: float = 1.0,
    objectness_gain: float = 1.0,
    class_gain: float = 1.0,
    ignore_threshold: float = 0.5,
    match_threshold: float = 1.0,
    label_smoothing: float = 0.0,
    focal_gamma: float = 0.0,
    parts: PartLosses = PARTS,
    class_weights: Sequence[float] = (),
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """Box, objectness and class loss of YOLOv3, and its parts.

    Positive is the cell of a box's centre with the anchor that fits its size best, of
    those of all levels. Each part is a sum over cells, averaged over the pictures of
    the whole batch, also when it is split over devices:

    - box: at positives, the cross entropy of the sigmoid of x and y with the place of
      the centre, and half the squared error of w and h, whose targets are the
      logarithms of box by anchor; times 2 less the box's share of the picture.
    - objectness: cross entropy of all cells, 1 for positives and 0 for others. Left
      out are the others whose predicted box fits a box of the picture well.
    - class: at positives, cross entropy of each class by itself, also of a single one.

    Where several boxes take a cell, the last one is its box target, and the classes of
    all of them are its classes.

    Args:
        maps: one raw map a level, finest first; channels are `x y w h objectness`
            and the classes.
        boxes: corners x1 y1 x2 y2 in pixels of the network's input. One without area
            takes no cell; one whose centre is outside takes the nearest cell.
        labels: class index of each box; one outside the range is of no class.
        valid: False for padding, which changes nothing. A picture, or a batch,
            without boxes has objectness loss only. No gradient goes to boxes.
        left_out: corners of objects that have no row in `boxes`; without area: padding.
            The cells that would be positive for them, and are for no box with a row,
            have no objectness loss, and neither have those whose predicted box fits
            one of them well.
        anchors: [levels, a, 2], width and height in pixels.
        strides: pixels per cell of each level.
        scales: how far centres reach on each level; see `ops.grid.Decoding`. Targets
            of x and y are scaled back by it and clipped to [0, 1].
        priors: [p, 2], width and height in pixels of all anchors that compete for a
            box, whether or not a level uses them. A level that shares an anchor with
            another one takes the same boxes.
        box_gain: factor of the box part.
        objectness_gain: factor of the objectness part.
        class_gain: factor of the class part.
        ignore_threshold: IoU of a predicted box with any box, above which a cell that
            is not positive has no objectness loss.
        match_threshold: IoU of the sizes of anchor and box, above which an anchor
            takes a box beyond the best one.
        label_smoothing: see `smooth_one_hot`.
        focal_gamma: see `binary_cross_entropy`; of classes.
        parts: other losses than the published ones; a pair's quality is its IoU.
        class_weights: factor of the class part of each cell, by the class of the box
            that owns it.

    Returns:
        loss: the parts' sum times the batch size.
        parts: `box`, `objectness`, `class` with their gains, a picture and by 64;
            `targets`, int32 [levels], the number of pairs of a cell and a box;
            `per_picture` [b], each picture's share of the loss, without gradient:
            their mean is the loss by the batch size.
            Published rates are divided by batches of 64, so that with gradients summed
            up to 64 pictures, as the train step does, they hold as they stand.

    Raises:
        ValueError: an anchor that is none of the priors.

    Source: Redmon and Farhadi 2018, arXiv:1804.02767, sections 2.1 to 2.3; the weight
    by area is that of the published training code.
    """
    return _cell_loss(
        _squared_box_loss,
        maps,
        boxes,
        labels,
        valid,
        left_out,
        settings=_Settings(
            anchors=np.asarray(anchors),
            strides=tuple(strides),
            scales=tuple(scales),
            sizes="exponential",
            priors=np.asarray(priors),
            gains=(box_gain, objectness_gain, class_gain),
            ignore_threshold=ignore_threshold,
            match_threshold=match_threshold,
            objectness_smooth=0.0,
            label_smoothing=label_smoothing,
            focal_gamma=focal_gamma,
            parts=parts,
            class_weights=tuple(class_weights),
        ),
    )


def yolov4_loss(
    maps: Sequence[Float[Array, "b _gh _gw a channels"]],
    boxes: Float[Array, "b n 4"],
    labels: Int[Array, "b n"],
    valid: Bool[Array, "b n"],
    left_out: Float[Array, "b m 4"] | None = None,
    *,
    anchors: np.ndarray,
    strides: Sequence[int],
    scales: Sequence[float],
    priors: np.ndarray,
    sizes: str = "exponential",
    box_gain: float = 0.07,
    objectness_gain: float = 1.0,
    class_gain: float = 1.0,
    ignore_threshold: float = 0.7,
    match_threshold: float = 0.213,
    objectness_smooth: float = 0.0,
    label_smoothing: float = 0.0,
    focal_gamma: float = 0.0,
    parts: PartLosses = PARTS,
    class_weights: Sequence[float] = (),
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """Box, objectness and class loss of YOLOv4, and its parts.

    As `yolov3_loss`, but for the box part, 1 - CIoU of the predicted boxes, and the
    positives, to which belong all anchors of about the size of a box.

    Args:
        maps: see `yolov3_loss`.
        boxes: see `yolov3_loss`.
        labels: see `yolov3_loss`.
        valid: see `yolov3_loss`.
        left_out: see `yolov3_loss`.
        anchors: see `yolov3_loss`.
        strides: see `yolov3_loss`.
        scales: how far centres reach on each level; see `ops.grid.Decoding`.
        priors: see `yolov3_loss`.
        sizes: how sides are predicted; see `ops.grid.Decoding`.
        box_gain: factor of the box part.
        objectness_gain: factor of the objectness part.
        class_gain: factor of the class part.
        ignore_threshold: see `yolov3_loss`.
        match_threshold: see `yolov3_loss`.
        objectness_smooth: share of the IoU of prediction and box in the objectness
            target of positives, as a constant; the rest is 1.
        label_smoothing: see `smooth_one_hot`.
        focal_gamma: see `binary_cross_entropy`; of classes.
        parts: see `yolov3_loss`.
        class_weights: see `yolov3_loss`.

    Returns:
        See `yolov3_loss`.

    Raises:
        ValueError: an anchor that is none of the priors, or an unknown `sizes`.

    Source: Bochkovskiy et al. 2020, arXiv:2004.10934, section 3.4, with the gains and
    thresholds of its published configuration.
    """
    return _cell_loss(
        _ciou_box_loss,
        maps,
        boxes,
        labels,
        valid,
        left_out,
        settings=_Settings(
            anchors=np.asarray(anchors),
            strides=tuple(strides),
            scales=tuple(scales),
            sizes=sizes,
            priors=np.asarray(priors),
            gains=(box_gain, objectness_gain, class_gain),
            ignore_threshold=ignore_threshold,
            match_threshold=match_threshold,
            objectness_smooth=objectness_smooth,
            label_smoothing=label_smoothing,
            focal_gamma=focal_gamma,
            parts=parts,
            class_weights=tuple(class_weights),
        ),
    )


class _Settings(NamedTuple):
    anchors: np.ndarray
    strides: tuple[int, ...]
    scales: tuple[float, ...]
    sizes: str
    priors: np.ndarray
    gains: tuple[float, float, float]
    ignore_threshold: float
    match_threshold: float
    objectness_smooth: float
    label_smoothing: float
    focal_gamma: float
    parts: PartLosses
    class_weights: tuple[float, ...]


class _Pairs(NamedTuple):
    """Raw places and targets of all pairs; harmless numbers where none is.

    Attributes:
        logits: raw `x y w h`.
        centres: of the boxes, in cells, relative to the low corner of their cell.
        sizes: of the boxes, in cells.
        anchors: width and height of the pair's anchor, in cells.
        scale: of the pair's level; see `ops.grid.Decoding`.
        share: of the picture's area that is the box's, at most 1.
    """

    logits: Float[Array, "b l a n 4"]
    centres: Float[Array, "b l a n 2"]
    sizes: Float[Array, "b l a n 2"]
    anchors: Float[Array, "1 l a 1 2"]
    scale: Float[Array, "1 l 1 1 1"]
    share: Float[Array, "b 1 1 n"]


_Corners = tuple[Float[Array, "b l a n 4"], Float[Array, "b l a n 4"]]
_BoxLoss = Callable[[_Pairs, _Corners], Float[Array, "b l a n"]]


def _cell_loss(
    box_loss: _BoxLoss,
    maps: Sequence[Float[Array, "b _gh _gw a channels"]],
    boxes: Float[Array, "b n 4"],
    labels: Int[Array, "b n"],
    valid: Bool[Array, "b n"],
    left_out: Float[Array, "b m 4"] | None,
    *,
    settings: _Settings,
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """The loss with the given box part; see `yolov3_loss`."""
    # Half precision is not enough for sums over cells.
    dtype = jnp.float64 if maps[0].dtype == jnp.float64 else jnp.float32
    maps = tuple(raw.astype(dtype) for raw in maps)
    batch, channels = maps[0].shape[0], maps[0].shape[-1]
    grids = [(raw.shape[1], raw.shape[2]) for raw in maps]
    boxes = jnp.where(valid[..., None], boxes.astype(dtype), 0)
    centres = corners_to_centres(boxes)
    take = functools.partial(
        take_cells,
        anchors=settings.anchors,
        priors=settings.priors,
        match_threshold=settings.match_threshold,
        grids=grids,
        strides=settings.strides,
    )
    positives, positive = take(centres, valid)
    flat = tuple(raw.reshape(batch, -1, channels) for raw in maps)
    rows, logits = read_cells(flat, positives.index)
    pairs = _make_pairs(rows, centres, positives, grids=grids, settings=settings)
    other = settings.parts
    corners = _corners(pairs, settings.sizes)
    box = other.box(*corners) if other.box else box_loss(pairs, corners)
    box = jnp.where(positives.owns, box, 0)

    truth = positive.astype(dtype)
    overlap = jax.lax.stop_gradient(paired_iou(*corners))
    if settings.objectness_smooth > 0:
        missing = settings.objectness_smooth * (1 - overlap)
        sizes = [level.shape[1] for level in flat]
        truth = truth - spread_values(missing, positives.index, sizes)
    predicted = _decode_cells(maps, settings)
    ignored = overlaps_any(predicted, boxes, valid, settings.ignore_threshold)
    if left_out is not None:
        others = left_out.astype(dtype)
        there = jnp.all(others[..., 2:] > others[..., :2], axis=-1)
        ignored |= take(corners_to_centres(others), there)[1]
        ignored |= overlaps_any(predicted, others, there, settings.ignore_threshold)
    entropy = (other.objectness or binary_cross_entropy)(logits, truth)
    entropy = jnp.where(positive | ~ignored, entropy, 0)

    class_truth = class_targets(
        labels,
        positives,
        channels - OBJECTNESS - 1,
        label_smoothing=settings.label_smoothing,
        dtype=dtype,
    )
    if other.quality:
        class_truth *= overlap[..., None]
    class_loss = other.classes or functools.partial(
        binary_cross_entropy, focal_gamma=settings.focal_gamma
    )
    classes = class_loss(rows[..., OBJECTNESS + 1 :], class_truth)
    if settings.class_weights:
        weights = weight_of_labels(labels, settings.class_weights, dtype)
        classes *= weights[:, None, None, :, None]
    classes = jnp.where(positives.owns[..., None], classes, 0)

    pictures = max(batch, 1) * NOMINAL_BATCH
    sums = (
        jnp.sum(x, tuple(range(1, x.ndim))) / pictures for x in (box, entropy, classes)
    )
    names = "box", "objectness", "class"
    parts = {n: g * x for n, g, x in zip(names, settings.gains, sums, strict=True)}
    targets = jnp.sum(positives.taken, axis=(0, 2, 3), dtype=jnp.int32)
    return sum_pictures(parts, batch, targets)


def _make_pairs(
    rows: Float[Array, "b l a n channels"],
    boxes: Float[Array, "b n 4"],
    positives: Positives,
    *,
    grids: Sequence[tuple[int, int]],
    settings: _Settings,
) -> _Pairs:
    """What the box part needs; `boxes` are `x y w h` in pixels."""
    dtype = rows.dtype
    pixels = np.reshape(settings.strides, (1, -1, 1, 1, 1))
    anchors = jnp.asarray(settings.anchors[None, :, :, None] / pixels, dtype)
    owns = positives.owns[..., None]
    sizes = boxes[:, None, None, :, 2:] / jnp.asarray(pixels, dtype)
    picture = np.multiply(*grids[0]) * settings.strides[0] ** 2
    share = jnp.minimum(jnp.prod(boxes[..., 2:], axis=-1) / float(picture), 1)
    return _Pairs(
        logits=rows[..., :OBJECTNESS],
        centres=jnp.where(owns, positives.centres[:, :, None], 0.5),
        sizes=jnp.where(owns, sizes, anchors),
        anchors=anchors,
        scale=jnp.asarray(np.reshape(settings.scales, pixels.shape), dtype),
        share=share[:, None, None],
    )


def _squared_box_loss(pairs: _Pairs, corners: _Corners) -> Float[Array, "b l a n"]:
    """Box loss of YOLOv3: cross entropy of places, squared error of logarithms."""
    del corners
    place = (pairs.centres + (pairs.scale - 1) / 2) / pairs.scale
    entropy = binary_cross_entropy(pairs.logits[..., :2], jnp.clip(place, 0, 1))
    error = pairs.logits[..., 2:] - jnp.log(pairs.sizes / pairs.anchors)
    return (2 - pairs.share) * jnp.sum(entropy + error**2 / 2, axis=-1)


def _ciou_box_loss(pairs: _Pairs, corners: _Corners) -> Float[Array, "b l a n"]:
    """Box loss of YOLOv4: 1 less the complete IoU."""
    del pairs
    return 1 - paired_ciou(*corners)


def _corners(pairs: _Pairs, sizes: str) -> _Corners:
    """Predictions and boxes, in cells."""
    predicted = decode_offsets(
        pairs.logits, pairs.anchors, scale=pairs.scale, sizes=sizes
    )
    boxes = jnp.concatenate([pairs.centres, pairs.sizes], axis=-1)
    return centres_to_corners(predicted), centres_to_corners(boxes)


def _decode_cells(
    maps: Sequence[Float[Array, "b _gh _gw a channels"]], settings: _Settings
) -> Float[Array, "b all_cells 4"]:
    """Corners in pixels of all predictions, without gradient."""
    decoded = []
    levels = zip(maps, settings.anchors, settings.strides, settings.scales, strict=True)
    for raw, anchors, stride, scale in levels:
        logits = jax.lax.stop_gradient(raw[..., :OBJECTNESS])
        corners = decode_level(
            logits, anchors, stride, scale=scale, sizes=settings.sizes
        )
        # Cells go by row, column, anchor here.
        corners = jnp.moveaxis(corners, 1, 3)
        decoded.append(corners.reshape(len(raw), -1, 4))
    return jnp.concatenate(decoded, axis=1)
