"""Text of files never commands the terminal."""

import io
import os
import subprocess
import sys

import pytest

from yolojax.data.report import Report
from yolojax.lookup import listed
from yolojax.metrics.detection import aligned
from yolojax.printable import (
    PrintableStream,
    printable,
    printable_lines,
    unguarded,
)

BIDI = "\u202e\u2066"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain äöü 猫 \U0001f600", "plain äöü 猫 \U0001f600"),
        ("", ""),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("a\nb\r\tc\x00", "a\\nb\\r\\tc\\x00"),
        ("\x7f\x9b31m", "\\x7f\\x9b31m"),
        ("abc" + BIDI, "abc\\u202e\\u2066"),
        ("\ufeffa\u200bb\u2028", "\\ufeffa\\u200bb\\u2028"),
        ("caf\udce9", "caf\\udce9"),
        ("\U000e0041", "\\U000e0041"),
        # Parts of words, wide blanks, joined emoji.
        ("می\u200cخواهم", "می\u200cخواهم"),
        ("a\u3000b\xa0c", "a\u3000b\xa0c"),
        ("\U0001f469\u200d\U0001f680", "\U0001f469\u200d\U0001f680"),
    ],
)
def test_what_commands_a_terminal_is_an_escape(text, expected):
    assert printable(text) == expected


def test_long_text_is_cut():
    assert printable("abcdef", 3) == "abc..."
    assert printable("abc", 3) == "abc"
    assert printable(12345) == "12345"


def test_line_breaks_stay_in_text_of_lines():
    assert printable_lines("a\n\tb\x1b") == "a\n\tb\\x1b"


def test_a_stream_keeps_lines_and_escapes_the_rest():
    within = io.StringIO()
    stream = PrintableStream(within)
    print("one\n\ttwo\x1b[2J", file=stream, flush=True)
    stream.writelines(["\r", "three\n"])
    assert within.getvalue() == "one\n\ttwo\\x1b[2J\n\\rthree\n"
    assert stream.isatty() is False
    assert unguarded(stream) is within
    assert unguarded(within) is within


def test_a_report_has_a_line_for_each_entry():
    report = Report()
    report.add("bad\x1bkind", "a\nb.txt", 3, "class 'x\n\x1b[31m'")
    report.note("seen", file="c\u202e.jpg", message="twice\n")
    assert report.render().split("\n") == [
        "bad\\x1bkind: 1",
        "  a\\nb.txt:3: class 'x\\n\\x1b[31m'",
        "note: seen: 1",
        "  c\\u202e.jpg: twice\\n",
    ]


def test_tables_and_lists_of_class_names_stay_in_their_lines():
    lines = aligned([["class", "AP"], ["a\nb\x1b", "0.5"]], "<>")
    assert lines == ["class      AP", "-------------", "a\\nb\\x1b  0.5"]
    assert listed(["a\nb", "c"]) == "a\\nb, c"


def test_a_command_escapes_what_it_prints_and_what_it_refuses():
    code = (
        "import sys; sys.argv = ['x']\n"
        "from yolojax import command\n"
        "def main():\n"
        "    print('seen \\x1b[31m'); raise ValueError('bad \\x1b]0;t\\x07\\u202e')\n"
        "command.run(main, usage='')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stdout == "seen \\x1b[31m\n"
    assert done.stderr.startswith("error: bad \\x1b]0;t\\x07\\u202e\n")


def test_a_reader_that_has_gone_does_not_stop_a_command():
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as file:
        stream = PrintableStream(file)
        for _ in range(3):
            assert stream.write("x" * 100_000) == 100_000
            stream.flush()
