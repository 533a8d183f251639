"""The cases of YOLO sets, and of hostile YAML files.

True boxes of the cases are A, of class 0, and B, of class 1.
"""

import os
import shutil

import cv2
import numpy as np
import pytest

from tests.shared import shared
from yolojax.data.sources.yolo import YoloSource

A, B = [10, 10, 50, 60], [90, 40, 150, 110]


@pytest.fixture
def case(tmp_path):
    """A function that copies a case and gives its folder."""

    def copy(name):
        return shutil.copytree(shared("cases", name), tmp_path / name)

    return copy


def read(data, yaml="data.yaml", split="train"):
    """The source, and the class and rounded corners of each box by its image's name."""
    source = YoloSource(yaml=str(data / yaml), split=split)
    boxes = {
        os.path.basename(example.name): [
            (source.class_names[label], np.rint(box).astype(int).tolist())
            for label, box in zip(example.labels, example.boxes, strict=True)
        ]
        for example in source
    }
    return source, boxes


BOTH = {"a.jpg": [("car", A)], "b.jpg": [("bus", B)]}


@pytest.mark.parametrize("yaml", ["data.yaml", "list.yaml"])
def test_yolo_backslashes(case, yaml):
    source, boxes = read(case("yolo_backslashes") / "data", yaml)
    assert boxes == BOTH
    assert source.report.render() == ""


def test_yolo_conf_and_track_id(case):
    source, boxes = read(case("yolo_conf_and_track_id") / "data")
    assert boxes == BOTH
    assert source.report.counts == {}
    assert source.report.notes == {
        "label line with a confidence or track id, which is not used": 2
    }


def test_yolo_label_file_names(case):
    source, boxes = read(case("yolo_label_file_names") / "data")
    assert boxes == {
        "ok.jpg": [("bus", B)],
        "readme_sign.jpg": [("bus", B)],
        "test.jpg": [("car", A)],
        "upper.jpg": [("car", A)],
        "same.jpg": [("car", A)],
        "same.png": [("car", A)],
    }
    assert source.report.counts == {}
    (entry,) = source.report.entries("label file of several images")
    assert entry.file.endswith("same.txt") and "same.jpg, same.png" in entry.message


def test_yolo_list_utf16(case):
    source, boxes = read(case("yolo_list_utf16") / "data")
    assert boxes == BOTH
    assert source.report.render() == ""


def test_yolo_names_bool(case):
    data = case("yolo_names_bool") / "data"
    source, boxes = read(data)
    assert source.class_names == ("yes", "no")
    assert boxes == {"a.jpg": [("yes", A)], "b.jpg": [("no", B)]}


@pytest.mark.parametrize(
    "names, expected",
    [
        ("[on, Off]", ("on", "Off")),
        ("{0: no, 1: y}", ("no", "y")),
        ("[08, 012]", ("08", "012")),
        ("[null, ~]", ("null", "~")),
        ("[12:30, 1_000]", ("12:30", "1_000")),
        ("[0x1F, 1e3]", ("0x1F", "1e3")),
        ("\n  - 2020-01-01\n  - 1.50", ("2020-01-01", "1.50")),
        ("\n  1: 'true'\n  0: \"null\"", ("null", "true")),
    ],
)
def test_names_are_the_text_that_stands_there(case, names, expected):
    data = case("yolo_names_bool") / "data"
    (data / "data.yaml").write_text(f"train: images/train\nnames: {names}\nnc: 2\n")
    assert read(data)[0].class_names == expected


@pytest.mark.parametrize(
    "name, message",
    [
        ("y_laughs_names", r"line 4: aliases \(\*a0\) are not read"),
        ("y_deep", "nested deeper than 20"),
        ("y_inf_keys", "the keys of names must be 0 to 0 .* they are .inf"),
    ],
)
def test_hostile_yaml(case, name, message):
    file = case("hostile_yaml") / name / "data.yaml"
    write_one_image(file.parent)
    with pytest.raises(ValueError, match=message) as caught:
        YoloSource(yaml=str(file))
    assert str(caught.value).startswith(str(file))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def write_one_image(root):
    (root / "images").mkdir()
    image = cv2.imencode(".png", np.zeros((120, 160, 3), np.uint8))[1]
    (root / "images/a.png").write_bytes(image)
    (root / "images/a.txt").write_text("0 0.1875 0.291667 0.25 0.416667")


