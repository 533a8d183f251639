"""JSON files that yolojax wrote, read as if anyone had written them."""

from __future__ import annotations

import json
import reprlib
from pathlib import Path
from typing import Any

from yolojax.files import FileError, read_file

# Bytes of a file, and values in it: a value takes up to 100 bytes of memory.
LARGEST = 2**26
MOST_VALUES = 10**6
# Levels of lists and objects; ours have up to 10.
DEEPEST = 50

Kind = type | tuple[type, ...]


def load_json(
    path: str | Path,
    kind: Kind = dict,
    *,
    limit: int | None = LARGEST,
    most_values: int = MOST_VALUES,
) -> Any:
    """The value in a JSON file.

    Args:
        path: the file.
        kind: types that the value may have.
        limit: largest file that is read, in bytes; None: no limit.
        most_values: largest number of values in it.

    Raises:
        ValueError: the file is missing, cut off, too large, not JSON, nested too
            deeply, or its value has another type. The message does not name the file.
    """
    try:
        content = read_file(path, limit=limit)
    except FileError as error:
        raise ValueError(error.reason) from error
    # A file that a failing computer has not written is often full of zeros.
    if not content.strip(b"\0 \t\r\n"):
        raise ValueError("the file is empty")
    if sum(map(content.count, (b",", b"[", b"{"))) > most_values:
        raise ValueError(f"more than {most_values:,} values")
    try:
        value = json.loads(content)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except ValueError as error:
        # The reason has the place, and no text of the file.
        raise ValueError(f"not JSON ({error})") from None
    if _is_deeper(value, DEEPEST):
        raise ValueError("nested too deeply")
    if not isinstance(value, kind):
        names = {dict: "an object", list: "a list"}
        kinds = kind if isinstance(kind, tuple) else (kind,)
        wanted = " or ".join(names.get(one, one.__name__) for one in kinds)
        raise ValueError(f"expected {wanted}, got {reprlib.repr(value)}")
    return value


def _is_deeper(value: Any, levels: int) -> bool:
    """Whether lists and objects lie in each other in more levels than these."""
    level = [value]
    for _ in range(levels):
        lists = [one for one in level if isinstance(one, list)]
        lists += [one.values() for one in level if isinstance(one, dict)]
        level = [item for one in lists for item in one]
    return any(isinstance(one, list | dict) for one in level)


def read_json(
    path: str | Path,
    kind: Kind = dict,
    *,
    advice: str,
    limit: int | None = LARGEST,
    most_values: int = MOST_VALUES,
) -> Any:
    """As `load_json`, with messages that name the file.

    Args:
        path: the file.
        kind: types that the value may have.
        advice: what to do where the file is damaged, as a sentence.
        limit: largest file that is read, in bytes; None: no limit.
        most_values: largest number of values in it.

    Raises:
        ValueError: see `load_json`.
    """
    try:
        return load_json(path, kind, limit=limit, most_values=most_values)
    except ValueError as error:
        raise ValueError(f"{path} cannot be read: {error}. {advice}") from error
