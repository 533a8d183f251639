import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from tests.shared import shared
from yolojax.data import check
from yolojax.data.check import scan, summary
from yolojax.data.report import Report
from yolojax.data.sources.voc import VocSource
from yolojax.records import Example


class Listed:
    """Pictures of given paths or pixels, each with the boxes of `labels`."""

    class_names = ("cat", "dog")
    category_ids = (0, 1)

    def __init__(self, images, size=(20, 30), labels=(0,)):
        self.images, self.size, self.labels = images, size, labels
        self.report = Report()

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        count = len(self.labels)
        return Example(
            image=self.images[index],
            boxes=np.tile(np.float32([1, 1, 9, 9]), (count, 1)),
            labels=np.array(self.labels, np.int32),
            crowd=np.zeros(count, bool),
            areas=np.full(count, 64, np.float32),
            image_id=index,
            size=self.size,
            name=f"picture {index}",
        )


@pytest.fixture
def paths(tmp_path):
    """Five pictures of 20 x 30 that differ."""
    found = []
    for index in range(5):
        path = tmp_path / f"{index}.jpg"
        pixels = np.full((20, 30, 3), 40 * index, np.uint8)
        path.write_bytes(cv2.imencode(".jpg", pixels)[1].tobytes())
        found.append(str(path))
    return found


def cut(path):
    with open(path, "rb") as file:
        data = file.read()
    with open(path, "wb") as file:
        file.write(data[: len(data) - 30])


def test_good_pictures_are_all_kept(paths):
    seen = []
    report, keep = scan(Listed(paths), progress=lambda *done: seen.append(done))
    assert report.render() == ""
    assert keep.dtype == np.int64 and keep.tolist() == [0, 1, 2, 3, 4]
    assert seen[-1] == (5, 5)


def test_damaged_and_missing_pictures_are_named_and_left_out(paths, tmp_path):
    cut(paths[1])
    (tmp_path / "3.jpg").unlink()
    report, keep = scan(Listed(paths))
    assert keep.tolist() == [0, 2, 4]
    assert report.counts == {"unreadable picture": 2}
    first, second = report.entries("unreadable picture")
    assert str(first).startswith("picture 1: damaged JPEG")
    assert str(second) == "picture 3: No such file or directory; left out"


def test_headers_alone_do_not_show_damaged_pixels(paths):
    cut(paths[1])
    _, keep = scan(Listed(paths), decode=False)
    assert len(keep) == 5


@pytest.mark.parametrize("decode", [True, False])
def test_a_size_unlike_the_labels_is_reported_and_left_out(paths, decode):
    image = Image.fromarray(np.zeros((30, 20, 3), np.uint8))
    image.save(paths[2])
    Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(paths[4])
    report, keep = scan(Listed(paths), decode=decode)
    assert keep.tolist() == [0, 1, 3]
    turned, other = report.entries("size that differs from the labels'")
    assert "say 30 x 20, the picture shows 20 x 30: turned, as by" in turned.message
    assert "the picture shows 60 x 40; left out" in other.message


def test_copies_are_counted_and_kept(paths, tmp_path):
    (tmp_path / "2.jpg").write_bytes((tmp_path / "0.jpg").read_bytes())
    report, keep = scan(Listed(paths))
    assert len(keep) == 5
    assert report.counts == {}
    assert report.notes == {"picture given twice": 1}
    (entry,) = report.entries("picture given twice")
    assert str(entry) == "picture 2: has the same bytes as picture 0; both are kept"


def test_pictures_of_another_part_are_told(paths, tmp_path):
    digests = {}
    scan(Listed(paths), digests=digests)
    assert sorted(digests.values()) == [f"picture {i}" for i in range(len(paths))]
    copy = tmp_path / "copy.png"
    copy.write_bytes(Path(paths[1]).read_bytes())
    new = tmp_path / "new.png"
    cv2.imwrite(str(new), np.full((20, 30, 3), 99, np.uint8))
    val = [str(new), str(copy)]
    report, keep = scan(Listed(val), digests=digests)
    assert len(keep) == 2 and report.notes == {"picture of another part": 1}
    (entry,) = report.entries("picture of another part")
    told = "picture 1: has the same bytes as picture 1 of another part of the data"
    assert str(entry) == told
    assert len(digests) == len(paths) + 1
    # A part that shares nothing, and no other part.
    assert not scan(Listed(val))[0].notes


def test_pictures_that_the_source_makes_are_taken_as_good():
    pixels = np.zeros((20, 30, 3), np.uint8)
    report, keep = scan(Listed([pixels, pixels]))
    assert keep.tolist() == [0, 1]
    assert report.render() == ""


def test_no_usable_picture_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"none of the 2 pictures(.|\n)*No such file"):
        scan(Listed([str(tmp_path / "a"), str(tmp_path / "b")]))


def test_a_second_scan_reads_only_what_changed(paths, tmp_path, monkeypatch):
    cut(paths[1])
    cache = tmp_path / "run" / "scan.json"
    first, keep = scan(Listed(paths), cache_path=cache)
    read = []
    decode = check.decode_picture
    monkeypatch.setattr(
        check,
        "decode_picture",
        lambda data, **options: (read.append(1), decode(data, **options))[1],
    )
    second, again = scan(Listed(paths), cache_path=cache)
    assert read == []
    assert second.render() == first.render() != ""
    np.testing.assert_array_equal(again, keep)
    cut(paths[4])
    third, fewer = scan(Listed(paths), cache_path=cache)
    assert len(read) == 1
    assert fewer.tolist() == [0, 2, 3]
    assert third.counts == {"unreadable picture": 2}


