import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from yolojax.ops import outlines

EYE = np.eye(3, dtype=np.float32)
EVERYWHERE = np.float32([-np.inf, -np.inf, np.inf, np.inf])
FRAME = (0.0, 0.0, 40.0, 30.0)


def edges_of(*parts):
    """Edges of closed polygons."""
    rows = [np.concatenate([p, np.roll(p, -1, 0)], -1) for p in map(np.float32, parts)]
    return np.concatenate(rows)


def star(generator, points, reach=14.0):
    """A star-shaped polygon with dents, somewhere around the frame."""
    centre = generator.uniform(-5, [45, 35])
    angle = np.sort(generator.uniform(0, 2 * np.pi, points))
    radius = generator.uniform(3, reach, points)
    way = np.stack([np.cos(angle), np.sin(angle)], -1)
    return np.float32(centre + radius[:, None] * way)


def holds(edges, points):
    """Even-odd rule in float64, one point and edge at a time by its definition."""
    x, y = points.T.astype(np.float64)
    inside = np.zeros(len(points), bool)
    for x1, y1, x2, y2 in edges.astype(np.float64):
        if y1 == y2:
            continue
        hit = (np.minimum(y1, y2) <= y) & (y < np.maximum(y1, y2))
        inside ^= hit & (x1 + (y - y1) * (x2 - x1) / (y2 - y1) <= x)
    return inside


@functools.cache
def compiled(samples):
    def boxes(edges, region, view):
        points = outlines.shown_points(edges, region, view, FRAME, samples=samples)
        return outlines.enclosing_boxes(*points)

    return jax.jit(boxes)


def shown_box(edges, region=EVERYWHERE, view=EYE, samples=2):
    return np.asarray(compiled(samples)(edges[None], region, np.float32(view)))[0]


def turned(degrees, perspective=0.0):
    angle = np.deg2rad(degrees)
    cosine, sine = np.cos(angle), np.sin(angle)
    to, back = np.eye(3), np.eye(3)
    to[:2, 2], back[:2, 2] = (-20, -15), (20, 15)
    tilt = np.eye(3)
    tilt[2, 0] = perspective
    return back @ tilt @ [[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]] @ to


DIAMOND = edges_of([[20, 5], [28, 15], [20, 25], [12, 15]])


@pytest.mark.parametrize(
    "region, expected",
    [
        (EVERYWHERE, [12, 5, 28, 25]),
        # Left of x = 16 the diamond is 10 high, not 20.
        ([0, 0, 16, 30], [12, 10, 16, 20]),
        ([0, 0, 20, 15], [12, 5, 20, 15]),
        # Within the diamond: the corners of the region.
        ([18, 13, 22, 17], [18, 13, 22, 17]),
        ([30, 0, 40, 30], [0, 0, 0, 0]),
        ([7, 7, 7, 7], [0, 0, 0, 0]),
    ],
    ids=["whole", "left", "corner", "within", "beside", "unused"],
)
def test_the_box_is_that_of_what_the_region_shows(region, expected):
    np.testing.assert_allclose(
        shown_box(DIAMOND, np.float32(region)), expected, atol=1e-4
    )


def test_a_diamond_turned_by_45_degrees_is_a_tight_square():
    square = edges_of([[20, 5], [30, 15], [20, 25], [10, 15]])
    half = 10 / np.sqrt(2)
    np.testing.assert_allclose(
        shown_box(square, view=turned(45)),
        [20 - half, 15 - half, 20 + half, 15 + half],
        atol=1e-4,
    )


def test_the_frame_cuts_as_the_region_does():
    moved = np.eye(3)
    moved[0, 2] = -16
    np.testing.assert_allclose(
        shown_box(DIAMOND, view=moved), [0, 5, 12, 25], atol=1e-4
    )
    moved[0, 2] = -24
    np.testing.assert_allclose(
        shown_box(DIAMOND, view=moved), [0, 10, 4, 20], atol=1e-4
    )


def test_an_outline_around_the_frame_shows_the_frame():
    edges = edges_of([[-50, -50], [90, -50], [90, 90], [-50, 90]])
    np.testing.assert_allclose(shown_box(edges), FRAME, atol=1e-4)
    # A hole of the size of the frame leaves nothing, one of its left half the right.
    hole = edges_of([[-1, -1], [20, -1], [20, 31], [-1, 31]])
    both = np.concatenate([edges, hole])
    np.testing.assert_allclose(shown_box(both), [20, 0, 40, 30], atol=1e-4)


