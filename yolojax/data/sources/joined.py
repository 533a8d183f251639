"""Labelled pictures, and behind them others whose labels are not looked at."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from yolojax.data.report import Report
from yolojax.records import Decoding, Example

_NONE = {
    "boxes": np.zeros((0, 4), np.float32),
    "labels": np.zeros(0, np.int32),
    "crowd": np.zeros(0, np.bool_),
    "areas": np.zeros(0, np.float32),
}


class JoinedSource:
    """A source for classification and one without labels as a single one.

    The labelled pictures keep their indices, the others follow; each has its index as
    its id.

    Attributes:
        class_names: of the labelled pictures.
        category_ids: of the labelled pictures.
        multi_label: of the labelled pictures.
        num_labelled: how many these are; from this index on there are no labels.
        report: of both.
        decoding: of both; to set it sets theirs.
    """

    def __init__(self, labelled: Any, unlabelled: Any):
        """Join them.

        Args:
            labelled: decides the classes.
            unlabelled: whose labels, if it has any, are left out.
        """
        self.class_names = labelled.class_names
        self.category_ids = labelled.category_ids
        self.multi_label = getattr(labelled, "multi_label", False)
        self.num_labelled = len(labelled)
        self.report = Report()
        self.report.merge(labelled.report)
        self.report.merge(unlabelled.report)
        self._labelled, self._unlabelled = labelled, unlabelled

    @property
    def decoding(self) -> Decoding:
        return self._labelled.decoding

    @decoding.setter
    def decoding(self, value: Decoding) -> None:
        self._labelled.decoding = self._unlabelled.decoding = value

    def __len__(self) -> int:
        return self.num_labelled + len(self._unlabelled)

    def __getitem__(self, index: int, /) -> Example:
        index = range(len(self))[index]
        if index < self.num_labelled:
            return dataclasses.replace(self._labelled[index], image_id=index)
        example = self._unlabelled[index - self.num_labelled]
        empty = {name: values.copy() for name, values in _NONE.items()}
        return dataclasses.replace(example, image_id=index, polygons=None, **empty)
