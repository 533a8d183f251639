"""COCO numbers of a detector, from the COCO evaluator.

The numbers are means over the evaluator's precision and recall tables, at full
precision; nothing of the matching or of the interpolation is ours.
"""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster

from yolojax.data.sources.base import Source
from yolojax.printable import printable
from yolojax.records import Id

# The evaluator's own settings, in the order of its tables.
AREAS = ("all", "small", "medium", "large")
MAX_DETECTIONS = (1, 10, 100)
_LARGEST_ID = 2**53

# Rows of the printed table: key, quantity, IoU, area, detections a class and picture.
ROWS = (
    ("mAP50_95", "average precision", "0.50:0.95", "all", 100),
    ("mAP50", "average precision", "0.50", "all", 100),
    ("mAP75", "average precision", "0.75", "all", 100),
    ("mAP_small", "average precision", "0.50:0.95", "small", 100),
    ("mAP_medium", "average precision", "0.50:0.95", "medium", 100),
    ("mAP_large", "average precision", "0.50:0.95", "large", 100),
    ("AR1", "average recall", "0.50:0.95", "all", 1),
    ("AR10", "average recall", "0.50:0.95", "all", 10),
    ("AR100", "average recall", "0.50:0.95", "all", 100),
    ("AR_small", "average recall", "0.50:0.95", "small", 100),
    ("AR_medium", "average recall", "0.50:0.95", "medium", 100),
    ("AR_large", "average recall", "0.50:0.95", "large", 100),
)


@dataclasses.dataclass(frozen=True)
class GroundTruth:
    """The labels that detections are compared with.

    Attributes:
        class_names: names, by label.
        category_ids: the source's own number of each class, by label; or a text.
        indices: int64 [p], the pictures' indices in their source.
        image_ids: the source's own numbers of the pictures, p; or texts.
        sizes: int64 [p, 2], height and width of the pictures as shown.
        pictures: int64 [n], the row of each box's picture.
        boxes: float64 [n, 4], corners, in pixels of the original picture.
        labels: int64 [n].
        crowd: bool [n]; detections on such boxes count neither for nor against.
        areas: float64 [n], what small, medium and large go by, in square pixels.
    """

    class_names: tuple[str, ...]
    category_ids: tuple[Id, ...]
    indices: np.ndarray
    image_ids: tuple[Id, ...]
    sizes: np.ndarray
    pictures: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray
    areas: np.ndarray

    @classmethod
    def from_source(cls, source: Source, keep: Iterable[int]) -> GroundTruth:
        """The labels of the pictures of `source` whose indices are in `keep`.

        Raises:
            ValueError: two pictures or two classes have the same number.
        """
        indices = np.asarray(list(keep), np.int64)
        examples = [source[int(index)] for index in indices]
        image_ids = _plain(e.image_id for e in examples)
        category_ids = _plain(source.category_ids)
        _check_unique(image_ids, "pictures", "image id")
        _check_unique(category_ids, "classes", "category id")
        counts = [len(e.labels) for e in examples]

        def joined(field: str, dtype: type, width: tuple[int, ...] = ()) -> np.ndarray:
            parts = [np.asarray(getattr(e, field), dtype) for e in examples]
            return np.concatenate([np.zeros((0, *width), dtype), *parts])

        return cls(
            class_names=tuple(source.class_names),
            category_ids=category_ids,
            indices=indices,
            image_ids=image_ids,
            sizes=np.asarray([e.size for e in examples], np.int64).reshape(-1, 2),
            pictures=np.repeat(np.arange(len(examples)), counts),
            boxes=joined("boxes", np.float64, (4,)),
            labels=joined("labels", np.int64),
            crowd=joined("crowd", np.bool_),
            areas=joined("areas", np.float64),
        )

    @property
    def distinct_names(self) -> list[str]:
        """The class names; those that occur twice with their category id."""
        names = self.class_names
        return [
            name if names.count(name) == 1 else f"{name} ({category_id})"
            for name, category_id in zip(names, self.category_ids, strict=True)
        ]


