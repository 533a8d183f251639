"""Darknet's `.weights` files, read and written by the order of their `.cfg`.

A file is a header and then float32 numbers without names: for every convolution of
the description its shifts, with normalisation its scales, means and variances, and its
kernel [out, in / groups, height, width]. All is little-endian.

The header is three int32, the version, and the number of pictures seen in training, an
int64 from version 0.2 on, and an int32 before it and where a part of the version is
above 1000, which marks files whose fully connected layers are transposed.

Source: the format as github.com/pjreddie/darknet and github.com/AlexeyAB/darknet
write it.
"""

from __future__ import annotations

import dataclasses
import math
import os
import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from yolojax.files import open_file, replace_file
from yolojax.lookup import hint
from yolojax.models.cfg import format_cfg, parse_cfg, read_cfg
from yolojax.models.darknet import DARKNET
from yolojax.models.graph import Node
from yolojax.models.model import Model
from yolojax.trees import flatten, unflatten_variables
from yolojax.weights.contents import clean_class_names

SUFFIXES = (".weights", ".cfg")

_NORM = ("params/{}/norm/bias", "params/{}/norm/scale")
_STATISTICS = ("batch_stats/{}/norm/mean", "batch_stats/{}/norm/var")
_KERNEL = "params/{}/conv/kernel"
# The arrays of a node in the order of the file.
_ARRAYS = {
    "convolutional": (*_NORM, *_STATISTICS, _KERNEL),
    "biased": ("params/{}/conv/bias", _KERNEL),
    "yolo": ("params/{}/bias", "params/{}/kernel"),
}
# What Darknet's own training puts behind the name of the description.
_SAVED = re.compile("_(final|best|last|[0-9]+)$")
_MAX_NAMES = 2**20
_CUT_OFF = "The file is cut off or belongs to another .cfg"


class Header(NamedTuple):
    """What stands before the numbers.

    Attributes:
        version: major, minor and revision.
        seen: pictures that training has gone through.
    """

    version: tuple[int, int, int] = (0, 2, 5)
    seen: int = 0

    @property
    def wide(self) -> bool:
        """Whether `seen` takes eight bytes, otherwise four."""
        major, minor, _ = self.version
        return major * 10 + minor >= 2 and major < 1000 and minor < 1000

    def packed(self) -> bytes:
        """The bytes in the file."""
        return struct.pack("<3iQ" if self.wide else "<3iI", *self.version, self.seen)


@dataclasses.dataclass(frozen=True)
class DarknetWeights:
    """What a `.weights` file holds.

    Attributes:
        variables: `params` and `batch_stats`, NumPy float32.
        header: see `Header`.
        ends: "layer 73" where the numbers end after that layer; otherwise nothing.
        not_finite: how many numbers are infinite or none.
    """

    variables: dict[str, Any]
    header: Header
    ends: str
    not_finite: int


def read_darknet(
    path: str | Path, model: Model, *, partial: bool = False
) -> DarknetWeights:
    """The variables of a Darknet network out of a `.weights` file.

    Args:
        path: the file.
        model: the network that the file belongs to.
        partial: accept a file that ends after any layer, as the published
            `darknet53.conv.74` does; variables of later layers are missing then.

    Raises:
        ValueError: there is no such file, or its size is not that of the network;
            the message says in which layer it ends, or how much is left over. Nothing
            is read then.
    """
    path = Path(path)
    with open_file(path) as file:
        try:
            size = os.fstat(file.fileno()).st_size
            header = _read_header(file.read(20))
            start = len(header.packed())
            rows = _rows(model)
            known, ends = _known(size - start, rows, header, partial)
            file.seek(start)
            return _read_rows(file, rows[:known], header, ends)
        except (OSError, ValueError) as error:
            raise ValueError(f"{path}: {error}") from error


def write_darknet(
    path: str | Path,
    model: Model,
    variables: Mapping[str, Any],
    header: Header | None = None,
) -> None:
    """Write variables as a `.weights` file; the inverse of `read_darknet`.

    Args:
        path: the file.
        model: a Darknet network.
        variables: `params` and `batch_stats`.
        header: by default of Darknet's last version, with no picture seen.
    """
    leaves = flatten({k: variables[k] for k in ("params", "batch_stats")})
    parts = [(header or Header()).packed()]
    for row in _rows(model):
        for name, shape in row.arrays.items():
            array = np.asarray(leaves[name], "<f4").reshape(shape)
            parts.append(_in_file_order(array).tobytes())
    replace_file(Path(path), b"".join(parts))


