"""Weights from PyTorch's `.pt` and `.pth` files, without PyTorch.

Two formats: a zip archive with one pickle and one entry a storage (since 1.6), and
before it five pickles in a row followed by the storages. Neither is unpickled by
Python; see `unpickle`.

Source: the format as torch.save writes it, pytorch.org/docs/stable/notes/serialization.
"""

from __future__ import annotations

import io
import os
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any, BinaryIO

from yolojax.files import open_file
from yolojax.printable import printable
from yolojax.weights.budget import MAX_BYTES, Budget
from yolojax.weights.contents import Contents, contents_of
from yolojax.weights.inert import shown
from yolojax.weights.tensors import TENSOR_CALLS, Storage, View, storage_of
from yolojax.weights.unpickle import Machine

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
# Bytes of a zip archive's list of entries; those of 20,000 tensors have two million.
_MAX_DIRECTORY = 4 * 2**20


def read_pytorch(path: str | Path) -> Contents:
    """Names, arrays and description that a PyTorch file holds.

    Args:
        path: written by `torch.save`: a training checkpoint (`ema` is preferred to
            `model`), a whole module, or a state dict.

    Returns:
        See `Contents`; arrays are read-only views in the file's own precision.

    Raises:
        ValueError: there is no such file, it is no regular or no such file, is cut
            off or contradicts itself, tries to call something, or holds no weights.
    """
    with open_file(path) as file:
        try:
            start = file.read(4)
            file.seek(0)
            if start.startswith(b"PK"):
                return _read_zip(file)
            if start[:1] == b"\x80":
                return _read_legacy(file)
            found = "nothing" if not start else f"the bytes {start.hex(' ')}"
            raise ValueError(
                f"no PyTorch file: it starts with {found}, where a zip archive or a "
                f"pickle is expected"
            )
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error


class _Opened:
    """A file whose archive is being opened: a list of entries may be any size."""

    def __init__(self, file: BinaryIO):
        self._file = file
        self.limit: int | None = _MAX_DIRECTORY

    def read(self, size: int = -1) -> bytes:
        if self.limit is None:
            return self._file.read(size)
        most = self.limit + 1 if size < 0 else min(size, self.limit + 1)
        content = self._file.read(most)
        if len(content) > self.limit:
            raise ValueError(
                f"its list of entries has more than {self.limit:,} bytes, which no "
                f"weights need"
            )
        return content

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def _read_zip(file: BinaryIO) -> Contents:
    opened = _Opened(file)
    try:
        with zipfile.ZipFile(opened) as archive:  # type: ignore[arg-type]
            opened.limit = None
            return _read_archive(archive, _size_of(file))
    except (
        zipfile.BadZipFile,
        zipfile.LargeZipFile,
        NotImplementedError,
        RuntimeError,
        EOFError,
        OSError,
        struct.error,
        OverflowError,
        zlib.error,
    ) as error:
        problem = f"{type(error).__name__}: {printable(error, 200)}"
        raise ValueError(
            f"a broken zip archive, perhaps cut off ({problem})"
        ) from error


