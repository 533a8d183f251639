"""Elements of 16 bits, whose sums of squares and small numbers do not fit 16 bits."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

import jax
import jax.numpy as jnp

F = TypeVar("F", bound=Callable[..., jax.Array])

_HALVES = (jnp.dtype("float16"), jnp.dtype("bfloat16"))


def computed_in_single(function: F) -> F:
    """The function of arrays, which goes through float32 for elements of 16 bits.

    Arrays of another dtype go in as they are. What comes out has the dtype of the
    first array, cut to its largest finite number; so have the gradients.

    Args:
        function: its positional arguments are arrays.
    """

    @functools.wraps(function)
    def computed(*arrays: Any, **settings: Any) -> jax.Array:
        dtype = arrays[0].dtype
        if dtype not in _HALVES:
            return function(*arrays, **settings)
        wide = (_widened(str(x.dtype), x) if x.dtype in _HALVES else x for x in arrays)
        return _cut(function(*wide, **settings), str(dtype))

    return cast(F, computed)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _widened(dtype: str, values: jax.Array) -> jax.Array:
    del dtype
    return values.astype(jnp.float32)


def _widened_forward(dtype: str, values: jax.Array) -> tuple[jax.Array, None]:
    return _widened(dtype, values), None


def _widened_backward(dtype: str, saved: None, gradient: jax.Array) -> Any:
    del saved
    return (_cut(gradient, dtype),)


def _cut(values: jax.Array, dtype: str) -> jax.Array:
    limit = float(jnp.finfo(dtype).max)
    return jnp.clip(values, -limit, limit).astype(dtype)


_widened.defvjp(_widened_forward, _widened_backward)
