"""Colour of whole pictures: tone, tint and normalisation.

Pictures are RGB in [0, 1], of any number of leading axes, and so are the results. The
functions see pixels only: the grey border of a letterboxed picture is a pixel like
any other, in a mean, in a histogram and in what changes.

A strength is one number a picture, in the unit that its argument says, so that
policies with magnitudes (RandAugment, TrivialAugment) can be put together from these.
"8-bit levels" are the 256 values n / 255; where a definition speaks of levels, a value
between two counts as the nearer one.
"""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt8

from yolojax.ops.warp import settle

# Weights of red, green and blue in the luminance, ITU-R BT.601.
LUMINANCE = (0.299, 0.587, 0.114)
# Mean and standard deviation of the pixels of ImageNet's training set, as published.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def scale_hsv(
    image: Float[Array, "*b h w 3"], gains: Float[Array, "*b 3"]
) -> Float[Array, "*b h w 3"]:
    """RGB pictures with hue, saturation and value multiplied.

    Args:
        image: RGB in [0, 1].
        gains: factors of hue, saturation and value. The hue, an angle that starts at
            red, wraps around; the other two are clipped to [0, 1].

    Returns:
        RGB in [0, 1]. Gains of 1 return the picture up to rounding.

    Source: the HSV of OpenCV's `cvtColor`, without its rounding to 180 hues and 256
    levels.
    """
    red, green, blue = image[..., 0], image[..., 1], image[..., 2]
    gain = gains[..., None, None, :]
    value = jnp.maximum(jnp.maximum(red, green), blue)
    chroma = value - jnp.minimum(jnp.minimum(red, green), blue)
    # A grey pixel has no hue and a black one no saturation; both stay as they are.
    span = jnp.where(chroma > 0.0, chroma, 1.0)
    hue = jnp.where(
        value == red,
        (green - blue) / span,
        jnp.where(
            value == green, 2.0 + (blue - red) / span, 4.0 + (red - green) / span
        ),
    )
    hue = jnp.where(hue < 0.0, hue + 6.0, hue) * gain[..., 0]
    saturation = chroma / jnp.where(value > 0.0, value, 1.0)
    saturation = jnp.clip(saturation * gain[..., 1], 0.0, 1.0)
    value = jnp.clip(value * gain[..., 2], 0.0, 1.0)
    chroma = value * saturation

    def channel(offset: float) -> Float[Array, "*b h w"]:
        k = hue + offset
        k = k - 6.0 * jnp.floor(k / 6.0)
        return value - chroma * jnp.clip(jnp.minimum(k, 4.0 - k), 0.0, 1.0)

    return jnp.stack([channel(5.0), channel(3.0), channel(1.0)], axis=-1)


def _each(strength: Array) -> Array:
    """One number a picture, as wide as the picture has axes."""
    return strength[..., None, None, None]


def blend(
    degenerate: Float[Array, "*#b #h #w #c"],
    image: Float[Array, "*b h w 3"],
    factors: Float[Array, "*b"],
) -> Float[Array, "*b h w 3"]:
    """What lies between two pictures, and beyond, cut to [0, 1].

    Args:
        degenerate: what a factor of 0 gives; may be one value for all.
        image: what a factor of 1 gives.
        factors: above 1, away from `degenerate`.

    Source: Haeberli and Voorhies 1994, "Image processing by interpolation and
    extrapolation"; Pillow's `ImageEnhance`, which cuts the result off to a whole level.
    """
    factor = _each(factors)
    return jnp.clip(degenerate + factor * (image - degenerate), 0.0, 1.0)


def luminance(image: Float[Array, "*b h w 3"]) -> Float[Array, "*b h w 1"]:
    """The grey value of each pixel, ITU-R BT.601."""
    red, green, blue = (
        weight * image[..., i : i + 1] for i, weight in enumerate(LUMINANCE)
    )
    return red + green + blue


def to_gray(image: Float[Array, "*b h w 3"]) -> Float[Array, "*b h w 3"]:
    """Pictures without colour: the luminance in all three channels."""
    return jnp.broadcast_to(luminance(image), image.shape)


def scale_and_shift(
    image: Float[Array, "*b h w 3"],
    factors: Float[Array, "*b"],
    shifts: Float[Array, "*b"],
) -> Float[Array, "*b h w 3"]:
    """Pictures multiplied by a factor, plus a shift, cut to [0, 1]."""
    return jnp.clip(image * _each(factors) + _each(shifts), 0.0, 1.0)


