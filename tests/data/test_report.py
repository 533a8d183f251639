import pytest

from yolojax.data.report import Report


def test_counts_by_kind_and_shows_the_first_five_with_their_lines():
    report = Report()
    for line in range(1, 9):
        report.add("class out of range", "a.txt", line, f"class {line + 2}; dropped")
    report.add("missing picture", "b.jpg", None, "left out")
    assert report.counts == {"class out of range": 8, "missing picture": 1}
    assert report.render() == (
        "class out of range: 8\n"
        "  a.txt:1: class 3; dropped\n"
        "  a.txt:2: class 4; dropped\n"
        "  a.txt:3: class 5; dropped\n"
        "  a.txt:4: class 6; dropped\n"
        "  a.txt:5: class 7; dropped\n"
        "  ... and 3 more\n"
        "missing picture: 1\n"
        "  b.jpg: left out"
    )


def test_an_empty_report_renders_to_nothing_and_raises_nothing():
    report = Report()
    report.raise_if_any()
    assert report.render() == ""
    assert report.counts == report.notes == {}
    assert report.entries("anything") == ()


def test_notes_are_shown_but_do_not_raise():
    report = Report()
    report.note("background", 3)
    report.note("background", 0)
    report.note("empty label file", file="c.txt", message="background")
    report.raise_if_any()
    assert report.notes == {"background": 3, "empty label file": 1}
    assert report.render() == (
        "note: background: 3\nnote: empty label file: 1\n  c.txt: background"
    )


def test_strict_raises_the_whole_report():
    report = Report()
    report.add("missing picture", "b.jpg", None, "left out")
    report.add_uncited("missing picture", 2)
    with pytest.raises(ValueError, match=r"3 problems.*strict(.|\n)*b\.jpg: left out"):
        report.raise_if_any()


def test_merging_adds_counts_and_keeps_five_entries():
    first, second = Report(), Report()
    for line in range(1, 5):
        first.add("kind", "a", line, "x")
        second.add("kind", "b", line, "x")
    second.add("other", "b", None, "y")
    second.note("background", 2)
    first.merge(second)
    assert first.counts == {"kind": 8, "other": 1}
    assert first.notes == {"background": 2}
    shown = [(entry.file, entry.line) for entry in first.entries("kind")]
    assert shown == [("a", 1), ("a", 2), ("a", 3), ("a", 4), ("b", 1)]
    assert second.counts == {"kind": 4, "other": 1}


def test_a_name_that_is_not_valid_text_can_be_printed():
    report = Report()
    report.add("missing picture", "caf\udce9.jpg", None, "left out")
    assert "caf\\udce9.jpg" in report.render()
    report.render().encode("utf-8")
