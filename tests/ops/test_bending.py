import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.interpolate import BSpline

from yolojax.ops import bending

SIZE = (48, 80)


def drawn(cells, seed=0, strength=bending.MOST_BENT, num=3):
    """Controls up to the largest that is allowed."""
    generator = np.random.default_rng(seed)
    most = strength * min(SIZE) / cells
    count = cells + bending.BEYOND
    return generator.uniform(-most, most, (num, 2, count, count)).astype(np.float32)


def by_scipy(controls, x, y):
    """The displacement at points, by the tensor product of cubic B-splines."""
    count = controls.shape[-1]
    knots = np.arange(count + 4) - 3.0
    cells = count - bending.BEYOND
    across = BSpline.design_matrix(x / SIZE[1] * cells, knots, 3).toarray()
    down = BSpline.design_matrix(y / SIZE[0] * cells, knots, 3).toarray()
    return np.einsum("pr,drc,pc->pd", down, controls.astype(np.float64), across)


@pytest.mark.parametrize("cells", [1, 3, 5])
def test_displacements_are_those_of_scipys_splines(cells):
    controls = drawn(cells)
    found = np.asarray(jax.jit(lambda c: bending.displacements(c, SIZE))(controls))
    y, x = np.mgrid[: SIZE[0], : SIZE[1]].reshape(2, -1) + 0.5
    for own, one in zip(found, controls, strict=True):
        expected = by_scipy(one, x, y)
        np.testing.assert_allclose(own.reshape(2, -1).T, expected, atol=1e-4)


def test_equal_controls_move_the_whole_picture():
    controls = np.tile(np.float32([[3.0], [-2.0]])[..., None], (1, 1, 5, 5))
    moved = bending.displacements(jnp.asarray(controls), SIZE)
    np.testing.assert_allclose(moved[0, 0], 3.0, rtol=1e-6)
    np.testing.assert_allclose(moved[0, 1], -2.0, rtol=1e-6)
    points = np.float32([[[10, 10], [-50, 500]]])
    back = bending.bent_points(jnp.asarray(points), jnp.asarray(controls), SIZE)
    np.testing.assert_allclose(back, points - [3, -2], rtol=1e-6)


@pytest.mark.parametrize("cells", [1, 2, 4])
def test_points_are_shown_where_their_displacement_ends(cells):
    """Also by the largest displacement, and where controls alternate."""
    alternating = np.indices((cells + 3, cells + 3)).sum(0) % 2 * 2.0 - 1
    most = bending.MOST_BENT * min(SIZE) / cells
    controls = drawn(cells, num=4)
    controls[3] = most * alternating.astype(np.float32)
    y, x = np.mgrid[4 : SIZE[0] - 4 : 3, 4 : SIZE[1] - 4 : 3].reshape(2, -1) + 0.5
    target = np.stack([np.stack([x, y], -1) + by_scipy(c, x, y) for c in controls])
    found = jax.jit(lambda p, c: bending.bent_points(p, c, SIZE))(
        target.astype(np.float32), controls
    )
    np.testing.assert_allclose(
        found, np.tile(np.stack([x, y], -1), (4, 1, 1)), atol=0.01
    )


def test_runs_under_vmap_without_points_and_has_a_finite_gradient():
    controls = jnp.asarray(drawn(2, num=2))
    points = jnp.asarray(
        np.random.default_rng(0).uniform(0, 48, (2, 5, 2)), jnp.float32
    )
    each = jax.vmap(lambda p, c: bending.bent_points(p[None], c[None], SIZE)[0])
    np.testing.assert_allclose(
        each(points, controls), bending.bent_points(points, controls, SIZE), atol=1e-4
    )
    assert bending.bent_points(points[:, :0], controls, SIZE).shape == (2, 0, 2)

    def total(c):
        return jnp.sum(bending.displacements(c, SIZE) ** 2)

    assert np.isfinite(jax.grad(total)(controls)).all()
