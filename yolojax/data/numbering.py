"""Numbers of files: their natural order, and the ids of images without ids."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

# Readers of JSON keep whole numbers exact up to here.
_LARGEST = 2**53


def natural_key(text: str) -> list[tuple[int, int, str]]:
    """A sort key under which `a2` comes before `a10`."""
    return [
        (0, int(part), part) if part.isdecimal() else (1, 0, part)
        for part in re.split(r"(\d+)", text)
        if part
    ]


def image_ids(paths: Sequence[str | os.PathLike[str]]) -> list[int]:
    """A number for each file, no two the same.

    The numbers that the files' names are, where all are different numbers of at most
    2^53, as in COCO; otherwise the files' places in the list, from 1.
    """
    names = [Path(path).stem for path in paths]
    if all(name.isascii() and name.isdigit() for name in names):
        numbers = [int(name) for name in names]
        if len(set(numbers)) == len(numbers) and max(numbers, default=0) <= _LARGEST:
            return numbers
    return list(range(1, len(names) + 1))


def image_ids_in_natural_order(paths: Sequence[str]) -> list[int]:
    """`image_ids` of a folder's files as if they were in their natural order.

    So a file has the same number in a data set and as a source of `predict`.
    """
    order = sorted(range(len(paths)), key=lambda place: natural_key(paths[place]))
    ids = [0] * len(paths)
    numbers = image_ids([paths[place] for place in order])
    for place, number in zip(order, numbers, strict=True):
        ids[place] = number
    return ids
