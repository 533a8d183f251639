"""Which parameter has which rate, weight decay and penalty: groups and depth.

Groups are told apart by regular expressions over the public paths. Without any, the
groups are the published ones, by the last part of the path: `bias`, `kernel`, `scale`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

from yolojax import lookup, trees

# The last part of a parameter's path is its kind.
KINDS = ("bias", "kernel", "scale")

# Parts of a network from the picture on.
PARTS = ("backbone", "body", "neck", "head")

# What counts as the last layer.
_HEADS = ("head/", "auxiliary/")

# How many paths a message lists.
_SHOWN = 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class Group:
    """An entry of `config.optim.groups`.

    Attributes:
        match: regular expressions, or one; a path in which any is found belongs here.
        name: for the log and the plots; default: `group` and its number.
        rate: factor of the learning rate.
        weight_decay: in place of the config's; None: the config's for kernels and
            none for the rest, as published.
        l1: factor of the sum of absolute values that is added to the loss; its
            gradient is the sign.
        l2: factor of half the sum of squares that is added to the loss.
        warmup_start: the rate at iteration 0; None: the published one, which is the
            config's `warmup_bias_rate` (times `rate`) for biases and 0 for the rest.
    """

    match: str | Sequence[str]
    name: str = ""
    rate: float = 1.0
    weight_decay: float | None = None
    l1: float = 0.0
    l2: float = 0.0
    warmup_start: float | None = None


@dataclasses.dataclass(frozen=True)
class Leaf:
    """What the optimiser does with one parameter.

    Attributes:
        label: its name in the log; biases that warm up on their own have another
            one than the rest of their group.
        rate: factor of the learning rate, by group.
        depth: factor of the learning rate, by layer.
        start: rate at iteration 0, before `depth`.
        weight_decay: for a step over a nominal batch; so are `l1` and `l2`.
        l1: factor of the sign that is added to the gradient.
        l2: factor of the parameter that is added to the gradient.
    """

    label: str
    rate: float
    depth: float
    start: float
    weight_decay: float
    l1: float = 0.0
    l2: float = 0.0


def read_groups(given: Sequence[Mapping[str, Any]]) -> tuple[Group, ...]:
    """The groups of a config, checked for themselves.

    Raises:
        ValueError: an unknown key, a value of the wrong kind or below 0, a regular
            expression that is none, two groups of one name.
    """
    groups = []
    for number, entry in enumerate(given, 1):
        where = f"config.optim.groups[{number - 1}]"
        if not isinstance(entry, Mapping):
            raise ValueError(f"{where} must be a dict(match=..., ...), not {entry!r}")
        lookup.check_arguments(Group, entry, where)
        group = Group(**{"name": f"group{number}", **entry})
        patterns = [group.match] if isinstance(group.match, str) else [*group.match]
        for pattern in patterns:
            try:
                re.compile(pattern)
            except (re.error, TypeError) as error:
                raise ValueError(
                    f"{where}.match: {pattern!r} is no regular expression: {error}"
                ) from error
        for key in ("rate", "weight_decay", "l1", "l2", "warmup_start"):
            value = getattr(group, key)
            if value is None and key in ("weight_decay", "warmup_start"):
                continue
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise ValueError(f"{where}.{key} must be a number, not {value!r}")
            if value < 0:
                raise ValueError(f"{where}.{key} must be at least 0, not {value}")
        groups.append(dataclasses.replace(group, match=tuple(patterns)))
    names = [group.name for group in groups]
    double = sorted({name for name in names if names.count(name) > 1})
    if double:
        raise ValueError(f"config.optim.groups: two are called {', '.join(double)}")
    return tuple(groups)


def members(paths: Mapping[str, Any], groups: Sequence[Group]) -> dict[str, Group]:
    """The group of each path.

    Args:
        paths: leaves by path, see `trees.flatten`.
        groups: see `read_groups`.

    Raises:
        ValueError: a group without a member, or paths in no group or in several.
    """
    found: dict[str, list[Group]] = {path: [] for path in paths}
    for group in groups:
        try:
            mask = trees.match_mask(trees.unflatten(paths), group.match)
        except ValueError as error:
            raise ValueError(f"config.optim.groups: {group.name}: {error}") from error
        for path, matched in trees.flatten(mask).items():
            if matched:
                found[path].append(group)
    none = [path for path, there in found.items() if not there]
    if none:
        raise ValueError(
            f"config.optim.groups: {len(none)} parameters match no group: "
            f"{_listed(none)}. Give them one; match='.' alone is all of them"
        )
    several = [
        f"{path} ({', '.join(group.name for group in there)})"
        for path, there in found.items()
        if len(there) > 1
    ]
    if several:
        raise ValueError(
            f"config.optim.groups: {len(several)} parameters match more than one "
            f"group: {_listed(several)}. Make the expressions exclude each other, as "
            "'^(?!head/)'"
        )
    return {path: there[0] for path, there in found.items()}


def _listed(paths: Sequence[str]) -> str:
    more = len(paths) - _SHOWN
    return ", ".join(paths[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def layers(paths: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Layers of a network by the first two parts of their paths, from the picture on.

    A layer is what `python -m yolojax.info` gives a row: `backbone/stage2`,
    `body/layer13`. They come by the part of the network (backbone or body, neck,
    head), then in the order in which pictures pass them: numbered layers by their
    number; YOLOv5's backbone by level (`down3`, `stage3`), with `stem` first and
    `pool` last; its neck from the coarsest level to the finest (`lateral5`,
    `top_down4`) and back (`down4`, `bottom_up4`). The head counts as one layer,
    whatever its levels, together with a classifier's auxiliary heads.

    Args:
        paths: leaves by path.

    Returns:
        The names of each layer; only the last, the head's, may be several.
    """
    names = dict.fromkeys("/".join(path.split("/")[:2]) for path in paths)
    ordered = sorted(names, key=_place)
    body = [(name,) for name in ordered if not name.startswith(_HEADS)]
    head = tuple(name for name in ordered if name.startswith(_HEADS))
    return [*body, head] if head else body


