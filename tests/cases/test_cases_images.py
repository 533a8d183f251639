"""The cases of users' images and videos."""

import shutil

import numpy as np
import pytest

from tests.shared import shared
from yolojax.data import heic, media
from yolojax.data.check import scan
from yolojax.data.report import Report
from yolojax.data.sources.yolo import YoloSource


@pytest.fixture
def case(tmp_path):
    """A function that copies a case's folder and gives its data."""

    def copy(name):
        shutil.copytree(shared("cases", name), tmp_path / name)
        return tmp_path / name / "data"

    return copy


@pytest.fixture
def without_heif(monkeypatch):
    """As if pillow-heif were not installed."""
    monkeypatch.setattr(heic, "is_available", lambda: False)


def test_pictures_heic_in_predict(case, without_heif):
    items = media.expand_sources([str(case("pictures_heic") / "mix")])
    assert sorted(item.path.name for item in items) == [
        *("IMG_2.HEIC", "IMG_3.heic", "a.jpg", "sat.jp2")
    ]
    report = Report()
    read = [media.read_image(item, report) is not None for item in items]
    assert sum(read) == 1
    assert report.counts == {"unreadable image": 3}
    lines = {
        entry.file.rsplit("/")[-1]: entry.message
        for entry in report.entries("unreadable image")
    }
    assert lines["sat.jp2"] == "not read: JPEG 2000; convert it to JPEG; left out"
    for name in ("IMG_2.HEIC", "IMG_3.heic"):
        assert lines[name].startswith("not read: HEIC; convert it to JPEG or install ")


def test_pictures_heic_in_a_yolo_set(case, without_heif):
    data = case("pictures_heic") / "yolo"
    source = YoloSource(yaml=str(data / "data.yaml"))
    report, keep = scan(source)
    (example,) = (source[int(index)] for index in keep)
    assert example.name.endswith("a.jpg")
    report.merge(source.report)
    assert report.counts == {"unreadable picture": 1}
    (entry,) = report.entries("unreadable picture")
    assert entry.file.endswith("images/train/b.HEIC")
    assert entry.message.startswith("not read: HEIC; convert it to JPEG")


def test_videos_suffixes(case):
    data = case("videos_suffixes")
    items = media.expand_sources([str(data)])
    assert sorted(item.path.name for item in items) == [
        *("a.mp4", "f.flv", "m.mts", "p.3gp", "s.ts", "t.m2ts", "w.asf", "w.wmv")
    ]
    for item in items:
        assert item.kind == "video"
        (alone,) = media.expand_sources([str(item.path)])
        assert alone.kind == "video"
        report = Report()
        with media.Video(item.path) as video:
            frames = list(video.frames(report))
        assert len(frames) == 5
        assert np.shape(frames[0])[2] == 3
        assert not report.counts
