"""What lines of YOLO label files mean: a box, a polygon, or something else.

A line of five numbers is a class and a box. Longer lines mean different things in
different data sets, and one line alone often fits several of them:

    class x1 y1 x2 y2 x3 y3 ...            a polygon
    class x y w h confidence               predictions
    class x y w h confidence id            a tracker's boxes, the two in either order
    class x y w h px py [visible] ...      key points

So all lines of a data set decide together. A meaning that the lines contradict is out;
where more than one is left, the lines are reported and dropped, never guessed.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from yolojax.data.sources.base import ROUNDING
from yolojax.data.sources.label_lines import Form, is_inside, read_numbers
from yolojax.files import numbered_lines

# Share of the lines that must fit a meaning.
MOST = 0.95
# Of polygons with a constant number of points, some 40 % look like a box and points.
TOO_FEW_BOXES = 0.75
# Lines that show more than chance.
SEVERAL, MANY = 4, 8
# Lines of a length that are looked at in full.
SAMPLE = 2000
# Share of a box's size by which key points may lie outside it.
SLACK = 0.25

KEY_POINTS = "label line with key points, which are not used"
EXTRAS = "label line with a confidence or track id, which is not used"
POLYGON = Form(polygon=True)


class Said(NamedTuple):
    """What the data set itself says about its lines.

    Attributes:
        polygons: lines of an odd number of fields are polygons.
        key_points: lines have a box and key points.
        point_fields: the number of fields of all key points of a box; None: not said.
    """

    polygons: bool = False
    key_points: bool = False
    point_fields: int | None = None


@dataclasses.dataclass
class _Length:
    """Counts over the lines with one number of fields.

    Attributes:
        lines: number of lines.
        seen: of them, those that are looked at in full; the other counts are of these.
        inside: all values are shares of the image.
        boxes: by where a box would begin, lines with a box in the image there, and
            with a confidence and an id, or one of the two, in the rest.
        first_boxes: lines whose first four values are a box in the image.
        tracked: lines that begin with a box, perhaps partly outside the image, and end
            with a confidence and an id.
        ends_whole: lines whose last value is the only whole number.
        ids: lines whose last value is a whole number, other than before in the file.
        above: lines whose last value is a whole number above 1.
        points: lines that begin with a box which has all of the points `x y` in it.
        seen_points: the same with points `x y confidence`.
        marked_points: the same with points `x y visible`, of 0, 1 and 2.
        outlines: lines of four points in the order of a parallelogram, or that end
            with their first point.
    """

    lines: int = 0
    seen: int = 0
    inside: int = 0
    boxes: list[int] = dataclasses.field(default_factory=lambda: [0, 0, 0])
    first_boxes: int = 0
    tracked: int = 0
    ends_whole: int = 0
    ids: int = 0
    above: int = 0
    points: int = 0
    seen_points: int = 0
    marked_points: int = 0
    outlines: int = 0

    def most(self, count: int) -> bool:
        """Whether nearly all lines are among the counted."""
        return count >= MOST * self.seen


Evidence = Mapping[int, _Length]


def survey(texts: Iterable[str]) -> dict[int, _Length]:
    """Counts over the lines of more than five numbers, by their number.

    Args:
        texts: of label files.
    """
    found: dict[int, _Length] = {}
    for text in texts:
        last: set[float] = set()
        for _, line in numbered_lines(text):
            # Most lines are a box, which is quickly seen.
            if len(line.split(None, 5)) < 6 and "," not in line and ";" not in line:
                continue
            numbers = read_numbers(line)
            if not numbers or len(numbers) < 6 or not all(map(math.isfinite, numbers)):
                continue
            counts = found.setdefault(len(numbers), _Length())
            counts.lines += 1
            if counts.seen < SAMPLE:
                _count(counts, numbers[1:], last)
            last.add(numbers[-1])
    return found


def _count(counts: _Length, values: Sequence[float], earlier: set[float]) -> None:
    counts.seen += 1
    counts.inside += is_inside(values)
    first = _is_box(values)
    counts.first_boxes += first
    end = values[-1]
    whole = end == int(end)
    counts.above += whole and end > 1
    counts.ids += whole and end >= -1 and end not in earlier
    counts.ends_whole += whole and not any(v == int(v) for v in values[:-1])
    if len(values) < 7:
        for start in range(len(values) - 3):
            rest = [*values[:start], *values[start + 4 :]]
            counts.boxes[start] += _is_box(values[start:]) and _are_extras(rest)
        near = _is_box(values, over=math.inf)
        counts.tracked += near and len(values) == 6 and _are_extras(values[4:])
        if len(values) == 5:
            return
    counts.points += first and _has_points(values, 2)
    counts.seen_points += first and _has_points(values, 3)
    marks = values[6::3]
    if len(values) % 3 == 1 and all(mark in (0, 1, 2) for mark in marks):
        counts.marked_points += first and _has_points(values, 3)
    counts.outlines += len(values) % 2 == 0 and _is_outline(values)


def _is_box(values: Sequence[float], *, over: float = ROUNDING) -> bool:
    """Whether the first four values are a box in the image, by its centre and size.

    Args:
        values: at least four.
        over: share of the image by which the box may jut out.
    """
    x, y, width, height = values[:4]
    if not (0 < width <= 1 + ROUNDING and 0 < height <= 1 + ROUNDING):
        return False
    reach = max(width / 2 - x, height / 2 - y, x + width / 2 - 1, y + height / 2 - 1)
    return reach <= over and is_inside((x, y))


def _are_extras(values: Sequence[float]) -> bool:
    """Whether one value is a confidence or an id, or two are one of each."""
    if len(values) == 1:
        return 0 <= values[0] <= 1 or _is_id(values[0])
    first, second = values
    return (0 <= first <= 1 and _is_id(second)) or (_is_id(first) and 0 <= second <= 1)


def _is_id(value: float) -> bool:
    return value == int(value) and value >= -1


def _has_points(values: Sequence[float], stride: int) -> bool:
    """Whether key points follow the box, nearly all of them in it.

    Points at (0, 0), and those with the mark 0, are missing ones.
    """
    if (len(values) - 4) % stride or len(values) == 4:
        return False
    x, y, width, height = values[:4]
    reach_x, reach_y = width * (0.5 + SLACK), height * (0.5 + SLACK)
    present = near = 0
    for place in range(4, len(values), stride):
        point_x, point_y = values[place : place + 2]
        mark = values[place + 2] if stride == 3 else 1
        if not 0 <= mark <= 2:
            return False
        if mark and (point_x or point_y):
            present += 1
            near += abs(point_x - x) <= reach_x and abs(point_y - y) <= reach_y
    return near >= 0.8 * present


def _is_outline(values: Sequence[float]) -> bool:
    """Whether the points are a parallelogram, or end where they began."""
    xs, ys = values[::2], values[1::2]
    if (xs[0], ys[0]) == (xs[-1], ys[-1]):
        return True
    if len(xs) != 4:
        return False
    size = max(max(xs) - min(xs), max(ys) - min(ys))
    gap = max(abs(v[0] + v[2] - v[1] - v[3]) for v in (xs, ys))
    return gap <= 0.1 * size


def decide(evidence: Evidence, said: Said) -> dict[int, Form]:
    """What lines of each length mean; lengths without a clear meaning are left out."""
    odd = {n: counts for n, counts in evidence.items() if n % 2 and n >= 7}
    shown = said.polygons or _lengths_vary(odd)
    # Predictions of polygons end with the id of a track.
    seen = sum(counts.seen for counts in odd.values())
    whole = sum(counts.ends_whole for counts in odd.values())
    with_id = seen > 1 and whole >= MOST * seen
    forms = {}
    for n, counts in evidence.items():
        form = None
        if said.point_fields is not None or said.key_points:
            form = _of_key_points(n, said)
        elif n == 6:
            form = _of_six(counts)
        elif n % 2 and shown:
            form = None if with_id else POLYGON
        elif n == 7:
            form = _of_seven(counts)
        else:
            form = _of_many(n, counts)
        if form is not None:
            forms[n] = form
    return forms


def _lengths_vary(odd: Evidence) -> bool:
    """Whether there are polygons: nothing else has lines of several odd lengths."""
    lines = [counts.lines for counts in odd.values()]
    return len(lines) > 1 and sum(lines) - max(lines) > (1 - MOST) * sum(lines)


def _of_key_points(n: int, said: Said) -> Form | None:
    if said.point_fields is not None:
        fits = n == 5 + said.point_fields
    else:
        fits = n > 6 and ((n - 5) % 2 == 0 or (n - 5) % 3 == 0)
    return Form(note=KEY_POINTS) if fits else None


def _of_six(counts: _Length) -> Form | None:
    """A box with a confidence or an id, where it can begin in one place only."""
    ids = counts.most(counts.ids)
    if counts.above and not ids:  # as angles in degrees
        return None
    fits = [start for start in (0, 1) if counts.most(counts.boxes[start])]
    if len(fits) != 1:
        return None
    return Form(start=fits[0], note=EXTRAS, alone=not counts.above)


def _of_seven(counts: _Length) -> Form | None:
    fits = [start for start in (1, 2) if counts.most(counts.boxes[start])]
    if counts.most(counts.tracked):
        sure = counts.above > 0 or counts.seen > 1
        return Form(note=EXTRAS) if sure and not fits else None
    if counts.most(counts.inside):
        return POLYGON if _contradict_box(counts) and not fits else None
    return Form(start=fits[0], note=EXTRAS) if len(fits) == 1 else None


def _of_many(n: int, counts: _Length) -> Form | None:
    """Of a constant number of fields from 8 on: key points, or polygons."""
    odd = n % 2 == 1
    if odd and counts.most(counts.inside) and counts.most(counts.outlines):
        return POLYGON
    marks = counts.seen * ((n - 5) // 3)
    if counts.most(counts.marked_points) and marks > 1:
        return Form(note=KEY_POINTS)
    points = counts.most(counts.points) or counts.most(counts.seen_points)
    needed = SEVERAL if n >= 11 else MANY
    # An even number is no polygon, so that fewer lines are enough.
    if points and counts.seen >= (needed if odd else 2):
        return Form(note=KEY_POINTS)
    if odd and counts.most(counts.inside) and _contradict_box(counts):
        return POLYGON
    return None


def _contradict_box(counts: _Length) -> bool:
    """Whether too many lines do not begin with a box."""
    if counts.seen < SEVERAL:
        return counts.first_boxes == 0
    return counts.first_boxes < TOO_FEW_BOXES * counts.seen
