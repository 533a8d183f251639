"""Digests of a checkpoint's arrays and JSON: they show damage that storage overlooks.

The digests are an item of the checkpoint, so they appear and vanish together with what
they describe. They are computed on the host, while the files are being written.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import future

ITEM = "digest"
_BYTES = 16

Arrays = Mapping[str, np.ndarray]


def host_copies(tree: Any) -> dict[str, np.ndarray]:
    """The arrays of a tree on the host, by their path, such as `ema/params/kernel`.

    Arrays that are on several devices are copied from one of them, or gathered.
    """
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    for _, leaf in leaves:
        if isinstance(leaf, jax.Array) and leaf.is_fully_addressable:
            # All transfers begin before the first is waited for.
            leaf.copy_to_host_async()
    return {path_of(keys): _on_host(leaf) for keys, leaf in leaves}


def path_of(keys: tuple[Any, ...]) -> str:
    """A leaf's path in nested dicts as text."""
    return "/".join(str(getattr(key, "key", key)) for key in keys)


def _on_host(leaf: Any) -> np.ndarray:
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
        if not leaf.is_fully_replicated:
            raise ValueError("a checkpoint's arrays must be on each host as a whole")
        leaf = leaf.addressable_data(0)
    return np.asarray(leaf)


def table_of(arrays: Arrays, documents: Mapping[str, Any]) -> dict[str, Any]:
    """Digests of arrays and JSON values, and one of all these digests.

    Args:
        arrays: by path.
        documents: JSON values by name.

    Returns:
        A JSON value: `arrays` has type, shape and digest by path, `documents` a digest
        by name.
    """
    table = {
        "arrays": {path: list(_of_array(array)) for path, array in arrays.items()},
        "documents": {name: of_json(value) for name, value in documents.items()},
    }
    return {**table, "digest": of_json(table)}


def of_json(value: Any) -> str:
    """The digest of a JSON value; the order of keys and tuples do not count."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=_BYTES).hexdigest()


def is_whole(table: Mapping[str, Any]) -> bool:
    """Whether a table that was read is one that `table_of` made."""
    content = {key: value for key, value in table.items() if key != "digest"}
    kinds = [type(content.get(key)) for key in ("arrays", "documents")]
    return kinds == [dict, dict] and table.get("digest") == of_json(content)


def differing_arrays(table: Mapping[str, Any], arrays: Arrays) -> list[str]:
    """Paths of arrays that are not those of the table."""
    known = table["arrays"]
    return [path for path in arrays if known.get(path) != list(_of_array(arrays[path]))]


def _of_array(array: np.ndarray) -> tuple[str, list[int], str]:
    content = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    digest = hashlib.blake2b(content.data, digest_size=_BYTES).hexdigest()
    return array.dtype.name, list(array.shape), digest


class DigestHandler(ocp.JsonCheckpointHandler):
    """Writes the digests of arrays and JSON values, computed in its own thread."""

    async def async_save(
        self, directory: Any, item: Any = None, args: Any = None
    ) -> list[Any]:
        """Start writing; see `ocp.JsonCheckpointHandler.async_save`."""

        async def write() -> None:
            if jax.process_index() == 0:
                table = table_of(args.arrays, args.documents)
                (directory / "metadata").write_text(json.dumps(table))

        return [future.CommitFutureAwaitingContractedSignals(write(), name=ITEM)]


@ocp.args.register_with_handler(DigestHandler, for_save=True)
@dataclasses.dataclass
class DigestSave(ocp.args.CheckpointArgs):
    """What `DigestHandler` writes the digests of; see `table_of`."""

    arrays: Arrays
    documents: Mapping[str, Any]


@ocp.args.register_with_handler(DigestHandler, for_restore=True)
@dataclasses.dataclass
class DigestRestore(ocp.args.CheckpointArgs):
    """The table is read as any JSON file."""
