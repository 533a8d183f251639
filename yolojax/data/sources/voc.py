"""Pascal VOC: one XML file a picture, splits as lists of names."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from yolojax.data.report import Report
from yolojax.data.sources.base import (
    PICTURE_SUFFIXES,
    SET_ROOT,
    Annotations,
    LabelledPictures,
    describe,
    in_threads,
    read_sizes,
)
from yolojax.lookup import hint

ANNOTATION_FOLDERS = ("Annotations", "annotations", "annots", "xmls", ".")
PICTURE_FOLDERS = ("JPEGImages", "images", "Images", "imgs", ".")
DIFFICULT = ("ignore", "keep", "drop")
CORNERS = ("xmin", "ymin", "xmax", "ymax")


class VocSource(LabelledPictures):
    """Pictures and boxes of one split of a Pascal VOC folder.

    Corners are taken as they stand. VOC itself counts pixels from 1 and includes the
    last one, which would be `xmin - 1, ymin - 1, xmax, ymax`; most sets that come as
    XML today do not, so no pixel is subtracted.

    Args:
        root: holds `JPEGImages` and `Annotations`, or `images` and `annots`, or
            pictures and XML files side by side, whole or in a folder a split.
        split: a list `ImageSets/Main/<split>.txt`, or else a folder; where there is
            neither, every XML file is taken.
        class_names: fixes the classes and their order. Without it they are the names
            in the XML files of all splits, sorted, so that train and val agree.
        difficult: "ignore" marks difficult boxes like crowds: left out of training,
            ignored by the evaluator; "keep" treats them as any other; "drop".

    Raises:
        ValueError: a folder or list that does not exist, no picture, no class.
    """

    def __init__(
        self,
        *,
        root: str,
        split: str = "train",
        class_names: Sequence[str] | None = None,
        difficult: str = "ignore",
    ) -> None:
        if difficult not in DIFFICULT:
            raise ValueError(
                f"difficult must be one of {', '.join(DIFFICULT)}, not {difficult!r}"
                f".{hint(difficult, DIFFICULT)}"
            )
        report = Report()
        home = Path(root)
        if not home.is_dir():
            raise ValueError(f"no folder {home}; {describe(home)}; {SET_ROOT}")
        names = _split_names(home, split, report)
        if names is None and (home / split).is_dir():
            home = home / split
        xml_folder = _folder(home, ANNOTATION_FOLDERS, (".xml",))
        picture_folder = _folder(home, PICTURE_FOLDERS, PICTURE_SUFFIXES)
        if names is None:
            names = sorted(f[:-4] for f in os.listdir(xml_folder) if f.endswith(".xml"))
        files = _xml_files(names, xml_folder, split, report)
        pictures = _read(files, picture_folder, report)
        classes = list(class_names or _all_class_names(Path(root)))
        labels = {name: label for label, name in enumerate(classes)}
        if not classes:
            raise ValueError(f"no object in any XML file below {root}")
        rows, places = [], []
        for index, picture in enumerate(pictures):
            for item in picture.items:
                if item.difficult and difficult == "drop":
                    continue
                if item.corners is None:
                    message = (
                        f"{item.name}: expected a bndbox with xmin ymin xmax ymax as "
                        "numbers; dropped"
                    )
                    kind = "box with the wrong number of fields"
                    report.add(kind, picture.file, item.line, message)
                    continue
                if item.name not in labels:
                    message = (
                        f"class {item.name!r} is not one of {', '.join(classes)}; "
                        "dropped"
                    )
                    report.add("class out of range", picture.file, item.line, message)
                    continue
                crowd = item.difficult and difficult == "ignore"
                rows.append((index, labels[item.name], crowd, math.nan, item.corners))
                places.append((picture.file, item.line, f"{item.name}: "))
        super().__init__(
            paths=[picture.path for picture in pictures],
            ids=range(len(pictures)),
            sizes=[picture.size for picture in pictures],
            annotations=Annotations.from_rows(rows),
            where=places.__getitem__,
            class_names=classes,
            category_ids=range(len(classes)),
            report=report,
        )
        empty = int((self._starts[1:] == self._starts[:-1]).sum())
        report.note("picture without a box (background)", empty)


class _Item(NamedTuple):
    name: str
    corners: tuple[float, ...] | None
    difficult: bool
    line: int


class _Xml(NamedTuple):
    filename: str
    size: tuple[int, int] | None
    items: list[_Item]


class _Picture(NamedTuple):
    path: str
    size: tuple[int, int]
    file: str
    items: list[_Item]


def _split_names(home: Path, split: str, report: Report) -> list[str] | None:
    """The names in the split's list, None where the set has no lists."""
    folder = home / "ImageSets" / "Main"
    if not folder.is_dir():
        if not (home / split).is_dir():
            message = f"no ImageSets/Main; every XML file is taken for {split!r}"
            report.note("set without splits", file=home, message=message)
        return None
    file = folder / f"{split}.txt"
    if not file.is_file():
        splits = sorted(path.stem for path in folder.glob("*.txt"))
        raise ValueError(f"no split {split!r} in {folder}; it has {', '.join(splits)}")
    lines = file.read_bytes().decode("utf-8-sig", "surrogateescape").splitlines()
    # The lists of single classes have a mark after the name: 1, 0 or -1.
    names = [re.sub(r"\s+(-1|0|1)$", "", line.strip()) for line in lines]
    return list(dict.fromkeys(name for name in names if name))


