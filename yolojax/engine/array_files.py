"""The arrays of a checkpoint, read from the files that Orbax writes.

Orbax keeps a list of the arrays in `_METADATA` and each as a Zarr array in one OCDBT
database. They are read with Orbax's own storage, TensorStore, array by array, so that
a damaged one is named, and so that shapes are known before anything is allocated.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tensorstore

from yolojax.json_files import load_json

# More than any network with its optimizer has.
_MOST_ARRAYS = 20_000
# Bytes of the list; that of 800 arrays has 300,000.
_LARGEST_LIST = 2**25
# Arrays take at most so many times the bytes of their files, or so many at least:
# trained weights hardly compress, and zeros of a small network do.
_MOST_COMPRESSED = 16
_SMALL = 2**27


class Damaged(ValueError):
    """A checkpoint is not what was written; the message says which part of it."""


class ArrayFiles:
    """The arrays of a checkpoint.

    Args:
        folder: the checkpoint's `state`.

    Raises:
        Damaged: the list of the arrays cannot be read.

    Attributes:
        paths: keys in nested dicts by path, such as `ema/params/kernel`.
        empty: keys of the dicts without arrays.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        try:
            content = load_json(folder / "_METADATA", limit=_LARGEST_LIST)
            self.paths, self.empty = _listed(content)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise Damaged(f"{folder.name}/_METADATA: {error}") from error
        self._context = tensorstore.Context()
        self._stores: dict[str, Any] = {}

    def shapes(self, first: str = "") -> dict[str, Any]:
        """Shapes and types as nested dicts; no array is read.

        Args:
            first: key of the part that is wanted; empty: all.

        Raises:
            Damaged: an array cannot be opened, or is stored so that reading it would
                need more memory than it has.
        """
        wanted = [p for p, keys in self.paths.items() if not first or keys[0] == first]
        stores = self._open(wanted)
        tree: dict[str, Any] = {}
        for keys in self.empty:
            if not first or keys[0] == first:
                _put(tree, keys, {})
        for path in wanted:
            store = stores[path]
            shape = tuple(store.shape)
            chunk = store.chunk_layout.read_chunk.shape or ()
            # A chunk is decoded as a whole.
            if math.prod(chunk) > max(1, math.prod(shape)):
                raise Damaged(f"{self._folder.name}: {path} {shape} has chunks {chunk}")
            leaf = jax.ShapeDtypeStruct(shape, store.dtype.numpy_dtype)
            _put(tree, self.paths[path], leaf)
        return tree

    def read(self, shapes: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Arrays by path.

        Args:
            shapes: of the arrays that are wanted, by path.

        Raises:
            Damaged: an array cannot be read, or all are larger than the files can hold.
        """
        self._check_size(shapes)
        stores = self._open(shapes)
        reading = {path: stores[path].read() for path in shapes}
        return {path: self._result(path, each) for path, each in reading.items()}

    def _open(self, paths: Iterable[str]) -> dict[str, Any]:
        base = {"driver": "ocdbt", "base": f"file://{self._folder.resolve()}/"}
        opening = {}
        for path in paths:
            if path not in self._stores:
                name = ".".join(self.paths[path])
                spec = {"driver": "zarr", "kvstore": {**base, "path": f"{name}/"}}
                opening[path] = tensorstore.open(
                    spec, open=True, read=True, context=self._context
                )
        # All are waited for, also where one fails: none ends later than this.
        failed = {path: each.exception() for path, each in opening.items()}
        for path, each in opening.items():
            if failed[path] is not None:
                self._result(path, each)
            self._stores[path] = each.result()
        return self._stores

    def _result(self, path: str, future: Any) -> Any:
        try:
            return future.result()
        except Exception as error:
            # The messages are long; of most use is the file that they name.
            folder = re.escape(str(self._folder.resolve()))
            named = re.search(rf"{folder}/([^\s\"'\]]+)", str(error))
            where = f"{self._folder.name}/{named[1]}: " if named else ""
            raise Damaged(
                f"{where}the array {path} cannot be read ({_reason(error)})"
            ) from error

    def _check_size(self, shapes: Mapping[str, Any]) -> None:
        claimed = sum(
            math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in shapes.values()
        )
        files = (path for path in self._folder.rglob("*") if path.is_file())
        there = sum(path.stat().st_size for path in files)
        if claimed > max(_SMALL, _MOST_COMPRESSED * there):
            raise Damaged(
                f"{self._folder.name}: the arrays are said to have {claimed:,} bytes, "
                f"but their files have {there:,}"
            )


def _listed(
    content: Mapping[str, Any],
) -> tuple[dict[str, tuple[str, ...]], list[tuple[str, ...]]]:
    """Keys of the arrays by path, and keys of empty dicts, in Orbax's list."""
    if content.get("use_zarr3") or not content.get("use_ocdbt", True):
        raise ValueError("the arrays are in a format that yolojax does not write")
    entries = list(content["tree_metadata"].values())
    if len(entries) > _MOST_ARRAYS:
        raise ValueError(f"{len(entries)} arrays are more than a network has")
    paths, empty = {}, []
    for entry in entries:
        keys = tuple(str(key["key"]) for key in entry["key_metadata"])
        kind = entry["value_metadata"]["value_type"]
        if not keys:
            raise ValueError("an array without a name")
        if kind == "Dict":
            empty.append(keys)
        else:
            paths["/".join(keys)] = keys
    return paths, empty


def _put(tree: dict[str, Any], keys: tuple[str, ...], value: Any) -> None:
    for key in keys[:-1]:
        tree = tree.setdefault(key, {})
        if not isinstance(tree, dict):
            raise Damaged(f"the array {'/'.join(keys)} lies in another array")
    tree[keys[-1]] = value


def _reason(error: BaseException) -> str:
    """The first words of an error of the storage."""
    text = re.sub(r"\s*\[(tensorstore_spec|source locations)=.*", "", str(error))
    return f"{type(error).__name__}: {text.splitlines()[0][:120] if text else ''}"