def scale_brightness(
    image: Float[Array, "*b h w 3"], factors: Float[Array, "*b"]
) -> Float[Array, "*b h w 3"]:
    """Pictures multiplied by a factor: black at 0, unchanged at 1 (`blend`)."""
    return jnp.clip(image * _each(factors), 0.0, 1.0)


def scale_contrast(
    image: Float[Array, "*b h w 3"], factors: Float[Array, "*b"]
) -> Float[Array, "*b h w 3"]:
    """Pictures nearer to their mean luminance or further from it (`blend`).

    Pillow's `Contrast` rounds the mean to a level; here it is as it is.
    """
    # Row by row, then the rest: one such sum has too many terms for float32.
    means = jnp.mean(jnp.mean(image, axis=-3, keepdims=True), axis=-2, keepdims=True)
    return blend(luminance(means), image, factors)


def scale_colour(
    image: Float[Array, "*b h w 3"], factors: Float[Array, "*b"]
) -> Float[Array, "*b h w 3"]:
    """Pictures with less or more colour: grey at 0, unchanged at 1 (`blend`)."""
    return blend(luminance(image), image, factors)


def apply_gamma(
    image: Float[Array, "*b h w 3"], exponents: Float[Array, "*b"]
) -> Float[Array, "*b h w 3"]:
    """Pictures raised to a power: below 1 brighter, above 1 darker.

    Black stays black, with a gradient of zero.
    """
    light = image > 0.0
    # Half the time of `jnp.power`, which sees to signs and whole exponents.
    raised = jnp.exp(_each(exponents) * jnp.log(jnp.where(light, image, 1.0)))
    return jnp.where(light, raised, 0.0)


def invert(image: Float[Array, "*b h w 3"]) -> Float[Array, "*b h w 3"]:
    """The negative."""
    return 1.0 - image


def shuffle_channels(
    image: Float[Array, "*b h w 3"], orders: Int[Array, "*b 3"]
) -> Float[Array, "*b h w 3"]:
    """Pictures with their channels in another order.

    Args:
        image: RGB in [0, 1].
        orders: which channel comes first, second, third; 0 to 2.
    """
    red, green, blue = image[..., 0:1], image[..., 1:2], image[..., 2:3]
    # Choices between three, because a gather of single numbers is slow.
    order = orders[..., None, None, :]
    return jnp.where(order == 0, red, jnp.where(order == 1, green, blue))


def to_levels(image: Float[Array, "*n"]) -> UInt8[Array, "*n"]:
    """The nearest of the 256 levels for values in [0, 1]."""
    return jnp.round(image * 255.0).astype(jnp.uint8)


def solarise(
    image: Float[Array, "*b h w 3"], thresholds: Float[Array, "*b"]
) -> Float[Array, "*b h w 3"]:
    """Pictures whose bright values are inverted.

    Args:
        image: RGB in [0, 1].
        thresholds: levels from this one on are inverted, 0 to 256; 256: none.

    Source: Pillow's `ImageOps.solarize`.
    """
    # Not through uint8: the comparison is with a number that 256 fits in.
    bright = jnp.round(image * 255.0) >= _each(thresholds)
    return jnp.where(bright, 1.0 - image, image)


def posterise(
    image: Float[Array, "*b h w 3"], bits: Float[Array, "*b"]
) -> Float[Array, "*b h w 3"]:
    """Pictures of which only the highest bits of each level are left.

    Args:
        image: RGB in [0, 1].
        bits: how many, 0 to 8, rounded to a whole number; 8 leaves all levels, 0
            none.

    Source: Pillow's `ImageOps.posterize`.
    """
    dropped = 8 - jnp.round(bits).astype(jnp.int32)
    mask = jnp.left_shift(jnp.full_like(dropped, 255), dropped)
    kept = to_levels(image).astype(jnp.int32) & _each(mask)
    return kept.astype(jnp.float32) / 255.0


def autocontrast(image: Float[Array, "*b h w 3"]) -> Float[Array, "*b h w 3"]:
    """Pictures stretched so that each channel goes from 0 to 1.

    A channel of one level stays as it is.

    Source: Pillow's `ImageOps.autocontrast` without a cutoff; it also cuts the result
    off to a whole level.
    """
    # In two steps, rows first: the compiler turns the first into a vector loop.
    low, high = (
        reduce(reduce(image, axis=-3, keepdims=True), axis=-2, keepdims=True)
        for reduce in (jnp.min, jnp.max)
    )
    low, high = jnp.round(low * 255.0) / 255.0, jnp.round(high * 255.0) / 255.0
    flat = high <= low
    stretched = (image - low) / jnp.where(flat, 1.0, high - low)
    return jnp.where(flat, image, jnp.clip(stretched, 0.0, 1.0))


