"""Tensors and storages of PyTorch's files: views that are checked before use."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from yolojax.weights.containers import Call
from yolojax.weights.inert import Global, checked_sizes, shown

_DTYPES: dict[str, Any] = {
    "Half": np.float16,
    "BFloat16": jnp.bfloat16,
    "Float": np.float32,
    "Double": np.float64,
    "Byte": np.uint8,
    "Char": np.int8,
    "Short": np.int16,
    "Int": np.int32,
    "Long": np.int64,
    "Bool": np.bool_,
}
_STORAGES = {f"torch.{name}Storage": np.dtype(t) for name, t in _DTYPES.items()}
_STORAGES |= {
    f"torch.{module}.UntypedStorage": np.dtype(np.uint8)
    for module in ("storage", "torch")
}
_TORCH_DTYPES = {
    "torch.float16": "Half",
    "torch.half": "Half",
    "torch.bfloat16": "BFloat16",
    "torch.float32": "Float",
    "torch.float": "Float",
    "torch.float64": "Double",
    "torch.double": "Double",
    "torch.uint8": "Byte",
    "torch.int8": "Char",
    "torch.int16": "Short",
    "torch.int32": "Int",
    "torch.int64": "Long",
    "torch.long": "Long",
    "torch.bool": "Bool",
}

# Of a storage's name, which is a short number.
_MAX_KEY = 200


class Storage:
    """A row of numbers in the file, read when it is first asked for.

    Attributes:
        key: its name in the file.
        dtype: of the numbers.
        size: how many.
    """

    def __init__(self, key: str, dtype: np.dtype[Any], size: int):
        self.key, self.dtype, self.size = key, dtype, size
        self.read: Callable[[Storage], Any] | None = None
        self._content: np.ndarray | None = None

    @property
    def content(self) -> np.ndarray:
        """The numbers, flat and read-only."""
        if self._content is None:
            if self.read is None:
                raise ValueError(f"its storage {shown(self.key)} is missing")
            self._content = np.frombuffer(self.read(self), self.dtype, self.size)
        return self._content


class Tensor:
    """A view of a storage, checked to lie in it.

    Args:
        storage: the numbers.
        offset: where in them the first element lies.
        shape: the tensor's sizes.
        strides: in elements.
        dtype: where it is another than the storage's, as for untyped ones.

    Raises:
        ValueError: it leaves the storage, or these are no sizes and strides.
    """

    def __init__(
        self,
        storage: Any,
        offset: Any,
        shape: Any,
        strides: Any,
        dtype: np.dtype[Any] | None = None,
    ):
        if not isinstance(storage, Storage):
            raise ValueError("its pickle has a tensor without a storage")
        self.shape = checked_sizes(shape, "the shape of a tensor")
        self.strides = checked_sizes(strides, "the strides of a tensor")
        (self.offset,) = checked_sizes((offset,), "the offset of a tensor")
        self.storage, self.dtype = storage, dtype or storage.dtype
        if len(self.shape) != len(self.strides):
            raise ValueError(
                f"its pickle has a tensor of shape {self.shape} with strides "
                f"{self.strides}"
            )
        steps = zip(self.shape, self.strides, strict=True)
        end = self.offset + sum((size - 1) * stride for size, stride in steps) + 1
        there = storage.size * storage.dtype.itemsize // self.dtype.itemsize
        if math.prod(self.shape) and end > there:
            raise ValueError(
                f"its pickle has a tensor of shape {self.shape}, strides "
                f"{self.strides} and offset {self.offset} that leaves its storage "
                f"{shown(storage.key)} of {there} elements"
            )

    @property
    def repeats(self) -> bool:
        """Whether it has more elements than its storage, as an expanded one."""
        size = math.prod(self.shape) * self.dtype.itemsize
        return size > self.storage.size * self.storage.dtype.itemsize

    @property
    def value(self) -> np.ndarray:
        """The tensor as a read-only array that shares the storage's memory."""
        if not math.prod(self.shape):
            return np.zeros(self.shape, self.dtype)
        content = self.storage.content
        if content.dtype != self.dtype:
            # By bytes: three floats are one double and a half.
            content = content.view(np.uint8)
            whole = len(content) // self.dtype.itemsize * self.dtype.itemsize
            content = content[:whole].view(self.dtype)
        return np.lib.stride_tricks.as_strided(
            content[self.offset :],
            self.shape,
            tuple(stride * self.dtype.itemsize for stride in self.strides),
            writeable=False,
        )

    def build(self, state: Any) -> None:
        """Attributes of parameters are of no use here."""


