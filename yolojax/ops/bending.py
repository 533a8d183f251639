"""Smooth displacements of a picture's plane, and where they take a point.

A picture is bent where its pixel at `p` shows what was at `p + d(p)`. The displacement
`d` is a cubic B-spline of control values on an even grid, whose first and last rows and
columns lie a cell beyond the border. Outside of the picture it goes on as it is at the
border.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

# More controls than cells along an axis.
BEYOND = 3
# Of the largest share of a cell's side by which a control may displace: then neither
# does a picture fold, nor the iteration below stop short of a hundredth of a pixel.
MOST_BENT = 0.15
_ITERATIONS = 16


def displacements(
    controls: Float[Array, "b 2 r c"], image_size: tuple[int, int]
) -> Float[Array, "b 2 h w"]:
    """The displacement of each pixel's centre along x and y, in pixels.

    Args:
        controls: displacements along x and y, in pixels.
        image_size: height and width.
    """
    rows, columns = (
        _weights((jnp.arange(length, dtype=jnp.float32) + 0.5) / length, count)
        for length, count in zip(image_size, controls.shape[2:], strict=True)
    )
    # A matrix unit may round to bfloat16, which loses a quarter of a pixel of 30.
    return jnp.einsum(
        "yr,bdrc,xc->bdyx", rows, controls, columns, precision=lax.Precision.HIGHEST
    )


def bent_points(
    points: Float[Array, "b p 2"],
    controls: Float[Array, "b 2 r c"],
    image_size: tuple[int, int],
) -> Float[Array, "b p 2"]:
    """Where a bent picture shows points: the `p` with `p + d(p)` equal to each.

    Args:
        points: x and y in pixels of the picture before it was bent.
        controls: as of `displacements`, at most `MOST_BENT` of a cell's shorter side.
        image_size: height and width of the picture.
    """

    def nearer(_: Array, found: Float[Array, "b p 2"]) -> Float[Array, "b p 2"]:
        return points - _displaced(found, controls, image_size)

    return lax.fori_loop(0, _ITERATIONS, nearer, points)


def _displaced(
    points: Float[Array, "b p 2"],
    controls: Float[Array, "b 2 r c"],
    image_size: tuple[int, int],
) -> Float[Array, "b p 2"]:
    height, width = image_size
    rows = _weights(jnp.clip(points[..., 1] / height, 0.0, 1.0), controls.shape[2])
    columns = _weights(jnp.clip(points[..., 0] / width, 0.0, 1.0), controls.shape[3])
    return jnp.einsum(
        "bpr,bdrc,bpc->bpd", rows, controls, columns, precision=lax.Precision.HIGHEST
    )


def _weights(share: Float[Array, "*n"], count: int) -> Float[Array, "*n c"]:
    """The weight of each of `count` controls at a share of the side in [0, 1]."""
    place = share * (count - BEYOND) + 1.0
    away = jnp.abs(place[..., None] - _like(place, jnp.arange(count)))
    near = 2.0 / 3.0 - away**2 + 0.5 * away**3
    return jnp.where(away < 1.0, near, jnp.maximum(2.0 - away, 0.0) ** 3 / 6.0)


def _like(values: Array, numbers: Array) -> Float[Array, "*n c"]:
    """Numbers along a last axis, with as many axes before it as `values` has."""
    return numbers.astype(jnp.float32).reshape(*[1] * values.ndim, -1)
