"""The COCO numbers against pycocotools and against cases worked out by hand."""

import contextlib
import dataclasses
import io
import json
import math

import numpy as np
import pytest

from yolojax.metrics.detection import (
    GroundTruth,
    coco_metrics,
    format_table,
    jsonable,
)
from yolojax.records import Example


@dataclasses.dataclass
class ListSource:
    """A source over a list of examples."""

    examples: list[Example]
    class_names: tuple[str, ...] = ("cat", "dog")
    category_ids: tuple[int, ...] = (7, 3)

    def __len__(self):
        return len(self.examples)

    def __getitem__(self, index):
        return self.examples[index]


def example(image_id, boxes, labels, *, crowd=None, areas=None, size=(200, 300)):
    boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
    sides = boxes[:, 2:] - boxes[:, :2]
    return Example(
        image="",
        boxes=boxes,
        labels=np.asarray(labels, np.int32),
        crowd=np.asarray(crowd or [False] * len(boxes), bool),
        areas=sides.prod(axis=1) if areas is None else np.float32(areas),
        image_id=image_id,
        size=size,
        name=str(image_id),
    )


def detection(image_id, category_id, bbox, score):
    return dict(image_id=image_id, category_id=category_id, bbox=bbox, score=score)


def random_set(seed, num_pictures=25, category_ids=(7, 3, 90)):
    """Labels with crowds and areas of their own, and detections around them."""
    generator = np.random.default_rng(seed)
    examples, detections = [], []
    for picture in range(num_pictures):
        count = generator.integers(0, 9)
        low = generator.uniform(0, 150, (count, 2))
        sides = np.exp(generator.uniform(2.5, 5.2, (count, 2)))
        boxes = np.concatenate([low, low + sides], axis=1).astype(np.float32)
        labels = generator.integers(0, len(category_ids), count)
        image_id = 1000 - 3 * picture
        examples.append(
            example(
                image_id,
                boxes,
                labels,
                crowd=list(generator.uniform(size=count) < 0.2),
                areas=sides.prod(axis=1) * generator.uniform(0.4, 1, count),
            )
        )
        for box, label in zip(boxes, labels, strict=True):
            for _ in range(generator.integers(0, 4)):
                if generator.uniform() < 0.2:
                    label = generator.integers(0, len(category_ids))
                x1, y1, x2, y2 = box + generator.normal(0, 2, 4)
                bbox = [float(x1), float(y1), float(abs(x2 - x1)), float(abs(y2 - y1))]
                # Steps, so that scores are equal now and then.
                score = float(generator.integers(1, 50)) / 50
                row = detection(image_id, category_ids[label], bbox, score)
                detections.append(row)
    names = tuple(f"class {i}" for i in range(len(category_ids)))
    return ListSource(examples, names, category_ids), detections


