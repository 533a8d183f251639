"""The numbers that papers and the original YOLOv5 print beside those of COCO.

Precision, recall and F1 at one confidence, the original's average precision, and that
of VOC-2007. All go by one matching, which the original and VOC share: a detection
belongs to that label of its picture and class that it overlaps most, and of several at
one label the most confident is right. It is not offered its second-best label, as it is
by the COCO evaluator.

Sources: Everingham et al. 2010, "The Pascal Visual Object Classes Challenge", sections
4.2 and 4.4; Lin et al. 2014, arXiv:1405.0312, for the ten thresholds. The original's
rules are known from what YOLOv5 v7.0 returned for given detections and labels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from yolojax.metrics.detection import GroundTruth, check_known

# .50, .55, ... .95, each the nearest double, so that an IoU of 3/5 reaches .6.
IOU_THRESHOLDS = np.arange(50, 100, 5) / 100
# Where the curves over the confidence are looked at.
CONFIDENCES = np.linspace(0, 1, 1000)
# The mean F1 curve is averaged over so many of them before its largest value is sought.
_SMOOTHING = 101
# Pairs of detection and label compared at once; bounds the memory.
_PAIRS = 2**20


class Ranked(NamedTuple):
    """Detections, the most confident first.

    Equal confidences are in order of their pictures, and within one as given.

    Attributes:
        pictures: int64 [n], row of the picture in the truth.
        labels: int64 [n].
        boxes: float64 [n, 4], corners, in pixels.
        scores: float64 [n].
    """

    pictures: np.ndarray
    labels: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray


def published_metrics(
    truth: GroundTruth, detections: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """The original's and VOC-2007's numbers of `detections`.

    Args:
        truth: the labels. The original's rule does not know crowds and leaves such
            labels out; for VOC they are its difficult objects: a detection that
            belongs to one, at an IoU of .5, counts neither for nor against.
        detections: rows of the COCO results format, see `coco_metrics`.

    Returns:
        `mAP50` and `mAP50_95` by the original's rule, see `average_precision`;
        `voc07_mAP50`, see `voc07_average_precision`; `precision`, `recall` and `f1` at
        IoU .5 and at the `confidence` of `best_confidence`; each but the last the mean
        over the classes that have labels. `per_class`, by name: `precision`,
        `recall`, `f1`, `AP50`, `AP50_95`, `voc07_AP50`, and `num_boxes` without
        crowds. Of a class with labels but without detections all are 0, of one
        without labels NaN; without any label so are the means and the confidence.

    Raises:
        ValueError: a detection is of a picture or class that the labels do not have.
    """
    check_known(truth, detections)
    ranked = _rank(truth, detections)
    plain = ~truth.crowd
    best, overlaps = match(ranked, truth, plain)
    hits = hits_at(best, overlaps, IOU_THRESHOLDS)
    voc_hits, counted = _voc_hits(ranked, truth, best, overlaps)
    num_classes = len(truth.category_ids)
    num_boxes = np.bincount(truth.labels[plain], minlength=num_classes)
    precision, recall = np.zeros((2, num_classes, len(CONFIDENCES)))
    ap = np.full((num_classes, len(IOU_THRESHOLDS)), math.nan)
    voc = np.full(num_classes, math.nan)
    for label, rows in enumerate(_rows_of_classes(ranked.labels, num_classes)):
        if not num_boxes[label]:
            continue
        count = int(num_boxes[label])
        ap[label] = average_precision(hits[rows], count)
        voc_rows = rows[counted[rows]]
        voc[label] = voc07_average_precision(voc_hits[voc_rows], count)
        precision[label], recall[label] = confidence_curves(
            hits[rows, 0], ranked.scores[rows], count
        )
    labelled = num_boxes > 0
    f1 = f1_of(precision, recall)
    place = best_confidence(f1[labelled]) if labelled.any() else 0
    columns = {
        "precision": precision[:, place],
        "recall": recall[:, place],
        "f1": f1[:, place],
        "AP50": ap[:, 0],
        "AP50_95": ap.mean(axis=1),
        "voc07_AP50": voc,
    }
    return {
        **{
            name.replace("AP", "mAP"): _mean(values[labelled])
            for name, values in columns.items()
        },
        "confidence": float(CONFIDENCES[place]) if labelled.any() else math.nan,
        "per_class": {
            name: {
                **{
                    key: float(values[label]) if labelled[label] else math.nan
                    for key, values in columns.items()
                },
                "num_boxes": int(num_boxes[label]),
            }
            for label, name in enumerate(truth.distinct_names)
        },
    }


def match(
    ranked: Ranked, truth: GroundTruth, use: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The label that each detection overlaps most, of those in its picture and class.

    Args:
        ranked: the detections.
        truth: the labels.
        use: bool, the labels that are looked at.

    Returns:
        int64 [n], the label's row in `truth`, the first among equals, -1 for none that
        is overlapped at all; and float64 [n], the IoU, 0 for none.
    """
    num_classes = max(1, len(truth.category_ids))
    keys = truth.pictures * num_classes + truth.labels
    order = np.flatnonzero(use)
    order = order[np.argsort(keys[order], kind="stable")]
    wanted = ranked.pictures * num_classes + ranked.labels
    first = np.searchsorted(keys[order], wanted, side="left")
    counts = np.searchsorted(keys[order], wanted, side="right") - first
    best = np.full(len(wanted), -1, np.int64)
    overlaps = np.zeros(len(wanted))
    some = np.flatnonzero(counts)
    ends = np.cumsum(counts[some])
    cuts = np.searchsorted(
        ends, np.arange(_PAIRS, ends[-1] if len(some) else 0, _PAIRS)
    )
    for rows in np.split(some, cuts):
        if not len(rows):
            continue
        sizes = counts[rows]
        starts = np.cumsum(sizes) - sizes
        owners = np.repeat(rows, sizes)
        steps = np.arange(len(owners)) - np.repeat(starts, sizes)
        labels = order[first[owners] + steps]
        values = _iou(ranked.boxes[owners], truth.boxes[labels])
        overlaps[rows] = np.maximum.reduceat(values, starts)
        # Backwards, since of several writes to one place the last one stays.
        winners = np.flatnonzero((values == overlaps[owners]) & (values > 0))[::-1]
        best[owners[winners]] = labels[winners]
    return best, overlaps


