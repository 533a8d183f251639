import functools

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter

from yolojax.ops import filters

gaussian = jax.jit(functools.partial(filters.gaussian_blur, radius=6))
box = jax.jit(functools.partial(filters.box_blur, max_radius=4))
sharpness = jax.jit(filters.scale_sharpness)
OPERATIONS = {
    "gaussian": (gaussian, (0.0, 0.8, 2.0)),
    "box": (box, (0.0, 1.4, 4.0)),
    "sharpness": (sharpness, (0.0, 1.7, 10.0)),
}


def kinds():
    """Noise, noise in grey, one colour, and a few white points on black."""
    generator = np.random.default_rng(3)
    noise = generator.integers(0, 256, (24, 32, 3))
    grey = generator.integers(0, 256, (24, 32, 1)).repeat(3, axis=-1)
    single = np.broadcast_to([0, 114, 255], noise.shape)
    points = 255 * (generator.random(noise.shape) < 0.03)
    return np.stack([noise, grey, single, points]).astype(np.uint8)


def levels(function, pictures, strength):
    images = jnp.asarray(pictures, jnp.float32) / 255.0
    out = function(images, jnp.full(images.shape[:-3], strength, jnp.float32))
    assert out.shape == images.shape and out.dtype == jnp.float32
    return np.asarray(out, np.float64) * 255


@pytest.mark.parametrize("sigma", [0.3, 0.8, 1.5, 2.0])
def test_gaussian_is_that_of_opencv(sigma):
    expected = [
        cv2.GaussianBlur(
            p.astype(np.float64), (13, 13), sigma, borderType=cv2.BORDER_REPLICATE
        )
        for p in kinds()
    ]
    out = levels(gaussian, kinds(), sigma)
    np.testing.assert_allclose(out, np.stack(expected), atol=1e-3)


@pytest.mark.parametrize("radius", [0, 1, 3, 4])
def test_box_is_that_of_opencv(radius):
    side = 2 * radius + 1
    expected = [
        cv2.blur(p.astype(np.float64), (side, side), borderType=cv2.BORDER_REPLICATE)
        for p in kinds()
    ]
    out = levels(box, kinds(), radius)
    np.testing.assert_allclose(out, np.stack(expected), atol=1e-3)


@pytest.mark.parametrize("radius", [0.5, 1.25, 2.7, 4])
def test_box_of_any_radius_is_that_of_pillow(radius):
    expected = [
        np.asarray(Image.fromarray(p).filter(ImageFilter.BoxBlur(radius)))
        for p in kinds()
    ]
    # Pillow rounds to levels after the rows and after the columns.
    assert np.abs(levels(box, kinds(), radius) - np.stack(expected)).max() < 1.01


@pytest.mark.parametrize("factor", [0.0, 0.5, 1.0, 1.5, 1.9, 4.0])
def test_sharpness_is_that_of_pillow(factor):
    expected = [
        np.asarray(ImageEnhance.Sharpness(Image.fromarray(p)).enhance(factor))
        for p in kinds()
    ]
    difference = np.abs(levels(sharpness, kinds(), factor) - np.stack(expected))
    # Pillow rounds the smooth picture, which the factor enlarges, and cuts the result.
    assert difference.max() < 1.01 + 0.5 * abs(1 - factor)
    assert difference.mean() < 0.8


def test_each_sample_has_its_own_strength():
    for function, strengths in OPERATIONS.values():
        images = jnp.asarray(kinds(), jnp.float32) / 255.0
        out = function(images, jnp.asarray((*strengths, strengths[0])))
        for row, strength in enumerate(strengths):
            same = levels(function, kinds(), strength)
            np.testing.assert_allclose(out[row] * 255, same[row], atol=1e-3)


def test_no_strength_leaves_the_picture():
    np.testing.assert_allclose(levels(gaussian, kinds(), 0), kinds(), atol=1e-4)
    np.testing.assert_allclose(levels(box, kinds(), 0), kinds(), atol=1e-4)
    np.testing.assert_allclose(levels(sharpness, kinds(), 1), kinds(), atol=1e-4)
    none = filters.gaussian_blur(jnp.ones((2, 3, 3, 3)), jnp.ones((2,)), radius=0)
    np.testing.assert_array_equal(none, 1.0)


def test_blur_keeps_the_mean_away_from_the_edge():
    image = np.zeros((1, 24, 32, 3))
    image[0, 12, 16] = 255
    for function, strength in ((gaussian, 1.7), (box, 2.6)):
        np.testing.assert_allclose(
            levels(function, image, strength).sum((1, 2)), 255, rtol=1e-4
        )


@pytest.mark.parametrize("name", OPERATIONS)
def test_filter_on_any_picture(name):
    function, strengths = OPERATIONS[name]
    images = jnp.asarray(kinds(), jnp.float32) / 255.0
    for strength in strengths:
        out = levels(function, kinds(), strength)
        assert out.min() >= 0 and out.max() <= 255 + 1e-4
        assert np.ptp(out[1], axis=-1).max() < 1e-3
        np.testing.assert_allclose(out[2], kinds()[2], atol=1e-3)
    given = jnp.linspace(*strengths[::2], 4)
    plain = function(images, given)
    mapped = jax.jit(jax.vmap(function))(images, given)
    np.testing.assert_allclose(mapped, plain, atol=1e-5)
    np.testing.assert_allclose(function(images[0], given[0]), plain[0], atol=1e-5)
    assert jax.eval_shape(function, images[:0], given[:0]).shape == (0, 24, 32, 3)
    slopes = jax.jit(jax.grad(lambda *a: jnp.sum(function(*a)), argnums=(0, 1)))(
        images, given
    )
    assert all(np.isfinite(slope).all() for slope in slopes)


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("shape", [(1, 1), (2, 9)], ids=["dot", "flat"])
def test_filter_on_pictures_smaller_than_the_kernel(name, shape):
    function, strengths = OPERATIONS[name]
    dots = np.random.default_rng(0).integers(0, 256, (2, *shape, 3), np.uint8)
    out = levels(function, dots, strengths[1])
    assert out.min() >= 0 and out.max() <= 255 + 1e-4
    if shape == (1, 1):
        np.testing.assert_allclose(out, dots, atol=1e-3)
    elif name == "gaussian":
        expected = [
            cv2.GaussianBlur(
                p.astype(np.float64), (13, 13), 0.8, borderType=cv2.BORDER_REPLICATE
            )
            for p in dots
        ]
        np.testing.assert_allclose(out, np.stack(expected), atol=1e-3)
