"""Weights in `.safetensors` files: plain arrays by name, and a line of text.

Source: the format as huggingface/safetensors describes it, version 0.4 and later.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import jax.numpy as jnp
import numpy as np
from safetensors.numpy import save

from yolojax.files import open_file, replace_file
from yolojax.ops.letterbox import LETTERBOXES
from yolojax.printable import printable
from yolojax.weights.contents import Contents, clean_class_names
from yolojax.weights.inert import checked_sizes, shown

# One key, since the library writes several in no certain order.
_KEY = "yolojax"
# Bytes; that of the largest published network has some 200,000.
_MAX_HEADER = 4 * 2**20
_MAX_TENSORS = 20_000
_MAX_NAME = 500
# Of pictures, in pixels, that a file can ask for.
MAX_SIDE = 8_192
_DTYPES: dict[str, Any] = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": jnp.bfloat16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U64": np.uint64,
    "U32": np.uint32,
    "U16": np.uint16,
    "U8": np.uint8,
    "BOOL": np.bool_,
}


def read_safetensors(path: str | Path) -> Contents:
    """Names and arrays of a `.safetensors` file, in its own precision.

    The header is read and checked before anything else.

    Raises:
        ValueError: it is no such file, is cut off, has a type that is not read, or
            what we wrote beside the arrays has another form.
    """
    with open_file(path) as file:
        try:
            size = os.fstat(file.fileno()).st_size
            header = _read_header(file, size)
            about = _about(header.pop("__metadata__", {}))
            entries = _entries(header, size - file.tell())
            return Contents(
                state=_read_arrays(file, entries),
                class_names=clean_class_names(about.get("class_names")),
                description=about,
            )
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error


def write_safetensors(
    path: str | Path, state: Mapping[str, np.ndarray], about: Mapping[str, Any]
) -> None:
    """Write arrays by name; the same arrays give the same bytes.

    Args:
        path: the file.
        state: arrays by name.
        about: JSON values that `read_safetensors` gives back as `description`.
    """
    arrays = {name: np.asarray(array, order="C") for name, array in state.items()}
    text = json.dumps(about, sort_keys=True)
    replace_file(Path(path), save(arrays, metadata={_KEY: text}))


class _Entry(NamedTuple):
    """An array in the file: bytes from `start` to `end` after the header."""

    start: int
    end: int
    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]


def _read_header(file: BinaryIO, size: int) -> dict[str, Any]:
    length = int.from_bytes(file.read(8), "little")
    if size < 8 or length > size - 8:
        raise ValueError(
            f"no readable .safetensors file: {size:,} bytes, of which the header "
            f"should have {length:,}; the file is cut off or of another kind"
        )
    if length > _MAX_HEADER:
        raise ValueError(
            f"its header has {length:,} bytes; at most {_MAX_HEADER:,} are read"
        )
    return _parsed(file.read(length), "its header")


def _parsed(content: str | bytes, what: str) -> dict[str, Any]:
    """A JSON object."""
    try:
        text = content.decode("utf-8") if isinstance(content, bytes) else content
        value = json.loads(
            text, object_pairs_hook=_unique, parse_constant=_refused_constant
        )
    except (ValueError, RecursionError) as error:
        # UnicodeDecodeError would show the whole content.
        problem = getattr(error, "reason", None) or printable(error, 200)
        raise ValueError(f"{what} is no readable JSON ({problem})") from error
    if not isinstance(value, dict):
        raise ValueError(f"{what} is a {type(value).__name__}, not an object of JSON")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError("it has one name twice")
    return values


def _refused_constant(text: str) -> Any:
    raise ValueError(f"{text} is no number of JSON")


def _entries(header: Mapping[str, Any], size: int) -> list[_Entry]:
    """The arrays in the order of the file; they fill it without holes.

    Args:
        header: what is said about each array, by its name.
        size: bytes after the header.
    """
    if len(header) > _MAX_TENSORS:
        raise ValueError(f"it has more than {_MAX_TENSORS:,} tensors")
    entries = sorted(_entry(name, about) for name, about in header.items())
    end = 0
    for entry in entries:
        if entry.start != end:
            raise ValueError(
                f"its tensor {shown(entry.name)} starts at byte {entry.start:,}, where "
                f"the one before ends at {end:,}"
            )
        end = entry.end
    if end != size:
        raise ValueError(
            f"its tensors have {end:,} bytes, and {size:,} follow the header; the file "
            f"is cut off or damaged"
        )
    return entries


def _entry(name: str, about: Any) -> _Entry:
    if len(name) > _MAX_NAME:
        raise ValueError(f"its tensor {shown(name)} has a name too long")
    what = f"its tensor {shown(name)}"
    if not isinstance(about, dict) or about.keys() != {
        "dtype",
        "shape",
        "data_offsets",
    }:
        raise ValueError(f"{what} is described without dtype, shape and data_offsets")
    kind, shape, offsets = about["dtype"], about["shape"], about["data_offsets"]
    if not isinstance(kind, str) or kind not in _DTYPES:
        kind = printable(kind, 20) if isinstance(kind, str) else shown(kind)
        raise ValueError(f"{what} is of type {kind}, which is not read")
    dtype = np.dtype(_DTYPES[kind])
    sizes = checked_sizes(shape, f"the shape of {what}")
    if not isinstance(offsets, list) or len(offsets) != 2:
        raise ValueError(f"{what} has data_offsets that are not two numbers")
    start, end = checked_sizes(offsets, f"the data_offsets of {what}")
    if end - start != math.prod(sizes) * dtype.itemsize:
        raise ValueError(
            f"{what} of type {kind} and shape {sizes} has {end - start:,} bytes"
        )
    return _Entry(start, end, name, dtype, sizes)


def _read_arrays(file: BinaryIO, entries: list[_Entry]) -> dict[str, np.ndarray]:
    state = {}
    for entry in entries:
        content = file.read(entry.end - entry.start)
        if len(content) < entry.end - entry.start:
            raise ValueError("it became shorter while it was read")
        state[entry.name] = np.frombuffer(content, entry.dtype).reshape(entry.shape)
    return state


def _about(metadata: Any) -> dict[str, Any]:
    """What we wrote beside the arrays; nothing in files of others."""
    if not isinstance(metadata, dict):
        raise ValueError("its __metadata__ is no object of JSON")
    text = metadata.get(_KEY)
    if text is None:
        return {}
    what = f"its metadata {_KEY!r}"
    if not isinstance(text, str):
        raise ValueError(f"{what} is no text")
    about = _parsed(text, what)
    for key, (expected, fits) in _FORMS.items():
        if key in about and not fits(about[key]):
            raise ValueError(
                f"{what}: {key} must be {expected}, not {_short(about[key])}"
            )
    return about


def _short(value: Any) -> str:
    """A value of JSON for a message."""
    try:
        return printable(json.dumps(value), 60)
    except RecursionError:
        return f"a {type(value).__name__} of many in one another"


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(n, str) and n for n in value)


def _are_sides(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 2
        and all(type(side) is int and 1 <= side <= MAX_SIDE for side in value)
    )


def _is_letterbox(value: Any) -> bool:
    return isinstance(value, str) and value in LETTERBOXES


def _is_multiple(value: Any) -> bool:
    return type(value) in (int, float) and 0 < value <= 100


# What we write: what a value must be, and whether one is.
_FORMS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "model": ("keys and values", lambda value: isinstance(value, dict)),
    "image_size": (f"two numbers from 1 to {MAX_SIDE:,}", _are_sides),
    "loss": ("a name", lambda value: isinstance(value, str)),
    "letterbox": (f"one of {', '.join(LETTERBOXES)}", _is_letterbox),
    "class_names": ("a list of names", _are_names),
    "depth_multiple": ("a number above 0, at most 100", _is_multiple),
    "width_multiple": ("a number above 0, at most 100", _is_multiple),
    "backbone": ("a list of rows", lambda value: isinstance(value, list)),
    "head": ("a list of rows", lambda value: isinstance(value, list)),
}
