import jax
import jax.numpy as jnp
import numpy as np

from yolojax.losses.owned import read_cells, spread_values

# Two levels of 4 and 3 cells, six channels; 4 and more is beyond the first level.
SIZES = 4, 3
INDEX = jnp.array([[[[2, 0, 5]], [[3, 1, 4]]], [[[6, 4, 3]], [[5, 0, 2]]]])


def random_maps():
    rng = np.random.default_rng(0)
    return tuple(jnp.asarray(rng.normal(size=(2, n, 6)), jnp.float32) for n in SIZES)


def test_rows_come_from_their_own_level_and_are_0_beyond_it():
    maps = random_maps()
    rows, objectness = read_cells(maps, INDEX)
    np.testing.assert_array_equal(rows[0, 0, 0, :2], maps[0][0][jnp.array([2, 0])])
    np.testing.assert_array_equal(rows[0, 1, 0, 1], maps[1][0, 1])
    np.testing.assert_array_equal(rows[1, 1, 0, 1:], maps[1][1][jnp.array([0, 2])])
    assert not rows[0, :, 0, 2].any() and not rows[1, 0, 0, :2].any()
    both = np.concatenate([x[..., 4] for x in maps], axis=1)
    np.testing.assert_array_equal(objectness, both)


def test_the_gradient_is_that_of_the_read_numbers():
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(2, 2, 1, 3, 6)).astype(np.float32)
    dense = rng.normal(size=(2, 7)).astype(np.float32)

    @jax.jit
    @jax.grad
    def gradients_of(maps):
        read = read_cells(maps, INDEX)
        return jnp.vdot(read[0], rows) + jnp.vdot(read[1], dense)

    gradients = gradients_of(random_maps())
    start = 0
    for level, (gradient, size) in enumerate(zip(gradients, SIZES, strict=True)):
        expected = np.zeros((2, size, 6), np.float32)
        expected[..., 4] = dense[:, start : start + size]
        for picture, slot in np.ndindex(2, 3):
            cell = int(INDEX[picture, level, 0, slot])
            if cell < size:
                expected[picture, cell] += rows[picture, level, 0, slot]
        np.testing.assert_allclose(gradient, expected, rtol=1e-6)
        start += size


def test_values_land_on_their_cells_of_the_levels_side_by_side():
    values = jnp.arange(1.0, 13.0).reshape(2, 2, 1, 3)
    spread = spread_values(values, INDEX, SIZES)
    expected = [[2, 0, 1, 0, 0, 5, 0], [0, 0, 0, 9, 11, 0, 12]]
    np.testing.assert_array_equal(spread, expected)