class View:
    """A part of a storage that stands where a storage is expected."""

    def __init__(self, storage: Storage, view: tuple[int, int]):
        self.storage, (self.offset, self.size) = storage, view
        if self.offset + self.size > storage.size:
            raise ValueError(
                f"its pickle has a view of {self.size} elements from {self.offset} "
                f"that leaves its storage {shown(storage.key)} of {storage.size}"
            )


def storage_of(
    identity: Any, storages: dict[str, Storage]
) -> tuple[Storage, tuple[int, int] | None]:
    """The storage that a persistent id names, and the (offset, size) of its view."""
    if not isinstance(identity, tuple) or not 5 <= len(identity) <= 6:
        raise ValueError("its pickle has a persistent id that is no storage's")
    what, kind, key, _, size, *rest = identity
    if not (isinstance(what, str) and isinstance(key, str)) or what != "storage":
        raise ValueError("its pickle has a persistent id that is no storage's")
    if not isinstance(kind, Global) or len(key) > _MAX_KEY:
        raise ValueError("its pickle has a persistent id that is no storage's")
    dtype = _STORAGES.get(str(kind))
    if dtype is None:
        raise ValueError(
            f"its storage {shown(key)} is a {shown(kind)}, which is not read"
        )
    (size,) = checked_sizes((size,), "the size of a storage")
    storage = storages.setdefault(key, Storage(key, dtype, size))
    if storage.dtype != dtype or storage.size != size:
        raise ValueError(f"its storage {shown(key)} is described in two ways")
    if not rest or rest[0] is None:
        return storage, None
    if not isinstance(rest[0], tuple) or len(rest[0]) != 3:
        raise ValueError("the view of a storage is no key, offset and size")
    offset, length = checked_sizes(rest[0][1:], "the view of a storage")
    return storage, (offset, length)


def _tensor(arguments: tuple[Any, ...]) -> Tensor:
    """`_rebuild_tensor(storage, offset, shape, strides)` and its second version."""
    storage, offset, shape, strides = arguments[:4]
    if not isinstance(storage, View):
        return Tensor(storage, offset, shape, strides)
    tensor = Tensor(storage.storage, offset, shape, strides)
    steps = zip(tensor.shape, tensor.strides, strict=True)
    last = tensor.offset + sum((size - 1) * stride for size, stride in steps)
    if math.prod(tensor.shape) and last >= storage.size:
        raise ValueError(
            f"its pickle has a tensor of shape {tensor.shape} that leaves its view of "
            f"{storage.size} elements"
        )
    return Tensor(storage.storage, tensor.offset + storage.offset, shape, strides)


def _tensor_of_type(arguments: tuple[Any, ...]) -> Tensor:
    """`_rebuild_tensor_v3`: a view of an untyped storage, with its type."""
    kind = arguments[6]
    known = _TORCH_DTYPES.get(str(kind)) if isinstance(kind, Global) else None
    if known is None:
        raise ValueError(f"its pickle has a tensor of {shown(kind)}: not read")
    dtype = np.dtype(_DTYPES[known])
    return Tensor(*arguments[:4], dtype=dtype)


def _parameter(arguments: tuple[Any, ...]) -> Any:
    if not isinstance(arguments[0], Tensor):
        raise ValueError("its pickle has a parameter that is no tensor")
    return arguments[0]


def _of_subclass(arguments: tuple[Any, ...]) -> Any:
    """`_rebuild_from_type_v2(function, type, arguments, state)`."""
    function, _, inner, *_ = arguments
    call = _TENSORS.get(str(function)) if isinstance(function, Global) else None
    if call is None or not isinstance(inner, tuple):
        raise ValueError(f"the file tries to call {shown(function)}")
    return call(inner)


def _sizes(arguments: tuple[Any, ...]) -> tuple[int, ...]:
    return checked_sizes(arguments[0], "a torch.Size")


_TENSORS: dict[str, Call] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_of_type,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
}

TENSOR_CALLS: dict[str, Call] = {
    **_TENSORS,
    "torch._tensor._rebuild_from_type_v2": _of_subclass,
    "torch.Size": _sizes,
}
