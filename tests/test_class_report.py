"""The report on a classifier: which files, and what they say."""

import json

import numpy as np
import pytest

from yolojax import class_report
from yolojax.data.sources.labelled import whole_picture

NAMES = ("ant", "bee", "cat")


class Painted:
    """Grey pictures with the given labels."""

    def __init__(self, labels, *, multi_label=False):
        self.multi_label = multi_label
        self._labels = labels

    def __getitem__(self, index):
        labels = np.array(self._labels[index], np.int32)
        image = np.full((12, 16, 3), 20 * index, np.uint8)
        name = f"folder/{index}.png"
        return whole_picture(
            image, labels, image_id=100 + index, size=(12, 16), name=name
        )


def read(path):
    return json.loads(path.read_text())


def files_of(lines):
    paths = [path for line in lines for path in line.split(":")[0].split(", ")]
    return [path for path in paths if "." in path]


def test_a_report_has_numbers_plots_and_the_surest_mistakes_first(tmp_path):
    source = Painted([[0], [1], [2], [], [2], [1]])
    keep = [4, 1, 0, 3, 5]  # labels 2 1 0 none 1
    rows = np.array(
        [[0.5, 0.3, 0.2], [0.1, 0.8, 0.1], [0, 0.1, 0.9], [1, 0, 0], [0.4, 0.4, 0.2]]
    )
    conditions = {"weights": "x"}
    lines = class_report.write_report(
        rows, source, keep, NAMES, tmp_path, conditions=conditions
    )
    found = read(tmp_path / "evaluation.json")
    assert found["accuracy"] == 1 / 4 and found["num_pictures"] == 4
    assert found["confusion"] == [[0, 0, 1], [1, 1, 0], [1, 0, 0]]
    assert found["per_class"]["bee"]["recall"] == 1 / 2
    assert found["confused"][0] == {"label": "ant", "prediction": "cat", "pictures": 1}
    bins = found["reliability"]
    assert sum(row["predictions"] for row in bins) == found["num_pictures"]
    assert found["evaluated"] == conditions
    wrong = read(tmp_path / "mistakes.json")
    assert [row["image_id"] for row in wrong] == [100, 104, 105]
    assert wrong[1] == {
        "name": "folder/4.png",
        "image_id": 104,
        "labels": ["cat"],
        "class": "ant",
        "probability": 0.5,
    }
    files = files_of(lines)
    assert {"evaluation.json", "mistakes.json", "plots/confused.png"} <= set(files)
    assert all((tmp_path / name).stat().st_size for name in files)
    assert len(files) == sum(path.is_file() for path in tmp_path.rglob("*"))


def test_a_report_on_several_labels(tmp_path):
    source = Painted([[0, 2], [], [1]], multi_label=True)
    rows = np.array([[0.9, 0.2, 0.1], [0.3, 0.6, 0.1], [0.2, 0.7, 0.1]])
    lines = class_report.write_report(rows, source, range(3), NAMES, tmp_path)
    found = read(tmp_path / "evaluation.json")
    assert found["accuracy"] == 1 / 3 and "confusion" not in found
    # Bee comes first where it is, at .7; cat last of three equal ones.
    assert found["per_class"]["bee"]["average_precision"] == 1
    assert found["per_class"]["cat"]["average_precision"] == pytest.approx(1 / 3)
    wrong = read(tmp_path / "mistakes.json")
    assert [(row["image_id"], row["class"], row["missed"]) for row in wrong] == [
        (100, "cat", True),
        (101, "bee", False),
    ]
    assert all((tmp_path / name).is_file() for name in files_of(lines))


@pytest.mark.parametrize("multi_label", [False, True])
def test_a_perfect_classifier_has_no_mistakes(tmp_path, multi_label):
    source = Painted([[0], [1], [2]], multi_label=multi_label)
    lines = class_report.write_report(np.eye(3), source, range(3), NAMES, tmp_path)
    assert read(tmp_path / "mistakes.json") == []
    assert "mistakes.json: none" in lines
    assert not (tmp_path / "plots" / "mistakes.png").exists()


def test_a_set_without_labels_has_a_distribution_of_predictions(tmp_path):
    source = Painted([[], []])
    rows = np.array([[0.2, 0.3, 0.5], [np.nan, 0, 0]])
    class_report.write_report(rows, source, range(2), NAMES, tmp_path)
    assert read(tmp_path / "evaluation.json")["accuracy"] is None
    assert (tmp_path / "plots" / "classes.png").is_file()


def test_lengths_must_agree(tmp_path):
    with pytest.raises(ValueError, match=r"2 pictures of 3 classes.*\[2, 2\]"):
        class_report.write_report(
            np.zeros((2, 2)), Painted([[0], [1]]), range(2), NAMES, tmp_path
        )


def test_names_that_occur_twice_get_their_label():
    assert class_report.distinct(("a", "b", "a")) == ["a (0)", "b", "a (2)"]


def test_the_data_are_drawn(tmp_path):
    source = Painted([[0], [1, 2], []])
    parts = {"train": (source, range(3)), "val": (source, [0])}
    line = class_report.draw_data(parts, NAMES, tmp_path)
    assert (tmp_path / line.split(":")[0]).is_file()


def test_pictures_of_high_loss_are_drawn_and_listed(tmp_path):
    source = Painted([[0], [1, 2], []])
    examples = [source[i] for i in (1, 2)]
    class_report.draw_losses(examples, [3.0, 0.5], NAMES, tmp_path)
    rows = read(tmp_path / "worst.json")
    assert [row["labels"] for row in rows] == [["bee", "cat"], []]
    assert [(row["image_id"], row["loss"]) for row in rows] == [(101, 3.0), (102, 0.5)]
    assert (tmp_path / "plots" / "worst.png").is_file()