def equalise(image: Float[Array, "*b h w 3"]) -> Float[Array, "*b h w 3"]:
    """Pictures whose levels are spread so that each is about equally common.

    Each channel is on its own. Values are rounded to 8-bit levels, unless there is
    nothing to do for a channel (one level, or fewer than 255 pixels below the
    highest), which stays as it is.

    Source: Pillow's `ImageOps.equalize`.
    """
    height, width, _ = image.shape[-3:]
    if image.size == 0:
        return image
    flat = image.reshape(-1, height * width, 3)
    num = flat.shape[0]
    # Both are read once a pixel and cheap to compute, so that the compiler would
    # rather compute them again each time.
    never = jnp.any(flat[:, 0] < -1.0)
    level = settle(to_levels(flat), never).astype(jnp.int32)
    first = 256 * jnp.arange(3 * num, dtype=jnp.int32).reshape(num, 1, 3)
    counts = jnp.zeros((num * 3 * 256,), jnp.int32)
    counts = counts.at[first + level].add(1, mode="promise_in_bounds")
    tables = settle(_equalising_tables(counts.reshape(num, 3, 256)), never)
    spread = tables.reshape(-1).at[first + level].get(mode="promise_in_bounds")
    return jnp.where(spread < 0.0, flat, spread).reshape(image.shape)


def _equalising_tables(counts: Int[Array, "*b 256"]) -> Float[Array, "*b 256"]:
    """The new value, in [0, 1], of each level; -1 where a channel stays as it is."""
    total = jnp.cumsum(counts, axis=-1)
    number = total[..., -1:]
    # The pixels of the highest level do not count.
    below = jnp.max(jnp.where(total < number, total, 0), axis=-1, keepdims=True)
    step = below // 255
    new = (step // 2 + total - counts) // jnp.maximum(step, 1)
    new = jnp.minimum(new, 255).astype(jnp.float32) / 255.0
    return jnp.where(step > 0, new, -1.0)


def normalise_unit(image: Float[Array, "*b h w 3"]) -> Float[Array, "*b h w 3"]:
    """Pictures as they are: levels times 1/255, in [0, 1], is what all of yolojax uses.

    What the published YOLO networks take.
    """
    return image


def normalise_statistics(
    image: Float[Array, "*b h w 3"],
    *,
    mean: tuple[float, float, float] = IMAGENET_MEAN,
    std: tuple[float, float, float] = IMAGENET_STD,
) -> Float[Array, "*b h w 3"]:
    """Pictures minus a mean, over a standard deviation, by channel.

    Args:
        image: RGB in [0, 1].
        mean: of red, green and blue, for values in [0, 1].
        std: likewise, above 0.

    Raises:
        ValueError: a standard deviation is not above 0.
    """
    if min(std) <= 0:
        raise ValueError(f"standard deviations are {std}, expected above 0")
    offset = jnp.asarray(mean, jnp.float32)
    scale = 1.0 / jnp.asarray(std, jnp.float32)
    ones = (1,) * (image.ndim - 1)
    return (image - offset.reshape(*ones, 3)) * scale.reshape(*ones, 3)


def normalise_each(image: Float[Array, "*b h w 3"]) -> Float[Array, "*b h w 3"]:
    """Each picture with mean 0 and standard deviation 1 over all of its values.

    The deviation counts as at least 1 / sqrt(number of values), so that a picture of
    one colour becomes 0.

    Source: TensorFlow's `tf.image.per_image_standardization`.
    """
    number = max(1, image.shape[-3] * image.shape[-2] * 3)
    axes = (-3, -2, -1)
    centred = image - jnp.mean(image, axis=axes, keepdims=True)
    variance = jnp.mean(centred**2, axis=axes, keepdims=True)
    return centred / jnp.sqrt(jnp.maximum(variance, 1.0 / number))


# From pictures in [0, 1] to what a network takes.
NORMALISATIONS: dict[str, Callable[..., Array]] = {
    "unit": normalise_unit,
    "statistics": normalise_statistics,
    "each": normalise_each,
}