@pytest.mark.parametrize(
    "yaml, message",
    [
        ("train: images\nnames: {[a, b]: x}", "line 2: a key must be a word"),
        ("train: images\nnames: {? {a: b} : x}", "line 2: a key must be a word"),
        ("train: images\nnames: [[a], {b: c}]", "the name of class 0 must be a word"),
        ("train: images\nnames: {-1: a}", "keys of names must be 0 to 0 .* are -1"),
        ("train: images\nnames: {1e999: a}", "keys of names must be 0 to 0"),
        ("train: images\nnames: {0_0: a}", "keys of names must be 0 to 0"),
        ("train: images\nnames: [a]\nnc: [1]", r"nc: \['1'\], but lists 1"),
        ("train: images\nnames: [a]\nnc: .inf", "nc: .inf, but lists 1"),
        ("train: images\nnames: [a]\npath: [x]", r"path must be a folder, not \['x'\]"),
        ("train: {a: b}\nnames: [a]", "train must be a folder, a list of folders"),
        ("train: [[images]]\nnames: [a]", "train must be a folder, a list of folders"),
        ("train: images\ntrain: other\nnames: [a]", "'train' stands there twice"),
        ("train: images\n<<: {names: [a]}", "line 2: merge keys"),
        ("train: images\nnames: !!python/name:os.system ''", "line 2: tags"),
        ("train: images\nnames: [a\x00]", r"line 2 has '\\x00'"),
        ("train: " + "x" * 9000 + "\nnames: [a]", "does not exist"),
        ("{" * 20_000, "nested deeper than 20"),
        ('names: [a]\ntrain: "im\\0ages"', "does not exist"),
    ],
    ids=lambda value: value[:30],
)
def test_yaml_of_odd_values_is_one_line_that_names_the_file(tmp_path, yaml, message):
    write_one_image(tmp_path)
    file = tmp_path / "data.yaml"
    file.write_text(yaml)
    with pytest.raises(ValueError, match=message) as caught:
        YoloSource(yaml=str(file))
    assert str(caught.value).startswith(str(file))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 2000


def test_yaml_with_empty_values_is_read(tmp_path):
    write_one_image(tmp_path)
    text = "path: null\ntrain: images\nval: ~\ntest:\nnc:\nnames: [car]\n"
    (tmp_path / "data.yaml").write_text(text)
    assert read(tmp_path)[1] == {"a.png": [("car", A)]}
    with pytest.raises(ValueError, match="no split 'val'; it has train"):
        YoloSource(yaml=str(tmp_path / "data.yaml"), split="val")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-8-sig"])
def test_yaml_and_labels_in_the_encodings_that_windows_writes(case, encoding):
    data = case("yolo_list_utf16") / "data"
    (data / "data.yaml").write_bytes(
        "train: train.txt\nnames: [Löwe, bus]\n".encode(encoding)
    )
    for name in ("train.txt", "labels/train/a.txt", "labels/train/b.txt"):
        text = (data / name).read_bytes()
        text = text.decode("utf-16" if name == "train.txt" else "utf-8")
        (data / name).write_bytes(text.replace("\n", "\r\n").encode(encoding))
    boxes = read(data)[1]
    assert boxes == {"a.jpg": [("Löwe", A)], "b.jpg": [("bus", B)]}


def test_a_yaml_too_large_or_in_no_known_encoding_is_one_line(tmp_path):
    file = tmp_path / "data.yaml"
    with file.open("wb") as stream:
        stream.truncate(50_000_000)
    with pytest.raises(ValueError, match="cannot be read: 50,000,000 bytes; at most"):
        YoloSource(yaml=str(file))
    file.write_bytes("names: [汽车]".encode("gbk"))
    with pytest.raises(ValueError, match="data.yaml cannot be read: not UTF-8 text"):
        YoloSource(yaml=str(file))
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(ValueError, match="no data.yaml at .*data.yaml"):
        YoloSource(yaml=str(file))
