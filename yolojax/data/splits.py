"""Pictures dealt to train, val and test, class by class, as a function of the seed.

Where a picture goes hangs on the seed, its class and the names of the class's pictures
alone: neither on the order in which a file system lists them nor on where the data set
lies. Another picture moves few of the others.
"""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Hashable, Sequence

import numpy as np

from yolojax.lookup import hint

SPLITS = ("train", "val", "test")


def check_split(split: str, fractions: Sequence[float], seed: int = 0) -> None:
    """Check what a config says of a split.

    Raises:
        ValueError: no such split; fractions that are not one to three shares in [0, 1]
            with a sum of 1, or of which train has none; a seed that is no integer.
    """
    if split not in SPLITS:
        raise ValueError(
            f"split must be one of {', '.join(SPLITS)}, not {split!r}."
            f"{hint(str(split), SPLITS)}"
        )
    numbers = isinstance(fractions, tuple | list) and all(
        isinstance(share, int | float) and 0 <= share <= 1 for share in fractions
    )
    if not numbers or not 1 <= len(fractions) <= 3 or abs(sum(fractions) - 1) > 1e-6:
        raise ValueError(
            "fractions must be the shares (train, val) or (train, val, test), which "
            f"sum up to 1, not {fractions!r}"
        )
    if not fractions[0]:
        raise ValueError(f"fractions leave nothing to train on: {fractions!r}")
    if not isinstance(seed, int) or isinstance(seed, bool):
        raise ValueError(f"seed must be an integer, not {seed!r}")


def counts_of(total: int, fractions: Sequence[float]) -> list[int]:
    """How many of so many pictures of a class each split gets.

    As near to the fractions as whole numbers allow, but each split that has a fraction
    gets one as long as there are any, train first.
    """
    bounds = [round(total * end) for end in itertools.accumulate(fractions)]
    bounds[-1] = total
    counts = np.diff(bounds, prepend=0).tolist()
    wanted = [place for place, share in enumerate(fractions) if share > 0]
    for place in wanted[:total]:
        if not counts[place]:
            # Of those that have most the last one, so that train keeps its own.
            counts[len(counts) - 1 - counts[::-1].index(max(counts))] -= 1
            counts[place] = 1
    return counts


def stratified_split(
    names: Sequence[str],
    strata: Sequence[Hashable],
    *,
    split: str,
    fractions: Sequence[float],
    seed: int,
) -> np.ndarray:
    """Which pictures belong to a split.

    Args:
        names: of the pictures, each once; paths relative to the data set.
        strata: the class of each, within which the fractions hold.
        split: one of `SPLITS`.
        fractions: shares of train, val, test; see `check_split`.
        seed: any integer.

    Returns:
        int64, rising. The splits share no picture and together have all.

    Raises:
        ValueError: the fractions leave nothing for the split.
    """
    number = SPLITS.index(split)
    if not sum(fractions[number : number + 1]):
        raise ValueError(
            f"fractions {tuple(fractions)} leave nothing for split {split!r}; they are "
            "the shares of train, val, test"
        )
    groups: dict[Hashable, list[int]] = {}
    for index, stratum in enumerate(strata):
        groups.setdefault(stratum, []).append(index)
    chosen: list[int] = []
    for members in groups.values():
        counts = counts_of(len(members), fractions)
        start = sum(counts[:number])
        ranked = sorted(members, key=lambda index: _draw(seed, names[index]))
        chosen += ranked[start : start + counts[number]]
    return np.sort(np.array(chosen, np.int64))


def _draw(seed: int, name: str) -> bytes:
    """A random word of the picture's own; the same on every machine."""
    plain = os.fsencode(name.replace(os.sep, "/"))
    return hashlib.blake2b(b"%d:%s" % (seed, plain), digest_size=16).digest()
