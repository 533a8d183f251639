"""How two configs differ, in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

# Characters of a value in a message.
_LONG = 80


def difference(before: Any, now: Any) -> str:
    """How two values of a config differ, to stand behind its key in a message.

    Of lists, dicts and long texts it is the first place that does, as
    `[1].probability was 1.0, now 0.5`; None stands for nothing there.
    """
    if isinstance(before, list) and isinstance(now, list):
        place, before, now = _first_place(before, now)
        return f"[{place}]{difference(before, now)}"
    if isinstance(before, dict) and isinstance(now, dict):
        # The name of an entry first: with another one all else is another, too.
        keys = sorted(before.keys() | now.keys(), key=lambda key: (key != "name", key))
        key = next(key for key in keys if before.get(key) != now.get(key))
        return f".{key}{difference(before.get(key), now.get(key))}"
    if isinstance(before, str) and isinstance(now, str) and len(before + now) > _LONG:
        lines = (text.split("\n") for text in (before, now))
        number, before, now = _first_place(*lines)
        column, _, _ = _first_place(before or "", now or "")
        start = max(0, column - _LONG // 2)
        before, now = (text and text[start:] for text in (before, now))
        return f" differs in line {number + 1}: was {_short(before)}, now {_short(now)}"
    return f" was {_short(before)}, now {_short(now)}"


def _first_place(before: Sequence[Any], now: Sequence[Any]) -> tuple[int, Any, Any]:
    """The first place where two sequences differ, and what is there; None: no more."""
    pairs = enumerate(zip(before, now, strict=False))
    ends = min(len(before), len(now))
    place = next((place for place, (a, b) in pairs if a != b), ends)
    there = [values[place] if place < len(values) else None for values in (before, now)]
    return place, there[0], there[1]


def _short(value: Any) -> str:
    """A value for a message: its start where it is long."""
    if value is None:
        return "nothing"
    text = str(value)
    text = text if len(text) <= _LONG else f"{text[:_LONG]}..."
    return text if text and text == text.strip() else repr(text)
