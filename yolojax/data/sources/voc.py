"""Pascal VOC: one XML file a picture, splits as lists of names."""

from __future__ import annotations

import collections
import math
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
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
from yolojax.data.sources.folder import FOLDER_NAMES
from yolojax.data.sources.labelled import composed
from yolojax.data.sources.stems import Match, Stems, decodings, match_line
from yolojax.data.sources.voc_xml import VocBox, VocXml, read_xml
from yolojax.files import read_text
from yolojax.lookup import hint

XML_SUFFIXES = frozenset((".xml",))
LINE_SUFFIXES = XML_SUFFIXES | PICTURE_SUFFIXES
ANNOTATION_FOLDERS = ("Annotations", "annotations", "annots", "xmls", ".")
PICTURE_FOLDERS = ("JPEGImages", "images", "Images", "imgs", ".")
HOMES = frozenset(name.lower() for name in ANNOTATION_FOLDERS + PICTURE_FOLDERS)
DIFFICULT = ("ignore", "keep", "drop")
LARGEST_LIST = 2**25  # bytes
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
        lines = _split_lines(home, split, report)
        if lines is None and (home / split).is_dir():
            home = home / split
        search = lines is not None or not _has_splits(home)
        xmls = _files(home, ANNOTATION_FOLDERS, XML_SUFFIXES, report, search)
        # What is to be said of one folder is said once.
        own = Report()
        images = _files(home, PICTURE_FOLDERS, PICTURE_SUFFIXES, own, search)
        if images.folder != xmls.folder:
            report.merge(own)
        stems = list(xmls.files)
        if lines is not None:
            stems = _listed(lines, xmls, split, report)
        contents = {} if class_names else _all_contents(Path(root))
        classes = [*map(composed, class_names or _class_names(contents, root))]
        labels = {name: label for label, name in enumerate(classes)}
        pairs, free = _paired(stems, xmls, images, contents, report)
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


class _Pair(NamedTuple):
    file: str  # the XML
    path: str  # the image
    content: VocXml


class _Picture(NamedTuple):
    path: str
    size: tuple[int, int]
    file: str
    content: VocXml


def _split_lines(home: Path, split: str, report: Report) -> list[str] | None:
    """The lines of the split's list, None where the set has no lists."""
    folder = home / "ImageSets" / "Main"
    if not folder.is_dir() and any((home / "ImageSets").glob("*.txt")):
        folder = home / "ImageSets"
    if not folder.is_dir():
        if not (home / split).is_dir():
            message = f"no ImageSets/Main; every XML file is taken for {split!r}"
            report.note("set without splits", file=home, message=message)
        return None
    file = folder / f"{split}.txt"
    if not file.is_file():
        splits = sorted(path.stem for path in folder.glob("*.txt"))
        raise ValueError(f"no split {split!r} in {folder}; it has {', '.join(splits)}")
    text = read_text(file, limit=LARGEST_LIST, errors="surrogateescape")
    return list(dict.fromkeys(filter(None, map(str.strip, text.splitlines()))))


def _has_splits(home: Path) -> bool:
    """Whether a folder is called like a split, so that not all of it is one set."""
    names = {name for aliases in FOLDER_NAMES.values() for name in aliases}
    return any(path.name.lower() in names and path.is_dir() for path in home.iterdir())


def _files(
    home: Path,
    choices: Sequence[str],
    suffixes: Collection[str],
    report: Report,
    search: bool,
) -> Stems:
    """The files of such a suffix in the first of the folders that holds one.

    Args:
        home: where the folders are looked for.
        choices: their names; the last is `home` itself, without folders below.
        suffixes: in lower case.
        report: what is to be said of the folder.
        search: whether any folder below `home` will do where it is none of these.
    """
    tries = [(home / choice, choice != ".") for choice in choices]
    if search:
        tries.append((home, True))
    found = Report()
    for folder, deep in tries:
        if folder.is_dir():
            found = Report()
            stems = Stems(folder, suffixes, found, deep=deep)
            if stems.files:
                report.merge(found)
                return stems
    raise ValueError(
        f"no {' or '.join(sorted(suffixes))} file in {home}, nor in its folders "
        f"{', '.join(choices[:-1])}; {describe(home)}\n{found.render()}".rstrip()
    )


