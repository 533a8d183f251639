import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.scenes import IMAGE_SIZE, assert_uniform, blank, run
from yolojax.augment import mosaic
from yolojax.augment.scene import letterboxed


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


def test_mosaic9_leaves_no_overlap_and_shows_each_picture_once():
    sizes = np.random.default_rng(0).integers(5, [41, 61], (200, 2))
    scene = run(mosaic.mosaic9(), 200, batch=blank(200, sizes))
    np.testing.assert_array_equal(scene.sources[:, 0], np.arange(200))
    assert (np.diff(np.sort(scene.sources, axis=1), axis=1) > 0).all()
    low, high = scene.regions[..., :2], scene.regions[..., 2:]
    for a in range(9):
        for b in range(a):
            shared = np.minimum(high[:, a], high[:, b]) - np.maximum(
                low[:, a], low[:, b]
            )
            assert (shared.min(1) <= 1e-3).all()
    # The canvas of twice the output's size, cut out of three times.
    assert low.min() >= 0 and (high.reshape(-1, 2).max(0) <= [180, 120]).all()
    extent = high.max(1) - low.min(1)
    assert (extent <= [120 + 1e-3, 80 + 1e-3]).all()


def test_mosaic9_of_pictures_that_fill_the_output_is_a_grid_in_the_published_order():
    scene = run(mosaic.mosaic9(), 2000)
    corners = scene.placements[..., :2, 2] / [60, 40]
    # Columns and rows of the nine places, in the order in which they are filled.
    order = [(1, 1), (1, 0), (2, 0), (2, 1), (2, 2), (1, 2), (0, 2), (0, 1), (0, 0)]
    own = np.round(corners[:, 0]).astype(int)
    places = [order.index(tuple(place)) for place in own.tolist()]
    counts = np.bincount(places, minlength=9) / 2000
    np.testing.assert_allclose(counts, 1 / 9, atol=0.03)
    for place, tiles in zip(places, corners, strict=True):
        expected = [order[(place + i) % 9] for i in range(9)]
        np.testing.assert_allclose(tiles, expected, atol=1e-5)
    assert_uniform(-scene.view[:, 0, 2], 30, 90)
    assert_uniform(-scene.view[:, 1, 2], 20, 60)


def test_mosaic9_by_hand():
    """Nine sizes, each place at the corner of the one before it."""
    sizes = [[40, 60], [40, 30], [20, 60], [40, 20], [10, 60], [40, 60], [8, 12]]
    sizes += [[40, 40], [30, 60]]
    batch = blank(9, sizes)
    step = mosaic.mosaic9()
    # No turn: the own picture is the first; equal draws keep the order of the batch.
    draws = jnp.tile(jnp.float32([0.5, 0.25, 0.0, 0.5]), (9, 1))
    scene = letterboxed(batch, IMAGE_SIZE)
    scene = step.apply(scene, draws, jnp.ones((9,), bool), batch, IMAGE_SIZE)
    np.testing.assert_array_equal(scene.sources[0], np.arange(9))
    # Widths and heights as fitted into 40x60: 60x40, 30x40, 60x20, 20x40, 60x10,
    # 60x40, 60x40, 40x40, 60x30.
    left_top = [
        (60, 40),  # the middle
        (60, 0),  # above it, 30 wide
        (90, 20),  # to the right of that one, on the same line
        (120, 40),  # at the right of the middle, 20 wide and 40 high
        (120, 80),  # below that one
        (60, 80),  # below the middle, ending where it ends
        (0, 80),  # to the left of that one
        (20, 40),  # at the left of the middle, ending below with it
        (0, 10),  # above that one
    ]
    placed = scene.placements[0, :, :2, 2]
    np.testing.assert_allclose(placed, left_top, atol=1e-4)
    # Cut at (15, 20), of which the view begins at a quarter of 120x80.
    np.testing.assert_array_equal(scene.view[0, :2, 2], [-(15 + 30), -(20 + 20)])
    # The last picture: what lies at or right of 15 and below 20, up to its end.
    np.testing.assert_allclose(scene.regions[0, 8], [15, 20, 60, 40], atol=1e-4)


@pytest.mark.slow
def test_a_policy_may_have_both_mosaics():
    first = mosaic.mosaic()
    second = mosaic.mosaic9()
    batch = blank(12)
    draws = jax.random.uniform(jax.random.key(0), (12, 4))
    start = letterboxed(batch, IMAGE_SIZE)
    every = jnp.ones((12,), bool)
    four = first.apply(start, draws, every, batch, IMAGE_SIZE)
    nine = second.apply(start, draws, every, batch, IMAGE_SIZE)
    some = jnp.arange(12) % 2 == 0
    both = second.apply(four, draws, some, batch, IMAGE_SIZE)
    for name in ("placements", "regions", "view", "sources"):
        mixed, of_four, of_nine = (getattr(s, name) for s in (both, four, nine))
        np.testing.assert_array_equal(mixed[::2], of_nine[::2])
        mine = mixed[1::2] if name == "view" else mixed[1::2, :4]
        np.testing.assert_array_equal(mine, of_four[1::2])
    np.testing.assert_array_equal(both.regions[1::2, 4:], 0)
    # And the other way round.
    both = first.apply(nine, draws, some, batch, IMAGE_SIZE)
    np.testing.assert_array_equal(both.regions[::2, :4], four.regions[::2])
    np.testing.assert_array_equal(both.regions[::2, 4:], 0)
    np.testing.assert_array_equal(both.regions[1::2], nine.regions[1::2])
