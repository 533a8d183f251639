"""The convolution of the networks, in forms that a CPU computes fast, too."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jax.typing import ArrayLike
from jaxtyping import Array, Float

# Pixels, channels in and channels out from which on a CPU's kernel gradient is faster
# as products. Of 1x1 kernels 1.1 to 5 times, measured for 32 to 2048 channels and 7 to
# 80 px. Of 3x3 kernels it hangs on the CPU: with AVX2 1 to 10 times from 32 channels
# on, with AVX-512 .4 to 1.5 times, about 1 from these sizes on.
POINTWISE = (1024, 32, 1)
LARGER = (49152, 64, 128)
MOST_TAPS = 9
# A CPU takes convolutions of single channels as products: 4 to 27 times faster, the
# gradient for the maps 3 to 120 times, measured for 3x3 to 7x7 kernels, 32 to 1280
# channels and 7 to 112 px; that for the kernel 1.6 to 9 times from so many channels on.
LEAST_SINGLE = 128


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
    as a sum of matrix products, one for each of its positions, where that is faster,
    and a depthwise convolution as a sum of products of maps; other platforms take the
    convolutions that they also are.

    Args:
        x: maps.
        kernel: rows, columns, channels in (c / groups), channels out.
        stride: rows and columns from one position to the next.
        padding: rows and columns of zeros on both sides.
        groups: parts of the channels that do not see each other.
    """
    form = _form_of_maps(kernel, groups)
    return form(x, kernel, stride=stride, padding=padding, groups=groups)


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
    (rows, columns, channels, features), (b, h, w, _) = kernel.shape, y.shape
    of_maps, of_kernel = _form_of_maps(kernel, groups), _convolved
    if _is_depthwise(kernel, groups):
        of_kernel = of_maps if features >= LEAST_SINGLE else _convolved
    elif groups == 1 and rows * columns <= MOST_TAPS:
        least = POINTWISE if rows * columns == 1 else LARGER
        size = (b * h * w, channels, features)
        if all(side >= limit for side, limit in zip(size, least, strict=True)):
            of_kernel = _on_cpus(_products)
    how = {"stride": stride, "padding": padding, "groups": groups}
    parts = []
    if not isinstance(dx, SymbolicZero):
        parts.append(of_maps(dx, kernel, **how))
    if not isinstance(dkernel, SymbolicZero):
        parts.append(of_kernel(x, dkernel, **how))
    return y, sum(parts[1:], parts[0]) if parts else jnp.zeros_like(y)


convolve.defjvp(_derivative, symbolic_zeros=True)


def _is_depthwise(kernel: Any, groups: int) -> bool:
    """Whether every channel is convolved by itself, into one."""
    return groups > 1 and kernel.shape[2:] == (1, groups)


def _form_of_maps(kernel: Any, groups: int) -> Callable[..., Any]:
    """How the maps themselves are computed."""
    return _on_cpus(_single_products) if _is_depthwise(kernel, groups) else _convolved


def _on_cpus(form: Callable[..., Any]) -> Callable[..., Any]:
    """The convolution, of which CPUs take another form."""

    def chosen(x: Any, kernel: Any, *, groups: int, **how: Any) -> Any:
        return jax.lax.platform_dependent(
            x,
            kernel,
            cpu=functools.partial(form, **how),
            default=functools.partial(_convolved, groups=groups, **how),
        )

    return chosen


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


def _products(x: Any, kernel: Any, **how: tuple[int, int]) -> Any:
    """The same maps as a sum over the kernel's positions of products over channels."""
    total: Any = 0.0
    for row, column, seen in _seen(x, kernel.shape[:2], **how):
        total = total + seen @ kernel[row, column]
    return total


def _single_products(x: Any, kernel: Any, **how: tuple[int, int]) -> Any:
    """The maps of channels by themselves as a sum over the kernel's positions.

    Half precisions are summed in float32, as by a convolution.
    """
    exact = x.dtype if jnp.finfo(x.dtype).bits >= 32 else jnp.float32
    total: Any = 0.0
    for row, column, seen in _seen(x, kernel.shape[:2], **how):
        tap = kernel[row : row + 1, column : column + 1]
        total = total + seen.astype(exact) * tap.astype(exact)
    return total.astype(x.dtype)


def _seen(
    x: Any, size: tuple[int, int], *, stride: tuple[int, int], padding: tuple[int, int]
) -> Iterator[tuple[int, int, Any]]:
    """Row and column of each position of a kernel, and the pixels that it sees."""
    ends = tuple((pixels, pixels) for pixels in padding)
    x = jnp.pad(x, ((0, 0), *ends, (0, 0)))
    b, _, _, c = x.shape
    reach = [
        (side - taps) // step * step + 1
        for side, taps, step in zip(x.shape[1:3], size, stride, strict=True)
    ]
    for row in range(size[0]):
        for column in range(size[1]):
            end = (b, row + reach[0], column + reach[1], c)
            yield (
                row,
                column,
                jax.lax.slice(x, (0, row, column, 0), end, (1, *stride, 1)),
            )
