import os
import re

import cv2
import numpy as np
import pytest
from PIL import Image

from tests.shared import shared
from yolojax.data.sources import make_source
from yolojax.data.sources.yolo import YoloSource


def write_picture(path, height=100, width=200):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".png", np.zeros((height, width, 3), np.uint8))[1])


def make_set(
    root, labels, split="train", yaml="train: images/train\nnames: [cat, dog]"
):
    """A data set of one picture a label text; None is a picture without a file."""
    (root / "labels" / split).mkdir(parents=True)
    for index, text in enumerate(labels):
        write_picture(root / "images" / split / f"{index}.png")
        if text is not None:
            data = text if isinstance(text, bytes) else text.encode()
            (root / "labels" / split / f"{index}.txt").write_bytes(data)
    (root / "data.yaml").write_text(yaml)
    return str(root / "data.yaml")


def test_shares_become_pixels(tmp_path):
    source = YoloSource(yaml=make_set(tmp_path, ["1 0.5 0.5 0.25 0.5\n0 .1 .1 .1 .2"]))
    example = source[0]
    np.testing.assert_allclose(
        example.boxes, [[75, 25, 125, 75], [10, 0, 30, 20]], atol=1e-4
    )
    assert example.labels.tolist() == [1, 0]
    np.testing.assert_allclose(example.areas, [2500, 400], rtol=1e-5)
    assert not example.crowd.any()
    assert example.size == (100, 200)
    assert example.image_id == 0
    assert example.image == str(tmp_path / "images/train/0.png")
    dtypes = [a.dtype for a in (example.boxes, example.labels, example.crowd)]
    assert dtypes == [np.float32, np.int32, np.bool_]
    assert source.class_names == ("cat", "dog") and source.category_ids == (0, 1)
    assert source.report.render() == ""


def test_index_runs_from_either_end_and_stops(tmp_path):
    source = YoloSource(yaml=make_set(tmp_path, ["0 .5 .5 .1 .1", "1 .5 .5 .1 .1"]))
    assert source[-1].labels.tolist() == [1]
    assert [len(example.labels) for example in source] == [1, 1]
    with pytest.raises(IndexError):
        source[2]


def test_a_polygon_becomes_its_enclosing_box(tmp_path):
    source = YoloSource(yaml=make_set(tmp_path, ["0 0.1 0.5 0.3 0.2 0.2 0.9"]))
    np.testing.assert_allclose(source[0].boxes, [[20, 20, 60, 90]], atol=1e-4)


def test_size_is_the_shown_one_where_exif_turns_the_picture(tmp_path):
    yaml = make_set(tmp_path, ["0 0.5 0.5 1 0.5"])
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.fromarray(np.zeros((100, 200, 3), np.uint8))
    image.save(tmp_path / "images/train/0.png", exif=exif)
    example = YoloSource(yaml=yaml)[0]
    assert example.size == (200, 100)
    np.testing.assert_allclose(example.boxes, [[0, 50, 100, 150]], atol=1e-4)


@pytest.mark.parametrize(
    "text",
    [
        b"\xef\xbb\xbf1 .5 .5 .2 .2",
        b"\r\n1 .5 .5 .2 .2\r\n\r\n",
        b"  1\t.5  .5 .2 .2  ",
        b"1.0 .5 .5 2e-1 +.2",
        "1 .5 .5 .2 .2\n".encode("utf-16"),
        b"1 .5 .5 .2 .2\r",
    ],
    ids=["mark", "crlf", "spaces", "float class", "utf-16", "cr"],
)
def test_sloppy_but_clear_text_is_read(tmp_path, text):
    source = YoloSource(yaml=make_set(tmp_path, [text]))
    np.testing.assert_allclose(source[0].boxes, [[80, 40, 120, 60]], atol=1e-4)
    assert source[0].labels.tolist() == [1]
    assert source.report.counts == {}


