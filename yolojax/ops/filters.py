"""Filters of whole pictures: sharpness and blur.

Pictures are RGB in [0, 1], of any number of leading axes, and so are the results. The
functions see pixels only: the grey border of a letterboxed picture takes part like any
other pixel. A strength is one number a picture. Beyond the edge, a picture goes on with
its outermost pixels.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from yolojax.ops.warp import settle

# A standard deviation below this counts as this: the kernel is one pixel.
MIN_SIGMA = 0.01


def scale_sharpness(
    image: Float[Array, "*b h w 3"], factors: Float[Array, "*b"]
) -> Float[Array, "*b h w 3"]:
    """Pictures made smoother or sharper (`blend` of `yolojax.ops.colour`).

    Args:
        image: RGB in [0, 1].
        factors: 0 smooths with a 3x3 kernel of 1, its centre 5, over 13; 1 leaves the
            picture; above 1 sharpens. The outermost rows and columns stay.

    Source: Pillow's `ImageEnhance.Sharpness`, without its rounding to levels.
    """
    *lead, height, width, _ = image.shape
    if image.size == 0:
        return image
    lines = image.reshape(*lead, height, width * 3)
    padded = _padded_lines(image, 1, "constant", jnp.any(factors < -1e30))
    rows = padded[..., :-2, :] + padded[..., 1:-1, :] + padded[..., 2:, :]
    last = 3 * width
    around = rows[..., :last] + rows[..., 3 : 3 + last] + rows[..., 6:]
    smooth = (around + 4.0 * lines) / 13.0
    factor = factors[..., None, None]
    sharp = jnp.clip(smooth + factor * (lines - smooth), 0.0, 1.0)
    y, x = jnp.arange(height)[:, None], jnp.arange(last)[None, :]
    inner = (y > 0) & (y < height - 1) & (x >= 3) & (x < last - 3)
    inner = inner.reshape((1,) * len(lead) + inner.shape)
    return jnp.where(inner, sharp, lines).reshape(image.shape)


def gaussian_blur(
    image: Float[Array, "*b h w 3"], sigmas: Float[Array, "*b"], *, radius: int
) -> Float[Array, "*b h w 3"]:
    """Pictures blurred by a Gaussian, rows and columns in turn.

    Args:
        image: RGB in [0, 1].
        sigmas: standard deviations, in pixels; 0 leaves a picture up to rounding.
        radius: the kernel goes this many pixels to each side, and its weights add up
            to 1; 3 times the largest deviation leaves out 0.3 % of the Gaussian.
    """
    share = _distances(radius, sigmas.ndim) / jnp.maximum(sigmas, MIN_SIGMA)[..., None]
    return _blur(image, jnp.exp(-0.5 * share**2))


def box_blur(
    image: Float[Array, "*b h w 3"], radii: Float[Array, "*b"], *, max_radius: int
) -> Float[Array, "*b h w 3"]:
    """Pictures whose pixels become the mean of a square around them.

    Args:
        image: RGB in [0, 1].
        radii: the square's side is `2 * radius + 1` pixels; of a radius between whole
            numbers, the pixels at the rim count by the share that is covered.
        max_radius: static, at least the largest of `radii`.

    Source: Pillow's `ImageFilter.BoxBlur`, without its rounding to levels.
    """
    distances = _distances(max_radius, radii.ndim)
    return _blur(image, jnp.clip(radii[..., None] + 1.0 - distances, 0.0, 1.0))


def _distances(radius: int, num_axes: int) -> Float[Array, "*b r"]:
    """0, 1, ..., `radius`, behind so many axes of length 1."""
    distances = jnp.arange(radius + 1, dtype=jnp.float32)
    return distances.reshape((1,) * num_axes + distances.shape)


def _blur(
    image: Float[Array, "*b h w 3"], weights: Float[Array, "*b r"]
) -> Float[Array, "*b h w 3"]:
    """Pictures filtered by the same symmetric kernel along rows and columns.

    Args:
        image: RGB in [0, 1].
        weights: of the pixels at distance 0, 1, ... to both sides, to be scaled so
            that all add up to 1.
    """
    *lead, height, width, _ = image.shape
    radius = weights.shape[-1] - 1
    if radius == 0 or image.size == 0:
        return image
    weights = weights / (2.0 * jnp.sum(weights, -1, keepdims=True) - weights[..., :1])
    weight = jnp.moveaxis(weights, -1, 0)[..., None, None]
    never = jnp.any(weights < 0.0)

    # The columns beside the picture are blurred too: what lies there goes on.
    padded = _padded_lines(image, radius, "edge", never)
    blurred = weight[0] * padded[..., radius : radius + height, :]
    for k in range(1, radius + 1):
        above = padded[..., radius - k : radius - k + height, :]
        below = padded[..., radius + k : radius + k + height, :]
        blurred = blurred + weight[k] * (above + below)
    padded = settle(blurred, never)

    def shifted(k: int) -> Float[Array, "*b h w3"]:
        start = 3 * (radius + k)
        return padded[..., start : start + 3 * width]

    blurred = weight[0] * shifted(0)
    for k in range(1, radius + 1):
        blurred = blurred + weight[k] * (shifted(-k) + shifted(k))
    return jnp.clip(blurred.reshape(image.shape), 0.0, 1.0)


def _padded_lines(
    image: Float[Array, "*b h w 3"], added: int, mode: str, never: Bool[Array, ""]
) -> Float[Array, "*b h2 w6"]:
    """Pictures with a border, their channels beside each other in a line.

    Long lines make long vector loops. Settled: otherwise the compiler would make it,
    and all that led to it, again for each tap of a filter.

    Args:
        image: RGB.
        added: pixels on each side.
        mode: of `jnp.pad`.
        never: see `settle`.
    """
    *lead, height, width, _ = image.shape
    border = [(added, added)] * 2
    padded = jnp.pad(image, [(0, 0)] * len(lead) + border + [(0, 0)], mode=mode)
    lines = padded.reshape(*lead, height + 2 * added, (width + 2 * added) * 3)
    return settle(lines, never)
