"""YAML text from anywhere, read into plain values within limits."""

from __future__ import annotations

import re
from typing import Any

import yaml

# The longest published description has 4,000 characters.
MAX_CHARACTERS = 200_000
_MAX_DEPTH = 20
_MAX_EVENTS = 30_000
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")


def read_yaml(text: str, what: str) -> Any:
    """Dicts, lists, strings and numbers of a YAML (or JSON) text.

    Aliases and tags are refused: a few lines of the one can stand for more than fits
    in memory, and the other makes objects.

    Args:
        text: the text.
        what: where it comes from, for messages.

    Raises:
        ValueError: it is no YAML, too long, too deep, or has an alias or a tag.
    """
    if len(text) > MAX_CHARACTERS:
        raise ValueError(
            f"{what} has {len(text):,} characters; at most {MAX_CHARACTERS:,} are read"
        )
    try:
        _check_events(text, what)
        try:
            return yaml.safe_load(text)
        except (ValueError, TypeError, OverflowError) as error:
            # Dates and numbers that look right and are not.
            raise ValueError(f"{what}: no readable YAML ({error})") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f" line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or getattr(error, "reason", error)
        raise ValueError(f"{what}{place}: no readable YAML ({problem})") from error


def number_in(value: Any) -> float | int | None:
    """The number that a value is or spells, else None.

    YAML takes `1e-3`, without a point, for a word.
    """
    if isinstance(value, bool):
        return None
    if isinstance(value, (int, float)):
        return value
    if isinstance(value, str) and len(value) < 40 and _NUMBER.fullmatch(value):
        return float(value)
    return None


def shown(value: Any) -> str:
    """A value for a message, cut where it is long."""
    try:
        text = repr(value)
    except ValueError:
        # Python refuses to spell integers of thousands of digits.
        return "a number of thousands of digits"
    return text if len(text) <= 60 else f"{text[:57]}..."


def _check_events(text: str, what: str) -> None:
    depth = count = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        line = f"{what} line {event.start_mark.line + 1}"
        count += 1
        if isinstance(event, yaml.AliasEvent):
            raise ValueError(f"{line}: aliases (*{event.anchor}) are not read")
        if getattr(event, "tag", None) is not None:
            raise ValueError(f"{line}: tags ({event.tag}) are not read")
        if isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
            depth += 1
        elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            depth -= 1
        if depth > _MAX_DEPTH:
            raise ValueError(f"{line}: nested deeper than {_MAX_DEPTH}")
        if count > _MAX_EVENTS:
            raise ValueError(f"{line}: more than {_MAX_EVENTS:,} values")