@pytest.mark.parametrize(
    "view",
    [turned(0), turned(30), turned(-75, 0.004), turned(20, -0.015)],
    ids=["upright", "turned", "tilted", "steep"],
)
def test_boxes_agree_with_points_on_a_fine_grid(view):
    generator = np.random.default_rng(3)
    step = 0.1
    x, y = np.meshgrid(np.arange(-20, 60, step), np.arange(-20, 50, step))
    grid = np.stack([x.ravel(), y.ravel()], -1) + step / 2
    mapped = np.concatenate([grid, np.ones((len(grid), 1))], -1) @ view.T
    shown = mapped[:, 2] > 1e-3
    mapped = mapped[:, :2] / np.where(shown, mapped[:, 2], 1)[:, None]
    shown &= ((mapped >= 0) & (mapped <= FRAME[2:])).all(-1)
    found = 0
    for _ in range(12):
        edges = edges_of(star(generator, 9), star(generator, 3))
        low = generator.uniform(-10, 20, 2)
        region = np.float32([*low, *(low + generator.uniform(5, 40, 2))])
        within = shown & (grid >= region[:2]).all(-1) & (grid < region[2:]).all(-1)
        inside = mapped[within & holds(edges, grid)]
        box = shown_box(edges, region, view)
        if len(inside) < 20:
            # The grid may miss a sliver.
            assert (box[2:] - box[:2]).min() < 1
            continue
        found += 1
        expected = np.concatenate([inside.min(0), inside.max(0)])
        # A sharp tip reaches a little beyond the grid's last point.
        np.testing.assert_allclose(box, expected, atol=1.0)
        assert np.abs(box - expected).mean() < 0.25
        assert (box[:2] <= expected[:2] + 1e-3).all()
        assert (box[2:] >= expected[2:] - 1e-3).all()
    assert found >= 5


def test_more_samples_give_the_same_box_of_straight_edges():
    edges = edges_of(star(np.random.default_rng(5), 9) / 2 + 10)
    np.testing.assert_allclose(shown_box(edges, samples=7), shown_box(edges), atol=1e-4)


def test_what_lies_behind_the_horizon_is_not_shown():
    view = np.float32([[1, 0, 0], [0, 1, 0], [-0.05, 0, 1]])
    edges = edges_of([[25, 5], [35, 5], [35, 10], [25, 10]])
    np.testing.assert_array_equal(shown_box(edges, view=view), 0)
    _, before = outlines.transform_outlines(jnp.asarray(edges)[None], jnp.asarray(view))
    assert not before.any()


def test_edges_go_through_a_matrix_as_points_do():
    matrix = np.float32([[2, 0, 1], [0, 3, -1], [0, 0, 1]])
    moved, before = outlines.transform_outlines(
        jnp.asarray(DIAMOND)[None], jnp.asarray(matrix)
    )
    assert before.all()
    expected = edges_of([[41, 14], [57, 44], [41, 74], [25, 44]])
    np.testing.assert_array_equal(moved[0], expected)


def test_sides_of_a_box_in_order():
    edges = outlines.box_outlines(jnp.asarray([1.0, 2.0, 5.0, 7.0]))
    expected = [[1, 2, 5, 2], [5, 2, 5, 7], [5, 7, 1, 7], [1, 7, 1, 2]]
    np.testing.assert_array_equal(edges, expected)


def fill(edges, limits=None, used=None, size=(30, 40)):
    edges = np.asarray(edges, np.float32)
    if limits is None:
        limits = np.tile(np.float32([0, 0, size[1], size[0]]), (*edges.shape[:2], 1))
    used = np.ones(edges.shape[:2], bool) if used is None else used
    filled = jax.jit(outlines.fill_outlines, static_argnums=3)
    return np.asarray(filled(edges, limits, used, size))


def test_filled_pixels_are_those_whose_centre_is_inside():
    generator = np.random.default_rng(0)
    edges = np.stack(
        [[edges_of(star(generator, 9), star(generator, 4)) for _ in range(3)]] * 2
    )
    edges[1] = edges[1][::-1]
    used = np.array([[True, False, True], [True, True, True]])
    y, x = np.mgrid[:30, :40] + 0.5
    centres = np.stack([x.ravel(), y.ravel()], -1)
    expected = [
        np.any([holds(e, centres) for e, u in zip(row, use, strict=True) if u], axis=0)
        for row, use in zip(edges, used, strict=True)
    ]
    found = fill(edges, used=used)
    np.testing.assert_array_equal(found.reshape(2, -1), expected)
    assert 0.05 < found.mean() < 0.9


def test_a_filled_box_has_the_pixels_that_it_holds():
    edges = outlines.box_outlines(jnp.asarray([[[3.0, 4.0, 7.0, 9.0]]]))
    mask = fill(edges)[0]
    assert mask.sum() == 4 * 5 and mask[4:9, 3:7].all()


def test_limits_cut_what_is_filled():
    edges = outlines.box_outlines(jnp.asarray([[[-5.0, -5.0, 90.0, 90.0]]]))
    mask = fill(edges, np.float32([[[3, 4, 7, 9]]]))[0]
    assert mask.sum() == 4 * 5 and mask[4:9, 3:7].all()


def test_padding_and_unused_outlines_fill_nothing():
    assert not fill(np.full((1, 1, 5, 4), 7.5)).any()
    edges = np.tile(DIAMOND, (1, 1, 1, 1))
    assert not fill(edges, used=np.zeros((1, 1), bool)).any()
    padded = np.concatenate([edges, np.full((1, 1, 3, 4), 20.0)], axis=2)
    np.testing.assert_array_equal(fill(padded), fill(edges))
    assert fill(np.zeros((2, 0, 3, 4))).shape == (2, 30, 40)
    assert fill(np.zeros((1, 1, 4, 4)), size=(1, 1)).shape == (1, 1, 1)


def test_no_outline_is_used_where_nothing_is_shown():
    box = outlines.enclosing_boxes(jnp.zeros((3, 0, 2)), jnp.zeros((3, 0), bool))
    np.testing.assert_array_equal(box, np.zeros((3, 4)))