def oracle(source, keep, detections):
    """The same numbers from pycocotools, and its AP of each category."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    annotations = []
    for index in keep:
        for row, (x1, y1, x2, y2) in enumerate(source[index].boxes.tolist()):
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=source[index].image_id,
                    category_id=source.category_ids[source[index].labels[row]],
                    bbox=[x1, y1, x2 - x1, y2 - y1],
                    area=float(source[index].areas[row]),
                    iscrowd=int(source[index].crowd[row]),
                )
            )
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = dict(
            images=[dict(id=source[i].image_id, height=200, width=300) for i in keep],
            annotations=annotations,
            categories=[dict(id=i, name=str(i)) for i in source.category_ids],
        )
        truth.createIndex()
        copies = [dict(row, bbox=list(row["bbox"])) for row in detections]
        evaluator = COCOeval(truth, truth.loadRes(copies), "bbox")
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    precision = evaluator.eval["precision"][..., 0, -1]
    per_category = {}
    for position, category_id in enumerate(evaluator.params.catIds):
        values = precision[:, :, position]
        per_category[category_id] = values[values > -1].mean()
    return evaluator.stats, per_category


KEYS = (
    *("mAP50_95", "mAP50", "mAP75", "mAP_small", "mAP_medium", "mAP_large"),
    *("AR1", "AR10", "AR100", "AR_small", "AR_medium", "AR_large"),
)


@pytest.mark.parametrize("seed", range(3))
def test_numbers_are_those_of_pycocotools(seed):
    source, detections = random_set(seed)
    # Left-out pictures count in neither.
    keep = [i for i in range(len(source)) if i % 6 != 5]
    kept_ids = {source[i].image_id for i in keep}
    detections = [row for row in detections if row["image_id"] in kept_ids]
    expected, per_category = oracle(source, keep, detections)
    metrics = coco_metrics(GroundTruth.from_source(source, keep), detections)
    np.testing.assert_allclose([metrics[key] for key in KEYS], expected, atol=1e-9)
    assert 0.1 < metrics["mAP50_95"] < 0.9
    for name, category_id in zip(source.class_names, source.category_ids, strict=True):
        assert metrics["per_class"][name]["AP"] == pytest.approx(
            per_category[category_id], abs=1e-9
        )


def test_ids_that_are_texts_give_the_same_numbers():
    source, detections = random_set(0)
    # Of equal scores that of the lower id counts first; here ids fall.
    source.examples.reverse()
    expected = coco_metrics(GroundTruth.from_source(source, range(25)), detections)
    texts = [dataclasses.replace(e, image_id=f"p{e.image_id}") for e in source.examples]
    ids = {7: "seven", 3: 3, 90: 2**70}
    named = ListSource(texts, source.class_names, tuple(map(ids.get, (7, 3, 90))))
    rows = [
        row | dict(image_id=f"p{row['image_id']}", category_id=ids[row["category_id"]])
        for row in detections
    ]
    truth = GroundTruth.from_source(named, range(25))
    metrics = coco_metrics(truth, rows)
    for name, numbers in expected["per_class"].items():
        assert metrics["per_class"][name] == pytest.approx(numbers)
    assert [metrics[key] for key in KEYS] == pytest.approx(
        [expected[key] for key in KEYS]
    )
    with pytest.raises(ValueError, match="have image_id p1, which the labels do not"):
        coco_metrics(truth, [rows[0] | {"image_id": "p1"}])


def test_a_case_worked_out_by_hand():
    # One cat found exactly and one missed; the dog is found with IoU 0.6 exactly
    # below .65, and a better scored box beside it is wrong.
    source = ListSource(
        [
            example(11, [[0, 0, 100, 100], [150, 0, 250, 100]], [0, 0]),
            example(5, [[10, 10, 50, 50]], [1]),
        ]
    )
    detections = [
        detection(11, 7, [0.0, 0.0, 100.0, 100.0], 0.9),
        detection(5, 3, [100.0, 100.0, 40.0, 40.0], 0.8),
        detection(5, 3, [10.0, 10.0, 40.0, 25.0], 0.7),
    ]
    metrics = coco_metrics(GroundTruth.from_source(source, [0, 1]), detections)
    # Cat: precision 1 up to recall .5, that is 51 of 101 points. Dog: precision 1/2
    # at every recall, at IoU .5, .55 and .6 (IoU is 1000 / 1600 = .625).
    cat, dog = metrics["per_class"]["cat"], metrics["per_class"]["dog"]
    assert cat["AP"] == pytest.approx(51 / 101)
    assert cat["AR100"] == pytest.approx(0.5)
    assert dog["AP50"] == pytest.approx(0.5)
    assert dog["AP75"] == 0
    assert dog["AP"] == pytest.approx(0.5 * 3 / 10)
    assert metrics["mAP50"] == pytest.approx((51 / 101 + 0.5) / 2)
    assert metrics["mAP50_95"] == pytest.approx((51 / 101 + 0.15) / 2)
    # The dog's first box is the wrong one.
    assert metrics["AR1"] == pytest.approx((0.5 + 0) / 2)
    assert metrics["AR10"] == pytest.approx((0.5 + 0.3) / 2)
    # 40 x 40 is medium, 100 x 100 large.
    assert math.isnan(metrics["mAP_small"])
    assert metrics["mAP_large"] == pytest.approx(51 / 101)
    assert metrics["counts"] == dict(images=2, boxes=3, detections=3)
    assert (cat["num_boxes"], dog["num_boxes"]) == (2, 1)


def test_a_detection_on_a_crowd_counts_neither_for_nor_against():
    boxes = [[0, 0, 200, 200], [210, 0, 250, 40]]
    source = ListSource([example(1, boxes, [0, 0], crowd=[True, False])])
    detections = [
        detection(1, 7, [20.0, 20.0, 30.0, 30.0], 0.9),
        detection(1, 7, [210.0, 0.0, 40.0, 40.0], 0.8),
    ]
    metrics = coco_metrics(GroundTruth.from_source(source, [0]), detections)
    assert metrics["mAP50_95"] == pytest.approx(1)
    assert metrics["counts"]["boxes"] == 1


def test_sizes_go_by_the_area_of_the_source_not_by_the_box():
    source = ListSource([example(1, [[0, 0, 100, 100]], [0], areas=[900])])
    found = [detection(1, 7, [0.0, 0.0, 100.0, 100.0], 0.9)]
    metrics = coco_metrics(GroundTruth.from_source(source, [0]), found)
    assert metrics["mAP_small"] == pytest.approx(1)
    assert math.isnan(metrics["mAP_large"])


def test_no_detections_give_zero():
    source, _ = random_set(0)
    metrics = coco_metrics(GroundTruth.from_source(source, range(25)), [])
    assert metrics["mAP50_95"] == metrics["AR100"] == 0
    assert metrics["counts"]["detections"] == 0


@pytest.mark.parametrize("keep", [[], [0]], ids=["no picture", "no box"])
def test_without_boxes_numbers_are_nan_and_null_in_json(keep):
    source = ListSource([example(1, [], [])])
    found = [detection(1, 7, [0.0, 0.0, 9.0, 9.0], 0.5)] if keep else []
    metrics = coco_metrics(GroundTruth.from_source(source, keep), found)
    assert math.isnan(metrics["mAP50_95"])
    text = json.dumps(jsonable(metrics), allow_nan=False)
    assert json.loads(text)["per_class"]["dog"]["AP"] is None
    assert json.loads(text)["counts"]["images"] == len(keep)
    assert "-" in format_table(metrics)


def test_nothing_is_printed_and_the_rows_stay_as_they_are(capfd):
    source, detections = random_set(1, num_pictures=4)
    before = json.dumps(detections)
    coco_metrics(GroundTruth.from_source(source, range(4)), detections)
    assert json.dumps(detections) == before
    printed = capfd.readouterr()
    assert printed.out == printed.err == ""


def test_detections_of_other_pictures_or_classes_are_an_error():
    truth = GroundTruth.from_source(ListSource([example(1, [], [])]), [0])
    with pytest.raises(ValueError, match="image_id 2, which the labels do not have"):
        coco_metrics(truth, [detection(2, 7, [0.0, 0.0, 1.0, 1.0], 0.5)])
    with pytest.raises(ValueError, match="category_id 9, which the labels do not"):
        coco_metrics(truth, [detection(1, 9, [0.0, 0.0, 1.0, 1.0], 0.5)])


def test_two_pictures_of_one_number_are_an_error():
    source = ListSource([example(4, [], []), example(4, [], [])])
    with pytest.raises(ValueError, match="two pictures have the image id 4"):
        GroundTruth.from_source(source, [0, 1])


def test_classes_of_one_name_keep_a_row_each():
    source = ListSource([example(1, [[0, 0, 9, 9]], [1])], ("dog", "dog"))
    metrics = coco_metrics(GroundTruth.from_source(source, [0]), [])
    assert [row["num_boxes"] for row in metrics["per_class"].values()] == [0, 1]
    assert list(metrics["per_class"]) == ["dog (7)", "dog (3)"]


def test_the_table_has_aligned_columns_with_every_number():
    source, detections = random_set(2)
    metrics = coco_metrics(GroundTruth.from_source(source, range(25)), detections)
    lines = format_table(metrics, ("class 2", "class 0")).splitlines()
    assert lines[0].startswith("25 pictures, ")
    summary, classes = lines[2:16], lines[17:]
    for key, line in zip(KEYS, summary[2:], strict=True):
        assert line.split()[-1] == f"{metrics[key]:.4f}"
    assert [line[:7] for line in classes[2:]] == ["class 2", "class 0"]
    for block in (summary, classes):
        assert len({len(line) for line in block[2:]}) == 1
