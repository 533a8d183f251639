"""YOLOv5's own model descriptions, read and checked row by row.

A description is YAML: `nc`, `depth_multiple`, `width_multiple`, `anchors`, perhaps
`activation`, and the lists `backbone` and `head` of rows `[from, number, module,
arguments]`. Words are looked up and never evaluated.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from yolojax.lookup import hint
from yolojax.models.layers import ACTIVATIONS
from yolojax.yaml_text import number_in, read_yaml, shown

# Far above every published network (43 rows, 1280 channels): a limit for strangers.
MAX_LAYERS = 400
MAX_CHANNELS = 65_536
MAX_CLASSES = 100_000
_MAX_ITEMS = 64

# Keys that say something about the network; the last is ours, see `Description`.
KEYS = (
    "nc",
    "depth_multiple",
    "width_multiple",
    "anchors",
    "activation",
    "backbone",
    "head",
    "csp_activation",
)
# Keys that published files have besides.
_PASSED_OVER = ("ch", "inplace", "names", "yaml_file")

# PyTorch's names of activations, in small letters, by ours.
_TORCH_ACTIVATIONS = {
    "silu": "silu",
    "mish": "mish",
    "identity": "linear",
    "sigmoid": "logistic",
    "relu": "relu",
    "relu6": "relu6",
    "hardswish": "hard_swish",
    "gelu": "gelu",
    "elu": "elu",
    "selu": "selu",
    "softplus": "softplus",
    "tanh": "tanh",
}
_CALL = re.compile(r"(?:torch\.)?nn\.(\w+)\(([^()]*)\)")
_SLOPE = re.compile(r"(?:negative_slope\s*=\s*)?([0-9.eE+-]+)")


@dataclasses.dataclass(frozen=True)
class Row:
    """One row of a description.

    Attributes:
        number: counted from 0 through backbone and head, as in published names.
        part: `backbone` or `head`.
        inputs: rows that it takes; -1 is the picture. Empty: left to the module.
        repeats: as written, not scaled by the depth.
        module: as written.
        arguments: with the words `nc`, `None`, `True` and `False` replaced.
    """

    number: int
    part: str
    inputs: tuple[int, ...]
    repeats: int
    module: str
    arguments: tuple[Any, ...]

    @property
    def where(self) -> str:
        """The row in a message: `row 7 (C3)`."""
        return f"row {self.number} ({self.module})"


@dataclasses.dataclass(frozen=True)
class Description:
    """A description, checked as far as that needs no knowledge of the modules.

    Attributes:
        num_classes: classes that the head tells apart.
        depth: multiple of the numbers of blocks.
        width: multiple of the numbers of channels.
        anchors: (width, height) in pixels, as many pairs in every row; or how many
            there are on each level.
        activation: of all units, see `layers.activate`.
        csp_activation: of the joint half of "BottleneckCSP", which up to v5.0 was
            not that of the units.
        rows: of backbone and head.
        content: what was read, by key.
    """

    num_classes: int
    depth: float
    width: float
    anchors: tuple[tuple[tuple[float, float], ...], ...] | int
    activation: str
    csp_activation: str
    rows: tuple[Row, ...]
    content: Mapping[str, Any]

    @property
    def num_anchors(self) -> int:
        """Anchors of each level."""
        return self.anchors if isinstance(self.anchors, int) else len(self.anchors[0])

    @property
    def num_outputs(self) -> int:
        """Channels of each level's raw map."""
        return self.num_anchors * (self.num_classes + 5)


def read_description(
    text: str, what: str, changes: Mapping[str, Any] | None = None
) -> Description:
    """The description that a text holds.

    Args:
        text: YAML or JSON.
        what: where it comes from, for messages.
        changes: values that stand instead of its own, by its keys.

    Raises:
        ValueError: anything wrong with it; what concerns a row names the row.
    """
    content = read_yaml(text, what)
    if not isinstance(content, dict):
        raise ValueError(
            f"{what}: expected keys and values (backbone, head, ...), "
            f"got {shown(content)}"
        )
    for key in content:
        if key not in KEYS + _PASSED_OVER:
            raise ValueError(
                f"{what}: unknown key {shown(key)}.{hint(str(key)[:60], KEYS)} "
                f"Keys: {', '.join(KEYS)}"
            )
    if content.get("ch", 3) != 3:
        raise ValueError(
            f"{what}: ch is {shown(content['ch'])}; pictures have 3 channels"
        )
    content = {key: content[key] for key in KEYS if key in content}
    content |= changes or {}
    try:
        activation = parse_activation(content.get("activation"))
        joint = content.get("csp_activation")
        found = Description(
            num_classes=_num_classes(content.get("nc")),
            depth=_multiple(content, "depth_multiple"),
            width=_multiple(content, "width_multiple"),
            anchors=_anchors(content.get("anchors", 3)),
            activation=activation,
            csp_activation=activation if joint is None else parse_activation(joint),
            rows=(),
            content=content,
        )
        return dataclasses.replace(found, rows=_rows(content, found))
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from error


