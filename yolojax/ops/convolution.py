"""The convolution of the networks, with a kernel gradient that a CPU computes fast."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jax.typing import ArrayLike
from jaxtyping import Array, Float

# From so many channels and pixels on, a CPU's kernel gradient is faster as products:
# 1.0 to 10 times for 3x3 kernels, measured for 32 to 512 channels and 4 to 160 px.
# With fewer channels it is up to four times slower, and few pixels do not pay for
# the time that nine products take to compile.
LEAST_CHANNELS = 32
LEAST_PIXELS = 1024
MOST_TAPS = 9


@functools.partial(jax.custom_jvp, nondiff_argnums=(2, 3, 4))
def convolve(
    x: Float[ArrayLike, "b h w c"],
    kernel: Float[ArrayLike, "kh kw i o"],
    stride: tuple[int, int],
    padding: tuple[int, int],
    groups: int = 1,
) -> Float[Array, "b gh gw o"]:
    """The maps that a kernel makes, without bias.

    Differentiable in both modes. A CPU takes the gradient with respect to the kernel
    as a sum of matrix products, one for each of its positions, where that is faster;
    other platforms take it as the convolution that it also is.

    Args:
        x: maps.
        kernel: rows, columns, channels in (c / groups), channels out.
        stride: rows and columns from one position to the next.
        padding: rows and columns of zeros on both sides.
        groups: parts of the channels that do not see each other.
    """
    return _convolved(x, kernel, stride=stride, padding=padding, groups=groups)


def _derivative(
    stride: tuple[int, int],
    padding: tuple[int, int],
    groups: int,
    primals: tuple[Any, Any],
    tangents: tuple[Any, Any],
) -> tuple[Any, Any]:
    """The value and its derivative, which is linear in each of the two tangents."""
    (x, kernel), (dx, dkernel) = primals, tangents
    y = convolve(x, kernel, stride, padding, groups)
    plain = functools.partial(_convolved, stride=stride, padding=padding, groups=groups)
    parts = []
    if not isinstance(dx, SymbolicZero):
        parts.append(plain(dx, kernel))
    if not isinstance(dkernel, SymbolicZero):
        (rows, columns, channels, _), (b, h, w, _) = kernel.shape, y.shape
        pays = rows * columns <= MOST_TAPS and channels >= LEAST_CHANNELS
        if groups == 1 and pays and b * h * w >= LEAST_PIXELS:
            products = functools.partial(_products, stride=stride, padding=padding)
            made = jax.lax.platform_dependent(x, dkernel, cpu=products, default=plain)
        else:
            made = plain(x, dkernel)
        parts.append(made)
    return y, sum(parts[1:], parts[0]) if parts else jnp.zeros_like(y)


convolve.defjvp(_derivative, symbolic_zeros=True)


def _convolved(
    x: Any,
    kernel: Any,
    *,
    stride: tuple[int, int],
    padding: tuple[int, int],
    groups: int,
) -> Any:
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        window_strides=stride,
        padding=tuple((pixels, pixels) for pixels in padding),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def _products(
    x: Any, kernel: Any, *, stride: tuple[int, int], padding: tuple[int, int]
) -> Any:
    """The same maps as a sum over the kernel's positions of products over channels."""
    ends = tuple((pixels, pixels) for pixels in padding)
    x = jnp.pad(x, ((0, 0), *ends, (0, 0)))
    b, _, _, c = x.shape
    reach = [
        (side - taps) // step * step + 1
        for side, taps, step in zip(x.shape[1:3], kernel.shape[:2], stride, strict=True)
    ]
    total: Any = 0.0
    for row in range(kernel.shape[0]):
        for column in range(kernel.shape[1]):
            seen = jax.lax.slice(
                x,
                (0, row, column, 0),
                (b, row + reach[0], column + reach[1], c),
                (1, *stride, 1),
            )
            total = total + seen @ kernel[row, column]
    return total