def _folder(home: Path, choices: Sequence[str], suffixes: Sequence[str] | frozenset):
    """The first of the folders that holds a file of such a suffix."""
    for choice in choices:
        folder = home / choice
        if folder.is_dir() and any(
            os.path.splitext(name)[1].lower() in suffixes for name in os.listdir(folder)
        ):
            return folder
    raise ValueError(
        f"no {' or '.join(sorted(suffixes))} file in {home}, nor in its folders "
        f"{', '.join(choices[:-1])}; {describe(home)}"
    )


def _xml_files(
    names: Sequence[str], folder: Path, split: str, report: Report
) -> list[str]:
    """The XML files of the names that have one."""
    present = set(os.listdir(folder))
    files = []
    for name in names:
        for file in (f"{name}.xml", f"{os.path.splitext(name)[0]}.xml"):
            if file in present:
                files.append(os.path.join(folder, file))
                break
        else:
            message = f"{name} is listed in split {split!r}; left out"
            missing = os.path.join(folder, f"{name}.xml")
            report.add("missing annotation file", missing, None, message)
    if not files:
        raise ValueError(
            f"split {split!r} names {len(names)} pictures, none of them with an XML "
            f"file in {folder}; {describe(folder)}"
        )
    return files


def _read(files: Sequence[str], folder: Path, report: Report) -> list[_Picture]:
    """The pictures that have both a readable header and a readable XML file."""
    by_stem: dict[str, str] = {}
    present = sorted(os.listdir(folder), reverse=True)
    for name in present:
        stem, suffix = os.path.splitext(name)
        if suffix.lower() in PICTURE_SUFFIXES and not name.startswith("."):
            by_stem[stem] = name
    matched = []
    for file, content in zip(files, in_threads(_parse, files), strict=True):
        if isinstance(content, Exception):
            message = f"{content}; its picture is left out"
            report.add("unreadable annotation file", file, None, message)
            continue
        stem = os.path.basename(file)[:-4]
        # By the XML's own name first: tools leave old names in <filename>.
        name = by_stem.get(stem) or by_stem.get(os.path.splitext(content.filename)[0])
        if name is None:
            message = f"no picture {stem}.* in {folder}; ignored"
            report.add("label without a picture", file, None, message)
            continue
        matched.append((file, os.path.join(folder, name), content))
    sizes = read_sizes([path for _, path, _ in matched], report)
    pictures = []
    for (file, path, content), size in zip(matched, sizes, strict=True):
        if size is None or not _same_size(file, path, content.size, size, report):
            continue
        pictures.append(_Picture(path, size, file, content.items))
    return pictures


def _same_size(
    file: str,
    path: str,
    stated: tuple[int, int] | None,
    size: tuple[int, int],
    report: Report,
) -> bool:
    """Whether the boxes can be trusted, given the size that the XML states."""
    if stated is None or stated == size:
        return True
    came = f"{stated[1]} x {stated[0]} stated, {os.path.basename(path)} shows "
    came += f"{size[1]} x {size[0]}"
    if stated == size[::-1]:
        message = (
            f"{came}: turned, as by an EXIF orientation, so its boxes do not fit; left "
            "out. Remove the orientation from the picture, or turn the boxes"
        )
        report.add("size that the picture turns", file, None, message)
        return False
    message = f"{came}; the picture's own size is used"
    report.add("size that the picture does not have", file, None, message)
    return True


def _parse(file: str) -> _Xml | Exception:
    """The content of one XML file, or what is wrong with it."""
    try:
        data = Path(file).read_bytes()
        tree = ElementTree.fromstring(data)
    except (OSError, ElementTree.ParseError, ValueError, LookupError) as error:
        return error
    # ElementTree keeps no lines, so the tags are counted in the text.
    starts = [match.start() for match in re.finditer(rb"<object[\s>]", data)]
    lines = [data.count(b"\n", 0, start) + 1 for start in starts]
    found = tree.findall("object")
    if len(lines) != len(found):  # an encoding of more than a byte a letter
        lines = [1] * len(found)
    items = []
    for line, element in zip(lines, found, strict=True):
        values = [_number(element.findtext(f"bndbox/{key}")) for key in CORNERS]
        corners = tuple(value for value in values if value is not None)
        items.append(
            _Item(
                (element.findtext("name") or "").strip(),
                corners if len(corners) == 4 else None,
                bool(_number(element.findtext("difficult"))),
                line,
            )
        )
    sides = [_number(tree.findtext(f"size/{key}")) for key in ("height", "width")]
    good = all(side is not None and side >= 1 for side in sides)
    size = (int(sides[0] or 0), int(sides[1] or 0)) if good else None
    return _Xml((tree.findtext("filename") or "").strip(), size, items)


def _number(text: str | None) -> float | None:
    try:
        return float(text or "")
    except ValueError:
        return None


def _all_class_names(root: Path) -> list[str]:
    """Names of the objects in every XML file below a folder, sorted."""
    names = set()
    for content in in_threads(_parse, map(str, root.rglob("*.xml"))):
        if not isinstance(content, Exception):
            names.update(item.name for item in content.items)
    return sorted(names - {""})
