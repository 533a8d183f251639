"""Encoded pictures by key in one memory-mapped file, shared by threads and processes.

In a folder the file is kept between runs. Whatever happens to it, no wrong bytes come
back, since nothing that was written is ever changed:

- `pictures-<n>.jpegs`: the pictures, one after another; it only grows.
- `index`: a header that names the file above, then an entry of 64 bytes a picture, with
  checksums of the picture and of the entry itself. An entry is written after its
  picture: a process that is killed in between leaves bytes that nothing points at, and
  the next picture overwrites them. What a failing disk or a power cut damages is found
  by the checksum, and counts as not there.
- `lock`: held while one picture is added; the system frees it when a process dies.
- `in-use`: held by every process that has the file open. Only where there is no other
  one are pictures thrown out: the rest is copied to a new file, and a new index, put in
  place in one step, names that.

Without a folder the file lies in memory and ends with the process.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import re
import struct
import tempfile
import threading
import uuid
import zlib
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from yolojax.files import replace_file

KEY_BYTES = 16
_MAGIC = b"yolojax pictures 1\n"
# Key, offset, length, checksum of key and picture; 24 bytes to spare; last the checksum
# of what comes before it.
_ENTRY = struct.Struct("<16sQQI24xI")
# Files of ours that an index may not name any more.
_LEFT_OVER = re.compile(r"pictures-[0-9a-f]{12}\.jpegs|\..*\.part")


class CacheError(ValueError):
    """The cache's place cannot be used; the message says why and what to do."""


class _Place(NamedTuple):
    """Where a picture lies in the file, and the checksum of key and bytes."""

    offset: int
    length: int
    crc: int


