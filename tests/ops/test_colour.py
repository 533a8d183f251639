import functools

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

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


# Operations of one strength: the least, a small, a large and the most sensible one.
STRENGTHS = {
    colour.scale_brightness: (0.0, 0.6, 1.7, 9.0),
    colour.scale_contrast: (0.0, 0.6, 1.7, 9.0),
    colour.scale_colour: (0.0, 0.6, 1.7, 9.0),
    colour.apply_gamma: (0.1, 0.7, 1.8, 10.0),
    colour.solarise: (0.0, 77.0, 200.0, 256.0),
    colour.posterise: (0.0, 3.0, 6.0, 8.0),
}
PLAIN = (colour.to_gray, colour.invert, colour.autocontrast, colour.equalise)
ALL = {f.__name__: f for f in (*STRENGTHS, *PLAIN)}


def kinds():
    """Pictures as they come: noise, pale, tinted, grey, one colour, two levels."""
    generator = np.random.default_rng(3)
    shape = (24, 32, 3)
    noise = generator.integers(0, 256, shape)
    pale = generator.normal(150, 9, shape).round().clip(0, 255)
    tinted = 255 * generator.beta([0.4, 2, 5], [3, 2, 0.4], shape)
    grey = np.repeat(generator.integers(40, 90, (24, 32, 1)), 3, axis=-1)
    single = np.broadcast_to([0, 114, 255], shape)
    two = np.where(generator.random(shape) < 0.02, 250, 10)
    return np.stack([noise, pale, tinted.round(), grey, single, two]).astype(np.uint8)


@functools.cache
def compiled(function):
    return jax.jit(function)


def levels(function, pictures, strength=None):
    """What an operation makes of 8-bit pictures, in levels."""
    images = jnp.asarray(pictures, jnp.float32) / 255.0
    if strength is None:
        out = compiled(function)(images)
    else:
        given = jnp.full(images.shape[:-3], strength, jnp.float32)
        out = compiled(function)(images, given)
    assert out.shape == images.shape and out.dtype == jnp.float32
    return np.asarray(out, np.float64) * 255


def pillow(function, pictures):
    return np.stack([np.asarray(function(Image.fromarray(p))) for p in pictures])


@pytest.mark.parametrize(
    "function, reference",
    [
        (colour.invert, ImageOps.invert),
        (colour.autocontrast, ImageOps.autocontrast),
        (colour.equalise, ImageOps.equalize),
    ],
    ids=["invert", "autocontrast", "equalise"],
)
def test_agrees_with_pillow_within_a_level(function, reference):
    out, expected = levels(function, kinds()), pillow(reference, kinds())
    # Pillow cuts off what is behind the point; equalise and invert give whole levels.
    most = 1.001 if function is colour.autocontrast else 1e-4
    assert np.abs(out - expected).max() < most


@pytest.mark.parametrize("strength", STRENGTHS[colour.solarise])
def test_solarise_is_that_of_pillow(strength):
    expected = pillow(lambda p: ImageOps.solarize(p, int(strength)), kinds())
    out = levels(colour.solarise, kinds(), strength)
    np.testing.assert_allclose(out, expected, atol=1e-4)


@pytest.mark.parametrize("bits", range(1, 9))
def test_posterise_is_that_of_pillow(bits):
    expected = pillow(lambda p: ImageOps.posterize(p, bits), kinds())
    out = levels(colour.posterise, kinds(), bits)
    np.testing.assert_allclose(out, expected, atol=1e-4)
    assert not levels(colour.posterise, kinds(), 0).any()


@pytest.mark.parametrize(
    "function, reference, most",
    [
        (colour.scale_brightness, ImageEnhance.Brightness, 1.0),
        # Pillow rounds the mean, which the factor then enlarges.
        (colour.scale_contrast, ImageEnhance.Contrast, 1.5),
        (colour.scale_colour, ImageEnhance.Color, 1.5),
    ],
    ids=["brightness", "contrast", "colour"],
)
def test_blends_agree_with_pillow(function, reference, most):
    for factor in (0.0, 0.1, 0.6, 1.0, 1.4, 1.9):
        expected = pillow(lambda p, f=factor: reference(p).enhance(f), kinds())
        difference = np.abs(levels(function, kinds(), factor) - expected)
        assert difference.max() < most
        # Pillow cuts off what is behind the point: half a level on average.
        assert difference.mean() < 0.8


def test_gray_is_the_luminance_of_pillow_and_opencv():
    out = levels(colour.to_gray, kinds())
    np.testing.assert_array_equal(out, out[..., :1].repeat(3, axis=-1))
    expected = np.stack([np.asarray(Image.fromarray(p).convert("L")) for p in kinds()])
    assert np.abs(out[..., 0] - expected).max() < 0.51
    floats = [cv2.cvtColor(p / np.float32(255), cv2.COLOR_RGB2GRAY) for p in kinds()]
    np.testing.assert_allclose(out[..., 0], np.stack(floats) * 255, atol=1e-3)


@pytest.mark.parametrize("exponent", STRENGTHS[colour.apply_gamma])
def test_gamma_is_a_power(exponent):
    expected = (kinds() / 255) ** exponent * 255
    out = levels(colour.apply_gamma, kinds(), exponent)
    np.testing.assert_allclose(out, expected, atol=2e-3)


