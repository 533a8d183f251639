"""Random loss of quality: sharpness, blur, noise and compression.

As in `yolojax.augment.colour`: a function of hyper-parameters that returns a
`ColourStep`, ranges as pairs, and every pixel of the output takes part.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Key, UInt32

from yolojax.augment.colour import (
    ColourStep,
    Pair,
    between,
    make_step,
    read_factor,
    read_pair,
    read_whole_pair,
    whole_between,
)
from yolojax.ops.filters import box_blur as blur_by_box
from yolojax.ops.filters import gaussian_blur as blur_by_gaussian
from yolojax.ops.filters import scale_sharpness
from yolojax.ops.jpeg import CHROMA, compress

# A Gaussian kernel reaches this many standard deviations to each side.
REACH = 3.0


def sharpen(*, factor: float | int | Pair = (1.0, 2.0)) -> ColourStep:
    """Move values away from those of a smoothed picture, or towards it, by a factor.

    Args:
        factor: range of the factor, below 1 smoother and above 1 sharper; a number is
            short for `(1 - factor, 1 + factor)`.

    Raises:
        ValueError: neither a number in [0, 1] nor a range within [0, 10].
    """
    ends = read_factor("sharpen: factor", factor)

    def change(image: Array, draws: Array, keys: Array) -> Array:
        return scale_sharpness(image, between(draws[:, 0], ends))

    return make_step(1, change, costly=True)


def gaussian_blur(*, sigma: Pair = (0.1, 2.0)) -> ColourStep:
    """Blur by a Gaussian.

    Args:
        sigma: range of its standard deviation, in pixels. The upper end sets the size
            of the kernel for all, three times as far to each side, and so the cost.

    Raises:
        ValueError: not a range within [0, 16].
    """
    ends = read_pair("gaussian_blur: sigma", sigma, 0.0, 16.0)
    radius = math.ceil(REACH * ends[1])

    def change(image: Array, draws: Array, keys: Array) -> Array:
        return blur_by_gaussian(image, between(draws[:, 0], ends), radius=radius)

    return make_step(1, change, costly=True)


def box_blur(*, radius: Pair = (1.0, 3.0)) -> ColourStep:
    """Blur by the mean of a square.

    Args:
        radius: range of the square's reach to each side, in pixels; numbers between
            whole ones count. The upper end sets the cost.

    Raises:
        ValueError: not a range within [0, 32].
    """
    ends = read_pair("box_blur: radius", radius, 0.0, 32.0)
    most = math.ceil(ends[1])

    def change(image: Array, draws: Array, keys: Array) -> Array:
        return blur_by_box(image, between(draws[:, 0], ends), max_radius=most)

    return make_step(1, change, costly=True)


def gaussian_noise(*, sigma: Pair = (0.01, 0.05)) -> ColourStep:
    """Add a normal number to every value of every pixel, and cut to [0, 1].

    Args:
        sigma: range of its standard deviation; 1 is from black to white.

    Raises:
        ValueError: not a range within [0, 1].
    """
    ends = read_pair("gaussian_noise: sigma", sigma, 0.0, 1.0)

    def change(image: Array, draws: Array, keys: Array) -> Array:
        _, height, width, _ = image.shape
        words = _random_words(keys, height, width * 3).reshape(image.shape)
        sigmas = between(draws[:, 0], ends)[:, None, None, None]
        return jnp.clip(image + sigmas * _normal(words), 0.0, 1.0)

    return make_step(1, change, costly=True)


def salt_and_pepper(*, share: Pair = (0.01, 0.06)) -> ColourStep:
    """Make single pixels white or black.

    Args:
        share: range of the share of pixels; half of them become white.

    Raises:
        ValueError: not a range within [0, 1].
    """
    ends = read_pair("salt_and_pepper: share", share, 0.0, 1.0)

    def change(image: Array, draws: Array, keys: Array) -> Array:
        _, height, width, _ = image.shape
        words = _random_words(keys, height, width)[..., None]
        place = (words >> np.uint32(8)).astype(jnp.float32) * 2.0**-24
        shares = between(draws[:, 0], ends)[:, None, None, None]
        paint = jnp.where(place < 0.5 * shares, 1.0, 0.0)
        return jnp.where(place < shares, paint, image)

    return make_step(1, change, costly=True)


def compression(*, quality: Pair = (50, 95), chroma: str = "4:2:0") -> ColourStep:
    """Lose what JPEG loses (`yolojax.ops.jpeg`), and round to 8-bit levels.

    Args:
        quality: range of the quality as libjpeg counts it; whole numbers, each as
            likely as the others.
        chroma: `4:2:0`, colour at half the height and width, or `4:4:4`.

    Raises:
        ValueError: not a range of whole numbers within [1, 100], or another `chroma`.
    """
    ends = read_whole_pair("compression: quality", quality, 1.0, 100.0)
    if chroma not in CHROMA:
        raise ValueError(
            f"compression: chroma is {chroma!r}, expected one of {', '.join(CHROMA)}"
        )

    def change(image: Array, draws: Array, keys: Array) -> Array:
        return compress(image, whole_between(draws[:, 0], ends), chroma=chroma)

    return make_step(1, change, costly=True)


def _normal(words: UInt32[Array, "*n"]) -> Float[Array, "*n"]:
    """Normal numbers from 32 random bits each, at most 5.3 deviations from 0."""
    # 23 bits and a half fit in a float32, so that neither end becomes infinite.
    place = ((words >> np.uint32(9)).astype(jnp.float32) + 0.5) * 2.0**-22 - 1.0
    return math.sqrt(2.0) * lax.erf_inv(place)


def _random_words(
    keys: Key[Array, " b"], height: int, width: int
) -> UInt32[Array, "b {height} {width}"]:
    """32 random bits for each place, from the sample's key and the place alone.

    A hash takes a fifth of the time of `jax.random.bits`, which costs more than the
    gather of the picture on a CPU. Three words of the key start it.

    Source: Jarzynski and Olano 2020, "Hash functions for GPU rendering", Journal of
    Computer Graphics Techniques 9(3), `pcg3d`, of whose three results the first is
    used.
    """
    seeds = jax.vmap(lambda key: jax.random.bits(key, (3,), jnp.uint32))(keys)
    x = jnp.arange(width, dtype=jnp.uint32)[None, None, :] + seeds[:, 0, None, None]
    y = jnp.arange(height, dtype=jnp.uint32)[None, :, None] + seeds[:, 1, None, None]
    z = seeds[:, 2, None, None]
    x, y, z = (v * np.uint32(1664525) + np.uint32(1013904223) for v in (x, y, z))
    x = x + y * z
    y = y + z * x
    z = z + x * y
    x, y, z = (v ^ (v >> np.uint32(16)) for v in (x, y, z))
    return x + y * z
