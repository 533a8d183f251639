import jax.numpy as jnp
import numpy as np
import pytest

from tests.scenes import IMAGE_SIZE, assert_uniform, blank, run
from yolojax.augment import geometry
from yolojax.augment.boxes import carry_boxes
from yolojax.augment.policy import AUGMENTATIONS
from yolojax.augment.scene import GeometryStep, letterboxed
from yolojax.ops.letterbox import letterbox_shape


@pytest.mark.parametrize("seed", range(3))
def test_letterbox_lies_where_the_host_would_put_it(seed):
    sizes = np.random.default_rng(seed).integers(1, 61, (50, 2))
    target = ((40, 60), (32, 32), (33, 20))[seed]
    scene = letterboxed(blank(50, sizes), target)
    for size, matrix in zip(sizes, np.asarray(scene.placements)[:, 0], strict=True):
        place = letterbox_shape(tuple(size.tolist()), target)
        scale = np.asarray(place.size) / size
        np.testing.assert_allclose(np.diag(matrix), [scale[1], scale[0], 1], rtol=1e-6)
        np.testing.assert_array_equal(matrix[:2, 2], place.offset[::-1])


GEOMETRY = [n for n, f in AUGMENTATIONS.items() if isinstance(f(), GeometryStep)]


@pytest.mark.parametrize("name", GEOMETRY)
def test_a_step_that_is_not_applied_changes_nothing(name):
    before = letterboxed(blank(3), IMAGE_SIZE)
    after = run(AUGMENTATIONS[name](), 3, applied=False)
    np.testing.assert_array_equal(after.view, before.view)
    np.testing.assert_array_equal(after.gain, 1)
    np.testing.assert_array_equal(after.sources[:, :1], before.sources)
    np.testing.assert_array_equal(after.placements[:, :1], before.placements)
    np.testing.assert_array_equal(after.regions[:, :1], before.regions)
    np.testing.assert_array_equal(after.regions[:, 1:], 0)


def test_affine_scale_and_translation_are_uniform():
    scene = run(geometry.affine(scale=0.5, translate=0.1), 10_000)
    assert_uniform(scene.gain, 0.5, 1.5)
    np.testing.assert_allclose(scene.view[:, 0, 0], scene.gain, rtol=1e-5)
    centre = scene.view @ np.float32([30, 20, 1])
    assert_uniform(centre[:, 0], 0.4 * 60, 0.6 * 60)
    assert_uniform(centre[:, 1], 0.4 * 40, 0.6 * 40)
    draws = np.stack([scene.gain, centre[:, 0], centre[:, 1]])
    assert np.abs(np.corrcoef(draws) - np.eye(3)).max() < 0.04


def test_affine_rotation_is_uniform_and_keeps_lengths():
    view = run(geometry.affine(scale=0, translate=0, degrees=30), 10_000).view
    angle = np.rad2deg(np.arctan2(view[:, 0, 1], view[:, 0, 0]))
    assert_uniform(angle, -30, 30)
    np.testing.assert_allclose(np.linalg.det(view), 1, rtol=1e-4)


def test_affine_shear_angles_are_uniform():
    view = run(geometry.affine(scale=0, translate=0, shear=10), 10_000).view
    assert_uniform(np.rad2deg(np.arctan(view[:, 0, 1])), -10, 10)
    assert_uniform(np.rad2deg(np.arctan(view[:, 1, 0])), -10, 10)


def test_affine_perspective_is_uniform_about_the_centre():
    step = geometry.affine(scale=0, translate=0, perspective=0.001)
    view = run(step, 10_000).view
    assert_uniform(view[:, 2, 0], -0.001, 0.001)
    assert_uniform(view[:, 2, 1], -0.001, 0.001)
    depth = view[:, 2] @ np.float32([30, 20, 1])
    np.testing.assert_allclose(depth, 1, atol=1e-5)


