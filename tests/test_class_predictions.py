"""Tables and pictures of what a classifier says of files."""

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.test_classifying import known
from yolojax import class_predictions, predicting
from yolojax.classifying import ClassPredictor
from yolojax.data import media
from yolojax.data.media import MediaItem


def items_of(names):
    return [MediaItem(Path(n), "image", str(i)) for i, n in enumerate(names)]


@pytest.mark.parametrize(
    "names, expected",
    [
        (["9.jpg", "10.jpg", "100.png"], ["009", "010", "100"]),
        (["0001.jpg", "0002.jpg"], ["0001", "0002"]),
        (["-1_017.jpg", "-1_004.jpg"], ["017", "004"]),
        (["cat.jpg", "1.jpg"], ["1", "2"]),
        (["a/1.jpg", "b/01.jpg"], ["1", "2"]),
        ([f"x{i}y.jpg" for i in range(11)], [f"{i:02}" for i in range(1, 12)]),
        (["a٣.jpg"], ["1"]),
        ([], []),
    ],
    ids="numbers padded course names equal places digits nothing".split(),
)
def test_ids_are_numbers_of_one_width(names, expected):
    ids, rule = class_predictions.padded_ids(items_of(names))
    assert ids == expected
    repeated = names[:1] == ["a/1.jpg"]
    assert ("two names end with one number" in rule) == repeated
    assert ("not all names end" in rule) == (
        names[:1] in (["cat.jpg"], ["x0y.jpg"], ["a٣.jpg"])
    )


def test_rows_have_the_best_classes_and_the_probability_of_each():
    names = ["a", "b", "c,d", "e", "f", "g"]
    [header, row] = class_predictions.prediction_rows(
        items_of(["x.jpg"]),
        np.array([[0.1, 0.05, 0.5, 0.2, 0.11, 0.04]], np.float32),
        names,
        several=False,
    )
    table = dict(zip(header, row, strict=True))
    assert (table["file"], table["class"]) == ("x.jpg", "c,d")
    assert table["probability"] == table["p(c,d)"] == "0.500000"
    assert [table[f"class_{i}"] for i in range(2, 6)] == ["e", "f", "a", "b"]
    assert table["probability_5"] == "0.050000" and "class_6" not in table
    assert table["p(g)"] == "0.040000"
    many = [str(i) for i in range(101)]
    [header, _] = class_predictions.prediction_rows(
        items_of(["x.jpg"]), np.zeros((1, 101), np.float32), many, several=False
    )
    assert header[-1] == "probability_5"


def test_pictures_with_several_labels_have_those_above_a_half():
    items = items_of(["1.jpg", "2.jpg"])
    found = np.array([[0.6, 0.2, 0.7], [0.1, 0.2, 0.3]], np.float32)
    names = ["a", "b", "c"]
    rows = class_predictions.prediction_rows(items, found, names, several=True)
    table = [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]
    assert [row["classes"] for row in table] == ["a;c", ""]
    assert (table[0]["class_1"], table[0]["probability_1"]) == ("c", "0.700000")
    assert (table[0]["class_2"], table[0]["probability_2"]) == ("a", "0.600000")
    assert "class" not in table[0] and table[1]["p(c)"] == "0.300000"
    rows = class_predictions.submission_rows(items, items, found, names, several=True)
    assert rows == [["Id", "Category"], ["1", "a c"], ["2", ""]]


def write(path, colour):
    # OpenCV has blue first.
    cv2.imwrite(str(path), np.full((16, 16, 3), colour[::-1], np.uint8))