def write_pair(
    path: str | Path,
    model: Model,
    variables: Mapping[str, Any],
    class_names: tuple[str, ...],
    header: Header | None = None,
) -> tuple[Path, ...]:
    """Write a `.weights` file, and beside it the `.cfg` and `.names` if need be.

    Args:
        path: the `.weights` file.
        model: a Darknet network.
        variables: `params` and `batch_stats`.
        class_names: what goes into the `.names`; none where there are none.
        header: see `write_darknet`.

    Returns:
        The files that were written.

    Raises:
        ValueError: beside it there is a `.cfg` of another network, or `.names` of
            other classes. Nothing is written then.
    """
    path = Path(path)
    cfg, names = path.with_suffix(".cfg"), path.with_suffix(".names")
    new = {}
    if not cfg.exists():
        new[cfg] = format_cfg(model.spec.sections)
    elif not _describes(cfg, model):
        raise ValueError(f"{cfg} describes another network; give another name")
    if class_names and not names.exists():
        new[names] = "".join(f"{name}\n" for name in class_names)
    elif class_names and _read_names(names) != class_names:
        raise ValueError(f"{names} has other classes; give another name")
    write_darknet(path, model, variables, header)
    for file, text in new.items():
        replace_file(file, text.encode("utf-8"))
    return path, *new


def find_pair(path: str | Path, cfg: str | Path = "") -> tuple[Path, Path | str]:
    """The `.weights` file and its description.

    Args:
        path: the `.weights` file, or the `.cfg` with the weights beside it.
        cfg: the description, a file or the name of a published network; by default
            the `.cfg` beside the weights (of the same name, but for `_final`, `_best`,
            `_last` or a number, as Darknet saves them), or else the published network
            of that name.

    Returns:
        The weights; and the `.cfg` file, or the name in `DARKNET`.

    Raises:
        ValueError: one of them is missing.
    """
    path = Path(path)
    if path.suffix == ".cfg" and not cfg:
        weights = path.with_suffix(".weights")
        if not weights.is_file():
            raise ValueError(f"{path}: no weights beside it, in {weights.name}")
        return weights, path
    if not path.exists():
        raise ValueError(f"no weights at {path}: there is no such file")
    open_file(path).close()
    if cfg:
        if not Path(cfg).is_file() and str(cfg) not in DARKNET:
            raise ValueError(
                f"no description at {cfg}: there is no such file, and no published "
                f"network of this name.{hint(str(cfg), DARKNET)}"
            )
        return path, Path(cfg) if Path(cfg).is_file() else str(cfg)
    stems = dict.fromkeys((path.stem, _SAVED.sub("", path.stem)))
    for stem in stems:
        beside = path.with_name(f"{stem}.cfg")
        if beside.is_file():
            return path, beside
    if path.stem in DARKNET:
        return path, path.stem
    raise ValueError(
        f"{path}: no description of its network beside it, in {path.stem}.cfg. Put it "
        f"there, or name it: convert --cfg FILE"
    )


def names_beside(path: Path, num_classes: int) -> tuple[str, ...] | None:
    """Class names out of a text file beside `path`, one a line; None for none.

    Taken is a file with `num_classes` lines: the `.names` of the same name,
    `classes.txt`, or any other `.names`, unless several of these differ.
    """
    first = (path.with_suffix(".names"), path.with_name("classes.txt"))
    for file in first:
        names = _read_names(file)
        if names is not None and len(names) == num_classes:
            return names
    others = {_read_names(file) for file in sorted(path.parent.glob("*.names"))}
    fitting = [names for names in others if names and len(names) == num_classes]
    return fitting[0] if len(fitting) == 1 else None


class _Row(NamedTuple):
    """A layer with numbers: its node, and the shapes of its arrays in our order."""

    node: Node
    arrays: dict[str, tuple[int, ...]]

    @property
    def count(self) -> int:
        return sum(math.prod(shape) for shape in self.arrays.values())

    @property
    def layer(self) -> str:
        return f"layer {self.node.name.removeprefix('layer')}"


