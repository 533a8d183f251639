"""What JPEG compression leaves of a picture.

The loss of JPEG is here, and nothing else of it: the picture goes to YCbCr, its colour
to half the resolution (4:2:0), blocks of 8x8 through the cosine transform, coefficients
to multiples of the standard's tables, and all of it back. The entropy coding, which
loses nothing, is left out, as are files and sizes in bytes. Sums are in floats, where
coders use whole numbers: a value differs from that of libjpeg-turbo by about half a
level on average or less, and by more where a coefficient lies half-way between two
steps and goes the other way (`tests/ops/test_jpeg.py`).

Source: ITU-T T.81 (JPEG), annexes A and K; JFIF 1.02 for YCbCr; the Independent JPEG
Group's rule for quality, and its filters for sampling colour down and up.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from yolojax.ops.colour import LUMINANCE, luminance
from yolojax.ops.warp import settle

# ITU-T T.81, tables K.1 and K.2: steps for luminance and colour at quality 50.
LUMINANCE_STEPS = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
COLOUR_STEPS = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    (99, 99, 99, 99, 99, 99, 99, 99),
    (99, 99, 99, 99, 99, 99, 99, 99),
    (99, 99, 99, 99, 99, 99, 99, 99),
    (99, 99, 99, 99, 99, 99, 99, 99),
)
# Whether colour has half the resolution.
CHROMA = {"4:2:0": True, "4:4:4": False}
SIDE = 8


def _cosines() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The cosine transform of 8 numbers, its inverse, and the scale of each result.

    The scales make frequencies 0 and 4 sums and differences of whole numbers, so that
    what lies half-way between two steps is rounded as by a coder.

    Source: T.81 section A.3.3.
    """
    n = np.arange(SIDE)
    matrix = np.cos((2 * n[None] + 1) * n[:, None] * np.pi / (2 * SIDE)) / 2
    matrix[0] /= np.sqrt(2)
    scale = np.where(n % 4 == 0, np.sqrt(8), 1.0)
    forward = matrix * scale[:, None]
    forward[::4] = np.round(forward[::4])
    inverse = matrix.T / scale
    return forward.astype(np.float32), inverse.astype(np.float32), scale


FORWARD, INVERSE, SCALES = _cosines()


