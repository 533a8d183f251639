"""A pickle machine that runs nobody's code.

Python's unpickler imports what a file names and calls it. This one knows a short
list of data types; every other class becomes a `StandIn`, which holds what the file
says about the object and does nothing. Nothing is imported by name, no method of a
loaded object is called, and what a file can make it allocate is bounded.
"""

from __future__ import annotations

import pickletools
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from yolojax.printable import printable
from yolojax.weights.budget import MAX_BYTES, Budget, Window
from yolojax.weights.containers import Call, container_calls
from yolojax.weights.inert import Global, StandIn, shown

# Names of modules and classes; real ones have some sixty.
_MAX_NAME = 1_000


class Machine:
    """Reads one pickle of a stream.

    Args:
        calls: what to do for a callable that the file names, by `module.name`, with
            the tuple of its arguments; besides the containers and NumPy's types.
        persistent: what stands for the object with a persistent id.
        budget: of the file, where it holds several pickles.
    """

    def __init__(
        self,
        calls: Mapping[str, Call],
        persistent: Callable[[Any], Any],
        budget: Budget | None = None,
    ):
        self._budget = budget or Budget()
        self._calls = {**container_calls(self._budget), **calls}
        self._persistent = persistent
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def run(self, stream: Any) -> Any:
        """The object that the pickle at the stream's position describes.

        Args:
            stream: a binary file object; stands behind the pickle afterwards.

        Raises:
            ValueError: not a pickle, one that is cut off or contradicts itself, one
                that calls something outside the list, or one that is too large.
        """
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of wrong escapes in text
                return self._run(stream)
        except (IndexError, KeyError, TypeError, OverflowError) as error:
            kind = type(error).__name__
            raise ValueError(
                f"its pickle contradicts itself ({kind}: {printable(error, 200)})"
            ) from error

    def _run(self, stream: Any) -> Any:
        start = stream.tell()
        for opcode, argument, place in _operations(Window(stream)):
            if (place or 0) - start > MAX_BYTES:
                raise ValueError(
                    f"its pickle is larger than {MAX_BYTES:,} bytes, which no weights "
                    f"need"
                )
            self._budget.step(opcode.name, argument)
            if opcode.name == "STOP":
                return self._pop()
            self._do(opcode.name, argument)
        raise ValueError("its pickle has no end")

    def _do(self, name: str, argument: Any) -> None:
        if name in _CONSTANTS:
            self._stack.append(_CONSTANTS[name])
        elif name in _LITERALS:
            self._stack.append(_checked_literal(argument))
        elif name in _PUTS:
            self._memo[len(self._memo) if name == "MEMOIZE" else argument] = self._top()
        elif name in _GETS:
            self._stack.append(self._memo[argument])
        else:
            method = _METHODS.get(name)
            if method is None:
                raise ValueError(f"its pickle uses {name}, which no weights need")
            method(self, argument)

    def _pop(self) -> Any:
        if len(self._stack) <= (self._marks[-1] if self._marks else 0):
            raise ValueError("its pickle takes from an empty stack")
        return self._stack.pop()

    def _top(self) -> Any:
        value = self._pop()
        self._stack.append(value)
        return value

    def _pop_marked(self) -> list[Any]:
        if not self._marks:
            raise ValueError("its pickle closes a group that it never opened")
        height = self._marks.pop()
        values = self._stack[height:]
        del self._stack[height:]
        return values

    def _mark(self, _: Any) -> None:
        self._marks.append(len(self._stack))

    def _drop(self, _: Any) -> None:
        if self._marks and self._marks[-1] == len(self._stack):
            self._marks.pop()
        else:
            self._pop()

    def _drop_marked(self, _: Any) -> None:
        self._pop_marked()

    def _duplicate(self, _: Any) -> None:
        self._stack.append(self._top())

    def _new_container(self, kind: type) -> None:
        self._stack.append(kind())

    def _tuple(self, _: Any) -> None:
        self._stack.append(tuple(self._pop_marked()))

    def _short_tuple(self, length: int) -> None:
        values = [self._pop() for _ in range(length)]
        self._stack.append(tuple(values[::-1]))

    def _list(self, _: Any) -> None:
        self._stack.append(self._pop_marked())

    def _dict(self, _: Any) -> None:
        values = self._pop_marked()
        self._stack.append({})
        self._set_items(values)

    def _frozen_set(self, _: Any) -> None:
        self._stack.append(frozenset(map(self._budget.key, self._pop_marked())))

    def _append(self, _: Any) -> None:
        self._extend([self._pop()])

    def _appends(self, _: Any) -> None:
        self._extend(self._pop_marked())

    def _extend(self, values: list[Any]) -> None:
        target = self._top()
        if isinstance(target, StandIn):
            target = target.entries
        if not isinstance(target, list):
            raise ValueError(f"its pickle appends to a {type(target).__name__}")
        target.extend(values)

    def _set_item(self, _: Any) -> None:
        value = self._pop()
        self._set_items([self._pop(), value])

    def _set_items_marked(self, _: Any) -> None:
        self._set_items(self._pop_marked())

    def _set_items(self, values: list[Any]) -> None:
        target = self._top()
        if isinstance(target, StandIn):
            target = target.items
        if not isinstance(target, dict) or len(values) % 2:
            raise ValueError(
                f"its pickle sets {len(values)} keys and values of a "
                f"{type(target).__name__}"
            )
        for key, value in zip(values[::2], values[1::2], strict=True):
            target[self._budget.key(key)] = value

    def _add_items(self, _: Any) -> None:
        values, target = self._pop_marked(), self._top()
        if not isinstance(target, set):
            raise ValueError(f"its pickle adds to a {type(target).__name__}")
        target.update(map(self._budget.key, values))

    def _global(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self._stack.append(_named(module, name))

    def _stack_global(self, _: Any) -> None:
        name, module = self._pop(), self._pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise ValueError("its pickle names a class by something that is no text")
        self._stack.append(_named(module, name))

    def _reduce(self, _: Any) -> None:
        arguments, function = self._pop(), self._pop()
        self._stack.append(self.call(function, arguments))

    def _instance(self, argument: str) -> None:
        arguments = tuple(self._pop_marked())
        module, _, name = argument.partition(" ")
        self._stack.append(self.call(_named(module, name), arguments))

    def _object(self, _: Any) -> None:
        function, *arguments = self._pop_marked()
        self._stack.append(self.call(function, tuple(arguments)))

    def _new_object(self, with_keywords: bool) -> None:
        keywords = self._pop() if with_keywords else {}
        arguments, kind = self._pop(), self._pop()
        self._stack.append(self._new(kind, arguments, keywords))

    def _new(self, kind: Any, arguments: Any, keywords: Any = None) -> Any:
        """An object of a class without calling the class: inert, whatever it is."""
        if not isinstance(kind, Global) or not isinstance(arguments, tuple):
            raise ValueError(f"its pickle makes an object of a {type(kind).__name__}")
        if str(kind) in _NEW_CONTAINERS:
            return self._calls[str(kind)](arguments)
        self._budget.spend(len(arguments))
        return StandIn(kind, (*arguments, keywords) if keywords else arguments)

    def call(self, function: Any, arguments: Any) -> Any:
        """What stands for `function(*arguments)`.

        Raises:
            ValueError: it is neither in the list nor a class outside of Python's
                library; the message says what the file tried to call.
        """
        if not isinstance(arguments, tuple):
            raise ValueError(f"its pickle calls with a {type(arguments).__name__}")
        self._budget.spend(len(arguments))
        if not isinstance(function, Global):
            raise ValueError(
                f"the file tries to call an object of type {type(function).__name__}"
            )
        name = str(function)
        if name in self._calls:
            return self._calls[name](arguments)
        if name in _RECONSTRUCT:
            return self._new(arguments[0], arguments[1:])
        if name in _INERT_CALLS or _looks_like_a_class(function):
            return StandIn(function, arguments)
        given = ", ".join(map(shown, arguments[:3]))
        raise ValueError(
            f"the file tries to call {shown(function)}({given}), which is refused: "
            f"weights need no such call"
        )

    def _build(self, _: Any) -> None:
        state, target = self._pop(), self._top()
        if isinstance(target, dict):
            return  # attributes of an OrderedDict, as `_metadata` of a state dict
        if not hasattr(type(target), "build"):
            raise ValueError(f"its pickle sets the state of a {type(target).__name__}")
        target.build(state)

    def _persistent_text(self, argument: str) -> None:
        self._stack.append(self._persistent(argument))

    def _persistent_object(self, _: Any) -> None:
        self._stack.append(self._persistent(self._pop()))


def _operations(stream: Any) -> Iterator[tuple[Any, Any, int | None]]:
    """The pickle's operations with their arguments and places."""
    try:
        yield from pickletools.genops(stream)
    except ValueError as error:
        problem = printable(error, 200)
        raise ValueError(f"its pickle is broken or cut off ({problem})") from error


def _named(module: str, name: str) -> Global:
    if len(module) > _MAX_NAME or len(name) > _MAX_NAME:
        raise ValueError(f"its pickle names a class by more than {_MAX_NAME:,} letters")
    return Global(module, name)


def _checked_literal(value: Any) -> Any:
    if isinstance(value, int) and value.bit_length() > 1024:
        raise ValueError(f"its pickle has an integer of {value.bit_length()} bits")
    return value


def _looks_like_a_class(function: Global) -> bool:
    """Whether a callable is a class of some package: by its capital letter."""
    root = function.module.partition(".")[0]
    last = function.name.rpartition(".")[2].lstrip("_")
    known = root in sys.stdlib_module_names or root == "__builtin__"
    return last[:1].isupper() and not known


_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_LITERALS = set(
    "INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING "
    "SHORT_BINSTRING UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 BINBYTES "
    "SHORT_BINBYTES BINBYTES8 BYTEARRAY8".split()
)
_PUTS = {"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"}
_GETS = {"GET", "BINGET", "LONG_BINGET"}
_METHODS: dict[str, Callable[[Machine, Any], None]] = {
    "PROTO": lambda machine, argument: None,
    "FRAME": lambda machine, argument: None,
    "MARK": Machine._mark,
    "POP": Machine._drop,
    "POP_MARK": Machine._drop_marked,
    "DUP": Machine._duplicate,
    "EMPTY_LIST": lambda machine, _: machine._new_container(list),
    "EMPTY_DICT": lambda machine, _: machine._new_container(dict),
    "EMPTY_SET": lambda machine, _: machine._new_container(set),
    "TUPLE": Machine._tuple,
    "TUPLE1": lambda machine, _: machine._short_tuple(1),
    "TUPLE2": lambda machine, _: machine._short_tuple(2),
    "TUPLE3": lambda machine, _: machine._short_tuple(3),
    "LIST": Machine._list,
    "DICT": Machine._dict,
    "FROZENSET": Machine._frozen_set,
    "APPEND": Machine._append,
    "APPENDS": Machine._appends,
    "SETITEM": Machine._set_item,
    "SETITEMS": Machine._set_items_marked,
    "ADDITEMS": Machine._add_items,
    "GLOBAL": Machine._global,
    "STACK_GLOBAL": Machine._stack_global,
    "REDUCE": Machine._reduce,
    "INST": Machine._instance,
    "OBJ": Machine._object,
    "NEWOBJ": lambda machine, _: machine._new_object(False),
    "NEWOBJ_EX": lambda machine, _: machine._new_object(True),
    "BUILD": Machine._build,
    "PERSID": Machine._persistent_text,
    "BINPERSID": Machine._persistent_object,
}
_NEW_CONTAINERS = {
    f"{module}.{name}"
    for module in ("builtins", "__builtin__")
    for name in ("dict", "list", "tuple", "set", "frozenset")
} | {"collections.OrderedDict", "collections.defaultdict"}
_RECONSTRUCT = {
    f"{module}.{name}"
    for module in ("copyreg", "copy_reg")
    for name in ("_reconstructor", "__newobj__", "__newobj_ex__")
}
# Classes of Python's library that hold nothing but data, as training options do.
_INERT_CALLS = {
    *(f"pathlib.{kind}Path" for kind in ("", "Pure", "Posix", "Windows")),
    *(f"pathlib.Pure{kind}Path" for kind in ("Posix", "Windows")),
    *(f"pathlib._local.{kind}Path" for kind in ("", "Posix", "Windows")),
    *(f"datetime.{kind}" for kind in ("date", "datetime", "time", "timedelta")),
    "datetime.timezone",
    "argparse.Namespace",
    "types.SimpleNamespace",
    "uuid.UUID",
    "torch.device",
}
