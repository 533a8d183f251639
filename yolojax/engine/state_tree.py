"""A run's state as nested dicts of arrays: the form in which a checkpoint holds it."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from yolojax.records import TrainState


def to_dicts(state: TrainState) -> dict[str, Any]:
    """The state as nested dicts; the optimiser's leaves are keyed by their path.

    What only some runs have is left out where it is empty, so that a checkpoint that
    is older than the field can be read.
    """
    optional = TrainState._field_defaults
    tree = {
        k: v
        for k, v in state._asdict().items()
        if k not in optional or jax.tree.leaves(v)
    }
    leaves, _ = jax.tree_util.tree_flatten_with_path(state.opt_state)
    tree["opt_state"] = {jax.tree_util.keystr(path): leaf for path, leaf in leaves}
    return tree


def from_dicts(tree: dict[str, Any], like: TrainState) -> TrainState:
    """The inverse of `to_dicts`, from arrays on the host.

    Args:
        tree: arrays in nested dicts.
        like: gives the sharding of each.
    """
    tree = jax.tree.map(_placed, tree, to_dicts(like))
    leaves, structure = jax.tree_util.tree_flatten_with_path(like.opt_state)
    values = [tree["opt_state"][jax.tree_util.keystr(path)] for path, _ in leaves]
    opt_state = jax.tree_util.tree_unflatten(structure, values)
    return like._replace(**{**tree, "opt_state": opt_state})


def shapes_of(tree: Any) -> Any:
    """The shapes and types of a tree of arrays."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)


def _placed(array: np.ndarray, like: jax.Array) -> jax.Array:
    """The array on the devices of `like`, also where other hosts have some of them."""
    return jax.make_array_from_callback(
        array.shape, like.sharding, lambda index: array[index]
    )


def check_same(saved: Any, target: Any, step: int) -> None:
    """Check that a checkpoint has the arrays that the config needs.

    Args:
        saved: tree of the checkpoint's shapes and types.
        target: tree of arrays.
        step: of the checkpoint.

    Raises:
        ValueError: it has others; names the first.
    """

    def shapes(tree: Any) -> dict[str, str]:
        leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
        return {
            jax.tree_util.keystr(path): f"{leaf.dtype.name} {tuple(leaf.shape)}"
            for path, leaf in leaves
        }

    before, now = shapes(saved), shapes(target)
    if before == now:
        return
    differing = sorted(
        k for k in before.keys() | now.keys() if before.get(k) != now.get(k)
    )
    shown = "; ".join(
        f"{k}: saved {before.get(k, 'nothing')}, config {now.get(k, 'nothing')}"
        for k in differing[:5]
    )
    raise ValueError(
        f"checkpoint {step} does not fit the config: {len(differing)} arrays differ "
        f"({shown}). Use another --workdir, or the config that the run was started with"
    )
