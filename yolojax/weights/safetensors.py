"""Weights in `.safetensors` files: plain arrays by name, and a line of text.

Source: the format as huggingface/safetensors describes it, version 0.4 and later.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save

from yolojax.files import replace_file
from yolojax.weights.contents import Contents, clean_class_names
from yolojax.weights.inert import checked_sizes

# One key, since the library writes several in no certain order.
_KEY = "yolojax"
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

    Raises:
        ValueError: it is no such file, is cut off, or has a type that is not read.
    """
    content = Path(path).read_bytes()
    try:
        arrays = deserialize(content)
    except SafetensorError as error:
        raise ValueError(f"{path}: no readable .safetensors file ({error})") from error
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    del content
    state = {}
    for name, found in arrays:
        if found["dtype"] not in _DTYPES:
            raise ValueError(
                f"{path}: its tensor {ascii(name)} is of type {found['dtype']}, which "
                f"is not read"
            )
        shape = checked_sizes(list(found["shape"]), f"{path}: the shape of a tensor")
        flat = np.frombuffer(found["data"], _DTYPES[found["dtype"]])
        state[name] = flat.reshape(shape)
        state[name].flags.writeable = False
    about = _about(header.get("__metadata__") or {})
    return Contents(
        state=state,
        class_names=clean_class_names(about.get("class_names")),
        description=about,
    )


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


def _about(metadata: Mapping[str, str]) -> dict[str, Any]:
    try:
        about = json.loads(metadata.get(_KEY, "{}"))
    except (ValueError, RecursionError):
        return {}
    return about if isinstance(about, dict) else {}
