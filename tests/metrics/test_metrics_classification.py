"""Numbers of classifiers: by hand, against scikit-learn, at the edges."""

import json
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from sklearn import metrics as reference

from yolojax.engine.log import to_json
from yolojax.metrics import classification as ours

NAMES = ("ant", "bee", "cat")
# Predictions 0, 1, 1, 2, 0 of pictures with the labels 0, 0, 1, 2, 2.
ROWS = np.array(
    [
        [0.7, 0.2, 0.1],
        [0.3, 0.6, 0.1],
        [0.1, 0.8, 0.1],
        [0.2, 0.3, 0.5],
        [0.5, 0.1, 0.4],
    ]
)
LABELS = np.array([0, 0, 1, 2, 2])


def random_case(seed, num_pictures=200, num_classes=7):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(num_pictures, num_classes))
    labels = rng.integers(0, num_classes, num_pictures)
    logits[np.arange(num_pictures), labels] += 1
    shares = np.exp(logits)
    return shares / shares.sum(axis=1, keepdims=True), labels


def test_a_small_case_worked_out_by_hand():
    found = ours.class_metrics(ROWS, LABELS)
    assert found["confusion"] == [[1, 1, 0], [0, 1, 0], [1, 0, 1]]
    assert found["accuracy"] == pytest.approx(3 / 5)
    assert found["accuracy_top5"] == 1
    precision, recall, f1 = (1 / 2, 1 / 2, 1), (1 / 2, 1, 1 / 2), (1 / 2, 2 / 3, 2 / 3)
    for name, expected in (("precision", precision), ("recall", recall), ("f1", f1)):
        values = [row[name] for row in found["per_class"]]
        assert values == pytest.approx(expected)
        assert found[f"macro_{name}"] == pytest.approx(np.mean(expected))
    assert [row["support"] for row in found["per_class"]] == [2, 1, 2]
    # Two sure ones are right, .6 is wrong, of the two at .5 one is right.
    gaps = abs(1 - 0.7) + abs(0 - 0.6) + abs(1 - 0.8) + 2 * abs(1 / 2 - 0.5)
    assert found["ece"] == pytest.approx(gaps / 5)
    expected = -np.log([0.7, 0.3, 0.8, 0.5, 0.4]).mean()
    assert found["nll"] == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_class_numbers_are_those_of_scikit_learn(seed, dtype):
    probabilities, labels = random_case(seed)
    probabilities = probabilities.astype(dtype)
    found = ours.class_metrics(probabilities, labels)
    predicted = probabilities.argmax(axis=1)
    names = ("precision", "recall", "f1", "support")
    expected = reference.precision_recall_fscore_support(labels, predicted)
    for name, values in zip(names, expected, strict=True):
        assert [row[name] for row in found["per_class"]] == pytest.approx(list(values))
    means = reference.precision_recall_fscore_support(
        labels, predicted, average="macro"
    )
    for name, value in zip(names[:3], means[:3], strict=True):
        assert found[f"macro_{name}"] == pytest.approx(value)
    table = reference.confusion_matrix(labels, predicted)
    assert found["confusion"] == table.tolist()
    top5 = reference.top_k_accuracy_score(labels, probabilities, k=5)
    assert found["accuracy"] == pytest.approx((labels == predicted).mean())
    assert found["accuracy_top5"] == pytest.approx(top5)
    # In float32 the rows do not quite sum to 1, which log_loss warns of.
    exact = random_case(seed)[0]
    assert found["nll"] == pytest.approx(reference.log_loss(labels, exact), rel=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_multi_label_numbers_are_those_of_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    targets = rng.random((60, 5)) < 0.3
    # Few levels, so that many scores are equal.
    scores = np.clip(rng.integers(0, 8, (60, 5)) / 10 + 0.3 * targets, 0, 1)
    found = ours.multi_label_metrics(scores, targets)
    answers = scores >= 0.5
    values = reference.average_precision_score(targets, scores, average=None)
    per_class = [row["average_precision"] for row in found["per_class"]]
    assert per_class == pytest.approx(list(values))
    assert found["mean_average_precision"] == pytest.approx(np.mean(values))
    for kind in ("macro", "micro"):
        value = reference.f1_score(targets, answers, average=kind)
        assert found[f"{kind}_f1"] == pytest.approx(value)
    assert found["accuracy"] == pytest.approx(
        reference.accuracy_score(targets, answers)
    )
    assert [row["support"] for row in found["per_class"]] == targets.sum(0).tolist()


def test_average_precision_by_hand():
    scores = np.array([0.9, 0.8, 0.7, 0.6])
    # Right at the places 1 and 3: precision 1 and 2/3.
    positive = np.array([True, False, True, False])
    assert ours.average_precision(scores, positive) == pytest.approx(5 / 6)
    # All equal: at the only threshold half of them are right.
    assert ours.average_precision(np.zeros(4), positive) == pytest.approx(1 / 2)
    assert math.isnan(ours.average_precision(scores, np.zeros(4, bool)))


def test_bins_of_confidence_end_with_their_upper_border():
    confidence = np.array([0.0, 0.25, 0.26, 0.5, 1.0])
    right = np.array([False, True, True, False, True])
    found = ours.reliability(confidence, right, num_bins=4)
    np.testing.assert_array_equal(found.counts, [2, 2, 0, 1])
    np.testing.assert_allclose(found.confidence, [0.125, 0.38, math.nan, 1.0])
    np.testing.assert_allclose(found.accuracy, [0.5, 0.5, math.nan, 1.0])
    assert found.expected_error == pytest.approx((2 * 0.375 + 2 * 0.12 + 0) / 5)
    first, second, third = ours.reliability_rows(found)
    assert first == dict(
        above=0.0, up_to=0.25, predictions=2, confidence=0.125, right=0.5
    )
    assert second["right"] == 0.5 and second["predictions"] == 2
    # The third bin holds none.
    assert (third["above"], third["up_to"], third["predictions"]) == (0.75, 1.0, 1)


def test_of_equal_probabilities_the_first_class_is_predicted():
    rows = np.full((8, 8), 1 / 8)
    found = ours.class_metrics(rows, np.arange(8))
    assert found["accuracy"] == pytest.approx(1 / 8)
    assert found["accuracy_top5"] == pytest.approx(5 / 8)
    assert np.array(found["confusion"])[:, 0].tolist() == [1] * 8
    assert found["ece"] == pytest.approx(0)


def test_pictures_without_a_label_are_left_out():
    labels = np.array([0, -1, 1, -1, 2])
    kept = labels >= 0
    found = ours.class_metrics(ROWS, labels)
    assert found == ours.class_metrics(ROWS[kept], labels[kept])
    assert found["num_pictures"] == 3


def test_a_class_without_pictures_is_left_out_of_the_means():
    rows = np.concatenate([ROWS, np.zeros((5, 1))], axis=1)
    found, before = (ours.class_metrics(r, LABELS) for r in (rows, ROWS))
    assert math.isnan(found["per_class"][3]["recall"])
    assert found["per_class"][:3] == before["per_class"]
    assert found["macro_f1"] == before["macro_f1"]
    many = np.concatenate([rows, np.eye(4)[3:]])
    found = ours.class_metrics(many, np.append(LABELS, 0))
    assert found["confusion"][0][3] == 1 and found["macro_recall"] < 2 / 3


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_rows_that_are_not_finite_tell_nothing_and_are_counted(bad):
    rows = ROWS.copy()
    rows[2, 1] = bad
    even = ROWS.copy()
    even[2] = 1 / 3
    found, expected = (ours.class_metrics(r, LABELS) for r in (rows, even))
    assert found.pop("num_not_finite") == 1 and expected.pop("num_not_finite") == 0
    assert found == expected
    targets = np.eye(3, dtype=bool)[LABELS]
    assert ours.multi_label_metrics(rows, targets)["num_not_finite"] == 1


def test_a_probability_of_zero_has_a_finite_likelihood():
    found = ours.class_metrics(np.array([[1.0, 0.0]]), np.array([1]))
    assert found["nll"] == pytest.approx(87.3365, abs=1e-3)  # the least float32


def test_without_pictures_numbers_are_nan_and_null_in_json():
    for found in (
        ours.class_metrics(np.zeros((0, 3)), np.zeros(0, np.int64)),
        ours.multi_label_metrics(np.zeros((0, 3)), np.zeros((0, 3))),
    ):
        assert math.isnan(found["accuracy"]) and found["num_pictures"] == 0
        assert math.isnan(found["macro_f1"])
        text = json.dumps(to_json(found), allow_nan=False)
        assert json.loads(text)["accuracy"] is None
        assert "-" in ours.format_classes(found, NAMES)


def test_values_are_what_json_has():
    targets = np.eye(3)[LABELS]
    for found in (
        ours.class_metrics(ROWS, LABELS),
        ours.multi_label_metrics(ROWS, targets),
    ):
        assert json.loads(json.dumps(found)) == found


@pytest.mark.parametrize(
    "probabilities, labels, message",
    [
        (np.zeros((2, 3)), np.zeros(3, int), "2 rows .* labels of shape \\[3\\]"),
        (np.zeros((2, 3)), np.array([0, 3]), "label 3, but 3 classes \\(0 to 2\\)"),
        (np.zeros(3), np.zeros(3, int), "must be \\[n, c\\]"),
        (np.zeros((2, 0)), np.zeros(2, int), "with a class at least"),
    ],
)
def test_shapes_and_labels_that_do_not_fit_are_refused(probabilities, labels, message):
    with pytest.raises(ValueError, match=message):
        ours.class_metrics(probabilities, labels)


def test_targets_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"\[2, 3\], but targets \[2\]"):
        ours.multi_label_metrics(np.zeros((2, 3)), np.zeros(2))


