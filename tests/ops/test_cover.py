import jax
import jax.numpy as jnp
import numpy as np
import pytest

from yolojax.ops import cover

uncovered_boxes = jax.jit(cover.uncovered_boxes)
unmasked_boxes = jax.jit(cover.unmasked_boxes)
BOX = np.float32([[10, 20, 30, 60]])


def left_on_grid(box, mask):
    """By counting the pixels of a box with whole corners."""
    x1, y1, x2, y2 = box.astype(int)
    seen = ~mask[y1:y2, x1:x2]
    if not seen.any():
        return np.zeros(4), 0.0
    rows, columns = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
    around = [x1 + columns[0], y1 + rows[0], x1 + columns[-1] + 1, y1 + rows[-1] + 1]
    return np.array(around), seen.mean()


def random_boxes(generator, num, height, width):
    low = generator.integers(0, [width - 1, height - 1], (num, 2))
    high = generator.integers(low + 1, [width + 1, height + 1])
    return np.concatenate([low, high], axis=-1).astype(np.float32)


@pytest.mark.parametrize(
    "rectangle, left, share",
    [
        ([0, 0, 5, 5], [10, 20, 30, 60], 1.0),
        ([12, 30, 20, 40], [10, 20, 30, 60], 0.9),
        ([0, 0, 15, 100], [15, 20, 30, 60], 0.75),
        ([25.5, 0, 99, 99], [10, 20, 25.5, 60], 0.775),
        ([10, 20, 30, 30], [10, 30, 30, 60], 0.75),
        ([0, 50, 40, 80], [10, 20, 30, 50], 0.75),
        ([0, 30, 40, 40], [10, 20, 30, 60], 0.75),
        ([10, 20, 30, 60], [0, 0, 0, 0], 0.0),
        ([20, 0, 20, 99], [10, 20, 30, 60], 1.0),
    ],
    ids="beside inside left right top bottom across all empty".split(),
)
def test_one_rectangle_leaves_what_it_does_not_cover(rectangle, left, share):
    boxes, shares = uncovered_boxes(BOX, np.float32([rectangle]))
    np.testing.assert_allclose(boxes, [left], atol=1e-6)
    np.testing.assert_allclose(shares, [share], atol=1e-6)


def test_both_agree_with_counting_pixels():
    generator = np.random.default_rng(0)
    for num_rectangles in (1, 2, 5):
        boxes = random_boxes(generator, 40, 24, 32)
        rectangles = random_boxes(generator, num_rectangles, 24, 32)
        mask = np.asarray(
            cover.rectangle_mask(jnp.asarray(rectangles)[None], (24, 32))[0]
        )
        expected = [left_on_grid(box, mask) for box in boxes]
        for found, share in (
            uncovered_boxes(boxes, rectangles),
            (x[0] for x in unmasked_boxes(boxes[None], mask[None])),
        ):
            np.testing.assert_allclose(found, [e[0] for e in expected], atol=1e-5)
            np.testing.assert_allclose(share, [e[1] for e in expected], atol=1e-5)


def test_a_mask_weighs_the_pixels_that_a_box_takes_part_of():
    mask = np.zeros((1, 8, 8), bool)
    mask[0, :, 2] = True
    boxes = np.float32([[[2.5, 1, 4.5, 3], [1.25, 1.5, 2.75, 3], [2.25, 1, 2.75, 2]]])
    found, share = unmasked_boxes(boxes, mask)
    np.testing.assert_allclose(
        found[0], [[3, 1, 4.5, 3], [1.25, 1.5, 2, 3], [0, 0, 0, 0]]
    )
    np.testing.assert_allclose(share[0], [0.75, 0.5, 0.0], atol=1e-6)


def test_an_empty_mask_changes_no_bit():
    generator = np.random.default_rng(1)
    low = generator.uniform(0, 20, (3, 9, 2))
    boxes = np.concatenate([low, low + generator.uniform(0.1, 12, low.shape)], -1)
    boxes = boxes.astype(np.float32)
    found, share = unmasked_boxes(boxes, np.zeros((3, 32, 32), bool))
    np.testing.assert_array_equal(found, boxes)
    np.testing.assert_array_equal(share, 1)


def test_boxes_without_area_are_left_without():
    points = np.float32([[3, 3, 3, 3], [2, 5, 6, 5]])
    for found, share in (
        uncovered_boxes(points, np.float32([[0, 0, 1, 1]])),
        unmasked_boxes(points[None], np.zeros((1, 8, 8), bool)),
    ):
        assert not np.asarray(found).any() and not np.asarray(share).any()


def test_no_boxes_and_no_rectangles():
    none = np.zeros((0, 4), np.float32)
    assert uncovered_boxes(none, BOX)[0].shape == (0, 4)
    found, share = uncovered_boxes(BOX, none)
    np.testing.assert_array_equal(found, BOX)
    np.testing.assert_array_equal(share, 1)
    found, share = unmasked_boxes(none[None], np.zeros((1, 1, 1), bool))
    assert found.shape == (1, 0, 4) and share.shape == (1, 0)
    assert not cover.rectangle_mask(jnp.zeros((1, 0, 4)), (2, 3)).any()


def test_vmap_is_the_loop():
    generator = np.random.default_rng(2)
    boxes = np.stack([random_boxes(generator, 5, 24, 32) for _ in range(3)])
    rectangles = np.stack([random_boxes(generator, 2, 24, 32) for _ in range(3)])
    together = jax.jit(jax.vmap(cover.uncovered_boxes))(boxes, rectangles)
    whole = uncovered_boxes(boxes, rectangles)
    for i in range(3):
        alone = uncovered_boxes(boxes[i], rectangles[i])
        for a, b, c in zip(alone, together, whole, strict=True):
            np.testing.assert_array_equal(a, b[i])
            np.testing.assert_array_equal(a, c[i])
