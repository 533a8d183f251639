"""Where a command may write: never over what it reads, nor over files of others.

A folder belongs to the command that wrote into it first: the same command renews its
files. What it wrote stands in a hidden record in the folder.
"""

from __future__ import annotations

import itertools
import json
import os
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from yolojax.comparing import difference
from yolojax.files import replace_text

RECORD = ".yolojax.json"
# What says in an image, or in weights, that we wrote them.
_PNG_TEXT = b"tEXtSoftware\0yolojax"
_JPEG_COMMENT = b"\xff\xfe\x00\x09yolojax"
_WEIGHTS = b'{"__metadata__":{"yolojax":'
_MARKS = ((_PNG_TEXT,), (_JPEG_COMMENT,), (_WEIGHTS,))
# Bytes in which a mark is looked for.
_HEAD = 4096


def check_inputs(outputs: Iterable[Path], inputs: Iterable[Path]) -> None:
    """Check that no file to write is one that is read, also by links and hard links.

    Raises:
        ValueError: one is; or it is a folder.
    """
    known: dict[tuple[int, int], Path] = {}
    for path in inputs:
        if identity := _identity(path):
            known.setdefault(identity, path)
    for path in outputs:
        if (source := known.get(_identity(path) or (-1, -1))) is not None:
            link = "" if str(source) == str(path) else f" (as {path})"
            raise ValueError(
                f"{source} is read and would be written over{link}: give another "
                "--output"
            )
        if path.is_dir():
            raise ValueError(f"{path} is a folder, and a file is to be written there")


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def conflict(
    folder: Path,
    command: Mapping[str, Any],
    names: Iterable[str],
    *,
    assumed: Collection[str] = (),
) -> str:
    """Why a command may not write such files into a folder; empty where it may.

    Args:
        folder: the folder, which may be missing.
        command: what decides what is in the files, of JSON values.
        names: of the files to write, relative to the folder.
        assumed: of them those that are the command's own where no record says more.
    """
    there = [name for name in names if os.path.lexists(folder / name)]
    if not there:
        return ""
    record = _read(folder)
    before = record.get("command")
    if before is not None and set(there) & set(record["files"]):
        now = json.loads(json.dumps(command))
        if before != now:
            kinds = [entry.get("command") for entry in (before, now)]
            how = difference(before, now) if kinds[0] == kinds[1] else ""
            return f"{folder} holds the results of another command{_said(kinds, how)}"
    strangers = [n for n in there if n not in record["files"] and n not in assumed]
    if not strangers:
        return ""
    more = f" and {len(strangers) - 1} more" if len(strangers) > 1 else ""
    return f"{folder / strangers[0]}{more} would be replaced, but is from elsewhere"


def _said(kinds: list[Any], how: str) -> str:
    if not how:
        return f" ({kinds[0]})"
    return f" ({how.lstrip('.')})"


def claim(
    folder: Path,
    command: Mapping[str, Any],
    names: Collection[str],
    *,
    inputs: Iterable[Path] = (),
    overwrite: bool = False,
    assumed: Collection[str] = (),
) -> None:
    """Check that a command may write into a folder, and leave a record that it does.

    Args:
        folder: is made where it is missing.
        command: see `conflict`.
        names: see `conflict`.
        inputs: files that the command reads.
        overwrite: also write over the files of others, but never over inputs.
        assumed: see `conflict`.

    Raises:
        ValueError: it may not; says what to do.
    """
    check_inputs((folder / name for name in names), inputs)
    if not overwrite and (why := conflict(folder, command, names, assumed=assumed)):
        raise ValueError(f"{why}: give another --output, or --overwrite")
    record = _read(folder)
    files = set(names)
    if record.get("command") == json.loads(json.dumps(command)):
        # Written with other images then, and still ours.
        files |= set(record["files"])
    content = {"command": command, "files": sorted(files)}
    replace_text(folder / RECORD, json.dumps(content, indent=1) + "\n")


def free_folder(
    folder: Path, command: Mapping[str, Any], names: Collection[str]
) -> Path:
    """The folder, or where another command has it, one with a number behind its name.

    The same command gets the same folder.
    """
    return next(
        path for path in _numbered(folder) if not conflict(path, command, names)
    )


def _numbered(folder: Path) -> Iterator[Path]:
    yield folder
    for number in itertools.count(2):
        yield folder.with_name(f"{folder.name}-{number}")


def _read(folder: Path) -> dict[str, Any]:
    """The record of a folder; a damaged one counts as none."""
    try:
        content = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        files = [str(name) for name in content["files"]]
        return {"command": dict(content["command"]), "files": files}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {"files": []}


def check_file(path: Path, what: str, *, marks: tuple[bytes, ...] = ()) -> None:
    """Check that a file may be written: it is new, or we wrote it before.

    Args:
        path: the file.
        what: whose it is, for the message, as a flag's name.
        marks: what the start of a file of this kind of ours has in it, if it is no
            image and no weights.

    Raises:
        ValueError: it is a folder, or a file that is not ours.
    """
    if path.is_dir():
        raise ValueError(f"{what} {path} is a folder; give a file in it")
    if not os.path.lexists(path):
        return
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError:
        head = b""
    kinds = (marks,) if marks else _MARKS
    if not any(all(mark in head for mark in kind) for kind in kinds):
        raise ValueError(
            f"{what} {path} is there already, and yolojax did not write it: give "
            "another name, or move it away"
        )


def marked(content: bytes) -> bytes:
    """A PNG or JPEG that says that we wrote it; other content as it is."""
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        # Behind the header, which has a fixed length.
        text = (len(_PNG_TEXT) - 4).to_bytes(4, "big") + _PNG_TEXT
        return b"".join(
            [content[:33], text, zlib.crc32(_PNG_TEXT).to_bytes(4, "big"), content[33:]]
        )
    if content.startswith(b"\xff\xd8\xff\xe0"):
        # Behind the first segment, which has to be the first.
        end = 4 + int.from_bytes(content[4:6], "big")
        return content[:end] + _JPEG_COMMENT + content[end:]
    return content
