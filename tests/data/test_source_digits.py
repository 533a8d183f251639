import numpy as np
import pytest

from yolojax.data.sources import digits, make_source
from yolojax.data.sources.digits import INK, DigitsSource, enlarge, load_split


@pytest.fixture(scope="module")
def source():
    return DigitsSource(length=60, size=(96, 160), seed=3)


def test_pictures_are_functions_of_seed_split_and_index(source):
    backwards = [source[index] for index in reversed(range(60))][::-1]
    again = DigitsSource(length=70, size=(96, 160), seed=3)
    for index, example in enumerate(backwards):
        np.testing.assert_array_equal(example.image, again[index].image)
        np.testing.assert_array_equal(example.boxes, again[index].boxes)
        np.testing.assert_array_equal(example.labels, again[index].labels)
    for other in (
        DigitsSource(length=60, size=(96, 160), seed=4),
        DigitsSource(length=60, size=(96, 160), seed=3, split="val"),
    ):
        assert (other[0].image != source[0].image).any()
    assert (source[0].image != source[1].image).any()


def test_splits_share_no_handwriting_and_hold_all_of_it():
    train, train_labels = load_split("train")
    val, val_labels = load_split("val")
    assert len(train) + len(val) == 1797
    train_set = {digit.tobytes() for digit in train}
    val_set = {digit.tobytes() for digit in val}
    assert len(train_set) == len(train) and len(val_set) == len(val)
    assert not train_set & val_set
    both = np.bincount(train_labels) + np.bincount(val_labels)
    np.testing.assert_array_equal(np.bincount(val_labels), both // 5)


@pytest.mark.parametrize("height, width", [(20, 20), (60, 48), (13, 31)])
def test_a_digits_box_is_tight_on_its_ink(height, width):
    for digit in load_split("val")[0][::10]:
        alpha, (x1, y1, x2, y2) = enlarge(digit, height, width)
        assert alpha.shape == (height, width)
        ink = alpha >= INK
        assert ink[y1:y2, x1:x2].sum() == ink.sum() > 0
        assert ink[y1, :].any() and ink[y2 - 1, :].any()
        assert ink[:, x1].any() and ink[:, x2 - 1].any()


def test_boxes_lie_where_the_ink_is(monkeypatch):
    def paint(rng, canvas, alpha, top, left):
        canvas[...] = 0
        canvas[top : top + alpha.shape[0], left : left + alpha.shape[1]] = np.rint(
            alpha * 200
        )[..., None]

    monkeypatch.setattr(digits, "_paint", paint)
    source = DigitsSource(length=30, size=(120, 80), max_digits=1)
    for index in range(30):
        example = source[index]
        rows, columns = np.nonzero(example.image[..., 0] >= 100)
        found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        np.testing.assert_array_equal(example.boxes, [found])


def test_boxes_lie_inside_and_hardly_overlap(source):
    for index in range(60):
        example = source[index]
        boxes = example.boxes
        assert 1 <= len(boxes) == len(example.labels) == len(example.areas) <= 6
        assert (boxes[:, :2] >= 0).all() and (boxes[:, 2:] <= [160, 96]).all()
        sides = boxes[:, 2:] - boxes[:, :2]
        assert (sides > 3).all()
        np.testing.assert_array_equal(example.areas, sides.prod(axis=1))
        for k, box in enumerate(boxes):
            for other in boxes[:k]:
                shared = np.minimum(box[2:], other[2:]) - np.maximum(box[:2], other[:2])
                area = shared.clip(0).prod()
                assert area <= 0.1 * min(
                    (box[2:] - box[:2]).prod(), (other[2:] - other[:2]).prod()
                )


def test_records_are_those_of_a_source(source):
    example = source[5]
    assert example.image.shape == (96, 160, 3) and example.image.dtype == np.uint8
    assert example.size == (96, 160) and example.image_id == 5
    assert example.name == "digits train 5"
    dtypes = [example.boxes, example.labels, example.crowd, example.areas]
    assert [str(x.dtype) for x in dtypes] == ["float32", "int32", "bool", "float32"]
    assert source.class_names == tuple("0123456789")
    assert source.category_ids == tuple(range(10))
    assert len(source) == 60 and source.report.render() == ""


def test_all_classes_and_counts_come_up():
    source = DigitsSource(length=200, size=128, max_digits=4)
    examples = [source[index] for index in range(200)]
    assert {len(example.boxes) for example in examples} == {1, 2, 3, 4}
    labels = np.concatenate([example.labels for example in examples])
    # 50 each are expected, with a standard deviation of 7.
    assert (np.bincount(labels, minlength=10) > 20).all()


@pytest.mark.parametrize("grey", [0, 60, 128, 200, 255])
def test_digits_stand_out_from_any_background(grey):
    rng = np.random.default_rng(0)
    for _ in range(50):
        canvas = np.full((20, 20, 3), grey, np.uint8)
        digits._paint(rng, canvas, np.ones((10, 10), np.float32), 5, 5)
        brightness = canvas[8, 8] @ np.array([0.299, 0.587, 0.114])
        # A contrast of 90 at an opacity of .75, less rounding.
        assert abs(brightness - grey) > 66
        assert (canvas[:5] == grey).all() and (canvas[15:] == grey).all()


def test_large_pictures_are_possible():
    example = DigitsSource(length=1, size=(700, 500))[0]
    assert example.image.shape == (700, 500, 3)
    heights = example.boxes[:, 3] - example.boxes[:, 1]
    assert (heights >= 0.1 * 500).all() and (heights <= 0.42 * 500 + 1).all()


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(split="test"), "split must be train or val, not 'test'"),
        (dict(length=0), "at least 1, not 0, 6"),
        (dict(max_digits=0), "at least 1, not 10, 0"),
        (dict(size=16), "at least 32 pixels, not 16"),
        (dict(digit_ratio=(0.5, 0.2)), "digit_ratio must be"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        DigitsSource(**(dict(length=10) | arguments))


def test_an_index_beyond_the_end_is_an_error(source):
    with pytest.raises(IndexError, match="picture 60 of 60"):
        source[60]


def test_the_table_of_sources_knows_it():
    assert isinstance(make_source("digits", length=3, size=64), DigitsSource)
