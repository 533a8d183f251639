"""YOLOv5's and VOC-2007's numbers: golden arrays, cases by hand, and symmetries."""

import json
import math

import numpy as np
import pytest

from tests.shared import shared
from yolojax.metrics import curves
from yolojax.metrics.detection import (
    GroundTruth,
    coco_metrics,
    format_table,
    jsonable,
)


def make_truth(pictures, *, num_classes=2, crowd=None):
    """Labels from rows `label x1 y1 x2 y2` of each picture; image ids count from 10."""
    rows = [np.asarray(p, np.float64).reshape(-1, 5) for p in pictures]
    joined = np.concatenate([np.zeros((0, 5)), *rows])
    count = len(pictures)
    return GroundTruth(
        class_names=tuple("abcdef"[:num_classes]),
        category_ids=tuple(range(1, num_classes + 1)),
        indices=np.arange(count),
        image_ids=10 + np.arange(count),
        sizes=np.full((count, 2), 640),
        pictures=np.repeat(np.arange(count), [len(r) for r in rows]),
        boxes=joined[:, 1:],
        labels=joined[:, 0].astype(np.int64),
        crowd=np.zeros(len(joined), bool) if crowd is None else np.asarray(crowd),
        areas=np.ones(len(joined)),
    )


def found(picture, label, corners, score):
    x1, y1, x2, y2 = map(float, corners)
    bbox = [x1, y1, x2 - x1, y2 - y1]
    return dict(image_id=10 + picture, category_id=label + 1, bbox=bbox, score=score)


def square(place):
    """One of many boxes that do not touch each other."""
    return [20 * place, 0, 20 * place + 10, 10]


def row_of_squares(hits, num_boxes, *, label=0):
    """Labels in a row, and detections with falling scores that hit one or none."""
    truth = [[label, *square(i)] for i in range(num_boxes)]
    free = iter(range(num_boxes))
    detections = [
        found(0, label, square(next(free) if hit else 100 + i), 0.9 - i / 100)
        for i, hit in enumerate(hits)
    ]
    return truth, detections


@pytest.fixture(scope="module")
def golden():
    return np.load(shared("golden", "map.npz"))


def golden_case(golden, scores):
    """The fixed set as labels and detections, with the scores in the place of its own.

    The detections of all pictures follow each other as the scores do.
    """
    truth = make_truth([golden[f"lab{i:02d}"] for i in range(40)], num_classes=6)
    rows = [(i, row) for i in range(40) for row in golden[f"det{i:02d}"].astype(float)]
    detections = [
        found(picture, int(row[5]), row[:4], float(score))
        for (picture, row), score in zip(rows, scores, strict=True)
    ]
    return truth, detections


def test_true_positives_of_each_picture_are_those_of_the_original(golden):
    num_right = 0
    for index in range(40):
        rows = golden[f"det{index:02d}"].astype(np.float64)
        truth = make_truth([golden[f"lab{index:02d}"]], num_classes=6)
        ranked = curves.Ranked(
            np.zeros(len(rows), np.int64),
            rows[:, 5].astype(np.int64),
            rows[:, :4],
            rows[:, 4],
        )
        best, overlaps = curves.match(ranked, truth, ~truth.crowd)
        hits = curves.hits_at(best, overlaps, curves.IOU_THRESHOLDS)
        np.testing.assert_array_equal(hits, golden[f"correct{index:02d}"])
        num_right += hits.sum()
    assert num_right == golden["tp"].sum() > 500


def test_average_precision_is_that_of_the_original(golden):
    order = np.argsort(-golden["unique_conf"])
    right, labels = golden["tp"][order], golden["pred_cls"][order]
    for label in range(6):
        count = int((golden["target_cls"] == label).sum())
        ap = curves.average_precision(right[labels == label], count)
        np.testing.assert_allclose(ap, golden["unique_out_ap"][label], atol=1e-12)


