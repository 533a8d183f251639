"""Which part of a cross-validation each picture is in, by scikit-learn's splitters.

A function of the labels, the names and the seed: a run that goes on, and a later
evaluation, find the same parts again.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from yolojax.data.sampling import epoch_order

KINDS = ("plain", "stratified", "group")


def check_folds(count: int, index: int, kind: str, groups: str) -> None:
    """Check what does not need the data.

    Raises:
        ValueError: a single fold, an index beyond the count, or a regular expression
            that is wrong, missing or in the way.
    """
    if count == 1:
        raise ValueError(
            "config.data.folds.count is 1: take at least 2, or 0 for no folds"
        )
    if count and index >= count:
        raise ValueError(
            f"config.data.folds.index is {index}, but there are {count} folds, 0 to "
            f"{count - 1}"
        )
    if kind == "group" and not groups:
        raise ValueError(
            "config.data.folds.kind is 'group', which needs config.data.folds.groups, "
            "a regular expression whose first group names a picture's group"
        )
    if groups and kind != "group":
        raise ValueError(
            f"config.data.folds.groups is {groups!r}, but config.data.folds.kind is "
            f"{kind!r}, which does not keep groups together: take 'group'"
        )
    if not groups:
        return
    try:
        pattern = re.compile(groups)
    except re.error as error:
        raise ValueError(f"config.data.folds.groups {groups!r}: {error}") from error
    if not pattern.groups:
        raise ValueError(
            f"config.data.folds.groups {groups!r} has no group in brackets, as "
            f"'(patient[0-9]+)'"
        )


def fold_numbers(
    labels: Sequence[np.ndarray],
    names: Sequence[str],
    class_names: Sequence[str],
    *,
    count: int,
    kind: str = "stratified",
    groups: str = "",
    seed: int = 0,
) -> np.ndarray:
    """The fold of each picture.

    Args:
        labels: the classes of each picture, or of its boxes; int [k] each.
        names: of the pictures.
        class_names: by label, for messages.
        count: how many folds, at least 2.
        kind: "plain", at random; "stratified", with about the same share of each
            stratum, see `rarest_classes`; "group", with all pictures of a group in the
            same one.
        groups: a regular expression, looked for in each picture's name, whose first
            group is the picture's.
        seed: which of the ways to part them.

    Returns:
        int64 [pictures], from 0 to count - 1; each occurs.

    Raises:
        ValueError: fewer pictures, pictures of a class, or groups than folds; a name in
            which the expression finds no group; see also `check_folds`.
    """
    check_folds(count, 0, kind, groups)
    if len(labels) < count:
        raise ValueError(
            f"config.data.folds.count is {count}, but there are only {len(labels)} "
            "pictures"
        )
    # Imported here: half a second that only runs with folds should pay.
    from sklearn import model_selection

    random: dict[str, Any] = {"shuffle": True, "random_state": seed % 2**32}
    splitter: Any = model_selection.KFold(count, **random)
    strata = numbers = None
    if kind == "group":
        splitter = model_selection.GroupKFold(count)
        numbers = _groups_of(names, groups, count, seed)
    elif kind == "stratified":
        _check_classes(labels, class_names, count)
        strata = rarest_classes(labels)
        # Where no stratum has a picture for each fold there is nothing to balance.
        if np.unique(strata, return_counts=True)[1].max() >= count:
            splitter = model_selection.StratifiedKFold(count, **random)
    folds = np.full(len(labels), -1, np.int64)
    with warnings.catch_warnings():
        # Of small strata, whose classes were checked.
        warnings.filterwarnings("ignore", message="The least populated class")
        parts = splitter.split(np.zeros(len(labels)), strata, numbers)
        for number, (_, held_out) in enumerate(parts):
            folds[held_out] = number
    return folds


def rarest_classes(labels: Sequence[np.ndarray]) -> np.ndarray:
    """The class of each picture that the fewest pictures show; -1 for none.

    Of classes that equally many show, the first.

    Args:
        labels: the classes of each picture, or of its boxes; int [k] each.

    Returns:
        int64 [pictures].
    """
    shown = _pictures_of_classes(labels)
    return np.array(
        [min(np.unique(own), key=lambda c: shown[c], default=-1) for own in labels],
        np.int64,
    )


def _pictures_of_classes(labels: Sequence[np.ndarray]) -> np.ndarray:
    """int64 [classes]: the number of pictures that show each class."""
    several = np.concatenate([np.zeros(0, np.int64), *map(np.unique, labels)])
    return np.bincount(several.astype(np.int64))


def _check_classes(
    labels: Sequence[np.ndarray], class_names: Sequence[str], count: int
) -> None:
    shown = _pictures_of_classes(labels).tolist()
    few = [label for label, number in enumerate(shown) if 0 < number < count]
    if few:
        least = min(few, key=lambda label: shown[label])
        number = shown[least]
        pictures = f"{number} pictures" if number > 1 else "one picture"
        more = f" ({len(few)} classes have fewer than {count})" * (len(few) > 1)
        fewer = "fewer folds, or " * (number > 1)
        raise ValueError(
            f"config.data.folds.count is {count}, but class {class_names[least]!r} has "
            f"only {pictures}{more}: take {fewer}config.data.folds.kind='plain'"
        )


def _groups_of(names: Sequence[str], groups: str, count: int, seed: int) -> np.ndarray:
    """int64 [pictures]: the number of each picture's group, in an order by the seed."""
    found = [re.search(groups, name) for name in names]
    texts = [match[1] if match else None for match in found]
    without = [name for name, text in zip(names, texts, strict=True) if text is None]
    if without:
        raise ValueError(
            f"config.data.folds.groups {groups!r} finds no group in {len(without)} of "
            f"{len(names)} pictures' names, as {without[0]!r}"
        )
    different, numbers = np.unique(np.asarray(texts, str), return_inverse=True)
    if len(different) < count:
        raise ValueError(
            f"config.data.folds.groups {groups!r} finds only {len(different)} groups, "
            f"as {texts[0]!r}, for {count} folds"
        )
    # The splitter evens out sizes; which of equal groups goes where is its order.
    return epoch_order(seed, 0, len(different))[numbers]
