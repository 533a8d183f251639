import os

import numpy as np
import pytest

from tests.data.classified import classes_of, names_of, paint
from tests.shared import shared
from yolojax.data import check, pipeline
from yolojax.data.report import Report
from yolojax.data.sources import CLASS_SOURCES, SOURCES, make_source
from yolojax.data.sources.base import list_pictures
from yolojax.data.sources.folder import FolderSource
from yolojax.data.sources.handwritten import HandwrittenSource
from yolojax.data.sources.labelled import in_order, numbers_of


def make(root, **counts):
    """Class folders with so many pictures each; `train__cat` is train/cat."""
    for name, count in counts.items():
        folder = root / name.replace("__", "/")
        folder.mkdir(parents=True)
        for number in range(count):
            paint(folder / f"{folder.name}{number}.png", number)
    return str(root)


def test_a_class_is_a_box_over_the_whole_picture(tmp_path):
    root = make(tmp_path, train__cat=2, train__dog=3, val__dog=1, val__cat=2)
    source = FolderSource(root=root)
    assert source.class_names == ("cat", "dog") and source.multi_label is False
    assert classes_of(source) == [("cat",)] * 2 + [("dog",)] * 3
    assert source.category_ids == (0, 1)
    example = source[3]
    np.testing.assert_array_equal(example.boxes, np.float32([[0, 0, 12, 8]]))
    np.testing.assert_array_equal(example.areas, np.float32([96]))
    assert example.boxes.dtype == example.areas.dtype == np.float32
    assert example.labels.dtype == np.int32 and example.crowd.tolist() == [False]
    assert example.size == (8, 12) and example.image_id == 3
    val = FolderSource(root=root, split="val")
    assert classes_of(val) == [("cat",)] * 2 + [("dog",)]
    assert not source.report.counts and not val.report.counts
    batches = pipeline.make_eval_batches(
        val, np.arange(3), image_size=(16, 16), batch_size=4, num_threads=1
    )
    (batch,) = batches
    assert batch.labels[:, 0].tolist() == [0, 0, 1, 0]
    assert batch.valid.tolist() == [[True], [True], [True], [False]]


def test_one_folder_is_split_by_the_seed(tmp_path):
    root = make(tmp_path, cat=10, dog=5)
    parts = {s: FolderSource(root=root, split=s) for s in ("train", "val")}
    names = {s: names_of(source) for s, source in parts.items()}
    assert len(names["train"]) == 12 and len(names["val"]) == 3
    assert not set(names["train"]) & set(names["val"])
    assert classes_of(parts["val"]) == [("cat",)] * 2 + [("dog",)]
    other = FolderSource(root=root, split="val", seed=1)
    assert names_of(other) != names["val"]
    three = FolderSource(root=root, split="test", fractions=(0.6, 0.2, 0.2))
    assert len(three) == 3
    whole = FolderSource(root=root, fractions=(1.0,))
    assert len(whole) == 15
    with pytest.raises(ValueError, match="leave nothing for split 'test'"):
        FolderSource(root=root, split="test")


def test_a_class_may_be_called_train(tmp_path):
    root = make(tmp_path, train=3, car=3)
    assert FolderSource(root=root).class_names == ("car", "train")


def test_classes_come_from_train_and_numbers_in_their_order(tmp_path):
    root = make(tmp_path, train__10=2, train__9=2, val__9=1, validation__9=0)
    train = FolderSource(root=root)
    assert train.class_names == ("9", "10") and train.category_ids == (9, 10)
    val = FolderSource(root=root, split="val")
    assert val.class_names == ("9", "10")
    assert val.report.notes == {"class without a picture": 1}
    other = FolderSource(root=root, classes=("10", "9"))
    assert classes_of(other) == [("10",)] * 2 + [("9",)] * 2
    fewer = FolderSource(root=root, classes=("9",))
    assert fewer.report.counts == {"unknown class": 1} and len(fewer) == 2
    assert in_order(["b", "10", "9"]) == ("10", "9", "b")
    assert numbers_of(("1", "01")) == (0, 1)


def test_what_is_wrong_is_reported_and_nothing_crashes(tmp_path):
    root = make(
        tmp_path, train__cat=3, train__dog=1, train__empty=0, val__cat=1, val__cow=2
    )
    (tmp_path / "train/cat/broken.jpg").write_bytes(b"\xff\xd8\xff no picture")
    (tmp_path / "train/cat/none.png").write_bytes(b"")
    (tmp_path / "train/cat/notes.txt").write_text("no picture at all")
    (tmp_path / "train/cat/._cat0.png").write_bytes(b"macOS")
    paint(tmp_path / "train/stray.png")
    train = FolderSource(root=root)
    assert train.class_names == ("cat", "dog")
    assert names_of(train) == ["cat0.png", "cat1.png", "cat2.png", "dog0.png"]
    assert train.report.counts == {
        "empty class folder": 1,
        "picture outside of a class folder": 1,
        "class with a single picture": 1,
        "unreadable picture": 2,
    }
    text = train.report.render()
    empty = "no picture in it, expected those of a class; left out"
    assert f"{tmp_path}/train/empty: {empty}" in text
    assert "class 'dog' has one picture" in text
    val = FolderSource(root=root, split="val")
    assert val.report.counts == {"unknown class": 1}
    (entry,) = val.report.entries("unknown class")
    assert str(entry) == (
        f"{tmp_path}/val/cow: 2 pictures of a class that train does not have, which "
        "has cat, dog; left out"
    )
    assert names_of(val) == ["cat0.png"]


