"""Reading and writing the cells of a flattened map, fast and in a fixed order.

A map's gradient is dense in one channel and holds few rows elsewhere. Written as one
padded array plus one scatter it costs a single pass over memory, and since the rows
of a cell are summed before, in order, no two writes meet: the result does not depend
on the order in which an accelerator happens to write.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

# Where objectness stands in `x y w h objectness classes`.
OBJECTNESS = 4


@jax.custom_vjp
def read_cells(
    flat: Float[Array, "b cells channels"],
    cell: Int[Array, "b k"],
    last: Bool[Array, "b k"],
) -> tuple[Float[Array, "b cells"], Float[Array, "b k channels"]]:
    """Objectness of every cell, and all channels of the given ones.

    Args:
        flat: the map.
        cell: indices, sorted as in `Assignment`.
        last: the last pair of each cell; rows of no cell, or before it, are False.
    """
    return flat[..., OBJECTNESS], jnp.take_along_axis(flat, cell[..., None], axis=1)


def _read_forward(flat, cell, last):
    return read_cells(flat, cell, last), (cell, last, flat.shape)


def _read_backward(saved, cotangents):
    cell, last, (_, num_cells, channels) = saved
    objectness, rows = cotangents
    dense = jnp.pad(
        objectness[..., None],
        ((0, 0), (0, 0), (OBJECTNESS, channels - OBJECTNESS - 1)),
    )
    rows = sum_runs(cell, rows)
    where = jnp.where(last, cell, num_cells + jnp.arange(cell.shape[1])[None])
    add = jax.vmap(
        lambda zeros, index, values: zeros.at[index].add(
            values, mode="drop", unique_indices=True
        )
    )
    return add(dense, where, rows), None, None


read_cells.defvjp(_read_forward, _read_backward)


def sum_runs(
    cell: Int[Array, "b k"], rows: Float[Array, "b k channels"]
) -> Float[Array, "b k channels"]:
    """For each row, the sum of the rows of its cell up to it, added in order.

    Args:
        cell: indices; equal ones stand side by side.
        rows: what to add.
    """
    first = jnp.pad(cell[:, 1:] != cell[:, :-1], ((0, 0), (1, 0)), constant_values=True)

    def join(left, right):
        starts, total = right
        return left[0] | starts, jnp.where(starts, total, left[1] + total)

    return jax.lax.associative_scan(join, (first[..., None], rows), axis=1)[1]


def write_cells(
    values: Float[Array, "b k"],
    cell: Int[Array, "b k"],
    last: Bool[Array, "b k"],
    *,
    num_cells: int,
) -> Float[Array, "b {num_cells}"]:
    """The last value of each cell; 0 where there is none.

    Args:
        values: one a pair.
        cell: indices, sorted as in `Assignment`.
        last: the last pair of each cell.
        num_cells: cells of the map.
    """
    where = jnp.where(last, cell, num_cells + jnp.arange(cell.shape[1])[None])
    write = jax.vmap(
        lambda index, values: (
            jnp.zeros(num_cells, values.dtype)
            .at[index]
            .set(values, mode="drop", unique_indices=True)
        )
    )
    return write(where, values)
