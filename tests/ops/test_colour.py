import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from yolojax.ops import colour

scale_hsv = jax.jit(colour.scale_hsv)

GAINS = [(1.015, 0.6, 0.8), (0.985, 1.7, 1.4), (0.99, 1.3, 0.6), (1.0, 1.0, 1.0)]


def colours(seed=0):
    return np.random.default_rng(seed).integers(0, 256, (24, 32, 3), dtype=np.uint8)


def scaled(image, gains):
    given = jnp.asarray(image, jnp.float32) / 255.0
    return np.asarray(scale_hsv(given, jnp.asarray(gains, jnp.float32))) * 255


@pytest.mark.parametrize("gains", GAINS)
def test_agrees_with_opencv_in_floats(gains):
    hsv = cv2.cvtColor(colours().astype(np.float32) / 255, cv2.COLOR_RGB2HSV)
    hsv[..., 0] = hsv[..., 0] * gains[0] % 360
    hsv[..., 1] = np.clip(hsv[..., 1] * gains[1], 0, 1)
    hsv[..., 2] = np.clip(hsv[..., 2] * gains[2], 0, 1)
    expected = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB) * 255
    np.testing.assert_allclose(scaled(colours(), gains), expected, atol=0.02)


@pytest.mark.parametrize("gains", GAINS)
def test_agrees_with_published_lookup_tables_to_two_grey_levels(gains):
    levels = np.arange(256, dtype=np.float32)
    tables = (
        (levels * gains[0]) % 180,
        np.clip(levels * gains[1], 0, 255),
        np.clip(levels * gains[2], 0, 255),
    )
    hsv = cv2.cvtColor(colours(), cv2.COLOR_RGB2HSV)
    parts = [
        cv2.LUT(np.ascontiguousarray(hsv[..., i]), table.astype(np.uint8))
        for i, table in enumerate(tables)
    ]
    expected = cv2.cvtColor(cv2.merge(parts), cv2.COLOR_HSV2RGB)
    assert np.abs(scaled(colours(), gains) - expected).mean() < 2.0


@pytest.mark.parametrize(
    "given, gains, expected",
    [
        ((0, 255, 0), (2.0, 1, 1), (0, 0, 255)),
        ((0, 0, 255), (2.0, 1, 1), (0, 255, 0)),
        ((255, 0, 0), (1, 0.5, 1), (255, 127.5, 127.5)),
        ((200, 100, 0), (1, 1, 0.5), (100, 50, 0)),
        ((200, 100, 0), (1, 1, 2.0), (255, 127.5, 0)),
        ((200, 100, 100), (1, 9.0, 1), (200, 0, 0)),
        ((80, 80, 80), (1.01, 1.7, 1), (80, 80, 80)),
        ((0, 0, 0), (1.01, 1.7, 1.4), (0, 0, 0)),
    ],
    ids=["turned", "wraps", "pale", "dark", "bright", "full", "grey", "black"],
)
def test_by_hand(given, gains, expected):
    image = np.float32(given).reshape(1, 1, 3)
    np.testing.assert_allclose(scaled(image, gains)[0, 0], expected, atol=1e-3)


def test_runs_under_jit_and_vmap_on_empty_input_and_has_a_finite_gradient():
    images = jnp.asarray(np.stack([colours(1), colours(2)]), jnp.float32) / 255.0
    images = images.at[0, 0].set(0.5).at[0, 1].set(0.0)
    gains = jnp.asarray(GAINS[:2], jnp.float32)
    plain = scale_hsv(images, gains)
    mapped = jax.vmap(scale_hsv)(images, gains)
    np.testing.assert_allclose(mapped, plain, atol=1e-6)
    assert scale_hsv(images[:0], gains[:0]).shape == (0, 24, 32, 3)
    slopes = jax.jit(jax.grad(lambda i, g: jnp.sum(scale_hsv(i, g)), argnums=(0, 1)))(
        images, gains
    )
    assert all(np.isfinite(slope).all() for slope in slopes)
