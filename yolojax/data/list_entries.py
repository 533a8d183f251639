"""The files that a list for `predict` names, a path a line."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from yolojax.files import (
    LARGEST_LIST,
    FileError,
    expand_path,
    numbered_lines,
    read_text,
    unquoted,
)


def list_entries(file: Path) -> Iterator[tuple[int, str, Path | None]]:
    """(line, entry, its file) of each line that is neither blank nor a comment.

    A path starts at the list or at the working folder; backslashes part folders where
    no name has them. Text in UTF-16, quotes, `~` and variables are read. The file is
    None where there is none, or where it is a folder, a named pipe or a device.

    Raises:
        ValueError: the list cannot be read or is too large.
    """
    try:
        text = read_text(file, limit=LARGEST_LIST, errors="surrogateescape")
    except FileError as error:
        raise ValueError(f"source '{file}': {error.reason}") from error
    for number, line in numbered_lines(text):
        entry = unquoted(line)
        if entry and not entry.startswith("#"):
            yield number, entry, _place(entry, str(file.parent))


def _place(entry: str, home: str) -> Path | None:
    for name in (entry, entry.replace("\\", "/")):
        name = expand_path(name, home)
        for path in (os.path.join(home, name), name):
            # os.path.isfile, unlike Path.is_file, takes names that are too long.
            if os.path.isfile(path):
                return Path(path)
    return None
