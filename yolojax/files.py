"""Files read with a limit, and written in one step: a kill never leaves half of one."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


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
    try:
        with Path(path).open("rb") as file:
            content = file.read(limit + 1)
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror or error}") from error
    if len(content) > limit:
        raise ValueError(
            f"{path}: more than {limit:,} bytes, where a network's description belongs"
        )
    return content.decode("utf-8", "replace")
