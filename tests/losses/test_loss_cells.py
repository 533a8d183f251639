import jax.numpy as jnp
import numpy as np

from yolojax.losses import cells

# One picture, two levels of 4 and 3 cells, two channels; padding last.
MAPS = (
    jnp.arange(8.0).reshape(1, 4, 2),
    10 + jnp.arange(6.0).reshape(1, 3, 2),
)
CELL = jnp.array([[[1, 1, 1, 3], [0, 2, 0, 0]]])
VALID = jnp.array([[[True, True, True, True], [True, True, False, False]]])


def test_rows_come_from_their_own_level():
    rows = cells.gather_rows(MAPS, CELL)
    np.testing.assert_array_equal(rows[0, 0, :, 0], [2, 2, 2, 6])
    np.testing.assert_array_equal(rows[0, 1, :2, 1], [11, 15])


def test_rows_of_one_cell_add_up_and_padding_adds_nothing():
    ones = jnp.ones((1, 2, 4, 2))
    first, second = cells.add_rows(MAPS, CELL, VALID, ones)
    np.testing.assert_array_equal((first - MAPS[0])[0, :, 0], [0, 3, 0, 1])
    np.testing.assert_array_equal((second - MAPS[1])[0, :, 1], [1, 0, 1])


def test_the_last_value_of_a_cell_stays():
    values = cells.set_values(
        jnp.full((1, 7), -1.0),
        CELL,
        VALID,
        jnp.arange(8.0).reshape(1, 2, 4),
        sizes=(4, 3),
    )
    np.testing.assert_array_equal(values, [[-1, 2, -1, 3, 4, -1, 5]])


def test_padding_does_not_end_the_run_of_a_cell():
    cell, valid = jnp.array([0, 0, 0]), jnp.array([True, True, False])
    last = cells.is_last_of_cell(cell, valid)
    np.testing.assert_array_equal(last, [False, True, False])
