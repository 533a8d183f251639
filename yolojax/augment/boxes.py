"""The boxes that an augmented picture still shows."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from yolojax.augment.mix import Mixed
from yolojax.augment.scene import Scene, Swap
from yolojax.ops.bending import BEYOND, MOST_BENT, bent_points
from yolojax.ops.outlines import (
    box_outlines,
    enclosing_boxes,
    shown_points,
    transform_outlines,
)
from yolojax.ops.warp import transform_boxes
from yolojax.records import Batch


class BoxRule(NamedTuple):
    """Which boxes stay; the published rule, `box_candidates` of YOLOv5.

    Attributes:
        min_side: both sides are longer than this many pixels.
        min_share: the output shows more than this share of the area on the canvas.
        max_aspect: the longer side is less than this many times the shorter one.
    """

    min_side: float = 2.0
    min_share: float = 0.1
    max_aspect: float = 100.0


PUBLISHED_RULE = BoxRule()
# Points on all edges of a bent outline together: an eighth of a box's side apart.
BENT_POINTS = 32


def carry_boxes(
    pictures: Batch,
    scene: Scene,
    image_size: tuple[int, int],
    rule: BoxRule = PUBLISHED_RULE,
) -> tuple[Float[Array, "b n 4"], Int[Array, "b n"], Bool[Array, "b n"]]:
    """The boxes of a scene's pictures on its outputs, and which of them are shown.

    Of an object with an outline it is the box around what is shown of the outline; of
    any other one the box around its box, cut to what is shown. Of what a bend cuts at
    the border they count a little beside it, as far as the bend displaces.

    Args:
        pictures: what the scene's sources count.
        scene: the finished scene.
        image_size: height and width of the outputs, in pixels.
        rule: which boxes stay.

    Returns:
        Corners in pixels, labels, and whether the row holds a box that is kept: those
        of the first tile's picture come first, each in its picture's order.
    """
    num = scene.sources.shape[0]
    on_canvas = transform_boxes(pictures.boxes[scene.sources], scene.placements)
    on_canvas = clip_boxes(on_canvas, scene.regions[:, :, None, :]).reshape(num, -1, 4)
    labels = pictures.labels[scene.sources].reshape(num, -1)
    for swap in scene.swaps:
        labels = swap_labels(labels, swap)
    valid = pictures.valid[scene.sources].reshape(num, -1)

    height, width = image_size
    frame = jnp.asarray([0, 0, width, height], jnp.float32)
    seen = _boxes_in_view(pictures, scene, on_canvas, image_size)
    boxes = clip_boxes(seen, frame[None, None])
    shown = _is_shown(on_canvas, boxes, scene.gain[:, None], rule)
    return boxes, labels, valid & shown


def carry_outlines(
    pictures: Batch,
    scene: Scene,
    boxes: Float[Array, "b n 4"],
    image_size: tuple[int, int],
) -> Float[Array, "b n e 4"] | tuple[()]:
    """The outlines of a scene's objects in pixels of its outputs, not cut to these.

    Args:
        pictures: as of `carry_boxes`, like the others.
        scene: see `pictures`.
        boxes: what `carry_boxes` gave, taken for what a perspective puts behind.
        image_size: height and width of the outputs, in pixels.

    Returns:
        Edges in the order of `boxes`; () where the source was not asked for outlines.
    """
    if not _has_outlines(pictures):
        return ()
    edges, _ = transform_outlines(pictures.polygons[scene.sources], scene.placements)
    view = jnp.broadcast_to(scene.view[:, None], scene.placements.shape)
    edges, whole = transform_outlines(edges, view)
    edges = edges.reshape(*boxes.shape[:2], *edges.shape[3:])
    if scene.bend is not None:
        ends = edges.reshape(len(edges), edges.size // (2 * len(edges)), 2)
        edges = bent_points(ends, scene.bend, image_size).reshape(edges.shape)
    sides = box_outlines(boxes)
    more = jnp.tile(sides[..., :1, :2], (1, 1, edges.shape[2] - 4, 2))
    sides = jnp.concatenate([sides, more], axis=2)
    return jnp.where(whole.reshape(boxes.shape[:2])[..., None, None], edges, sides)


def _has_outlines(pictures: Batch) -> bool:
    outlines = pictures.polygons
    return not isinstance(outlines, tuple) and outlines.shape[2] > 0


def _boxes_in_view(
    pictures: Batch,
    scene: Scene,
    on_canvas: Float[Array, "b n 4"],
    image_size: tuple[int, int],
) -> Float[Array, "b n 4"]:
    """The boxes on the outputs, not yet cut to them.

    Args:
        pictures: what the scene's sources count.
        scene: the finished scene.
        on_canvas: the boxes on the canvas, cut to the tiles' regions.
        image_size: height and width of the outputs, in pixels.
    """
    bend = scene.bend
    outlined = _has_outlines(pictures)
    if bend is None and not outlined:
        return transform_boxes(on_canvas, scene.view)
    num, tiles = scene.sources.shape
    height, width = image_size
    # What a bend may bring in lies beside the frame, by a displacement at most.
    margin = 0.0
    if bend is not None:
        margin = MOST_BENT * min(image_size) / (bend.shape[-1] - BEYOND)
    frame = (-margin, -margin, width + margin, height + margin)
    region = scene.regions
    if outlined:
        outlines = pictures.polygons[scene.sources]
        edges, _ = transform_outlines(outlines, scene.placements)
    else:
        edges = box_outlines(
            on_canvas.reshape(num, tiles, on_canvas.shape[1] // tiles, 4)
        )
        everywhere = jnp.asarray([-jnp.inf, -jnp.inf, jnp.inf, jnp.inf], jnp.float32)
        region = jnp.broadcast_to(everywhere, region.shape)
    view = jnp.broadcast_to(scene.view[:, None], scene.placements.shape)
    samples = 2 if bend is None else 1 + max(2, BENT_POINTS // edges.shape[-2])
    points, used = shown_points(edges, region, view, frame, samples=samples)
    if bend is not None:
        bent = points.reshape(num, points.size // (2 * num), 2)
        bent = bent_points(bent, bend, image_size)
        points = bent.reshape(points.shape)
    return enclosing_boxes(points, used).reshape(on_canvas.shape)


def cut_boxes(
    sample: Mixed, max_boxes: int, max_left_out: int = 0
) -> tuple[Mixed, Float[Array, "b m 4"], Int[Array, ""]]:
    """The samples with `max_boxes` rows each, and the boxes that have none.

    Args:
        sample: with rows in any order; a label below 0 is that of a box which gets no
            row.
        max_boxes: rows of each sample.
        max_left_out: rows for the boxes without one; 0: they are not asked for.

    Returns:
        sample: valid boxes first, in their order; what is not valid becomes zeros.
        left_out: the boxes without a row, then zeros.
        cut: how many boxes with a label had no row, of all samples.
    """
    boxes, labels, given = sample.boxes, sample.labels, sample.valid
    valid = given & (labels >= 0)
    room = max(0, max_boxes - valid.shape[1])
    order = jnp.argsort(~valid, axis=1, stable=True)[:, :max_boxes]
    kept = jnp.take_along_axis(valid, order, axis=1)
    boxes = jnp.take_along_axis(boxes, order[..., None], axis=1)
    labels = jnp.take_along_axis(labels, order, axis=1)
    cut = jnp.sum(jnp.maximum(jnp.sum(valid, axis=1, dtype=jnp.int32) - max_boxes, 0))
    place = jnp.cumsum(valid, axis=1, dtype=jnp.int32)
    without = given & ~(valid & (place <= max_boxes))
    last = jnp.argsort(~without, axis=1, stable=True)[:, :max_left_out]
    there = jnp.take_along_axis(without, last, axis=1)
    others = jnp.take_along_axis(sample.boxes, last[..., None], axis=1)
    left_out = jnp.where(there[..., None], others, 0.0)
    return (
        Mixed(
            image=sample.image,
            boxes=jnp.pad(
                jnp.where(kept[..., None], boxes, 0.0), ((0, 0), (0, room), (0, 0))
            ),
            labels=jnp.pad(jnp.where(kept, labels, 0), ((0, 0), (0, room))),
            valid=jnp.pad(kept, ((0, 0), (0, room))),
        ),
        left_out,
        cut,
    )


def swap_labels(labels: Int[Array, "b n"], swap: Swap) -> Int[Array, "b n"]:
    """Labels with the pairs of a mirror exchanged."""
    # [b, n, p, 2]: which entry of which pair a label is; one at most.
    found = labels[..., None, None] == swap.pairs[None, None]
    found = found & swap.applied[:, None, None, None]
    other = jnp.sum(jnp.where(found, swap.pairs[None, None, :, ::-1], 0), axis=(2, 3))
    return jnp.where(jnp.any(found, axis=(2, 3)), other, labels)


def clip_boxes(
    boxes: Float[Array, "*n 4"], limits: Float[Array, "*m 4"]
) -> Float[Array, "*n 4"]:
    """Boxes cut to `limits`, which may be broadcast."""
    low, high = limits[..., :2], limits[..., 2:]
    return jnp.concatenate(
        [jnp.clip(boxes[..., :2], low, high), jnp.clip(boxes[..., 2:], low, high)],
        axis=-1,
    )


def _is_shown(
    before: Float[Array, "b n 4"],
    after: Float[Array, "b n 4"],
    gain: Float[Array, "b 1"],
    rule: BoxRule,
) -> Bool[Array, "b n"]:
    """Whether boxes stay, given on the canvas before and in the output after."""
    width, height = after[..., 2] - after[..., 0], after[..., 3] - after[..., 1]
    area = (before[..., 2] - before[..., 0]) * (before[..., 3] - before[..., 1])
    area = area * gain**2
    longer, shorter = jnp.maximum(width, height), jnp.minimum(width, height)
    return (
        (shorter > rule.min_side)
        & (width * height > rule.min_share * area)
        & (longer < rule.max_aspect * shorter)
    )
