"""Darknet's network descriptions: the text of a `.cfg`, its sections, its options.

A `.cfg` is lines of `[section]` and `key=value`. Blanks count nowhere, and what
follows `#` or `;` is a comment. The first section, `[net]`, is about pictures and
training; each other one is a layer, and layers are counted from 0.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from yolojax.files import LARGEST_DESCRIPTION, read_description
from yolojax.lookup import hint

# The largest published network has some 450 layers and 30 kB.
MAX_SECTIONS = 600
MAX_CHARACTERS = LARGEST_DESCRIPTION

NET = "net"
_ALIASES = {
    "network": NET,
    "conv": "convolutional",
    "max": "maxpool",
    "avg": "avgpool",
    "soft": "softmax",
}
_WHOLE = re.compile(r"[+-]?[0-9]{1,18}")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?")


@dataclasses.dataclass(frozen=True)
class Section:
    """A section of a `.cfg`.

    Attributes:
        kind: `net`, `convolutional`, ...; short forms are written out.
        options: its values as text, without blanks.
        line: where it starts in the file, from 1; 0 where there is no file.
    """

    kind: str
    options: Mapping[str, str]
    line: int = dataclasses.field(default=0, compare=False)

    @property
    def where(self) -> str:
        """Its place, for messages."""
        kind = f"[{_shown(self.kind, quoted=False)}]"
        return f"line {self.line}, {kind}" if self.line else kind

    def changed(self, **options: object) -> Section:
        """The section with other or further values."""
        texts = {key: str(value) for key, value in options.items()}
        return dataclasses.replace(self, options={**self.options, **texts})


def read_cfg(path: str | Path) -> str:
    """The text of a `.cfg` file; bytes that are no UTF-8, as in comments, are marked.

    Raises:
        ValueError: there is no such file, it cannot be read, or it is too large.
    """
    return read_description(path, limit=MAX_CHARACTERS)


def parse_cfg(text: str) -> tuple[Section, ...]:
    """The sections of a `.cfg`, `[net]` first.

    A key may stand twice in a section only with the same value: the programs that
    read these files disagree on which one counts. In `[net]`, where both the values
    of training and those of testing are often listed, the first one does, as in
    Darknet.

    Raises:
        ValueError: it is no such text; the message names the line.
    """
    if len(text) > MAX_CHARACTERS:
        raise ValueError(
            f"{len(text):,} characters; a network description has at most "
            f"{MAX_CHARACTERS:,}"
        )
    if "\0" in text:
        raise ValueError("a binary file, where lines of [section] and key=value belong")
    sections: list[Section] = []
    options: dict[str, str] = {}
    for number, raw in enumerate(_lines(text), start=1):
        line = "".join(re.split("[#;]", raw, maxsplit=1)[0].split())
        if not line:
            continue
        if line.startswith("["):
            sections.append(_section(line, number, first=not sections))
            options = {}
            sections[-1] = dataclasses.replace(sections[-1], options=options)
            if len(sections) > MAX_SECTIONS:
                raise ValueError(f"line {number}: more than {MAX_SECTIONS:,} sections")
            continue
        key, equals, value = line.partition("=")
        if not sections:
            raise ValueError(f"line {number}: {_shown(line)} stands before any section")
        if not (key and equals):
            raise ValueError(
                f"line {number}: {_shown(line)} is neither [section] nor key=value"
            )
        before = options.setdefault(key, value)
        if before != value and sections[-1].kind != NET:
            raise ValueError(
                f"line {number}: {_shown(key)} is {_shown(before)} and "
                f"{_shown(value)} in one section; keep one of them"
            )
    if not sections:
        raise ValueError("no [net] section: there is no section at all")
    return tuple(sections)


def format_cfg(sections: Sequence[Section]) -> str:
    """The text that `parse_cfg` reads the same sections from."""
    blocks = (
        "\n".join([f"[{section.kind}]", *map("=".join, section.options.items())])
        for section in sections
    )
    return "\n\n".join(blocks) + "\n"


def word(section: Section, key: str, choices: Sequence[str]) -> str:
    """An option that is one of `choices`.

    Raises:
        ValueError: it is missing, or none of them.
    """
    value = _text(section, key, None)
    if value not in choices:
        raise ValueError(
            f"{section.where}: {key}={_shown(value, quoted=False)} is not known here."
            f"{hint(value[:40], choices)} Choices: {', '.join(choices)}"
        )
    return value


def whole(
    section: Section, key: str, default: int | None = None, *, low: int, high: int
) -> int:
    """An option that is a whole number from `low` to `high`; `default` if missing.

    Raises:
        ValueError: it is missing without a default, or anything else.
    """
    text = _text(section, key, default)
    if not _WHOLE.fullmatch(text) or not low <= int(text) <= high:
        many = f"a whole number from {low} to {high}"
        only = f"{low}, the only value that is supported"
        raise _wrong(section, key, text, many if low < high else only)
    return int(text)


def wholes(section: Section, key: str) -> tuple[int, ...]:
    """An option that is a list of whole numbers; empty if missing.

    Raises:
        ValueError: it is anything else.
    """
    return tuple(map(int, _items(section, key, _WHOLE, "whole numbers")))


def number(
    section: Section, key: str, default: float | None = None, *, low: float, high: float
) -> float:
    """An option that is a number from `low` to `high`; `default` if missing.

    Raises:
        ValueError: it is missing without a default, or anything else.
    """
    text = _text(section, key, default)
    if not _NUMBER.fullmatch(text) or not low <= float(text) <= high:
        many = f"a number from {low:g} to {high:g}"
        only = f"{low:g}, the only value that is supported"
        raise _wrong(section, key, text, many if low < high else only)
    return float(text)


def numbers(section: Section, key: str) -> tuple[float, ...]:
    """An option that is a list of numbers; empty if missing.

    Raises:
        ValueError: it is anything else.
    """
    values = tuple(map(float, _items(section, key, _NUMBER, "numbers")))
    if not all(map(math.isfinite, values)):
        raise _wrong(section, key, section.options[key], "a list of finite numbers")
    return values


def _lines(text: str) -> list[str]:
    # Not splitlines(), which would also split where an editor counts no line.
    return re.split("\r\n|\r|\n", text.removeprefix("\ufeff"))


def _section(line: str, number: int, *, first: bool) -> Section:
    name = line.removeprefix("[").removesuffix("]")
    if not line.endswith("]") or not name:
        raise ValueError(f"line {number}: {_shown(line)} is no [section]")
    kind = _ALIASES.get(name, name)
    if first and kind != NET:
        raise ValueError(
            f"line {number}: the first section is {_shown(line, quoted=False)}, "
            f"where [net] belongs"
        )
    if not first and kind == NET:
        raise ValueError(f"line {number}: a second [net] section")
    return Section(kind, {}, number)


def _text(section: Section, key: str, default: object) -> str:
    value = section.options.get(key, default)
    if value is None:
        near = hint(key, [k for k in section.options if len(k) < 40])
        raise ValueError(f"{section.where}: {key}= is missing.{near}")
    return str(value)


def _items(
    section: Section, key: str, pattern: re.Pattern[str], kind: str
) -> list[str]:
    text = section.options.get(key, "")
    items = text.split(",")
    # A comma may end the list, as in some published files.
    items = items[:-1] if not items[-1] else items
    if not all(pattern.fullmatch(item) for item in items):
        raise _wrong(section, key, text, f"a list of {kind}")
    return items


def _wrong(section: Section, key: str, text: str, expected: str) -> ValueError:
    return ValueError(
        f"{section.where}: {key}={_shown(text, quoted=False)} is not {expected}"
    )


def _shown(text: str, *, quoted: bool = True) -> str:
    """A piece of a file, made fit for a message."""
    shown = ascii(text[:60])
    return shown if quoted else shown[1:-1]
