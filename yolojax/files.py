"""Files read with a limit, and written in one step: a kill never leaves half of one."""

from __future__ import annotations

import codecs
import contextlib
import errno
import fcntl
import functools
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

# Files that are being written, see `replacing`.
_UNFINISHED = re.compile(r"\.yolojax-[0-9a-f]{12}\.part(\.[a-z0-9]+)?")
# Seconds; for file systems without locks, where nothing else tells that a writer died.
_ABANDONED = 24 * 3600.0
# What a path can be that is no regular file; opening one may wait for ever.
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


class FileError(ValueError):
    """A file cannot be read.

    Attributes:
        reason: why, without the name of the file, for reports that name it already.
    """

    def __init__(self, path: str | os.PathLike[str], reason: str) -> None:
        super().__init__(f"{os.fspath(path)}: {reason}")
        self.reason = reason


def open_file(path: str | os.PathLike[str]) -> BinaryIO:
    """A regular file, open for reading bytes; links are followed.

    Raises:
        FileError: the path is missing, cannot be opened, or is a folder, named pipe,
            socket or device.
    """
    try:
        # Looked at first: opening a device can already change something.
        _check_regular(os.stat(path), path)
        # If a pipe takes the file's place in between, the call still returns.
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        file = os.fdopen(os.open(path, flags), "rb")
    except OSError as error:
        raise FileError(path, error.strerror or str(error)) from error
    except FileError:
        raise
    except ValueError as error:  # a NUL in the name
        raise FileError(path, str(error)) from error
    try:
        _check_regular(os.fstat(file.fileno()), path)
    except FileError:
        file.close()
        raise
    return file


def _check_regular(status: os.stat_result, path: str | os.PathLike[str]) -> None:
    if not stat.S_ISREG(status.st_mode):
        kinds = (name for test, name in _KINDS if test(status.st_mode))
        raise FileError(path, f"not a regular file but {next(kinds, 'something else')}")


def read_file(path: str | os.PathLike[str], *, limit: int | None = None) -> bytes:
    """The content of a regular file.

    Args:
        path: the file.
        limit: most bytes that are read; None: no limit.

    Raises:
        FileError: as `open_file`, or the file is larger than the limit.
    """
    with open_file(path) as file:
        try:
            size = os.fstat(file.fileno()).st_size
            if limit is None:
                return file.read()
            # Some files have more bytes than their size says.
            content = b"" if size > limit else file.read(limit + 1)
        except OSError as error:
            raise FileError(path, error.strerror or str(error)) from error
    if max(size, len(content)) > limit:
        size = max(size, len(content))
        raise FileError(path, f"{size:,} bytes; at most {limit:,} are read")
    return content


def decode_text(content: bytes, *, errors: str = "strict") -> str:
    """Text of UTF-8, or of UTF-16 and UTF-32, with or without a byte order mark.

    UTF-16 without a mark is known by its zero bytes: every second byte of Western
    text is one.

    Args:
        content: the bytes.
        errors: what to do with bytes that are no UTF-8, as in `bytes.decode`.

    Raises:
        ValueError: the bytes are no such text; the message names no file.
    """
    encoding = _encoding(content)
    try:
        return content.decode(encoding, errors).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        problem = f"{error.reason}, byte {error.start}"
        raise ValueError(f"not {encoding.upper()} text ({problem})") from error


def _encoding(content: bytes) -> str:
    # The mark of UTF-32 begins with that of UTF-16.
    if content.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "utf-32"
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    if len(content) % 2:
        return "utf-8"
    sample = content[:4096]
    pairs = len(sample) // 2
    first, second = sample[0::2].count(0), sample[1::2].count(0)
    if second > pairs / 2 and not first:
        return "utf-16-le"
    if first > pairs / 2 and not second:
        return "utf-16-be"
    return "utf-8"


def read_text(
    path: str | os.PathLike[str], *, limit: int, errors: str = "strict"
) -> str:
    """The text of a regular file, see `read_file` and `decode_text`.

    Raises:
        FileError: as `read_file`, or the bytes are no text.
    """
    content = read_file(path, limit=limit)
    try:
        return decode_text(content, errors=errors)
    except ValueError as error:
        raise FileError(path, str(error)) from error


# Bytes of a list of files; some 500,000 paths.
LARGEST_LIST = 2**25


def unquoted(line: str) -> str:
    """A line of a list without the spaces, and the quotes, around it."""
    name = line.strip()
    if len(name) > 1 and name[0] == name[-1] and name[0] in "'\"":
        name = name[1:-1].strip()
    return name


def numbered_lines(text: str) -> Iterator[tuple[int, str]]:
    """(number from 1, line) of each line, without its end: LF, CR LF or CR."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    start, number = 0, 1
    while start < len(text):
        stop = text.find("\n", start)
        stop = len(text) if stop < 0 else stop
        yield number, text[start:stop]
        start, number = stop + 1, number + 1


def replace_file(path: Path, content: bytes) -> None:
    """Writes `content` beside `path`, then puts it in its place in one step.

    The folder is made where it is missing.

    Raises:
        OSError: the file cannot be written, as on a full disk; names `path`.
    """
    with replacing(path) as unfinished:
        unfinished.write_bytes(content)


@contextlib.contextmanager
def replacing(path: Path, suffix: str = "") -> Iterator[Path]:
    """A new file beside `path`, which takes the place of `path` after the block.

    The file is synced to disk before the rename and its folder after it, so that a
    power cut leaves the old file or the new one. An error in the block removes the new
    file. What a killed process left in the folder is removed first, see
    `clear_unfinished`.

    Args:
        path: the file to replace; its folder is made where it is missing.
        suffix: of the new file, for writers that go by it.

    Raises:
        OSError: the file cannot be written; names `path`.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _clear_once(path.parent.absolute())
    with naming(path):
        unfinished, descriptor = _create_unfinished(path.parent, suffix)
        try:
            yield unfinished
            os.fsync(descriptor)
            os.replace(unfinished, path)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise
        finally:
            # Only now: the lock says that the file has a living writer.
            os.close(descriptor)
    _sync_folder(path.parent)


