"""The folder of one checkpoint: what is in it, and whether it is what was written.

Sizes and types are compared before an array is read, so that a folder from elsewhere
cannot ask for more memory than its network needs.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from yolojax.engine import digests
from yolojax.engine.array_files import ArrayFiles, Damaged
from yolojax.json_files import load_json

STATE = "state"
DOCUMENTS = ("data", "progress")
_NAME = re.compile("0|[1-9][0-9]{0,17}")


def is_step(path: Path) -> bool:
    """Whether a path has the name of a checkpoint."""
    return _NAME.fullmatch(path.name) is not None


def is_checkpoint(path: Path) -> bool:
    """Whether a path is a checkpoint, also a damaged one, and no other folder or file.

    What is being written, or was cut off, has a longer name.
    """
    parts = (STATE, *DOCUMENTS)
    return is_step(path) and any((path / part).is_dir() for part in parts)


def steps_in(folder: Path) -> list[int]:
    """The steps of all checkpoints in a folder, in order."""
    if not folder.is_dir():
        return []
    return sorted(int(path.name) for path in folder.iterdir() if is_checkpoint(path))


def read_table(folder: Path) -> dict[str, Any] | None:
    """The checkpoint's digests; None for a checkpoint that is older than these.

    Raises:
        Damaged: they are missing or damaged.
    """
    if not (folder / digests.ITEM).exists():
        with contextlib.suppress(OSError):
            listed = (folder / "_CHECKPOINT_METADATA").read_bytes()
            if f'"{digests.ITEM}"'.encode() in listed:
                raise Damaged(f"{digests.ITEM} is missing")
        return None
    table = _document(folder, digests.ITEM)
    if not digests.is_whole(table):
        raise Damaged(f"{digests.ITEM}/metadata differs from its own digest")
    return table


def read_documents(
    folder: Path, table: Mapping[str, Any] | None
) -> dict[str, dict[str, Any]]:
    """The checkpoint's JSON values by name.

    Args:
        folder: of the checkpoint.
        table: see `read_table`.

    Raises:
        Damaged: one is missing, no JSON object, or differs from its digest.
    """
    found = {name: _document(folder, name) for name in DOCUMENTS}
    for name, value in found.items():
        if table and table["documents"].get(name) != digests.of_json(value):
            raise Damaged(f"{name}/metadata differs from its digest")
    return found


def _document(folder: Path, name: str) -> dict[str, Any]:
    try:
        return load_json(folder / name / "metadata")
    except ValueError as error:
        raise Damaged(f"{name}/metadata: {error}") from error


def open_arrays(folder: Path) -> ArrayFiles:
    """The checkpoint's arrays, of which none is read yet.

    Raises:
        Damaged: the list of them cannot be read.
    """
    return ArrayFiles(folder / STATE)


def check_shapes(shapes: Any, table: Mapping[str, Any] | None) -> None:
    """Check that arrays are described as they were when they were written.

    Args:
        shapes: tree of shapes and types.
        table: see `read_table`.

    Raises:
        Damaged: they are not.
    """
    if table is None:
        return
    for path, leaf in _by_path(shapes).items():
        written = table["arrays"].get(path, [None, None])[:2]
        if written != [leaf.dtype.name, list(leaf.shape)]:
            raise Damaged(
                f"{STATE}: the array {path} is described as {leaf.dtype.name} "
                f"{leaf.shape}, written was {written}"
            )


def read_arrays(
    arrays: ArrayFiles, shapes: Any, table: Mapping[str, Any] | None
) -> Any:
    """A tree of arrays on the host.

    Args:
        arrays: see `open_arrays`.
        shapes: tree of the shapes and types of arrays that are wanted.
        table: see `read_table`.

    Raises:
        Damaged: they cannot be read, or differ from their digests.
    """
    check_shapes(shapes, table)
    found = arrays.read(_by_path(shapes))
    differing = digests.differing_arrays(table, found) if table else []
    if differing:
        more = f" and {len(differing) - 1} more" if len(differing) > 1 else ""
        raise Damaged(
            f"{STATE}: the array {differing[0]}{more} differs from its digest"
        )
    return jax.tree.unflatten(jax.tree.structure(shapes), found.values())


def _by_path(tree: Any) -> dict[str, Any]:
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {digests.path_of(keys): leaf for keys, leaf in leaves}