def test_all_numbers_are_those_of_the_original(golden):
    scores = golden["unique_conf"].astype(np.float64)
    metrics = curves.published_metrics(*golden_case(golden, scores))
    per_class = [metrics["per_class"][name] for name in "abcdef"]
    for key, name in (("precision", "p"), ("recall", "r"), ("f1", "f1")):
        values = [values[key] for values in per_class]
        np.testing.assert_allclose(values, golden[f"unique_out_{name}"], atol=1e-12)
    ap = golden["unique_out_ap"]
    np.testing.assert_allclose([v["AP50"] for v in per_class], ap[:, 0], atol=1e-12)
    np.testing.assert_allclose([v["AP50_95"] for v in per_class], ap.mean(1), 1e-12)
    np.testing.assert_allclose(
        [metrics[k] for k in ("precision", "recall", "mAP50", "mAP50_95")],
        golden["unique_mp_mr_map50_map"],
        atol=1e-12,
    )


def test_equal_scores_leave_room_that_the_original_and_we_stay_in(golden):
    # The original's order of equal scores is its sort's, which is not a stable one.
    scores = golden["ties_conf"].astype(np.float64)
    right = golden["tp"][:, 0]
    low, high = (
        curves.published_metrics(*golden_case(golden, scores + sign * 1e-6 * right))
        for sign in (-1, 1)
    )
    ours = curves.published_metrics(*golden_case(golden, scores))
    for label, name in enumerate("abcdef"):
        worst, best = (m["per_class"][name]["AP50"] for m in (low, high))
        assert worst < best
        theirs = golden["ties_out_ap"][label, 0]
        for value in (theirs, ours["per_class"][name]["AP50"]):
            assert worst - 1e-12 <= value <= best + 1e-12


def test_a_perfect_detector_has_995_of_1000_by_the_original_and_1_by_voc():
    pictures = [[[0, *square(0)], [1, *square(1)]], [[1, *square(3)]]]
    detections = [
        found(picture, row[0], row[1:], 0.9)
        for picture, rows in enumerate(pictures)
        for row in rows
    ]
    metrics = curves.published_metrics(make_truth(pictures), detections)
    assert metrics["mAP50"] == pytest.approx(0.995)
    assert metrics["mAP50_95"] == pytest.approx(0.995)
    assert metrics["voc07_mAP50"] == 1
    assert metrics["precision"] == metrics["recall"] == metrics["f1"] == 1
    # All confidences up to .85 are as good; the lowest is taken.
    assert metrics["confidence"] == 0


def test_a_case_by_hand():
    # Right, wrong, right of 4: recall .25 .25 .5, precision 1 1/2 2/3; 1/2 is raised.
    truth, detections = row_of_squares([True, False, True], 4)
    metrics = curves.published_metrics(make_truth([truth]), detections)
    only = metrics["per_class"]["a"]
    # 24 steps at 1, one down to 2/3, 25 steps at 2/3, a line from 2/3 to 0 over .5.
    expected = 0.24 + 0.01 * (1 + 2 / 3) / 2 + 0.25 * 2 / 3 + 0.5 * (2 / 3) / 2
    assert only["AP50"] == pytest.approx(expected)
    # 1 at recall 0 .1 .2, 2/3 at .3 .4 .5, then 0.
    assert only["voc07_AP50"] == pytest.approx((3 + 3 * 2 / 3) / 11)
    assert only["num_boxes"] == 4
    # Class b has no label: no number, and no part in the means.
    assert math.isnan(metrics["per_class"]["b"]["AP50"])
    assert metrics["mAP50"] == only["AP50"]
    assert metrics["voc07_mAP50"] == only["voc07_AP50"]


def test_the_confidence_is_where_the_smoothed_f1_is_largest():
    # One label, hit at .8, a wrong one at .4: between them precision rises from 1/2
    # to 1 while recall is 1, above .8 recall is 0. The mean over 101 places is largest
    # where the window's last place is the last one up to .8: 799 of 999.
    detections = [found(0, 0, square(0), 0.8), found(0, 0, square(9), 0.4)]
    truth = make_truth([[[0, *square(0)]]], num_classes=1)
    metrics = curves.published_metrics(truth, detections)
    assert metrics["confidence"] == pytest.approx(749 / 999)
    precision = 0.5 + 0.5 * (749 / 999 - 0.4) / 0.4
    assert metrics["precision"] == pytest.approx(precision)
    assert metrics["recall"] == 1
    assert metrics["f1"] == pytest.approx(2 * precision / (1 + precision))


