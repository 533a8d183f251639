"""Views show what they say, and boxes come back to where they were seen."""

import jax.numpy as jnp
import numpy as np
import pytest

from yolojax.ops import views
from yolojax.ops.views import View


def extent(picture, threshold=0.5):
    """x1 y1 x2 y2 of what is red, in pixels."""
    rows, columns = np.nonzero(np.asarray(picture)[..., 0] > threshold)
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("scale", [1.0, 0.5, 2.0])
def test_a_box_seen_on_a_view_comes_back(scale, mirrored):
    picture = np.zeros((1, 32, 64, 3), np.float32)
    box = [8, 4, 24, 28]
    picture[0, 4:28, 8:24, 0] = 1
    view = View(scale, mirrored)
    seen = views.view_of(jnp.asarray(picture), view, stride=16)
    found = jnp.array([[extent(seen[0])]], jnp.float32)
    if mirrored:
        assert extent(seen[0])[0] == (64 - 24) * scale
    back = views.boxes_from_view(found, view, size=(32, 64))
    np.testing.assert_allclose(back, [[box]], atol=1e-5)


def test_sizes_are_filled_up_to_the_stride_and_boxes_undo_the_rounded_scale():
    images = jnp.ones((2, 64, 96, 3), jnp.float32)
    view = View(0.83, mirrored=True)
    seen = views.view_of(images, view, stride=32)
    # 53.12 and 79.68 pixels, cut to whole ones.
    assert views.view_size((64, 96), view) == (53, 79)
    assert seen.shape == (2, 64, 96, 3)
    np.testing.assert_array_equal(seen[:, :53, :79], 1)
    np.testing.assert_allclose(seen[:, 53:], 114 / 255)
    np.testing.assert_allclose(seen[:, :, 79:], 114 / 255)
    whole = jnp.array([[0.0, 0.0, 79.0, 53.0]])
    back = views.boxes_from_view(whole, view, size=(64, 96))
    np.testing.assert_allclose(back, [[0, 0, 96, 64]], atol=1e-4)


def test_the_plain_view_changes_no_bit():
    images = jnp.asarray(np.random.default_rng(0).random((1, 32, 32, 3)), "float32")
    np.testing.assert_array_equal(
        views.view_of(images, views.PLAIN, stride=32), images, strict=True
    )
    boxes = jnp.array([[0.1, 0.2, 30.3, 31.7]])
    back = views.boxes_from_view(boxes, views.PLAIN, size=(32, 32))
    np.testing.assert_array_equal(back, boxes, strict=True)


def test_no_view_is_empty():
    images = jnp.ones((1, 32, 32, 3), jnp.float32)
    assert views.view_of(images, View(0.01), stride=8).shape == (1, 8, 8, 3)
