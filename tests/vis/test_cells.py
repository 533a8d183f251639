import numpy as np

from yolojax.vis.cells import draw_cell


def test_small_pictures_are_enlarged_with_their_boxes():
    image = np.zeros((24, 48, 3), np.uint8)
    box = np.array([[12.0, 6.0, 36.0, 18.0]])
    drawn = draw_cell(image, box, np.zeros(1, np.int32), None, ["a"], at_least=480)
    assert drawn.shape == (240, 480, 3)
    # The box is 120 to 360 wide and 60 to 180 high; its lower corners carry no tag.
    assert drawn[178:182, 130:350].any(axis=2).any(axis=0).all()
    assert not drawn[90:150, 200:280].any()


def test_large_pictures_keep_their_size():
    image = np.zeros((500, 600, 3), np.uint8)
    none = np.zeros((0, 4)), np.zeros(0, np.int32)
    drawn = draw_cell(image, *none, None, ["a"])
    np.testing.assert_array_equal(drawn, image)
