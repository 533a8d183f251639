"""Lines of YOLO label files: read, checked, and the bad ones reported."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from yolojax.data.report import Report
from yolojax.data.sources.base import ROUNDING
from yolojax.files import numbered_lines

UNCLEAR = "label line that can mean several things"
WRONG_NUMBER = "label line with the wrong number of fields"
_SHOWN = 60  # characters of a line that a message shows


class Form(NamedTuple):
    """What lines of one length mean.

    Attributes:
        polygon: whether the numbers after the class are a polygon.
        start: otherwise, where the box begins after the class.
        note: what to count the lines under, if not empty.
        alone: whether this holds only in files without a line of five numbers.
    """

    polygon: bool = False
    start: int = 0
    note: str = ""
    alone: bool = False


class Line(NamedTuple):
    """A usable label line.

    Attributes:
        number: from 1.
        label: the class.
        corners: x1 y1 x2 y2, shares of the image.
        polygon: x1 y1 x2 y2 x3 ..., shares of the image; () for a box.
    """

    number: int
    label: int
    corners: tuple[float, float, float, float]
    polygon: Sequence[float]


def parse_labels(
    text: str, file: str, num_classes: int, report: Report, forms: Mapping[int, Form]
) -> list[Line]:
    """The usable lines of a label file.

    Args:
        text: the label file's content; blank lines and extra spaces mean nothing.
        file: its name, for the report.
        num_classes: classes are 0 to `num_classes - 1`; `3.0` is 3.
        report: takes the lines that are dropped, and notes of what is not used.
        forms: what lines of more than five numbers mean, by their number.
    """
    found, noted = [], []
    mixed = None
    for number, line in numbered_lines(text):
        if not line.strip():
            continue
        numbers = read_numbers(line)
        form = Form() if numbers and len(numbers) == 5 else None
        if numbers and len(numbers) > 5:
            form = forms.get(len(numbers))
            if form and form.alone:
                mixed = _has_plain_box(text) if mixed is None else mixed
                form = None if mixed else form
        problem = _problem(line, numbers, num_classes, form)
        if problem is not None:
            kind, expected = problem
            came = line.strip()[:_SHOWN]
            report.add(kind, file, number, f"{expected}; came {came!r}; dropped")
        elif numbers and form:
            values = numbers[1:]
            if form.polygon:
                found.append(Line(number, int(numbers[0]), _enclosing(values), values))
            else:
                corners = _corners(values[form.start : form.start + 4])
                found.append(Line(number, int(numbers[0]), corners, ()))
            if form.note:
                noted.append(form.note)
    for note in dict.fromkeys(noted):
        report.note(note, noted.count(note))
    return found


def read_numbers(line: str) -> list[float] | None:
    """The numbers of a line, parted by spaces, commas or semicolons.

    Returns:
        None where something else stands there, as a decimal comma.
    """
    fields = line.split()
    for mark in ";,":
        if mark in line:
            fields = [part.strip() for part in line.strip().rstrip(mark).split(mark)]
            break
    # Python takes 1_0 for 10.
    if "_" in line:
        return None
    try:
        return [float(field) for field in fields]
    except ValueError:
        return None


def is_inside(values: Sequence[float]) -> bool:
    """Whether all values are shares of the image, but for rounding."""
    return min(values) >= -ROUNDING and max(values) <= 1 + ROUNDING


def _has_plain_box(text: str) -> bool:
    return any(len(read_numbers(line) or ()) == 5 for _, line in numbered_lines(text))


def _problem(
    line: str, numbers: Sequence[float] | None, num_classes: int, form: Form | None
) -> tuple[str, str] | None:
    """What is wrong with a line: its kind, and what was expected."""
    if numbers is None:
        return "label line that is not numbers", "expected numbers"
    if form is None:
        return _no_form(len(numbers))
    if not all(map(math.isfinite, numbers)):
        return "label line that is not finite", "expected finite numbers"
    label, *values = numbers
    if label != int(label) or not 0 <= label < num_classes:
        name = line.replace(",", " ").replace(";", " ").split()[0][:_SHOWN]
        limits = f"there are {num_classes} classes (0 to {num_classes - 1})"
        return "class out of range", f"class {name}, but {limits}"
    if form.polygon:
        good = is_inside(values)
    else:
        box = values[form.start : form.start + 4]
        good = max(box) <= 2 and min(box) >= -1
    if not good:
        return "coordinates that are not shares of the picture", "expected 0 to 1"
    return None


def _no_form(n: int) -> tuple[str, str]:
    if n < 7 or n % 2 == 0:
        return WRONG_NUMBER, (
            "expected 5 (class x y width height), or 7 and more by twos (class "
            f"and a polygon), came {n}"
        )
    return UNCLEAR, (
        f"{n} fields are a polygon, or a box with key points, confidence or track id, "
        "and the labels do not show which; write `task: segment` or kpt_shape into "
        "the data.yaml"
    )


def _corners(box: Sequence[float]) -> tuple[float, float, float, float]:
    x, y, width, height = box
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


def _enclosing(values: Sequence[float]) -> tuple[float, float, float, float]:
    xs, ys = values[::2], values[1::2]
    return min(xs), min(ys), max(xs), max(ys)