def test_a_detection_is_not_offered_its_second_best_label():
    # Of 10 wide boxes moved by 2 the IoU is 8/12. Both detections are nearest to the
    # first label; for the COCO evaluator the second takes the other one.
    truth = make_truth([[[0, 0, 0, 10, 10], [0, 2, 0, 12, 10]]], num_classes=1)
    detections = [
        found(0, 0, [0, 0, 10, 10], 0.9),
        found(0, 0, [0.5, 0, 10.5, 10], 0.8),
    ]
    metrics = curves.published_metrics(truth, detections)
    # Recall .5 at precision 1: 6 of 11 points.
    assert metrics["voc07_mAP50"] == pytest.approx(6 / 11)
    assert coco_metrics(truth, detections)["mAP50"] == 1


def test_of_several_at_one_label_the_most_confident_is_right_not_the_nearest():
    truth = make_truth([[[0, 0, 0, 10, 10]]], num_classes=1)
    nearest = found(0, 0, [0, 0, 10, 10], 0.5)
    surest = found(0, 0, [0, 0, 10, 6], 0.6)
    metrics = curves.published_metrics(truth, [nearest, surest])
    # The surest has an IoU of .6, so it is right up to there; then the nearest is, as
    # the second: precision 1/2, and a line from 1 to 1/2 before it.
    second = (1 - 1 / 2) / 2 + 1 / 2
    assert metrics["mAP50"] == pytest.approx(0.995)
    ap = curves.average_precision(np.array([[True, False], [False, True]]), 1)
    assert metrics["mAP50_95"] == pytest.approx((3 * ap[0] + 7 * ap[1]) / 10)
    assert ap[1] < second


def test_a_detection_on_a_crowd_is_wrong_for_the_original_and_ignored_by_voc():
    labels = [[0, *square(0)], [0, *square(1)]]
    truth = make_truth([labels], num_classes=1, crowd=[True, False])
    detections = [found(0, 0, square(0), 0.9), found(0, 0, square(1), 0.8)]
    metrics = curves.published_metrics(truth, detections)
    assert metrics["voc07_mAP50"] == 1
    # Wrong, then right: precision 1/2 at recall 1, raised to 1/2 from just above 0.
    expected = curves.average_precision(np.array([[False], [True]]), 1)[0]
    assert metrics["mAP50"] == pytest.approx(expected)
    assert metrics["per_class"]["a"]["num_boxes"] == 1


def eleven_points(hits, num_boxes):
    """VOC-2007's average precision, straight from its definition."""
    points = [(sum(hits[:k]), sum(hits[:k]) / k) for k in range(1, len(hits) + 1)]
    return (
        sum(
            max(
                (p for right, p in points if 10 * right >= tenth * num_boxes), default=0
            )
            for tenth in range(11)
        )
        / 11
    )


@pytest.mark.parametrize("seed", range(4))
def test_eleven_points_are_those_of_the_definition(seed):
    generator = np.random.default_rng(seed)
    for _ in range(50):
        hits = generator.uniform(size=generator.integers(0, 30)) < 0.5
        num_boxes = max(1, int(hits.sum() + generator.integers(0, 10)))
        ap = curves.voc07_average_precision(hits, num_boxes)
        assert ap == pytest.approx(eleven_points(hits.tolist(), num_boxes), abs=1e-12)


def test_a_recall_of_exactly_three_tenths_reaches_three_tenths():
    # 4 points: recall 0, .1, .2 and .3, where 3 / 10 < 0.1 * 3 in floating point.
    ap = curves.voc07_average_precision(np.ones(3, bool), 10)
    assert ap == pytest.approx(4 / 11)


def random_set(seed, num_classes=3):
    generator = np.random.default_rng(seed)
    pictures, detections = [], []
    for picture in range(20):
        count = generator.integers(0, 7)
        low = generator.uniform(0, 60, (count, 2))
        boxes = np.concatenate([low, low + generator.uniform(10, 60, (count, 2))], 1)
        labels = generator.integers(0, num_classes, count)
        pictures.append(np.concatenate([labels[:, None], boxes], axis=1))
        for box, label in zip(boxes, labels, strict=True):
            for _ in range(generator.integers(0, 4)):
                corners = box + generator.normal(0, 3, 4)
                detections.append(found(picture, label, corners, generator.uniform()))
    return make_truth(pictures, num_classes=num_classes), detections


