"""Folds of a cross-validation: what each balances, and what cannot be parted."""

import numpy as np
import pytest

from yolojax.data.folds import (
    _check_classes,
    check_folds,
    fold_numbers,
    rarest_classes,
)

# 12 pictures of class 0, 8 of class 1, 4 of class 2, in no order.
SINGLE = [np.array([label]) for label in [0, 1, 0, 2, 0, 1] * 4]
NAMES = [f"p{n // 3}_{n}.jpg" for n in range(24)]
CLASSES = ("cat", "dog", "cow")


def folds(labels=SINGLE, names=NAMES, **options):
    return fold_numbers(labels, names, CLASSES, **{"count": 4, **options})


@pytest.mark.parametrize("kind", ["plain", "stratified", "group"])
def test_each_picture_is_in_one_fold_and_all_are_of_a_size(kind):
    groups = "(p[0-9]+)_" if kind == "group" else ""
    found = folds(kind=kind, groups=groups)
    assert found.dtype == np.int64
    np.testing.assert_array_equal(np.bincount(found), [6, 6, 6, 6])
    again = folds(kind=kind, groups=groups)
    other = folds(kind=kind, groups=groups, seed=1)
    np.testing.assert_array_equal(found, again)
    assert (found != other).any()


def test_strata_are_spread_evenly():
    found = folds(kind="stratified")
    for label, each in ((0, 3), (1, 2), (2, 1)):
        own = [int(o[0]) == label for o in SINGLE]
        np.testing.assert_array_equal(np.bincount(found[own], minlength=4), [each] * 4)


def test_groups_stay_together():
    found = folds(kind="group", groups="(p[0-9]+)_")
    for first in range(0, 24, 3):
        assert len(set(found[first : first + 3].tolist())) == 1


def test_a_picture_goes_by_the_class_that_the_fewest_show():
    # Shown by: class 0 three pictures, class 1 two, class 2 two.
    labels = [[0, 0, 1], [0, 2], [1, 2], [0], []]
    found = rarest_classes([np.array(own, np.int32) for own in labels])
    np.testing.assert_array_equal(found, [1, 2, 1, 0, -1])


def test_background_is_spread_like_a_class():
    labels = [np.zeros(k % 2, np.int32) for k in range(16)]
    found = folds(labels, NAMES[:16])
    np.testing.assert_array_equal(np.bincount(found[::2]), [2, 2, 2, 2])


def test_strata_smaller_than_the_folds_are_no_error_where_their_classes_are_not():
    # Every class is shown by 4 pictures; the one without a box and the strata are few.
    labels = [np.array(own) for own in ([0, 1], [0, 1], [0, 2], [0, 2], [1, 2], [1, 2])]
    found = folds([*labels, np.zeros(0, np.int64)], NAMES[:7])
    assert sorted(np.bincount(found).tolist()) == [1, 2, 2, 2]
    # One stratum suffices, beside which the others are small.
    labels = [np.array([0])] * 4 + [np.zeros(0, np.int64)] * 2
    found = folds(labels, NAMES[:6])
    np.testing.assert_array_equal(np.bincount(found[:4]), [1, 1, 1, 1])


@pytest.mark.parametrize(
    "options, message",
    [
        ({"count": 1}, "count is 1: take at least 2, or 0"),
        ({"count": 25}, "count is 25, but there are only 24 pictures"),
        (
            {"count": 5},
            "class 'cow' has only 4 pictures: take fewer folds, or .*kind='plain'",
        ),
        ({"count": 9}, r"'cow' has only 4 pictures \(2 classes have fewer than 9\)"),
        ({"kind": "group"}, "'group', which needs config.data.folds.groups"),
        ({"groups": "(p)"}, r"groups is '\(p\)', but .* 'stratified'.*take 'group'"),
        ({"kind": "group", "groups": "p["}, r"groups 'p\[': unterminated"),
        ({"kind": "group", "groups": "p[0-9]"}, "has no group in brackets"),
        ({"kind": "group", "groups": "(q)"}, "no group in 24 of 24 .* 'p0_0.jpg'"),
        ({"kind": "group", "groups": "(p[0-6])_"}, "no group in 3 of 24 .* 'p7_21.jpg"),
        ({"kind": "group", "groups": "(p)"}, "only 1 groups, as 'p', for 4 folds"),
    ],
)
def test_folds_that_cannot_be_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        folds(**options)


def test_fewer_folds_are_no_advice_for_a_class_of_one_picture():
    message = "has only one picture: take config.data.folds.kind='plain'"
    with pytest.raises(ValueError, match=message):
        _check_classes([np.array([0]), np.array([1]), np.array([1])], ("a", "b"), 2)


def test_the_index_is_one_of_the_folds():
    check_folds(0, 3, "stratified", "")
    with pytest.raises(ValueError, match="index is 4, but there are 4 folds, 0 to 3"):
        check_folds(4, 4, "stratified", "")
