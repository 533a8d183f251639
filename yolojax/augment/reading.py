"""A policy as it is written in a config, checked and put in order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from yolojax.lookup import check_arguments, pick

Table = Mapping[str, Callable[..., Any]]
Policy = str | Iterable[str | Mapping[str, Any]]

# Steps that need a picture of its own, and those that leave a sample none.
ALONE = ("random_resized_crop",)
MOSAICS = ("mosaic", "mosaic9")


def swapped_classes(policy: Policy) -> list[tuple[int, int]]:
    """The pairs of classes that a policy's mirrors exchange."""
    given = [policy] if isinstance(policy, str) else list(policy)
    pairs: list[tuple[int, int]] = []
    for entry in given:
        if isinstance(entry, Mapping):
            pairs += [tuple(pair) for pair in entry.get("swap", ())]
            pairs += swapped_classes(entry.get("of", ()))
    return pairs


class Probability(NamedTuple):
    """A probability at the start and at the end of training, linear in between."""

    start: float
    end: float

    def at(self, progress: Float[Array, ""] | float) -> Float[Array, ""] | float:
        """The probability at a share of the training in [0, 1]."""
        if self.start == self.end:
            return self.start
        return self.start + (self.end - self.start) * progress


class Entry(NamedTuple):
    """One augmentation of a policy.

    Attributes:
        name: its name in the table.
        probability: of applying it to a sample; of a choice's entry, of the choice.
        step: what the function of the table returned.
        group: number of the choice that it belongs to; None: of none.
    """

    name: str
    probability: Probability
    step: Any
    group: int | None = None


class Group(NamedTuple):
    """A choice: so many of its entries are applied to each sample that it chooses."""

    count: int
    probability: Probability


class Plan(NamedTuple):
    """A policy's entries, in the order of the table, and its choices."""

    entries: tuple[Entry, ...]
    groups: tuple[Group, ...]

    @property
    def num_draws(self) -> int:
        """Uniform numbers for a sample: one an entry and a choice, and their own."""
        of_entries = (1 + entry.step.num_draws for entry in self.entries)
        return sum(of_entries) + len(self.groups)

    def applied(
        self, draws: Float[Array, "b d"], progress: Float[Array, ""] | float
    ) -> list[tuple[Bool[Array, " b"], Float[Array, "b _"]]]:
        """Of each entry, the samples that it changes, and its own numbers.

        Of a choice, the entries with the smallest of their first numbers are taken, so
        that no two are the same and every set is equally likely.
        """
        firsts, owns, start = [], [], 0
        for entry in self.entries:
            stop = start + 1 + entry.step.num_draws
            firsts.append(draws[:, start])
            owns.append(draws[:, start + 1 : stop])
            start = stop
        result = []
        for entry, first, own in zip(self.entries, firsts, owns, strict=True):
            if entry.group is None:
                result.append((first < entry.probability.at(progress), own))
                continue
            group = self.groups[entry.group]
            rivals = [
                other
                for rival, other in zip(self.entries, firsts, strict=True)
                if rival.group == entry.group
            ]
            rank = jnp.sum(jnp.stack(rivals) < first[None], axis=0)
            chosen = draws[:, start + entry.group] < group.probability.at(progress)
            result.append((chosen & (rank < group.count), own))
        return result


def read_policy(policy: Policy, table: Table, presets: Table) -> Plan:
    """The policy's entries in the order of the table.

    Args:
        policy: a preset's name, or entries in any order: presets' names,
            `dict(name=..., **arguments)` of a preset, `dict(name=..., probability=...,
            **arguments)` of an augmentation, and `dict(name="choice", count=...,
            of=(...), probability=...)`, which applies so many of its entries to a
            sample. An augmentation's entry replaces that of a preset before it.
        table: augmentations by name.
        presets: by name, functions that return entries.

    Raises:
        ValueError: an unknown name or argument, a name twice, a wrong probability, or
            entries that cannot be composed; the message says why.
    """
    found: dict[str, Entry] = {}
    groups: list[Group] = []
    for position, given in enumerate(expand(policy, presets)):
        where = f"augmentation policy, entry {position}"
        if "name" not in given:
            raise ValueError(f"{where}: needs a name, got {sorted(given)}")
        if given["name"] not in ("choice", *table):
            pick({**presets, **table}, given["name"], "augmentation")
        for entry in _read_entry(given, where, table, groups):
            if entry.name in found:
                raise ValueError(
                    f"{where}: {entry.name!r} is there twice; give it once"
                )
            found[entry.name] = entry
    plan = Plan(tuple(found[name] for name in table if name in found), tuple(groups))
    _check_composable(plan)
    return plan


