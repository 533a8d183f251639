import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from yolojax.augment import noise


def drawn(step, image, num=10_000, seed=0):
    """What a step makes of one picture, `num` times with draws of its own."""
    draws = jax.random.uniform(jax.random.key(seed), (num, step.num_draws))
    keys = jax.random.split(jax.random.key(seed + 1), num)
    images = jnp.broadcast_to(jnp.asarray(image, jnp.float32), (num, *image.shape))
    out = jax.jit(step.apply)(images, draws, jnp.ones((num,), bool), keys)
    return np.asarray(out, np.float64), np.asarray(draws, np.float64)


def assert_uniform(values, low, high):
    np.testing.assert_allclose(
        np.quantile(values, [0, 0.25, 0.5, 0.75, 1]),
        np.linspace(low, high, 5),
        atol=0.025 * (high - low),
    )


def test_sharpen_has_a_uniform_factor():
    image = np.full((3, 3, 3), 0.5)
    image[1, 1] = 0.6
    out, _ = drawn(noise.sharpen(factor=(0.2, 1.8)), image)
    # The centre lies 8 / 13 of 0.1 above the smooth picture.
    smooth = 0.6 - 0.1 * 8 / 13
    assert_uniform((out[:, 1, 1, 0] - smooth) / (0.6 - smooth), 0.2, 1.8)


def test_gaussian_blur_has_a_uniform_deviation():
    image = np.zeros((1, 13, 3))
    image[0, 6] = 1
    out, _ = drawn(noise.gaussian_blur(sigma=(0.5, 1.5)), image)
    # Beside the centre a Gaussian has fallen by exp(-1 / (2 sigma ** 2)).
    ratio = out[:, 0, 7, 0] / out[:, 0, 6, 0]
    assert_uniform(np.sqrt(-0.5 / np.log(ratio)), 0.5, 1.5)
    np.testing.assert_allclose(out.sum((1, 2)), 1, atol=1e-5)


def test_box_blur_has_a_uniform_radius():
    image = np.zeros((1, 9, 3))
    image[0, 4] = 1
    out, _ = drawn(noise.box_blur(radius=(1, 3)), image)
    assert_uniform((1 / out[:, 0, 4, 0] - 1) / 2, 1, 3)


def test_gaussian_noise_is_normal_and_independent():
    size = (40, 50)
    out, draws = drawn(
        noise.gaussian_noise(sigma=(0.02, 0.06)), np.full((*size, 3), 0.5), 400
    )
    sigmas = 0.02 + 0.04 * draws
    added = (out - 0.5) / sigmas[..., None, None]
    assert abs(added.mean()) < 2e-3
    assert abs(added.std() - 1) < 2e-3
    # Of 6000 numbers a sample, the deviation scatters by 0.9 %.
    np.testing.assert_allclose(added.std((1, 2, 3)), 1, atol=0.05)
    # The share within 1, 2, 3 and 4 deviations, and the fourth moment of a normal.
    shares = [(np.abs(added) < n).mean() for n in (1, 2, 3, 4)]
    np.testing.assert_allclose(shares, [0.6827, 0.9545, 0.9973, 0.99994], atol=1e-3)
    assert abs((added**4).mean() - 3) < 0.03
    for first, second in (
        (added[..., 0], added[..., 1]),
        (added[..., 0], added[..., 2]),
        (added[:, 1:], added[:, :-1]),
        (added[:, :, 1:], added[:, :, :-1]),
        (added[1:], added[:-1]),
        (added[:, 1:, 1:], added[:, :-1, :-1]),
    ):
        assert abs((first * second).mean()) < 4e-3
        assert abs((first**2 * second**2).mean() - 1) < 0.02


def test_gaussian_noise_has_a_uniform_deviation():
    image = np.full((8, 10, 3), 0.5)
    out, draws = drawn(noise.gaussian_noise(sigma=(0.02, 0.06)), image, 10_000)
    sigmas = out.std((1, 2, 3))
    # 240 numbers give a deviation to 5 %, so that only the middle is sharp.
    np.testing.assert_allclose(
        np.quantile(sigmas, [0.25, 0.5, 0.75]), [0.03, 0.04, 0.05], atol=1.5e-3
    )
    assert np.corrcoef(sigmas, draws[:, 0])[0, 1] > 0.95


