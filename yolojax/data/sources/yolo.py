"""YOLO text labels: a `data.yaml`, folders of pictures, one text file a picture."""

from __future__ import annotations

import codecs
import math
import os
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from yaml import YAMLError, safe_load

from yolojax.data.polygons import read_polygon
from yolojax.data.report import Report
from yolojax.data.sources.base import (
    PICTURE_SUFFIXES,
    SET_ROOT,
    Annotations,
    LabelledPictures,
    describe,
    in_threads,
    list_pictures,
    read_sizes,
)

# Text files that label tools and exporters put beside the labels.
NOT_LABELS = ("classes", "predefined_classes", "labels", "train", "val", "test")


class YoloSource(LabelledPictures):
    """Pictures and boxes of one split of a `data.yaml`.

    A line is `class x y width height`, centre and size as shares of the picture as it
    is shown, or `class x1 y1 x2 y2 x3 y3 ...`, a polygon, which is taken as its
    enclosing box. The label file of `a/images/b/c.jpg` is `a/labels/b/c.txt` (the
    last `images` counts), or lies beside the picture where there is no such folder.
    A picture without a label file, or with an empty one, is background.

    Args:
        yaml: the `data.yaml`, with `names` (a list, or a dict from 0 up), perhaps
            `nc`, perhaps `path`, and the splits: each a folder, a list of folders,
            or a `.txt` file with a picture a line.
        split: which split.
        root: folder that the splits start from; stands in for the yaml's `path`.
        polygons: whether to keep the polygons, see `Example.polygons`.

    Raises:
        ValueError: a file or folder that does not exist, a key that is missing, `nc`
            and `names` that disagree, no picture, no label file at all.
    """

    def __init__(
        self,
        *,
        yaml: str,
        split: str = "train",
        root: str | None = None,
        polygons: bool = False,
    ) -> None:
        report = Report()
        file = Path(yaml)
        config = _load(file)
        names = _class_names(config, file)
        paths = _split_pictures(config, split, file, root, report)
        labels = _find_labels(paths, report)
        pictures = _read(paths, labels, report)
        rows, places, outlines = [], [], []
        for index, picture in enumerate(pictures):
            label_file = picture.label_file or picture.path
            lines = parse_labels(picture.text, label_file, len(names), report)
            height, width = picture.size
            for line, label, values in lines:
                x1, y1, x2, y2 = _corners(values)
                box = (x1 * width, y1 * height, x2 * width, y2 * height)
                rows.append((index, label, False, math.nan, box))
                places.append((label_file, line, ""))
                polygon = read_polygon(values) * np.array([width, height], np.float32)
                outlines.append([polygon] if len(values) > 4 else [])
        super().__init__(
            paths=[picture.path for picture in pictures],
            ids=range(len(pictures)),
            sizes=[picture.size for picture in pictures],
            annotations=Annotations.from_rows(rows, outlines if polygons else None),
            where=places.__getitem__,
            class_names=names,
            category_ids=range(len(names)),
            report=report,
        )