def test_scale_and_shift_by_hand():
    image = jnp.asarray([0.0, 0.2, 0.8]).reshape(1, 1, 1, 3).repeat(3, axis=0)
    factors, shifts = jnp.asarray([1.5, 1.0, 0.5]), jnp.asarray([-0.1, 0.3, 0.0])
    out = jax.jit(colour.scale_and_shift)(image, factors, shifts)
    expected = [[0.0, 0.2, 1.0], [0.3, 0.5, 1.0], [0.0, 0.1, 0.4]]
    np.testing.assert_allclose(out[:, 0, 0], expected, atol=1e-6)


def test_channels_come_in_the_order_that_is_asked_for():
    image = jnp.asarray(kinds()[:2], jnp.float32) / 255.0
    orders = jnp.asarray([[2, 0, 1], [1, 1, 0]])
    out = jax.jit(colour.shuffle_channels)(image, orders)
    np.testing.assert_array_equal(out[0], image[0][..., [2, 0, 1]])
    np.testing.assert_array_equal(out[1], image[1][..., [1, 1, 0]])
    one = colour.shuffle_channels(image[0], orders[0])
    np.testing.assert_array_equal(one, out[0])


def test_a_value_between_two_levels_counts_as_the_nearer_one():
    image = jnp.asarray([99.4, 99.6, 100.4]).reshape(1, 1, 3) / 255.0
    out = np.asarray(colour.solarise(image, jnp.float32(100))) * 255
    np.testing.assert_allclose(out[0, 0], [99.4, 155.4, 154.6], atol=1e-4)
    out = np.asarray(colour.posterise(image, jnp.float32(6))) * 255
    np.testing.assert_allclose(out[0, 0], [96, 100, 100], atol=1e-4)


def test_rounding_errors_are_no_contrast():
    image = jnp.full((8, 8, 3), 0.4).at[0, 0].add(3e-7)
    np.testing.assert_array_equal(compiled(colour.autocontrast)(image), image)
    np.testing.assert_array_equal(compiled(colour.equalise)(image), image)


def test_equalise_makes_every_level_as_common_as_the_others():
    dark = 255 * np.random.default_rng(0).beta(2, 9, (1, 160, 160, 3))
    out = levels(colour.equalise, dark.round())
    counts = np.histogram(out, bins=16, range=(0, 256))[0] / out.size
    np.testing.assert_allclose(counts, 1 / 16, atol=0.02)


@pytest.mark.parametrize("name", ALL)
def test_operation_on_any_picture_and_strength(name):
    function = ALL[name]
    images = jnp.asarray(kinds(), jnp.float32) / 255.0
    strengths = STRENGTHS.get(function, (None,))
    each = jax.jit(jax.vmap(function))
    for strength in strengths:
        out = levels(function, kinds(), strength)
        assert np.isfinite(out).all() and out.min() >= 0 and out.max() <= 255 + 1e-4
        # A picture does not see its neighbours.
        given = () if strength is None else (jnp.full((6,), strength, jnp.float32),)
        mapped = each(images, *given)
        np.testing.assert_allclose(np.asarray(mapped) * 255, out, atol=1e-3)
    strength = None if strengths == (None,) else strengths[1]
    grey = levels(function, kinds(), strength)[3]
    assert np.ptp(grey, axis=-1).max() < 1e-3
    for value in (0, 9, 255):
        dot = levels(function, np.full((2, 1, 1, 3), value, np.uint8), strength)
        assert np.isfinite(dot).all() and dot.min() >= 0 and dot.max() <= 255
    none = jax.eval_shape(function, images[:0], *(g[:0] for g in given))
    assert none.shape == (0, 24, 32, 3)


@pytest.mark.parametrize("name", ALL)
def test_gradient_of_operation_is_finite(name):
    function = ALL[name]
    images = jnp.asarray(kinds(), jnp.float32) / 255.0
    given = [images]
    if function in STRENGTHS:
        given.append(jnp.linspace(*STRENGTHS[function][1:3], 6))
    slopes = jax.jit(
        jax.grad(lambda *a: jnp.sum(function(*a)), argnums=tuple(range(len(given))))
    )(*given)
    assert all(np.isfinite(slope).all() for slope in slopes)


def test_normalisations_by_hand_and_by_numpy():
    image = jnp.asarray(kinds(), jnp.float32) / 255.0
    assert set(colour.NORMALISATIONS) == {"unit", "statistics", "each"}
    unit, statistics, each = (
        np.asarray(jax.jit(f)(image), np.float64)
        for f in colour.NORMALISATIONS.values()
    )
    np.testing.assert_array_equal(unit, image)
    pixels = kinds() / 255
    expected = (pixels - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(statistics, expected, atol=1e-5)
    mean, std = pixels.mean((1, 2, 3)), pixels.std((1, 2, 3))
    expected = (pixels - mean[:, None, None, None]) / std[:, None, None, None]
    np.testing.assert_allclose(each, expected, atol=1e-4)
    mapped = jax.jit(jax.vmap(colour.normalise_each))(image)
    np.testing.assert_allclose(mapped, each, atol=1e-5)


def test_a_picture_of_one_colour_is_normalised_to_zero():
    image = jnp.full((2, 1, 1, 3), 0.3).at[1].set(1.0)
    np.testing.assert_allclose(compiled(colour.normalise_each)(image), 0, atol=1e-6)


def test_a_standard_deviation_of_zero_is_refused():
    with pytest.raises(ValueError, match="deviations are .*0.0.*, expected above 0"):
        colour.normalise_statistics(jnp.zeros((1, 1, 3)), std=(0.2, 0.0, 0.2))
