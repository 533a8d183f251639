"""Writes PyTorch files by hand, right and wrong ones; PyTorch is not needed."""

import io
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

KINDS = {
    "float16": "HalfStorage",
    "float32": "FloatStorage",
    "float64": "DoubleStorage",
    "int64": "LongStorage",
    "int32": "IntStorage",
    "int16": "ShortStorage",
    "int8": "CharStorage",
    "uint8": "ByteStorage",
    "bool": "BoolStorage",
}


class Name(NamedTuple):
    """A class or function, by name."""

    module: str
    name: str


class Called(NamedTuple):
    """REDUCE: `function(*arguments)`, and the state that BUILD sets."""

    function: Any
    arguments: tuple
    state: Any = None


class Made(NamedTuple):
    """NEWOBJ: an object of a class, and its state."""

    kind: Any
    arguments: tuple = ()
    state: Any = None


class Stored(NamedTuple):
    """A persistent id."""

    identity: tuple


class Raw(NamedTuple):
    """Opcodes as they are."""

    content: bytes


def encode(value: Any) -> bytes:
    """Opcodes that leave `value` on the stack."""
    match value:
        case Raw(content):
            return content
        case Name(module, name):
            return f"c{module}\n{name}\n".encode()
        case Called(function, arguments, state):
            out = encode(function) + encode(arguments) + b"R"
            return out if state is None else out + encode(state) + b"b"
        case Made(kind, arguments, state):
            out = encode(kind) + encode(arguments) + b"\x81"
            return out if state is None else out + encode(state) + b"b"
        case Stored(identity):
            return encode(identity) + b"Q"
        case tuple():
            return b"(" + b"".join(map(encode, value)) + b"t"
        case list():
            return b"](" + b"".join(map(encode, value)) + b"e"
        case dict():
            items = b"".join(encode(k) + encode(v) for k, v in value.items())
            return b"}(" + items + b"u"
        case _:
            return pickle.dumps(value, protocol=3)[2:-1]


def pickled(value: Any) -> bytes:
    return b"\x80\x02" + encode(value) + b"."


class File:
    """A PyTorch file that is being put together: `tensor(...)`, then `write`."""

    def __init__(self) -> None:
        self.storages: dict[str, bytes] = {}
        self.sizes: dict[str, int] = {}

    def storage(self, array: np.ndarray, kind: str | None = None) -> tuple:
        """The persistent id of a new storage that holds `array`."""
        key = str(len(self.storages))
        self.storages[key] = array.tobytes()
        self.sizes[key] = array.size
        name = Name("torch", kind or KINDS[str(array.dtype)])
        return ("storage", name, key, "cpu", array.size)

    def tensor(self, array: Any, kind: str | None = None) -> Called:
        array = np.asarray(array)
        strides = tuple(s // array.itemsize for s in np.empty_like(array).strides)
        identity = self.storage(np.ascontiguousarray(array).reshape(-1), kind)
        return self.view(identity, 0, array.shape, strides)

    def view(self, identity: tuple, offset: Any, shape: Any, strides: Any) -> Called:
        arguments = (Stored(identity), offset, shape, strides, False, odict())
        return Called(Name("torch._utils", "_rebuild_tensor_v2"), arguments)

    def zip(self, value: Any, **extra: bytes) -> bytes:
        """The newer format."""
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("archive/data.pkl", pickled(value))
            for key, content in self.storages.items():
                archive.writestr(f"archive/data/{key}", content)
            archive.writestr("archive/version", b"3\n")
            for name, content in extra.items():
                archive.writestr(f"archive/{name}", content)
        return buffer.getvalue()

    def legacy(self, value: Any) -> bytes:
        """The older format: storages have a view of their own, which is None."""
        system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}
        parts = [0x1950A86A20F9469CFC6C, 1001, system, value, list(self.storages)]
        return b"".join(map(pickled, parts)) + b"".join(
            struct.pack("<q", self.sizes[key]) + content
            for key, content in self.storages.items()
        )


def odict(items: dict[Any, Any] | None = None) -> Called | Raw:
    """An OrderedDict, as PyTorch writes it."""
    call = encode(Called(Name("collections", "OrderedDict"), ()))
    inner = b"".join(encode(k) + encode(v) for k, v in (items or {}).items())
    return Raw(call + (b"(" + inner + b"u" if items else b""))


def parameter(tensor: Any) -> Called:
    return Called(Name("torch._utils", "_rebuild_parameter"), (tensor, True, odict()))


def module(kind: str, state: dict[str, Any] | None = None, **parts: Any) -> Made:
    """A module: `parameters`, `buffers` and `modules` are dicts."""
    held = {
        "training": False,
        "_parameters": odict(parts.get("parameters")),
        "_buffers": odict(parts.get("buffers")),
        "_modules": odict(parts.get("modules")),
    }
    return Made(Name(*kind.rsplit(".", 1)), (), {**held, **(state or {})})


def nested(tree: dict[str, Any], kind: str = "torch.nn.modules.Module") -> Made:
    """A module out of nested dicts, whose leaves are tensors."""
    inner = {k: nested(v) for k, v in tree.items() if isinstance(v, dict)}
    leaves = {k: parameter(v) for k, v in tree.items() if not isinstance(v, dict)}
    return module(kind, parameters=leaves, modules=inner)


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path
