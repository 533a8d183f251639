"""The cases where users' files, or the names in what is written, are at stake."""

import hashlib
import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from tests.shared import shared
from yolojax import inference, outputs, predicting, settings
from yolojax.data import media
from yolojax.data.report import Report
from yolojax.data.sources.coco import CocoSource
from yolojax.data.sources.yolo import YoloSource
from yolojax.datasets import Data
from yolojax.engine import evaluate, sharding
from yolojax.metrics.detection import GroundTruth
from yolojax.records import Detections
from yolojax.vis import video

# What the detector finds on every image.
BOX, SCORE, LABEL = (10.0, 10.0, 50.0, 60.0), 0.75, 1


@pytest.fixture
def case(tmp_path):
    """A function that copies a case's folder and gives its data."""

    def copy(name):
        shutil.copytree(shared("cases", name), tmp_path / name)
        return tmp_path / name / "data"

    return copy


class Finder:
    """Finds the same on every image."""

    batch_size = 2

    def __call__(self, images):
        one = np.float32([BOX]), np.int32([LABEL]), np.float32([SCORE])
        return [one] * len(images)


def loaded(class_names=("car", "bus"), category_ids=(0, 1)):
    return inference.Loaded(
        settings=settings.complete({}),
        model=None,  # type: ignore[arg-type]
        variables={},
        class_names=class_names,
        category_ids=category_ids,
        mesh=sharding.make_mesh(1),
        step=0,
    )


def predicted(folder, output, **more):
    """The rows of predictions.json that `predict` writes."""
    items = media.expand_sources([str(folder)])
    _, report = predicting.predict_media(Finder(), loaded(**more), items, output)
    assert not report.counts
    return json.loads((output / "predictions.json").read_text(encoding="utf-8"))


def evaluated(source, output, **more):
    """The rows of predictions.json that `evaluate` writes."""
    data = Data(source, np.arange(len(source)), Report())
    count = len(source)
    found = Detections(
        boxes=np.float32([[BOX]] * count),
        scores=np.float32([[SCORE]] * count),
        labels=np.int32([[LABEL]] * count),
        valid=np.ones((count, 1), bool),
    )
    truth = GroundTruth.from_source(source, data.keep)
    metrics, results = evaluate.evaluate_found([(data.keep, found)], truth)
    inference.write_evaluation(metrics, results, output, loaded(**more), data, {})
    return json.loads((output / "predictions.json").read_text(encoding="utf-8"))


class Given:
    """Flags of `predict`."""

    def __init__(self, **flags):
        usual = {name: None for name in predicting.DECIDING}
        usual |= {"submission": False, "draw": None, "overwrite": False}
        self._flags = {"weights": ["run"], "output": "runs/predict", **usual, **flags}
        self._present = flags

    def __getattr__(self, name):
        return self._flags[name]

    def __getitem__(self, name):
        return SimpleNamespace(value=self._flags[name], present=name in self._present)


def claimed(source, classifies=False, **flags):
    given = Given(source=[str(source)], **flags)
    items = media.expand_sources(given.source)
    return predicting.claim_output(given, items, classifies)


def digests(folder):
    return {
        path.name: hashlib.md5(path.read_bytes()).hexdigest()
        for path in sorted(folder.iterdir())
    }


SOURCES = {
    "a.jpg": "4137134ca8f049245e9feb393e203040",
    "b.jpg": "41d17f367a02ce91dcfcc45f739de68e",
}


@pytest.mark.parametrize("classifies", [False, True])
def test_predict_overwrites_source(case, classifies):
    data = case("predict_overwrites_source")
    for overwrite in (False, True):
        with pytest.raises(
            ValueError, match=r"a\.jpg is read and would be written ove"
        ):
            claimed(data, classifies, output=str(data), overwrite=overwrite, draw=True)
    assert digests(data) == SOURCES
    # Another folder is fine, and so is the next run of the same command.
    for _ in range(2):
        assert claimed(data, classifies, output=str(data / "out")) == data / "out"
        write_drawn(data / "out", data)
    (data / "out" / outputs.RECORD).unlink()
    assert {path.name for path in (data / "out").iterdir()} >= {"a.jpg", "b.jpg"}


def write_drawn(output, source):
    for path in source.glob("*.jpg"):
        shutil.copy(path, output / path.name)


def test_a_source_is_safe_below_and_above_the_output_and_behind_links(tmp_path):
    (tmp_path / "in" / "deep").mkdir(parents=True)
    write_images(tmp_path / "in" / "deep" / "er", ["a.jpg"])
    source = tmp_path / "in" / "deep" / "er"
    # A photograph of the same name above the sources is nobody's to replace, either.
    shutil.copy(source / "a.jpg", tmp_path / "in" / "a.jpg")
    with pytest.raises(
        ValueError, match=r"in/a\.jpg would be replaced, but is from el"
    ):
        claimed(source, output=str(tmp_path / "in"))
    assert claimed(source, output=str(tmp_path / "in"), overwrite=True)
    (tmp_path / "link").symlink_to(source)
    with pytest.raises(ValueError, match="is read and would be written over"):
        claimed(source, output=str(tmp_path / "link"), overwrite=True)
    (tmp_path / "list.txt").write_text(f"{source}/a.jpg\n")
    with pytest.raises(ValueError, match="is read and would be written over"):
        claimed(tmp_path / "list.txt", output=str(source))


