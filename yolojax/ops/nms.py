"""Non-maximum suppression on the device: fixed shapes, deterministic, no timer.

Greedy as published: the best candidate stays, those of its class that overlap it go,
and so on. The loop runs once per kept box, at most `max_detections` times, and each
round compares one box a picture with all candidates; no n by n table is built.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from yolojax.records import Detections


def non_max_suppression(
    boxes: Float[Array, "b n 4"],
    scores: Float[Array, "b n c"],
    *,
    score_threshold: float,
    iou_threshold: float,
    max_detections: int = 300,
    max_candidates: int = 4096,
    class_aware: bool = True,
    multi_label: bool = True,
) -> Detections:
    """The best boxes of each picture that do not overlap a better one.

    The result is that of the exhaustive algorithm as long as a picture has at most
    `max_candidates` candidates, or keeps `max_detections` of the best
    `max_candidates`. Otherwise it misses only boxes worse than the last candidate.

    Args:
        boxes: corners x1 y1 x2 y2, in pixels.
        scores: for each class, objectness times class probability, in [0, 1]. A box
            with a score that is NaN is no candidate.
        score_threshold: a candidate's score is strictly greater.
        iou_threshold: a box goes if its IoU with a kept one is strictly greater.
            The overlap of boxes without area is undefined; they suppress nothing.
        max_detections: boxes kept a picture, k of the result.
        max_candidates: the best so many candidates of a picture are looked at.
        class_aware: whether only boxes of the same class suppress each other. Labels
            are compared, so it is exact; the published code moves the classes apart
            instead, which rounds the corners of the higher ones.
        multi_label: whether every class above the threshold makes a candidate of a
            box, as in the published evaluation, or only its best class.

    Returns:
        Detections, best first; equal scores in order of box index, then class index.
        Padding is zeros.

    Raises:
        ValueError: `max_detections` or `max_candidates` is not positive.

    Source: Redmon and Farhadi 2018, arXiv:1804.02767; settings of YOLOv5 v6.0.
    """
    if max_detections < 1 or max_candidates < 1:
        raise ValueError(
            "max_detections and max_candidates must be at least 1, got "
            f"{max_detections} and {max_candidates}"
        )
    batch_size, num_boxes, num_classes = scores.shape
    if 0 in scores.shape:
        return _nothing(batch_size, max_detections, boxes.dtype, scores.dtype)
    labels, found, indices = _candidates(
        scores,
        score_threshold=score_threshold,
        max_candidates=max_candidates,
        multi_label=multi_label,
    )
    candidates = jnp.take_along_axis(boxes, indices[:, :, None], axis=1)
    picks = _sweep(
        candidates,
        labels if class_aware else jnp.zeros_like(labels),
        found > score_threshold,
        iou_threshold=iou_threshold,
        max_detections=max_detections,
    )
    return _picked(candidates, found, labels, picks)


def suppress_found(
    boxes: Float[Array, "b n 4"],
    scores: Float[Array, "b n"],
    labels: Int[Array, "b n"],
    valid: Bool[Array, "b n"],
    *,
    iou_threshold: float,
    score_threshold: float = 0.0,
    max_detections: int = 300,
) -> Detections:
    """The best of boxes that several models or views found, class by class.

    Args:
        boxes: corners x1 y1 x2 y2, in pixels; in any order.
        scores: in [0, 1].
        labels: only boxes with the same one suppress each other.
        valid: False for padding.
        iou_threshold: a box goes if its IoU with a kept one is strictly greater.
        score_threshold: a box takes part whose score is strictly greater.
        max_detections: boxes kept a picture, k of the result.

    Returns:
        Detections, best first; equal scores in order of index. Padding is zeros.

    Raises:
        ValueError: `max_detections` is not positive.
    """
    if max_detections < 1:
        raise ValueError(f"max_detections must be at least 1, got {max_detections}")
    if 0 in scores.shape:
        return _nothing(len(scores), max_detections, boxes.dtype, scores.dtype)
    alive = valid & (scores > score_threshold)
    ranked = jnp.where(alive, scores, jnp.array(-jnp.inf, scores.dtype))
    ranked, order = jax.lax.top_k(ranked, scores.shape[1])
    boxes = jnp.take_along_axis(boxes, order[:, :, None], axis=1)
    labels = jnp.take_along_axis(labels, order, axis=1)
    picks = _sweep(
        boxes,
        labels,
        ranked > -jnp.inf,
        iou_threshold=iou_threshold,
        max_detections=max_detections,
    )
    return _picked(boxes, ranked, labels, picks)


def _picked(
    boxes: Float[Array, "b k 4"],
    scores: Float[Array, "b k"],
    labels: Int[Array, "b k"],
    picks: Int[Array, "b m"],
) -> Detections:
    """The rows at `picks`, of which k is padding."""
    valid = picks < boxes.shape[1]
    rows = jnp.where(valid, picks, 0)
    return Detections(
        boxes=jnp.where(
            valid[:, :, None],
            jnp.take_along_axis(boxes, rows[:, :, None], axis=1),
            jnp.zeros((), boxes.dtype),
        ),
        scores=jnp.where(
            valid,
            jnp.take_along_axis(scores, rows, axis=1),
            jnp.zeros((), scores.dtype),
        ),
        labels=jnp.where(valid, jnp.take_along_axis(labels, rows, axis=1), 0),
        valid=valid,
    )


def _candidates(
    scores: Float[Array, "b n c"],
    *,
    score_threshold: float,
    max_candidates: int,
    multi_label: bool,
) -> tuple[Int[Array, "b k"], Float[Array, "b k"], Int[Array, "b k"]]:
    """Label, score and box index of the best candidates, best first.

    Scores that are no candidates are -inf.
    """
    batch_size, num_boxes, num_classes = scores.shape
    # A pair among the best k pairs belongs to a box among the best k boxes: each
    # better box has a better pair. So no sort over n * c scores is needed.
    # Maximum first, threshold after: the other order is not vectorised (16 ms more).
    best = _above(jnp.max(scores, axis=2), score_threshold)
    num_kept = min(max_candidates, num_boxes)
    found, indices = jax.lax.top_k(best, num_kept)
    if multi_label and num_classes > 1:
        # In order of index again, so that equal pairs come in order of index too.
        indices = jnp.sort(indices, axis=1)
    kept = jnp.take_along_axis(scores, indices[:, :, None], axis=1)
    if not multi_label or num_classes == 1:
        classes = jnp.arange(num_classes, dtype=jnp.int32)[None, None, :]
        is_best = kept == jnp.max(kept, axis=2, keepdims=True)
        # The first of equal classes; the last stands in where NaN equals nothing.
        labels = jnp.min(jnp.where(is_best, classes, num_classes - 1), axis=2)
        return labels, found, indices
    is_candidate = jnp.take_along_axis(best, indices, axis=1) > score_threshold
    kept = jnp.where(
        is_candidate[:, :, None],
        _above(kept, score_threshold),
        jnp.array(-jnp.inf, scores.dtype),
    )
    num_pairs = min(max_candidates, num_kept * num_classes)
    found, pairs = jax.lax.top_k(kept.reshape(batch_size, -1), num_pairs)
    labels = (pairs % num_classes).astype(jnp.int32)
    indices = jnp.take_along_axis(indices, pairs // num_classes, axis=1)
    return labels, found, indices


def _above(scores: Float[Array, "*n"], threshold: float) -> Float[Array, "*n"]:
    """The scores, -inf where they are not greater than the threshold."""
    return jnp.where(scores > threshold, scores, jnp.array(-jnp.inf, scores.dtype))


def _sweep(
    boxes: Float[Array, "b k 4"],
    labels: Int[Array, "b k"],
    alive: Bool[Array, "b k"],
    *,
    iou_threshold: float,
    max_detections: int,
) -> Int[Array, "b m"]:
    """Positions of the kept candidates, in order; k for padding.

    Args:
        boxes: candidates, best first.
        labels: only candidates with the same label suppress each other.
        alive: False for what is no candidate.
        iou_threshold: see `non_max_suppression`.
        max_detections: m, the most that are kept.
    """
    batch_size, num_candidates, _ = boxes.shape
    x1, y1, x2, y2 = (boxes[:, :, i] for i in range(4))
    areas = (x2 - x1) * (y2 - y1)
    order = jnp.arange(num_candidates, dtype=jnp.int32)[None, :]

    def any_left(state):
        count, alive, _ = state
        return (count < max_detections) & jnp.any(alive)

    def keep_first(state):
        count, alive, picks = state
        # The smallest living index; a minimum is vectorised, an argmax is not.
        first = jnp.min(jnp.where(alive, order, num_candidates), axis=1)
        row = jnp.minimum(first, num_candidates - 1)[:, None]

        def of_first(values):
            return jnp.take_along_axis(values, row, axis=1)

        width = jnp.minimum(x2, of_first(x2)) - jnp.maximum(x1, of_first(x1))
        height = jnp.minimum(y2, of_first(y2)) - jnp.maximum(y1, of_first(y1))
        zero = jnp.zeros((), boxes.dtype)
        shared = jnp.maximum(width, zero) * jnp.maximum(height, zero)
        union = areas + of_first(areas) - shared
        overlaps = (shared / union > iou_threshold) & (labels == of_first(labels))
        alive = alive & ~overlaps & (order != row)
        return count + 1, alive, picks.at[:, count].set(first)

    picks = jnp.full((batch_size, max_detections), num_candidates, jnp.int32)
    _, _, picks = jax.lax.while_loop(any_left, keep_first, (jnp.int32(0), alive, picks))
    return picks


def _nothing(batch_size: int, max_detections: int, box_type, score_type) -> Detections:
    """The detections of pictures without boxes or of a model without classes."""
    shape = (batch_size, max_detections)
    return Detections(
        boxes=jnp.zeros((*shape, 4), box_type),
        scores=jnp.zeros(shape, score_type),
        labels=jnp.zeros(shape, jnp.int32),
        valid=jnp.zeros(shape, bool),
    )
