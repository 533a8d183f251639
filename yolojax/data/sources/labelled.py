"""What the sources for classification share: pictures with labels instead of boxes.

A label is a box that covers the whole picture, so that caches, checks, samplers and
batches are those of the detection sources.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from yolojax.data.report import Report
from yolojax.data.sources.base import read_sizes
from yolojax.records import DECODING, Decoding, Example


class ClassifiedPictures:
    """Pictures, each with one label, several or none.

    Attributes:
        class_names: what the labels 0, 1, ... stand for; () where nothing has a label.
        category_ids: the numbers that the names are, where all are; else the labels.
        report: what was wrong.
        multi_label: whether a picture may have several labels.
        decoding: what its examples have; may be set once the images are looked at.

    Raises:
        ValueError: there is no picture, or a class name that is no text.
    """

    decoding: Decoding = DECODING

    def __init__(
        self,
        *,
        names: Sequence[str],
        sizes: Sequence[tuple[int, int]],
        labels: Sequence[Sequence[int]],
        class_names: Sequence[str],
        report: Report,
        multi_label: bool = False,
    ) -> None:
        if not names:
            raise ValueError(
                f"not one picture can be used:\n{report.render()}".rstrip(":\n")
            )
        for name in class_names:
            if name.encode(errors="replace").decode() != name:
                raise ValueError(f"the class name {name!r} is no valid text; rename it")
        self.class_names = tuple(class_names)
        self.category_ids = numbers_of(class_names)
        self.report = report
        self.multi_label = multi_label
        self._names = list(names)
        self._sizes = np.array(sizes, np.int32).reshape(-1, 2)
        self._labels = np.array([label for own in labels for label in own], np.int32)
        self._starts = np.cumsum([0, *map(len, labels)])
        report.note("picture without a label", sum(not len(own) for own in labels))

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int, /) -> Example:
        index = range(len(self))[index]
        labels = self._labels[self._starts[index] : self._starts[index + 1]]
        return whole_picture(
            self._image(index),
            labels,
            image_id=index,
            size=tuple(self._sizes[index].tolist()),
            name=self._names[index],
            decoding=self.decoding,
        )

    def _image(self, index: int) -> str | bytes | np.ndarray:
        """What `Example.image` says; here the path of a file."""
        return self._names[index]


def whole_picture(
    image: str | bytes | np.ndarray,
    labels: np.ndarray,
    *,
    image_id: int,
    size: tuple[int, int],
    name: str,
    decoding: Decoding = DECODING,
) -> Example:
    """The example of a picture with labels; see the module."""
    count = len(labels)
    corners = np.array([0, 0, size[1], size[0]], np.float32)
    return Example(
        image=image,
        boxes=np.tile(corners, (count, 1)),
        labels=np.array(labels, np.int32),
        crowd=np.zeros(count, np.bool_),
        areas=np.full(count, size[0] * size[1], np.float32),
        image_id=image_id,
        size=size,
        name=name,
        decoding=decoding,
    )


def readable(
    paths: Sequence[str], labels: Sequence[Sequence[int]], report: Report
) -> dict[str, Any]:
    """Names, sizes and labels of the pictures whose header can be read.

    The others are reported.
    """
    sizes = read_sizes(paths, report)
    rows = [index for index, size in enumerate(sizes) if size is not None]
    return {
        "names": [paths[index] for index in rows],
        "sizes": [sizes[index] for index in rows],
        "labels": [labels[index] for index in rows],
    }


def composed(name: str) -> str:
    """A class name as most write it: macOS parts letters from their accents."""
    return unicodedata.normalize("NFC", name)


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Class names, each once: by number where all are numbers, else as text."""
    distinct = set(names)
    if all(re.fullmatch(r"\d+", name, re.ASCII) for name in distinct):
        return tuple(sorted(distinct, key=lambda name: (int(name), name)))
    return tuple(sorted(distinct))


def numbers_of(class_names: Sequence[str]) -> tuple[int, ...]:
    """The numbers that the names are, or 0, 1, ... where not all are numbers."""
    if all(re.fullmatch(r"\d+", name, re.ASCII) for name in class_names):
        numbers = tuple(map(int, class_names))
        if len(set(numbers)) == len(numbers):
            return numbers
    return tuple(range(len(class_names)))


def check_classes(classes: Any) -> tuple[str, ...]:
    """The class names that a config gives; () for none.

    Raises:
        ValueError: not names, or one of them twice.
    """
    fine = isinstance(classes, tuple | list) and all(
        isinstance(name, str) and name for name in classes
    )
    if not fine or len(set(map(composed, classes))) < len(classes):
        raise ValueError(f"classes must be distinct names, not {classes!r}")
    return tuple(map(composed, classes))


def report_counts(
    labels: Iterable[Sequence[int]],
    class_names: Sequence[str],
    where: object,
    report: Report,
    *,
    training: bool,
) -> None:
    """Report classes of which there is too little to learn from or to measure by.

    Args:
        labels: of each picture.
        class_names: names by label.
        where: what they are of, for the report.
        report: takes what was found.
        training: whether to learn from; a class that is not measured is only noted.
    """
    flat = np.array([label for own in labels for label in own], np.int64)
    counts = np.bincount(flat, minlength=len(class_names))
    for label, count in enumerate(counts.tolist()):
        name = class_names[label]
        if count == 0 and training:
            message = f"class {name!r} has no picture here, and cannot be learnt"
            report.add("class without a picture", where, None, message)
        elif count == 0:
            message = f"no picture of class {name!r}"
            report.note("class without a picture", file=where, message=message)
        elif count == 1 and training:
            message = f"class {name!r} has one picture: too few to learn from, and to "
            message += "have another to measure by"
            report.add("class with a single picture", where, None, message)
