"""Weighted box fusion against its paper, worked by hand and as a plain loop."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from yolojax.ops import fusion, nms

fuse = jax.jit(
    fusion.weighted_box_fusion,
    static_argnames=("num_models", "score_threshold", "max_detections", "capped"),
)


def arrays(rows, length=48):
    """Rows of x1 y1 x2 y2 score label as arrays of one picture, padded."""
    table = np.zeros((1, length, 6), np.float32)
    table[0, : len(rows)] = np.reshape(rows, (-1, 6))
    valid = np.arange(length)[None] < len(rows)
    columns = table[..., :4], table[..., 4], table[..., 5].astype(np.int32), valid
    return tuple(jnp.asarray(column) for column in columns)


def rows_of(found, picture=0):
    columns = (found.boxes, found.scores[..., None], found.labels[..., None])
    table = np.concatenate([np.asarray(c[picture], np.float64) for c in columns], 1)
    return table[np.asarray(found.valid[picture])]


def iou(one, two):
    sides = np.minimum(one[2:], two[2:]) - np.maximum(one[:2], two[:2])
    shared = np.prod(np.maximum(sides, 0))
    areas = [np.prod(box[2:] - box[:2]) for box in (one, two)]
    return shared / (sum(areas) - shared)


def fused_plainly(rows, num_models, threshold, capped=True):
    """Section 3 of the paper, step by step: lists B, L and F."""
    boxes = sorted(np.asarray(rows, np.float64), key=lambda row: -row[4])
    clusters, fused = [], []
    for row in boxes:
        overlaps = [
            iou(row[:4], other[:4]) if row[5] == other[5] else -1 for other in fused
        ]
        place = int(np.argmax(overlaps)) if fused else -1
        if fused and overlaps[place] > threshold:
            clusters[place].append(row)
        else:
            place = len(fused)
            clusters.append([row])
            fused.append(row)
        members = np.array(clusters[place])
        scores = members[:, 4]
        corners = (members[:, :4] * scores[:, None]).sum(axis=0) / scores.sum()
        fused[place] = np.array([*corners, scores.mean(), row[5]])
    for place, members in enumerate(clusters):
        count = min(len(members), num_models) if capped else len(members)
        fused[place][4] *= count / num_models
    return np.array(sorted(fused, key=lambda row: -row[4]))


ONE, LOW = [0, 0, 10, 10, 0.9, 0], [0, 0, 10, 8, 0.6, 0]
MEAN = [0, 0, 10, 9.2]


@pytest.mark.parametrize(
    "rows, num_models, capped, expected",
    [
        ([ONE, LOW], 2, True, [[*MEAN, 0.75, 0]]),
        ([LOW, ONE], 3, True, [[*MEAN, 0.5, 0]]),
        ([ONE, LOW], 1, True, [[*MEAN, 0.75, 0]]),
        ([ONE, LOW], 1, False, [[*MEAN, 1.5, 0]]),
        ([ONE], 3, True, [[0, 0, 10, 10, 0.3, 0]]),
        ([ONE, [*LOW[:5], 1]], 1, True, [ONE, [*LOW[:5], 1]]),
        # The overlap is .5, no match.
        ([ONE, [0, 0, 10, 5, 0.4, 0]], 1, True, [ONE, [0, 0, 10, 5, 0.4, 0]]),
        # The last box overlaps the best one with .5, but the fused one, which is 7.7
        # high, with .65.
        (
            [ONE, [0, 0, 10, 6, 0.9, 0], [0, 0, 10, 5, 0.6, 0]],
            3,
            True,
            [[0, 0, 10, 7.25, 0.8, 0]],
        ),
        ([], 2, True, np.zeros((0, 6))),
    ],
    ids="both third-silent more-than-models more-uncapped single "
    "classes apart moved nothing".split(),
)
def test_boxes_of_an_object_become_their_mean(rows, num_models, capped, expected):
    found = fuse(*arrays(rows), num_models=num_models, capped=capped, max_detections=9)
    assert found.boxes.shape == (1, 9, 4)
    np.testing.assert_allclose(rows_of(found), expected, atol=1e-5)
    padding = ~np.asarray(found.valid)
    assert not np.asarray(found.boxes)[padding].any()
    assert not np.asarray(found.scores)[padding].any()


def random_rows(seed, count):
    generator = np.random.default_rng(seed)
    centres = generator.choice([20.0, 34.0, 60.0], (count, 2))
    centres += generator.normal(0, 1.5, (count, 2))
    halves = generator.uniform(7, 12, (count, 2))
    # No two scores are equal.
    scores = generator.permutation(count) / count * 0.9 + 0.05
    labels = generator.integers(0, 2, count)
    return np.column_stack([centres - halves, centres + halves, scores, labels])


@pytest.mark.parametrize("capped", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_crowded_pictures_agree_with_the_paper_step_by_step(capped):
    pictures = [random_rows(seed, count) for seed, count in enumerate((40, 23))]
    one, two = (arrays(rows) for rows in pictures)
    given = [jnp.concatenate(pair) for pair in zip(one, two, strict=True)]
    found = fuse(*given, num_models=3, capped=capped)
    for i, rows in enumerate(pictures):
        expected = fused_plainly(rows, 3, 0.55, capped)
        assert 8 < len(expected) < len(rows)  # boxes were fused, and not all
        order = np.argsort(-expected[:, 4], kind="stable")
        np.testing.assert_allclose(rows_of(found, i), expected[order], atol=2e-4)


def test_order_limit_and_threshold():
    rows = random_rows(2, 30)
    shuffled = np.random.default_rng(0).permutation(rows)
    few = rows_of(
        fuse(*arrays(shuffled), num_models=2, score_threshold=0.4, max_detections=3)
    )
    expected = fused_plainly(rows[rows[:, 4] > 0.4], 2, 0.55)
    expected = expected[np.argsort(-expected[:, 4], kind="stable")]
    np.testing.assert_allclose(few, expected[:3], atol=2e-4)


def test_a_heavier_model_moves_the_box_and_scores_stay_below_one():
    rows = [[0, 0, 10, 10, 1.0, 0], [0, 0, 10, 8, 1.0, 0]]
    weights = jnp.array([[1.5, 0.5] + [1.0] * 46])
    found = rows_of(fuse(*arrays(rows), num_models=2, weights=weights))
    np.testing.assert_allclose(found, [[0, 0, 10, 9.5, 1, 0]], atol=1e-5)
    heavy = jnp.full((1, 48), 1.5)
    found = rows_of(fuse(*arrays(rows), num_models=2, weights=heavy))
    np.testing.assert_allclose(found[0, 4], 1.0, atol=1e-6)


@pytest.mark.parametrize(
    "merge",
    [
        functools.partial(fusion.weighted_box_fusion, num_models=2),
        functools.partial(nms.suppress_found, iou_threshold=0.5),
    ],
    ids=["fusion", "suppression"],
)
def test_no_boxes_at_all(merge):
    found = merge(*arrays([], 0), max_detections=4)
    assert found.boxes.shape == (1, 4, 4) and not found.valid.any()


def test_wrong_numbers_are_refused():
    with pytest.raises(ValueError, match="at least 1, score_threshold at least 0"):
        fusion.weighted_box_fusion(*arrays([]), num_models=0)
    with pytest.raises(ValueError, match="max_detections must be at least 1, got 0"):
        nms.suppress_found(*arrays([]), iou_threshold=0.5, max_detections=0)


def test_suppression_keeps_the_best_of_each_class():
    rows = [LOW, ONE, [*LOW[:5], 1], [20, 0, 30, 10, 0.2, 0], [20, 0, 30, 10, 0.1, 1]]
    found = jax.jit(
        functools.partial(
            nms.suppress_found,
            iou_threshold=0.5,
            score_threshold=0.15,
            max_detections=5,
        )
    )(*arrays(rows))
    np.testing.assert_allclose(rows_of(found), [ONE, rows[2], rows[3]], rtol=1e-6)
