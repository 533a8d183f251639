import jax
import jax.numpy as jnp
import numpy as np

from yolojax.ops import boxes

CORNERS = jnp.array([[10.0, 20.0, 30.0, 60.0], [-4.0, 0.0, 4.0, 2.0]])
CENTRES = jnp.array([[20.0, 40.0, 20.0, 40.0], [0.0, 1.0, 8.0, 2.0]])


def test_corners_become_centre_and_size():
    np.testing.assert_array_equal(boxes.corners_to_centres(CORNERS), CENTRES)


def test_centre_and_size_become_corners():
    np.testing.assert_array_equal(boxes.centres_to_corners(CENTRES), CORNERS)


def test_area_is_the_product_of_the_sides_and_zero_for_swapped_corners():
    swapped = jnp.array([[5.0, 0.0, 1.0, 3.0], [5.0, 3.0, 1.0, 0.0]])
    np.testing.assert_array_equal(boxes.box_area(CORNERS), [800, 16])
    np.testing.assert_array_equal(boxes.box_area(swapped), [0, 0])


def test_clipping_keeps_height_and_width_apart():
    clipped = boxes.clip_boxes(CORNERS, jnp.array([[50, 25]]))
    np.testing.assert_array_equal(clipped, [[10, 20, 25, 50], [0, 0, 4, 2]])


def test_boxes_outside_clip_to_nothing():
    outside = jnp.array([[-9.0, -9.0, -1.0, -1.0], [90.0, 2.0, 99.0, 8.0]])
    clipped = boxes.clip_boxes(outside, jnp.array([[50, 25]]))
    np.testing.assert_array_equal(boxes.box_area(clipped), [0, 0])


def test_each_picture_of_a_batch_clips_to_its_own_size():
    batch = jnp.broadcast_to(CORNERS, (3, 2, 4))
    sizes = jnp.array([[50, 25], [30, 100], [1, 1]])
    clipped = boxes.clip_boxes(batch, sizes[:, None])
    apart = jax.vmap(lambda b, s: boxes.clip_boxes(b, s[None]))(batch, sizes)
    np.testing.assert_array_equal(clipped, apart)
    np.testing.assert_array_equal(clipped[1, 0], [10, 20, 30, 30])


def test_no_boxes_give_no_boxes():
    empty = jnp.zeros((0, 4))
    assert boxes.corners_to_centres(empty).shape == (0, 4)
    assert boxes.centres_to_corners(empty).shape == (0, 4)
    assert boxes.box_area(empty).shape == (0,)
    assert boxes.clip_boxes(empty, jnp.array([[5, 5]])).shape == (0, 4)


def test_conversions_run_under_jit_with_finite_gradients():
    def total(x):
        there = boxes.centres_to_corners(boxes.corners_to_centres(x))
        return jnp.sum(boxes.box_area(there))

    gradient = jax.jit(jax.grad(total))(jnp.zeros((2, 4)))
    assert np.isfinite(gradient).all()
