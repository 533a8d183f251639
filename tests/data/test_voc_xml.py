"""What is read of one XML file, whatever its encoding, and what is refused."""

import codecs
import math
import os
import re
import tracemalloc

import pytest

from yolojax.data.sources import voc_xml
from yolojax.data.sources.voc_xml import CODECS, LARGEST_XML, parse_xml, read_xml

CORNERS = "<xmin>1</xmin><ymin>2</ymin><xmax>30</xmax><ymax>40</ymax>"
BOX = f"<bndbox>{CORNERS}</bndbox>"


def annotation(name="cat", inner=BOX, head=""):
    text = f"<annotation>\n<object><name>{name}</name>{inner}</object></annotation>"
    return f"{head}{text}"


def declared(encoding):
    return f'<?xml version="1.0" encoding="{encoding}"?>\n'


def names(data):
    return [box.name for box in parse_xml(data).boxes]


@pytest.mark.parametrize(
    "encoding, codec, name",
    [
        ("GBK", "gbk", "汽车"),
        ("GB2312", "gbk", "朱镕基"),  # a letter that GB2312 itself lacks
        ("gb18030", "gb18030", "汽车€"),
        ("Big5", "big5", "汽車"),
        ("Shift_JIS", "shift_jis", "車"),
        ("Shift_JIS", "cp932", "①車"),  # of Windows' extension
        ("EUC-JP", "euc_jp", "車"),
        ("EUC-KR", "euc_kr", "자동차"),
        ("ISO-8859-1", "latin-1", "Löwe"),
        ("latin-1", "latin-1", "Löwe"),
        ("windows-1252", "cp1252", "Löwe…"),
        ("windows-1251", "cp1251", "машина"),
        ("KOI8-R", "koi8-r", "машина"),
        ("UTF-8", "utf-8", "Löwe 汽车"),
        ("utf8", "utf-8-sig", "Löwe"),
        ("UTF-16", "utf-16", "Löwe 汽车"),
        ("UTF-16LE", "utf-16-le", "Löwe"),  # without a byte order mark
        ("UTF-16BE", "utf-16-be", "Löwe"),
        ("UTF-8", "utf-16", "Löwe"),  # the mark outweighs the declaration
        ("utf-16", "utf-8", "Löwe"),  # saved anew by a tool that kept the first line
        ("no-such-thing", "ascii", "cat"),  # the same in all of them
    ],
)
def test_the_text_is_that_of_the_encoding(encoding, codec, name):
    (box,) = parse_xml(annotation(name, head=declared(encoding)).encode(codec)).boxes
    assert (box.name, box.corners, box.line) == (name, (1, 2, 30, 40), 3)


def test_without_a_declaration_it_is_utf_8():
    assert names(annotation("Löwe").encode()) == ["Löwe"]
    with pytest.raises(ValueError, match=r"no encoding, but byte 28 \(line 2\) is not"):
        names(annotation("Löwe").encode("latin-1"))


@pytest.mark.parametrize(
    "encoding, codec, message",
    [
        ("UTF-8", "gbk", r"declares UTF-8, but byte 66 \(line 3\) is not UTF-8 text"),
        ("ascii", "utf-8", "declares ascii, but byte 66"),
        ("rot13", "utf-8", "the encoding 'rot13' is not read"),
        ("zip", "utf-8", "the encoding 'zip' is not read"),
        ("unicode_escape", "utf-8", "'unicode_escape' is not read"),
        ("utf-7", "utf-8", "'utf-7' is not read"),
        ("no-such-thing", "utf-8", "'no-such-thing' is not read; save it as UTF-8"),
    ],
)
def test_a_wrong_declaration_is_an_error(encoding, codec, message):
    head = f'<?xml version="1.0" encoding="{encoding}"?>'.ljust(38) + "\n"
    with pytest.raises(ValueError, match=message):
        names(annotation("汽车", head=head).encode(codec))


@pytest.mark.parametrize("encoding", ["GBK", "Big5", "Shift_JIS", "EUC-JP", "EUC-KR"])
def test_bytes_that_no_declared_text_has_are_an_error(encoding):
    data = annotation("\x81\xff", head=declared(encoding)).encode("latin-1")
    with pytest.raises(ValueError, match=f"declares {encoding}, but byte "):
        names(data)


def test_the_codecs_are_codecs_of_text_under_their_own_names():
    for name, choices in CODECS.items():
        assert codecs.lookup(name).name == name
        assert all("1".encode(choice) == b"1" for choice in choices)


def test_lines_are_those_of_the_file():
    text = "\r\n".join(["", declared("GBK").strip(), "<annotation>", "<object/>", ""])
    data = (text + "<object><name>汽\n车</name></object></annotation>").encode("gbk")
    assert [(box.line, box.name) for box in parse_xml(data).boxes] == [
        (4, ""),
        (5, "汽 车"),
    ]


@pytest.mark.parametrize(
    "mark, expected",
    [
        ("1", True),
        (" 1 ", True),
        ("true", True),
        ("True", True),
        ("yes", True),
        ("0", False),
        ("false", False),
        ("Unspecified", False),
        ("", False),
    ],
)
def test_difficult_is_a_number_or_a_word(mark, expected):
    content = parse_xml(
        annotation(inner=f"<difficult>{mark}</difficult>{BOX}").encode()
    )
    assert [box.difficult for box in content.boxes] == [expected]
    assert content.problems == []


