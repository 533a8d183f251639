"""Letterbox arithmetic against worked cases and the original's shapes."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.shared import shared
from yolojax.ops import letterbox

# Sizes (height, width) behind the golden cases lb0, lb4 (stored) and lb5, lb3, whose
# ratio and padding give them.
GOLDEN_SIZES = {0: (480, 640), 3: (720, 1280), 4: (100, 333), 5: (37, 53)}


@pytest.mark.parametrize(
    "size, target, expected",
    [
        ((480, 640), (320, 320), ((240, 320), (40, 0), 0.5)),
        ((640, 480), (320, 320), ((320, 240), (0, 40), 0.5)),
        ((100, 200), (320, 640), ((320, 640), (0, 0), 3.2)),
        # 37 * 320/53 = 223.4; 97 rows of padding: 48 above, 49 below.
        ((37, 53), (320, 320), ((223, 320), (48, 0), 320 / 53)),
        ((1, 5000), (64, 64), ((1, 64), (31, 0), 64 / 5000)),
    ],
    ids=["wide", "tall", "fills", "odd", "sliver"],
)
def test_a_picture_fits_and_is_centred(size, target, expected):
    assert letterbox.letterbox_shape(size, target) == expected


def test_small_pictures_stay_as_they_are_without_scale_up():
    place = letterbox.letterbox_shape((37, 53), (320, 320), scale_up=False)
    assert place == ((37, 53), (141, 133), 1.0)


@pytest.mark.parametrize("case", GOLDEN_SIZES)
@pytest.mark.parametrize("scale_up", [True, False])
@pytest.mark.parametrize("rectangle", [True, False])
def test_shapes_are_those_of_the_original(case, scale_up, rectangle):
    golden = np.load(shared("golden", "misc.npz"))
    name = f"lb{case}_a{rectangle:d}_su{scale_up:d}_shape_ratio_pad"
    height, width, _, ratio, _, pad_x, pad_y = golden[name]
    size = GOLDEN_SIZES[case]
    canvas = (320, 320)
    if rectangle:
        canvas, place = letterbox.rectangle_shape(
            size, canvas, stride=32, scale_up=scale_up
        )
    else:
        place = letterbox.letterbox_shape(size, canvas, scale_up=scale_up)
    assert canvas == (height, width)
    assert place.ratio == pytest.approx(ratio, abs=1e-12)
    # The file has half the padding; the offset is its published rounding.
    assert place.size == (height - 2 * pad_y, width - 2 * pad_x)
    assert place.offset == (round(pad_y - 0.1), round(pad_x - 0.1))


@pytest.mark.parametrize("case", [0, 4])
@pytest.mark.parametrize("rectangle", [True, False])
def test_the_picture_lies_where_the_original_put_it(case, rectangle):
    golden = np.load(shared("golden", "misc.npz"))
    output = golden[f"lb{case}_a{rectangle:d}_su1_out"]
    size = golden[f"lb{case}_in"].shape[:2]
    if rectangle:
        _, place = letterbox.rectangle_shape(size, (320, 320), stride=32)
    else:
        place = letterbox.letterbox_shape(size, (320, 320))
    outside = np.ones(output.shape[:2], bool)
    (top, left), (height, width) = place.offset, place.size
    outside[top : top + height, left : left + width] = False
    assert (output[outside] == 114).all()
    inside = output[top : top + height, left : left + width]
    for edge in (inside[0], inside[-1], inside[:, 0], inside[:, -1]):
        assert (edge != 114).any()


def test_origin_takes_the_corners_of_the_picture_to_those_of_the_place():
    size = (37, 53)
    place = letterbox.letterbox_shape(size, (320, 320))
    scale_y, scale_x, offset_y, offset_x = letterbox.letterbox_origin(size, place)
    assert (offset_y, offset_x) == (48, 0)
    assert 37 * scale_y + offset_y == pytest.approx(48 + 223)
    assert 53 * scale_x + offset_x == pytest.approx(320)


def test_a_size_without_area_is_an_error():
    with pytest.raises(ValueError, match=r"positive sides, but the picture is \(0, 5"):
        letterbox.letterbox_shape((0, 5), (320, 320))


def test_the_host_may_import_it_without_jax():
    code = (
        "import sys, yolojax.ops.letterbox; "
        "sys.exit(int(any(m == 'jax' for m in sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize(
    "size, expected, offset",
    [
        # 426 * 640 / 640 stays; 425 * 640 / 640 too
        ((426, 640), (426, 640), (107, 0)),
        # 333 * 640 / 500 = 426.24
        ((333, 500), (427, 640), (106, 0)),
        # 375 * 640 / 375 must not become 641 by rounding
        ((375, 101), (640, 173), (0, 233)),
    ],
)
def test_rounded_up_sides_are_those_of_the_published_evaluation(size, expected, offset):
    place = letterbox.letterbox_shape(size, (640, 640), round_up=True)
    assert place.size == expected
    assert place.offset == offset


@pytest.mark.parametrize(
    "sizes, target, expected",
    [
        # .75 * 20 + .5 = 15.5 strides, and 20.5
        ([(480, 640)], (640, 640), (512, 672)),
        ([(640, 480)], (640, 640), (672, 512)),
        # the largest of each axis
        ([(480, 640), (320, 640)], (640, 640), (512, 672)),
        ([(480, 640), (640, 640)], (640, 640), (672, 672)),
        ([(480, 640), (640, 480)], (640, 640), (672, 672)),
        # .775 * 20 + .5 is 16 to the pixel; its size does not matter
        ([(31, 40)], (640, 640), (512, 672)),
        # twice as wide as high: fills the target
        ([(100, 200)], (320, 640), (352, 672)),
        ([(100, 100)], (320, 640), (352, 352)),
    ],
)
def test_a_batch_shares_the_canvas_of_the_published_evaluation(sizes, target, expected):
    assert letterbox.batch_canvas(sizes, target, stride=32) == expected


def test_a_place_is_centred_on_another_canvas():
    place = letterbox.letterbox_shape((333, 500), (640, 640), round_up=True)
    # 427 x 640 on 448 x 672: 21 rows, of which 10 are above.
    moved = letterbox.centred(place, (448, 672))
    assert moved == ((427, 640), (10, 16), place.ratio)
    # The published evaluation takes back 10.5 rows.
    assert letterbox.published_origin((333, 500), moved, (448, 672)) == (
        *(427 / 333, 640 / 500, 10.5, 16.0),
    )


@pytest.mark.parametrize(
    "size, target, expected",
    [
        # 224 px are .875 of 256; 256 * 500 / 375 = 341.3; 341 - 224 = 117 = 58 + 59
        ((375, 500), (224, 224), ((256, 341), (-16, -58))),
        ((500, 375), (224, 224), ((341, 256), (-58, -16))),
        ((1000, 1000), (224, 224), ((256, 256), (-16, -16))),
        # Enlarged.
        ((7, 14), (224, 224), ((256, 512), (-16, -144))),
        # 299 / .875 = 341.7; 342 - 299 = 43 = 22 + 21: halves go to the even number.
        ((342, 342), (299, 299), ((342, 342), (-22, -22))),
        # Of a canvas twice as wide as high: 64 and 128 px are .875 of 73 and 146.
        ((100, 100), (64, 128), ((146, 146), (-41, -9))),
        ((100, 1000), (64, 128), ((73, 730), (-4, -301))),
    ],
)
def test_a_centre_crop_shows_seven_eighths_of_the_shorter_side(size, target, expected):
    place = letterbox.crop_shape(size, target)
    assert (place.size, place.offset) == expected


@given(
    st.tuples(st.integers(1, 3000), st.integers(1, 3000)),
    st.tuples(st.integers(1, 400), st.integers(1, 400)),
    st.floats(0.2, 1.0),
)
def test_a_centre_crop_fills_its_canvas(size, target, share):
    place = letterbox.crop_shape(size, target, share=share)
    for side, offset, wanted in zip(place.size, place.offset, target, strict=True):
        assert offset <= 0 and side + offset >= wanted
        # No more is cut off at one end than at the other, but for an odd pixel.
        assert abs((side + offset - wanted) + offset) <= 1


def test_a_whole_centre_crop_cuts_a_square_picture_nowhere():
    assert letterbox.crop_shape((50, 50), (32, 32), share=1.0)[:2] == ((32, 32), (0, 0))
