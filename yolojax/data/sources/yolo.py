"""YOLO text labels: a `data.yaml`, folders of pictures, one text file a picture."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from yolojax.data.polygons import read_polygon
from yolojax.data.report import Report
from yolojax.data.sources.base import (
    PICTURE_SUFFIXES,
    Annotations,
    LabelledPictures,
    describe,
    in_threads,
    list_pictures,
    read_sizes,
)
from yolojax.data.sources.data_yaml import SPLITS, DataYaml, path_parts, read_data_yaml
from yolojax.data.sources.image_lists import fold, read_list
from yolojax.data.sources.label_forms import Said, decide, survey
from yolojax.data.sources.label_lines import Form, parse_labels
from yolojax.files import FileError, expand_path, read_text

# Text files that label tools and exporters put beside the labels.
NOT_LABELS = ("classes", "predefined_classes", "labels", "train", "val", "test")
LARGEST_LABELS = 2**22  # bytes of a label file; 100,000 boxes
DEEPEST = 30  # folders of an entry that are tried without the first ones
FILES_OF_OTHER_SPLITS = 2000  # that show what lines mean


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
        config = read_data_yaml(Path(yaml), root=Path(root) if root else None)
        names = config.class_names
        paths = _split_pictures(config, split, root, report)
        labels = _find_labels(paths, report)
        pictures = _read(paths, labels, report)
        said = config.said._replace(polygons=polygons or config.said.polygons)
        texts = [picture.text for picture in pictures]
        forms = _forms(texts, config, split, root, said)
        rows, places, outlines = [], [], []
        for index, picture in enumerate(pictures):
            label_file = picture.label_file or picture.path
            lines = parse_labels(picture.text, label_file, len(names), report, forms)
            height, width = picture.size
            for line in lines:
                x1, y1, x2, y2 = line.corners
                box = (x1 * width, y1 * height, x2 * width, y2 * height)
                rows.append((index, line.label, False, math.nan, box))
                places.append((label_file, line.number, ""))
                polygon = read_polygon(line.polygon) * np.array([width, height], "f4")
                outlines.append([polygon] if len(polygon) else [])
        super().__init__(
            paths=[picture.path for picture in pictures],
            sizes=[picture.size for picture in pictures],
            annotations=Annotations.from_rows(rows, outlines if polygons else None),
            where=places.__getitem__,
            class_names=names,
            category_ids=range(len(names)),
            report=report,
        )


def _split_pictures(
    config: DataYaml, split: str, root: str | None, report: Report
) -> list[str]:
    """Paths of the pictures of a split, in order, each once."""
    file = config.file
    entries = config.splits.get(split, [])
    if not entries:
        splits = [key for key in SPLITS if config.splits.get(key)]
        raise ValueError(
            f"{file} has no split {split!r}; it has {', '.join(splits) or 'none'}"
        )
    home = file.parent
    if root is not None:
        base = Path(root)
        if not os.path.isdir(base):
            raise ValueError(f"no folder {base}, given as root; {describe(base)}")
    else:
        base = home / expand_path(config.folder.replace("\\", "/"), str(home))
    paths: list[str] = []
    for entry in entries:
        place = _locate(entry, split, base, config, report)
        if os.path.isdir(place):
            paths += list_pictures(place, report)
        else:
            paths += read_list(place, (base, home), report)
    paths = list(dict.fromkeys(paths))
    if not paths:
        reasons = "".join(f"; {e}" for e in report.entries("missing picture")[:2])
        shown = entries[0] if len(entries) == 1 else entries
        raise ValueError(
            f"no picture in {shown} of {file}, split {split!r}; "
            f"{describe(base if len(entries) > 1 else place)}{reasons}"
        )
    return paths


def _locate(
    entry: str, split: str, base: Path, config: DataYaml, report: Report
) -> Path:
    """The folder or list that an entry means.

    Exporters write `../train/images` where `train/images` is right, and a data set
    that was moved keeps its old `path`, or its old folders in front of each split;
    they are mended, and noted. Backslashes part folders, too.
    """
    file, home = config.file, config.file.parent
    forward = entry.replace("\\", "/")
    stripped = forward
    while stripped.startswith("../"):
        stripped = stripped.removeprefix("../")
    expected = [base / entry, base / expand_path(forward, str(base))]
    candidates = [*expected, base / stripped, home / forward, home / stripped]
    for place in candidates:
        if os.path.exists(place):
            break
    else:
        place = _find_end(entry, split, (base, home), config)
    if place is None:
        tried = ", ".join(dict.fromkeys(map(os.path.normpath, candidates)))
        raise ValueError(
            f"{file}, split {split!r}: {entry[:200]} does not exist; looked for "
            f"{tried[:800]}; "
            f"{describe(base)}"
        )
    if place not in expected:
        report.note(
            "split found in another place",
            file=file,
            message=f"{split}: {entry} means {candidates[0]}, which does not exist; "
            f"{place} is taken",
        )
    return place


def _find_end(
    entry: str, split: str, homes: Sequence[Path], config: DataYaml
) -> Path | None:
    """The place that the last parts of an entry name, where it can be no other's.

    `valid/images` of one split and `train/images` of another must not both become
    `images`, nor may a folder become one that holds all splits.
    """
    parts = path_parts(entry)
    others = [
        path_parts(other)
        for entries in config.splits.values()
        for other in entries
        if other != entry
    ]
    for skip in range(1, min(len(parts), DEEPEST)):
        end = parts[skip:]
        if any(other[-len(end) :] == end for other in others):
            return None
        for home in homes:
            place = home.joinpath(*end)
            named = len(end) > 1 or end[0] in (split, *SPLITS) or os.path.isfile(place)
            if named and os.path.exists(place):
                return place
    return None


def _find_labels(paths: Sequence[str], report: Report) -> list[str | None]:
    """The label file of each picture, None where there is none."""
    folders: dict[str, _LabelFolder] = {}
    labels: list[str | None] = []
    for path in paths:
        folder, name = os.path.split(path)
        if folder not in folders:
            folders[folder] = _label_folder(folder)
        labels.append(folders[folder].label_of(os.path.splitext(name)[0], path, report))
    if not any(labels):
        looked = ", ".join(list(dict.fromkeys(f.home for f in folders.values()))[:3])
        raise ValueError(
            f"no label file for any of {len(paths)} pictures, such as {paths[0]}; "
            f"looked in {looked}"
        )
    for folder, own in folders.items():
        for name, reason in own.unused(folder):
            file = os.path.join(own.home, name)
            report.add("label without a picture", file, None, f"{reason}; ignored")
    _note_shared_labels(paths, labels, report)
    return labels


def _note_shared_labels(
    paths: Sequence[str], labels: Sequence[str | None], report: Report
) -> None:
    """Note which images have the same label file, as `a.jpg` and `a.png`."""
    owners: dict[str, list[str]] = {}
    for path, label in zip(paths, labels, strict=True):
        if label is not None:
            owners.setdefault(label, []).append(os.path.basename(path))
    for label, names in owners.items():
        if len(names) > 1:
            message = f"{', '.join(names[:5])}: each of them has all of its boxes"
            report.note("label file of several images", file=label, message=message)


class _LabelFolder:
    """The label files for the images of one folder.

    Attributes:
        home: the folder that they lie in.
    """

    def __init__(self, home: str, labels: Sequence[str], images: Sequence[str]) -> None:
        """Take what the folders hold.

        Args:
            home: the folder of the labels.
            labels: names of the label files.
            images: names of the images, without suffix.
        """
        self.home = home
        self._images = frozenset(images)
        self._labels = labels
        self._exact: dict[str, str] = {}
        self._folded: dict[str, list[str]] = {}
        # x.txt before x.TXT: the last one stays.
        for label in sorted(labels, key=lambda name: name.endswith(".txt")):
            self._exact[label[:-4]] = label
        for stem, label in self._exact.items():
            if stem not in self._images:
                self._folded.setdefault(fold(stem), []).append(label)
        # Images that a label of another case may belong to.
        self._without = {fold(i) for i in self._images if i not in self._exact}

    def label_of(self, stem: str, path: str, report: Report) -> str | None:
        """The label file of an image, by its name without suffix."""
        name = self._exact.get(stem)
        if name is None:
            similar = self._folded.get(fold(stem), ())
            if len(similar) != 1:
                return None
            (name,) = similar
            message = f"{name} is taken, which differs in case or accents"
            report.note("label file in another case", file=path, message=message)
        return os.path.join(self.home, name)

    def unused(self, folder: str) -> list[tuple[str, str]]:
        """Label files that belong to no image, and why."""
        found = []
        for name in sorted(self._labels):
            stem = name[:-4]
            taken = self._exact[stem]
            if taken != name:
                found.append((name, f"{taken} is the label file of {stem}.*"))
            elif stem in self._images or _is_list(stem):
                continue
            elif len(self._folded[fold(stem)]) > 1:
                found.append((name, "several label files differ only in case"))
            elif fold(stem) not in self._without:
                found.append((name, f"no picture {stem}.* in {folder}"))
        return found


def _is_list(stem: str) -> bool:
    """Whether a file without an image of its name is a list of a label tool."""
    return stem.lower() in NOT_LABELS or stem.lower().startswith("readme")


def _label_folder(folder: str) -> _LabelFolder:
    """The labels of a folder of pictures."""
    home = folder
    # A folder that is a link may have its labels where it really lies.
    for place in (folder, os.path.realpath(folder)):
        head, images, tail = f"{place}/".rpartition("/images/")
        beside = os.path.normpath(f"{head}/labels/{tail}")
        if images and os.path.isdir(beside):
            home = beside
            break
    labels = [
        name
        for name in os.listdir(home)
        if name.lower().endswith(".txt") and not name.startswith(".")
    ]
    names = map(os.path.splitext, os.listdir(folder))
    pictures = [stem for stem, end in names if end.lower() in PICTURE_SUFFIXES]
    return _LabelFolder(home, labels, pictures)


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
        if isinstance(content, FileError):
            message = f"{content.reason}; its picture is left out"
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


def _read_text(file: str | None) -> str | FileError:
    if file is None:
        return ""
    try:
        return read_text(file, limit=LARGEST_LABELS)
    except FileError as error:
        return error


def _forms(
    texts: Sequence[str], config: DataYaml, split: str, root: str | None, said: Said
) -> dict[int, Form]:
    """What lines of more than five numbers mean, see `label_lines`.

    Where the lines of the split do not show it, those of the other splits are read.
    """
    evidence = survey(texts)
    forms = decide(evidence, said)
    if len(forms) == len(evidence):
        return forms
    for other in config.splits:
        if other == split or config.splits[other] == config.splits[split]:
            continue
        try:
            paths = _split_pictures(config, other, root, Report())
            labels = _find_labels(paths, Report())
        except ValueError:
            continue
        few = labels[:: -(-len(labels) // FILES_OF_OTHER_SPLITS)]
        texts = [
            *texts,
            *(t for t in in_threads(_read_text, few) if isinstance(t, str)),
        ]
    return decide(survey(texts), said)
