"""Pictures in class folders: `train/CLASS/*.jpg`, or `CLASS/*.jpg` to be split."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from yolojax.data.report import Report
from yolojax.data.sources.base import SET_ROOT, describe, list_pictures
from yolojax.data.sources.labelled import (
    ClassifiedPictures,
    check_classes,
    composed,
    in_order,
    readable,
    report_counts,
)
from yolojax.data.splits import check_split, stratified_split
from yolojax.data.walking import is_folder

# What the folder of a split may be called.
FOLDER_NAMES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}


class FolderSource(ClassifiedPictures):
    """Pictures by the folders that they lie in, which are their classes.

    Either `root` has the folders train and val or test, each with class folders, or it
    has the class folders itself, which are then split. The classes are those of train,
    whichever split is asked for, in the order of their numbers where all names are
    numbers, else of the alphabet. A folder that has pictures but no class folders is
    without labels, as for a test or for `data.unlabelled`.
    """

    def __init__(
        self,
        *,
        root: str,
        split: str = "train",
        fractions: Sequence[float] = (0.8, 0.2),
        seed: int = 0,
        classes: Sequence[str] = (),
    ) -> None:
        """List the pictures and read their sizes.

        Args:
            root: the folder.
            split: `train`, `val` or `test`.
            fractions: shares of train, val and perhaps test, where `root` has the
                class folders itself; each class is split by them.
            seed: of that split, see `splits.stratified_split`.
            classes: names in another order, or fewer; () takes those of train.

        Raises:
            ValueError: an argument that cannot be, a folder that does not exist, no
                picture.
        """
        check_split(split, fractions, seed)
        report = Report()
        home = find_root(root)
        given = check_classes(classes)
        part = split_folder(home, split)
        train = split_folder(home, "train") if part is not None else home
        folder = part or home
        found = _pictures_by_folder(folder, report)
        strays = found.pop("", [])
        names = given or _class_names(train or folder)
        if not found or (strays and not any(found.values())):
            if not strays:
                raise ValueError(f"no picture in {folder}; {describe(folder)}")
            paths, labels = strays, [()] * len(strays)
        else:
            if not names:
                raise ValueError(
                    f"no picture in the class folders of {train or folder}; "
                    f"{describe(train or folder)}"
                )
            paths, labels = _read_folders(folder, found, names, report)
            for path in strays:
                message = "beside the class folders, so that its class is unknown; "
                message += "left out"
                report.add("picture outside of a class folder", path, None, message)
            training = split == "train" or part is None
            report_counts(labels, names, folder, report, training=training)
            if part is None:
                chosen = stratified_split(
                    [os.path.relpath(path, folder) for path in paths],
                    labels,
                    split=split,
                    fractions=fractions,
                    seed=seed,
                )
                paths = [paths[index] for index in chosen]
                labels = [labels[index] for index in chosen]
        super().__init__(
            **readable(paths, labels, report), class_names=names, report=report
        )


def find_root(root: str) -> Path:
    """The folder of a data set.

    Raises:
        ValueError: it does not exist.
    """
    home = Path(root)
    if not home.is_dir():
        raise ValueError(f"no folder {home}; {describe(home)}; {SET_ROOT}")
    return home


def split_folder(home: Path, split: str, *, class_folders: bool = True) -> Path | None:
    """The folder of a split; None where the data set is one that is to be split.

    A class may be called `train` as well: that folder is a split where there is one for
    val or test beside it, or where it has folders itself.

    Args:
        home: of the data set.
        split: which one.
        class_folders: whether the pictures lie in class folders; otherwise any folder
            `train` is a split.

    Raises:
        ValueError: there are splits, but not this one.
    """
    splits: dict[str, Path] = {}
    for name in _folders(home):
        for key, aliases in FOLDER_NAMES.items():
            if name.lower() in aliases:
                splits.setdefault(key, home / name)
    train = splits.get("train")
    if train is None or (class_folders and len(splits) == 1 and not _folders(train)):
        return None
    if split not in splits:
        part = f". To keep a part of train for it, give root {train}" * (split == "val")
        raise ValueError(f"no folder {split} in {home}; {describe(home)}{part}")
    return splits[split]


class Deeper(NamedTuple):
    """Class folders that lie deeper than where they are looked for.

    Attributes:
        folder: that holds them.
        names: theirs.
        root: whether `folder` as root has all splits.
    """

    folder: Path
    names: list[str]
    root: bool


def find_deeper(root: str, split: str) -> Deeper | None:
    """Class folders below the only folder, as in `root/images/cat`, or None.

    A folder that an archive doubled counts as well, `root/train/train/cat`.

    Args:
        root: of a `FolderSource`.
        split: its split.

    Raises:
        ValueError: as `find_root` and `split_folder`.
    """
    home = find_root(root)
    part = split_folder(home, split)
    folder, doubled = part or home, False
    while True:
        found = _pictures_by_folder(folder, Report())
        strays = len(found.pop("", []))
        names = [name for name, paths in found.items() if paths]
        if len(names) != 1 or strays >= len(found[names[0]]):
            break
        folder, doubled = folder / names[0], True
    splits = [n for n in names if any(n.lower() in a for a in FOLDER_NAMES.values())]
    if len(names) < 2 or strays >= sum(map(len, found.values())):
        return None
    if not doubled and len(splits) < len(names):
        return None
    beside = [n for n in _folders(home) if part is not None and home / n != part]
    apart = any(n.lower() in a for a in FOLDER_NAMES.values() for n in beside)
    return Deeper(folder, names, bool(splits) or not apart)


def _folders(home: Path) -> list[str]:
    """Names of the folders in a folder, sorted, hidden ones left out."""
    with os.scandir(home) as entries:
        names = [entry.name for entry in entries if is_folder(entry)]
    return sorted(name for name in names if not name.startswith("."))


def _pictures_by_folder(folder: Path, report: Report) -> dict[str, list[str]]:
    """Paths of the pictures in each folder of a folder, and "" for those beside them.

    All of it is walked at once: a picture that several class folders lead to, by links,
    has the class of the folder that it lies in.
    """
    found: dict[str, list[str]] = {name: [] for name in _folders(folder)}
    start = len(os.path.join(folder, ""))
    for path in list_pictures(folder, report):
        name, separator, _ = path[start:].partition(os.sep)
        found.setdefault(name if separator else "", []).append(path)
    return found


def _class_names(train: Path) -> tuple[str, ...]:
    """The folders that hold a picture."""
    found = _pictures_by_folder(train, Report())
    found.pop("", None)
    return in_order(composed(name) for name, paths in found.items() if paths)


def _read_folders(
    folder: Path, found: Mapping[str, list[str]], names: Sequence[str], report: Report
) -> tuple[list[str], list[tuple[int, ...]]]:
    """Paths and labels of all pictures in the class folders, by class."""
    by_name = {name: label for label, name in enumerate(names)}
    paths: list[str] = []
    labels: list[tuple[int, ...]] = []
    for name, here in found.items():
        if not here:
            message = "no picture in it, expected those of a class; left out"
            report.add("empty class folder", folder / name, None, message)
        elif composed(name) not in by_name:
            message = f"{len(here)} pictures of a class that train does not have, "
            message += f"which has {', '.join(names[:8])}{', ...' * (len(names) > 8)}"
            report.add("unknown class", folder / name, None, f"{message}; left out")
        else:
            paths += here
            labels += [(by_name[composed(name)],)] * len(here)
    return paths, labels
