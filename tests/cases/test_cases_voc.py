"""The cases of users' data that come as VOC, or with links."""

import os
import shutil

import numpy as np
import pytest

from tests.shared import shared
from yolojax.data.sources.voc import VocSource
from yolojax.data.sources.yolo import YoloSource


@pytest.fixture
def case(tmp_path):
    """A function that copies a case's folder, links as links, and gives its data."""

    def copy(name):
        folder = shared("cases", name)
        shutil.copytree(folder, tmp_path / name, symlinks=True)
        return tmp_path / name / "data"

    return copy


def boxes_of(source, data):
    """Class and rounded corners of each box, by the picture's path in the data."""
    return {
        os.path.relpath(example.name, data): [
            (source.class_names[label], np.rint(box).astype(int).tolist())
            for label, box in zip(example.labels, example.boxes, strict=True)
        ]
        for example in source
    }


def test_yolo_symlinked_subfolder(case):
    data = case("yolo_symlinked_subfolder")
    link = data / "images/train/day2"
    if not link.is_symlink():  # what copies without links leave: a file with its target
        target = link.read_text()
        link.unlink()
        link.symlink_to(target)
    source = YoloSource(yaml=str(data / "data.yaml"))
    assert boxes_of(source, data) == {
        "images/train/a.jpg": [("car", [10, 10, 50, 60])],
        "images/train/day2/b.jpg": [("bus", [90, 40, 150, 110])],
    }
    assert source.report.render() == ""


def test_voc_gbk(case):
    data = case("voc_gbk")
    source = VocSource(root=str(data))
    assert boxes_of(source, data) == {
        "JPEGImages/a.jpg": [("汽车", [10, 10, 50, 60])],
        "JPEGImages/b.jpg": [("汽车", [90, 40, 150, 110])],
    }
    assert source.report.render() == ""


def test_voc_name_ends_with_1(case):
    data = case("voc_name_ends_with_1")
    source = VocSource(root=str(data))
    assert boxes_of(source, data) == {
        "JPEGImages/photo 1.jpg": [("car", [10, 10, 50, 60])],
        "JPEGImages/photo.jpg": [("car", [90, 40, 150, 110])],
        "JPEGImages/photo 2.jpg": [("car", [10, 10, 50, 60])],
    }
    assert source.report.render() == ""