def quantisation_steps(
    base: tuple[tuple[int, ...], ...], quality: Int[Array, "*b"]
) -> Int[Array, "*b 8 8"]:
    """A table of steps at another quality, by the rule of the Independent JPEG Group.

    Args:
        base: the steps at quality 50.
        quality: 1 to 100; at 100 all steps are 1.
    """
    percent = jnp.where(
        quality < 50, 5000 // jnp.maximum(quality, 1), 200 - 2 * quality
    )
    table = jnp.asarray(base, jnp.int32)
    table = table.reshape((1,) * quality.ndim + table.shape)
    return jnp.clip((table * percent[..., None, None] + 50) // 100, 1, 255)


def compress(
    image: Float[Array, "*b h w 3"],
    qualities: Float[Array, "*b"],
    *,
    chroma: str = "4:2:0",
) -> Float[Array, "*b h w 3"]:
    """Pictures after JPEG compression, in whole 8-bit levels.

    Args:
        image: RGB in [0, 1].
        qualities: 1 to 100, rounded to whole numbers.
        chroma: `4:2:0`, colour at half the height and width, or `4:4:4`.

    Raises:
        ValueError: another `chroma`.
    """
    if chroma not in CHROMA:
        raise ValueError(f"chroma is {chroma!r}, expected one of {', '.join(CHROMA)}")
    *lead, height, width, _ = image.shape
    if image.size == 0:
        return image
    quality = jnp.clip(jnp.round(qualities), 1.0, 100.0).astype(jnp.int32).reshape(-1)
    never = jnp.any(quality < 1)
    levels = image.reshape(-1, height, width, 3) * 255.0
    red, blue = levels[..., 0], levels[..., 2]
    grey = luminance(levels)[..., 0]
    # JFIF, without the 128 that is taken off again before the transform.
    colours = [
        0.5 * (plane - grey) / (1.0 - weight)
        for plane, weight in ((blue, LUMINANCE[2]), (red, LUMINANCE[0]))
    ]
    grey = settle(jnp.round(grey) - 128.0, never)
    # Both planes of a sample side by side: a batch may be split over devices.
    colour = jnp.stack([jnp.round(plane) for plane in colours], axis=1)
    colour = settle(colour.reshape(-1, height, width), never)

    halves = CHROMA[chroma]
    if halves:
        colour = _halve(colour)
    steps = quantisation_steps(LUMINANCE_STEPS, quality)
    grey = _quantised(grey, steps, never) + 128.0
    steps = quantisation_steps(COLOUR_STEPS, jnp.repeat(quality, 2))
    colour = _quantised(colour, steps, never)
    if halves:
        colour = _double(colour, (height, width), never)
    colour = colour.reshape(-1, 2, height, width)
    red = grey + 2.0 * (1.0 - LUMINANCE[0]) * colour[:, 1]
    blue = grey + 2.0 * (1.0 - LUMINANCE[2]) * colour[:, 0]
    green = (grey - LUMINANCE[0] * red - LUMINANCE[2] * blue) / LUMINANCE[1]
    levels = jnp.stack([red, green, blue], axis=-1)
    return (jnp.round(jnp.clip(levels, 0.0, 255.0)) / 255.0).reshape(image.shape)


def _quantised(
    plane: Float[Array, "b h w"], steps: Int[Array, "b 8 8"], never: Array
) -> Float[Array, "b h w"]:
    """Planes whose cosine coefficients are whole multiples of `steps`.

    Args:
        plane: values in [-128, 127], settled.
        steps: of vertical, then horizontal frequencies.
        never: see `settle`.
    """
    num, height, width = plane.shape
    down, across = -height % SIDE, -width % SIDE
    plane = jnp.pad(plane, ((0, 0), (0, down), (0, across)), mode="edge")
    full = plane.shape
    blocks = (num, full[1] // SIDE, SIDE, full[2])

    def along_rows(x: Array, matrix: np.ndarray) -> Float[Array, "b h w"]:
        # A matrix unit may round its inputs; a coefficient needs all of its bits.
        parts = jnp.matmul(
            x.reshape(-1, SIDE), matrix.T, precision=lax.Precision.HIGHEST
        )
        return parts.reshape(full)

    def down_columns(x: Array, matrix: np.ndarray) -> Float[Array, "b r 8 w"]:
        x = x.reshape(blocks)
        column = matrix.T.reshape(SIDE, 1, 1, SIDE, 1)
        result = column[0] * x[:, :, :1]
        for k in range(1, SIDE):
            result = result + column[k] * x[:, :, k : k + 1]
        return result

    scales = jnp.asarray(np.outer(SCALES, SCALES), jnp.float32)
    step = steps.astype(jnp.float32) * scales[None]
    step = settle(jnp.tile(step, (1, 1, full[2] // SIDE))[:, None], never)
    plane = down_columns(along_rows(plane, FORWARD), FORWARD)
    # Halves away from zero.
    multiple = jnp.trunc(plane / step + 0.5 * jnp.sign(plane))
    plane = settle(multiple * step, never)
    plane = along_rows(down_columns(plane, INVERSE), INVERSE)
    return jnp.clip(jnp.floor(plane[:, :height, :width] + 0.5), -128.0, 127.0)


def _halve(plane: Float[Array, "b h w"]) -> Float[Array, "b h2 w2"]:
    """The mean of each square of 2x2, with the edge repeated where a side is odd."""
    num, height, width = plane.shape
    plane = jnp.pad(plane, ((0, 0), (0, height % 2), (0, width % 2)), mode="edge")
    squares = plane.reshape(num, (height + 1) // 2, 2, (width + 1) // 2, 2)
    # A half is rounded down and up in turns, or rather 1/4 and 1/2 are added.
    columns = jnp.arange(squares.shape[3])
    added = jnp.where(columns % 2 == 0, 0.25, 0.5)
    return jnp.floor(jnp.mean(squares, axis=(2, 4)) + added[None, None])


def _double(
    plane: Float[Array, "b h2 w2"], size: tuple[int, int], never: Array
) -> Float[Array, "b h w"]:
    """Planes of twice the size, by a triangle filter: 3/4 of the nearest, 1/4 next."""
    height, width = size
    # Columns first, where there are fewer rows to interleave them in.
    for axis in (2, 1):
        padding = [(0, 0)] * 3
        padding[axis] = (1, 1)
        padded = settle(jnp.pad(plane, padding, mode="edge"), never)
        before = lax.slice_in_dim(padded, 0, plane.shape[axis], axis=axis)
        after = lax.slice_in_dim(padded, 2, plane.shape[axis] + 2, axis=axis)
        pair = [0.75 * plane + 0.25 * before, 0.75 * plane + 0.25 * after]
        shape = list(plane.shape)
        shape[axis] *= 2
        plane = jnp.stack(pair, axis=axis + 1).reshape(shape)
    columns = jnp.arange(width)
    added = jnp.where(columns % 2 == 0, 8 / 16, 7 / 16)
    return jnp.floor(plane[:, :height, :width] + added[None, None])