def coco_metrics(
    ground_truth: GroundTruth, detections: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """The COCO numbers of `detections`.

    Args:
        ground_truth: the labels.
        detections: rows of the COCO results format: `image_id` and `category_id` in
            the source's numbering, `bbox` as x y width height in pixels of the
            original picture, and `score`.

    Returns:
        `mAP50_95`, `mAP50`, `mAP75`, `mAP_small`, `mAP_medium`, `mAP_large` (at most
        100 detections a class and picture), `AR1`, `AR10`, `AR100`, `AR_small`,
        `AR_medium`, `AR_large`, in [0, 1]; `per_class`, by name: `AP`, `AP50`, `AP75`,
        `AR100`, `num_boxes`; `counts`: `images`, `boxes` and `detections`. Boxes are
        counted without crowds. A number that no box defines is NaN.

    Raises:
        ValueError: a detection is of a picture or class that the labels do not have.
    """
    check_known(ground_truth, detections)
    num_classes = len(ground_truth.category_ids)
    precision, recall = _tables(ground_truth, detections)

    def average_precision(area: str = "all", iou: int | None = None) -> float:
        # Axes: IoU, recall, class, area, detections.
        table = precision[..., AREAS.index(area), -1]
        return _mean(table if iou is None else table[iou])

    boxes_of = np.bincount(
        ground_truth.labels[~ground_truth.crowd], minlength=num_classes
    )
    names = ground_truth.distinct_names
    return {
        "mAP50_95": average_precision(),
        "mAP50": average_precision(iou=0),
        "mAP75": average_precision(iou=5),
        "mAP_small": average_precision("small"),
        "mAP_medium": average_precision("medium"),
        "mAP_large": average_precision("large"),
        "AR1": _mean(recall[..., 0, 0]),
        "AR10": _mean(recall[..., 0, 1]),
        "AR100": _mean(recall[..., 0, 2]),
        "AR_small": _mean(recall[..., 1, -1]),
        "AR_medium": _mean(recall[..., 2, -1]),
        "AR_large": _mean(recall[..., 3, -1]),
        "per_class": {
            names[label]: {
                "AP": _mean(precision[:, :, label, 0, -1]),
                "AP50": _mean(precision[0, :, label, 0, -1]),
                "AP75": _mean(precision[5, :, label, 0, -1]),
                "AR100": _mean(recall[:, label, 0, -1]),
                "num_boxes": int(boxes_of[label]),
            }
            for label in range(num_classes)
        },
        "counts": {
            "images": len(ground_truth.image_ids),
            "boxes": int(boxes_of.sum()),
            "detections": len(detections),
        },
    }


def jsonable(metrics: Any) -> Any:
    """The metrics with None, JSON's null, in the place of NaN, which JSON lacks."""
    if isinstance(metrics, Mapping):
        return {name: jsonable(value) for name, value in metrics.items()}
    if isinstance(metrics, float) and math.isnan(metrics):
        return None
    return metrics


def format_table(
    metrics: Mapping[str, Any], class_names: Sequence[str] | None = None
) -> str:
    """The metrics as text: the COCO table, then one line a class.

    Where there are numbers by other rules, a table of those follows, a line a class
    and one of their means.

    Args:
        metrics: from `coco_metrics`; `published`, if any, from `published_metrics`.
        class_names: the classes to list, in this order; all of them by default, or
            where one is not in the metrics.

    Returns:
        Lines of aligned columns; "-" for a number that no box defines.
    """
    counts = metrics["counts"]
    summary = [["", "IoU", "area", "at most", ""]]
    summary += [
        [quantity, iou, area, str(most), shown_number(metrics[key])]
        for key, quantity, iou, area, most in ROWS
    ]
    per_class = metrics["per_class"]
    columns = ("AP", "AP50", "AP75", "AR100")
    classes = [["class", "boxes", *columns]]
    listed = class_names or ()
    if not listed or not set(listed) <= set(per_class):
        listed = tuple(per_class)
    for name in listed:
        values = per_class[name]
        numbers = [shown_number(values[column]) for column in columns]
        classes.append([name, str(values["num_boxes"]), *numbers])
    others = metrics.get("published")
    return "\n".join(
        [
            f"{counts['images']} pictures, {counts['boxes']} boxes, "
            f"{counts['detections']} detections",
            "",
            *aligned(summary, "<<<>>"),
            "",
            *aligned(classes, "<>>>>>"),
            *(_published_table(others, listed, counts["boxes"]) if others else ()),
        ]
    )


def _published_table(
    published: Mapping[str, Any], listed: Sequence[str], num_boxes: int
) -> list[str]:
    columns = {
        "P": "precision",
        "R": "recall",
        "F1": "f1",
        "AP50": "AP50",
        "AP50-95": "AP50_95",
        "VOC07 AP50": "voc07_AP50",
    }
    means = {key: published[key.replace("AP", "mAP")] for key in columns.values()}
    rows = [["class", "boxes", *columns]]
    for name, values in (
        ("all", means | {"num_boxes": num_boxes}),
        *((name, published["per_class"][name]) for name in listed),
    ):
        numbers = [shown_number(values[key]) for key in columns.values()]
        rows.append([name, str(values["num_boxes"]), *numbers])
    return [
        "",
        "by the rules of YOLOv5 and VOC-2007; P, R and F1 at confidence "
        f"{shown_number(published['confidence'])}, where the mean F1 is largest",
        "",
        *aligned(rows, "<" + ">" * (len(columns) + 1)),
    ]


def aligned(rows: list[list[str]], sides: str) -> list[str]:
    """One line a row; a column lies to the side (`<` or `>`) named in `sides`."""
    rows = [[printable(cell) for cell in row] for row in rows]
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            f"{cell:{side}{width}}"
            for cell, side, width in zip(row, sides, widths, strict=True)
        ).rstrip()
        for row in rows
    ]
    return [lines[0], "-" * max(map(len, lines)), *lines[1:]]