def _read_archive(archive: zipfile.ZipFile, file_size: int) -> Contents:
    entries = {entry.filename: entry for entry in archive.infolist()}
    pickles = [n for n in entries if n == "data.pkl" or n.endswith("/data.pkl")]
    if len(entries) != len(archive.infolist()) or len(pickles) != 1:
        raise ValueError(
            f"{len(pickles)} entries named data.pkl and {len(archive.infolist())} in "
            f"all; a PyTorch file has one, and no two of the same name"
        )
    prefix = pickles[0].removesuffix("data.pkl")
    if f"{prefix}constants.pkl" in entries:
        raise ValueError(
            "a TorchScript archive, which holds a program; save the state dict instead"
        )
    # PyTorch never compresses: what unpacks to more than is there is no weights.
    for entry in entries.values():
        if entry.compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"its entry {shown(entry.filename)} is compressed")
        if entry.file_size != entry.compress_size or entry.file_size > file_size:
            raise ValueError(
                f"its entry {shown(entry.filename)} states {entry.file_size} bytes, "
                f"stored are {entry.compress_size} of a file of {file_size}"
            )
    end = 0
    for entry in sorted(entries.values(), key=lambda entry: entry.header_offset):
        if entry.header_offset < end:
            raise ValueError(f"its entry {shown(entry.filename)} overlaps another one")
        end = entry.header_offset + 30 + entry.file_size
    order = entries.get(f"{prefix}byteorder")
    if order is not None and order.file_size < 16:
        _check_order(archive.read(order).strip() != b"big")
    if entries[pickles[0]].file_size > MAX_BYTES:
        raise ValueError(f"its data.pkl is larger than {MAX_BYTES:,} bytes")

    def read(storage: Storage) -> bytes:
        name = f"{prefix}data/{storage.key}"
        if name not in entries:
            raise ValueError(f"its entry {shown(name)} is missing")
        size = storage.size * storage.dtype.itemsize
        if entries[name].file_size != size:
            raise ValueError(
                f"its entry {shown(name)} has {entries[name].file_size} bytes, where "
                f"the pickle states {size}"
            )
        return archive.read(entries[name])

    storages: dict[str, Storage] = {}

    def persistent(identity: Any) -> Any:
        storage, _ = storage_of(identity, storages)
        storage.read = read
        return storage

    stream = io.BytesIO(archive.read(pickles[0]))
    return contents_of(Machine(TENSOR_CALLS, persistent).run(stream))


def _read_legacy(file: BinaryIO) -> Contents:
    """The older format: magic number, version, system, object, keys, storages."""
    size, budget = _size_of(file), Budget()
    storages: dict[str, Storage] = {}

    def persistent(identity: Any) -> Any:
        if isinstance(identity, tuple) and identity[:1] == ("module",):
            return identity[1]  # a class, with its source text beside
        storage, view = storage_of(identity, storages)
        return View(storage, view) if view is not None else storage

    if not _is(_run(file, budget), LEGACY_MAGIC):
        raise ValueError("a pickle, but none that PyTorch wrote")
    version, system = _run(file, budget), _run(file, budget)
    if not _is(version, 1001) or not isinstance(system, dict):
        raise ValueError(f"PyTorch's protocol is {shown(version)}; only 1001 is known")
    _check_order(system.get("little_endian", True) is True)
    found = Machine(TENSOR_CALLS, persistent, budget).run(file)
    places = _places(file, size, _run(file, budget), storages)

    def read(storage: Storage) -> bytes:
        if storage.key not in places:
            raise ValueError(f"its storage {shown(storage.key)} is missing")
        file.seek(places[storage.key])
        return file.read(storage.size * storage.dtype.itemsize)

    for storage in storages.values():
        storage.read = read
    return contents_of(found)


def _places(
    file: BinaryIO, size: int, keys: Any, storages: dict[str, Storage]
) -> dict[str, int]:
    """Where the storages start that follow the last pickle, in the order of `keys`."""
    if not isinstance(keys, list):
        raise ValueError("its list of storages is broken")
    places: dict[str, int] = {}
    for key in keys:
        storage = storages.get(key) if isinstance(key, str) else None
        if storage is None:
            raise ValueError(f"its storage {shown(key)} belongs to no tensor")
        if key in places:
            raise ValueError("its list of storages is broken")
        head = file.read(8)
        length = storage.size * storage.dtype.itemsize
        stated = int.from_bytes(head, "little", signed=True)
        if len(head) < 8 or file.tell() + length > size:
            raise ValueError(f"cut off in its storage {shown(key)}")
        if stated != storage.size:
            raise ValueError(
                f"its storage {shown(key)} has {stated} elements, where the pickle "
                f"states {storage.size}"
            )
        places[key] = file.tell()
        file.seek(length, io.SEEK_CUR)
    return places


def _run(file: BinaryIO, budget: Budget) -> Any:
    return Machine({}, _no_storages, budget).run(file)


def _is(value: Any, number: int) -> bool:
    return type(value) is int and value == number


def _size_of(file: BinaryIO) -> int:
    return os.fstat(file.fileno()).st_size


def _no_storages(identity: Any) -> Any:
    raise ValueError("its pickle has a storage where none belongs")


def _check_order(little: bool) -> None:
    if not little:
        raise ValueError("written on a big-endian machine, which is not read")
