"""Non-maximum suppression against the original's results and a plain second one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.shared import shared
from yolojax.ops import nms

# Compiled as a whole, since one operation after the other takes ten times as long.
non_max_suppression = jax.jit(
    nms.non_max_suppression,
    static_argnames=(
        *("score_threshold", "iou_threshold", "max_detections", "max_candidates"),
        *("class_aware", "multi_label"),
    ),
)

DETECT = dict(score_threshold=0.25, iou_threshold=0.45, multi_label=False)
GOLDEN = {
    "default": DETECT,
    "val": dict(score_threshold=0.001, iou_threshold=0.6),
    "agnostic": DETECT | dict(class_aware=False),
    # The original leaves out the other classes first; with classes apart from each
    # other it is the same to do so last, if no limit is reached.
    "classes": DETECT | dict(max_detections=600),
    "maxdet": DETECT | dict(max_detections=7),
}
BOX = np.array([10.0, 10.0, 30.0, 50.0], np.float32)


def rows(found, picture=0):
    """The valid rows of a picture: x1 y1 x2 y2 score label."""
    columns = (found.boxes, found.scores[..., None], found.labels[..., None])
    table = np.concatenate([np.asarray(c[picture], np.float32) for c in columns], 1)
    return table[np.asarray(found.valid[picture])]


def suppress_plainly(boxes, scores, score_threshold, iou_threshold, class_aware, limit):
    """The algorithm over a sorted list, one picture, multi-label, in NumPy."""
    candidates = [
        (boxes[i], scores[i, j], j)
        for i in range(len(boxes))
        for j in range(scores.shape[1])
        if scores[i, j] > score_threshold
    ]
    candidates.sort(key=lambda candidate: -candidate[1])
    kept = []
    for box, score, label in candidates:
        for other, _, other_label in kept:
            low, high = np.maximum(box[:2], other[:2]), np.minimum(box[2:], other[2:])
            shared_area = np.prod(np.maximum(high - low, 0))
            areas = np.prod(box[2:] - box[:2]) + np.prod(other[2:] - other[:2])
            overlaps = shared_area / (areas - shared_area) > iou_threshold
            if overlaps and (label == other_label or not class_aware):
                break
        else:
            kept.append((box, score, label))
    table = [[*box, score, label] for box, score, label in kept[:limit]]
    return np.array(table, np.float32).reshape(-1, 6)


def random_boxes(seed, batch_size, num_boxes, num_classes):
    """Crowded boxes whose scores come in steps, so that many are equal."""
    generator = np.random.default_rng(seed)
    centres = generator.uniform(0, 60, (batch_size, num_boxes, 2))
    halves = generator.uniform(4, 12, (batch_size, num_boxes, 2))
    boxes = np.concatenate([centres - halves, centres + halves], axis=2)
    scores = generator.integers(0, 16, (batch_size, num_boxes, num_classes)) / 16
    return boxes.astype(np.float32), scores.astype(np.float32)


@pytest.mark.parametrize("max_candidates", [1024, 15000])
@pytest.mark.parametrize("name", GOLDEN)
def test_crowded_pictures_give_the_rows_of_the_original(name, max_candidates):
    golden = np.load(shared("golden", "misc.npz"))
    raw = golden["nms_pred"]
    centres, halves = raw[..., :2], raw[..., 2:4] / 2
    found = non_max_suppression(
        jnp.asarray(np.concatenate([centres - halves, centres + halves], axis=2)),
        jnp.asarray(raw[..., 4:5] * raw[..., 5:]),
        max_candidates=max_candidates,
        **GOLDEN[name],
    )
    for picture in range(2):
        expected = golden[f"nms_{name}_{picture}"]
        table = rows(found, picture)
        if name == "classes":
            table = table[np.isin(table[:, 5], [1, 3])]
        np.testing.assert_array_equal(table, expected)


def test_a_photograph_gives_the_rows_of_the_original():
    golden = np.load(shared("golden", "forward_n_seed0_bus_rect640x480.npz"))
    raw = golden["decoded"]
    centres, halves = raw[..., :2], raw[..., 2:4] / 2
    found = non_max_suppression(
        jnp.asarray(np.concatenate([centres - halves, centres + halves], axis=2)),
        jnp.asarray(raw[..., 4:5] * raw[..., 5:]),
        score_threshold=0.001,
        iou_threshold=0.6,
    )
    np.testing.assert_array_equal(
        rows(found), golden["nms_val_c001_i60_multi_max300"].reshape(-1, 6)
    )


@pytest.mark.parametrize("class_aware", [True, False])
@pytest.mark.parametrize("iou_threshold", [0.3, 0.6])
def test_result_is_that_of_a_plain_loop_ties_included(class_aware, iou_threshold):
    boxes, scores = random_boxes(0, 3, 60, 4)
    found = non_max_suppression(
        jnp.asarray(boxes),
        jnp.asarray(scores),
        score_threshold=0.2,
        iou_threshold=iou_threshold,
        max_detections=100,
        class_aware=class_aware,
    )
    for picture in range(3):
        expected = suppress_plainly(
            boxes[picture], scores[picture], 0.2, iou_threshold, class_aware, 100
        )
        assert 0 < len(expected)
        np.testing.assert_array_equal(rows(found, picture), expected)


@pytest.mark.parametrize("max_candidates", [1, 50, 150])
def test_fewer_candidates_lose_only_what_is_worse_than_the_last_one(max_candidates):
    boxes, scores = random_boxes(1, 1, 60, 4)
    settings = dict(score_threshold=0.2, iou_threshold=0.6, max_detections=240)
    everything = rows(
        non_max_suppression(jnp.asarray(boxes), jnp.asarray(scores), **settings)
    )
    some = rows(
        non_max_suppression(
            jnp.asarray(boxes),
            jnp.asarray(scores),
            max_candidates=max_candidates,
            **settings,
        )
    )
    assert 0 < len(some) <= max_candidates
    np.testing.assert_array_equal(some, everything[: len(some)])
    last = np.sort(scores.ravel())[::-1][max_candidates - 1]
    assert (everything[len(some) :, 4] <= last).all()


def test_classes_do_not_suppress_each_other_unless_asked_to():
    boxes = jnp.asarray(BOX)[None, None].repeat(2, axis=1)
    scores = jnp.asarray([[[0.9, 0.0], [0.0, 0.8]]])
    settings = dict(score_threshold=0.5, iou_threshold=0.5, max_detections=4)
    found = non_max_suppression(boxes, scores, **settings)
    np.testing.assert_array_equal(found.valid, [[True, True, False, False]])
    np.testing.assert_array_equal(found.labels, [[0, 1, 0, 0]])
    found = non_max_suppression(boxes, scores, class_aware=False, **settings)
    np.testing.assert_array_equal(found.valid, [[True, False, False, False]])


def test_a_box_stands_for_each_class_above_the_threshold_or_for_its_best():
    boxes = jnp.asarray(BOX)[None, None]
    scores = jnp.asarray([[[0.3, 0.6, 0.1, 0.6]]])
    settings = dict(score_threshold=0.25, iou_threshold=0.5, max_detections=4)
    found = non_max_suppression(boxes, scores, **settings)
    np.testing.assert_array_equal(found.labels, [[1, 3, 0, 0]])
    np.testing.assert_array_equal(found.valid, [[True, True, True, False]])
    found = non_max_suppression(boxes, scores, multi_label=False, **settings)
    np.testing.assert_array_equal(found.labels, [[1, 0, 0, 0]])
    np.testing.assert_array_equal(found.valid, [[True, False, False, False]])


@pytest.mark.parametrize("multi_label", [True, False])
def test_thresholds_are_strict_and_padding_is_zero(multi_label):
    # The second box is half of the first: IoU exactly 0.5.
    boxes = jnp.asarray([[[0, 0, 8, 4], [0, 0, 4, 4], [20, 0, 24, 4]]], jnp.float32)
    found = non_max_suppression(
        boxes,
        jnp.asarray([[[0.75], [0.5], [0.25]]]),
        score_threshold=0.25,
        iou_threshold=0.5,
        max_detections=4,
        multi_label=multi_label,
    )
    np.testing.assert_array_equal(found.valid, [[True, True, False, False]])
    np.testing.assert_array_equal(found.boxes[0, :2], boxes[0, :2])
    np.testing.assert_array_equal(found.boxes[0, 2:], np.zeros((2, 4)))
    np.testing.assert_array_equal(found.scores, [[0.75, 0.5, 0, 0]])


@pytest.mark.parametrize("multi_label", [True, False])
def test_a_box_with_nan_is_no_candidate_and_one_without_area_suppresses_nothing(
    multi_label,
):
    boxes = jnp.asarray([[BOX, BOX, [5, 5, 5, 5], [5, 5, 5, 5]]])
    scores = jnp.asarray([[[jnp.nan, 0.9], [0.8, 0.1], [0.7, 0.1], [0.6, 0.1]]])
    found = non_max_suppression(
        boxes,
        scores,
        score_threshold=0.25,
        iou_threshold=0.5,
        max_detections=4,
        multi_label=multi_label,
    )
    np.testing.assert_allclose(found.scores, [[0.8, 0.7, 0.6, 0]])


@pytest.mark.parametrize("shape", [(2, 0, 3), (2, 5, 0), (0, 5, 3)])
def test_nothing_in_gives_padding(shape):
    found = non_max_suppression(
        jnp.zeros((*shape[:2], 4)),
        jnp.zeros(shape),
        score_threshold=0.1,
        iou_threshold=0.5,
        max_detections=6,
    )
    assert found.boxes.shape == (shape[0], 6, 4)
    assert found.labels.dtype == jnp.int32
    assert not found.valid.any()


def test_jit_and_vmap_change_nothing():
    boxes, scores = map(jnp.asarray, random_boxes(2, 3, 30, 2))

    def suppress(boxes, scores):
        return nms.non_max_suppression(
            boxes, scores, score_threshold=0.2, iou_threshold=0.5, max_detections=5
        )

    def suppress_one(boxes, scores):
        return jax.tree.map(lambda x: x[0], suppress(boxes[None], scores[None]))

    expected = suppress(boxes, scores)
    for other in (jax.jit(suppress), jax.jit(jax.vmap(suppress_one))):
        jax.tree.map(np.testing.assert_array_equal, other(boxes, scores), expected)


def test_limits_below_one_are_an_error():
    with pytest.raises(ValueError, match="must be at least 1, got 0 and 4096"):
        non_max_suppression(
            jnp.zeros((1, 2, 4)),
            jnp.zeros((1, 2, 3)),
            score_threshold=0.1,
            iou_threshold=0.5,
            max_detections=0,
        )