def test_affine_composes_in_the_published_order():
    step = geometry.affine(
        scale=0.5, translate=0.1, degrees=20, shear=10, perspective=0.001
    )
    draws = np.float32([[0.9, 0.8, 0.3, 0.7, 0.9, 0.2, 0.25, 0.75]])
    batch = blank(1)
    scene = step.apply(
        letterboxed(batch, IMAGE_SIZE),
        jnp.asarray(draws),
        jnp.asarray([True]),
        batch,
        IMAGE_SIZE,
    )
    angle, gain = np.deg2rad(12), 1.4
    centre = np.array([[1, 0, -30], [0, 1, -20], [0, 0, 1]])
    tilt = np.array([[1, 0, 0], [0, 1, 0], [0.0008, -0.0006, 1]])
    turn = np.eye(3)
    turn[:2, :2] = [[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]
    turn[:2, :2] *= gain
    shear = np.eye(3)
    shear[0, 1], shear[1, 0] = np.tan(np.deg2rad([-4, 4]))
    move = np.array([[1, 0, 0.45 * 60], [0, 1, 0.55 * 40], [0, 0, 1]])
    expected = move @ shear @ turn @ tilt @ centre
    np.testing.assert_allclose(scene.view[0], expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(scene.gain, gain, rtol=1e-6)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(scale=1.0), "affine: scale is 1.0, expected 0 to 0.99"),
        (dict(translate=-0.1), "affine: translate is -0.1, expected 0 to 1"),
        (dict(degrees=200), "affine: degrees is 200, expected 0 to 180"),
        (dict(shear=90), "affine: shear is 90, expected 0 to 80"),
        (dict(perspective=0.1), "affine: perspective is 0.1, expected 0 to 0.01"),
    ],
)
def test_affine_refuses_ranges_that_make_no_sense(arguments, message):
    with pytest.raises(ValueError, match=message):
        geometry.affine(**arguments)


def turned(points, angle):
    """Points about (30, 20) turned by degrees, clockwise on the screen if negative."""
    cosine, sine = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    x, y = points[0] - 30, points[1] - 20
    return np.stack([cosine * x + sine * y + 30, -sine * x + cosine * y + 20])


def test_rotate_is_uniform_about_the_centre():
    view = run(geometry.rotate(degrees=40), 10_000).view
    angle = np.rad2deg(np.arctan2(view[:, 0, 1], view[:, 0, 0]))
    assert_uniform(angle, -40, 40)
    corner = view @ np.float32([60, 40, 1])
    expected = turned(np.float32([60, 40]), angle)
    np.testing.assert_allclose(corner[:, :2].T, expected, atol=1e-3)


@pytest.mark.parametrize(
    "name, entry, arguments, limit",
    [
        ("shear_x", (0, 1), dict(factor=0.3), 0.3),
        ("shear_y", (1, 0), dict(factor=0.4), 0.4),
        ("translate_x", (0, 2), dict(share=0.2), 0.2 * 60),
        ("translate_y", (1, 2), dict(share=0.2), 0.2 * 40),
    ],
)
def test_one_number_is_uniform_and_moves_nothing_else(name, entry, arguments, limit):
    view = run(AUGMENTATIONS[name](**arguments), 10_000).view
    assert_uniform(view[:, *entry], -limit, limit)
    moved = view @ np.float32([30, 20, 1])
    expected = np.tile(np.float32([30, 20, 1]), (10_000, 1))
    if name.startswith("translate"):
        expected[:, entry[0]] += view[:, *entry]
    np.testing.assert_allclose(moved, expected, atol=1e-4)
    rest = view.copy()
    rest[:, *entry] = 0
    rest[:, :2, 2] = 0
    np.testing.assert_allclose(rest, np.broadcast_to(np.eye(3), rest.shape), atol=1e-6)


def test_quarter_turns_are_exact_and_equally_likely():
    view = run(geometry.quarter_turn(), 10_000, image_size=(48, 48)).view
    turns = {
        90: [[0, 1, 0], [-1, 0, 48], [0, 0, 1]],
        180: [[-1, 0, 48], [0, -1, 48], [0, 0, 1]],
        270: [[0, -1, 48], [1, 0, 0], [0, 0, 1]],
    }
    for matrix in turns.values():
        share = (view == np.float32(matrix)).all((1, 2)).mean()
        assert abs(share - 1 / 3) < 0.02


def test_a_quarter_turn_of_an_output_that_is_not_square_still_shows_all_of_it():
    scene = run(geometry.quarter_turn(), 60)
    corners = np.float32([[0, 60, 60, 0], [0, 0, 40, 40], [1, 1, 1, 1]])
    moved = (scene.view @ corners)[:, :2]
    assert moved.min() > -1e-4
    assert (moved.max((0, 2)) < [60 + 1e-4, 40 + 1e-4]).all()
    shrunk = np.isclose(scene.gain, 40 / 60)
    assert 20 < shrunk.sum() < 60
    np.testing.assert_array_equal(scene.gain[~shrunk], 1)


def test_letterbox_at_a_random_place_is_uniform():
    batch = blank(10_000, np.tile([20, 30], (10_000, 1)))
    step = geometry.letterbox(scale_up=False, random_place=True)
    placement = run(step, 10_000, batch=batch).placements[:, 0]
    np.testing.assert_array_equal(placement[:, [0, 1], [0, 1]], 1)
    assert_uniform(placement[:, 0, 2], 0, 30)
    assert_uniform(placement[:, 1, 2], 0, 20)
    np.testing.assert_array_equal(placement, np.round(placement))