def parse_activation(value: Any) -> str:
    """Our name of an activation: `silu`, `leaky=0.1`, ...

    Args:
        value: PyTorch's constructor as text, such as `nn.LeakyReLU(0.1)` (`inplace`
            does not matter), or a name of ours; None or empty for SiLU.

    Raises:
        ValueError: another activation, or other arguments.
    """
    if value is None or value == "":
        return "silu"
    if isinstance(value, str):
        kind, _, slope = value.partition("=")
        if value in ACTIVATIONS or (kind == "leaky" and number_in(slope) is not None):
            return value
        if call := _CALL.fullmatch(value.strip()):
            name = call.group(1).lower()
            given = [part.strip() for part in call.group(2).split(",")]
            given = [p for p in given if p and not p.startswith("inplace")]
            if name == "leakyrelu" and len(given) <= 1:
                match = _SLOPE.fullmatch(given[0]) if given else None
                number = number_in(match.group(1)) if match else None
                if not given or number is not None:
                    return f"leaky={0.01 if number is None else number:g}"
            elif name in _TORCH_ACTIVATIONS and not given:
                return _TORCH_ACTIVATIONS[name]
    known = "nn.LeakyReLU(0.1), nn.SiLU(), nn.Hardswish(), nn.Mish(), nn.ReLU()"
    raise ValueError(f"activation {shown(value)} is not known; known are {known}, ...")


def _num_classes(value: Any) -> int:
    if type(value) is not int or not 1 <= value <= MAX_CLASSES:
        raise ValueError(
            f"nc must be the number of classes, 1 to {MAX_CLASSES:,}, "
            f"not {shown(value)}"
        )
    return value


def _multiple(content: Mapping[str, Any], key: str) -> float:
    number = number_in(content.get(key, 1.0))
    if number is None or not math.isfinite(number) or not 0 < number <= 100:
        raise ValueError(
            f"{key} must be a number above 0 and at most 100, "
            f"not {shown(content.get(key))}"
        )
    return float(number)


def _anchors(value: Any) -> tuple[tuple[tuple[float, float], ...], ...] | int:
    """Rows of pairs, or a number of anchors; rows may be flat."""
    if type(value) is int and 1 <= value <= _MAX_ITEMS:
        return value
    error = ValueError(
        "anchors must be rows of equally many widths and heights above 0 in pixels, a "
        f"row a level, or the number of anchors of each level; got {shown(value)}"
    )
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        raise error
    rows = []
    for row in value:
        if not isinstance(row, Sequence) or isinstance(row, str):
            raise error
        flat: list[Any] = []
        for part in row:
            nested = isinstance(part, Sequence) and not isinstance(part, str)
            flat += part if nested and len(part) == 2 else [part]
        numbers = [number_in(side) for side in flat]
        if not all(n is not None and math.isfinite(n) and n > 0 for n in numbers):
            raise error
        if len(numbers) % 2 or not 2 <= len(numbers) <= 2 * _MAX_ITEMS:
            raise error
        pairs = zip(numbers[::2], numbers[1::2], strict=True)
        rows.append(tuple((float(w or 0), float(h or 0)) for w, h in pairs))
    if len({len(row) for row in rows}) > 1 or len(rows) > _MAX_ITEMS:
        raise error
    return tuple(rows)


def _rows(content: Mapping[str, Any], about: Description) -> tuple[Row, ...]:
    rows: list[Row] = []
    for part in ("backbone", "head"):
        lines = content.get(part)
        if not isinstance(lines, list) or not lines:
            raise ValueError(f"{part} must be a list of rows, not {shown(lines)}")
        if len(rows) + len(lines) > MAX_LAYERS:
            raise ValueError(f"more than {MAX_LAYERS} rows")
        rows += [
            _row(line, number, part, about)
            for number, line in enumerate(lines, start=len(rows))
        ]
    return tuple(rows)


def _row(line: Any, number: int, part: str, about: Description) -> Row:
    if not isinstance(line, list) or len(line) != 4:
        raise ValueError(
            f"row {number}: expected [from, number, module, arguments], "
            f"got {shown(line)}"
        )
    sources, repeats, module, arguments = line
    if not isinstance(module, str) or not module.isprintable():
        raise ValueError(f"row {number}: {shown(module)} is no module's name")
    module = module[:60]
    where = f"row {number} ({module})"
    if type(repeats) is not int or not 1 <= repeats <= MAX_LAYERS:
        raise ValueError(
            f"{where}: the number of repeats must be 1 to {MAX_LAYERS}, "
            f"not {shown(repeats)}"
        )
    if not isinstance(arguments, list) or len(arguments) > _MAX_ITEMS:
        raise ValueError(
            f"{where}: the arguments must be a list of at most {_MAX_ITEMS}, "
            f"not {shown(arguments)}"
        )
    many = sources if isinstance(sources, list) else [sources]
    if len(many) > _MAX_ITEMS:
        raise ValueError(f"{where}: takes {len(many)} rows; at most {_MAX_ITEMS}")
    return Row(
        number,
        part,
        tuple(_source(source, number, where) for source in many),
        repeats,
        module,
        tuple(_word(value, about) for value in arguments),
    )


def _source(source: Any, number: int, where: str) -> int:
    """A row's number from a number that, below 0, counts back from `number`."""
    if type(source) is not int:
        raise ValueError(
            f"{where}: `from` must be a row's number or a list of them, "
            f"not {shown(source)}"
        )
    if source == -1:
        return number - 1
    absolute = number + source if source < 0 else source
    if not 0 <= absolute < number:
        way = "a later row or itself" if source >= 0 else "before the first row"
        raise ValueError(f"{where}: `from` is {shown(source)}, which is {way}")
    return absolute


def _word(value: Any, about: Description) -> Any:
    """What stands for an argument's word; other arguments as they are."""
    if not isinstance(value, str):
        return value
    words = {"None": None, "True": True, "False": False, "nc": about.num_classes}
    # The head of v1.0 spells its channels out.
    words["na*(nc+5)"] = about.num_outputs
    return words.get(value.replace(" ", ""), value)
