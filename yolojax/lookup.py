"""Find a component by its name, and check the arguments that a config gives it."""

from __future__ import annotations

import difflib
import functools
import inspect
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from yolojax.printable import printable

T = TypeVar("T")


def hint(name: str, choices: Iterable[str]) -> str:
    """A sentence that names the nearest choice, or nothing.

    That may be one of which the name is the initials, as `lr` of `learning_rate`.
    """
    choices = [str(choice) for choice in choices]
    near = difflib.get_close_matches(str(name), choices, n=1)
    if not near and len(str(name)) > 1:
        near = [choice for choice in choices if _initials(choice) == name]
    return f" Did you mean {near[0]!r}?" if near else ""


def _initials(name: str) -> str:
    return "".join(word[:1] for word in name.split("_"))


def pick(table: Mapping[str, T], name: str, kind: str) -> T:
    """The entry of `table` called `name`.

    Raises:
        ValueError: no such entry; the message lists the choices and the nearest one.
    """
    if not isinstance(name, str):
        raise ValueError(f"the {kind} must be a name, not {_short(name)}")
    if name in table:
        return table[name]
    raise ValueError(
        f"no {kind} named {name!r}.{hint(name, table)} "
        f"Choices: {', '.join(sorted(table))}"
    )


def check_arguments(
    function: Callable[..., Any], arguments: Mapping[str, Any], where: str
) -> None:
    """Check that `arguments` are keyword arguments of `function`.

    Args:
        function: the component; its signature is the schema.
        arguments: what the config gives.
        where: the config key, for the message.

    Raises:
        ValueError: an argument is unknown or of another type than the signature
            says, or a required one is missing.
    """
    parameters = inspect.signature(function).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return
    for name in arguments:
        if name not in parameters:
            raise ValueError(
                f"{where} has no argument {name!r}.{hint(name, parameters)} "
                f"Choices: {', '.join(sorted(parameters))}"
            )
    missing = [
        p.name
        for p in parameters.values()
        if p.default is p.empty and p.kind is p.KEYWORD_ONLY and p.name not in arguments
    ]
    if missing:
        raise ValueError(f"{where} needs {', '.join(missing)}")
    _check_types(function, arguments, where)


# Types of values as a signature names them, and how a message does.
_KINDS: dict[type, str] = {
    str: "text",
    bool: "True or False",
    int: "a whole number",
    float: "a number",
}


def _check_types(
    function: Callable[..., Any], arguments: Mapping[str, Any], where: str
) -> None:
    """Check text, numbers, lists and dicts where the signature wants text or numbers.

    Whole numbers may stand for others and for truth values; None is left to the
    function.
    """
    while isinstance(function, functools.partial):
        function = function.func
    try:
        hints = typing.get_type_hints(function)
    except (NameError, TypeError):  # classes, and names known to type checkers only
        return
    for name, value in arguments.items():
        hint = hints.get(name)
        union = typing.get_origin(hint) in (typing.Union, types.UnionType)
        kinds: set[Any] = set(typing.get_args(hint) if union else (hint,))
        kinds -= {type(None)}
        if value is None or not kinds or not kinds <= _KINDS.keys():
            continue
        if not any(_fits(value, kind) for kind in kinds):
            wanted = " or ".join(_KINDS[kind] for kind in _KINDS if kind in kinds)
            raise ValueError(f"{where}: {name} must be {wanted}, not {_short(value)}")


def _fits(value: Any, kind: type) -> bool:
    """Whether a config's value can stand for a type; other objects always can."""
    if isinstance(value, float) and kind is int:
        return value.is_integer()
    if isinstance(value, (bool, int, float)):
        return kind is not str
    if isinstance(value, str):
        return kind is str
    return not isinstance(value, (list, tuple, dict))


def _short(value: Any) -> str:
    return printable(repr(value), 60)


def listed(names: Sequence[str], most: int = 8) -> str:
    """The first names; where there are more, it shows, and how many."""
    more = f", ... ({len(names)} in all)" if len(names) > most else ""
    return ", ".join(map(printable, names[:most])) + more
