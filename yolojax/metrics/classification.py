"""Numbers of an image classifier, from its probabilities and the labels.

Plain arrays in, plain numbers out: floats, ints and lists, which JSON has. What is not
defined, such as the recall of a class without pictures, is NaN, and the means leave it
out.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from yolojax.data.sources.base import Source
from yolojax.metrics.curves import f1_of
from yolojax.metrics.detection import aligned, shown_number

NUM_BINS = 15
# What a multi-label classifier takes as "yes".
THRESHOLD = 0.5
# Below the least float32 a probability is 0, whose logarithm would be infinite.
_LEAST = float(np.finfo(np.float32).tiny)
# Rows of the printed table of classes.
_LISTED = 40

SINGLE_ROWS = (
    ("accuracy", "accuracy (top-1)"),
    ("accuracy_top5", "accuracy (top-5)"),
    ("macro_precision", "precision, mean over classes"),
    ("macro_recall", "recall, mean over classes"),
    ("macro_f1", "F1, mean over classes"),
    ("ece", f"expected calibration error, {NUM_BINS} bins"),
    ("nll", "negative log-likelihood"),
)
MULTI_ROWS = (
    ("mean_average_precision", "average precision, mean over classes"),
    ("macro_precision", "precision, mean over classes"),
    ("macro_recall", "recall, mean over classes"),
    ("macro_f1", "F1, mean over classes"),
    ("micro_f1", "F1, all classes together"),
    ("accuracy", "pictures with all labels right"),
)


class Reliability(NamedTuple):
    """How sure a classifier is and how often it is right, by confidence.

    Bin m of M holds the confidences in ((m - 1) / M, m / M]; 0 is in the first.

    Attributes:
        counts: int64 [m], predictions in each bin.
        confidence: float64 [m], their mean confidence; NaN in an empty bin.
        accuracy: float64 [m], the share that is right; NaN in an empty bin.
    """

    counts: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray

    @property
    def expected_error(self) -> float:
        """The mean gap between both, weighted by the counts; NaN without predictions.

        Source: Guo et al. 2017, arXiv:1706.04599, section 2, equation 3.
        """
        total = int(self.counts.sum())
        if not total:
            return math.nan
        gaps = np.abs(self.accuracy - self.confidence)
        return float(np.nansum(gaps * self.counts) / total)


def labels_of(source: Source, keep: Iterable[int]) -> np.ndarray:
    """The label of each picture of `source` in `keep`, int64 [n]; -1 for none.

    Of several, as a picture with boxes has, that of the largest area; of equal ones the
    first.
    """
    found = []
    for index in keep:
        example = source[int(index)]
        areas = np.where(example.crowd, -1.0, example.areas)
        best = int(areas.argmax()) if len(areas) else -1
        found.append(
            int(example.labels[best]) if best >= 0 and areas[best] >= 0 else -1
        )
    return np.asarray(found, np.int64)


def targets_of(source: Source, keep: Iterable[int], num_classes: int) -> np.ndarray:
    """Which labels each picture of `source` in `keep` has, bool [n, c]."""
    indices = [int(index) for index in keep]
    targets = np.zeros((len(indices), num_classes), np.bool_)
    for row, index in enumerate(indices):
        targets[row, source[index].labels] = True
    return targets


def class_metrics(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """The numbers of a classifier that gives each picture one class.

    Of several classes with equal probability the first one is predicted.

    Args:
        probabilities: [n, c], c at least 1, in [0, 1]. A row that is not finite tells
            nothing: it counts as 1 / c everywhere.
        labels: int [n], in 0 to c - 1; pictures with a negative one have no label and
            are left out.

    Returns:
        `accuracy` and `accuracy_top5` (among the 5 most probable classes, or all
        where there are fewer); `macro_precision`, `macro_recall`, `macro_f1`, the
        means over the classes that have pictures; `ece`, see `Reliability`; `nll`, the
        mean of -log of the label's probability; `num_pictures`, and `num_not_finite`
        of them; `per_class`, a list by label of `precision`, `recall`, `f1` and
        `support` (pictures): 0 where a class with pictures is never found, NaN for one
        without pictures; `confusion`, counts by [label][prediction]. Without pictures
        all numbers but the counts are NaN.

    Raises:
        ValueError: the shapes do not fit, or a label is beyond the classes.
    """
    probabilities, finite = _checked(probabilities)
    labels = np.asarray(labels)
    num_classes = probabilities.shape[1]
    if labels.shape != probabilities.shape[:1]:
        raise ValueError(
            f"class_metrics: {len(probabilities)} rows of probabilities, but labels of "
            f"shape {list(labels.shape)}"
        )
    if len(labels) and labels.max() >= num_classes:
        raise ValueError(
            f"class_metrics: label {labels.max()}, but {num_classes} classes "
            f"(0 to {num_classes - 1})"
        )
    labelled = labels >= 0
    probabilities, labels = probabilities[labelled], labels[labelled].astype(np.int64)
    predicted = probabilities.argmax(axis=1)
    confusion = confusion_matrix(labels, predicted, num_classes)
    right = np.diagonal(confusion)
    per_class = _by_class(right, confusion.sum(axis=0), confusion.sum(axis=1))
    own = np.take_along_axis(probabilities, labels[:, None], axis=1)[:, 0]
    ranks = rank_of_label(probabilities, labels)
    confidence = probabilities.max(axis=1, initial=0.0)
    return {
        "accuracy": _mean(ranks < 1),
        "accuracy_top5": _mean(ranks < 5),
        **_macro(per_class),
        "ece": reliability(confidence, predicted == labels).expected_error,
        "nll": _mean(-np.log(np.maximum(own.astype(np.float64), _LEAST))),
        "num_pictures": len(labels),
        "num_not_finite": int((~finite[labelled]).sum()),
        "per_class": _listed(per_class),
        "confusion": confusion.tolist(),
    }


def multi_label_metrics(
    probabilities: np.ndarray, targets: np.ndarray, *, threshold: float = THRESHOLD
) -> dict[str, Any]:
    """The numbers of a classifier that says yes or no to each class.

    Args:
        probabilities: [n, c], c at least 1, each in [0, 1]. A row that is not finite
            tells nothing: it counts as 1 / c everywhere.
        targets: [n, c], 1 or True where the picture has the label.
        threshold: from this probability on the answer is yes.

    Returns:
        `mean_average_precision`, `macro_precision`, `macro_recall`, `macro_f1`, the
        means over the classes that have pictures; `micro_f1`, of all answers together;
        `accuracy`, the share of pictures whose answers are all right; `threshold`,
        `num_pictures`, `num_not_finite`; `per_class`, a list by label of
        `average_precision` (see there), `precision`, `recall`, `f1` and `support`:
        0 where a class with pictures is never found, NaN for one without pictures.

    Raises:
        ValueError: the shapes do not fit.
    """
    probabilities, finite = _checked(probabilities)
    targets = np.asarray(targets)
    if targets.shape != probabilities.shape:
        raise ValueError(
            f"multi_label_metrics: probabilities {list(probabilities.shape)}, but "
            f"targets {list(targets.shape)}"
        )
    targets = targets > 0
    answers = probabilities >= threshold
    right = (answers & targets).sum(axis=0)
    per_class = {
        "average_precision": np.asarray(
            [
                average_precision(*columns)
                for columns in zip(probabilities.T, targets.T, strict=True)
            ]
        ),
        **_by_class(right, answers.sum(axis=0), targets.sum(axis=0)),
    }
    counted = targets.sum() + answers.sum()
    macro = _macro(per_class)
    return {
        "mean_average_precision": macro.pop("macro_average_precision"),
        **macro,
        "micro_f1": float(2 * right.sum() / counted) if counted else math.nan,
        "accuracy": _mean((answers == targets).all(axis=1)),
        "threshold": float(threshold),
        "num_pictures": len(targets),
        "num_not_finite": int((~finite).sum()),
        "per_class": _listed(per_class),
    }


def confusion_matrix(
    labels: np.ndarray, predicted: np.ndarray, num_classes: int
) -> np.ndarray:
    """How often each class was taken for each, int64 [c, c] by [label, prediction].

    Args:
        labels: int [n], in 0 to c - 1, like `predicted`.
        predicted: int [n].
        num_classes: c.
    """
    pairs = np.asarray(labels, np.int64) * num_classes + predicted
    counts = np.bincount(pairs, minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes)


def rank_of_label(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """How many classes come before the picture's own, int64 [n]; 0: it is predicted.

    Classes come by falling probability, equal ones in order.

    Args:
        probabilities: [n, c], finite.
        labels: int [n], in 0 to c - 1.
    """
    own = np.take_along_axis(probabilities, labels[:, None], axis=1)
    earlier = np.arange(probabilities.shape[1]) < labels[:, None]
    return ((probabilities > own) | ((probabilities == own) & earlier)).sum(axis=1)


def reliability(
    confidence: np.ndarray, right: np.ndarray, *, num_bins: int = NUM_BINS
) -> Reliability:
    """Predictions sorted into bins of equal width by their confidence.

    Args:
        confidence: [n], in [0, 1].
        right: bool [n].
        num_bins: at least 1.
    """
    confidence = np.asarray(confidence, np.float64)
    bins = np.clip(np.ceil(confidence * num_bins).astype(np.int64) - 1, 0, num_bins - 1)
    counts = np.bincount(bins, minlength=num_bins)

    def means(values: np.ndarray) -> np.ndarray:
        totals = np.bincount(bins, weights=values, minlength=num_bins)
        empty = np.full(num_bins, math.nan)
        return np.divide(totals, counts, out=empty, where=counts > 0)

    return Reliability(counts, means(confidence), means(np.asarray(right, np.float64)))


def reliability_rows(found: Reliability) -> list[dict[str, float]]:
    """The bins that hold predictions, as rows for a file, the least sure first.

    Args:
        found: from `reliability`.

    Returns:
        Of each bin its ends `above` and `up_to` (the first holds 0 as well), how many
        `predictions`, their mean `confidence`, and the share of them that is `right`.
    """
    width = 1 / len(found.counts)
    return [
        {
            "above": round(number * width, 6),
            "up_to": round((number + 1) * width, 6),
            "predictions": int(found.counts[number]),
            "confidence": float(found.confidence[number]),
            "right": float(found.accuracy[number]),
        }
        for number in np.flatnonzero(found.counts).tolist()
    ]


def average_precision(scores: np.ndarray, positive: np.ndarray) -> float:
    """The mean precision over the positives, best scores first; NaN without any.

    For each positive the precision among all that score at least as much; nothing is
    interpolated, and equal scores come together, so that their order does not matter.

    Args:
        scores: [n], finite.
        positive: bool [n].

    Source: Zhu 2004, "Recall, precision and average precision", the finite sum.
    """
    if not positive.any():
        return math.nan
    order = np.argsort(-scores, kind="stable")
    # Each place counts at the last one that has the same score.
    last = np.searchsorted(-scores[order], -scores[order], side="right") - 1
    found = np.cumsum(positive[order])
    precision = found[last] / (last + 1)
    return float(precision[positive[order]].mean())


def format_classes(metrics: Mapping[str, Any], class_names: Sequence[str]) -> str:
    """The numbers as text: a table of the means, and one with a row a class.

    Args:
        metrics: from `class_metrics` or `multi_label_metrics`.
        class_names: names by label. Of more than 40 classes those with the lowest F1
            are listed.
    """
    multi_label = "mean_average_precision" in metrics
    rows = MULTI_ROWS if multi_label else SINGLE_ROWS
    if len(class_names) <= 5:
        # It is 1 by definition.
        rows = [row for row in rows if row[0] != "accuracy_top5"]
    columns = ["precision", "recall", "f1"]
    columns = ["average_precision", *columns] if multi_label else columns
    means = [["", ""], *([text, shown_number(metrics[key])] for key, text in rows)]
    named = list(zip(class_names, metrics["per_class"], strict=True))
    more = len(named) > _LISTED
    if more:
        # Those without pictures last.
        named.sort(key=lambda row: (math.isnan(row[1]["f1"]), row[1]["f1"]))
        named = named[:_LISTED]
    titles = [column.replace("average_precision", "AP") for column in columns]
    classes = [["class", "pictures", *titles]]
    for name, values in named:
        numbers = [shown_number(values[column]) for column in columns]
        classes.append([name, str(values["support"]), *numbers])
    lines = [f"{metrics['num_pictures']} pictures, {len(class_names)} classes", ""]
    if metrics["num_not_finite"]:
        lines.insert(1, f"{metrics['num_not_finite']} of them got no finite number")
    lines += [*aligned(means, "<>")[2:], ""]
    lines += [f"the {_LISTED} classes with the lowest F1"] if more else []
    return "\n".join([*lines, *aligned(classes, "<>" + ">" * len(columns))])


def _checked(probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rows, those that are not finite made even; and which were finite."""
    values = np.asarray(probabilities)
    if values.dtype not in (np.float32, np.float64):
        values = values.astype(np.float64)
    if values.ndim != 2 or values.shape[1] < 1:
        raise ValueError(
            "probabilities must be [n, c] with a class at least; got "
            f"{list(values.shape)}"
        )
    finite = np.asarray(np.isfinite(values).all(axis=1))
    if not finite.all():
        values = np.where(finite[:, None], values, values.dtype.type(1 / len(values.T)))
    return values, finite


def _by_class(
    right: np.ndarray, predicted: np.ndarray, support: np.ndarray
) -> dict[str, np.ndarray]:
    """Precision, recall and F1 of each class, NaN without pictures; and its pictures.

    Args:
        right: int [c], pictures of the class that were found.
        predicted: int [c], pictures that were said to be of the class.
        support: int [c], pictures of the class.
    """
    precision = right / np.maximum(predicted, 1)
    recall = right / np.maximum(support, 1)
    values = {"precision": precision, "recall": recall, "f1": f1_of(precision, recall)}
    defined = {k: np.where(support > 0, v, math.nan) for k, v in values.items()}
    return defined | {"support": support}


def _macro(per_class: Mapping[str, np.ndarray]) -> dict[str, float]:
    """The mean of each column over the classes that have pictures."""
    some = per_class["support"] > 0
    return {
        f"macro_{name}": _mean(values[some])
        for name, values in per_class.items()
        if name != "support"
    }


def _listed(per_class: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    columns = {name: values.tolist() for name, values in per_class.items()}
    return [
        dict(zip(columns, row, strict=True))
        for row in zip(*columns.values(), strict=True)
    ]


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else math.nan
