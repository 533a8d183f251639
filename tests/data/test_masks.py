import numpy as np
import pytest
from faster_coco_eval import mask

from yolojax.data.masks import mask_corners

# A mask of 3 rows and 4 columns:   . # . .     columns one after the other:
#                                   . # # .     ... ##. .#. ...
#                                   . . . .     runs 3 2 2 1 4
RUNS = [3, 2, 2, 1, 4]


def encode(runs):
    """Run lengths as text, by the format's rules, number by number."""
    text = ""
    for index, run in enumerate(runs):
        number = run - (runs[index - 2] if index > 2 else 0)
        more = True
        while more:
            group, number = number & 31, number >> 5
            more = number != (-1 if group & 16 else 0)
            text += chr(48 + (group | 32 * more))
    return text


@pytest.mark.parametrize("form", [list, encode], ids=["list", "text"])
def test_box_of_a_mask_by_hand(form):
    own = {"size": [3, 4], "counts": form(RUNS)}
    assert mask_corners(own, (3, 4)) == (1, 0, 3, 2)


def test_text_of_the_mask_by_hand():
    # 3, 2, 2, then 1 - 2 = -1 (all five bits) and 4 - 2 = 2.
    assert encode(RUNS) == "322O2"


def test_a_run_over_a_column_takes_the_whole_height():
    # Pixels 4 and 5 of columns of 5: the foot of the first, the head of the second.
    assert mask_corners({"size": [5, 3], "counts": [4, 2, 9]}, (5, 3)) == (0, 0, 2, 5)


def test_runs_may_end_before_the_mask_and_start_inside():
    assert mask_corners({"size": [5, 3], "counts": [0, 2]}, (5, 3)) == (0, 0, 1, 2)


def test_random_masks_agree_with_their_pixels_and_the_evaluators_text():
    rng = np.random.default_rng(0)
    for _ in range(200):
        height, width = rng.integers(1, 30, 2).tolist()
        pixels = rng.random((height, width)) < rng.choice([0.02, 0.5])
        pixels[rng.integers(height), rng.integers(width)] = True
        flat = pixels.T.ravel()
        edges = np.flatnonzero(np.diff(flat)) + 1
        runs = [0] * bool(flat[0]) + np.diff([0, *edges, len(flat)]).tolist()
        theirs = mask.encode(np.asfortranarray(pixels, np.uint8))["counts"]
        assert encode(runs) == theirs.decode()
        rows, columns = np.nonzero(pixels)
        box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        for counts in (runs, encode(runs)):
            own = {"size": [height, width], "counts": counts}
            assert mask_corners(own, (height, width)) == box


@pytest.mark.parametrize(
    "polygons, box",
    [
        ([[5, 6, 30, 8, 9, 20], [40, 1, 41, 2, 40, 3]], (5, 1, 41, 20)),
        ([5, 6, 30, 8, 9, 20], (5, 6, 30, 20)),
        ([[[5, 6], [30, 8], [9, 20]]], (5, 6, 30, 20)),
        ([["5", "6.5", 30, 8, 9, 20]], (5, 6.5, 30, 20)),
    ],
    ids=["parts", "one without its list", "points", "texts"],
)
def test_box_of_polygons(polygons, box):
    assert mask_corners(polygons, (100, 100)) == box


@pytest.mark.parametrize(
    "segmentation, message",
    [
        ("1 2 3", "neither polygons nor run lengths"),
        ([], "is empty"),
        ([[1, 2] * 2**17, [3, 4]], "more than 262,144 numbers"),
        ([[]], "is empty"),
        ([[1, 2, 3]], "has 3 numbers; expected pairs"),
        ([[1, 2, None, 4]], "not a number"),
        ([[1, 2, {}, 4]], "not a number"),
        ([[[[[1, 2]]]]], "not a number"),
        ({"counts": [1, 2]}, "size .* is not that of the image, 3 x 4"),
        ({"size": [4, 3], "counts": [1, 2]}, "size .* is not that of the image"),
        ({"size": [3, 4]}, "counts must be"),
        ({"size": [3, 4], "counts": [1, 2.5]}, "counts must be"),
        ({"size": [3, 4], "counts": [1, True]}, "counts must be"),
        ({"size": [3, 4], "counts": [1, 10**30]}, "exceeds all images"),
        (
            {"size": [3, 4], "counts": [1, 10**18, 10**18, 9 * 10**18]},
            "exceed the mask",
        ),
        ({"size": [3, 4], "counts": [1, -2]}, "negative"),
        ({"size": [3, 4], "counts": [1, 12]}, "exceed the mask's 12 pixels"),
        ({"size": [3, 4], "counts": [12]}, "no pixel"),
        ({"size": [3, 4], "counts": []}, "no pixel"),
        ({"size": [3, 4], "counts": ""}, "no pixel"),
        ({"size": [3, 4], "counts": "3x"}, "holds no run lengths"),
        ({"size": [3, 4], "counts": "3 "}, "holds no run lengths"),
        ({"size": [3, 4], "counts": "3o"}, "cut short"),
        ({"size": [3, 4], "counts": "3é"}, "no run lengths"),
        ({"size": [3, 4], "counts": "3" + "o" * 20 + "1"}, "exceeds all images"),
        ({"size": [3, 4], "counts": "3" * (2**21 + 1)}, "too long"),
        ({"size": [3, 4], "counts": "3O"}, "negative"),
    ],
)
def test_what_is_no_mask_has_a_reason(segmentation, message):
    with pytest.raises(ValueError, match=message):
        mask_corners(segmentation, (3, 4))
