"""What reading one file of weights may cost: steps, copies, and memory."""

from __future__ import annotations

import sys
from typing import Any

from yolojax.weights.inert import Global, StandIn

# A training checkpoint of the largest published model takes some 600,000 steps and
# two megabytes; an empty dict costs a file one byte and memory 64.
MAX_OPERATIONS = 1_200_000
MAX_BYTES = 64 * 2**20
# Of all that the steps make, in bytes; texts are up to four times as large as read.
MAX_MEMORY = 128 * 2**20
# Of a single text, and of a line: names and numbers in older pickles.
MAX_VALUE = 16 * 2**20
MAX_LINE = 2**20
_STEP = 64
# What is larger than that: an empty set has room for eight values.
_STEPS = {"EMPTY_SET": 232}
_MAX_KEY_PARTS = 64
_MAX_KEY_DEPTH = 4
# Unequal tuples with equal hashes can be made on purpose, each compared with each.
_KEY_COST = 500
_PLAIN_KEYS = (bool, float, bytes, Global, StandIn, type(None))


class Budget:
    """Counts what all the pickles of a file cost."""

    def __init__(self) -> None:
        self._operations = 0
        self._copied = 0
        self._memory = 0

    def step(self, name: str, argument: Any) -> None:
        """Count a step of a pickle.

        Raises:
            ValueError: it is one too many, or what the steps made is too large.
        """
        self._operations += 1
        self._memory += _STEPS.get(name, _STEP)
        if argument is not None:
            self._memory += sys.getsizeof(argument)
        if self._operations > MAX_OPERATIONS or self._memory > MAX_MEMORY:
            raise ValueError(
                f"its pickle is larger than {MAX_OPERATIONS:,} operations or "
                f"{MAX_MEMORY:,} bytes of values, which no weights need"
            )

    def spend(self, amount: int) -> None:
        """Count values that are copied: to name one long list again costs nothing.

        Raises:
            ValueError: they are too many.
        """
        self._copied += amount
        if self._copied > MAX_OPERATIONS:
            raise ValueError("its pickle copies the same values again and again")

    def key(self, value: Any) -> Any:
        """A dict's key as it came; nothing is hashed that could take long.

        Raises:
            ValueError: it cannot be a key, or is a tuple of many parts: a few tuples
                in one another can stand for more parts than can be visited.
        """
        if type(value) is str:
            return value
        if isinstance(value, tuple):
            self.spend(_KEY_COST)
            _check_tuple(value)
        else:
            _check_key(value)
        return value


class Window:
    """A stream of which one pickle is read, in pieces that are not too large.

    Args:
        stream: a binary file object.
    """

    def __init__(self, stream: Any):
        self.tell = stream.tell
        self._stream = stream

    def read(self, size: int) -> bytes:
        """The next bytes, fewer at the end."""
        content = self._stream.read(min(size, MAX_VALUE + 1))
        if len(content) > MAX_VALUE:
            raise ValueError(f"a value of {size:,} bytes, at most {MAX_VALUE:,}")
        return content

    def readline(self) -> bytes:
        """The next bytes up to a line's end."""
        line = self._stream.readline(MAX_LINE + 1)
        if len(line) > MAX_LINE:
            raise ValueError(f"a line of more than {MAX_LINE:,} bytes")
        return line


def _check_tuple(value: tuple[Any, ...]) -> None:
    left, waiting = _MAX_KEY_PARTS, [(value, 1)]
    while waiting:
        parts, depth = waiting.pop()
        left -= len(parts)
        if left < 0 or depth > _MAX_KEY_DEPTH:
            raise ValueError(
                "its pickle has a tuple as a key that is too deep or too long"
            )
        for part in parts:
            if isinstance(part, tuple):
                waiting.append((part, depth + 1))
            else:
                _check_key(part)


def _check_key(value: Any) -> None:
    if type(value) is int:
        if not -(2**63) <= value < 2**64:
            raise ValueError("its pickle has a key of more than 64 bits")
    elif not isinstance(value, (str, *_PLAIN_KEYS)) and (
        type(value).__hash__ is not object.__hash__
    ):
        kind = type(value).__name__
        raise ValueError(f"its pickle has a {kind} as a key, which is not allowed")
