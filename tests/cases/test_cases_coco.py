"""The cases of users' COCO files."""

import json
import shutil

import numpy as np
import pytest

from tests.shared import shared
from tests.tiny import tiny_config
from yolojax import class_file, inference, settings
from yolojax.data.sources.coco import CocoSource
from yolojax.engine import checkpoint
from yolojax.models.detector import build_model

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


@pytest.mark.slow
def test_coco_string_ids_are_those_of_the_predictions(read, tmp_path):
    read("coco_string_ids", "a.json")
    data = tmp_path / "coco_string_ids" / "data"
    content = json.loads((data / "a.json").read_text())
    for record in (*content["categories"], *content["annotations"]):
        key = "category_id" if "category_id" in record else "id"
        record[key] = {1: "c1", 2: "c2"}[record[key]]
    (data / "texts.json").write_text(json.dumps(content))
    given = {"source": "coco", "images": str(data / "img")}
    given["annotations"] = str(data / "texts.json")
    chosen = tiny_config(data__train=given, data__val=given, model__num_classes=2)
    settings.write_config(chosen, tmp_path / "run")
    class_file.write_classes(["car", "bus"], ["c1", "c2"], tmp_path / "run")
    model = build_model(**chosen["model"])
    checkpoint.save_weights(tmp_path / "run", model.init(0))
    loaded = inference.load(tmp_path / "run")
    assert loaded.category_ids == ("c1", "c2")
    metrics = inference.evaluate_detector(loaded, tmp_path / "out")
    assert metrics["counts"]["boxes"] == 2
    rows = json.loads((tmp_path / "out" / "predictions.json").read_text())
    images = {record["id"] for record in content["images"]}
    assert {row["image_id"] for row in rows} == images
    assert {row["category_id"] for row in rows} <= {"c1", "c2"}
