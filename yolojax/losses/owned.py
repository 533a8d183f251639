"""Reading the maps at the cells that boxes own, and writing to such cells.

As `losses.cells`, for cells no two of which are equal: no order of writing matters.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from yolojax.losses.cells import Maps
from yolojax.losses.detection import OBJECTNESS


def read_cells(
    maps: Maps, index: Int[Array, "b l a n"]
) -> tuple[Float[Array, "b l a n channels"], Float[Array, "b all_cells"]]:
    """All channels of some cells, and the objectness of all cells of all levels.

    Args:
        maps: one flattened map a level.
        index: of a cell within its level, each of a level another. Beyond the map's
            end all channels are 0, without gradient.
    """
    return _read(tuple(flat.shape[1] for flat in maps), maps, index)


def spread_values(
    values: Float[Array, "b l a n"],
    index: Int[Array, "b l a n"],
    sizes: Sequence[int],
) -> Float[Array, "b all_cells"]:
    """The values at the given cells of all levels, 0 elsewhere.

    Args:
        values: one a cell.
        index: as in `read_cells`.
        sizes: cells of each level.
    """
    batch = len(values)
    levels = [
        _add(
            jnp.zeros((batch, size), values.dtype),
            index[:, level].reshape(batch, -1),
            values[:, level].reshape(batch, -1),
        )
        for level, size in enumerate(sizes)
    ]
    return jnp.concatenate(levels, axis=1)


# JAX's own rule for the gradient would make three arrays of the size of the maps and
# add them up; this one makes one and adds rows to it.
@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _read(sizes, maps, index):
    del sizes
    batch, _, *pairs = index.shape
    rows = [
        _take(flat, index[:, level].reshape(batch, -1)).reshape(
            batch, *pairs, flat.shape[-1]
        )
        for level, flat in enumerate(maps)
    ]
    objectness = [flat[..., OBJECTNESS] for flat in maps]
    return jnp.stack(rows, axis=1), jnp.concatenate(objectness, axis=1)


def _read_forward(sizes, maps, index):
    return _read(sizes, maps, index), index


def _read_backward(sizes, index, cotangents):
    rows, objectness = cotangents
    batch, channels = rows.shape[0], rows.shape[-1]
    around = ((0, 0), (0, 0), (OBJECTNESS, channels - OBJECTNESS - 1))
    levels = jnp.split(objectness, np.cumsum(sizes)[:-1], axis=1)
    gradients = tuple(
        _add(
            jnp.pad(level[..., None], around),
            index[:, place].reshape(batch, -1),
            rows[:, place].reshape(batch, -1, channels),
        )
        for place, level in enumerate(levels)
    )
    return gradients, None


_read.defvjp(_read_forward, _read_backward)


# Mapped over the batch, so that each device works on its own pictures.
@jax.vmap
def _take(flat, index):
    return flat.at[index].get(mode="fill", fill_value=0, unique_indices=True)


@jax.vmap
def _add(flat, index, rows):
    return flat.at[index].add(rows, mode="drop", unique_indices=True)