def _place(layer: str) -> tuple[Any, ...]:
    part, _, name = layer.partition("/")
    place = PARTS.index(part) if part in PARTS else len(PARTS)
    kind, number = re.fullmatch(r"(.*?)(\d*)", name, re.DOTALL).groups()  # pyright: ignore
    level = int(number) if number else 0
    # Coarse to fine, then back: a lateral goes before the map that it is merged into.
    neck = {
        "lateral": (0, -level, 0),
        "top_down": (0, -level - 1, 1),
        "down": (1, level, 0),
        "bottom_up": (1, level, 1),
    }
    backbone = {
        "stem": (0, 0, 0),
        "down": (0, level, 0),
        "stage": (0, level, 1),
        "pool": (1, 0, 0),
    }
    table = {"neck": neck, "backbone": backbone}.get(part, {})
    return (place, *table.get(kind, (0, level, 0)), name)


def depth_factors(paths: Mapping[str, Any], decay: float) -> dict[str, float]:
    """What layer-wise decay multiplies the rate of each path with.

    decay^(layers behind it): 1 in the head, the least where pictures come in.

    Args:
        paths: leaves by path.
        decay: the factor from a layer to the one before, in (0, 1]; 1 is none.

    Source: Clark et al. 2020, arXiv:2003.10555, appendix A; Bao et al. 2022,
    arXiv:2106.08254, appendix H.
    """
    behind = {
        name: number
        for number, names in enumerate(reversed(layers(paths)))
        for name in names
    }
    return {path: decay ** behind["/".join(path.split("/")[:2])] for path in paths}


def leaves_of(
    params: Mapping[str, Any],
    *,
    groups: Sequence[Mapping[str, Any]] = (),
    layer_decay: float = 1.0,
    weight_decay: float,
    warmup_bias_rate: float,
    network: Mapping[str, Any] | None = None,
) -> dict[str, Leaf]:
    """What to do with each parameter, by path.

    Args:
        params: the parameters that are trained; only their paths are used.
        groups: see `Group`; empty: the published ones.
        layer_decay: see `depth_factors`.
        weight_decay: of kernels, where a group says nothing else.
        warmup_bias_rate: rate of biases at iteration 0, where a group says nothing
            else.
        network: all parameters, where some are frozen; groups and depth go by them.

    Raises:
        ValueError: see `read_groups` and `members`; or a path ends in no known kind.
    """
    paths = trees.flatten(params)
    whole = trees.flatten(network) if network is not None else paths
    strange = [path for path in paths if _kind(path) not in KINDS]
    if strange:
        raise ValueError(
            f"{len(strange)} parameters belong to no group: {', '.join(strange[:5])}. "
            f"A path must end in one of {', '.join(KINDS)}"
        )
    if not 0 < layer_decay <= 1:
        raise ValueError(
            f"config.optim.layer_decay must be above 0 and at most 1, not {layer_decay}"
        )
    depth = depth_factors(whole, layer_decay)
    mine = members(whole, read_groups(groups)) if groups else {}

    def leaf(path: str) -> Leaf:
        kind = _kind(path)
        published = weight_decay if kind == "kernel" else 0.0
        start = warmup_bias_rate if kind == "bias" else 0.0
        if not mine:
            return Leaf(kind, 1.0, depth[path], start, published)
        group = mine[path]
        own = kind == "bias" and group.warmup_start is None
        return Leaf(
            label=f"{group.name}_bias" if own else group.name,
            rate=group.rate,
            depth=depth[path],
            start=start * group.rate
            if group.warmup_start is None
            else group.warmup_start,
            weight_decay=published
            if group.weight_decay is None
            else group.weight_decay,
            l1=group.l1,
            l2=group.l2,
        )

    return {path: leaf(path) for path in paths}


def _kind(path: str) -> str:
    return path.rsplit("/", 1)[-1]