def hits_at(
    best: np.ndarray, overlaps: np.ndarray, thresholds: np.ndarray
) -> np.ndarray:
    """Which detections are right, bool [n, t].

    Right is the first detection of each label whose IoU reaches the threshold.

    Args:
        best: int [n], the label of each detection, most confident first; -1: none.
        overlaps: [n], its IoU.
        thresholds: [t], above 0.
    """
    hits = np.zeros((len(best), len(thresholds)), np.bool_)
    for column, threshold in enumerate(thresholds):
        rows = np.flatnonzero(overlaps >= threshold)
        _, first = np.unique(best[rows], return_index=True)
        hits[rows[first], column] = True
    return hits


def average_precision(hits: np.ndarray, num_boxes: int) -> np.ndarray:
    """The original's average precision of one class, [t] in [0, 1].

    The curve runs through the points (recall, precision) after each detection, from
    (0, 1) to (1, 0) added at its ends; precision is raised to the largest at any
    higher recall; the area below is that of trapezoids between its values, joined by
    straight lines, at recall 0, .01, ... 1. Because of the added end a perfect
    detector has .995. Without detections it is 0.

    Args:
        hits: bool [n, t], which detections are right, most confident first.
        num_boxes: the labels, at least 1.
    """
    if not len(hits):
        return np.zeros(hits.shape[1])
    found = np.cumsum(hits, axis=0)
    ones = np.ones((1, hits.shape[1]))
    recall = np.concatenate([0 * ones, found / num_boxes, ones])
    precision = found / np.arange(1, len(hits) + 1)[:, None]
    precision = np.concatenate([ones, precision, 0 * ones])
    envelope = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
    at = np.linspace(0, 1, 101)
    values = np.asarray(
        [np.interp(at, x, y) for x, y in zip(recall.T, envelope.T, strict=True)]
    )
    return (values[:, 1:] + values[:, :-1]).sum(axis=1) / 200


