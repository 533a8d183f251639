import jax
import jax.numpy as jnp
import numpy as np
import pytest

from yolojax.augment import geometry, mosaic
from yolojax.augment.policy import AUGMENTATIONS
from yolojax.augment.scene import letterboxed
from yolojax.ops.letterbox import letterbox_shape
from yolojax.records import Batch

IMAGE_SIZE = (40, 60)


def blank(num, sizes=None, shape=(40, 60)):
    sizes = np.full((num, 2), shape) if sizes is None else np.asarray(sizes)
    return Batch(
        image=jnp.zeros((num, *shape, 3), jnp.uint8),
        size=jnp.asarray(sizes, jnp.int32),
        boxes=jnp.zeros((num, 0, 4)),
        labels=jnp.zeros((num, 0), jnp.int32),
        valid=jnp.zeros((num, 0), bool),
        image_id=jnp.arange(num, dtype=jnp.int32),
        origin=jnp.zeros((num, 4)),
    )


def run(step, num, seed=0, applied=True):
    draws = jax.random.uniform(jax.random.key(seed), (num, step.num_draws))
    batch = blank(num)

    @jax.jit
    def scene(draws, applied):
        start = letterboxed(batch, IMAGE_SIZE)
        return step.apply(start, draws, applied, batch, IMAGE_SIZE)

    return jax.tree.map(np.asarray, scene(draws, jnp.full((num,), applied)))


def assert_uniform(values, low, high):
    """The sample looks like 10,000 draws from [low, high], or its whole numbers."""
    width = high - low
    assert values.min() >= low - 1e-4 * width
    assert values.max() <= high + 1e-4 * width
    quantiles = np.quantile(values, [0.0, 0.25, 0.5, 0.75, 1.0])
    expected = low + width * np.linspace(0, 1, 5)
    np.testing.assert_allclose(quantiles, expected, atol=0.025 * width)


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


def test_mosaic_centre_and_quadrant_are_uniform_and_partners_differ():
    num = 10_000
    scene = run(mosaic.mosaic(), num)
    # The own picture's region is cut by the centre on two sides.
    left = scene.regions[:, 0, 0] == 0
    top = scene.regions[:, 0, 1] == 0
    centre_x = np.where(left, scene.regions[:, 0, 2], scene.regions[:, 0, 0])
    centre_y = np.where(top, scene.regions[:, 0, 3], scene.regions[:, 0, 1])
    assert_uniform(centre_x, 30, 90)
    assert_uniform(centre_y, 20, 60)
    quadrant = np.bincount(2 * top + left, minlength=4) / num
    np.testing.assert_allclose(quadrant, 0.25, atol=0.02)
    np.testing.assert_array_equal(scene.sources[:, 0], np.arange(num))
    in_order = np.sort(scene.sources, axis=1)
    assert (np.diff(in_order, axis=1) > 0).all()
    # Every picture is used as often as any other.
    np.testing.assert_array_equal(np.bincount(scene.sources.ravel()), 4)


@pytest.mark.parametrize("num", [1, 2, 3])
def test_mosaic_of_a_small_batch_takes_what_there_is(num):
    scene = run(mosaic.mosaic(), num)
    for own, sources in enumerate(scene.sources):
        assert sources[0] == own
        assert set(sources) == set(range(num))


def test_mosaic_pictures_touch_the_centre_and_regions_cover_the_canvas():
    scene = run(mosaic.mosaic(), 64)
    areas = np.prod(scene.regions[..., 2:] - scene.regions[..., :2], axis=-1)
    np.testing.assert_allclose(areas.sum(1), 80 * 120)
    corners = np.float32([[0, 0, 1], [60, 40, 1]]).T
    placed = (scene.placements @ corners)[..., :2, :]
    for regions, pictures in zip(scene.regions, placed, strict=True):
        centre = (
            np.intersect1d(regions[:, 0], regions[:, 2]),
            np.intersect1d(regions[:, 1], regions[:, 3]),
        )
        for picture in pictures:
            assert centre[0] in picture[0]
            assert centre[1] in picture[1]


def test_mosaic_view_is_the_middle_of_the_canvas():
    view = run(mosaic.mosaic(), 1).view[0]
    np.testing.assert_array_equal(view @ [60, 40, 1], [30, 20, 1])


@pytest.mark.parametrize("name", ["mosaic", "affine", "flip_left_right"])
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