def test_the_order_of_detections_and_the_pairs_at_once_do_not_matter(monkeypatch):
    truth, detections = random_set(0)
    expected = curves.published_metrics(truth, detections)
    assert 0.2 < expected["mAP50_95"] < expected["mAP50"] < 0.9
    order = np.random.default_rng(1).permutation(len(detections))
    shuffled = [detections[i] for i in order]
    assert curves.published_metrics(truth, shuffled) == expected
    monkeypatch.setattr(curves, "_PAIRS", 5)
    assert curves.published_metrics(truth, detections) == expected


def test_equal_scores_of_several_pictures_go_by_the_order_of_the_pictures():
    truth = make_truth([[[0, *square(0)]], [[0, *square(0)]]], num_classes=1)
    right, wrong = found(0, 0, square(0), 0.5), found(1, 0, square(5), 0.5)
    one, other = (
        curves.published_metrics(truth, rows)
        for rows in ([right, wrong], [wrong, right])
    )
    assert one == other
    assert one["voc07_mAP50"] == pytest.approx(6 / 11)


def test_classes_do_not_touch_each_other():
    truth, detections = random_set(2)
    together = curves.published_metrics(truth, detections)
    for label, name in enumerate(truth.class_names):
        alone = [row for row in detections if row["category_id"] == label + 1]
        values = curves.published_metrics(truth, alone)["per_class"][name]
        for key in ("AP50", "AP50_95", "voc07_AP50"):
            assert values[key] == together["per_class"][name][key]


def test_without_detections_all_is_zero():
    truth, _ = random_set(3)
    metrics = curves.published_metrics(truth, [])
    for values in (metrics, *metrics["per_class"].values()):
        numbers = {
            k: v for k, v in values.items() if k not in ("per_class", "num_boxes")
        }
        assert set(numbers.values()) == {0.0}


@pytest.mark.parametrize("pictures", [[], [[]]], ids=["no picture", "no box"])
def test_without_labels_numbers_are_nan_and_null_in_json(pictures):
    detections = [found(0, 0, square(0), 0.5)] if pictures else []
    metrics = curves.published_metrics(make_truth(pictures), detections)
    text = json.loads(json.dumps(jsonable(metrics), allow_nan=False))
    per_class = text.pop("per_class")
    assert set(text.values()) == {None}
    assert per_class["a"].pop("num_boxes") == 0
    assert set(per_class["a"].values()) == {None}


def test_without_classes_there_is_nothing():
    metrics = curves.published_metrics(make_truth([[]], num_classes=0), [])
    assert math.isnan(metrics["mAP50"]) and metrics["per_class"] == {}


def test_detections_of_other_pictures_are_an_error():
    with pytest.raises(ValueError, match="image_id 17, which the labels do not have"):
        curves.published_metrics(make_truth([[]]), [found(7, 0, square(0), 0.5)])


def test_the_table_shows_every_class_and_their_means():
    truth, detections = random_set(4)
    metrics = coco_metrics(truth, detections)
    metrics["published"] = curves.published_metrics(truth, detections)
    before, _, table = format_table(metrics, ("b", "a", "c")).partition("\n\nby the ")
    assert before == format_table(coco_metrics(truth, detections), ("b", "a", "c"))
    heading, *rows = [line.split() for line in table.splitlines()[2:]]
    assert heading == [*"class boxes P R F1 AP50 AP50-95 VOC07 AP50".split()]
    assert [row[0] for row in rows[1:]] == ["all", "b", "a", "c"]
    published = metrics["published"]
    assert rows[1][1:] == [
        str(metrics["counts"]["boxes"]),
        *(
            f"{published[key]:.4f}"
            for key in ("precision", "recall", "f1", "mAP50", "mAP50_95", "voc07_mAP50")
        ),
    ]
    assert rows[3][5] == f"{published['per_class']['a']['AP50']:.4f}"
    assert f"confidence {published['confidence']:.4f}" in table