def _load(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise ValueError(f"no data.yaml at {file}; {describe(file)}; {SET_ROOT}")
    try:
        config = safe_load(file.read_bytes())
    except (YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} is not YAML: {error}") from error
    if not isinstance(config, dict):
        raise ValueError(f"{file} holds no keys; expected names, train and val")
    if "kpt_shape" in config:
        raise ValueError(f"{file} is for key points (kpt_shape), which are not read")
    return config


def _class_names(config: dict[str, Any], file: Path) -> list[str]:
    names, count = config.get("names"), config.get("nc")
    if not names or not isinstance(names, list | dict):
        raise ValueError(
            f"{file} needs names, a list or a dict of class names; it has the keys "
            f"{', '.join(map(str, config))}"
        )
    if isinstance(names, dict):
        try:
            by_class = {int(key): name for key, name in names.items()}
        except (TypeError, ValueError):
            by_class = {}
        if sorted(by_class) != list(range(len(names))):
            raise ValueError(
                f"{file}: the keys of names must be 0 to {len(names) - 1} without a "
                f"gap; they are {', '.join(map(str, names))}"
            )
        names = [by_class[label] for label in range(len(names))]
    if count is not None and count != len(names):
        raise ValueError(f"{file} says nc: {count}, but lists {len(names)} names")
    return [str(name) for name in names]


def _split_pictures(
    config: dict[str, Any], split: str, file: Path, root: str | None, report: Report
) -> list[str]:
    """Paths of the pictures of a split, in order, each once."""
    entries = config.get(split)
    if not entries:
        splits = [key for key in ("train", "val", "test", "valid") if config.get(key)]
        raise ValueError(
            f"{file} has no split {split!r}; it has {', '.join(splits) or 'none'}"
        )
    home = file.parent
    base = Path(root) if root is not None else home / str(config.get("path") or "")
    if root is not None and not base.is_dir():
        raise ValueError(f"no folder {base}, given as root; {describe(base)}")
    paths: list[str] = []
    for entry in entries if isinstance(entries, list) else [entries]:
        place = _locate(str(entry), split, base, home, file, report)
        if place.is_dir():
            paths += list_pictures(place, report)
        else:
            paths += _read_list(place, base, report)
    paths = list(dict.fromkeys(paths))
    if not paths:
        raise ValueError(
            f"no picture in {entries} of {file}, split {split!r}; "
            f"{describe(base if isinstance(entries, list) else place)}"
        )
    return paths


def _locate(
    entry: str, split: str, base: Path, home: Path, file: Path, report: Report
) -> Path:
    """The folder or list that an entry means.

    Exporters write `../train/images` where `train/images` is right, and a data set
    that was moved keeps its old `path`; both are mended, and noted.
    """
    stripped = entry
    while stripped.startswith("../"):
        stripped = stripped.removeprefix("../")
    candidates = [base / entry, base / stripped, home / entry, home / stripped]
    for place in candidates:
        if place.exists():
            if place != candidates[0]:
                report.note(
                    "split found in another place",
                    file=file,
                    message=f"{split}: {entry} means {candidates[0]}, which does not "
                    f"exist; {place} is taken",
                )
            return place
    tried = ", ".join(dict.fromkeys(map(os.path.normpath, candidates)))
    raise ValueError(
        f"{file}, split {split!r}: {entry} does not exist; looked for {tried}; "
        f"{describe(base)}"
    )


def _read_list(file: Path, base: Path, report: Report) -> list[str]:
    """Paths in a .txt list; relative ones start at the list, or else at `path`."""
    paths = []
    text = os.fsdecode(file.read_bytes().removeprefix(codecs.BOM_UTF8))
    for number, line in enumerate(text.splitlines(), 1):
        name = line.strip()
        if not name:
            continue
        candidates = [file.parent / name, base / name]
        # macOS writes accents in two parts, most others in one.
        candidates += [
            file.parent / unicodedata.normalize(form, name) for form in ("NFC", "NFD")
        ]
        for path in candidates:
            if path.is_file():
                paths.append(str(path))
                break
        else:
            message = f"{name} does not exist in {file.parent}; left out"
            report.add("missing picture", file, number, message)
    return paths


def _find_labels(paths: Sequence[str], report: Report) -> list[str | None]:
    """The label file of each picture, None where there is none."""
    homes: dict[str, tuple[str, set[str]]] = {}
    labels: list[str | None] = []
    for path in paths:
        folder, name = os.path.split(path)
        if folder not in homes:
            homes[folder] = _label_folder(folder)
        home, present = homes[folder]
        label = os.path.splitext(name)[0] + ".txt"
        labels.append(os.path.join(home, label) if label in present else None)
    if not any(labels):
        looked = ", ".join(list(dict.fromkeys(home for home, _ in homes.values()))[:3])
        raise ValueError(
            f"no label file for any of {len(paths)} pictures, such as {paths[0]}; "
            f"looked in {looked}"
        )
    for folder, (home, present) in homes.items():
        names = map(os.path.splitext, os.listdir(folder))
        pictures = {stem for stem, end in names if end.lower() in PICTURE_SUFFIXES}
        for label in sorted(present):
            stem = label.removesuffix(".txt")
            if stem not in pictures:
                message = f"no picture {stem}.* in {folder}; ignored"
                file = os.path.join(home, label)
                report.add("label without a picture", file, None, message)
    return labels


def _label_folder(folder: str) -> tuple[str, set[str]]:
    """The folder of the labels of a folder of pictures, and the labels in it."""
    head, images, tail = f"{folder}/".rpartition("/images/")
    home = os.path.normpath(f"{head}/labels/{tail}") if images else folder
    if not os.path.isdir(home):
        home = folder
    return home, {
        name
        for name in os.listdir(home)
        if name.endswith(".txt")
        and not name.startswith(".")
        and name.removesuffix(".txt").lower() not in NOT_LABELS
        and not name.lower().startswith("readme")
    }


class _Picture(NamedTuple):
    path: str
    size: tuple[int, int]
    label_file: str | None
    text: str


def _read(
    paths: Sequence[str], labels: Sequence[str | None], report: Report
) -> list[_Picture]:
    """The pictures whose header and label file can be read."""
    sizes = read_sizes(paths, report)
    pictures, unlabelled = [], 0
    for path, size, label_file, content in zip(
        paths, sizes, labels, in_threads(_read_text, labels), strict=True
    ):
        if size is None:
            continue
        if isinstance(content, Exception):
            message = f"expected UTF-8 text: {content}; its picture is left out"
            report.add("unreadable label file", label_file, None, message)
            continue
        if label_file is None:
            unlabelled += 1
        elif not content.strip():
            message = "no line in it; its picture is background"
            report.note("empty label file", file=label_file, message=message)
        pictures.append(_Picture(path, size, label_file, content))
    report.note("picture without a label file (background)", unlabelled)
    return pictures


def _read_text(file: str | None) -> str | Exception:
    if file is None:
        return ""
    try:
        with open(file, "rb") as stream:
            data = stream.read()
        if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            return data.decode("utf-16")
        return data.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        return error


def parse_labels(
    text: str, file: str, num_classes: int, report: Report
) -> list[tuple[int, int, list[float]]]:
    """(line, class, its other numbers, shares of the picture) of each usable line.

    Args:
        text: the label file's content; blank lines and extra spaces mean nothing.
        file: its name, for the report.
        num_classes: classes are 0 to `num_classes - 1`; `3.0` is 3.
        report: takes the lines that are dropped.
    """
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        fields = line.split()
        if not fields:
            continue
        problem = None
        try:
            label, *values = map(float, fields)
        except ValueError:
            problem = "label line that is not numbers", "expected numbers"
        else:
            if len(fields) != 5 and (len(fields) < 7 or len(fields) % 2 == 0):
                problem = (
                    "label line with the wrong number of fields",
                    "expected 5 (class x y width height), or 7 and more by twos (class "
                    f"and a polygon), came {len(fields)}",
                )
            elif not all(map(math.isfinite, (label, *values))):
                problem = "label line that is not finite", "expected finite numbers"
            elif label != int(label) or not 0 <= label < num_classes:
                problem = (
                    "class out of range",
                    f"class {fields[0]}, but there are {num_classes} classes "
                    f"(0 to {num_classes - 1})",
                )
            elif max(values) > 2 or min(values) < -1:
                problem = (
                    "coordinates that are not shares of the picture",
                    "expected 0 to 1",
                )
            else:
                found.append((number, int(label), values))
        if problem is not None:
            kind, expected = problem
            came = line.strip()[:60]
            report.add(kind, file, number, f"{expected}; came {came!r}; dropped")
    return found


def _corners(values: Sequence[float]) -> tuple[float, float, float, float]:
    """x1 y1 x2 y2 of a centre and a size, or of a polygon."""
    if len(values) == 4:
        x, y, width, height = values
        return x - width / 2, y - height / 2, x + width / 2, y + height / 2
    return min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2])
