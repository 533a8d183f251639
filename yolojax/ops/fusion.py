"""Weighted box fusion: boxes that mean one object become one box, their mean.

Where a suppression keeps the best box and forgets the others, this asks them all. Fixed
shapes; the loop runs once per box, and each round compares one box a picture with all
fused boxes so far.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from yolojax.ops.iou import pairwise_iou
from yolojax.records import Detections


def weighted_box_fusion(
    boxes: Float[Array, "b n 4"],
    scores: Float[Array, "b n"],
    labels: Int[Array, "b n"],
    valid: Bool[Array, "b n"],
    *,
    num_models: int,
    weights: Float[Array, "b n"] | None = None,
    iou_threshold: float = 0.55,
    score_threshold: float = 0.0,
    max_detections: int = 300,
    capped: bool = True,
) -> Detections:
    """The boxes of several models, or views, with those of one object fused.

    From the best to the worst, each box joins the fused box of its class with which it
    overlaps most, if above the threshold, and begins a new one otherwise. A fused box's
    corners are the mean of its members' weighed by their scores; it moves with each
    member. Its score is their mean, times the share of the models that its members are
    as many as: what one of three models sees ends with a third of its score.

    Two models, boxes (0, 0, 10, 10) at .9 and (0, 0, 10, 8) at .6: one box at .75 with
    its lower side at (.9 * 10 + .6 * 8) / 1.5 = 9.2.

    Args:
        boxes: corners x1 y1 x2 y2, in pixels; of all models, in any order.
        scores: in [0, 1].
        labels: only boxes with the same one are fused.
        valid: False for padding.
        num_models: models or views that were asked.
        weights: above 0, that of the model each box is from; with a mean of 1 over the
            models. None: all 1.
        iou_threshold: a box joins if its IoU with the fused one is strictly greater.
        score_threshold: boxes take part whose score is strictly greater; at least 0.
        max_detections: fused boxes kept a picture, k of the result.
        capped: whether more members than models count as the models; otherwise they
            raise the score further, also above 1.

    Returns:
        Detections, best first; equal scores in the order of their best members. Padding
        is zeros.

    Raises:
        ValueError: a number is out of its range.

    Source: Solovyev et al. 2021, arXiv:1910.13302, section 3. Departure: a model's
    weight counts in the mean's denominator and in the number of members, too, so that
    no score leaves [0, 1]; with equal weights that is the paper's equation.
    """
    if num_models < 1 or max_detections < 1 or score_threshold < 0:
        raise ValueError(
            "num_models and max_detections must be at least 1, score_threshold at "
            f"least 0; got {num_models}, {max_detections} and {score_threshold}"
        )
    batch_size, num_boxes, _ = boxes.shape
    if weights is None:
        weights = jnp.ones_like(scores)
    alive = valid & (scores > score_threshold)
    # Stable: equal ones stay in order.
    order = jnp.argsort(jnp.where(alive, -scores * weights, jnp.inf), axis=1)

    def sorted_rows(values):
        return jnp.take_along_axis(values, order, axis=1)

    boxes = jnp.take_along_axis(boxes, order[:, :, None], axis=1)
    members = sorted_rows(alive), sorted_rows(scores), sorted_rows(weights)
    labels = sorted_rows(labels)
    add = jax.vmap(_add_box, in_axes=(0, 0, 0, 0, None))

    def body(i, state):
        member = tuple(values[:, i] for values in members)
        return add(state, boxes[:, i], labels[:, i], member, iou_threshold)

    shape = (batch_size, num_boxes)
    start = (
        jnp.zeros((*shape, 4), boxes.dtype),
        jnp.full(shape, -1, labels.dtype),
        jnp.zeros(shape, scores.dtype),
        jnp.zeros(shape, scores.dtype),
        jnp.zeros(batch_size, jnp.int32),
    )
    # A loop over no boxes could not be traced.
    most = jnp.max(jnp.sum(alive, axis=1), initial=0) if alive.size else None
    state = start if most is None else jax.lax.fori_loop(0, most, body, start)
    fused, labels, total, counts, _ = state
    found = counts > 0
    models = jnp.array(num_models, scores.dtype)
    share = (jnp.minimum(counts, models) if capped else counts) / models
    mean = total / jnp.where(found, counts, jnp.ones_like(counts))
    return _best(fused, mean * share, labels, found, max_detections)


def _add_box(state, box, label, member, iou_threshold):
    """The clusters of a picture after one more box.

    Args:
        state: fused boxes [n, 4]; their labels, -1 for none; sums of weight times
            score, and of weights, of their members; how many there are.
        box: the box [4].
        label: its class.
        member: whether it takes part, its score and its weight.
        iou_threshold: see `weighted_box_fusion`.
    """
    fused, labels, total, counts, used = state
    alive, score, weight = member
    overlaps = pairwise_iou(box[None], fused)[0]
    overlaps = jnp.where(labels == label, overlaps, -jnp.ones_like(overlaps))
    nearest = jnp.argmax(overlaps).astype(jnp.int32)
    joins = overlaps[nearest] > iou_threshold
    # What takes no part goes to a row that does not exist, and is dropped.
    row = jnp.where(alive, jnp.where(joins, nearest, used), len(labels))
    mass = weight * score
    share = mass / (total.at[row].get(mode="fill", fill_value=0) + mass)
    share = share.astype(box.dtype)
    before = fused.at[row].get(mode="fill", fill_value=0)
    return (
        fused.at[row].set(before + (box - before) * share, mode="drop"),
        labels.at[row].set(label, mode="drop"),
        total.at[row].add(mass, mode="drop"),
        counts.at[row].add(weight, mode="drop"),
        used + (alive & ~joins).astype(jnp.int32),
    )


def _best(
    boxes: Float[Array, "b n 4"],
    scores: Float[Array, "b n"],
    labels: Int[Array, "b n"],
    found: Bool[Array, "b n"],
    max_detections: int,
) -> Detections:
    """The best rows, padded to `max_detections`."""
    short = max(0, max_detections - boxes.shape[1])
    boxes = jnp.pad(boxes, ((0, 0), (0, short), (0, 0)))
    scores, labels, found = (
        jnp.pad(values, ((0, 0), (0, short))) for values in (scores, labels, found)
    )
    ranked = jnp.where(found, scores, jnp.array(-jnp.inf, scores.dtype))
    _, rows = jax.lax.top_k(ranked, max_detections)
    valid = jnp.take_along_axis(found, rows, axis=1)
    boxes = jnp.take_along_axis(boxes, rows[:, :, None], axis=1)
    scores, labels = (
        jnp.take_along_axis(values, rows, axis=1) for values in (scores, labels)
    )
    return Detections(
        boxes=jnp.where(valid[:, :, None], boxes, jnp.zeros((), boxes.dtype)),
        scores=jnp.where(valid, scores, jnp.zeros((), scores.dtype)),
        labels=jnp.where(valid, labels, jnp.zeros((), labels.dtype)),
        valid=valid,
    )
