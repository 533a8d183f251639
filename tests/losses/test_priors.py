import jax
import jax.numpy as jnp
import numpy as np
import pytest

from yolojax.losses import priors
from yolojax.losses.priors import class_targets, match_priors, overlaps_any, place_boxes

# The middle size stands on both levels, the last one on none.
PRIORS = np.array([[10, 20], [20, 10], [40, 40], [90, 90]], np.float32)
ANCHORS = PRIORS[[[0, 2], [2, 1]]]
GRIDS = ((4, 6), (2, 3))
STRIDES = (8, 16)


def matches(*sizes, valid=None, **settings):
    """Of one picture: for each box the (level, anchor) that take it."""
    sizes = jnp.asarray(sizes, jnp.float32)[None]
    valid = jnp.ones(sizes.shape[:2], bool) if valid is None else jnp.asarray([valid])
    taken = jax.jit(
        lambda s, v: match_priors(s, v, anchors=ANCHORS, priors=PRIORS, **settings)
    )(sizes, valid)
    taken = np.asarray(taken)[0]
    return [
        [tuple(pair) for pair in np.argwhere(taken[..., n]).tolist()]
        for n in range(taken.shape[-1])
    ]


def test_a_box_is_taken_by_the_prior_of_its_size_on_every_level_that_has_it():
    # The last one belongs to the prior that no level uses.
    assert matches([9, 22], [25, 9], [35, 35], [80, 80]) == [
        [(0, 0)],
        [(1, 1)],
        [(0, 1), (1, 0)],
        [],
    ]


def test_of_priors_that_fit_alike_the_first_takes_the_box():
    # 150 of 275 square pixels in common with either.
    assert matches([15, 15]) == [[(0, 0)]]


def test_the_match_threshold_is_exclusive_and_adds_to_the_best():
    # Exactly half of the 10 by 20 prior, and of the 20 by 10 one.
    (found,) = matches([10, 10], match_threshold=0.4)
    assert found == [(0, 0), (1, 1)]
    assert matches([10, 10], match_threshold=0.5) == [[(0, 0)]]
    # 400 of 1600 square pixels in common with the prior on two levels.
    assert matches([20, 20], match_threshold=0.25) == [[(0, 0), (1, 1)]]
    assert len(matches([20, 20], match_threshold=0.24)[0]) == 4
    assert matches([20, 10], match_threshold=1.0) == [[(1, 1)]]


def test_a_box_far_from_every_level_is_still_taken_above_the_threshold():
    # 1600 of 3600 square pixels in common.
    assert matches([60, 60], match_threshold=0.4) == [[(0, 1), (1, 0)]]
    assert matches([70, 70]) == [[]]


def test_padding_and_boxes_without_area_are_taken_by_none():
    sizes = [10, 20], [0, 20], [10, 0], [0, 0], [-10, -20]
    valid = [False, True, True, True, True]
    assert matches(*sizes, valid=valid, match_threshold=0.0) == [[]] * 5


def test_an_anchor_that_is_no_prior_is_refused():
    with pytest.raises(ValueError, match=r"anchor \[90.0, 90.0\] is none of the 3"):
        match_priors(
            jnp.ones((1, 1, 2)),
            jnp.ones((1, 1), bool),
            anchors=PRIORS[None],
            priors=PRIORS[:3],
        )


@jax.jit
def place(centres, taken):
    return place_boxes(centres, taken, grids=GRIDS, strides=STRIDES)


def taken_by(*pairs, num_boxes=4):
    """[1, 2, 2, n], True at (level, anchor, box)."""
    taken = np.zeros((1, 2, 2, num_boxes), bool)
    for level, anchor, box in pairs:
        taken[0, level, anchor, box] = True
    return jnp.asarray(taken)


def test_the_cell_is_that_of_the_centre_and_the_nearest_for_one_outside():
    # 48 by 32 pixels, x before y.
    centres = jnp.array([[[17.0, 30.0], [48.0, 32.0], [-3.0, 40.0], [8.0, 16.0]]])
    every = jnp.ones((1, 2, 2, 4), bool)
    found, positive = place(centres, every)
    # Row, column and anchor: (3, 2), (3, 5), (3, 0), (2, 1), then (1, 1) and so on.
    cells = [(3 * 6 + 2) * 2, (3 * 6 + 5) * 2, 3 * 6 * 2, (2 * 6 + 1) * 2]
    np.testing.assert_array_equal(found.index[0, 0, 0], cells)
    np.testing.assert_array_equal(found.index[0, 0, 1], np.add(cells, 1))
    cells = [(1 * 3 + 1) * 2, (1 * 3 + 2) * 2, 1 * 3 * 2, 1 * 3 * 2]
    np.testing.assert_array_equal(found.index[0, 1, 0, :2], cells[:2])
    # Two boxes have taken the same cell; the later one owns it.
    assert found.index[0, 1, 0, 2] > 12 and found.index[0, 1, 0, 3] == cells[3]
    np.testing.assert_allclose(
        found.centres[0, 0], [[0.125, 0.75], [1, 1], [-0.375, 2], [0, 0]]
    )
    assert positive.sum() == 2 * (4 + 3)