def test_noise_of_a_pixel_hangs_on_its_place_and_key_alone():
    step = noise.gaussian_noise(sigma=(0.05, 0.05))
    apply = jax.jit(step.apply)
    keys = jax.random.split(jax.random.key(0), 2)
    draws, applied = jnp.zeros((2, 1)), jnp.ones((2,), bool)
    large = apply(jnp.full((2, 9, 12, 3), 0.5), draws, applied, keys)
    small = apply(jnp.full((2, 5, 7, 3), 0.5), draws, applied, keys)
    np.testing.assert_allclose(small, large[:, :5, :7], atol=1e-6)
    turned = apply(jnp.full((2, 9, 12, 3), 0.5), draws, applied, keys[::-1])
    np.testing.assert_allclose(turned, large[::-1], atol=1e-6)
    assert np.abs(large[0] - large[1]).mean() > 0.02


def test_salt_and_pepper_in_equal_shares_on_whole_pixels():
    out, draws = drawn(
        noise.salt_and_pepper(share=(0.0, 0.2)), np.full((20, 30, 3), 0.5), 2000
    )
    assert set(np.unique(out)) == {0.0, 0.5, 1.0}
    assert np.ptp(out, axis=-1).max() == 0
    salt, pepper = (out[..., 0] == 1).mean((1, 2)), (out[..., 0] == 0).mean((1, 2))
    np.testing.assert_allclose([salt.mean(), pepper.mean()], 0.05, atol=2e-3)
    # 600 pixels a picture: up to 1.6 % by chance in the share of one.
    np.testing.assert_allclose(salt + pepper, 0.2 * draws[:, 0], atol=0.08)
    assert np.abs(salt + pepper - 0.2 * draws[:, 0]).mean() < 0.012


def test_compression_takes_all_qualities_equally_often():
    # Blocks of one grey whose level after compression tells qualities apart.
    image = np.full((8, 8, 3), 37 / 255)
    out, _ = drawn(noise.compression(quality=(10, 19)), image, 10_000)
    expected = []
    for quality in range(10, 20):
        file = io.BytesIO()
        Image.fromarray(np.full((8, 8, 3), 37, np.uint8)).save(
            file, "JPEG", quality=quality
        )
        expected.append(np.asarray(Image.open(file))[0, 0, 0])
    levels = (out[:, 0, 0, 0] * 255).round().astype(int)
    for level, number in zip(*np.unique(expected, return_counts=True), strict=True):
        assert abs((levels == level).mean() - number / 10) < 0.02
    assert len(set(expected)) > 5 and set(levels) == set(expected)


@pytest.mark.parametrize(
    "function, arguments, message",
    [
        (noise.sharpen, dict(factor=(0, 11)), "sharpen: factor is .* from 0 to 10"),
        (noise.sharpen, dict(factor=1.5), "sharpen: factor is 1.5, expected 0 to 1"),
        (noise.gaussian_blur, dict(sigma=(2, 1)), r"gaussian_blur: sigma is \(2, 1\)"),
        (noise.gaussian_blur, dict(sigma=(0, 17)), "sigma is .* from 0 to 16"),
        (noise.box_blur, dict(radius=(-1, 2)), "box_blur: radius is .* from 0 to 32"),
        (noise.gaussian_noise, dict(sigma=(0, 2)), "gaussian_noise: sigma .* 0 to 1"),
        (noise.salt_and_pepper, dict(share=(0, 2)), "salt_and_pepper: share .* 0 to 1"),
        (noise.compression, dict(quality=(0, 50)), "compression: quality .* 1 to 100"),
        (noise.compression, dict(quality=(1.5, 5)), "quality is .* whole numbers"),
        (noise.compression, dict(chroma="4:1:1"), "compression: chroma is '4:1:1', ex"),
    ],
)
def test_a_wrong_argument_is_refused(function, arguments, message):
    with pytest.raises(ValueError, match=message):
        function(**arguments)
