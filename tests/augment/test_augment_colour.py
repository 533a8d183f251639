import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from yolojax.augment import colour, noise
from yolojax.augment.colour import ColourStep, hsv
from yolojax.engine import sharding
from yolojax.ops import colour as ops

KEYS = jax.random.split(jax.random.key(2), 4)
STEPS = {
    "hsv": colour.hsv,
    "brightness": colour.brightness,
    "contrast": colour.contrast,
    "colour": colour.colour,
    "gamma": colour.gamma,
    "to_gray": colour.to_gray,
    "channel_shuffle": colour.channel_shuffle,
    "invert": colour.invert,
    "solarise": colour.solarise,
    "posterise": colour.posterise,
    "autocontrast": colour.autocontrast,
    "equalise": colour.equalise,
    "sharpen": noise.sharpen,
    "gaussian_blur": noise.gaussian_blur,
    "box_blur": noise.box_blur,
    "gaussian_noise": noise.gaussian_noise,
    "salt_and_pepper": noise.salt_and_pepper,
    "compression": noise.compression,
}


@functools.cache
def compiled(name):
    step = STEPS[name]()
    assert isinstance(step, ColourStep)
    return step.num_draws, jax.jit(step.apply)


def pictures(num=4, height=20, width=24):
    """Pale pictures, the last one grey."""
    image = 0.2 + 0.5 * jax.random.uniform(jax.random.key(1), (num, height, width, 3))
    return image.at[-1].set(image[-1, ..., :1])


def drawn(step, num=10_000, *, image, applied=True):
    """What a step makes of one picture, `num` times with draws of its own."""
    draws = jax.random.uniform(jax.random.key(0), (num, step.num_draws))
    keys = jax.random.split(jax.random.key(1), num)
    images = jnp.broadcast_to(jnp.asarray(image, jnp.float32), (num, *image.shape))
    out = jax.jit(step.apply)(images, draws, jnp.full((num,), applied), keys)
    return np.asarray(out, np.float64)


def assert_uniform(values, low, high):
    """Quantiles of 10,000 draws; they scatter by half a percent of the range."""
    np.testing.assert_allclose(
        np.quantile(values, [0, 0.25, 0.5, 0.75, 1]),
        np.linspace(low, high, 5),
        atol=0.025 * (high - low),
    )


@pytest.mark.parametrize("name", STEPS)
def test_step_changes_what_it_is_applied_to_and_no_bit_of_the_rest(name):
    num_draws, apply = compiled(name)
    image = pictures()
    draws = jnp.full((4, num_draws), 0.9)
    all_on, none = jnp.ones((4,), bool), jnp.zeros((4,), bool)
    full = apply(image, draws, all_on, KEYS)
    assert full.shape == image.shape and full.dtype == jnp.float32
    assert np.isfinite(full).all() and full.min() >= 0 and full.max() <= 1
    assert (np.abs(full - image).max(axis=(1, 2, 3))[:3] > 1e-3).all()
    some = apply(image, draws, jnp.asarray([True, False, True, False]), KEYS)
    np.testing.assert_array_equal(some[1::2], image[1::2])
    np.testing.assert_allclose(some[::2], full[::2], atol=1e-6)
    np.testing.assert_array_equal(apply(image, draws, none, KEYS), image)
    # The same numbers once more, and in the place of another sample.
    np.testing.assert_array_equal(apply(image, draws, all_on, KEYS), full)
    turned = apply(image[::-1], draws, all_on, KEYS[::-1])
    np.testing.assert_allclose(turned[::-1], full, atol=1e-6)