def shown_number(value: float | None) -> str:
    """The value with four decimals; - for NaN and None."""
    return "-" if value is None or math.isnan(value) else f"{value:.4f}"


def _tables(
    truth: GroundTruth, detections: Sequence[Mapping[str, Any]]
) -> tuple[np.ndarray, np.ndarray]:
    """The evaluator's precision [t, r, c, a, m] and recall [t, c, a, m]; -1: none.

    Classes are in order of label.
    """
    num_classes = len(truth.category_ids)
    if not num_classes or not len(truth.image_ids):
        shape = (10, 101, num_classes, len(AREAS), len(MAX_DETECTIONS))
        return np.full(shape, -1.0), np.full((10, *shape[2:]), -1.0)
    # The evaluator takes numbers alone.
    numbers = _numbered(truth.image_ids)
    labels = _numbered(truth.category_ids)
    images = [
        {"id": numbers[i], "height": int(h), "width": int(w)}
        for i, (h, w) in zip(truth.image_ids, truth.sizes, strict=True)
    ]
    categories = [
        {"id": labels[i], "name": name}
        for i, name in zip(truth.category_ids, truth.class_names, strict=True)
    ]
    labelled = []
    for row, (x1, y1, x2, y2) in enumerate(truth.boxes.tolist()):
        labelled.append(
            {
                # 0 would read as "not matched".
                "id": row + 1,
                "image_id": numbers[truth.image_ids[truth.pictures[row]]],
                "category_id": labels[truth.category_ids[truth.labels[row]]],
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "area": float(truth.areas[row]),
                "iscrowd": int(truth.crowd[row]),
            }
        )
    # Copies: the evaluator writes into the rows that it is given.
    found = [
        {
            "id": row + 1,
            "image_id": numbers[detection["image_id"]],
            "category_id": labels[detection["category_id"]],
            "bbox": list(detection["bbox"]),
            "area": detection["bbox"][2] * detection["bbox"][3],
            "iscrowd": 0,
            "score": detection["score"],
        }
        for row, detection in enumerate(detections)
    ]
    evaluator = COCOeval_faster(
        _index(images, categories, labelled),
        _index(images, categories, found),
        iouType="bbox",
        print_function=_silent,
    )
    evaluator.evaluate()
    evaluator.accumulate()
    # The evaluator sorts classes by category id.
    order = np.argsort(np.argsort([labels[i] for i in truth.category_ids]))
    precision = np.asarray(evaluator.eval["precision"], np.float64)
    recall = np.asarray(evaluator.eval["recall"], np.float64)
    return precision[:, :, order], recall[:, order]


def _plain(ids: Iterable[Any]) -> tuple[Id, ...]:
    """Ids as JSON has them, also where they are NumPy's integers."""
    return tuple(i if isinstance(i, str) else int(i) for i in ids)


def _numbered(ids: Sequence[Id]) -> dict[Id, int]:
    """A number for each id: itself where all are numbers, otherwise its place."""
    if all(isinstance(i, int) and abs(i) < _LARGEST_ID for i in ids):
        return {i: int(i) for i in ids}
    return {i: place for place, i in enumerate(ids, start=1)}


def _index(images: list, categories: list, annotations: list) -> COCO:
    return COCO(
        {"images": images, "categories": categories, "annotations": annotations},
        print_function=_silent,
    )


def _silent(*_: Any) -> None:
    """Takes the evaluator's chatter."""


def _mean(table: np.ndarray) -> float:
    """Mean of the defined entries; NaN where there are none."""
    defined = table[table > -1]
    return float(np.mean(defined)) if defined.size else math.nan


def _check_unique(ids: Sequence[Id], things: str, kind: str) -> None:
    counts = collections.Counter(ids)
    double = next((i for i, count in counts.items() if count > 1), None)
    if double is not None:
        raise ValueError(
            f"two {things} have the {kind} {double}; the evaluator could not tell them "
            "apart. Give each its own"
        )


def check_known(truth: GroundTruth, detections: Sequence[Mapping[str, Any]]) -> None:
    """Check that every detection is of a picture and a class of the truth.

    Raises:
        ValueError: one is not.
    """
    for key, known in (
        ("image_id", set(truth.image_ids)),
        ("category_id", set(truth.category_ids)),
    ):
        strangers = {detection[key] for detection in detections} - known
        if strangers:
            first = min(strangers, key=str)
            raise ValueError(
                f"detections have {key} {first}, which the labels do not have "
                f"({len(strangers)} such). Evaluate on the data that they are of"
            )
