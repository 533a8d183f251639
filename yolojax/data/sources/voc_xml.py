"""What one XML file of Pascal VOC holds, read safely in any encoding it declares.

The file is read as a stream and nothing but objects, file name and size is kept.
Entities are refused, and nothing outside the file is read.
"""

from __future__ import annotations

import codecs
import dataclasses
import math
import re
from typing import Any, NamedTuple
from xml.parsers import expat

from yolojax.data.sources.labelled import composed
from yolojax.files import FileError, decode_text, read_file

CORNERS = ("xmin", "ymin", "xmax", "ymax")
# Centre, sides and angle, in radians, as roLabelImg writes them.
TURNED = ("cx", "cy", "w", "h", "angle")

# Bytes; an object takes some 400 of them.
LARGEST_XML = 2**23
MOST_ELEMENTS = 500_000
MOST_BOXES = 20_000  # and as many objects
DEEPEST = 64  # elements in each other; VOC has 5
LONGEST_TEXT = 200  # letters of a name or number

# Whose text is kept, by their places below the root. Other elements may have the same
# names: a <part> of an object has a name and a bndbox as well.
KEPT = frozenset(
    (
        "filename",
        "size/width",
        "size/height",
        "object/name",
        "object/difficult",
        *(f"object/bndbox/{key}" for key in CORNERS),
        *(f"object/robndbox/{key}" for key in TURNED),
    )
)
YES = frozenset(("true", "yes", "y", "t"))
NO = frozenset(("", "false", "no", "n", "f", "unspecified", "none", "null"))

# Codecs by the names that Python gives to declared encodings, with the extensions that
# files declared as such are often written in. Only codecs of text: Python has others.
CODECS: dict[str, tuple[str, ...]] = {
    **{name: (name,) for name in "utf-8 ascii koi8-r koi8-u mac-roman cp949".split()},
    **{f"iso8859-{n}": (f"iso8859-{n}",) for n in range(1, 17) if n != 12},
    **{f"cp{n}": (f"cp{n}",) for n in (*range(1250, 1259), 437, 850, 852, 866, 874)},
    "tis-620": ("cp874",),
    "gb2312": ("gb18030",),
    "gbk": ("gb18030",),
    "gb18030": ("gb18030",),
    "big5": ("big5", "cp950", "big5hkscs"),
    "cp950": ("cp950",),
    "big5hkscs": ("big5hkscs",),
    "shift_jis": ("shift_jis", "cp932"),
    "cp932": ("cp932",),
    "euc_jp": ("euc_jp",),
    "iso2022_jp": ("iso2022_jp",),
    "euc_kr": ("euc_kr", "cp949"),
    # Text that declares these without being written in them is mostly UTF-8.
    **{
        name: ("utf-8",)
        for name in "utf-16 utf-16-le utf-16-be utf-32 utf-32-le utf-32-be".split()
    },
}
DECLARATION = re.compile(r"\s*<\?xml\b([^>]{0,500})\?>")
ENCODING = re.compile(r"""encoding\s*=\s*["']([\w.:-]{1,40})["']""", re.ASCII)


class VocBox(NamedTuple):
    """One box of an XML file.

    Attributes:
        name: its class, "" where the file has none.
        corners: x1 y1 x2 y2 as they stand; None where they are no four numbers.
        difficult: whether the file marks it so.
        line: of its object.
    """

    name: str
    corners: tuple[float, ...] | None
    difficult: bool
    line: int


class VocXml(NamedTuple):
    """What an XML file holds.

    Attributes:
        filename: of the image, as the file says; "" where it does not.
        size: (height, width) as the file says; None where it does not.
        boxes: in the file's order.
        turned: number of boxes that enclose a turned one.
        problems: (line, message) of marks and names that mean nothing.
    """

    filename: str
    size: tuple[int, int] | None
    boxes: list[VocBox]
    turned: int
    problems: list[tuple[int, str]]