@pytest.mark.parametrize("name", ["a.MP4", "a.avi"])
def test_videos_are_sources_as_well(name, tmp_path):
    film = tmp_path / "a.mp4"
    frames = (np.full((48, 64, 3), value, np.uint8) for value in (0, 90, 180))
    video.write_video(film, frames, 5.0)
    if name != "a.avi":
        with pytest.raises(ValueError, match=r"a\.mp4 is read and would be written ov"):
            claimed(film, output=str(tmp_path), overwrite=True)
        return
    # Drawn it would be a.mp4, which is another film.
    shutil.copy(film, tmp_path / name)
    with pytest.raises(
        ValueError, match=r"a\.mp4 would be replaced, but is from elsew"
    ):
        claimed(tmp_path / name, output=str(tmp_path))


def test_predictions_of_another_run_stay(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / "in", ["a.jpg"])
    for weights, folder in (("one", "runs/predict"), ("two", "runs/predict-2")):
        for _ in range(2):
            output = claimed("in", weights=[weights])
            assert str(output) == folder
            (output / "predictions.json").write_text("[]")
    with pytest.raises(ValueError, match=r"weights\[0\] .*/one, now .*/two"):
        claimed("in", weights=["two"], output="runs/predict")


def test_evaluate_yolo_ids(case, tmp_path):
    data = case("evaluate_yolo_ids")
    source = YoloSource(yaml=str(data / "data.yaml"), split="val")
    rows = evaluated(source, tmp_path / "evaluated")
    assert rows == [
        {
            "image_id": number,
            "category_id": 1,
            "bbox": [10.0, 10.0, 40.0, 50.0],
            "score": 0.75,
            "category_name": "bus",
            "file_name": str(data / f"images/val/000000000{number}.jpg"),
        }
        for number in (139, 140)
    ]
    assert predicted(data / "images/val", tmp_path / "predicted") == rows


def write_images(folder, names):
    """Grey images of 60 x 80 pixels."""
    folder.mkdir(parents=True)
    _, content = cv2.imencode(".jpg", np.full((80, 60, 3), 99, np.uint8))
    for name in names:
        (folder / name).write_bytes(content.tobytes())


NOT_UTF8 = os.fsdecode(b"caf\xe9.jpg")


@pytest.mark.parametrize(
    "names, expected",
    [
        (["img10.jpg", "img2.jpg", "cat.jpg"], ["cat", "img2", "img10"]),
        (["7.jpg", "07.jpg"], ["07", "7"]),
        (["8.jpg", "99999999999999999999.jpg"], ["8", "99999999999999999999"]),
        (["b.jpg", NOT_UTF8], ["b", NOT_UTF8[:-4]]),
    ],
    ids=["natural order", "equal numbers", "beyond 64 bits", "not UTF-8"],
)
def test_places_are_the_ids_where_names_are_no_different_numbers(
    names, expected, tmp_path
):
    folder = tmp_path / "data" / "images"
    write_images(folder, names)
    (tmp_path / "data" / "labels").mkdir()
    for name in names:
        label = (tmp_path / "data" / "labels" / name).with_suffix(".txt")
        label.write_text("1 0.5 0.4375 0.6666667 0.625\n")
    yaml = tmp_path / "data" / "data.yaml"
    yaml.write_text("train: images\nval: images\nnames: [car, bus]\n")
    source = YoloSource(yaml=str(yaml), split="val")
    rows = sorted(evaluated(source, tmp_path / "out"), key=lambda row: row["image_id"])
    assert [(row["image_id"], row["file_name"]) for row in rows] == [
        (place, str(folder / f"{stem}.jpg"))
        for place, stem in enumerate(expected, start=1)
    ]
    assert predicted(folder, tmp_path / "predicted") == rows
    # Nothing is lost on the way to the disk and back.
    assert all(Path(row["file_name"]).is_file() for row in rows)
    drawn = {path.name for path in (tmp_path / "predicted").glob("*.jpg")}
    assert len(drawn) == len(names)


def test_ids_and_categories_of_coco_stay_those_of_its_annotations(tmp_path):
    folder = tmp_path / "images"
    write_images(folder, ["1.jpg", "2.jpg"])
    content = {
        "images": [
            {"id": 900 + i, "file_name": f"{i}.jpg", "height": 80, "width": 60}
            for i in (1, 2)
        ],
        "categories": [{"id": 5, "name": "car"}, {"id": 9, "name": "bus"}],
        "annotations": [
            {"id": 1, "image_id": 901, "category_id": 9, "bbox": [10, 10, 40, 50]}
        ],
    }
    (tmp_path / "a.json").write_text(json.dumps(content))
    source = CocoSource(images=str(folder), annotations=str(tmp_path / "a.json"))
    rows = evaluated(source, tmp_path / "out", category_ids=(5, 9))
    assert [(r["image_id"], r["category_id"], r["category_name"]) for r in rows] == [
        (901, 9, "bus"),
        (902, 9, "bus"),
    ]
    assert [r["file_name"] for r in rows] == [str(folder / f"{i}.jpg") for i in (1, 2)]
