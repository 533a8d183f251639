"""Pictures whose names say what they show: `<class>_<n>.jpg`."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from yolojax.data.report import Report
from yolojax.data.sources.base import describe, list_pictures
from yolojax.data.sources.folder import find_root, split_folder
from yolojax.data.sources.labelled import (
    ClassifiedPictures,
    check_classes,
    composed,
    in_order,
    readable,
    report_counts,
)
from yolojax.data.splits import check_split, stratified_split

# All up to the last underscore and a number: `green_apple_12.jpg` is a green apple.
PATTERN = r"(^|/)(?P<label>[^/]+)_\d+\.[^./]+$"
# The published label of pictures that have none.
NO_LABEL = "-1"


class FilenameSource(ClassifiedPictures):
    """Pictures by a part of their names, which is their class.

    `root` has the folders train and val or test, or it has the pictures, which are then
    split. The classes are those of train, in the order of their numbers where all are
    numbers, else of the alphabet. Where no name has a label, as in a test's folder, the
    pictures are without labels; so are those of the class -1.
    """

    def __init__(
        self,
        *,
        root: str,
        split: str = "train",
        fractions: Sequence[float] = (0.8, 0.2),
        seed: int = 0,
        classes: Sequence[str] = (),
        pattern: str = PATTERN,
    ) -> None:
        r"""List the pictures and read their sizes.

        Args:
            root: the folder; pictures in folders below are found, too.
            split: `train`, `val` or `test`.
            fractions: shares of train, val and perhaps test, where `root` has no
                folder train; each class is split by them.
            seed: of that split, see `splits.stratified_split`.
            classes: names in another order, or fewer; () takes those of train.
            pattern: a regular expression with a group `label`, searched in the path
                from the folder on, with `/` between its parts, as
                `(?P<label>cat|dog)\.\d+`.

        Raises:
            ValueError: an argument that cannot be, a folder that does not exist, no
                picture.
        """
        check_split(split, fractions, seed)
        expression = _compiled(pattern)
        report = Report()
        home = find_root(root)
        given = check_classes(classes)
        part = split_folder(home, split, class_folders=False)
        folder = part or home
        paths = list_pictures(folder, report)
        if not paths:
            raise ValueError(f"no picture in {folder}; {describe(folder)}")
        found = _labels(paths, folder, expression)
        of_train = found
        if part is not None and split != "train":
            train = split_folder(home, "train", class_folders=False) or home
            of_train = _labels(list_pictures(train, Report()), train, expression)
        known = in_order(name for name in of_train if name not in (None, NO_LABEL))
        names = given or known
        usable, labels = _use(paths, found, names, pattern, report)
        training = split == "train" or part is None
        if any(labels):
            report_counts(labels, names, folder, report, training=training)
        if part is None:
            chosen = stratified_split(
                [os.path.relpath(path, folder) for path in usable],
                labels,
                split=split,
                fractions=fractions,
                seed=seed,
            )
            usable = [usable[index] for index in chosen]
            labels = [labels[index] for index in chosen]
        super().__init__(
            **readable(usable, labels, report), class_names=names, report=report
        )


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        expression = re.compile(pattern)
    except (re.error, TypeError) as error:
        raise ValueError(
            f"pattern {pattern!r} is not a regular expression: {error}"
        ) from error
    if "label" not in expression.groupindex:
        raise ValueError(
            f"pattern {pattern!r} has no group named label, as in (?P<label>...)"
        )
    return expression


def _labels(
    paths: Sequence[str], folder: Path, expression: re.Pattern[str]
) -> list[str | None]:
    """The label in each path; None where the expression does not fit."""
    found: list[str | None] = []
    for path in paths:
        name = os.path.relpath(path, folder).replace(os.sep, "/")
        match = expression.search(name)
        found.append(composed(match["label"] or "") if match else None)
    return found


def _use(
    paths: Sequence[str],
    found: Sequence[str | None],
    names: Sequence[str],
    pattern: str,
    report: Report,
) -> tuple[list[str], list[tuple[int, ...]]]:
    """The pictures that can be used and their labels; the others are reported."""
    by_name = {name: label for label, name in enumerate(names)}
    if not any(found):
        message = f"fits not the pattern {pattern}, nor does any other name here"
        report.note("file name without a label", file=paths[0], message=message)
        return list(paths), [()] * len(paths)
    usable: list[str] = []
    labels: list[tuple[int, ...]] = []
    for path, name in zip(paths, found, strict=True):
        if not name:
            message = f"expected a name that fits the pattern {pattern}; left out"
            report.add("file name without a label", path, None, message)
        elif name != NO_LABEL and name not in by_name:
            message = f"class {name!r}, which train does not have; it has "
            message += f"{', '.join(names[:8])}{', ...' * (len(names) > 8)}; left out"
            report.add("unknown class", path, None, message)
        else:
            usable.append(path)
            labels.append(() if name == NO_LABEL else (by_name[name],))
    return usable, labels
