"""Reading and writing the cells of flattened maps, fast and in a fixed order.

A map's gradient is dense in one channel and holds few rows elsewhere. Written as one
padded array plus one scatter it costs a single pass over memory, and since the rows
of a cell are summed before, in order, no two writes meet: the result does not depend
on the order in which an accelerator happens to write.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

# Where objectness stands in `x y w h objectness classes`.
OBJECTNESS = 4


@jax.custom_vjp
def read_cells(
    maps: tuple[Float[Array, "b _cells channels"], ...],
    cell: Int[Array, "b l k"],
    last: Bool[Array, "b l k"],
) -> tuple[Float[Array, "b all_cells"], Float[Array, "b l k channels"]]:
    """Objectness of every cell of all levels, and all channels of the given ones.

    Args:
        maps: one flattened map a level.
        cell: indices within the level; equal ones stand side by side.
        last: the last pair of each cell; only rows up to one get a gradient.
    """
    objectness = jnp.concatenate([flat[..., OBJECTNESS] for flat in maps], axis=1)
    rows = [
        jnp.take_along_axis(flat, cell[:, level, :, None], axis=1)
        for level, flat in enumerate(maps)
    ]
    return objectness, jnp.stack(rows, axis=1)


def _read_forward(maps, cell, last):
    return read_cells(maps, cell, last), (cell, last, [flat.shape[1] for flat in maps])


def _read_backward(saved, cotangents):
    cell, last, sizes = saved
    objectness, rows = cotangents
    after = rows.shape[-1] - OBJECTNESS - 1
    rows = sum_runs(cell, rows)
    gradients = []
    for level, part in enumerate(_split(objectness, sizes)):
        dense = jnp.pad(part[..., None], ((0, 0), (0, 0), (OBJECTNESS, after)))
        index = _where_last(cell[:, level], last[:, level], sizes[level])
        gradients.append(_add_rows(dense, index, rows[:, level]))
    return tuple(gradients), None, None


read_cells.defvjp(_read_forward, _read_backward)


@jax.vmap
def _add_rows(
    flat: Float[Array, "cells channels"],
    index: Int[Array, "k"],  # noqa: UP037
    rows: Float[Array, "k channels"],
) -> Float[Array, "cells channels"]:
    return flat.at[index].add(rows, mode="drop", unique_indices=True)


def _split(values, sizes):
    return jnp.split(values, np.cumsum(sizes)[:-1], axis=1)


def _where_last(cell, last, num_cells):
    """The cells of last pairs; for others, an own index that no cell has."""
    beyond = num_cells + jnp.arange(cell.shape[-1], dtype=cell.dtype)
    return jnp.where(last, cell, jnp.broadcast_to(beyond, cell.shape))


def sum_runs(
    cell: Int[Array, "b l k"], rows: Float[Array, "b l k channels"]
) -> Float[Array, "b l k channels"]:
    """For each row, the sum of the rows of its cell up to it, added in order.

    Args:
        cell: indices; equal ones stand side by side.
        rows: what to add.
    """
    again = cell[..., 1:] == cell[..., :-1]
    starts = ~jnp.pad(again, ((0, 0), (0, 0), (1, 0)))

    def join(left, right):
        starts, total = right
        return left[0] | starts, jnp.where(starts, total, left[1] + total)

    return jax.lax.associative_scan(join, (starts[..., None], rows), axis=2)[1]


def write_cells(
    values: Float[Array, "b l k"],
    cell: Int[Array, "b l k"],
    last: Bool[Array, "b l k"],
    *,
    sizes: Sequence[int],
) -> Float[Array, "b all_cells"]:
    """The last value of each cell; 0 where there is none.

    Args:
        values: one a pair.
        cell: indices within the level.
        last: the last pair of each cell; others write nothing.
        sizes: cells of each level.
    """
    batch, levels, num_pairs = cell.shape
    starts = jnp.asarray(np.cumsum([0, *sizes[:-1]])[None, :, None], cell.dtype)
    flat = (batch, levels * num_pairs)
    index = _where_last((cell + starts).reshape(flat), last.reshape(flat), sum(sizes))
    zeros = jnp.zeros((batch, sum(sizes), 1), values.dtype)
    return _add_rows(zeros, index, values.reshape(*flat, 1))[..., 0]
