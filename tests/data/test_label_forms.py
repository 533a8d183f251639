"""What lines of more than five numbers are taken for, by all lines of a set."""

import numpy as np
import pytest

from yolojax.data.report import Report
from yolojax.data.sources.label_forms import Said, decide, survey
from yolojax.data.sources.label_lines import UNCLEAR, WRONG_NUMBER, parse_labels

# Centre and size of the boxes A and B, and their corners, as shares.
A, B = "0.1875 0.291667 0.25 0.416667", "0.75 0.625 0.375 0.583333"
CORNERS_A = (0.0625, 0.083333, 0.3125, 0.5)
CORNERS_B = (0.5625, 0.333333, 0.9375, 0.916667)


def read(*files, said=Said()):  # noqa: B008
    """The corners of each line, and the report, of files given by their text."""
    report = Report()
    forms = decide(survey(files), said)
    found = [
        line
        for number, text in enumerate(files)
        for line in parse_labels(text, f"{number}.txt", 3, report, forms)
    ]
    return [line.corners for line in found], report


def is_a_and_b(corners):
    return np.allclose(corners, [CORNERS_A, CORNERS_B], atol=1e-5)


@pytest.mark.parametrize(
    "files",
    [
        (f"0 {A} 0.91 1", f"1 {B} 0.91 2"),
        (f"0 {A} 1 0.91", f"1 {B} 2 0.91"),
        (f"0 {A} 0.91 1", f"1 {B} 0.88 1"),
        (f"0 {A} 0.91 0\n1 {B} 0.35 7",),
        (f"0 {A} 0.91 -1", f"1 {B} 0.91 12"),
        (f"0 {A} 0.91", f"1 {B} 0.91"),
        (f"0 {A} 0.91\n1 {B} 0.5",),
        (f"0 {A} 1\n1 {B} 2",),
        (f"0 0.91 {A}", f"1 0.4 {B}"),
        (f"0 1 0.91 {A}", f"1 2 0.9 {B}"),
        (f"0 3 {A} 0.91", f"1 4 {B} 0.9"),
        (f"0 {A} 0.91", f"1 {B} 0.91 2"),
    ],
    ids=[
        "confidence and id",
        "id and confidence",
        "the same id twice",
        "in one file",
        "id -1",
        "confidence",
        "confidence in one file",
        "id",
        "confidence first",
        "id and confidence first",
        "id before, confidence after",
        "a box without id",
    ],
)
def test_boxes_of_predictions_and_trackers_are_taken(files):
    corners, report = read(*files)
    assert is_a_and_b(corners)
    assert report.counts == {}
    assert report.notes == {
        "label line with a confidence or track id, which is not used": 2
    }


POINTS = {
    "5 points with marks": (
        "0.1 0.2 2 0.2 0.3 2 0.15 0.25 1 0 0 0 0.3 0.4 2",
        "0.6 0.5 2 0.7 0.6 2 0.8 0.7 2 0.9 0.8 1 0.7 0.9 2",
    ),
    "2 points with marks": ("0.1 0.2 1 0.2 0.3 1", "0.6 0.5 1 0.7 0.6 0"),
    "4 points and confidences": (
        "0.1 0.2 .9 0.2 0.3 .8 0.15 0.25 .7 0.3 0.4 .5",
        "0.6 0.5 .9 0.7 0.6 .8 0.8 0.7 .7 0.9 0.8 .6",
    ),
    "3 points": ("0.1 0.2 0.2 0.3 0.15 0.25", "0.6 0.5 0.7 0.6 0.8 0.7"),
}


@pytest.mark.parametrize("name", ["5 points with marks", "2 points with marks"])
def test_key_points_with_marks_are_known_without_being_said(name):
    first, second = POINTS[name]
    corners, report = read(f"0 {A} {first}", f"1 {B} {second}")
    assert is_a_and_b(corners)
    assert report.notes == {"label line with key points, which are not used": 2}


@pytest.mark.parametrize("name", POINTS)
def test_several_lines_show_that_they_have_key_points(name):
    first, second = POINTS[name]
    files = (f"0 {A} {first}", f"1 {B} {second}") * 4
    corners, report = read(*files)
    assert len(corners) == 8 and is_a_and_b(corners[:2])
    assert report.notes == {"label line with key points, which are not used": 8}


