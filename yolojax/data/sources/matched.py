"""A data set with the classes of another one, matched by their names."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Sequence

import numpy as np

from yolojax.data.json_fields import shown
from yolojax.data.report import Report
from yolojax.data.sources.base import Source
from yolojax.lookup import hint, listed
from yolojax.records import Example, Id


class MatchedSource:
    """A source whose labels stand for other classes, those of the same names.

    Attributes:
        class_names: the other classes.
        category_ids: by label, the source's own id of the class. Of a class that the
            source lacks, the other id, or a number that is free.
        report: of the source, and what is different in its classes.
        multi_label: of the source, where it has labels instead of boxes.
    """

    def __init__(
        self, source: Source, class_names: Sequence[str], category_ids: Sequence[Id]
    ) -> None:
        """Match the classes.

        Args:
            source: labelled images.
            class_names: the classes that labels are to stand for.
            category_ids: their ids.

        Raises:
            ValueError: no class has the name of one of these; or there are labels of
                a class that has not.
        """
        own, wanted = _counted(source.class_names), _counted(class_names)
        place = {key: label for label, key in enumerate(wanted)}
        self._labels = np.array([place.get(key, -1) for key in own], np.int32)
        self._source = source
        self.class_names = tuple(class_names)
        self._check()
        self.category_ids = self._ids(category_ids)
        self.report = Report()
        self.report.merge(source.report)
        self._note()
        if hasattr(source, "multi_label"):
            self.multi_label: bool = getattr(source, "multi_label")  # noqa: B009

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int, /) -> Example:
        example = self._source[index]
        return dataclasses.replace(example, labels=self._labels[example.labels])

    def _check(self) -> None:
        names = self._source.class_names
        strange = np.flatnonzero(self._labels < 0)
        if len(strange) == len(names):
            raise ValueError("no name is in both")
        if not len(strange):
            return
        counts = np.zeros(len(names), np.int64)
        for index in range(len(self._source)):
            labels = self._source[index].labels
            counts += np.bincount(labels, minlength=len(names))
        used = [label for label in strange.tolist() if counts[label]]
        if used:
            name = names[used[0]]
            raise ValueError(
                f"{counts[used].sum()} labels are of classes that only the latter has: "
                f"{listed([shown(names[label]) for label in used])}."
                f"{hint(name, self.class_names)}"
            )

    def _ids(self, others: Sequence[Id]) -> tuple[Id, ...]:
        """The ids by label; each once."""
        own = {
            label: category
            for label, category in zip(
                self._labels.tolist(), self._source.category_ids, strict=True
            )
            if label >= 0
        }
        taken = set(self._source.category_ids)
        free = max([0, *(i for i in (*taken, *others) if isinstance(i, int))])
        for label, other in enumerate(others):
            if label in own:
                continue
            if other in taken:
                free += 1
                other = free
            taken.add(other)
            own[label] = other
        return tuple(own[label] for label in range(len(others)))

    def _note(self) -> None:
        """Note the classes that one side lacks, or else another order."""
        kept = set(self._labels.tolist())
        lacking = [n for i, n in enumerate(self.class_names) if i not in kept]
        further = [
            self._source.class_names[i] for i in np.flatnonzero(self._labels < 0)
        ]
        message = f"{listed(lacking)}: no label here; classes are matched by name"
        self.report.note(
            "class of train that is missing", len(lacking), message=message
        )
        message = f"{listed(further)}: no label here, and not among train's; left out"
        self.report.note("class that train lacks", len(further), message=message)
        if not lacking and not further:
            self.report.note("order of classes that is not train's, matched by name")


def _counted(names: Sequence[str]) -> list[tuple[str, int]]:
    """Each name, and how often it stood before; two classes may share one."""
    before: collections.Counter[str] = collections.Counter()
    keys = []
    for name in names:
        keys.append((name, before[name]))
        before[name] += 1
    return keys