def test_folders_without_classes_have_no_labels(tmp_path):
    root = make(tmp_path, train__cat=2, train__dog=2, test=3, more=2)
    test = FolderSource(root=root, split="test")
    assert classes_of(test) == [()] * 3 and test.class_names == ("cat", "dog")
    assert test[0].boxes.shape == (0, 4)
    assert test.report.notes == {"picture without a label": 3}
    assert not test.report.counts
    alone = FolderSource(root=f"{root}/more")
    assert len(alone) == 2 and alone.class_names == ()


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"root": "nowhere"}, r"no folder .*nowhere; .* holds train/; set config.data"),
        ({"split": "val"}, r"no folder val in .*To keep a part of train for it"),
        ({"split": "test"}, r"no folder test in (?!.*To keep a part)"),
        ({"split": "al"}, "split must be one of train, val, test, not 'al'"),
        ({"root": "train/cat"}, r"no picture in .*train/cat; .* holds nothing"),
        ({"root": ""}, "no picture in the class folders of"),
        ({"classes": ("cat", "cat")}, "classes must be distinct names"),
        ({"classes": "cat"}, "classes must be distinct names"),
        ({"classes": ("dog",)}, "not one picture can be used:\nempty class folder"),
    ],
)
def test_folders_that_cannot_be_used(tmp_path, arguments, message):
    make(tmp_path, train__cat=0)
    root = str(tmp_path / arguments.pop("root", ""))
    with pytest.raises(ValueError, match=message):
        FolderSource(root=root, **arguments)


def test_flowers():
    root = str(shared("data", "flowers_imagefolder"))
    sources = [make_source("folder", root=root, split=s) for s in ("train", "val")]
    assert [len(source) for source in sources] == [550, 200]
    names = ("daisy", "dandelion", "rose", "sunflower", "tulip")
    assert all(source.class_names == names for source in sources)
    labels = np.concatenate([sources[0][i].labels for i in range(550)])
    assert np.bincount(labels).tolist() == [110] * 5
    assert not any(source.report.counts for source in sources)
    part = make_source("folder", root=f"{root}/train", split="val", seed=3)
    assert len(part) == 110
    report, keep = check.scan(part)
    assert len(keep) == 110 and not report.counts


def test_handwritten_digits_in_three_splits():
    sources = [HandwrittenSource(split=s, size=16) for s in ("train", "val", "test")]
    sizes = [len(source) for source in sources]
    assert sum(sizes) == 1797 and sizes[2] > 350 and sizes[1] > 130
    pixels = [
        {source[i].image.tobytes() for i in range(len(source))} for source in sources
    ]
    assert not pixels[0] & pixels[2] and not pixels[1] & pixels[2]
    assert not pixels[0] & pixels[1]
    example = sources[1][7]
    assert example.image.shape == (16, 16, 3) and example.image.dtype == np.uint8
    assert example.image.max() > 200 and example.image.min() == 0
    assert sources[1].class_names == tuple("0123456789")
    np.testing.assert_array_equal(example.boxes, np.float32([[0, 0, 16, 16]]))
    # Ink where the original has it: sums of 2 x 2 blocks follow the 8 x 8 picture.
    plain = HandwrittenSource(split="val", size=8)[7].image[:, :, 0].astype(float)
    coarse = example.image[:, :, 0].reshape(8, 2, 8, 2).mean((1, 3))
    assert np.corrcoef(plain.ravel(), coarse.ravel())[0, 1] > 0.95
    for arguments, message in (
        ({"split": "tset"}, "no split named 'tset'. Did you mean 'test'"),
        ({"size": 4}, "at least 8 pixels, not 4"),
    ):
        with pytest.raises(ValueError, match=message):
            HandwrittenSource(**arguments)


def test_sources_for_classes_are_in_the_table():
    assert CLASS_SOURCES < SOURCES.keys()
    assert hasattr(HandwrittenSource(), "multi_label")


def test_accents_are_the_same_in_both_ways_to_write_them(tmp_path):
    root = make(tmp_path, **{"train__caf\u00e9": 2, "val__cafe\u0301": 2})
    val = FolderSource(root=root, split="val")
    assert classes_of(val) == [("caf\u00e9",)] * 2 and not val.report.counts


def test_a_class_name_that_is_no_text_is_named(tmp_path):
    folder = os.fsdecode(os.path.join(os.fsencode(tmp_path), b"caf\xe9"))
    for number in range(2):
        paint(tmp_path / f"{number}.png", number)
    os.mkdir(folder)
    for number in range(2):
        os.rename(tmp_path / f"{number}.png", os.path.join(folder, f"{number}.png"))
    with pytest.raises(ValueError, match="is no valid text; rename it"):
        FolderSource(root=str(tmp_path), fractions=(1.0,))


def test_hostile_files_are_left_out_and_said(tmp_path):
    for kind in ("images", "names"):
        (tmp_path / kind).mkdir()
        for file in shared("data", "hostile", kind).iterdir():
            (tmp_path / kind / file.name).symlink_to(file)
    source = FolderSource(root=str(tmp_path), fractions=(1.0,))
    assert source.class_names == ("images", "names")
    report, keep = check.scan(source)
    left_out = source.report.counts["unreadable picture"]
    left_out += report.counts["unreadable picture"]
    listed = sum(
        len(list_pictures(tmp_path / kind, Report())) for kind in ("images", "names")
    )
    assert len(keep) + left_out == listed and left_out > 10
    assert f"{tmp_path}/images/bad_iCCP.png: cut short" in source.report.render()