def test_what_was_not_decoded_is_decoded_when_asked_for(paths, tmp_path):
    cut(paths[1])
    cache = tmp_path / "scan.json"
    assert len(scan(Listed(paths), cache_path=cache, decode=False)[1]) == 5
    assert len(scan(Listed(paths), cache_path=cache)[1]) == 4
    # And the fuller finding serves a scan that asks for less.
    assert len(scan(Listed(paths), cache_path=cache, decode=False)[1]) == 4


def test_two_data_sets_share_a_cache(paths, tmp_path):
    cache = tmp_path / "scan.json"
    scan(Listed(paths[:2]), cache_path=cache)
    scan(Listed(paths[2:]), cache_path=cache)
    assert set(json.loads(cache.read_text())["pictures"]) == set(paths)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *(f"{n}.jpg" for n in range(5)),
        "scan.json",
    ]


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"format": "mine 1"}'])
def test_a_file_that_is_not_our_cache_is_not_overwritten(paths, tmp_path, text):
    path = tmp_path / "notes.json"
    path.write_text(text)
    with pytest.raises(ValueError, match="notes.json is not a file that an earlier"):
        scan(Listed(paths), cache_path=path)
    assert path.read_text() == text


TORN = {
    "empty": "",
    "null": "null",
    "list": "[]",
    "object": "{}",
    "cut": '{"format": "yolojax scan',
    "deep": "[" * 100_000,
    "no pictures": json.dumps({"format": check.CACHE_FORMAT}),
    "other types": json.dumps({"format": check.CACHE_FORMAT, "pictures": {"a": 1}}),
}


@pytest.mark.parametrize("text", TORN.values(), ids=TORN)
def test_a_damaged_cache_of_a_run_is_made_anew(paths, tmp_path, text):
    path = tmp_path / "scan_train.json"
    path.write_text(text)
    assert len(scan(Listed(paths), cache_path=path)[1]) == 5
    assert len(json.loads(path.read_text())["pictures"]) == 5


def test_a_changed_size_in_a_cache_is_not_believed(paths, tmp_path):
    path = tmp_path / "scan_train.json"
    expected = scan(Listed(paths), cache_path=path)[1].tolist()
    content = json.loads(path.read_text())
    for finding in content["pictures"].values():
        finding[3] = [1, 1]
    path.write_text(json.dumps(content))
    report, keep = scan(Listed(paths), cache_path=path)
    assert keep.tolist() == expected and "1x1" not in report.render()
    found = json.loads(path.read_text())["pictures"].values()
    assert all(finding[3] != [1, 1] for finding in found)


def test_a_cache_of_another_version_is_replaced(paths, tmp_path):
    path = tmp_path / "scan.json"
    path.write_text('{"format": "yolojax scan 0", "pictures": {"a": []}}')
    scan(Listed(paths), cache_path=path)
    assert json.loads(path.read_text())["format"] == check.CACHE_FORMAT


def test_summary_counts_what_is_kept(paths):
    text = summary(Listed(paths, labels=(1, 1, 0)), [0, 3])
    lines = [line.split() for line in text.splitlines()]
    assert ["pictures", "2,", "0", "of", "them", "without", "a", "box"] in lines
    assert "boxes          6, at most 3 in a picture; 0 crowds apart" in text
    assert "6 small, 0 medium, 0 large" in text
    assert "30 x 20 (2)" in text
    assert lines[-2:] == [["0", "cat", "2", "2"], ["1", "dog", "4", "2"]]


def test_summary_of_pictures_without_boxes(paths):
    text = summary(Listed(paths, labels=()), np.arange(5))
    assert "5, 5 of them without a box" in text


def test_the_cut_kangaroo_is_left_out():
    source = VocSource(root=str(shared("data", "hostile", "kangaroo_voc")))
    report, keep = scan(source)
    assert keep.tolist() == [0, 2]
    assert report.counts == {"unreadable picture": 1}
    assert "00090.jpg" in report.render()


def test_summary_of_classes_has_pictures_and_no_boxes(paths):
    source = Listed(paths, labels=(1,))
    source.multi_label = False
    lines = summary(source, [0, 3, 4]).splitlines()
    assert [line.split() for line in lines[-3:]] == [
        ["class", "pictures"],
        ["0", "cat", "0"],
        ["1", "dog", "3"],
    ]
    assert lines[0].split() == "pictures 3, 0 of them without a label".split()
    assert "30 x 20 (3) (width x height)" in lines[1] and len(lines) == 6
    several = Listed(paths, labels=(0, 1))
    several.multi_label = True
    text = summary(several, [0, 3])
    assert "4, at most 2 of a picture" in text
    nothing = Listed(paths, labels=())
    nothing.multi_label, nothing.class_names = False, ()
    assert (
        summary(nothing, [1]).splitlines()[0].endswith("1, 1 of them without a label")
    )


def test_encoded_bytes_are_read_like_files(paths):
    images = [Path(path).read_bytes() for path in paths]
    images[1] = images[1][: len(images[1]) - 30]
    images[3] = b"no picture"
    report, keep = scan(Listed(images))
    assert keep.tolist() == [0, 2, 4]
    assert report.counts == {"unreadable picture": 2}
    assert "picture 3: " in report.render()
    # Headers alone do not show what is cut off.
    assert scan(Listed(images), decode=False)[1].tolist() == [0, 1, 2, 4]