def test_the_table_lists_means_and_classes():
    text = ours.format_classes(ours.class_metrics(ROWS, LABELS), NAMES)
    lines = text.splitlines()
    assert lines[0] == "5 pictures, 3 classes"
    # Of three classes the best five are all.
    shown = [line.split()[-1] for line in lines if line.startswith("accuracy")]
    assert shown == ["0.6000"]
    assert lines[-3:] == [
        "ant           2     0.5000  0.5000  0.5000",
        "bee           1     0.5000  1.0000  0.6667",
        "cat           2     1.0000  0.5000  0.6667",
    ]


def test_of_many_classes_the_worst_are_listed():
    names = [f"c{i:03d}" for i in range(90)]
    labels = np.arange(80)
    rows = np.eye(90)[:80]
    rows[17] = rows[18]
    text = ours.format_classes(ours.class_metrics(rows, labels), names)
    listed = [line.split()[0] for line in text.splitlines()[-40:]]
    assert listed[:2] == ["c017", "c018"] and "c085" not in listed
    assert "the 40 classes with the lowest F1" in text and "accuracy (top-5)" in text


def test_the_table_of_several_labels_has_average_precision():
    found = ours.multi_label_metrics(ROWS, np.eye(3)[LABELS])
    text = ours.format_classes(found, NAMES)
    assert "AP" in text and "average precision, mean over classes" in text


def example(labels, areas=None, crowd=None):
    areas = np.ones(len(labels)) if areas is None else np.array(areas)
    crowd = np.zeros(len(labels), bool) if crowd is None else np.array(crowd)
    return SimpleNamespace(labels=np.array(labels, int), areas=areas, crowd=crowd)


def test_a_picture_has_the_label_of_its_largest_box_that_is_no_crowd():
    source: Any = [
        example([2]),
        example([1, 0]),
        example([1, 0, 2], [3, 5, 9], [False, False, True]),
        example([]),
        example([1], [4], [True]),
    ]
    assert ours.labels_of(source, range(5)).tolist() == [2, 1, 0, -1, -1]
    assert ours.labels_of(source, [2, 0]).tolist() == [0, 2]
    targets = ours.targets_of(source, [1, 3, 0], 3)
    assert targets.tolist() == [[1, 1, 0], [0, 0, 0], [0, 0, 1]]