@pytest.mark.parametrize("name", POINTS)
def test_key_points_that_are_said_are_known_from_one_line(name):
    first, second = POINTS[name]
    said = Said(point_fields=len(first.split()))
    text = f"0 {A} {first}\n1 {B}\n1 {B} 0.5"
    corners, report = read(text, said=said)
    assert is_a_and_b(corners)
    assert report.counts == {WRONG_NUMBER: 1}
    assert read(f"0 {A} {first}\n1 {B} {second}", said=Said(key_points=True))[0]


def test_key_points_without_marks_are_not_guessed_from_two_lines():
    first, second = POINTS["3 points"]
    corners, report = read(f"0 {A} {first}", f"1 {B} {second}")
    assert corners == []
    assert report.counts == {UNCLEAR: 2}


@pytest.mark.parametrize(
    "line",
    [
        f"0 {A} 0.91 1",
        f"0 {A} 0.2 0.3",
        f"0 {A} 0.1 0.2 0.2 0.3",
        "0 0.2 0.3 0.3 0.3 0.25 0.35 0.2 0.4 0.21 0.35",
    ],
    ids=["an id or a point", "a point or two", "two points", "five points"],
)
def test_a_single_line_that_fits_several_meanings_is_dropped(line):
    corners, report = read(f"1 {B}\n{line}")
    assert len(corners) == 1
    assert report.counts == {UNCLEAR: 1}
    (entry,) = report.entries(UNCLEAR)
    assert (entry.file, entry.line) == ("0.txt", 2)
    assert "task: segment" in entry.message and entry.message.endswith("dropped")


def test_the_data_set_may_say_that_lines_are_polygons():
    line = "0 0.2 0.3 0.3 0.3 0.25 0.35 0.2 0.4 0.21 0.35"
    corners, report = read(line, said=Said(polygons=True))
    np.testing.assert_allclose(corners, [(0.2, 0.3, 0.3, 0.4)])
    assert report.render() == ""


def test_polygons_that_are_said_are_not_believed_of_track_ids():
    files = (f"0 {A} 0.91 1", f"1 {B} 0.91 1")
    corners, report = read(*files, said=Said(polygons=True))
    assert corners == [] and report.counts == {UNCLEAR: 2}


@pytest.mark.parametrize(
    "lines, expected",
    [
        (
            ["0 .2 .3 .3 .3 .25 .4", "0 .2 .3 .3 .3 .3 .4 .2 .5"],
            [(0.2, 0.3, 0.3, 0.4), (0.2, 0.3, 0.3, 0.5)],
        ),
        (["1 .1 .1 .3 .1 .3 .4 .1 .4"], [(0.1, 0.1, 0.3, 0.4)]),
        (["1 .2 .1 .4 .3 .3 .4 .1 .2"], [(0.1, 0.1, 0.4, 0.4)]),
        (["1 .1 .1 .3 .1 .3 .4 .1 .4 .1 .1"], [(0.1, 0.1, 0.3, 0.4)]),
        (["0 .1 .5 .3 .2 .2 .9"], [(0.1, 0.2, 0.3, 0.9)]),
        (["0 .9 .8 .8 .9 .85 .95 .7 .9 .75 .8"], [(0.7, 0.8, 0.9, 0.95)]),
        (["0 0 0 1 0 1 1 0 1", "0 0 0 1 0 1 1 0 1"], [(0, 0, 1, 1)] * 2),
    ],
    ids=[
        "several lengths",
        "upright rectangle",
        "turned rectangle",
        "closed rectangle",
        "triangle that is no box",
        "five points that are no box",
        "the whole image",
    ],
)
def test_polygons_are_taken_where_nothing_else_fits(lines, expected):
    corners, report = read("\n".join(lines))
    np.testing.assert_allclose(corners, expected, atol=1e-6)
    assert report.render() == ""


def test_quadrilaterals_of_small_objects_all_over_the_image_are_polygons():
    rng = np.random.default_rng(0)
    centres = rng.uniform(0.1, 0.9, (40, 1, 2))
    corners = centres + rng.uniform(0.005, 0.02, (40, 4, 2)) * [
        [-1, -1],
        [1, -1],
        [1, 1],
        [-1, 1],
    ]
    lines = [f"0 {' '.join(map(str, quad.ravel()))}" for quad in corners]
    found, report = read("\n".join(lines))
    expected = np.concatenate([corners.min(1), corners.max(1)], axis=1)
    np.testing.assert_allclose(found, expected)
    assert report.render() == ""


