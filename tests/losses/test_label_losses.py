"""The loss of a batch of classified pictures."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from yolojax.losses import classifying
from yolojax.losses.classifiers import cross_entropy, squared_error

LOGITS = np.array([[2.0, 0.0, -1.0], [0.5, 0.5, 0.0], [0.0, 3.0, 1.0]], np.float32)
LABELS = np.array([[0, 1], [2, 0], [1, 0]], np.int32)
BOXES = np.zeros((3, 2, 4), np.float32)
# The second picture is mixed, the third has no label.
SHARES = np.array([[1.0, 0.0], [0.25, 0.75], [0.0, 0.0]], np.float32)


def single_label_loss(*arrays, **arguments):
    return classifying.single_label_loss(
        *jax.tree.map(jnp.asarray, arrays), **arguments
    )


def multi_label_loss(*arrays):
    return classifying.multi_label_loss(*jax.tree.map(jnp.asarray, arrays))


def logarithms(logits):
    shifted = logits.astype(np.float64)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def test_a_picture_costs_the_mean_of_its_labels_by_their_shares():
    total, parts = single_label_loss(
        (LOGITS,), BOXES, LABELS, SHARES, element=cross_entropy
    )
    logs = logarithms(LOGITS)
    each = [-logs[0, 0], -0.25 * logs[1, 2] - 0.75 * logs[1, 0], 0.0]
    np.testing.assert_allclose(parts["per_picture"], each, rtol=1e-6)
    np.testing.assert_array_equal(parts["labelled"], [True, True, False])
    np.testing.assert_allclose(total, sum(each), rtol=1e-6)
    np.testing.assert_allclose(parts["class"], sum(each) / 3, rtol=1e-6)


def test_accuracy_counts_labelled_pictures_by_their_largest_share():
    _, parts = single_label_loss(
        (LOGITS,), BOXES, LABELS, SHARES, element=cross_entropy
    )
    # Of the two labelled ones both have class 0 before the others.
    assert float(parts["train/accuracy"]) == 1.0
    other = np.array([[0.0, 1.0], [1.0, 0.0], [0.0, 0.0]], np.float32)
    _, parts = single_label_loss((LOGITS,), BOXES, LABELS, other, element=cross_entropy)
    assert float(parts["train/accuracy"]) == 0.0


def test_auxiliary_heads_count_by_their_weight():
    main, _ = single_label_loss((LOGITS,), BOXES, LABELS, SHARES, element=squared_error)
    aside, _ = single_label_loss(
        (LOGITS[::-1],), BOXES, LABELS, SHARES, element=squared_error
    )
    total, parts = single_label_loss(
        (LOGITS, LOGITS[::-1], LOGITS[::-1]),
        BOXES,
        LABELS,
        SHARES,
        element=squared_error,
        auxiliary=0.3,
    )
    np.testing.assert_allclose(total, main + 0.6 * aside, rtol=1e-6)
    np.testing.assert_allclose(parts["auxiliary"], 0.2 * aside, rtol=1e-6)


def test_class_weights_and_bools_are_taken():
    valid = np.array([[True, False], [True, False], [False, False]])
    weights = (2.0, 1.0, 4.0)
    total, _ = single_label_loss(
        (LOGITS,), BOXES, LABELS, valid, element=cross_entropy, class_weights=weights
    )
    logs = logarithms(LOGITS)
    np.testing.assert_allclose(total, -2 * logs[0, 0] - 4 * logs[1, 2], rtol=1e-6)


def test_several_labels_are_one_target_of_all_classes():
    valid = np.array([[True, True], [True, False], [False, False]])
    total, parts = multi_label_loss((LOGITS,), BOXES, LABELS, valid)
    targets = np.array([[1, 1, 0], [0, 0, 1], [0, 0, 0]], np.float64)
    x = LOGITS.astype(np.float64)
    each = (np.log1p(np.exp(x)) - targets * x).mean(axis=1)
    np.testing.assert_allclose(parts["per_picture"], each, rtol=1e-6)
    np.testing.assert_allclose(total, each.sum(), rtol=1e-6)
    # No label is an answer here.
    assert parts["labelled"].all()
    # None has exactly its classes above 0.
    assert float(parts["train/accuracy"]) == 0.0


def test_all_labels_right_counts_as_right():
    logits = np.array([[3.0, 2.0, -4.0]], np.float32)
    _, parts = multi_label_loss((logits,), BOXES[:1], LABELS[:1], SHARES[:1] > -1)
    assert float(parts["train/accuracy"]) == 1.0


@pytest.mark.parametrize("rows", [1, 3])
def test_a_label_twice_is_one_target(rows):
    labels = np.zeros((1, rows), np.int32)
    total, _ = multi_label_loss(
        (LOGITS[:1],), np.zeros((1, rows, 4), np.float32), labels, labels == 0
    )
    x = LOGITS[0].astype(np.float64)
    expected = (np.log1p(np.exp(x)) - np.array([1, 0, 0]) * x).mean()
    np.testing.assert_allclose(total, expected, rtol=1e-6)
