"""Class names that a mirror makes wrong: left and right, up and down, characters."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from yolojax.augment.presets import PRESETS
from yolojax.augment.reading import Policy, expand
from yolojax.lookup import listed

# Words that each mirror exchanges: two classes that differ by them and no more.
WORDS = {
    "flip_left_right": (
        ("left", "right"),
        ("l", "r"),
        ("links", "rechts"),
        ("gauche", "droite"),
        ("izquierda", "derecha"),
        ("sinistra", "destra"),
        ("左", "右"),
        ("east", "west"),
    ),
    "flip_up_down": (
        ("up", "down"),
        ("top", "bottom"),
        ("upper", "lower"),
        ("上", "下"),
        ("north", "south"),
    ),
}
# Those that hardly mean anything else, so that one class alone is enough.
PLAIN = frozenset(("left", "right", "左", "右"))
# Words in names: `turnLeft`, `turn_left`, `LEFT2`; scripts without spaces by letter.
WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+|[^\W\d_a-zA-Z]")


def mirror_note(policy: Policy, class_names: Sequence[str]) -> str:
    """What to know where a policy mirrors images of classes that do not bear it.

    Args:
        policy: see `reading.read_policy`.
        class_names: names by label.

    Returns:
        One sentence with the classes and the two ways out, or "". Classes that the
        mirror's `swap` exchanges are taken care of.

    Raises:
        ValueError: a preset with a wrong argument, or a `swap` of no pairs.
    """
    parts: list[str] = []
    for name, swap in _mirrors(policy):
        swapped = {index for pair in swap for index in pair}
        pairs, alone = _sides(name, class_names)
        pairs = [pair for pair in pairs if swapped.isdisjoint(pair)]
        alone = [index for index in alone if index not in swapped]
        characters = [] if swap else _characters(class_names)
        found = sorted({*alone, *(i for pair in pairs for i in pair), *characters})
        if not found:
            continue
        shown = listed([repr(class_names[index]) for index in found], 8)
        out = f"leave {name} out (probability 0)"
        if pairs:
            whole = sorted((*swap, *pairs))
            out = f"set swap={tuple(whole)} in its entry, or {out}"
        else:
            out += ", or set swap in its entry where one class becomes another"
        parts.append(f"{name} mirrors {shown}, which may then look like another: {out}")
    return "; ".join(parts) and f"config.augment.policy: {'; '.join(parts)}"


def _mirrors(policy: Policy) -> Iterator[tuple[str, Sequence[tuple[int, int]]]]:
    """Name and swapped pairs of each mirror that is ever applied."""
    for entry in expand(policy, PRESETS):
        if not _is_on(entry.get("probability", 1.0)):
            continue
        members = entry.get("of", ()) if entry.get("name") == "choice" else (entry,)
        for member in members:
            member = {"name": member} if isinstance(member, str) else member
            if isinstance(member, Mapping) and member.get("name") in WORDS:
                swap = [(int(a), int(b)) for a, b in member.get("swap", ())]
                yield str(member["name"]), swap


def _is_on(probability: Any) -> bool:
    several = isinstance(probability, tuple | list)
    numbers = probability if several else (probability,)
    return any(isinstance(p, int | float) and p > 0 for p in numbers)


def _sides(
    mirror: str, class_names: Sequence[str]
) -> tuple[list[tuple[int, int]], list[int]]:
    """Pairs of classes that differ by words of a mirror alone, and single classes."""
    spelled = [tuple(word.casefold() for word in WORD.findall(n)) for n in class_names]
    joined = ["".join(words) for words in spelled]
    partner: dict[int, int] = {}
    for one, other in WORDS[mirror]:
        for index, words in enumerate(spelled):
            found = -1
            if one in words:
                changed = tuple(other if word == one else word for word in words)
                found = spelled.index(changed) if changed in spelled else -1
            elif len(one) > 2 and one in joined[index]:  # as in `turnleft`
                text = joined[index].replace(one, other)
                found = joined.index(text) if text in joined else -1
            if found >= 0 and not {index, found} & partner.keys():
                partner[index], partner[found] = found, index
    pairs = sorted((a, b) for a, b in partner.items() if a < b)
    words = PLAIN if mirror == "flip_left_right" else frozenset()
    alone = [
        index
        for index, own in enumerate(spelled)
        if index not in partner and not words.isdisjoint(own)
    ]
    return pairs, alone


def _characters(class_names: Sequence[str]) -> list[int]:
    """The classes that are one digit or letter each, where there are several.

    Where numbers go on from 10, all of them count and are no characters.
    """
    numbers = any(re.fullmatch(r"\d{2,}", name) for name in class_names)
    single = r"[a-zA-Z]" if numbers else r"[0-9a-zA-Z]"
    found = [i for i, name in enumerate(class_names) if re.fullmatch(single, name)]
    return found if len(found) > 1 else []