@pytest.mark.parametrize(
    "line, kind, message",
    [
        ("0 .5 .5 .2", "label line with the wrong number of fields", "came 4"),
        ("0 .5 .5 .2 .2 .9", "label line with the wrong number of fields", "came 6"),
        ("0 .5 .5 .2 x", "label line that is not numbers", "came '0 .5 .5 .2 x'"),
        ("0 .5 nan .2 .2", "label line that is not finite", "expected finite"),
        ("0 .5 inf .2 .2", "label line that is not finite", "expected finite"),
        ("nan .5 .5 .2 .2", "label line that is not finite", "expected finite"),
        ("2 .5 .5 .2 .2", "class out of range", r"class 2, .* 2 classes \(0 to 1\)"),
        ("-1 .5 .5 .2 .2", "class out of range", "class -1"),
        ("0.5 .5 .5 .2 .2", "class out of range", "class 0.5"),
        ("0 320 240 50 60", "coordinates that are not shares of the picture", "0 to 1"),
        (
            "0 .5 .5 0 0",
            "box without area",
            "100 50 100 50 px in a picture of 200 x 100",
        ),
        ("0 .5 .5 .2 -.2", "box with corners out of order", "x1 < x2"),
        ("0 1.5 .5 .2 .2", "box outside its picture", "280 40 320 60"),
        ("0 .25 .5 .5 .5", "box given twice", "each box once"),
    ],
)
def test_a_bad_line_is_dropped_and_reported_with_its_line(
    tmp_path, line, kind, message
):
    good = "0 .25 .5 .5 .5"
    source = YoloSource(yaml=make_set(tmp_path, [f"{good}\n\n{line}\n1 .5 .5 .2 .2"]))
    np.testing.assert_allclose(
        source[0].boxes, [[0, 25, 100, 75], [80, 40, 120, 60]], atol=1e-4
    )
    assert source.report.counts == {kind: 1}
    (entry,) = source.report.entries(kind)
    assert entry.file == str(tmp_path / "labels/train/0.txt")
    assert entry.line == 3
    assert re.search(message, entry.message)
    assert entry.message.endswith("dropped")


def test_the_same_box_in_another_class_or_picture_is_no_repeat(tmp_path):
    texts = ["0 .5 .5 .2 .2\n1 .5 .5 .2 .2", "0 .5 .5 .2 .2"]
    source = YoloSource(yaml=make_set(tmp_path, texts))
    assert [len(example.labels) for example in source] == [2, 1]
    assert source.report.counts == {}


def test_overshoot_by_rounding_is_clipped_and_only_counted(tmp_path):
    # 0.8 px over at the left, 1.5 px of 200 (under 1 %) over at the right.
    texts = ["0 .046 .5 .1 .5", "0 .9575 .5 .1 .5"]
    source = YoloSource(yaml=make_set(tmp_path, texts))
    np.testing.assert_allclose(source[0].boxes, [[0, 25, 19.2, 75]], atol=1e-4)
    np.testing.assert_allclose(source[1].boxes, [[181.5, 25, 200, 75]], atol=1e-4)
    assert source.report.counts == {}
    assert source.report.notes == {"box clipped by a rounding error": 2}


def test_a_box_that_juts_out_further_is_clipped_and_reported(tmp_path):
    source = YoloSource(yaml=make_set(tmp_path, ["0 .05 .5 .2 .5"]))
    np.testing.assert_allclose(source[0].boxes, [[0, 25, 30, 75]], atol=1e-4)
    (entry,) = source.report.entries("box partly outside its picture")
    assert "-10 25 30 75" in entry.message and entry.message.endswith("clipped")


def test_pictures_without_a_box_are_background_and_no_fault(tmp_path):
    source = YoloSource(yaml=make_set(tmp_path, ["0 .5 .5 .1 .1", "", None, " \n"]))
    assert [len(example.boxes) for example in source] == [1, 0, 0, 0]
    assert source[1].boxes.shape == (0, 4)
    assert source.report.counts == {}
    assert source.report.notes == {
        "empty label file": 2,
        "picture without a label file (background)": 1,
    }


def test_labels_without_a_picture_are_reported_but_not_class_lists(tmp_path):
    yaml = make_set(tmp_path, ["0 .5 .5 .1 .1"])
    (tmp_path / "labels/train/ghost.txt").write_text("0 .5 .5 .1 .1")
    (tmp_path / "labels/train/classes.txt").write_text("cat\ndog")
    source = YoloSource(yaml=yaml)
    assert source.report.counts == {"label without a picture": 1}
    assert source.report.entries("label without a picture")[0].file.endswith(
        "ghost.txt"
    )


def test_unreadable_pictures_and_label_files_are_left_out(tmp_path):
    yaml = make_set(tmp_path, ["0 .5 .5 .1 .1", "0 .5 .5 .1 .1", b"\xff\x00\x81\n"])
    (tmp_path / "images/train/0.png").write_bytes(b"<html>")
    source = YoloSource(yaml=yaml)
    assert [os.path.basename(e.name) for e in source] == ["1.png"]
    assert source.report.counts == {"unreadable picture": 1, "unreadable label file": 1}
    (entry,) = source.report.entries("unreadable picture")
    assert entry.message.startswith("not a picture of a known format")