def _rows(model: Model) -> list[_Row]:
    """The layers of the file, in its order."""
    shapes = {path: leaf.shape for path, leaf in flatten(model.shapes()).items()}
    rows = []
    for node in model.spec.nodes:
        if node.kind in _ARRAYS:
            place = f"{node.part}/{node.name}"
            names = [name.format(place) for name in _ARRAYS[node.kind]]
            rows.append(_Row(node, {name: shapes[name] for name in names}))
    return rows


def _read_header(head: bytes) -> Header:
    if len(head) < 12:
        raise ValueError(f"{len(head)} bytes, which is not even a header")
    version = struct.unpack_from("<3i", head)
    wide = Header(version).wide
    if len(head) < 12 + (8 if wide else 4):
        raise ValueError(f"it ends in its header, after {len(head)} bytes")
    (seen,) = struct.unpack_from("<Q" if wide else "<I", head, 12)
    return Header(version, seen)


def _known(
    size: int, rows: list[_Row], header: Header, partial: bool
) -> tuple[int, str]:
    """How many rows the numbers are of, and after which they end if not after all."""
    have, rest = divmod(size, 4)
    need = sum(row.count for row in rows)
    version = ".".join(map(str, header.version))
    about = (
        f"it has {have:,} numbers after the header (version {version}), where the "
        f"network has {need:,}"
    )
    if rest:
        raise ValueError(f"it ends within a number; {about}. {_CUT_OFF}")
    if have > need:
        raise ValueError(
            f"{have - need:,} numbers are left over; {about}. Is this the right .cfg?"
        )
    if have == need:
        return len(rows), ""
    end = 0
    for place, row in enumerate(rows):
        if have == end:
            before = rows[place - 1].layer if place else "its header"
            if partial and place:
                return place, before
            raise ValueError(
                f"it ends after {before}; {about}. {_CUT_OFF}; such a part of a "
                f"network is taken by config.init.weights only"
            )
        if have < end + row.count:
            break
        end += row.count
    raise ValueError(f"{_cut(have - end, row, about)}. {_CUT_OFF}")


def _cut(have: int, row: _Row, about: str) -> str:
    """Where in a layer the numbers end."""
    sizes = {name: math.prod(shape) for name, shape in row.arrays.items()}
    for name in row.arrays:
        if have < sizes[name]:
            return (
                f"it ends in {row.layer} ({row.node.where}), after {have:,} of "
                f"{sizes[name]:,} numbers of its {name.rpartition('/')[2]}; {about}"
            )
        have -= sizes[name]
    raise AssertionError(f"{have} numbers behind the layer")


def _read_rows(
    file: Any, rows: list[_Row], header: Header, ends: str
) -> DarknetWeights:
    leaves: dict[str, np.ndarray] = {}
    not_finite = 0
    for row in rows:
        for name, shape in row.arrays.items():
            flat = np.fromfile(file, "<f4", math.prod(shape))
            if flat.size != math.prod(shape):
                raise ValueError("it became shorter while it was read")
            not_finite += int(flat.size - np.count_nonzero(np.isfinite(flat)))
            leaves[name] = _shaped(flat, shape)
    return DarknetWeights(unflatten_variables(leaves), header, ends, not_finite)


def _shaped(flat: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Numbers in the file's order in our shape and order."""
    if len(shape) == 1:
        return flat.astype(np.float32, copy=False)
    height, width, inputs, outputs = (1, 1, *shape)[-4:]
    array = flat.reshape(outputs, inputs, height, width).transpose(2, 3, 1, 0)
    return np.ascontiguousarray(array.reshape(shape), np.float32)


def _in_file_order(array: np.ndarray) -> np.ndarray:
    """The inverse of `_shaped`, before it is made flat."""
    if array.ndim == 1:
        return array
    return array.reshape((1, 1, *array.shape)[-4:]).transpose(3, 2, 0, 1)


def _describes(cfg: Path, model: Model) -> bool:
    """Whether the layers in a file are those of the model."""
    try:
        return parse_cfg(read_cfg(cfg))[1:] == model.spec.sections[1:]
    except ValueError:
        return False


def _read_names(file: Path) -> tuple[str, ...] | None:
    """The lines of a text file; None where there is none, or it is something else."""
    try:
        if not file.is_file() or file.stat().st_size > _MAX_NAMES:
            return None
        text = file.read_bytes().decode("utf-8", "replace")
    except OSError:
        return None
    lines = [line.strip() for line in text.splitlines()]
    return clean_class_names([line for line in lines if line])