def test_one_bad_line_does_not_turn_key_points_into_polygons():
    first, second = POINTS["3 points"]
    files = [f"0 {A} {first}", f"1 {B} {second}"] * 20
    corners, report = read(*files, f"0 0.9 0.5 0.5 0.2 {first}", f"0 {A} 0.1 0.2")
    assert is_a_and_b(corners[:2])
    assert report.notes == {"label line with key points, which are not used": 41}
    assert report.counts == {UNCLEAR: 1}


@pytest.mark.parametrize(
    "line, came",
    [
        (f"0 {A} 0.91", 6),
        (f"0 {A} 0.91 0.2 0.3", 8),
        (f"0 {A} 0.2 0.3 0.1 0.3 0.7", 10),
    ],
)
def test_an_even_number_of_fields_beside_plain_boxes_is_dropped(line, came):
    corners, report = read(f"1 {B}\n{line}")
    assert len(corners) == 1
    assert report.counts == {WRONG_NUMBER: 1}
    assert f"came {came};" in report.entries(WRONG_NUMBER)[0].message


@pytest.mark.parametrize(
    "files",
    [
        ("0 0.3 0.3 0.2 0.2 0.9", "1 0.4 0.4 0.2 0.3 1.4"),
        ("0 0.5 0.5 0.2 0.3 0.4", "1 0.5 0.4 0.3 0.3 0.4"),
        ("0 0.5 0.5 0.2 0.2 45\n1 0.3 0.3 0.2 0.2 45",),
        ("0 320 240 50 60 0.9", "1 100 100 20 20 0.8"),
    ],
    ids=["an angle", "a box in two places", "degrees", "pixels"],
)
def test_six_fields_that_are_not_clearly_a_box_are_dropped(files):
    corners, report = read(*files)
    assert corners == []
    assert report.counts == {WRONG_NUMBER: 2}


def test_polygons_with_a_value_outside_are_dropped_and_not_clipped():
    text = "0 .2 .3 .3 .3 .25 .4\n0 .2 .3 .3 .3 .3 .4 .2 .5\n1 .2 .3 1.5 .3 .3 .4 .2 .5"
    corners, report = read(text)
    assert len(corners) == 2
    assert report.counts == {"coordinates that are not shares of the picture": 1}


@pytest.mark.parametrize(
    "line",
    [
        f"0,{A.replace(' ', ',')}",
        f"0, {A.replace(' ', ', ')},",
        f"0;{A.replace(' ', ';')}",
        f"0\t{A.replace(' ', chr(9))}",
        f"0e0 {A}",
        f"-0.0 {A}",
        f"  0  {A} \x0b",
    ],
    ids=["commas", "comma at the end", "semicolons", "tabs", "0e0", "-0", "spaces"],
)
def test_other_separators_and_spellings_of_numbers_are_read(line):
    corners, report = read(line)
    np.testing.assert_allclose(corners, [CORNERS_A], atol=1e-5)
    assert report.render() == ""


@pytest.mark.parametrize(
    "line, kind",
    [
        (f"{A} # car", "label line that is not numbers"),
        (f"0 {A} car", "label line that is not numbers"),
        ("0 0,5 0,5 0,2 0,2", "label line that is not numbers"),
        ("0;0,5;0,5;0,2;0,2", "label line that is not numbers"),
        ("0 0.5 0.5 0.2 0_1", "label line that is not numbers"),
        ("0 \0.5 0.5 0.2 0.1", "label line that is not numbers"),
        ("0 0.5 0.5 0.2 1e999", "label line that is not finite"),
        ("1e400 0.5 0.5 0.2 0.2", "label line that is not finite"),
        ("9" * 400 + " 0.5 0.5 0.2 0.2", "label line that is not finite"),
        ("1e99 0.5 0.5 0.2 0.2", "class out of range"),
        ("-1 0.5 0.5 0.2 0.2", "class out of range"),
        ("0 320 240 50 60", "coordinates that are not shares of the picture"),
        ("0,0,1,0,1,0,1,0,1,1", WRONG_NUMBER),
        ("0", WRONG_NUMBER),
    ],
)
def test_what_is_no_label_is_one_short_line(line, kind):
    corners, report = read(line)
    assert corners == []
    assert report.counts == {kind: 1}
    assert len(report.render()) < 300


def test_a_line_of_four_million_characters_is_one_report_line():
    long = "0" + " 0.3 0.4" * 500_000 + " 0.1 0.2"
    corners, report = read(long, "7" * 4_000_000)
    assert corners == []
    assert sum(report.counts.values()) == 2
    assert len(report.render()) < 1000