def test_hidden_files_are_left_out_and_counted(tmp_path):
    yaml = make_set(tmp_path, ["0 .5 .5 .1 .1"])
    write_picture(tmp_path / "images/train/._0.png")
    source = YoloSource(yaml=yaml)
    assert len(source) == 1
    assert source.report.notes["hidden file left out"] == 1


def test_names_may_be_a_dict_in_any_order(tmp_path):
    yaml = "train: images/train\nnc: 2\nnames:\n  1: dog\n  0: cat"
    source = YoloSource(yaml=make_set(tmp_path, ["1 .5 .5 .1 .1"], yaml=yaml))
    assert source.class_names == ("cat", "dog")


def test_a_split_may_be_a_list_of_folders(tmp_path):
    yaml = make_set(tmp_path, ["0 .5 .5 .1 .1"])
    write_picture(tmp_path / "images/more/deep/x.png")
    (tmp_path / "labels/more/deep").mkdir(parents=True)
    (tmp_path / "labels/more/deep/x.txt").write_text("1 .5 .5 .1 .1")
    (tmp_path / "data.yaml").write_text(
        "train: [images/train, images/more, images/train]\nnames: [cat, dog]"
    )
    source = YoloSource(yaml=yaml)
    assert [example.labels.tolist() for example in source] == [[0], [1]]


@pytest.mark.parametrize("prefix", ["./", "", "absolute"])
def test_a_split_may_be_a_list_of_pictures(tmp_path, prefix):
    yaml = make_set(tmp_path, ["0 .5 .5 .1 .1", "1 .5 .5 .1 .1", "0 .5 .5 .1 .1"])
    start = f"{tmp_path}/" if prefix == "absolute" else prefix
    lines = [f"{start}images/train/1.png", "", f"{start}images/train/9.png"]
    (tmp_path / "some.txt").write_text("\n".join(lines))
    (tmp_path / "data.yaml").write_text("val: some.txt\nnames: [cat, dog]")
    source = YoloSource(yaml=yaml, split="val")
    assert [example.labels.tolist() for example in source] == [[1]]
    # The labels of the pictures outside the list belong to another split.
    assert source.report.counts == {"missing picture": 1}
    assert source.report.entries("missing picture")[0].line == 3


def test_the_last_images_folder_of_a_path_becomes_labels(tmp_path):
    root = tmp_path / "images" / "set"
    root.mkdir(parents=True)
    source = YoloSource(yaml=make_set(root, ["0 .5 .5 .1 .1"]))
    assert len(source[0].labels) == 1


def test_labels_may_lie_beside_the_pictures(tmp_path):
    write_picture(tmp_path / "all/0.png")
    (tmp_path / "all/0.txt").write_text("1 .5 .5 .1 .1")
    (tmp_path / "data.yaml").write_text("train: all\nnames: [cat, dog]")
    source = YoloSource(yaml=str(tmp_path / "data.yaml"))
    assert source[0].labels.tolist() == [1]


def test_path_and_root_say_where_the_splits_start(tmp_path):
    yaml = "path: set\ntrain: images/train\nnames: [cat, dog]"
    make_set(tmp_path / "set", ["0 .5 .5 .1 .1"])
    (tmp_path / "data.yaml").write_text(yaml)
    assert len(YoloSource(yaml=str(tmp_path / "data.yaml"))) == 1
    (tmp_path / "elsewhere.yaml").write_text(
        "path: /nowhere\n" + yaml.split("\n", 1)[1]
    )
    elsewhere = str(tmp_path / "elsewhere.yaml")
    assert len(YoloSource(yaml=elsewhere, root=str(tmp_path / "set"))) == 1
    with pytest.raises(ValueError, match="train.*images/train does not exist; looked"):
        YoloSource(yaml=elsewhere)
    with pytest.raises(ValueError, match="no folder .*nix, given as root"):
        YoloSource(yaml=elsewhere, root=str(tmp_path / "nix"))


def test_an_exporters_wrong_parent_folder_is_mended_and_noted(tmp_path):
    yaml = "train: ../images/train\nnames: [cat, dog]"
    source = YoloSource(yaml=make_set(tmp_path / "a", ["0 .5 .5 .1 .1"], yaml=yaml))
    assert len(source) == 1
    assert source.report.counts == {}
    (entry,) = source.report.entries("split found in another place")
    assert "../images/train" in entry.message


