"""classes.json, whole and damaged."""

import pytest

from yolojax.class_file import read_classes, write_classes

CLASSES = {
    "empty": ("", "cannot be read: the file is empty"),
    "list": ('["a"]', "expected an object"),
    "no names": ('{"category_ids": [0]}', "holds no names and category_ids"),
    "numbers": ('{"names": [1], "category_ids": [0]}', "holds no names and"),
    "null": ('{"names": ["a"], "category_ids": [null]}', "holds no names and"),
    "flags": ('{"names": ["a"], "category_ids": [true]}', "holds no names and"),
    "fewer": ('{"names": ["a", "b"], "category_ids": [0]}', "2 names.* 1 category_ids"),
    "twice": ('{"names": ["a", "b"], "category_ids": [1, 1]}', "ids, 1 of them"),
}


@pytest.mark.parametrize("text, message", CLASSES.values(), ids=CLASSES)
def test_a_damaged_file_is_named(tmp_path, text, message):
    (tmp_path / "classes.json").write_text(text)
    with pytest.raises(ValueError, match=rf"classes\.json.*{message}.*Put it back"):
        read_classes(tmp_path)


def test_classes_come_back(tmp_path):
    write_classes(["été", "b"], [7, "3a"], tmp_path)
    assert read_classes(tmp_path) == (("été", "b"), (7, "3a"))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match="classes.json is missing"):
        read_classes(tmp_path)


def test_ids_may_be_texts_and_two_classes_may_share_a_name(tmp_path):
    write_classes(["cat", "cat"], ["c 1", 7], tmp_path)
    assert read_classes(tmp_path) == (("cat", "cat"), ("c 1", 7))