def test_the_last_box_of_a_cell_owns_it_and_no_index_stands_twice():
    centres = jnp.full((1, 4, 2), 20.0)
    taken = taken_by((0, 0, 0), (0, 0, 2), (0, 1, 1), (1, 0, 1), (1, 0, 3))
    found, positive = place(centres, taken)
    assert np.argwhere(found.owns[0]).tolist() == [[0, 0, 2], [0, 1, 1], [1, 0, 3]]
    owner = np.where(taken, found.owner, -1)
    np.testing.assert_array_equal(owner[0, :, 0], [[2, -1, 2, -1], [-1, 3, -1, 3]])
    assert positive.sum() == 3
    for level, (height, width) in enumerate(GRIDS):
        index = np.asarray(found.index)[0, level].ravel()
        owns = np.asarray(found.owns)[0, level].ravel()
        assert len(set(index)) == len(index)
        assert (index[~owns] >= height * width * 2).all()
        assert (index[owns] < height * width * 2).all()


def test_classes_are_those_of_all_boxes_of_a_cell():
    centres = jnp.full((1, 4, 2), 20.0)
    taken = taken_by((0, 0, 0), (0, 0, 1), (0, 0, 2), (0, 1, 0), (1, 0, 3))
    found, _ = place(centres, taken)

    @jax.jit
    def targets(labels):
        return class_targets(labels, found, 3, label_smoothing=0.2)[0]

    named = targets(jnp.array([[2, 2, 0, 1]]))
    np.testing.assert_allclose(named[0, 0, 2], [0.9, 0.1, 0.9], rtol=1e-6)
    np.testing.assert_allclose(named[0, 1, 0], [0.1, 0.1, 0.9], rtol=1e-6)
    np.testing.assert_allclose(named[1, 0, 3], [0.1, 0.9, 0.1], rtol=1e-6)
    # A label outside the range is of no class.
    strange = targets(jnp.array([[-1, 3, 0, 7]]))
    np.testing.assert_allclose(strange[0, 0, 2], [0.9, 0.1, 0.1], rtol=1e-6)
    np.testing.assert_allclose(strange[0, 1, 0], [0.1, 0.1, 0.1], rtol=1e-6)
    np.testing.assert_allclose(strange[1, 0, 3], [0.1, 0.1, 0.1], rtol=1e-6)


def overlaps(predicted, boxes, valid, threshold):
    found = jax.jit(overlaps_any, static_argnums=3)(predicted, boxes, valid, threshold)
    return np.asarray(found)


def random_boxes(rng, *shape):
    low = rng.uniform(0, 50, (*shape, 2))
    high = low + rng.uniform(1, 30, low.shape)
    return np.concatenate([low, high], axis=-1).astype(np.float32)


def test_overlaps_are_those_of_all_pairs():
    rng = np.random.default_rng(0)
    predicted, boxes = random_boxes(rng, 3, 40), random_boxes(rng, 3, 11)
    valid = rng.random((3, 11)) < 0.5
    valid[0], valid[1, priors.BLOCK :] = False, True
    expected = np.zeros((3, 40), bool)
    for picture, n, m in np.ndindex(3, 40, 11):
        p, q = predicted[picture, n].astype(np.float64), boxes[picture, m]
        sides = np.minimum(p[2:], q[2:]) - np.maximum(p[:2], q[:2])
        common = np.prod(np.maximum(sides, 0))
        union = np.prod(p[2:] - p[:2]) + np.prod(q[2:] - q[:2]) - common
        expected[picture, n] |= valid[picture, m] and common / union > 0.3
    assert expected.any(axis=1).tolist() == [False, True, True]
    found = overlaps(*map(jnp.asarray, (predicted, boxes, valid)), 0.3)
    np.testing.assert_array_equal(found, expected)


def test_the_overlap_is_exclusive_and_boxes_without_area_have_none():
    predicted = jnp.array([[[0.0, 0, 4, 4], [2.0, 2, 2, 2]]])
    boxes = jnp.array([[[0.0, 0, 4, 2], [2.0, 2, 2, 2], [4.0, 4, 0, 0]]])
    valid = jnp.ones((1, 3), bool)
    assert overlaps(predicted, boxes, valid, 0.5).tolist() == [[False, False]]
    assert overlaps(predicted, boxes, valid, 0.49).tolist() == [[True, False]]
    assert overlaps(predicted, boxes[:, 1:], valid[:, 1:], 0.0).sum() == 0


def test_without_boxes_nothing_overlaps():
    predicted = jnp.ones((2, 5, 4))
    found = overlaps(predicted, jnp.ones((2, 0, 4)), jnp.ones((2, 0), bool), 0.0)
    assert found.shape == (2, 5) and not found.any()