@pytest.mark.parametrize(
    "yaml, message",
    [
        ("train: images/train", "needs names, .* it has the keys train"),
        ("train: images/train\nnc: 3\nnames: [a, b]", "nc: 3, but lists 2 names"),
        ("train: images/train\nnames: {0: a, 2: b}", "must be 0 to 1 .* are 0, 2"),
        ("train: images/train\nnames: {a: 0}", "must be 0 to 0 .* are a"),
        ("val: images/train\nnames: [a]", "no split 'train'; it has val"),
        ("train: pictures\nnames: [a]", "pictures does not exist; .*holds data.yaml"),
        ("train: [\nnames: [a]", "is not YAML"),
        ("just text", "holds no keys"),
        ("train: labels\nnames: [a]", "no picture in labels of .*holds train/"),
        ("kpt_shape: [17]x\ntrain: images\nnames: [a]", "is not YAML"),
        ("kpt_shape: {a: 1}\ntrain: images\nnames: [a]", "key points and .* not {'a'"),
    ],
)
def test_a_yaml_that_cannot_be_followed_is_a_clear_error(tmp_path, yaml, message):
    with pytest.raises(ValueError, match=message):
        YoloSource(yaml=make_set(tmp_path, ["0 .5 .5 .1 .1"], yaml=yaml))


def test_a_missing_yaml_says_what_is_there_instead(tmp_path):
    make_set(tmp_path, ["0 .5 .5 .1 .1"])
    with pytest.raises(ValueError, match="no data.yaml at .*holds data.yaml, images/"):
        YoloSource(yaml=str(tmp_path / "dat.yaml"))


def test_a_folder_that_is_missing_is_named_and_not_what_lies_beside(
    tmp_path, monkeypatch
):
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError) as caught:
        YoloSource(yaml="sets/cells/data.yaml")
    assert str(caught.value) == (
        "no data.yaml at sets/cells/data.yaml; there is no folder sets; set "
        "config.data.root (evaluate: --data_root)"
    )


def test_pictures_without_any_label_file_are_an_error(tmp_path):
    yaml = make_set(tmp_path, [None, None])
    with pytest.raises(ValueError, match="no label file for any of 2 pictures.*looked"):
        YoloSource(yaml=yaml)


def test_pictures_none_of_which_can_be_read_are_an_error(tmp_path):
    yaml = make_set(tmp_path, ["0 .5 .5 .1 .1"])
    (tmp_path / "images/train/0.png").write_bytes(b"")
    with pytest.raises(
        ValueError, match=r"not one picture can(.|\n)*the file is empty"
    ):
        YoloSource(yaml=yaml)


def test_reading_writes_nothing(tmp_path):
    yaml = make_set(tmp_path, ["0 .5 .5 .1 .1", "0 .5 .5 9 .1", None])
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    YoloSource(yaml=yaml)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_make_source_checks_the_name_and_the_arguments(tmp_path):
    yaml = make_set(tmp_path, ["0 .5 .5 .1 .1"])
    assert len(make_source("yolo", yaml=yaml)) == 1
    with pytest.raises(ValueError, match="no data source named 'yollo'.*'yolo'"):
        make_source("yollo", yaml=yaml)
    with pytest.raises(ValueError, match="'yolo' has no argument 'yml'.*'yaml'"):
        make_source("yolo", yml=yaml)
    with pytest.raises(ValueError, match="'yolo' needs yaml"):
        make_source("yolo")


def test_coco128_is_read_as_its_readme_describes_it():
    folder = shared("data", "coco128")
    source = YoloSource(yaml=str(folder / "data.yaml"))
    assert len(source) == 128
    assert sum(len(example.labels) for example in source) == 929
    assert sum((example.labels == 0).sum() for example in source) == 254
    assert source.report.counts == {"label without a picture": 2}
    counts = []
    for split in ("train", "val"):
        part = YoloSource(yaml=str(folder / "data_split.yaml"), split=split)
        counts.append((len(part), sum(len(example.labels) for example in part)))
    assert counts == [(100, 717), (28, 212)]


def test_aquarium_is_read_as_its_readme_describes_it(tmp_path):
    folder = shared("data", "hostile", "aquarium_yolo")
    train = YoloSource(yaml=str(folder / "data.yaml"))
    assert [len(example.labels) for example in train] == [0]
    assert train.report.notes["empty label file"] == 1
    with pytest.raises(ValueError, match="valid/images does not exist"):
        YoloSource(yaml=str(folder / "data.yaml"), split="val")
    (tmp_path / "test.yaml").write_text(
        "test: ../test/images\nnames: [fish, jelly, penguin, puffin, shark, star, ray]"
    )
    test = YoloSource(yaml=str(tmp_path / "test.yaml"), split="test", root=str(folder))
    assert test.report.counts == {"box without area": 2}
    lines = [
        len((folder / "test/labels" / name).read_text().split("\n"))
        for name in sorted(os.listdir(folder / "test/labels"))
    ]
    assert [len(example.labels) + 1 for example in test] == lines
