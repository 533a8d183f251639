"""Parameters that training leaves as they are: which they are, and apart from others.

Frozen parameters are taken out of the tree before gradient and optimiser see it, and
put back afterwards, so that they cost neither a gradient nor the optimiser's memory.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

from yolojax.trees import flatten, unflatten


class Frozen(NamedTuple):
    """What a training step leaves as it is.

    Attributes:
        parameters: paths, as `backbone/stem/conv/kernel`.
        norms: paths of normalisations, as `backbone/stem/norm`, whose statistics stand
            still and which normalise with them, as in inference.
    """

    parameters: frozenset[str] = frozenset()
    norms: frozenset[str] = frozenset()


NOTHING = Frozen()


def find_frozen(
    variables: Mapping[str, Any],
    numbers: Mapping[str, int],
    *,
    match: Iterable[str] = (),
    layers: int = 0,
    statistics: bool = True,
    where: str = "config.freeze",
) -> Frozen:
    """The parameters that a config freezes.

    Args:
        variables: `params` and `batch_stats`; only their paths are used.
        numbers: of each layer in the network's public order, by the start of its
            paths, as `backbone/stem` -> 0.
        match: regular expressions, looked for in parameters' paths with `re.search`.
        layers: the first so many layers are frozen, too.
        statistics: whether the running statistics of frozen normalisations stand
            still and are what they normalise with; otherwise they normalise by the
            batch and go on moving, as in YOLOv5's published `freeze`, which stops
            gradients alone. A normalisation is frozen if all its parameters are.
        where: the config's key, for messages.

    Raises:
        ValueError: a pattern that is none or matches nothing, more layers than there
            are, or no parameter left to train.
    """
    paths = list(flatten(variables["params"]))
    count = max(numbers.values()) + 1
    if layers >= count:
        raise ValueError(
            f"{where}.layers is {layers}, but the network has {count} layers (0 to "
            f"{count - 1}), and at least the last must be trained"
        )
    first = tuple(f"{path}/" for path, number in numbers.items() if number < layers)
    chosen = {path for path in paths if path.startswith(first)} if first else set()
    for pattern in (match,) if isinstance(match, str) else match:
        try:
            found = {path for path in paths if re.search(pattern, path)}
        except (re.error, TypeError) as error:
            raise ValueError(
                f"{where}.match: {pattern!r} is no regular expression ({error})"
            ) from error
        if not found:
            parts = dict.fromkeys("/".join(path.split("/")[:2]) for path in paths)
            raise ValueError(
                f"{where}.match: {pattern!r} matches no parameter; paths start with "
                f"{', '.join(parts)}"
            )
        chosen |= found
    if len(chosen) == len(paths):
        raise ValueError(f"{where} freezes all parameters; leave some to train")
    norms = set()
    if statistics:
        trained = {p.rpartition("/")[0] for p in paths if p not in chosen}
        owners = {p.rpartition("/")[0] for p in flatten(variables["batch_stats"])}
        norms = owners - trained
    return Frozen(frozenset(chosen), frozenset(norms))


def split(params: Any, paths: Collection[str]) -> tuple[Any, dict[str, Any]]:
    """The tree without the leaves at `paths`, and these leaves by path."""
    if not paths:
        return params, {}
    leaves = flatten(params)
    kept = {path: leaf for path, leaf in leaves.items() if path not in paths}
    return unflatten(kept), {path: leaves[path] for path in leaves if path in paths}


def merge(tree: Any, leaves: Mapping[str, Any]) -> Any:
    """The whole tree from what `split` gave; its inverse."""
    return unflatten({**flatten(tree), **leaves}) if leaves else tree