@pytest.mark.parametrize("name", STEPS)
def test_step_takes_all_draws_and_any_picture(name):
    num_draws, apply = compiled(name)
    all_on = jnp.ones((4,), bool)
    levels = jnp.asarray([0.0, 114 / 255, 1.0])
    flat = jnp.broadcast_to(levels[:, None, None, None], (3, 20, 24, 3))
    image = jnp.concatenate([flat, pictures()[:1]])
    for draw in (0.0, 1 - 2**-24):
        draws = jnp.full((4, num_draws), draw, jnp.float32)
        out = np.asarray(apply(image, draws, all_on, KEYS))
        assert np.isfinite(out).all() and out.min() >= 0 and out.max() <= 1
    if name in ("gaussian_noise", "salt_and_pepper"):
        # One pixel; the others' functions see one in the tests of `ops`.
        out = np.asarray(apply(image[:, :1, :1], draws, all_on, KEYS))
        assert out.shape == (4, 1, 1, 3)
        assert np.isfinite(out).all() and out.min() >= 0 and out.max() <= 1


@pytest.mark.parametrize("name", ["equalise", "gaussian_blur", "gaussian_noise"])
def test_four_devices_give_what_one_gives(name):
    num_draws, apply = compiled(name)
    given = (pictures(), jnp.full((4, num_draws), 0.7), jnp.ones((4,), bool), KEYS)
    mesh = sharding.make_mesh(4)
    split = [jax.device_put(x, sharding.split(mesh)) for x in given]
    out = apply(*split)
    assert out.sharding.is_equivalent_to(sharding.split(mesh), 4)
    np.testing.assert_allclose(out, apply(*given), atol=1e-6)


def test_steps_run_under_vmap():
    image = jnp.stack([pictures(2), 1.0 - pictures(2)])
    keys = jax.random.split(jax.random.key(3), (2, 2))
    for name in ("contrast", "equalise", "gaussian_blur", "salt_and_pepper"):
        num_draws, apply = compiled(name)
        given = (image, jnp.full((2, 2, num_draws), 0.3), jnp.ones((2, 2), bool), keys)
        mapped = jax.jit(jax.vmap(apply))(*given)
        for row in range(2):
            alone = apply(*(x[row] for x in given))
            np.testing.assert_allclose(mapped[row], alone, atol=1e-6)


def test_hsv_value_gain_is_uniform():
    step = hsv(hue=0, saturation=0, value=0.4)
    out = drawn(step, image=np.full((1, 1, 3), 0.5))
    assert_uniform(out[:, 0, 0, 0] / 0.5, 0.6, 1.4)


def test_each_range_of_hsv_belongs_to_its_own_draw():
    step = hsv(hue=0.1, saturation=0.2, value=0.3)
    image = jax.random.uniform(jax.random.key(1), (2, 4, 4, 3))
    draws = jnp.asarray([[0.0, 0.5, 1.0], [1.0, 0.0, 0.5]])
    out = jax.jit(step.apply)(image, draws, jnp.ones((2,), bool), KEYS[:2])
    gains = jnp.asarray([[0.9, 1.0, 1.3], [1.1, 0.8, 1.0]])
    np.testing.assert_allclose(out, jax.jit(ops.scale_hsv)(image, gains), atol=1e-5)


def test_brightness_has_a_uniform_factor_and_a_uniform_shift():
    image = np.float64([0.2, 0.4, 0.6]).reshape(1, 1, 3)
    out = drawn(colour.brightness(factor=0.3, shift=0.1), image=image)[:, 0, 0]
    factors = (out[:, 2] - out[:, 0]) / 0.4
    shifts = out[:, 0] - 0.2 * factors
    assert_uniform(factors, 0.7, 1.3)
    assert_uniform(shifts, -0.1, 0.1)
    assert abs(np.corrcoef(factors, shifts)[0, 1]) < 0.04


def test_a_range_of_factors_may_be_given():
    for function in (colour.brightness, colour.contrast, colour.colour):
        image = np.float64([[0.1, 0.2, 0.1], [0.2, 0.3, 0.3]]).reshape(1, 2, 3)
        out = drawn(function(factor=[0.5, 1.2]), image=image)
        # Of contrast and colour, differences of pixels and of channels are scaled.
        spread = (
            (out[:, 0, 1] - out[:, 0, 0])[:, 1]
            if function is not colour.colour
            else (out[:, 0, 0, 1] - out[:, 0, 0, 0])
        )
        assert_uniform(spread / 0.1, 0.5, 1.2)


