"""Weights from PyTorch's `.pt` and `.pth` files, without PyTorch.

Two formats: a zip archive with one pickle and one entry a storage (since 1.6), and
before it five pickles in a row followed by the storages. Neither is unpickled by
Python; see `unpickle`.

Source: the format as torch.save writes it, pytorch.org/docs/stable/notes/serialization.
"""

from __future__ import annotations

import io
import mmap
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

from yolojax.weights.contents import Contents, contents_of
from yolojax.weights.tensors import TENSOR_CALLS, Storage, View, storage_of
from yolojax.weights.unpickle import MAX_BYTES, Machine

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C


def read_pytorch(path: str | Path) -> Contents:
    """Names, arrays and description that a PyTorch file holds.

    Args:
        path: written by `torch.save`: a training checkpoint (`ema` is preferred to
            `model`), a whole module, or a state dict.

    Returns:
        See `Contents`; arrays are read-only views in the file's own precision.

    Raises:
        ValueError: it is no such file, is cut off or contradicts itself, tries to call
            something, or holds no weights.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            start = file.read(4)
            if start.startswith(b"PK"):
                return _read_zip(path)
            if start[:1] == b"\x80":
                return _read_legacy(file)
        shown = "nothing" if not start else f"the bytes {start.hex(' ')}"
        raise ValueError(
            f"no PyTorch file: it starts with {shown}, where a zip archive or a pickle "
            f"is expected"
        )
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _read_zip(path: Path) -> Contents:
    try:
        with zipfile.ZipFile(path) as archive:
            return _read_archive(archive, path.stat().st_size)
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
        raise ValueError(
            f"a broken zip archive, perhaps cut off ({type(error).__name__}: {error})"
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
            raise ValueError(f"its entry {ascii(entry.filename)} is compressed")
        if entry.file_size != entry.compress_size or entry.file_size > file_size:
            raise ValueError(
                f"its entry {ascii(entry.filename)} states {entry.file_size} bytes, "
                f"stored are {entry.compress_size} of a file of {file_size}"
            )
    end = 0
    for entry in sorted(entries.values(), key=lambda entry: entry.header_offset):
        if entry.header_offset < end:
            raise ValueError(f"its entry {ascii(entry.filename)} overlaps another one")
        end = entry.header_offset + 30 + entry.file_size
    order = entries.get(f"{prefix}byteorder")
    if order is not None and order.file_size < 16:
        _check_order(archive.read(order).strip() != b"big")
    if entries[pickles[0]].file_size > MAX_BYTES:
        raise ValueError(f"its data.pkl is larger than {MAX_BYTES:,} bytes")

    def read(storage: Storage) -> bytes:
        name = f"{prefix}data/{storage.key}"
        if name not in entries:
            raise ValueError(f"its entry {ascii(name)} is missing")
        size = storage.size * storage.dtype.itemsize
        if entries[name].file_size != size:
            raise ValueError(
                f"its entry {ascii(name)} has {entries[name].file_size} bytes, where "
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


def _read_legacy(file: Any) -> Contents:
    """The older format: magic number, version, system, object, keys, storages."""
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as stream:
        storages: dict[str, Storage] = {}

        def persistent(identity: Any) -> Any:
            if isinstance(identity, tuple) and identity[:1] == ("module",):
                return identity[1]  # a class, with its source text beside
            storage, view = storage_of(identity, storages)
            return View(storage, view) if view is not None else storage

        magic = _run(stream)
        if magic != LEGACY_MAGIC:
            raise ValueError("a pickle, but none that PyTorch wrote")
        version, system = _run(stream), _run(stream)
        if version != 1001 or not isinstance(system, dict):
            raise ValueError(f"PyTorch's protocol is {version!r}; only 1001 is known")
        _check_order(system.get("little_endian", True) is True)
        found = Machine(TENSOR_CALLS, persistent).run(stream)
        keys = _run(stream)
        if not isinstance(keys, list) or len(set(map(str, keys))) != len(keys):
            raise ValueError("its list of storages is broken")
        places: dict[str, int] = {}
        for key in keys:
            storage = storages.get(key) if isinstance(key, str) else None
            if storage is None:
                raise ValueError(f"its storage {ascii(key)[:40]} belongs to no tensor")
            head = stream.read(8)
            size = storage.size * storage.dtype.itemsize
            stated = int.from_bytes(head, "little", signed=True)
            if len(head) < 8 or stream.tell() + size > len(stream):
                raise ValueError(f"cut off in its storage {ascii(key)}")
            if stated != storage.size:
                raise ValueError(
                    f"its storage {ascii(key)} has {stated} elements, where the pickle "
                    f"states {storage.size}"
                )
            places[key] = stream.tell()
            stream.seek(size, io.SEEK_CUR)

        def read(storage: Storage) -> bytes:
            if storage.key not in places:
                raise ValueError(f"its storage {ascii(storage.key)} is missing")
            start = places[storage.key]
            return stream[start : start + storage.size * storage.dtype.itemsize]

        for storage in storages.values():
            storage.read = read
        return contents_of(found)


def _run(stream: Any) -> Any:
    return Machine({}, _no_storages).run(stream)


def _no_storages(identity: Any) -> Any:
    raise ValueError("its pickle has a storage where none belongs")


def _check_order(little: bool) -> None:
    if not little:
        raise ValueError("written on a big-endian machine, which is not read")