class PictureFile:
    """Bytes by key, within a budget; threads and processes may use it at once."""

    def __init__(self, folder: Path | None, *, budget: int):
        """Open the file, or make it.

        Args:
            folder: holds the file and nothing else; made where it is missing. None: in
                memory.
            budget: bytes of pictures that the file may hold.

        Raises:
            CacheError: the folder cannot be written to or locked, or holds something
                else.
        """
        self.folder = folder
        self.budget = budget
        self._mutex = threading.Lock()
        self._places: dict[bytes, _Place] = {}
        self._tail = 0  # end of the last picture
        self._read_to = _ENTRY.size  # of the index
        self._mapped = memoryview(b"")
        self._files: list[int] = []
        self._index = self._lock = self._in_use = -1
        try:
            if folder is None:
                self._data = self._keep_open(_memory_file())
            else:
                self._open(folder)
        except OSError as error:
            self.close()
            raise CacheError(self._trouble(error)) from error
        except BaseException:
            self.close()
            raise

    @property
    def num_bytes(self) -> int:
        """Bytes of pictures in the file, as far as this process knows."""
        return self._tail

    def __contains__(self, key: bytes) -> bool:
        return key in self._places

    def length(self, key: bytes) -> int:
        """Bytes of one picture; 0 if it is not there."""
        place = self._places.get(key)
        return place.length if place else 0

    def get(self, key: bytes) -> bytes | None:
        """The bytes that were put under this key; None if they are not there."""
        place = self._places.get(key)
        if place is None:
            self._catch_up()
            place = self._places.get(key)
            if place is None:
                return None
        view = self._view(place)
        # Both let go of the interpreter's lock while the disk is waited for.
        if view is None or zlib.crc32(view, zlib.crc32(key)) != place.crc:
            with self._mutex:
                if self._places.get(key) == place:
                    del self._places[key]
            return None
        return view.tobytes()

    def put(self, key: bytes, content: bytes) -> bool:
        """Keep the bytes, unless they are there or the budget does not allow it.

        What is in stays in. Pictures come in a new order each epoch, where to throw
        out the one that was used longest ago would lose nearly all of them before
        their next use: with room for half, it would find 15 % instead of 50 %.

        Returns:
            Whether the key is there now.

        Raises:
            CacheError: the disk is full or failed.
        """
        try:
            with self._mutex, self._locked():
                self._read_index(settled=True)
                if key in self._places:
                    return True
                if self._tail + len(content) > self.budget:
                    return False
                place = _Place(
                    self._tail, len(content), zlib.crc32(content, zlib.crc32(key))
                )
                _write(self._data, content, place.offset)
                if self._index >= 0:
                    size = os.fstat(self._index).st_size
                    # Over a part of an entry that a dead process may have left.
                    whole = size - size % _ENTRY.size
                    _write(self._index, _entry(key, place), whole)
                    self._read_to = whole + _ENTRY.size
                self._add(key, place)
                return True
        except OSError as error:
            raise CacheError(self._trouble(error)) from error

    def make_room(self, wanted: Collection[bytes], num_bytes: int) -> int:
        """Throw out pictures until `num_bytes` more fit into the budget.

        Those that were put in longest ago go first, none of `wanted` does. Nothing is
        done where another process uses the file.

        Args:
            wanted: keys that stay.
            num_bytes: bytes that are to be put in.

        Returns:
            Bytes that went.

        Raises:
            CacheError: the disk failed.
        """
        before = self._tail
        spare = before - sum(self.length(key) for key in wanted)
        if before + num_bytes <= self.budget or not spare or self.folder is None:
            return 0
        try:
            with self._mutex, self._alone() as alone:
                if not alone:
                    return 0
                self._read_index(settled=True)
                excess = self._tail + num_bytes - self.budget
                # What no key points at goes in any case.
                excess -= self._tail - sum(p.length for p in self._places.values())
                keep = dict(sorted(self._places.items(), key=lambda kv: kv[1].offset))
                for key, place in list(keep.items()):
                    if excess <= 0:
                        break
                    if key not in wanted:
                        excess -= place.length
                        del keep[key]
                self._rewrite(self.folder, keep)
        except OSError as error:
            if error.errno == errno.ENOSPC:  # not even for the copy
                return 0
            raise CacheError(self._trouble(error)) from error
        return before - self._tail

    def close(self) -> None:
        """Let go of the file; pictures that were handed out stay good."""
        self._mapped = memoryview(b"")
        for descriptor in self._files:
            os.close(descriptor)
        self._files = []

    def __del__(self) -> None:
        self.close()

    def _keep_open(self, descriptor: int) -> int:
        self._files.append(descriptor)
        return descriptor

    def _open(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        self._lock = self._keep_open(os.open(folder / "lock", flags, 0o644))
        self._in_use = self._keep_open(os.open(folder / "in-use", flags, 0o644))
        with self._locked():
            # Taken under the lock: nobody rewrites the file meanwhile.
            fcntl.flock(self._in_use, fcntl.LOCK_SH)
            if not (folder / "index").exists():
                _start(folder, [])
            self._open_index(folder)
            self._read_index(settled=True)

    def _open_index(self, folder: Path) -> None:
        path = folder / "index"
        self._index = self._keep_open(os.open(path, os.O_RDWR | os.O_CLOEXEC))
        header = os.pread(self._index, _ENTRY.size, 0)
        if len(header) < _ENTRY.size or not header.startswith(_MAGIC):
            raise CacheError(
                f"{path} is not an index of yolojax's pictures; choose another "
                "config.data.cache_dir, or remove the folder"
            )
        name = header[len(_MAGIC) :].rstrip(b"\0").decode()
        # It may have been removed by hand; then no picture is found.
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        self._data = self._keep_open(os.open(folder / name, flags, 0o644))
        self._mapped = memoryview(b"")
        self._places, self._tail, self._read_to = {}, 0, _ENTRY.size
        for other in folder.iterdir():
            # Left by a process that died while it rewrote the file; nobody else can
            # be at it, since the lock is held.
            if _LEFT_OVER.fullmatch(other.name) and other.name != name:
                other.unlink(missing_ok=True)

    def _catch_up(self) -> None:
        """Read what other processes added."""
        if self._index >= 0 and os.fstat(self._index).st_size > self._read_to:
            with self._mutex:
                self._read_index(settled=False)

    def _read_index(self, *, settled: bool) -> None:
        """Read new entries; `settled` says that no process is writing one now."""
        if self._index < 0:
            return
        length = os.fstat(self._index).st_size - self._read_to
        if length < _ENTRY.size:
            return
        content = os.pread(self._index, length - length % _ENTRY.size, self._read_to)
        for start in range(0, len(content), _ENTRY.size):
            entry = content[start : start + _ENTRY.size]
            key, offset, length, crc, entry_crc = _ENTRY.unpack(entry)
            if zlib.crc32(entry[:-4]) == entry_crc:
                self._add(key, _Place(offset, length, crc))
            elif not settled:
                return
            self._read_to += _ENTRY.size

    def _add(self, key: bytes, place: _Place) -> None:
        self._places[key] = place
        self._tail = max(self._tail, place.offset + place.length)

    def _view(self, place: _Place) -> memoryview | None:
        """The picture's bytes in the mapped file; None if the file is too short."""
        end = place.offset + place.length
        mapped = self._mapped
        if len(mapped) < end:
            size = os.fstat(self._data).st_size
            if size < end:
                return None
            # The old map goes when the last view of it does.
            area = mmap.mmap(self._data, size, access=mmap.ACCESS_READ)
            mapped = self._mapped = memoryview(area)
        return mapped[place.offset : end]

    def _rewrite(self, folder: Path, keep: dict[bytes, _Place]) -> None:
        """Copy the pictures that stay to a new file, and switch to that."""
        name = _new_name()
        entries, offset = [], 0
        target = os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            for key, place in keep.items():
                view = self._view(place)
                if view is None or zlib.crc32(view, zlib.crc32(key)) != place.crc:
                    continue
                _write(target, view, offset)
                entries.append(_entry(key, place._replace(offset=offset)))
                offset += place.length
            os.fsync(target)
            _start(folder, entries, name)
        except BaseException:
            (folder / name).unlink(missing_ok=True)
            raise
        finally:
            os.close(target)
        for descriptor in (self._index, self._data):
            self._files.remove(descriptor)
            os.close(descriptor)
        self._open_index(folder)
        self._read_index(settled=True)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """No other process adds a picture meanwhile."""
        if self._lock < 0:
            yield
            return
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._lock, fcntl.LOCK_UN)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[bool]:
        """Whether no other process has the file open; none opens it meanwhile."""
        with self._locked():
            try:
                fcntl.flock(self._in_use, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                # A failed change of the lock may have dropped the old one.
                fcntl.flock(self._in_use, fcntl.LOCK_SH)
                yield False
                return
            try:
                yield True
            finally:
                fcntl.flock(self._in_use, fcntl.LOCK_SH)

    def _trouble(self, error: OSError) -> str:
        if self.folder is None:
            return (
                f"no memory for another picture after {self._tail / 2**20:,.0f} MiB "
                f"({error.strerror}); set config.data.cache_bytes, or config.data."
                "cache='disk'"
            )
        return (
            f"the picture cache {self.folder} cannot be used ({error.strerror}); it "
            f"holds {self._tail / 2**20:,.0f} MiB. Free some space, choose another "
            "folder (config.data.cache_dir) or limit it (config.data.cache_bytes)"
        )


def _new_name() -> str:
    return f"pictures-{uuid.uuid4().hex[:12]}.jpegs"


def _start(folder: Path, entries: list[bytes], name: str | None = None) -> None:
    """Put an index in place, in one step."""
    header = (_MAGIC + (name or _new_name()).encode()).ljust(_ENTRY.size, b"\0")
    replace_file(folder / "index", b"".join([header, *entries]))


def _entry(key: bytes, place: _Place) -> bytes:
    entry = _ENTRY.pack(key, *place, 0)[:-4]
    return entry + zlib.crc32(entry).to_bytes(4, "little")


def _write(descriptor: int, content: bytes | memoryview, offset: int) -> None:
    """All of the bytes; not through the map, where a full disk would kill us.

    Raises:
        OSError: the disk is full or failed.
    """
    rest = memoryview(content)
    while rest:
        written = os.pwrite(descriptor, rest, offset)
        rest, offset = rest[written:], offset + written


def _memory_file() -> int:
    """A file without a name, in memory where the system can do that."""
    make: Callable[[str], int] | None = getattr(os, "memfd_create", None)
    if make is not None:
        return make("yolojax pictures")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
