"""The cases of users' COCO files."""

import shutil

import numpy as np
import pytest

from tests.shared import shared
from yolojax.data.sources.coco import CocoSource

# The true boxes of the cases, and what their classes are called.
A, B = ("car", [10, 10, 50, 60]), ("bus", [90, 40, 150, 110])


@pytest.fixture
def read(tmp_path):
    """A function that copies a case and reads one of its files."""

    def read_copy(name, file, images="img"):
        copy = tmp_path / name
        if not copy.exists():
            shutil.copytree(shared("cases", name), copy)
        data = copy / "data"
        return CocoSource(images=str(data / images), annotations=str(data / file))

    return read_copy


def boxes_of(source):
    """Class and corners of each box, by the image's file name."""
    return {
        example.name.rsplit("/", 1)[1]: [
            (source.class_names[label], np.rint(box).astype(int).tolist())
            for label, box in zip(example.labels, example.boxes, strict=True)
        ]
        for example in source
    }


@pytest.mark.parametrize(
    "file, message",
    [
        ("annotation_is_list", r"annotations\[0\] is a list, expected an object"),
        ("categories_are_texts", r"categories\[0\] is a text, expected an object"),
        ("image_id_is_list", r"image_id of annotations\[0\] is a list, expected a who"),
        ("image_is_text", r"images\[0\] is a text, expected an object .*'a\.jpg'"),
    ],
)
def test_coco_crashes(read, file, message):
    with pytest.raises(ValueError, match=rf"{file}\.json: {message}") as error:
        read("coco_crashes", f"{file}.json")
    assert "\n" not in str(error.value)


def test_coco_crashes_mixed_categories_are_the_same_numbers(read):
    source = read("coco_crashes", "categories_mixed.json")
    assert boxes_of(source) == {"a.jpg": [A], "b.jpg": [B]}
    assert source.category_ids == (1, 2)
    assert source.report.render() == ""


def test_coco_iscrowd_text(read):
    source = read("coco_iscrowd_text", "a.json")
    assert boxes_of(source) == {"a.jpg": [A], "b.jpg": [B]}
    assert not any(example.crowd.any() for example in source)
    assert source.report.render() == ""


def test_coco_lvis_no_file_name(read):
    source = read("coco_lvis_no_file_name", "a.json")
    assert boxes_of(source) == {"a.jpg": [A], "b.jpg": [B]}
    assert source.report.counts == {}
    assert source.report.notes == {"image without file_name, named by its URL": 2}


def test_coco_one_file_two_ids(read):
    source = read("coco_one_file_two_ids", "a.json", "images")
    assert boxes_of(source) == {"frame000066.png": [A]}
    assert [example.image_id for example in source] == [1]
    assert source.report.counts == {"image file named by two records": 1}
    (entry,) = source.report.entries("image file named by two records")
    assert "frame000066.png is the file of the image ids 1 and 51" in entry.message


@pytest.mark.parametrize(
    "file, ids",
    [
        ("a", ["0000001_02999_d_0000001", "0000001_02999_d_0000002"]),
        ("annotations_only", [1, 2]),
        ("category_only", [1, 2]),
    ],
)
def test_coco_string_ids(read, file, ids):
    source = read("coco_string_ids", f"{file}.json")
    assert boxes_of(source) == {"a.jpg": [A], "b.jpg": [B]}
    assert [example.image_id for example in source] == ids
    assert source.report.render() == ""