def voc07_average_precision(hits: np.ndarray, num_boxes: int) -> float:
    """The VOC-2007 average precision of one class, in [0, 1].

    The mean over recall 0, .1, ... 1 of the largest precision at that recall or above,
    0 where it is never reached.

    Args:
        hits: bool [n], which detections are right, most confident first.
        num_boxes: the labels, at least 1.

    Source: Everingham et al. 2010, section 4.2, equations 1 and 2.
    """
    found = np.cumsum(hits)
    precision = found / np.arange(1, len(hits) + 1)
    envelope = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
    # In whole numbers: 3 of 10 do reach a recall of .3.
    first = np.searchsorted(10 * found, np.arange(11) * num_boxes)
    return float(envelope[first].mean())


def confidence_curves(
    hits: np.ndarray, scores: np.ndarray, num_boxes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Precision and recall of one class at `CONFIDENCES`, as the original has them.

    Both are joined by straight lines between the detections' scores; above the highest
    score precision is 1 and recall 0, below the lowest they stay.

    Args:
        hits: bool [n], which detections are right, most confident first.
        scores: [n], falling.
        num_boxes: the labels, at least 1.

    Returns:
        Two arrays [1000]; all 0 without detections.
    """
    if not len(hits):
        return np.zeros_like(CONFIDENCES), np.zeros_like(CONFIDENCES)
    found = np.cumsum(hits)
    precision = found / np.arange(1, len(hits) + 1)
    return (
        np.interp(-CONFIDENCES, -scores, precision, left=1),
        np.interp(-CONFIDENCES, -scores, found / num_boxes, left=0),
    )


def f1_of(precision: np.ndarray, recall: np.ndarray) -> np.ndarray:
    """The harmonic mean of both, 0 where both are 0."""
    total = precision + recall
    return 2 * precision * recall / np.where(total > 0, total, 1)


def best_confidence(f1: np.ndarray) -> int:
    """The place in `CONFIDENCES` where the classes' mean F1 is largest.

    The mean curve is smoothed before by a moving average over 101 places, the ends
    being repeated beyond it; of equal values the lowest confidence is taken.

    Args:
        f1: [c, 1000], c at least 1.
    """
    padded = np.pad(f1.mean(axis=0), _SMOOTHING // 2, mode="edge")
    window = np.full(_SMOOTHING, 1 / _SMOOTHING)
    smooth = np.convolve(padded, window, mode="valid")
    # The sums of equal terms differ in their last bits.
    return int((smooth >= smooth.max() - 1e-9).argmax())


def _rank(truth: GroundTruth, detections: Sequence[Mapping[str, Any]]) -> Ranked:
    row_of = {number: row for row, number in enumerate(truth.image_ids)}
    label_of = {number: label for label, number in enumerate(truth.category_ids)}
    pictures = np.asarray([row_of[d["image_id"]] for d in detections], np.int64)
    labels = np.asarray([label_of[d["category_id"]] for d in detections], np.int64)
    boxes = np.asarray([d["bbox"] for d in detections], np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    scores = np.asarray([d["score"] for d in detections], np.float64)
    order = np.lexsort((pictures, -scores))
    return Ranked(*(x[order] for x in (pictures, labels, boxes, scores)))


def _voc_hits(
    ranked: Ranked, truth: GroundTruth, best: np.ndarray, overlaps: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Which detections are right for VOC, bool [n], and which count at all, bool [n].

    Args:
        ranked: the detections.
        truth: the labels.
        best: from `match` without crowds.
        overlaps: from `match` without crowds.
    """
    counted = np.ones(len(best), np.bool_)
    if truth.crowd.any():
        best, overlaps = match(ranked, truth, np.ones_like(truth.crowd))
        counted = ~(truth.crowd[best] & (overlaps >= IOU_THRESHOLDS[0]))
    return hits_at(best, overlaps, IOU_THRESHOLDS[:1])[:, 0] & counted, counted


def _rows_of_classes(labels: np.ndarray, num_classes: int) -> list[np.ndarray]:
    """For each class the rows that it has, in order."""
    order = np.argsort(labels, kind="stable")
    ends = np.searchsorted(labels[order], np.arange(num_classes), side="right")
    return np.split(order, ends[:-1]) if num_classes else []


def _iou(boxes: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """IoU of boxes [n, 4] with the targets at the same index; 0 without area."""
    low = np.maximum(boxes[:, :2], targets[:, :2])
    high = np.minimum(boxes[:, 2:], targets[:, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=1)
    total = sum((x[:, 2:] - x[:, :2]).prod(axis=1) for x in (boxes, targets)) - shared
    return shared / np.where(total > 0, total, 1)


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else math.nan
