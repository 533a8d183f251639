"""Colour of whole pictures."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float


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