@contextlib.contextmanager
def naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """Names `path` in an `OSError` of the block that has no file or an unfinished one.

    A write on a full disk says "No space left on device" and not where.
    """
    try:
        yield
    except OSError as error:
        named = os.fsdecode(error.filename or "")
        if error.errno is None or (
            named and not _UNFINISHED.fullmatch(os.path.basename(named))
        ):
            raise
        raise OSError(error.errno, os.strerror(error.errno), os.fspath(path)) from error


# What can be wrong with a disk as a whole.
_DISK_ERRORS = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.EACCES),
)


@contextlib.contextmanager
def translating(path: str | os.PathLike[str]) -> Iterator[None]:
    """Makes an `OSError` that names `path` of a library's own error about a disk.

    Storage libraries say "No space left on device" at the end of long errors of other
    types.
    """
    try:
        yield
    except Exception as error:
        code = next((c for c in _DISK_ERRORS if os.strerror(c) in str(error)), None)
        if code is None:
            raise
        raise OSError(code, os.strerror(code), os.fspath(path)) from error


def check_space(path: Path, num_bytes: int) -> None:
    """Check that a disk has room for a file or folder before it is written.

    Args:
        path: what is to be written, in a folder that exists.
        num_bytes: its size.

    Raises:
        OSError: the disk has too little; names `path` and both figures.
    """
    free = shutil.disk_usage(path.parent).free
    if free < num_bytes:
        raise OSError(
            errno.ENOSPC,
            f"{os.strerror(errno.ENOSPC)} (it takes {num_bytes / 2**20:,.1f} MiB, "
            f"{free / 2**20:,.1f} MiB are free)",
            os.fspath(path),
        )


def _create_unfinished(folder: Path, suffix: str) -> tuple[Path, int]:
    """A new file with a lock on it, and its descriptor."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    while True:
        path = folder / f".yolojax-{secrets.token_hex(6)}.part{suffix}"
        descriptor = os.open(path, flags, 0o666)
        # Some network file systems have no locks.
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        # Before the lock another process may have taken it for abandoned.
        if os.fstat(descriptor).st_nlink:
            return path, descriptor
        os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    # Not every file system can sync a folder.
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@functools.cache
def _clear_once(folder: Path) -> None:
    clear_unfinished(folder)


def clear_unfinished(folder: Path) -> None:
    """Removes the files of `replacing` whose process was killed.

    Those of a process that is alive stay: it holds a lock on its file. Files that only
    look similar stay as well, and so does everything in a folder that cannot be read.
    """
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if _UNFINISHED.fullmatch(entry.name) and entry.is_file(
                follow_symlinks=False
            ):
                with contextlib.suppress(OSError):
                    _remove_abandoned(entry.path)


def _remove_abandoned(path: str) -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        except OSError:
            if time.time() - os.fstat(descriptor).st_mtime < _ABANDONED:
                return
        os.unlink(path)
    finally:
        os.close(descriptor)


def expand_path(text: str, folder: str = "") -> str:
    """The path with `~`, `~user`, `$NAME` and `${NAME}` replaced as a shell does it.

    What exists under its literal name stays as it is, also as the first part of the
    path: a folder can really be called `$x` or `~x`. A variable that is not set stays,
    too.

    Args:
        text: the path.
        folder: what the path is relative to.
    """
    if not text.startswith("~") and "$" not in text:
        return text
    literal = text
    while literal and not os.path.lexists(os.path.join(folder, literal)):
        shorter = os.path.dirname(literal.rstrip(os.sep))
        literal = shorter if shorter != literal else ""
    if literal.strip(os.sep):
        return literal + os.path.expandvars(text[len(literal) :])
    return os.path.expanduser(os.path.expandvars(text))


def check_file_place(path: Path, what: str) -> None:
    """Check, before long work, that a file can be put somewhere without a new folder.

    Args:
        path: of the file.
        what: whose it is, for the message, as a flag's name.

    Raises:
        ValueError: its folder is missing, or it is a folder itself.
    """
    if path.is_dir():
        raise ValueError(f"{what} {path} is a folder; give a file in it")
    if not path.parent.is_dir():
        raise ValueError(f"{what} {path}: there is no folder {path.parent}")


def replace_text(path: Path, text: str) -> None:
    """`replace_file` with text, in UTF-8.

    Parts of file names that are not UTF-8 are written as `\\udcXX`, which JSON reads as
    Python's name of the file.
    """
    replace_file(path, as_written(text).encode("utf-8"))


def as_written(text: str) -> str:
    """The text as `replace_text` writes it; all of it is UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def cache_home() -> Path:
    """The folder in the user's cache for what can be made again."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(home) / "yolojax"


# Bytes; published descriptions of networks have some 20,000.
LARGEST_DESCRIPTION = 2**22


def read_description(path: str | Path, *, limit: int = LARGEST_DESCRIPTION) -> str:
    """The text of a network's description; what is no UTF-8, as in comments, is marked.

    Args:
        path: the file.
        limit: bytes that it may have.

    Raises:
        ValueError: there is no such file, it cannot be read, or it is too large.
    """
    return read_file(path, limit=limit).decode("utf-8", "replace")
