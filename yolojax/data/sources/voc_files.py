"""Which XML file of a Pascal VOC set is in a split, and for which image it is."""

from __future__ import annotations

import collections
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from yolojax.data.formats import is_read_name
from yolojax.data.report import Report
from yolojax.data.sources.base import PICTURE_SUFFIXES, describe, in_threads
from yolojax.data.sources.folder import FOLDER_NAMES
from yolojax.data.sources.stems import Match, Stems, decodings, match_line
from yolojax.data.sources.voc_xml import VocXml, read_xml
from yolojax.files import LARGEST_LIST, read_text
from yolojax.printable import printable

XML_SUFFIXES = frozenset((".xml",))
LINE_SUFFIXES = XML_SUFFIXES | PICTURE_SUFFIXES
ANNOTATION_FOLDERS = ("Annotations", "annotations", "annots", "xmls", ".")
PICTURE_FOLDERS = ("JPEGImages", "images", "Images", "imgs", ".")
HOMES = frozenset(name.lower() for name in ANNOTATION_FOLDERS + PICTURE_FOLDERS)
LONGEST_NAME = 100  # characters of a line of a list in a message


class Pair(NamedTuple):
    file: str  # the XML
    path: str  # the image
    content: VocXml


def split_lines(home: Path, split: str, report: Report) -> list[str] | None:
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


def has_splits(home: Path) -> bool:
    """Whether a folder is called like a split, so that not all of it is one set."""
    names = {name for aliases in FOLDER_NAMES.values() for name in aliases}
    return any(path.name.lower() in names and path.is_dir() for path in home.iterdir())


def find_files(
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


def listed_stems(
    lines: Sequence[str], xmls: Stems, split: str, report: Report
) -> list[str]:
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
        name = printable(names[0], LONGEST_NAME)
        message = f"{name} is listed in split {split!r}, and this is the only file "
        message += "of that name"
        report.note(
            "listed with another folder", file=xmls.files[stem][0], message=message
        )
    for line in missing:
        name = printable(line, LONGEST_NAME)
        message = f"{name} is listed in split {split!r}; left out"
        file = os.path.join(xmls.folder, f"{name}.xml")
        report.add("missing annotation file", file, None, message)
    if not found:
        such = f", such as {printable(missing[0], LONGEST_NAME)}" if missing else ""
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


def paired(
    names: Iterable[str],
    xmls: Stems,
    images: Stems,
    contents: Mapping[str, VocXml | str],
    report: Report,
) -> tuple[list[Pair], list[str]]:
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
    pairs: list[Pair] = []
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
        pairs.append(Pair(file, path, content))
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
    first that can be read; the others are reported."""
    name = os.path.basename(filename.replace("\\", "/"))
    named = [path for path in paths if os.path.basename(path) == name]
    # A phone's HEIC may lie beside the JPEG that was made of it.
    readable = [path for path in sorted(paths) if is_read_name(path)]
    chosen = (named or readable or sorted(paths))[0]
    for path in paths:
        if path != chosen:
            message = f"{file} is taken for {os.path.basename(chosen)}; left out"
            report.add("image that shares its XML file", path, None, message)
    return chosen
