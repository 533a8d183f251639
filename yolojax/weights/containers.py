"""What is done for the callables by which pickles make plain data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from yolojax.weights.budget import Budget
from yolojax.weights.inert import Global, NumpyArray, NumpyType, StandIn

Call = Callable[[tuple[Any, ...]], Any]


def container_calls(budget: Budget) -> dict[str, Call]:
    """What is done for the callables that make containers, bytes and NumPy's types.

    Args:
        budget: counts the values that calls copy, and checks keys.

    Returns:
        By `module.name`, a function from the tuple of arguments to the value.
    """

    def items(arguments: tuple[Any, ...]) -> Any:
        if len(arguments) > 1:
            raise ValueError("its pickle makes a container of several arguments")
        values = arguments[0] if arguments else ()
        if not isinstance(values, (list, tuple, set, frozenset, dict)):
            raise ValueError(f"its pickle makes a container of {type(values).__name__}")
        budget.spend(len(values))
        return values

    def make_dict(arguments: tuple[Any, ...]) -> dict[Any, Any]:
        values = items(arguments)
        if isinstance(values, dict):
            return dict(values)
        made = {}
        for pair in values:
            if not isinstance(pair, (list, tuple)) or len(pair) != 2:
                raise ValueError("its pickle makes a dict of no keys and values")
            made[budget.key(pair[0])] = pair[1]
        return made

    def make_default_dict(arguments: tuple[Any, ...]) -> dict[Any, Any]:
        return make_dict(arguments[1:])

    def encode(arguments: tuple[Any, ...]) -> bytes:
        text, encoding = (*arguments, "latin1")[:2]
        if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
            raise ValueError("its pickle encodes something other than Latin-1 text")
        # Letters, of which one takes less than any other value.
        budget.spend(len(text) // 16)
        return text.encode("latin-1")

    def make_complex(arguments: tuple[Any, ...]) -> complex:
        real, imaginary = arguments
        if not isinstance(real, float) or not isinstance(imaginary, float):
            raise ValueError("its pickle makes a complex number of no two numbers")
        return complex(real, imaginary)

    plain: dict[str, Call] = {
        "dict": make_dict,
        "list": lambda arguments: list(items(arguments)),
        "tuple": lambda arguments: tuple(items(arguments)),
        "set": lambda arguments: set(map(budget.key, items(arguments))),
        "frozenset": lambda arguments: frozenset(map(budget.key, items(arguments))),
        "bytes": lambda arguments: bytes(encode(arguments) if arguments else b""),
        "complex": make_complex,
        "object": lambda _: StandIn(Global("builtins", "object"), ()),
    }
    calls = {
        f"{m}.{k}": f for m in ("builtins", "__builtin__") for k, f in plain.items()
    }
    calls |= {
        "collections.OrderedDict": make_dict,
        "collections.defaultdict": make_default_dict,
        "collections.deque": plain["list"],
        "_codecs.encode": encode,
        "numpy.dtype": NumpyType.from_call,
    }
    for package in ("numpy.core", "numpy._core"):
        calls |= {
            f"{package}.multiarray._reconstruct": NumpyArray.from_call,
            f"{package}.multiarray.scalar": NumpyType.scalar,
            f"{package}.numeric._frombuffer": NumpyArray.from_buffer,
        }
    return calls
