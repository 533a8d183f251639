"""Pascal VOC: one XML file a picture, splits as lists of names."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from yolojax.data.report import SHOWN, Report
from yolojax.data.sources.base import (
    PICTURE_SUFFIXES,
    SET_ROOT,
    Annotations,
    LabelledPictures,
    describe,
    in_threads,
    read_sizes,
)
from yolojax.data.sources.labelled import composed
from yolojax.data.sources.stems import Stems
from yolojax.data.sources.voc_files import (
    ANNOTATION_FOLDERS,
    PICTURE_FOLDERS,
    XML_SUFFIXES,
    Pair,
    find_files,
    has_splits,
    listed_stems,
    paired,
    split_lines,
)
from yolojax.data.sources.voc_xml import VocBox, VocXml, read_xml
from yolojax.lookup import hint, listed

DIFFICULT = ("ignore", "keep", "drop")
# A box that juts out by more, in shares of a side, was drawn on a larger image.
OVERSHOOT = 0.01


class VocSource(LabelledPictures):
    """Pictures and boxes of one split of a Pascal VOC folder.

    Corners are taken as they stand. VOC itself counts pixels from 1 and includes the
    last one, which would be `xmin - 1, ymin - 1, xmax, ymax`; most sets that come as
    XML today do not, so no pixel is subtracted.

    Args:
        root: holds `JPEGImages` and `Annotations`, or `images` and `annots`, or
            pictures and XML files side by side, whole or in a folder a split. Both may
            have folders themselves.
        split: a list `ImageSets/Main/<split>.txt`, or else a folder; where there is
            neither, every XML file is taken. A line of the list may have a path or a
            suffix, and behind the name the mark of a class, which is cut where no XML
            file has the whole name.
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
        lines = split_lines(home, split, report)
        if lines is None and (home / split).is_dir():
            home = home / split
        search = lines is not None or not has_splits(home)
        xmls = find_files(home, ANNOTATION_FOLDERS, XML_SUFFIXES, report, search)
        # What is to be said of one folder is said once.
        own = Report()
        images = find_files(home, PICTURE_FOLDERS, PICTURE_SUFFIXES, own, search)
        if images.folder != xmls.folder:
            report.merge(own)
        stems = list(xmls.files)
        if lines is not None:
            stems = listed_stems(lines, xmls, split, report)
        contents = {} if class_names else _all_contents(Path(root))
        classes = [*map(composed, class_names or _class_names(contents, root))]
        labels = {name: label for label, name in enumerate(classes)}
        pairs, free = paired(stems, xmls, images, contents, report)
        if lines is None:
            for stem in free:
                message = f"no XML file {stem}.xml in {xmls.folder}; left out"
                file = images.files[stem][0]
                report.note("image without an XML file", file=file, message=message)
        pictures = _usable(pairs, report)
        rows, places = [], []
        for index, picture in enumerate(pictures):
            for box in _known(picture, labels, difficult, report):
                crowd = box.difficult and difficult == "ignore"
                rows.append((index, labels[box.name], crowd, math.nan, box.corners))
                places.append((picture.file, box.line, f"{box.name}: "))
        super().__init__(
            paths=[picture.path for picture in pictures],
            sizes=[picture.size for picture in pictures],
            annotations=Annotations.from_rows(rows),
            where=places.__getitem__,
            class_names=classes,
            category_ids=range(len(classes)),
            report=report,
        )
        empty = int((self._starts[1:] == self._starts[:-1]).sum())
        report.note("picture without a box (background)", empty)


class _Picture(NamedTuple):
    path: str
    size: tuple[int, int]
    file: str
    content: VocXml


def _all_contents(root: Path) -> dict[str, VocXml | str]:
    """What is in every XML file below a folder, or what is wrong with it, by path."""
    stems = Stems(root, XML_SUFFIXES, Report())
    files = [file for found in stems.files.values() for file in found]
    return dict(zip(files, in_threads(read_xml, files), strict=True))


def _class_names(contents: Mapping[str, VocXml | str], root: str) -> list[str]:
    """Names of the objects, sorted.

    Raises:
        ValueError: there is none; says why the first files cannot be read.
    """
    names, faulty = set(), []
    for file, content in contents.items():
        if isinstance(content, str):
            faulty.append(f"{file}: {content}")
        else:
            names.update(box.name for box in content.boxes)
    if names - {""}:
        return sorted(names - {""})
    reasons = ""
    if faulty:
        reasons = f"; {len(faulty)} of {len(contents)} cannot be read:\n  "
        reasons += "\n  ".join(faulty[:SHOWN])
    raise ValueError(f"no object in any XML file below {root}{reasons}")


def _usable(pairs: Sequence[Pair], report: Report) -> list[_Picture]:
    """The pictures whose headers can be read and that their boxes fit."""
    sizes = read_sizes([pair.path for pair in pairs], report)
    pictures = []
    for (file, path, content), size in zip(pairs, sizes, strict=True):
        if size is not None and _same_size(file, path, content, size, report):
            pictures.append(_Picture(path, size, file, content))
    return pictures


def _same_size(
    file: str, path: str, content: VocXml, size: tuple[int, int], report: Report
) -> bool:
    """Whether the boxes can be trusted, given the size that the XML states."""
    stated = content.size
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
    if content.boxes and _is_resized(content, stated, size):
        message = f"{came}: resized, so its boxes do not fit; left out"
        report.add("size that the picture does not have", file, None, message)
        return False
    message = f"{came}; the picture's own size is used"
    report.add("size that the picture does not have", file, None, message)
    return True


def _is_resized(
    content: VocXml, stated: tuple[int, int], size: tuple[int, int]
) -> bool:
    """Whether the boxes were drawn on another size: it has the same shape, or a box
    that the image has no room for."""
    shapes = abs(stated[1] * size[0] - stated[0] * size[1])
    if shapes <= max(stated):  # but for rounding
        return True
    height, width = (side + max(1.0, OVERSHOOT * side) for side in size)
    found = [box.corners for box in content.boxes if box.corners]
    return any(
        (width < x2 <= stated[1] + 1) or (height < y2 <= stated[0] + 1)
        for _, _, x2, y2 in found
    )


def _known(
    picture: _Picture, labels: Mapping[str, int], difficult: str, report: Report
) -> list[VocBox]:
    """The boxes with a class and corners; the others are reported."""
    content = picture.content
    for line, message in content.problems:
        report.add("unknown mark", picture.file, line, message)
    report.note("turned box, taken as the box around it", content.turned)
    kept = []
    for box in content.boxes:
        problem = None
        if box.difficult and difficult == "drop":
            continue
        if box.corners is None:
            problem = "box with the wrong number of fields"
            message = f"{box.name}: expected a bndbox with xmin ymin xmax ymax as "
            message += "numbers; dropped"
        elif not box.name:
            problem = "object without a name"
            message = "expected <name> with a class; dropped"
        elif box.name not in labels:
            problem = "class out of range"
            message = (
                f"class {box.name!r} is not one of {listed(list(labels), 20)}; dropped"
            )
        if problem:
            report.add(problem, picture.file, box.line, message)
        else:
            kept.append(box)
    return kept
