"""Address parts of a tree of parameters by regular expressions over their paths."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The leaves of nested dicts by path, as in `backbone/stem/conv/kernel`."""
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        path = f"{prefix}/{key}" if prefix else str(key)
        if isinstance(value, Mapping):
            leaves.update(flatten(value, path))
        else:
            leaves[path] = value
    return leaves


def unflatten(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """Nested dicts from leaves by path; the inverse of `flatten`."""
    tree: dict[str, Any] = {}
    for path, value in leaves.items():
        *parents, last = path.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value
    return tree


def unflatten_variables(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """`unflatten` with `params` and `batch_stats`, also where one of them is empty."""
    return {"params": {}, "batch_stats": {}} | unflatten(leaves)


def match_mask(tree: Mapping[str, Any], patterns: Iterable[str]) -> dict[str, Any]:
    """A tree of booleans: whether any pattern is found in the leaf's path.

    Args:
        tree: nested dicts.
        patterns: regular expressions, looked for with `re.search`.

    Raises:
        ValueError: a pattern matches no path.
    """
    leaves = flatten(tree)
    mask = dict.fromkeys(leaves, False)
    for pattern in patterns:
        matched = [path for path in leaves if re.search(pattern, path)]
        if not matched:
            shown = ", ".join(sorted({path.split("/")[0] for path in leaves}))
            raise ValueError(
                f"pattern {pattern!r} matches no parameter; paths start with {shown}"
            )
        mask.update(dict.fromkeys(matched, True))
    return unflatten(mask)