def test_gamma_has_a_uniform_exponent():
    out = drawn(colour.gamma(exponent=(0.5, 2)), image=np.full((1, 1, 3), 0.3))
    assert_uniform(np.log(out[:, 0, 0, 0]) / np.log(0.3), 0.5, 2)


def test_channel_shuffle_takes_all_orders_equally_often():
    out = drawn(colour.channel_shuffle(), image=np.float64([[[0.1, 0.2, 0.3]]]))
    orders, counts = np.unique(out[:, 0, 0].round(3), axis=0, return_counts=True)
    assert len(orders) == 6 and (np.diff(np.sort(orders, axis=1)) > 0).all()
    np.testing.assert_allclose(counts / 10_000, 1 / 6, atol=0.02)


def test_solarise_has_a_uniform_threshold():
    ramp = (np.arange(256) / 255).reshape(1, 256, 1).repeat(3, -1)
    out = drawn(colour.solarise(threshold=(0, 256)), 2000, image=ramp)
    # A level below the threshold stays; 127 and 128 change places.
    kept = (np.abs(out - ramp)[..., 0] < 1e-4).sum((1, 2))
    assert_uniform(kept, 0, 256)
    fixed = drawn(colour.solarise(), 2, image=ramp)
    assert (np.abs(fixed - ramp)[..., 0] < 1e-4).sum() == 2 * 128


def test_posterise_takes_all_numbers_of_bits_equally_often():
    ramp = (np.arange(256) / 255).reshape(1, 256, 1).repeat(3, -1)
    out = drawn(colour.posterise(bits=(2, 5)), 2000, image=ramp)
    numbers = [len(np.unique(row.round(5))) for row in out]
    levels, counts = np.unique(numbers, return_counts=True)
    np.testing.assert_array_equal(levels, [4, 8, 16, 32])
    np.testing.assert_allclose(counts / 2000, 1 / 4, atol=0.04)


@pytest.mark.parametrize(
    "function, arguments, message",
    [
        (hsv, dict(hue=1.5), "hsv: hue is 1.5, expected 0 to 1"),
        (hsv, dict(saturation=-1), "hsv: saturation is -1, expected 0 to 1"),
        (hsv, dict(value=1.5), "hsv: value is 1.5, expected 0 to 1"),
        (colour.brightness, dict(factor=1.1), "brightness: factor is 1.1, expected 0"),
        (colour.brightness, dict(shift=2), "brightness: shift is 2, expected 0 to 1"),
        (colour.contrast, dict(factor=-0.1), "contrast: factor is -0.1, expected 0"),
        (colour.contrast, dict(factor=(2, 1)), r"contrast: factor is \(2, 1\), expec"),
        (colour.colour, dict(factor=(0, 11)), "expected two numbers, .* from 0 to 10"),
        (
            colour.gamma,
            dict(exponent=(0, 2)),
            r"gamma: exponent is \(0, 2\).*0.1 to 10",
        ),
        (colour.gamma, dict(exponent=(1, float("nan"))), "gamma: exponent is"),
        (colour.solarise, dict(threshold=(0, 257)), "solarise: threshold .* 0 to 256"),
        (colour.solarise, dict(threshold=[1, 2, 3]), "threshold is .* two numbers"),
        (colour.posterise, dict(bits=(0, 4)), "posterise: bits is .* from 1 to 8"),
        (colour.posterise, dict(bits=(4, 5.5)), "bits is .* expected whole numbers"),
    ],
)
def test_a_wrong_argument_is_refused(function, arguments, message):
    with pytest.raises(ValueError, match=message):
        function(**arguments)