@pytest.mark.parametrize("mark", ["maybe", "nan", "1_0"])
def test_a_mark_that_means_nothing_is_a_problem(mark):
    content = parse_xml(
        annotation(inner=f"<difficult>{mark}</difficult>{BOX}").encode()
    )
    assert content.boxes[0].difficult is False
    assert content.problems == [(2, f"difficult is {mark!r}; taken as 0")]


def test_a_part_of_an_object_has_no_say():
    other = BOX.replace("30", "99")
    part = f"<part><name>head</name><difficult>1</difficult>{other}</part>"
    for inner in (part + BOX, BOX + part):
        (box,) = parse_xml(annotation(inner=inner).encode()).boxes
        assert box == ("cat", (1, 2, 30, 40), False, 2)


def test_an_object_with_two_boxes_gives_both():
    second = BOX.replace("30", "50")
    content = parse_xml(annotation(inner=BOX + second).encode())
    assert [box.corners for box in content.boxes] == [(1, 2, 30, 40), (1, 2, 50, 40)]


def test_a_turned_box_is_the_box_around_it():
    keys = dict(cx=50, cy=40, w=20, h=10, angle=math.pi / 2)
    tags = "".join(f"<{key}>{value}</{key}>" for key, value in keys.items())
    content = parse_xml(annotation(inner=f"<robndbox>{tags}</robndbox>").encode())
    assert content.turned == 1
    assert content.boxes[0].corners == pytest.approx((45, 30, 55, 50))
    # In degrees, or without a side, it is none.
    for old, new in ((str(math.pi / 2), "90"), ("<w>20</w>", "")):
        inner = f"<robndbox>{tags.replace(old, new)}</robndbox>"
        assert parse_xml(annotation(inner=inner).encode()).boxes[0].corners is None


@pytest.mark.parametrize("bad", ["", "1_0", "12,5", "x", "1" * 300, "0x10"])
def test_what_is_no_number_is_no_corner(bad):
    inner = BOX.replace("<xmin>1<", f"<xmin>{bad}<")
    assert parse_xml(annotation(inner=inner).encode()).boxes[0].corners is None


def test_numbers_in_other_forms_are_corners():
    inner = BOX.replace("<xmin>1<", "<xmin>\n 1.5e0 <")
    assert parse_xml(annotation(inner=inner).encode()).boxes[0].corners == (
        1.5,
        2,
        30,
        40,
    )


LAUGHS = "".join(
    f'<!ENTITY a{n} "{f"&a{n - 1};" * 10 if n else "ha"}">' for n in range(10)
)


@pytest.mark.parametrize(
    "text, message",
    [
        (f"<!DOCTYPE annotation [{LAUGHS}]><annotation>&a9;</annotation>", "entities"),
        (
            '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotation>'
            "<object><name>&x;</name></object></annotation>",
            "declares entities, which are not read",
        ),
        ('<!DOCTYPE a [<!ENTITY % p SYSTEM "file:///x">%p;]><annotation/>', "entities"),
        ("<a>" * 100_000, "nested deeper than 64"),
        ("<annotation>" + "<object/>" * 20_001, "more than 20,000 objects"),
        ("<annotation><object>" + "<bndbox/>" * 20_001, "more than 20,000 boxes"),
        ("<html><body>404</body></html>", "root is <html> and it has no object"),
        ("<annotations><image/></annotations>", "expected the <annotation> of Pascal"),
        ("", "no element found"),
        ("\0\0\0\0\0\0", "no element found|not well-formed"),
        ("<annotation><object></annotation>", "mismatched tag: line 1, column 22"),
        ("<annotation>&nbsp;</annotation>", "undefined entity"),
    ],
    ids=lambda value: value[:40],
)
def test_hostile_and_other_files_are_errors(tmp_path, text, message):
    file = tmp_path / "a.xml"
    file.write_text(text)
    problem = read_xml(str(file))
    assert isinstance(problem, str) and re.search(message, problem)


def test_the_number_of_elements_is_limited(monkeypatch):
    monkeypatch.setattr(voc_xml, "MOST_ELEMENTS", 5)
    assert parse_xml(b"<annotation>" + b"<a/>" * 4 + b"</annotation>").boxes == []
    with pytest.raises(ValueError, match="more than 5 elements"):
        parse_xml(b"<annotation>" + b"<a/>" * 5 + b"</annotation>")


def test_a_doctype_without_entities_is_read_and_nothing_is_fetched(tmp_path):
    head = '<!DOCTYPE annotation SYSTEM "file:///nowhere/voc.dtd">'
    assert names(annotation(head=head).encode()) == ["cat"]


def test_files_that_are_too_large_or_no_files_are_not_opened(tmp_path):
    large, pipe = tmp_path / "large.xml", tmp_path / "pipe.xml"
    with large.open("wb") as file:
        file.truncate(LARGEST_XML + 1)
    os.mkfifo(pipe)
    assert read_xml(str(large)) == "8,388,609 bytes; at most 8,388,608 are read"
    assert read_xml(str(pipe)) == "not a regular file but a named pipe"
    assert read_xml(str(tmp_path / "gone.xml")) == "No such file or directory"


def test_what_is_not_kept_takes_no_memory(tmp_path):
    text = "<annotation>" + "<segment>1 2 3</segment>" * 100_000
    text += "<object><name>" + "x" * 2_000_000 + f"</name>{BOX}</object></annotation>"
    data = text.encode()
    tracemalloc.start()
    content = parse_xml(data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [box.name for box in content.boxes] == [""]
    assert "a name of over 200 letters" in content.problems[0][1]
    assert peak < 4 * len(data)
