"""YAML text from anywhere, read into plain values within limits."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import yaml

# The longest published description has 4,000 characters.
MAX_CHARACTERS = 200_000
_MAX_EVENTS = 30_000
# Names of 20,000 classes have 600,000.
MAX_CHARACTERS_OF_WORDS = 1_000_000
_MAX_EVENTS_OF_WORDS = 100_000
_MAX_DEPTH = 20
# Characters; to turn 1:1:1: ... into a number takes time that grows with the square.
_LONGEST_TIME = 100
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
# libyaml's parser is ten times as fast; PyYAML can be built without it.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_RESOLVER = yaml.resolver.Resolver()
_CONSTRUCTOR = yaml.constructor.SafeConstructor()


def read_yaml(text: str, what: str) -> Any:
    """Dicts, lists, strings and numbers of a YAML (or JSON) text.

    Aliases, merge keys and tags are refused: a few lines with aliases can stand for
    more than fits in memory, and tags make objects.

    Args:
        text: the text.
        what: where it comes from, for messages.

    Raises:
        ValueError: it is no YAML, too long, too deep, gives a key twice, or has an
            alias, a merge key or a tag.
    """
    _check_characters(text, what, MAX_CHARACTERS)
    return _read(text, what, _typed, _MAX_EVENTS)


def read_yaml_words(text: str, what: str) -> Any:
    """As `read_yaml`, but keys and values stay as the text that stands there.

    `yes`, `012`, `null` and `12:30` are then words, as a list of class names means
    them. A value that is left out is the empty string. Texts may be longer, for the
    names of many classes.
    """
    _check_characters(text, what, MAX_CHARACTERS_OF_WORDS)
    return _read(text, what, lambda event: event.value, _MAX_EVENTS_OF_WORDS)


def _check_characters(text: str, what: str, most: int) -> None:
    if len(text) > most:
        raise ValueError(
            f"{what} has {len(text):,} characters; at most {most:,} are read"
        )
    if wrong := yaml.reader.Reader.NON_PRINTABLE.search(text):
        line = text.count("\n", 0, wrong.start()) + 1
        raise ValueError(
            f"{what}: no readable YAML (special characters are not allowed: line "
            f"{line} has {wrong.group()!a})"
        )


class _Container:
    """A list or dict that is being filled."""

    def __init__(self, line: int, *, is_dict: bool) -> None:
        self.content: Any = {} if is_dict else []
        self.line = line
        self.lines: dict[Any, int] | None = {} if is_dict else None
        self.key: Any = None
        self.has_key = False


def _read(
    text: str, what: str, scalar: Callable[[yaml.ScalarEvent], Any], max_events: int
) -> Any:
    try:
        return _build(text, what, scalar, max_events)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        # libyaml counts a line after the last one.
        last = text.count("\n") + 1
        place = f" line {min(mark.line + 1, last)}" if mark else ""
        problem = getattr(error, "problem", None) or getattr(error, "reason", error)
        if "nesting depth" in str(problem):
            problem = f"nested deeper than {_MAX_DEPTH}"
        raise ValueError(f"{what}{place}: no readable YAML ({problem})") from error


def _build(
    text: str, what: str, scalar: Callable[[yaml.ScalarEvent], Any], max_events: int
) -> Any:
    """The value of the text, from the parser's events.

    PyYAML's own loader calls itself for each level and keeps a node for each value.
    """
    top = _Container(0, is_dict=False)
    open_containers = [top]
    for count, event in enumerate(yaml.parse(text, Loader=_LOADER)):
        line = event.start_mark.line + 1
        _check_event(event, f"{what} line {line}", open_containers)
        if count > max_events:
            raise ValueError(f"{what} line {line}: more than {max_events:,} values")
        if isinstance(event, yaml.ScalarEvent):
            try:
                value = scalar(event)
            except (ValueError, TypeError, OverflowError) as error:
                # Dates and numbers that look right and are not.
                problem = f"line {line}: {error}"
                raise ValueError(f"{what}: no readable YAML ({problem})") from error
            _put(open_containers[-1], value, line, what)
        elif isinstance(event, yaml.MappingStartEvent):
            open_containers.append(_Container(line, is_dict=True))
        elif isinstance(event, yaml.SequenceStartEvent):
            open_containers.append(_Container(line, is_dict=False))
        elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            done = open_containers.pop()
            _put(open_containers[-1], done.content, done.line, what)
    return top.content[0] if top.content else None


def _check_event(
    event: yaml.Event, place: str, open_containers: list[_Container]
) -> None:
    """Refuse what can stand for more than it shows."""
    if isinstance(event, yaml.AliasEvent):
        raise ValueError(f"{place}: aliases (*{event.anchor[:60]}) are not read")
    tag = getattr(event, "tag", None)
    if tag is not None:
        raise ValueError(f"{place}: tags ({tag[:60]}) are not read")
    if isinstance(event, yaml.ScalarEvent):
        if event.value == "<<" and _takes_key(open_containers[-1]):
            raise ValueError(f"{place}: merge keys (<<) are not read")
    elif isinstance(event, yaml.DocumentStartEvent):
        if open_containers[0].content:
            raise ValueError(f"{place}: a second document begins; one is read")
    elif isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
        if len(open_containers) > _MAX_DEPTH:
            raise ValueError(f"{place}: nested deeper than {_MAX_DEPTH}")


def _takes_key(into: _Container) -> bool:
    return into.lines is not None and not into.has_key


def _put(into: _Container, value: Any, line: int, what: str) -> None:
    """Add a value to the container, or keep it as the key of the next one."""
    if into.lines is None:
        into.content.append(value)
    elif into.has_key:
        into.content[into.key] = value
        into.has_key = False
    elif isinstance(value, (dict, list)):
        raise ValueError(f"{what} line {line}: a key must be a word or a number")
    elif value in into.lines:
        raise ValueError(
            f"{what} line {line}: the key {shown(value)} stands there twice, first in "
            f"line {into.lines[value]}"
        )
    else:
        into.key, into.has_key = value, True
        into.lines[value] = line


def _typed(event: yaml.ScalarEvent) -> Any:
    """What YAML takes a value for: a number, a truth value, a date, nothing, a text."""
    long = ":" in event.value and len(event.value) > _LONGEST_TIME
    if long or not event.implicit[0]:
        return event.value
    tag = _RESOLVER.resolve(yaml.ScalarNode, event.value, (True, False))
    if tag not in _CONSTRUCTOR.yaml_constructors or tag.endswith(":str"):
        return event.value
    node = yaml.ScalarNode(tag, event.value)
    return _CONSTRUCTOR.yaml_constructors[tag](_CONSTRUCTOR, node)


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