def read_xml(file: str) -> VocXml | str:
    """The content of one XML file, or what is wrong with it."""
    try:
        return parse_xml(read_file(file, limit=LARGEST_XML))
    except FileError as error:
        return error.reason
    except (ValueError, expat.ExpatError) as error:
        return str(error)


def parse_xml(data: bytes) -> VocXml:
    """The content of the bytes of an XML file.

    Raises:
        ValueError: the bytes are no text, or an XML that is not of Pascal VOC.
        expat.ExpatError: the text is no XML.
    """
    text = decode_xml(data)
    declared = DECLARATION.match(text)
    if declared:
        # Without it, which speaks of the bytes; its lines are counted on.
        text = "\n" * declared[0].count("\n") + text[declared.end() :]
    reader = _Reader()
    reader.parser.Parse(text, True)
    return reader.content()


def decode_xml(data: bytes) -> str:
    """The text of the bytes of an XML file, by byte order mark or declaration.

    Raises:
        ValueError: an encoding that is not read, or bytes that are none of it.
    """
    marks = (codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    if data.startswith(marks) or b"\0" in data[:4]:
        return decode_text(data)
    head = DECLARATION.match(data[:1000].decode("latin-1"))
    found = ENCODING.search(head[1]) if head else None
    declared = found[1] if found else "utf-8"
    if data.isascii():
        return data.decode("ascii")
    try:
        choices = CODECS.get(codecs.lookup(declared).name, ())
    except LookupError:
        choices = ()
    if not choices:
        raise ValueError(
            f"the encoding {declared!r} is not read; save it as UTF-8, or declare the "
            "encoding that it has, such as UTF-8, GBK, Big5, Shift_JIS or ISO-8859-1"
        )
    problem = None
    for codec in choices:
        try:
            return data.decode(codec)
        except UnicodeDecodeError as error:
            problem = problem or error
    said = f"declares {declared}" if found else "declares no encoding"
    place = problem.start if problem else 0
    line = data.count(b"\n", 0, place) + 1
    raise ValueError(
        f"{said}, but byte {place} (line {line}) is not {choices[0].upper()} text; "
        "save it in the encoding that it declares, or declare the one that it has"
    )


@dataclasses.dataclass
class _Object:
    """What was read of one <object>."""

    line: int
    texts: dict[str, str] = dataclasses.field(default_factory=dict)
    boxes: list[dict[str, str]] = dataclasses.field(default_factory=list)
    turned: list[dict[str, str]] = dataclasses.field(default_factory=list)


class _Reader:
    """Collects what is kept while the parser goes through the file."""

    def __init__(self) -> None:
        self.parser = expat.ParserCreate()
        self.parser.buffer_text = True
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._letters
        self.parser.EntityDeclHandler = self._refuse
        self._root = ""
        self._texts: dict[str, str] = {}
        self._objects: list[_Object] = []
        self._path: list[str] = []  # below the root
        self._depth = 0
        self._num_elements = self._num_boxes = 0
        self._text: list[str] | None = None  # of the element that is open, if kept

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        self._num_elements += 1
        if self._num_elements > MOST_ELEMENTS:
            raise ValueError(f"more than {MOST_ELEMENTS:,} elements")
        self._depth += 1
        if self._depth > DEEPEST:
            raise ValueError(f"elements are nested deeper than {DEEPEST}")
        self._text = None
        if self._depth == 1:
            self._root = tag
            return
        self._path.append(tag.lower())
        if self._depth > 4:
            return
        place = "/".join(self._path)
        if place == "object":
            self._count("objects", len(self._objects))
            self._objects.append(_Object(self.parser.CurrentLineNumber))
        elif place in ("object/bndbox", "object/robndbox"):
            self._count("boxes", self._num_boxes)
            self._num_boxes += 1
            last = self._objects[-1]
            (last.boxes if place == "object/bndbox" else last.turned).append({})
        elif place in KEPT:
            self._text = []

    def _count(self, what: str, count: int) -> None:
        if count == MOST_BOXES:
            raise ValueError(f"more than {MOST_BOXES:,} {what}")

    def _letters(self, text: str) -> None:
        if self._text is not None:
            self._text.append(text[: LONGEST_TEXT + 1])
            # A long text comes in many parts.
            del self._text[LONGEST_TEXT:]

    def _end(self, tag: str) -> None:
        self._depth -= 1
        if self._text is not None:
            place, text = "/".join(self._path), "".join(self._text)
            _, _, key = place.rpartition("/")
            self._texts_of(place).setdefault(key, " ".join(text.split()))
            self._text = None
        if self._path:
            self._path.pop()

    def _texts_of(self, place: str) -> dict[str, str]:
        if place.startswith("object/bndbox/"):
            return self._objects[-1].boxes[-1]
        if place.startswith("object/robndbox/"):
            return self._objects[-1].turned[-1]
        return self._objects[-1].texts if place.startswith("object/") else self._texts

    def _refuse(self, name: str, *_: Any) -> None:
        raise ValueError("it declares entities, which are not read")

    def content(self) -> VocXml:
        """What was collected.

        Raises:
            ValueError: the file is an XML of another kind.
        """
        if self._root.lower() != "annotation" and not (self._objects or self._texts):
            raise ValueError(
                f"its root is <{self._root[:40]}> and it has no object; expected the "
                "<annotation> of Pascal VOC"
            )
        boxes, problems, turned = [], [], 0
        for found in self._objects:
            difficult = _is_difficult(found.texts.get("difficult", ""))
            if difficult is None:
                mark = found.texts["difficult"][:40]
                problems.append((found.line, f"difficult is {mark!r}; taken as 0"))
            corners = [_corners(box) for box in found.boxes]
            if not corners:
                corners = [_enclosing(box) for box in found.turned] or [None]
                turned += len(found.turned)
            name = composed(found.texts.get("name", ""))
            if len(name) >= LONGEST_TEXT:
                problems.append((found.line, f"a name of over {LONGEST_TEXT} letters"))
                name = ""
            boxes += [VocBox(name, c, bool(difficult), found.line) for c in corners]
        sides = [_number(self._texts.get(key)) for key in ("height", "width")]
        size = None
        if all(side is not None and 1 <= side <= 1e6 for side in sides):
            size = (int(sides[0] or 0), int(sides[1] or 0))
        return VocXml(self._texts.get("filename", ""), size, boxes, turned, problems)


def _number(text: str | None) -> float | None:
    """The number that a text is; None where it is none."""
    # Python also reads 1_000.
    if text is None or "_" in text or len(text) > LONGEST_TEXT:
        return None
    try:
        return float(text)
    except ValueError:
        return None


def _is_difficult(mark: str) -> bool | None:
    """Whether a mark says so; None where it means nothing."""
    number = _number(mark)
    if number is not None and math.isfinite(number):
        return number != 0
    mark = mark.lower()
    return mark in YES if mark in YES | NO else None


def _corners(box: dict[str, str]) -> tuple[float, ...] | None:
    values = [_number(box.get(key)) for key in CORNERS]
    corners = tuple(value for value in values if value is not None)
    return corners if len(corners) == 4 else None


def _enclosing(box: dict[str, str]) -> tuple[float, ...] | None:
    """The upright box around one that is turned about its centre."""
    values = [_number(box.get(key)) for key in TURNED]
    x, y, width, height, angle = (math.nan if v is None else v for v in values)
    if not abs(angle) <= 2 * math.pi or not min(width, height) > 0:
        return None
    cosine, sine = abs(math.cos(angle)), abs(math.sin(angle))
    half_x = (width * cosine + height * sine) / 2
    half_y = (width * sine + height * cosine) / 2
    return x - half_x, y - half_y, x + half_x, y + half_y
