"""Reading and writing a few cells of the flattened maps of all levels.

Writes go to distinct cells only, and values of the same cell are summed before, so
that the result does not depend on the order in which an accelerator writes.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

Maps = tuple[Float[Array, "b _cells channels"], ...]


def gather_rows(
    maps: Maps, cell: Int[Array, "b l k"]
) -> Float[Array, "b l k channels"]:
    """All channels of the given cells.

    Args:
        maps: one flattened map a level.
        cell: indices within the level.
    """
    rows = [
        jnp.take_along_axis(flat, cell[:, level, :, None], axis=1)
        for level, flat in enumerate(maps)
    ]
    return jnp.stack(rows, axis=1)


def add_rows(
    maps: Maps,
    cell: Int[Array, "b l k"],
    valid: Bool[Array, "b l k"],
    rows: Float[Array, "b l k channels"],
) -> Maps:
    """The maps with rows added to the given cells.

    Args:
        maps: one flattened map a level.
        cell: indices within the level; equal ones stand side by side.
        valid: rows that are False are not added.
        rows: what to add.
    """
    last = is_last_of_cell(cell, valid)
    same = (cell[..., :, None] == cell[..., None, :]) & valid[..., None, :]
    # As a product with zeros and ones: short, and quick to compile and to run.
    rows = jnp.einsum(
        "blij,bljc->blic",
        same.astype(rows.dtype),
        rows,
        precision=jax.lax.Precision.HIGHEST,
    )
    return tuple(
        _add(
            flat, _index(cell[:, level], last[:, level], flat.shape[1]), rows[:, level]
        )
        for level, flat in enumerate(maps)
    )


def set_values(
    values: Float[Array, "b all_cells"],
    cell: Int[Array, "b l k"],
    valid: Bool[Array, "b l k"],
    updates: Float[Array, "b l k"],
    *,
    sizes: Sequence[int],
) -> Float[Array, "b all_cells"]:
    """The values with the given cells set; the last update of a cell counts.

    Args:
        values: one a cell, level after level.
        cell: indices within the level; equal ones stand side by side.
        valid: updates that are False are not made.
        updates: the new values.
        sizes: cells of each level.
    """
    batch = values.shape[0]
    starts = jnp.asarray(np.cumsum([0, *sizes[:-1]])[None, :, None], cell.dtype)
    last = is_last_of_cell(cell, valid).reshape(batch, -1)
    index = _index((cell + starts).reshape(batch, -1), last, sum(sizes))
    return _set(values, index, updates.reshape(batch, -1))


def is_last_of_cell(
    cell: Int[Array, "*n k"], valid: Bool[Array, "*n k"]
) -> Bool[Array, "*n k"]:
    """Whether a pair is valid and no valid one of the same cell follows.

    Args:
        cell: indices; equal ones stand side by side.
        valid: False for padding, which stands last.
    """
    again = (cell[..., 1:] == cell[..., :-1]) & valid[..., 1:]
    edge = jnp.zeros((*cell.shape[:-1], 1), bool)
    return valid & ~jnp.concatenate([again, edge], axis=-1)


def _index(
    cell: Int[Array, "b k"], chosen: Bool[Array, "b k"], num_cells: int
) -> Int[Array, "b k"]:
    """The chosen cells; for the others a number of their own beyond all cells."""
    beyond = num_cells + jnp.arange(cell.shape[1], dtype=cell.dtype)
    return jnp.where(chosen, cell, jnp.broadcast_to(beyond[None], cell.shape))


# Mapped over the batch, so that each device writes its own pictures.
@jax.vmap
def _add(flat, index, rows):
    return flat.at[index].add(rows, mode="drop", unique_indices=True)


@jax.vmap
def _set(values, index, updates):
    return values.at[index].set(updates, mode="drop", unique_indices=True)
