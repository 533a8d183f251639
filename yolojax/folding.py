"""Cross-validation in a config: one fold of the training pictures is held out."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from yolojax.data.folds import check_folds, fold_numbers
from yolojax.data.report import Report
from yolojax.datasets import Data, open_source


@dataclasses.dataclass(frozen=True)
class Fold:
    """One fold of a source.

    Attributes:
        count: how many there are.
        index: which one is held out.
        kind: what they go by, see `data.folds`.
        numbers: int64 [pictures of the source], the fold of each.
    """

    count: int
    index: int
    kind: str
    numbers: np.ndarray

    @property
    def note(self) -> str:
        """What is held out, in a line."""
        return (
            f"fold {self.index} of {self.count} ({self.kind}): held out from "
            "config.data.train as val; config.data.val is not read"
        )

    @property
    def num_training(self) -> int:
        """How many pictures are not held out."""
        return int((self.numbers != self.index).sum())

    def part(self, data: Data, *, held_out: bool) -> Data:
        """The pictures that are held out, or those that are not.

        Raises:
            ValueError: there are none that can be read.
        """
        own = (self.numbers[data.keep] == self.index) == held_out
        if not own.any():
            which = "held out" if held_out else "left to train on"
            raise ValueError(f"{self.note}. Of those {which} none can be read")
        return dataclasses.replace(data, keep=data.keep[own])


def open_evaluated(settings: Mapping[str, Any]) -> tuple[Any, Fold | None]:
    """The source of what a run is evaluated on, and the fold of it, if it is one.

    Raises:
        ValueError: anything wrong with `data.val`, or with `data.train` and its folds.
    """
    if not settings["data"]["folds"]["count"]:
        return open_source(settings, "val"), None
    source = open_source(settings, "train")
    return source, fold_of(settings, source)


def fold_of(settings: Mapping[str, Any], source: Any) -> Fold | None:
    """The fold that `config.data.folds` holds out; None: there are no folds.

    Args:
        settings: a complete config.
        source: that of `data.train`. All its pictures have a fold, also those that turn
            out to be unreadable, so that these change nothing for the others.

    Raises:
        ValueError: folds that cannot be.
    """
    chosen = settings["data"]["folds"]
    check_folds(**chosen)
    if not chosen["count"]:
        return None
    labels, names = [], []
    for index in range(len(source)):
        example = source[index]
        labels.append(example.labels[~example.crowd])
        names.append(example.name)
    numbers = fold_numbers(
        labels,
        names,
        source.class_names,
        count=chosen["count"],
        kind=chosen["kind"],
        groups=chosen["groups"],
        seed=settings["seed"],
    )
    return Fold(chosen["count"], chosen["index"], chosen["kind"], numbers)


def training_part(fold: Fold | None, data: Data) -> Data:
    """What to train on; everything without a fold."""
    return data if fold is None else fold.part(data, held_out=False)


def held_out_part(fold: Fold | None, data: Data) -> Data:
    """What to evaluate on; everything without a fold."""
    return data if fold is None else fold.part(data, held_out=True)


def parts_of(fold: Fold | None, data: Data) -> tuple[Data, Data | None]:
    """What to train on, and what the fold holds out, whose report is the same."""
    if fold is None:
        return data, None
    held_out = dataclasses.replace(held_out_part(fold, data), report=Report())
    return training_part(fold, data), held_out
