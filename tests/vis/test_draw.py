import cv2
import numpy as np
import pytest

from yolojax.vis import draw
from yolojax.vis.palette import class_colour, text_colour

NAMES = ("cat", "dog", "猫 と 犬")


def grey(height, width):
    return np.full((height, width, 3), 77, np.uint8)


def changed(image):
    """Rows and columns of the pixels that are no longer grey."""
    return np.nonzero((image != 77).any(-1))


def test_the_picture_given_is_not_changed_and_no_box_gives_an_equal_copy():
    image = grey(60, 80)
    drawn = draw.draw_boxes(image, np.zeros((0, 4)), np.zeros(0, int), None, NAMES)
    np.testing.assert_array_equal(drawn, image)
    assert not np.shares_memory(drawn, image)
    draw.draw_boxes(image, np.array([[9, 9, 50, 50]]), np.array([0]), None, NAMES)
    assert (image == 77).all()


def test_the_frame_lies_on_the_first_and_last_pixels_of_the_box():
    # Too low for a tag: only the frame, one pixel wide, is drawn.
    drawn = draw.draw_boxes(
        grey(20, 40), np.array([[4.0, 3.0, 30.0, 15.0]]), np.array([1]), None, NAMES
    )
    expected = grey(20, 40)
    for rows, columns in [
        (slice(3, 15), 4),
        (slice(3, 15), 29),
        (3, slice(4, 30)),
        (14, slice(4, 30)),
    ]:
        expected[rows, columns] = class_colour(1)
    np.testing.assert_array_equal(drawn, expected)


@pytest.mark.parametrize(
    "box",
    [
        [30, 60, 200, 150],
        [30, 0, 200, 150],
        [0, 0, 320, 240],
        [300, 0, 320, 8],
        [300, 230, 320, 240],
        [-90, -90, 20, 20],
        [0, 100, 320, 104],
    ],
    ids=["middle", "top", "whole", "corner", "bottom", "outside", "flat"],
)
@pytest.mark.parametrize("label", [0, 2, 9])
def test_the_tag_is_whole_inside_the_picture(monkeypatch, box, label):
    tags = []
    monkeypatch.setattr(draw, "_draw_tag", lambda *given: tags.append(given))
    draw.draw_boxes(
        grey(240, 320), np.array([box]), np.array([label]), np.array([0.5]), NAMES
    )
    ((_, _, title, _, (left, top, right, bottom), _),) = tags
    assert 0 <= left < right <= 320 and 0 <= top < bottom <= 240
    assert title.endswith(" 0.50")


def test_the_tag_above_a_box_has_its_colour_and_contrasting_text():
    # Large enough that the strokes have pixels which are not half background.
    box = np.array([[160, 320, 1200, 800]])
    drawn = draw.draw_boxes(grey(960, 1280), box, np.array([0]), None, NAMES)
    top = changed(drawn)[0].min()
    assert top < 300
    tag = drawn[top:310, 165:200].reshape(-1, 3).tolist()
    assert list(class_colour(0)) in tag and list(text_colour(class_colour(0))) in tag


def test_tags_of_equal_boxes_do_not_hide_each_other(monkeypatch):
    tags = []
    monkeypatch.setattr(draw, "_draw_tag", lambda *given: tags.append(given[4]))
    box = [100.0, 100.0, 300.0, 300.0]
    draw.draw_boxes(grey(400, 400), np.array([box] * 3), np.arange(3), None, NAMES)
    for index, (left, top, right, bottom) in enumerate(tags):
        for other in tags[index + 1 :]:
            apart_x = left >= other[2] or other[0] >= right
            assert apart_x or top >= other[3] or other[1] >= bottom


def test_the_best_score_is_drawn_last():
    # The same box twice; what stays visible is the better one's frame.
    box = np.array([[2, 2, 18, 18]] * 2)
    drawn = draw.draw_boxes(
        grey(20, 20), box, np.array([0, 1]), np.array([0.9, 0.1]), NAMES
    )
    assert drawn[2, 10].tolist() == list(class_colour(0))


@pytest.mark.parametrize(
    "size", [(1, 1), (1, 16), (16, 1), (7, 5), (3, 900), (900, 3), (16, 16)]
)
def test_pictures_too_small_for_letters_get_frames_alone(size):
    height, width = size
    whole = np.array([[0.0, 0.0, width, height]])
    drawn = draw.draw_boxes(grey(*size), whole, np.array([0]), np.array([1.0]), NAMES)
    assert drawn.shape == (height, width, 3)
    assert drawn[0, 0].tolist() == list(class_colour(0))
    assert drawn[-1, -1].tolist() == list(class_colour(0))


def test_lines_and_letters_grow_with_the_picture():
    def height_of_tag(scale):
        image = grey(480 * scale, 640 * scale)
        box = np.array([[100, 200, 300, 400]]) * scale
        drawn = draw.draw_boxes(image, box, np.array([0]), None, NAMES)
        return 200 * scale - changed(drawn)[0].min()

    assert height_of_tag(8) == pytest.approx(8 * height_of_tag(1), rel=0.15)


