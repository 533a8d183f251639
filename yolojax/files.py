"""Files read with a limit, and written in one step: a kill never leaves half of one."""

from __future__ import annotations

import codecs
import os
import stat
import tempfile
from pathlib import Path
from typing import BinaryIO

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


def replace_file(path: Path, content: bytes) -> None:
    """Writes `content` beside `path`, then puts it in its place in one step.

    The folder is made where it is missing.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        # mkstemp makes files that only their owner can read.
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


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
    """`replace_file` with text, in UTF-8."""
    replace_file(path, text.encode("utf-8"))


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