def _listed(lines: Sequence[str], xmls: Stems, split: str, report: Report) -> list[str]:
    """Of the lines of a list, the XML files that there are, by their stems."""
    found: dict[str, None] = {}
    elsewhere: dict[str, list[str]] = collections.defaultdict(list)
    missing: list[str] = []
    for line in lines:
        match = _match(line, xmls)
        if match is None:
            missing.append(line)
        elif match.exact:
            found[match.stem] = None
        else:
            elsewhere[match.stem].append(line)
    for stem, names in elsewhere.items():
        # The bare name will do only where it can mean nothing else.
        if stem in found or len(names) > 1:
            missing += names
            continue
        found[stem] = None
        message = f"{names[0]} is listed in split {split!r}, and this is the only file "
        message += "of that name"
        report.note(
            "listed with another folder", file=xmls.files[stem][0], message=message
        )
    for line in missing:
        name = line.encode("utf-8", "backslashreplace").decode()
        message = f"{name} is listed in split {split!r}; left out"
        file = os.path.join(xmls.folder, f"{name}.xml")
        report.add("missing annotation file", file, None, message)
    if not found:
        such = f", such as {missing[0]!r}" if missing else ""
        raise ValueError(
            f"split {split!r} names {len(lines)} pictures, none of them with an XML "
            f"file in {xmls.folder}{such}; {describe(xmls.folder)}"
        )
    return list(found)


def _match(line: str, xmls: Stems) -> Match | None:
    """The XML file that a line names; it may be in the encoding of another system."""
    for text in decodings(line):
        if match := match_line(text, xmls, LINE_SUFFIXES, HOMES):
            return match
    return None


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


def _paired(
    names: Iterable[str],
    xmls: Stems,
    images: Stems,
    contents: Mapping[str, VocXml | str],
    report: Report,
) -> tuple[list[_Pair], list[str]]:
    """Each XML file with its image, and the stems of images that no XML file is for.

    An XML file belongs to the image of its own name; tools leave old names in
    <filename>. That counts where there is no such image, and the image that it names
    has no XML file of its own.
    """
    owned = {stem: _own_image(stem, xmls, images) for stem in xmls.files}
    taken = set(filter(None, owned.values()))
    files = _one_each(names, xmls, report)
    unread = [file for file in files.values() if file not in contents]
    read = zip(unread, in_threads(read_xml, unread), strict=True)
    contents = {**contents, **dict(read)}
    pairs: list[_Pair] = []
    claims: dict[str, list[tuple[str, VocXml]]] = collections.defaultdict(list)
    for stem, file in files.items():
        content = contents[file]
        if isinstance(content, str):
            message = f"{content}; its picture is left out"
            report.add("unreadable annotation file", file, None, message)
            continue
        image = owned[stem]
        if image is None:
            image = _named_image(content.filename, images)
            if image in taken:
                image = None
        if image is None:
            message = f"no picture {stem}.* in {images.folder}; ignored"
            report.add("label without a picture", file, None, message)
            continue
        claims[image].append((file, content))
    for image, claimed in claims.items():
        taken.add(image)
        if len(claimed) > 1:
            # Whose boxes are right cannot be told.
            for file, _ in claimed:
                message = f"{len(claimed)} XML files are for image {image}; left out"
                report.add("image with several XML files", file, None, message)
            continue
        file, content = claimed[0]
        path = _chosen(images.files[image], content.filename, file, report)
        pairs.append(_Pair(file, path, content))
    return pairs, [stem for stem in images.files if stem not in taken]


def _one_each(names: Iterable[str], xmls: Stems, report: Report) -> dict[str, str]:
    """The XML file of each stem; where several differ by suffix, the first."""
    for name in (names := list(names)):
        first, *others = xmls.files[name]
        for other in others:
            message = f"differs from {first} by its suffix alone; left out"
            report.add("annotation file given twice", other, None, message)
    return {name: xmls.files[name][0] for name in names}


def _own_image(stem: str, xmls: Stems, images: Stems) -> str | None:
    """The image that an XML file has the name of, with its folders or without."""
    found = images.find(stem)
    if found is None and xmls.is_bare(stem):
        found = images.find_bare(stem)
    return found


def _named_image(filename: str, images: Stems) -> str | None:
    """The image that <filename> names."""
    name = filename.replace("\\", "/")
    stem, suffix = os.path.splitext(name)
    stem = stem if suffix.lower() in PICTURE_SUFFIXES else name
    return (images.find(stem) or images.find_bare(stem)) if stem else None


def _chosen(paths: Sequence[str], filename: str, file: str, report: Report) -> str:
    """Of images that differ by their suffix, that which <filename> names, or else the
    first; the others are reported."""
    name = os.path.basename(filename.replace("\\", "/"))
    named = [path for path in paths if os.path.basename(path) == name]
    chosen = (named or sorted(paths))[0]
    for path in paths:
        if path != chosen:
            message = f"{file} is taken for {os.path.basename(chosen)}; left out"
            report.add("image that shares its XML file", path, None, message)
    return chosen


def _usable(pairs: Sequence[_Pair], report: Report) -> list[_Picture]:
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
            message = f"class {box.name!r} is not one of {', '.join(labels)}; dropped"
        if problem:
            report.add(problem, picture.file, box.line, message)
        else:
            kept.append(box)
    return kept