@pytest.mark.parametrize(
    "box",
    [
        [np.nan, 0, 5, 5],
        [0, 0, np.inf, 5],
        [15, 15, 5, 5],
        [40, 2, 60, 9],
        [2, -9, 9, -3],
        [2, -9, 9, 0],
    ],
    ids=["nan", "infinite", "inside-out", "right-of-it", "above-it", "touching-it"],
)
def test_boxes_that_cannot_show_are_left_out(box):
    drawn = draw.draw_boxes(
        grey(20, 30), np.array([box], np.float64), np.array([0]), None, NAMES
    )
    assert (drawn == 77).all()


def test_a_box_without_area_is_a_pixel_and_a_huge_one_frames_the_picture():
    drawn = draw.draw_boxes(
        grey(20, 30), np.array([[8.0, 5.0, 8.0, 5.0]]), np.array([0]), None, NAMES
    )
    assert np.transpose(changed(drawn)).tolist() == [[5, 8]]
    huge = np.array([[-1e30, -1e30, 1e30, 1e30]])
    drawn = draw.draw_boxes(grey(20, 30), huge, np.array([0]), None, NAMES)
    rows, columns = changed(drawn)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (0, 19, 0, 29)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((9, 9), np.uint8),
        np.zeros((9, 9, 4), np.uint8),
        np.zeros((9, 9, 3), np.float32),
        np.zeros((0, 9, 3), np.uint8),
    ],
)
def test_other_than_uint8_rgb_is_refused(image):
    with pytest.raises(ValueError, match="expected a uint8 RGB picture"):
        draw.draw_boxes(image, np.zeros((0, 4)), np.zeros(0), None, NAMES)


def test_lengths_that_disagree_are_refused():
    with pytest.raises(ValueError, match="1 boxes, 2 labels, 1 scores"):
        draw.draw_boxes(grey(9, 9), np.zeros((1, 4)), [0, 0], np.ones(1), NAMES)


def test_boxes_are_drawn_into_a_picture_that_is_a_view():
    image = grey(40, 40)[::-1, ::2]
    drawn = draw.draw_boxes(image, np.array([[2, 2, 9, 9]]), [0], None, NAMES)
    assert drawn.flags.c_contiguous and (drawn != image).any()


def test_png_comes_back_bit_for_bit_and_jpeg_nearly(tmp_path):
    image = np.zeros((32, 48, 3), np.uint8)
    image[:, :24] = (250, 30, 10)
    path = draw.save_image(tmp_path / "new" / "фото 猫.png", image)
    back = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(back[..., ::-1], image)
    path = draw.save_image(tmp_path / "x.JPG", image)
    back = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
    assert np.abs(back[8, 8, ::-1].astype(int) - (250, 30, 10)).max() < 8
    assert sorted(p.name for p in tmp_path.iterdir()) == ["new", "x.JPG"]


def test_a_failed_write_leaves_the_old_file_and_nothing_beside_it(
    tmp_path, monkeypatch
):
    path = draw.save_image(tmp_path / "a.png", grey(4, 4))
    before = path.read_bytes()

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(draw.os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        draw.save_image(path, grey(8, 8))
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_other_suffixes_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"written as \.png, \.jpg or \.jpeg"):
        draw.save_image(tmp_path / "a.tiff", grey(4, 4))


def test_a_sheet_places_pictures_in_rows_and_keeps_their_shape():
    red = np.full((10, 20, 3), (255, 0, 0), np.uint8)
    sheet = draw.contact_sheet([red] * 3, 2, cell_size=(40, 40), gap=5)
    assert sheet.shape == (2 * 45 + 5, 2 * 45 + 5, 3)
    rows, columns = np.nonzero((sheet == (255, 0, 0)).all(-1))
    # Fitted to 20 x 40 pixels and centred in its cell.
    expected = {(y, x) for y in range(15, 35) for x in (*range(5, 45), *range(50, 90))}
    expected |= {(y, x) for y in range(60, 80) for x in range(5, 45)}
    assert set(zip(rows.tolist(), columns.tolist(), strict=True)) == expected


def test_a_sheet_with_captions_has_a_line_under_each_row():
    images = [grey(1, 1), grey(900, 2), grey(3, 700)]
    plain = draw.contact_sheet(images, 3, cell_size=(50, 60))
    captions = ["a", "a very long caption that has no room", "猫"]
    captioned = draw.contact_sheet(images, 3, cell_size=(50, 60), captions=captions)
    assert captioned.shape[0] > plain.shape[0] and captioned.shape[1] == plain.shape[1]


def test_an_empty_sheet_and_too_few_captions_are_refused():
    with pytest.raises(ValueError, match="0 pictures"):
        draw.contact_sheet([], 2)
    with pytest.raises(ValueError, match="1 pictures, but 2 captions"):
        draw.contact_sheet([grey(4, 4)], 2, captions=["a", "b"])