def classified(sources, output, **options):
    predict = ClassPredictor([known()], batch_size=2)
    items = media.expand_sources([str(s) for s in sources])
    return class_predictions.predict_pictures(
        predict, known(), items, output, **options
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("pictures")
    for number, colour in enumerate([(250, 0, 0), (0, 250, 0), (0, 0, 250)]):
        write(root / f"{9 + number}.png", colour)
    (root / "12.png").write_bytes(b"no picture")
    (root / "13.mp4").write_bytes(b"no film")
    return root


def test_files_are_classified_in_their_order(folder, tmp_path):
    seen = []
    found = classified(
        [folder],
        tmp_path,
        submission=True,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert [item.path.name for item in found.items] == ["9.png", "10.png", "11.png"]
    assert found.report.counts == {"video": 1, "unreadable image": 1}
    assert seen == [(2, 4), (4, 4)]
    assert (tmp_path / "submission.csv").read_text() == (
        "Id,Category\n09,red\n10,green\n11,blue\n"
    )
    with (tmp_path / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [Path(row["file"]).name for row in rows] == ["9.png", "10.png", "11.png"]
    assert [row["class"] for row in rows] == ["red", "green", "blue"]
    expected = np.exp(4 * 250 / 255) / (np.exp(4 * 250 / 255) + 2)
    assert abs(float(rows[0]["probability"]) - expected) < 1e-5
    made = sorted(path.name for path in tmp_path.iterdir())
    tables = ["predictions.csv", "predictions.png", "submission.csv"]
    assert made == ["10.jpg", "11.jpg", "9.jpg", *tables]
    assert (
        "submission.csv: 3 rows of Id,Category; an Id is the number that a file's name "
        "ends with; 1 unreadable, without a row; videos do not count" in found.lines
    )


def test_many_files_are_not_drawn_one_by_one(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(class_predictions, "SHEET", 2)
    shown = {}
    monkeypatch.setattr(
        class_predictions, "_save_sheet", lambda p, c: shown.update({p.name: c})
    )
    write(folder / "8.png", (30, 20, 10))
    classified([folder / f"{n}.png" for n in (11, 10, 9, 8)], tmp_path, drawn=False)
    assert not list(tmp_path.glob("*.jpg"))
    assert [cell.place for cell in shown["predictions.png"]] == [0, 1]
    # The picture that is nearly grey is the least sure; the others are alike.
    assert [cell.place for cell in shown["unsure.png"]] == [3, 0]
    (folder / "8.png").unlink()


def test_only_videos_are_refused(folder, tmp_path):
    with pytest.raises(ValueError, match="13.mp4 is a video: a classifier takes pict"):
        classified([folder / "13.mp4"], tmp_path)


class Flag:
    def __init__(self, value, present):
        self.value, self.present = value, present


class Given(dict):
    """Flags of the command, as absl has them."""

    def __init__(self, **given):
        names = {**predicting.DETECTOR_FLAGS, **predicting.CLASSIFIER_FLAGS}
        super().__init__({n: Flag(given.get(n), n in given) for n in names})

    def __getattr__(self, name):
        return self[name].value


@pytest.mark.parametrize(
    "flag, kind, message",
    [
        ("views", "detect", "--views is for classifiers, not for detectors; .*augment"),
        ("submission", "detect", "--submission is for classifiers, not for detectors"),
        ("augment", "classify", "--augment is for detectors, .*classifiers have --vie"),
        ("merge", "classify", "--merge is for detectors, not for classifiers$"),
    ],
)
def test_flags_of_the_other_kind_are_refused(flag, kind, message, tmp_path):
    predict = getattr(predicting, kind)
    with pytest.raises(ValueError, match=message):
        predict([], [], tmp_path, Given(**{flag: 1}), None)
    predicting.check_kind(Given(), kind == "classify")


def test_flags_are_checked_before_anything_is_loaded():
    with pytest.raises(ValueError, match="no merge named 'wbv'. Did you mean 'wbf'"):
        predicting.check_flags(Given(merge="wbv"))
    with pytest.raises(ValueError, match="are those of --views: give it, too"):
        predicting.check_flags(Given(seed=3))
    predicting.check_flags(Given(seed=3, views=2, merge="nms"))
