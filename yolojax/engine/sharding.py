"""One mesh over all devices; the batch is split over it, the state is on each.

With the batch axis sharded and `jit` seeing the global arrays, means over the batch
(losses, batch statistics) are global by construction, and the number of devices
does not appear in any formula.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

AXIS = "data"


def make_mesh(num_devices: int = 0) -> Mesh:
    """A one-dimensional mesh over the first `num_devices` devices; 0 takes all.

    Raises:
        ValueError: there are fewer devices.
    """
    devices = jax.devices()
    if num_devices > len(devices):
        raise ValueError(
            f"config.devices is {num_devices}, but {len(devices)} "
            f"{devices[0].platform} device(s) are here"
        )
    return Mesh(np.asarray(devices[: num_devices or len(devices)]), (AXIS,))


def fitting_devices(wanted: int, batch_size: int) -> int:
    """The most devices, at most `wanted`, that are here and divide a batch evenly.

    Args:
        wanted: 0 for all.
        batch_size: pictures.
    """
    here = jax.device_count()
    most = min(wanted or here, here)
    return max(n for n in range(1, most + 1) if batch_size % n == 0)


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of what every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def split(mesh: Mesh) -> NamedSharding:
    """The sharding of arrays whose first axis is the batch."""
    return NamedSharding(mesh, PartitionSpec(AXIS))


def put_replicated(tree: Any, mesh: Mesh) -> Any:
    """The tree on every device of the mesh."""
    return jax.device_put(tree, replicated(mesh))


def put_batch(batch: Any, mesh: Mesh) -> Any:
    """The batch, whose first axes are split over the mesh.

    Args:
        batch: a tree of NumPy arrays: this process's part of the global batch.
        mesh: the mesh.
    """
    sharding = split(mesh)
    if jax.process_count() == 1:
        return jax.device_put(batch, sharding)
    return jax.tree.map(
        lambda x: jax.make_array_from_process_local_data(sharding, x), batch
    )
