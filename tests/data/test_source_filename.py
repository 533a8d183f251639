import numpy as np
import pytest

from tests.data.classified import classes_of, names_of, paint
from tests.shared import shared
from yolojax.data import check
from yolojax.data.sources.filename import FilenameSource


def make(root, *names):
    for number, name in enumerate(names):
        paint(root / name, number)
    return str(root)


def test_the_class_is_what_stands_before_the_number(tmp_path):
    names = ("10_0.png", "9_1.png", "9_12.png", "-1_3.png")
    source = FilenameSource(root=make(tmp_path, *names), fractions=(1.0,))
    assert source.class_names == ("9", "10") and source.category_ids == (9, 10)
    assert names_of(source) == ["-1_3.png", "10_0.png", "9_1.png", "9_12.png"]
    assert classes_of(source) == [(), ("10",), ("9",), ("9",)]
    assert source.report.notes == {"picture without a label": 1}
    assert source.report.counts == {"class with a single picture": 1}
    assert source.multi_label is False


def test_another_pattern_and_pictures_in_folders_below(tmp_path):
    names = [f"{kind}s/{kind}.{n}.png" for kind in ("dog", "cat") for n in range(5)]
    root = make(tmp_path, *names)
    pattern = r"(?P<label>cat|dog)\.\d+"
    parts = [
        FilenameSource(root=root, split=s, pattern=pattern) for s in ("train", "val")
    ]
    assert classes_of(parts[0]) == [("cat",)] * 4 + [("dog",)] * 4
    assert classes_of(parts[1]) == [("cat",), ("dog",)]
    assert not set(names_of(parts[0])) & set(names_of(parts[1]))
    under = FilenameSource(
        root=make(tmp_path / "b", "green_apple_1.png", "green_apple_2.png")
    )
    assert under.class_names == ("green_apple",)


def test_classes_come_from_train_and_a_test_has_no_labels(tmp_path):
    root = make(
        tmp_path,
        *("train/0_0.png", "train/0_1.png", "train/2_0.png", "train/2_1.png"),
        *("train/logo.png", "val/2_7.png", "val/5_0.png", "test/0001.png"),
    )
    train = FilenameSource(root=root)
    assert train.class_names == ("0", "2") and len(train) == 4
    assert train.report.counts == {"file name without a label": 1}
    val = FilenameSource(root=root, split="val")
    assert val.class_names == ("0", "2") and classes_of(val) == [("2",)]
    (entry,) = val.report.entries("unknown class")
    assert str(entry) == (
        f"{tmp_path}/val/5_0.png: class '5', which train does not have; it has 0, 2; "
        "left out"
    )
    test = FilenameSource(root=root, split="test")
    assert classes_of(test) == [()] and test.class_names == ("0", "2")
    assert not test.report.counts and test.report.notes == {
        "file name without a label": 1,
        "picture without a label": 1,
    }
    fewer = FilenameSource(root=root, classes=("2",))
    assert classes_of(fewer) == [("2",)] * 2


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"pattern": r"(\d+)_\d+"}, "has no group named label"),
        ({"pattern": r"(?P<label>"}, "is not a regular expression: "),
        ({"pattern": 3}, "pattern 3 is not a regular expression"),
        ({"root": "empty"}, "no picture in .*empty; .*empty holds nothing"),
        ({"root": "none"}, "no folder .*none; "),
        ({"fractions": (0.5,)}, "fractions must be"),
        ({"split": "test"}, "leave nothing for split 'test'"),
    ],
)
def test_file_names_that_cannot_be_used(tmp_path, arguments, message):
    make(tmp_path, "0_0.png")
    (tmp_path / "empty").mkdir()
    root = str(tmp_path / arguments.pop("root", ""))
    with pytest.raises(ValueError, match=message):
        FilenameSource(root=root, **arguments)


def test_fruits():
    root = str(shared("data", "fruits_filename"))
    sources = [FilenameSource(root=root, split=s) for s in ("train", "val")]
    assert [len(source) for source in sources] == [90, 30]
    for source, each in zip(sources, (9, 3), strict=True):
        assert source.class_names == tuple("0123456789")
        labels = np.concatenate([source[i].labels for i in range(len(source))])
        assert np.bincount(labels).tolist() == [each] * 10
        assert not source.report.counts
    report, keep = check.scan(sources[1])
    assert len(keep) == 30 and not report.counts
