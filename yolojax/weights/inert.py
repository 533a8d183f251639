"""What a pickle is read into besides Python's own containers: data, no behaviour."""

from __future__ import annotations

import dataclasses
import math
import re
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Global:
    """The name of a class or function; what it names is never looked up."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


def shown(value: Any) -> str:
    """A short, printable form of a simple value, or the name of its type.

    Only of what is simple: a list of forty lists, each twice in the next, has no end.
    """
    if isinstance(value, (str, bytes)):
        return ascii(value[:60])
    if isinstance(value, (int, float)):
        small = isinstance(value, float) or value.bit_length() <= 1024
        return ascii(value)[:60] if small else "a number of thousands of digits"
    if isinstance(value, Global):
        return ascii(str(value)[:60])[1:-1]
    return type(value).__name__


class StandIn:
    """An object of any class: what a file says about it.

    Attributes:
        kind: the name of its class.
        arguments: what the class would have been called with.
        entries: what was appended, for classes that derive from list.
        items: what was set, for classes that derive from dict.
    """

    __slots__ = ("arguments", "kind", "_entries", "_items", "_states")

    def __init__(self, kind: Global, arguments: tuple[Any, ...]):
        self.kind = kind
        self.arguments = arguments
        self._entries: list[Any] | None = None
        self._items: dict[Any, Any] | None = None
        # Kept as they come: one dict may be the state of many objects.
        self._states: tuple[Any, ...] = ()

    @property
    def entries(self) -> list[Any]:
        """The list that appending goes to."""
        if self._entries is None:
            self._entries = []
        return self._entries

    @property
    def items(self) -> dict[Any, Any]:
        """The dict that setting items goes to."""
        if self._items is None:
            self._items = {}
        return self._items

    def build(self, state: Any) -> None:
        """Take the object's state; of (dict, slots) both."""
        if len(self._states) >= 8:
            kind = shown(self.kind)
            raise ValueError(f"its pickle sets the state of a {kind} too often")
        parts = state if isinstance(state, tuple) and len(state) == 2 else (state,)
        self._states += tuple(part for part in parts if isinstance(part, dict))

    def get(self, name: str) -> Any:
        """The attribute called `name`, or None."""
        for state in reversed(self._states):
            if name in state:
                return state[name]
        return None


class NumpyType:
    """A NumPy data type: booleans and numbers only."""

    __slots__ = ("_text",)
    _KNOWN = re.compile(r"[<>|=]?(b1|[iu][1248]|f[248]|c8|c16)")

    def __init__(self, text: str):
        self._text = text

    @classmethod
    def from_call(cls, arguments: tuple[Any, ...]) -> NumpyType:
        """What stands for `numpy.dtype(text, align, copy)`."""
        return cls(arguments[0] if isinstance(arguments[0], str) else "object")

    @staticmethod
    def scalar(arguments: tuple[Any, ...]) -> Any:
        """A Python number for NumPy's `scalar(dtype, bytes)`."""
        kind, content = arguments
        if not isinstance(kind, NumpyType) or not isinstance(content, bytes):
            raise ValueError("its pickle has a NumPy number without type or content")
        if len(content) != kind.dtype.itemsize:
            raise ValueError(
                f"its pickle has a NumPy number of {len(content)} bytes, "
                f"not {kind.dtype.itemsize}"
            )
        return np.frombuffer(content, kind.dtype)[0].item()

    def build(self, state: Any) -> None:
        """Take the byte order, the only part of the state that numbers have."""
        order = state[1]
        if order not in ("<", ">", "|", "="):
            raise ValueError("its pickle has a NumPy type of unknown byte order")
        self._text = order + self._text.lstrip("<>|=")

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type itself.

        Raises:
            ValueError: it is not one of booleans or numbers.
        """
        if not self._KNOWN.fullmatch(self._text):
            kind = shown(self._text)
            raise ValueError(f"its pickle has a NumPy array of type {kind}: not read")
        return np.dtype(self._text)


class NumpyArray:
    """A NumPy array; `value` is a read-only view of what the file holds."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = np.zeros(0, np.float32)

    @classmethod
    def from_call(cls, _: tuple[Any, ...]) -> NumpyArray:
        """What stands for NumPy's `_reconstruct(ndarray, (0,), b"b")`."""
        return cls()

    @classmethod
    def from_buffer(cls, arguments: tuple[Any, ...]) -> NumpyArray:
        """What stands for NumPy's `_frombuffer(content, dtype, shape, order)`."""
        content, kind, shape, order = arguments
        array = cls()
        array.build((1, shape, kind, order == "F", content))
        return array

    def build(self, state: Any) -> None:
        """Take (version, shape, dtype, is_fortran, content)."""
        _, shape, kind, is_fortran, content = state
        if not isinstance(kind, NumpyType) or not isinstance(
            content, (bytes, bytearray)
        ):
            raise ValueError("its pickle has a NumPy array without type or content")
        sizes = checked_sizes(shape, "the shape of a NumPy array")
        if math.prod(sizes) * kind.dtype.itemsize != len(content):
            raise ValueError(
                f"its pickle has a NumPy array of shape {sizes} in {len(content)} bytes"
            )
        flat = np.frombuffer(content, kind.dtype)
        self.value = flat.reshape(sizes, order="F" if is_fortran else "C")
        self.value.flags.writeable = False


def checked_sizes(value: Any, what: str) -> tuple[int, ...]:
    """A tuple of integers that can be sizes of an array.

    Raises:
        ValueError: it is something else, negative, too long or too large.
    """
    if not isinstance(value, (tuple, list)) or len(value) > 16:
        raise ValueError(f"{what} is no short list of integers")
    for size in value:
        if type(size) is not int or not 0 <= size < 2**48:
            raise ValueError(f"{what} has an entry that is no size of an array")
    if math.prod(size or 1 for size in value) >= 2**48:
        raise ValueError(f"{what} is too large: {tuple(value)}")
    return tuple(value)
