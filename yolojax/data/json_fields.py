"""JSON of others: an object from a file, and values of the types that are expected."""

from __future__ import annotations

import json
import re
import reprlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from yolojax.files import FileError, decode_text, read_file
from yolojax.records import Id

# Bytes; the annotations of the largest public sets have some 5 GB.
LARGEST = 2**33
_WHOLE = re.compile(r"-?\d{1,18}(\.0*)?", re.ASCII)
_LEADING_ZERO = re.compile(r"-?0\d")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
_LONGEST_NUMBER = 64  # characters
_TRUTH = {"0": False, "1": True, "false": False, "true": True, "": False}
_TRUTH |= {"no": False, "yes": True, "0.0": False, "1.0": True}

_short = reprlib.Repr()
_short.maxstring = _short.maxother = _short.maxlong = 80
_short.maxlevel, _short.maxlist, _short.maxdict = 3, 6, 6


class RepeatedKeys(dict[str, Any]):
    """An object of a file in which a key stands twice, with different values.

    Attributes:
        repeated: these keys.
    """

    repeated: frozenset[str] = frozenset()


def load_object(file: Path, expected: str) -> dict[str, Any]:
    """The JSON object of a file.

    Args:
        file: UTF-8, or UTF-16 and UTF-32 as far as JSON readers tell these.
        expected: what the object is, for the message.

    Raises:
        ValueError: the file cannot be read, is no JSON, or holds something else.
    """
    try:
        text = decode_text(read_file(file, limit=LARGEST))
        content = json.loads(text, object_pairs_hook=_object)
    except FileError:
        raise
    except RecursionError as error:
        raise ValueError(f"{file} is not JSON that we read: nested too deep") from error
    except ValueError as error:  # broken JSON, or bytes that are no text
        raise ValueError(f"{file} is not JSON: {error}") from error
    if not isinstance(content, dict):
        first = content[0] if isinstance(content, list) and content else None
        results = isinstance(first, dict) and "score" in first
        raise ValueError(
            f"{file} holds {kind_of(content)}; expected {expected}"
            + ". These are results of a detector; give the annotation file" * results
        )
    return content


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    different = frozenset(key for key, value in pairs if not _same(value, found[key]))
    if not different:
        return found
    result = RepeatedKeys(found)
    result.repeated = different
    return result


def _same(first: Any, second: Any) -> bool:
    return first is second or (type(first) is type(second) and first == second)


def repeated_key(record: Mapping[str, Any], keys: Sequence[str]) -> str:
    """The first of some keys that stands twice in an object; empty: none does."""
    if not isinstance(record, RepeatedKeys):
        return ""
    return next((key for key in keys if key in record.repeated), "")


def read_id(value: Any) -> Id | None:
    """A number or text that names something; None where the value is neither.

    Whole numbers are the same id in every form: 1, 1.0, "1" and "1.0". Other texts,
    also those with leading zeros, stay texts.
    """
    if isinstance(value, str):
        text = value.strip()
        if _WHOLE.fullmatch(text) and not _LEADING_ZERO.match(text):
            return int(text.partition(".")[0])
        return value or None
    if isinstance(value, bool):
        return None
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    return value if isinstance(value, int) else None


def read_number(value: Any) -> float | None:
    """A number, also one that is quoted; None where the value is none.

    An integer beyond all floats is infinite.
    """
    if type(value) is float:
        return value
    if isinstance(value, str):
        text = value.strip()
        fine = len(text) <= _LONGEST_NUMBER and _NUMBER.fullmatch(text)
        return float(text) if fine else None
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    try:
        return float(value)
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")


def read_truth(value: Any) -> bool | None:
    """True or False, also as 0, 1 or text; null is False. None: none of these."""
    if value is None or isinstance(value, bool):
        return bool(value)
    if isinstance(value, str):
        return _TRUTH.get(value.strip().lower()) if len(value) < 16 else None
    return bool(value) if isinstance(value, int | float) and value in (0, 1) else None


def shown(value: Any) -> str:
    """The value for a message, cut where it is long; texts have quotes."""
    return _short.repr(value)


def kind_of(value: Any) -> str:
    """What JSON calls a value, with its article."""
    kinds = {dict: "an object", list: "a list", str: "a text", bool: "a truth value"}
    if value is None:
        return "null"
    return next((k for t, k in kinds.items() if isinstance(value, t)), "a number")
