"""The file that describes a YOLO data set: a `data.yaml`, or Darknet's `obj.data`."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from yolojax.data.sources.base import SET_ROOT, describe
from yolojax.data.sources.label_forms import Said
from yolojax.files import FileError, expand_path, numbered_lines, read_text
from yolojax.yaml_text import MAX_CHARACTERS_OF_WORDS, number_in, read_yaml_words, shown

# Characters have up to four bytes.
LARGEST_YAML = 4 * MAX_CHARACTERS_OF_WORDS
SPLITS = ("train", "val", "test", "valid")
# What YAML takes for nothing.
_NOTHING = ("", "~", "null", "Null", "NULL")
_DARKNET_KEY = re.compile(
    r"\s*(classes|train|valid|test|names|backup|eval|labels|results|top)\s*=", re.I
)
_MOST_KEYS = 20  # that a message names


class DataYaml(NamedTuple):
    """What the file says.

    Attributes:
        file: the file.
        class_names: in order.
        folder: where the splits start, as the file has it; "" where it says nothing.
        splits: for each split its folders and lists, as the file has them.
        said: what it says about the lines of its labels.
    """

    file: Path
    class_names: list[str]
    folder: str
    splits: dict[str, list[str]]
    said: Said


def read_data_yaml(file: Path, *, root: Path | None = None) -> DataYaml:
    """What a `data.yaml` or `obj.data` says, with names as the text that stands there.

    Args:
        file: the file.
        root: where else to look for a file of names.

    Raises:
        ValueError: the file does not exist, is no YAML, has no names, `nc` and `names`
            disagree, or a value is of the wrong kind.
    """
    if not os.path.isfile(file):
        raise ValueError(f"no data.yaml at {file}; {describe(file)}; {SET_ROOT}")
    content = _content(file)
    folder = content.get("path", "")
    if not isinstance(folder, str):
        raise ValueError(f"{file}: path must be a folder, not {shown(folder)}")
    return DataYaml(
        file,
        _class_names(content, file, root),
        "" if folder in _NOTHING else folder,
        {split: _entries(content.get(split, ""), split, file) for split in content},
        _said(content, file),
    )


def _content(file: Path) -> dict[str, Any]:
    try:
        text = read_text(file, limit=LARGEST_YAML)
    except FileError as error:
        raise ValueError(f"{file} cannot be read: {error.reason}") from error
    first = next((t for _, t in numbered_lines(text) if t.strip()[:1] not in "#"), "")
    if _DARKNET_KEY.match(first):
        return _darknet(text, file)
    try:
        content = read_yaml_words(text, "")
    except ValueError as error:
        problem = str(error).lstrip(" :")
        raise ValueError(f"{file} is not YAML that is read: {problem}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file} holds no keys; expected names, train and val")
    return content


def _darknet(text: str, file: Path) -> dict[str, Any]:
    """The keys of an `obj.data`, under the names of a `data.yaml`."""
    content = {}
    for number, line in numbered_lines(text):
        if line.strip()[:1] in "#;":  # also a blank one
            continue
        key, equals, value = line.partition("=")
        if not equals:
            came = shown(line.strip())
            raise ValueError(f"{file} line {number}: expected key = value; came {came}")
        content[key.strip().lower()] = value.strip().strip("'\"")
    if "valid" in content:
        content.setdefault("val", content["valid"])
    if "classes" in content:
        content["nc"] = content.pop("classes")
    return content


def _entries(value: Any, split: str, file: Path) -> list[str]:
    """The folders and lists of a split; other keys have none."""
    if split not in SPLITS:
        return []
    entries = value if isinstance(value, list) else [value]
    for entry in entries:
        if not isinstance(entry, str):
            raise ValueError(
                f"{file}: {split} must be a folder, a list of folders or a .txt list, "
                f"not {shown(value)}"
            )
    return [entry for entry in entries if entry not in _NOTHING]


def _class_names(content: dict[str, Any], file: Path, root: Path | None) -> list[str]:
    names = content.get("names")
    if isinstance(names, str) and names not in _NOTHING:
        names = _names_file(names, file, root)
    if not names or not isinstance(names, list | dict):
        raise ValueError(
            f"{file} needs names, a list or a dict of class names; it has the keys "
            f"{_listed(content)}"
        )
    if isinstance(names, dict):
        by_class = {int(k): v for k, v in names.items() if k.isdecimal() and len(k) < 9}
        if sorted(by_class) != list(range(len(names))):
            raise ValueError(
                f"{file}: the keys of names must be 0 to {len(names) - 1} without a "
                f"gap; they are {_listed(names)}"
            )
        names = [by_class[label] for label in range(len(names))]
    for label, name in enumerate(names):
        if not isinstance(name, str):
            raise ValueError(
                f"{file}: the name of class {label} must be a word, not {shown(name)}"
            )
    _check_number(content.get("nc", ""), names, file)
    return names


def _check_number(stated: Any, names: Sequence[str], file: Path) -> None:
    if stated in _NOTHING:
        return
    if number_in(stated) != len(names):
        came = stated if isinstance(stated, str) and len(stated) < 20 else shown(stated)
        raise ValueError(f"{file} says nc: {came}, but lists {len(names)} names")


def _names_file(entry: str, file: Path, root: Path | None) -> list[str]:
    """The lines of a file of names, which is sought in the folders of the set."""
    for home in (root, file.parent, file.parent.parent):
        place = None if home is None else find_tail(entry, home, os.path.isfile)
        if place is None:
            continue
        try:
            text = read_text(place, limit=LARGEST_YAML)
        except FileError as error:
            raise ValueError(f"names of {file}: {error}") from error
        return [line.strip() for _, line in numbered_lines(text.rstrip())]
    raise ValueError(
        f"{file} needs names, a list, a dict, or a file with a name a line; {entry} "
        f"does not exist in {file.parent}"
    )


def find_tail(entry: str, home: Path, exists=os.path.exists) -> str | None:
    """The path below a folder that an entry means: all of it, or its last parts.

    Lists and configs keep the folders of the machine that they were made on, in front
    of the ones that are here.

    Args:
        entry: a path, perhaps of Windows.
        home: the folder.
        exists: whether a path is what is looked for.
    """
    exact = os.path.join(home, expand_path(entry, str(home)))
    if exists(exact):
        return exact
    parts = path_parts(entry)
    for start in range(len(parts)):
        path = os.path.join(home, *parts[start:])
        if exists(path):
            return path
    return None


def path_parts(entry: str) -> list[str]:
    """The folders and the file of a path, without a drive, `.` and leading `..`."""
    parts = entry.replace("\\", "/").split("/")
    if re.fullmatch("[A-Za-z]:", parts[0]):
        parts = parts[1:]
    parts = [part for part in parts if part not in ("", ".")]
    while parts and parts[0] == "..":
        parts = parts[1:]
    return parts


def _said(content: dict[str, Any], file: Path) -> Said:
    task = content.get("task", "")
    point_fields = None
    shape = content.get("kpt_shape", "")
    if shape not in _NOTHING:
        numbers = shape if isinstance(shape, list) else [shape]
        if not (
            1 <= len(numbers) <= 2
            and all(isinstance(n, str) and re.fullmatch(r"\d{1,4}", n) for n in numbers)
        ):
            raise ValueError(
                f"{file}: kpt_shape must be the number of key points and the number of "
                f"values of each, 2 or 3, not {shown(shape)}"
            )
        count, values = (*map(int, numbers), 2)[:2]
        point_fields = count * values
    return Said(
        polygons=task in ("segment", "obb"),
        key_points=task == "pose" or "flip_idx" in content,
        point_fields=point_fields,
    )


def _listed(keys: Sequence[str] | dict[str, Any]) -> str:
    names = [key[:40] for key in list(keys)[:_MOST_KEYS]]
    more = len(keys) - len(names)
    return ", ".join(names) + (f" and {more} more" if more else "")