def expand(policy: Policy, presets: Table) -> tuple[dict[str, Any], ...]:
    """The policy with the entries of its presets in their place.

    An entry that comes after a preset replaces that of the preset with its name.

    Raises:
        ValueError: an argument that a preset does not have, or not with this value.
    """
    entries: list[dict[str, Any]] = []
    from_presets: set[str] = set()
    for given in (policy,) if isinstance(policy, str) else policy:
        entry = {"name": given} if isinstance(given, str) else dict(given)
        name = str(entry.get("name"))
        if name in presets:
            del entry["name"]
            check_arguments(presets[name], entry, f"preset {name!r}")
            expanded = [dict(member) for member in presets[name](**entry)]
            entries += expanded
            from_presets |= {member["name"] for member in expanded}
            continue
        if name in from_presets:
            entries = [other for other in entries if other.get("name") != name]
            from_presets.discard(name)
        entries.append(entry)
    return tuple(entries)


def _read_entry(
    given: Mapping[str, Any], where: str, table: Table, groups: list[Group]
) -> list[Entry]:
    """The entry, or those of a choice, which is added to `groups`."""
    arguments = dict(given)
    name = arguments.pop("name", None)
    probability = _read_probability(arguments.pop("probability", 1.0), name, where)
    if name != "choice":
        function = pick(table, name, "augmentation")
        check_arguments(function, arguments, f"augmentation {name!r}")
        return [Entry(name, probability, function(**arguments))]
    of, count = tuple(arguments.pop("of", ())), arguments.pop("count", 1)
    if arguments:
        raise ValueError(
            f"{where}: a choice has no argument {min(arguments)!r}, but count, of and "
            "probability"
        )
    if not isinstance(count, int) or not 1 <= count <= len(of):
        raise ValueError(f"{where}: a choice of {count} out of {len(of)} entries")
    groups.append(Group(count, probability))
    number = len(groups) - 1
    entries = []
    for member in of:
        member = {"name": member} if isinstance(member, str) else dict(member)
        if member.get("name") == "choice" or "probability" in member:
            raise ValueError(
                f"{where}: an entry of a choice is an augmentation without a "
                f"probability of its own, not {member}"
            )
        for entry in _read_entry(member, where, table, groups):
            entries.append(entry._replace(probability=probability, group=number))
    return entries


def _read_probability(given: Any, name: str, where: str) -> Probability:
    ends = tuple(given) if isinstance(given, tuple | list) else (given, given)
    if len(ends) != 2 or not all(
        isinstance(end, int | float) and 0 <= end <= 1 for end in ends
    ):
        raise ValueError(
            f"{where}: probability of {name!r} is {given}, expected 0 to 1, or two "
            "such numbers, for the start and the end of training"
        )
    return Probability(float(ends[0]), float(ends[1]))


def _check_composable(plan: Plan) -> None:
    always = [
        entry.name
        for entry in plan.entries
        if entry.name in MOSAICS
        and entry.group is None
        and min(entry.probability) == 1.0
    ]
    for entry in plan.entries:
        if entry.name in ALONE and always:
            raise ValueError(
                f"augmentation policy: {entry.name!r} changes how a picture that is "
                f"shown alone is cut, but {always[0]!r} with probability 1 shows none "
                f"alone; lower the probability of {always[0]!r}, or leave one out"
            )
