"""Maps and arguments of a description's rows, as the planning of modules needs them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from yolojax.models.description import (
    MAX_CHANNELS,
    Description,
    Row,
    parse_activation,
)
from yolojax.yaml_text import number_in, shown

MAX_WINDOW = 63
_NO_DEFAULT = object()


@dataclasses.dataclass(frozen=True)
class Map:
    """A map of features; its side is `side of the picture / stride + extra`.

    Attributes:
        channels: of the map.
        stride: pixels per cell.
        extra: rows and columns more than that, as after padding.
    """

    channels: int
    stride: Fraction = Fraction(1)
    extra: tuple[int, int] = (0, 0)

    def __str__(self) -> str:
        extra = " and ".join(f"{n:+d}" for n in dict.fromkeys(self.extra))
        more = f" ({extra} pixels)" if any(self.extra) else ""
        return f"{self.channels} channels at stride {self.stride}{more}"

    def slid(self, channels: int, size: int, stride: int, padding: int) -> Map:
        """The map after windows have slid over it."""
        rows, columns = (
            (extra + 2 * padding - size) // stride + 1 for extra in self.extra
        )
        return Map(channels, self.stride * stride, (rows, columns))

    def same_place(self, other: Map) -> bool:
        """Whether both have as many rows and columns."""
        return (self.stride, self.extra) == (other.stride, other.extra)


@dataclasses.dataclass(frozen=True)
class Layer:
    """What a row becomes.

    Attributes:
        arguments: of the module.
        result: the map that comes out.
        weights: about how many parameters it has.
    """

    arguments: Mapping[str, Any]
    result: Map
    weights: int = 0


class Arguments:
    """A row's arguments, read by name.

    Args:
        row: the row.
        names: of its positional arguments.
        about: the description.
        blocks: what the row's number is after scaling, for modules that have blocks.

    Raises:
        ValueError: there are more arguments than names. All methods raise it, too,
            and name row and argument.
    """

    def __init__(self, row: Row, names: str, about: Description, blocks: int):
        self.where, self.about, self.blocks = row.where, about, blocks
        known = names.split()
        if len(row.arguments) > len(known):
            raise ValueError(
                f"{row.where}: has {len(row.arguments)} arguments; it takes "
                f"{', '.join(known) or 'none'}"
            )
        self._given = dict(zip(known, row.arguments, strict=False))

    def get(self, name: str, default: Any = _NO_DEFAULT) -> Any:
        """The argument as it is."""
        value = self._given.get(name, default)
        if value is _NO_DEFAULT:
            raise ValueError(f"{self.where}: needs the argument {name}")
        return value

    def wrong(self, name: str, expected: str) -> ValueError:
        """The error for an argument that is not as expected."""
        value = shown(self._given.get(name))
        return ValueError(f"{self.where}: {name} must be {expected}, not {value}")

    def integer(
        self, name: str, default: Any = _NO_DEFAULT, low: int = 1, high: int = 16
    ) -> int:
        """A whole number."""
        value = self.get(name, default)
        if type(value) is not int or not low <= value <= high:
            raise self.wrong(name, f"a whole number, {low} to {high}")
        return value

    def window(self, name: str, default: Any = _NO_DEFAULT, odd: bool = False) -> int:
        """The side of a window; `[k, k]` is one, too."""
        value = self.get(name, default)
        if isinstance(value, list) and len(value) == 2 and value[0] == value[1]:
            value = self._given[name] = value[0]
        size = self.integer(name, default, 1, MAX_WINDOW)
        if odd and size % 2 == 0:
            raise self.wrong(name, "odd")
        return size

    def flag(self, name: str, default: bool) -> bool:
        """True or False; 0 and 1 will do."""
        value = self.get(name, default)
        if value not in (True, False) or isinstance(value, float):
            raise self.wrong(name, "True or False")
        return bool(value)

    def activation(self, value: Any = True) -> str:
        """The unit's activation: the network's own for True, none for False."""
        if value is True:
            return self.about.activation
        if value is False or value is None:
            return "linear"
        try:
            return parse_activation(value)
        except ValueError as error:
            raise ValueError(f"{self.where}: {error}") from error

    def features(self, multiple_of: int = 1) -> int:
        """Channels out, scaled by the width; those of raw maps are not scaled."""
        channels = self.integer("channels", high=MAX_CHANNELS)
        if channels != self.about.num_outputs:
            channels = math.ceil(channels * self.about.width / 8) * 8
        if channels > MAX_CHANNELS:
            raise ValueError(
                f"{self.where}: {channels} channels; at most {MAX_CHANNELS}"
            )
        if channels % multiple_of:
            raise ValueError(
                f"{self.where}: {channels} channels; it needs a multiple of "
                f"{multiple_of}"
            )
        return channels

    def hidden(self, features: int, default: float, multiple_of: int = 1) -> int:
        """Channels inside, from the argument `expansion`."""
        value = number_in(self.get("expansion", default))
        if value is None or not 0 < value <= 8:
            raise self.wrong("expansion", "a number above 0 and at most 8")
        hidden = int(features * value)
        if not hidden or hidden % multiple_of:
            raise ValueError(
                f"{self.where}: {hidden} channels inside; it needs a multiple of "
                f"{multiple_of}"
            )
        return hidden

    def groups(self, *channels: int) -> int:
        """Groups of channels, which must divide all of `channels`."""
        groups = self.integer("groups", 1, 1, MAX_CHANNELS)
        if any(count % groups for count in channels):
            counts = " and ".join(map(str, channels))
            raise ValueError(
                f"{self.where}: {groups} groups do not divide {counts} channels"
            )
        return groups