def test_letterbox_without_enlarging_shrinks_what_is_too_large():
    sizes = [[20, 30], [80, 60], [40, 60], [41, 60]]
    batch = blank(4, sizes, shape=(80, 60))
    placement = run(geometry.letterbox(scale_up=False), 4, batch=batch).placements
    scale = placement[:, 0, [1, 0], [1, 0]]
    expected = [[1, 1], [0.5, 0.5], [1, 1], [40 / 41, 59 / 60]]
    np.testing.assert_allclose(scale, expected, rtol=1e-6)
    np.testing.assert_array_equal(placement[0, 0, :2, 2], [15, 10])


def test_letterbox_that_stretches_fills_the_output():
    batch = blank(3, [[20, 30], [40, 13], [1, 60]])
    placement = run(geometry.letterbox(stretch=True), 3, batch=batch).placements[:, 0]
    corner = np.asarray(batch.size)[:, ::-1]
    corner = np.concatenate([corner, np.ones((3, 1))], axis=1)[..., None]
    np.testing.assert_allclose(
        (placement @ corner)[:, :2, 0], [[60, 40]] * 3, rtol=1e-6
    )


def test_mirrors_exchange_classes():
    step = geometry.flip_left_right(swap=((0, 1), (4, 2)))
    batch = blank(2)._replace(
        boxes=jnp.tile(jnp.float32([5, 5, 15, 15]), (2, 6, 1)),
        labels=jnp.tile(jnp.arange(6, dtype=jnp.int32), (2, 1)),
        valid=jnp.ones((2, 6), bool),
    )
    scene = letterboxed(batch, IMAGE_SIZE)
    applied = jnp.asarray([True, False])
    scene = step.apply(scene, jnp.zeros((2, 0)), applied, batch, IMAGE_SIZE)
    boxes, labels, valid = carry_boxes(batch, scene, IMAGE_SIZE)
    assert valid.all()
    np.testing.assert_array_equal(labels, [[1, 0, 4, 3, 2, 5], [0, 1, 2, 3, 4, 5]])
    np.testing.assert_array_equal(boxes[0, 0], [45, 5, 55, 15])
    # The other mirror turns them back.
    step = geometry.flip_up_down(swap=((0, 1),))
    scene = step.apply(scene, jnp.zeros((2, 0)), applied, batch, IMAGE_SIZE)
    _, labels, _ = carry_boxes(batch, scene, IMAGE_SIZE)
    np.testing.assert_array_equal(labels[0], [0, 1, 4, 3, 2, 5])


@pytest.mark.parametrize(
    "swap, message",
    [
        (((0, 1), (1, 2)), "flip_left_right: swap .* has a class twice"),
        (((0, 0),), "has a class twice"),
        (((0, 1, 2),), "expected pairs of class indices"),
        (((0, -1),), "expected pairs of class indices"),
        ((("a", "b"),), "expected pairs of class indices"),
    ],
)
def test_swaps_that_are_no_pairs_are_refused(swap, message):
    with pytest.raises(ValueError, match=message):
        geometry.flip_left_right(swap=swap)


@pytest.mark.parametrize(
    "name, arguments, message",
    [
        ("rotate", dict(degrees=-1), "rotate: degrees is -1, expected 0 to 180"),
        ("shear_x", dict(factor=3), "shear_x: factor is 3, expected 0 to 2"),
        ("shear_y", dict(factor=3), "shear_y: factor is 3, expected 0 to 2"),
        ("translate_x", dict(share=2), "translate_x: share is 2, expected 0 to 1"),
        ("translate_y", dict(share=2), "translate_y: share is 2, expected 0 to 1"),
        ("pad", dict(largest=0.5), "pad: largest is 0.5, expected 1 to 16"),
        ("random_crop", dict(smallest=0), "smallest is 0, expected 0.05 to 1"),
        ("random_crop", dict(keep=2), "random_crop: keep is 2, expected 0 to 1"),
        ("random_resized_crop", dict(largest=2), "largest is 2, expected 0.08 to 1"),
        ("random_resized_crop", dict(aspect=0.5), "aspect is 0.5, expected 1 to 10"),
        ("letterbox", dict(stretch=True, scale_up=False), "stretch fills the output"),
    ],
)
def test_ranges_that_make_no_sense_are_refused(name, arguments, message):
    with pytest.raises(ValueError, match=message):
        AUGMENTATIONS[name](**arguments)
