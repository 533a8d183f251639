"""What a file of weights holds: named arrays, and what it says about the network."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from yolojax.printable import printable
from yolojax.weights.inert import NumpyArray, StandIn, shown

# Where training checkpoints keep their weights, best first.
_PLACES = ("ema", "model", "state_dict", "model_state_dict", "module")
_MAX_DEPTH = 64
# The largest published model has some 2,000.
_MAX_TENSORS = 20_000
# Letters; published names have some 60.
_MAX_NAME = 500
_MAX_CLASSES = 100_000
_MAX_STRIDE = 2**16


@dataclasses.dataclass(frozen=True)
class Contents:
    """What a file of weights holds.

    Attributes:
        state: arrays by the file's own names, in its own precision.
        class_names: of the detector, where the file says so.
        strides: pixels per cell of every level, where the file says so.
        description: the network's own description (`yaml` of a YOLOv5), or empty.
        kinds: names of the classes that the network is built from, or none.
        place: where in the file the weights were: `ema`, `model`, ... or nothing.
    """

    state: dict[str, np.ndarray]
    class_names: tuple[str, ...] | None = None
    strides: tuple[int, ...] | None = None
    description: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    kinds: tuple[str, ...] = ()
    place: str = ""


def contents_of(loaded: Any) -> Contents:
    """What an unpickled object holds: a checkpoint, a module or a state dict.

    Raises:
        ValueError: there are no weights in it, it contains itself, or a tensor is
            larger than what the file holds for it.
    """
    place, holder = _find(loaded, set())
    if holder is None:
        raise ValueError(f"no weights in it: it holds {_described(loaded)}")
    kinds: dict[str, None] = {}
    named = _tensors(holder, kinds) if isinstance(holder, StandIn) else holder.items()
    state = {}
    for name, tensor in named:
        if not isinstance(name, str) or not _is_tensor(tensor):
            continue
        if len(name) > _MAX_NAME:
            raise ValueError(f"its tensor {shown(name)} has a name too long")
        if getattr(tensor, "repeats", False):
            raise ValueError(
                f"its tensor {shown(name)} of shape {tensor.shape} has more elements "
                f"than the file holds for it"
            )
        state[name] = tensor.value
        if len(state) > _MAX_TENSORS:
            raise ValueError(f"it has more than {_MAX_TENSORS} tensors")
    return Contents(
        state=state,
        class_names=clean_class_names(_attribute(holder, loaded, "names")),
        strides=_strides(_attribute(holder, loaded, "stride")),
        description=_description(_attribute(holder, loaded, "yaml")),
        kinds=tuple(kinds),
        place=place,
    )


def _described(loaded: Any) -> str:
    """What an object without weights is: its class, or the keys of a dict."""
    if isinstance(loaded, StandIn):
        return f"a {shown(loaded.kind)}"
    kind = f"a {type(loaded).__name__}"
    if not isinstance(loaded, dict) or not loaded:
        return kind
    keys = [shown(key).strip("'") for key in itertools.islice(loaded, 8)]
    return f"{kind} with {', '.join(keys)[:200]}"


def _find(loaded: Any, seen: set[int], depth: int = 0) -> tuple[str, Any]:
    """Where the weights are, and the module or dict that holds them, or None.

    Args:
        loaded: the object.
        seen: ids of what was looked at: one dict may stand at many places.
        depth: of the object in the file's.
    """
    if _is_module(loaded):
        return "", loaded
    get = loaded.get if isinstance(loaded, (dict, StandIn)) else None
    if get is None or depth > 3 or id(loaded) in seen:
        return "", None
    seen.add(id(loaded))
    for place in _PLACES:
        if get(place) is not None:
            inner, holder = _find(get(place), seen, depth + 1)
            if holder is not None:
                return f"{place}.{inner}".rstrip("."), holder
    if isinstance(loaded, dict) and any(map(_is_tensor, loaded.values())):
        return "", loaded
    return "", None


def _is_tensor(value: Any) -> bool:
    return hasattr(type(value), "value") or isinstance(value, NumpyArray)


def _is_module(value: Any) -> bool:
    return isinstance(value, StandIn) and isinstance(value.get("_modules"), dict)


def _tensors(module: StandIn, kinds: dict[str, None]) -> Iterator[tuple[str, Any]]:
    """Parameters and persistent buffers of a module and all in it, by name."""
    count, open_modules = 0, set()
    # Entered and left explicitly: a file may nest deeper than Python may recurse.
    waiting: list[tuple[str, StandIn, bool]] = [("", module, True)]
    while waiting:
        prefix, module, entering = waiting.pop()
        if len(prefix) > _MAX_NAME:
            raise ValueError(f"its module {shown(prefix)} has a name too long")
        if not entering:
            open_modules.discard(id(module))
            continue
        if id(module) in open_modules:
            raise ValueError(f"its module {shown(prefix)} contains itself")
        open_modules.add(id(module))
        if len(open_modules) > _MAX_DEPTH:
            raise ValueError(f"its modules are nested deeper than {_MAX_DEPTH}")
        kinds[module.kind.name] = None
        left_out = module.get("_non_persistent_buffers_set")
        for part in ("_parameters", "_buffers"):
            for name, tensor in _dict(module, part).items():
                count += 1
                if count > _MAX_TENSORS:
                    break
                if not isinstance(name, str):
                    continue
                if isinstance(left_out, set) and name in left_out:
                    continue
                yield f"{prefix}{name}", tensor
        waiting.append((prefix, module, False))
        inner = [
            (f"{prefix}{name}.", part, True)
            for name, part in _dict(module, "_modules").items()
            if isinstance(part, StandIn) and isinstance(name, str)
        ]
        waiting += inner[::-1]
        count += 1
        if count + len(waiting) > _MAX_TENSORS:
            raise ValueError(f"it has more than {_MAX_TENSORS} tensors and modules")


def _dict(module: StandIn, name: str) -> Mapping[Any, Any]:
    value = module.get(name)
    return value if isinstance(value, dict) else {}


def _attribute(holder: Any, loaded: Any, name: str) -> Any:
    """What the module says, or else the checkpoint that it lies in."""
    for place in (holder, loaded):
        if isinstance(place, (StandIn, dict)) and place.get(name) is not None:
            return place.get(name)
    return None


def clean_class_names(names: Any) -> tuple[str, ...] | None:
    """Class names out of a list, or a dict by number; None for anything else."""
    if not isinstance(names, (dict, list, tuple)) or len(names) > _MAX_CLASSES:
        return None
    if isinstance(names, dict):
        if set(names) != set(range(len(names))):
            return None
        names = [names[number] for number in range(len(names))]
    if not names:
        return None
    if not all(isinstance(name, (str, int)) for name in names):
        return None
    # They are printed and written.
    texts = (str(name)[:100] for name in names)
    return tuple("".join(c if printable(c) == c else "?" for c in t) for t in texts)


def _strides(value: Any) -> tuple[int, ...] | None:
    if not _is_tensor(value) or getattr(value, "repeats", False):
        return None
    array = value.value
    if not 1 <= array.size <= 8 or array.dtype.kind == "c":
        return None
    numbers = np.asarray(array, np.float64).reshape(-1)
    if not np.all((numbers >= 1) & (numbers <= _MAX_STRIDE)):
        return None
    return tuple(int(number) for number in numbers)


def _description(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        return {}
    return {key: part for key, part in value.items() if isinstance(key, str)}
