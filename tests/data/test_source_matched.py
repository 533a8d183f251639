import dataclasses

import numpy as np
import pytest

from yolojax.data.report import Report
from yolojax.data.sources.matched import MatchedSource
from yolojax.records import Example


@dataclasses.dataclass
class Listed:
    """A source of given labels, an image each."""

    class_names: tuple[str, ...]
    labels: list[list[int]]
    category_ids: tuple = ()
    report: Report = dataclasses.field(default_factory=Report)

    def __post_init__(self):
        self.category_ids = self.category_ids or tuple(range(len(self.class_names)))

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        count = len(self.labels[index])
        return Example(
            image="",
            boxes=np.ones((count, 4), np.float32),
            labels=np.array(self.labels[index], np.int32),
            crowd=np.zeros(count, bool),
            areas=np.ones(count, np.float32),
            image_id=f"image {index}",
            size=(9, 9),
            name="",
        )


def labels_of(source):
    return [source[index].labels.tolist() for index in range(len(source))]


def test_classes_in_another_order_are_matched_by_name():
    val = Listed(("dog", "cat", "bird"), [[0, 2], [], [1]], (5, 6, 7))
    source = MatchedSource(val, ("bird", "cat", "dog"), (1, 2, 3))
    assert source.class_names == ("bird", "cat", "dog")
    assert labels_of(source) == [[2, 0], [], [1]]
    assert source[0].labels.dtype == np.int32
    # What is evaluated is written in the numbers of its own file.
    assert source.category_ids == (7, 6, 5)
    assert source[2].image_id == "image 2"
    assert source.report.counts == {}
    assert list(source.report.notes) == [
        "order of classes that is not train's, matched by name"
    ]
    assert not hasattr(source, "multi_label")


def test_classes_that_val_lacks_are_named_and_have_ids_of_their_own():
    val = Listed(("dog",), [[0]], (2,))
    source = MatchedSource(val, ("bird", "cat", "dog"), (1, 2, 3))
    assert labels_of(source) == [[2]]
    # 2 is val's dog, so that cat takes the next number above all.
    assert source.category_ids == (1, 4, 2)
    assert source.report.notes == {"class of train that is missing": 2}
    (entry,) = source.report.entries("class of train that is missing")
    assert "bird, cat" in entry.message


def test_classes_without_labels_that_train_lacks_are_left_out():
    val = Listed(("dog", "cow"), [[0], [0]], ("d", "c"))
    source = MatchedSource(val, ("cat", "dog"), ("c", "d"))
    assert labels_of(source) == [[1], [1]]
    assert source.category_ids == (1, "d")
    assert source.report.notes["class that train lacks"] == 1


@pytest.mark.parametrize(
    "names, labels, message",
    [
        (("dog", "Cat"), [[0], [1, 1]], "2 labels .*: 'Cat'. Did you mean 'cat'"),
        (("Dog", "Cat"), [[]], "no name is in both"),
    ],
)
def test_labels_of_other_classes_are_an_error(names, labels, message):
    with pytest.raises(ValueError, match=message):
        MatchedSource(Listed(names, labels), ("cat", "dog"), (0, 1))


def test_of_classes_of_one_name_the_first_is_the_first():
    val = Listed(("b", "a", "a"), [[0, 1, 2]])
    source = MatchedSource(val, ("a", "a", "b"), (0, 1, 2))
    assert labels_of(source) == [[2, 0, 1]]


def test_a_source_for_classification_stays_one():
    val = Listed(("b", "a"), [[0], [1]])
    val.multi_label = False
    assert MatchedSource(val, ("a", "b"), (0, 1)).multi_label is False
