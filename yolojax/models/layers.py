"""The layers below every block: normalisation, convolution, pooling, upsampling.

Maps are [b, h, w, c]. Compute runs in the module's `dtype`; parameters, running
statistics and everything that decides a statistic stay in float32 (or in float64,
where `dtype` is float64).
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Collection, Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from yolojax.lookup import pick
from yolojax.ops.convolution import convolve

# The values that published YOLO weights were trained with.
NORM_EPSILON = 1e-3
NORM_MOMENTUM = 0.03

_zeros = nn.initializers.zeros
_ones = nn.initializers.ones


def wide_dtype(dtype: str) -> jnp.dtype:
    """float64 where `dtype` is that, otherwise float32: for sums and for raw maps."""
    return jnp.dtype("float64" if dtype == "float64" else "float32")


class BatchNorm(nn.Module):
    """Normalises every channel by the mean and variance of the whole batch.

    In training the batch's own statistics are used and the running ones move towards
    them by `momentum`; the running variance takes the unbiased one, n / (n - 1), as
    the published implementations do. Under `jit` with a sharded batch the means are
    over the global batch.

    Attributes:
        dtype: the dtype that comes out.
        epsilon: added to the variance.
        momentum: the share of the new value in the running statistics.

    Source: Ioffe and Szegedy 2015, arXiv:1502.03167, Algorithm 1.
    """

    dtype: str = "float32"
    epsilon: float = NORM_EPSILON
    momentum: float = NORM_MOMENTUM

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        channels = (x.shape[-1],)
        wide = wide_dtype(self.dtype)
        scale = self.param("scale", _ones, channels, jnp.float32).astype(wide)
        bias = self.param("bias", _zeros, channels, jnp.float32).astype(wide)
        running_mean = self.variable(
            "batch_stats", "mean", jnp.zeros, channels, jnp.float32
        )
        running_var = self.variable(
            "batch_stats", "var", jnp.ones, channels, jnp.float32
        )
        x = x.astype(wide)
        if train:
            axes = tuple(range(x.ndim - 1))
            count = x.size // x.shape[-1]
            mean = jnp.mean(x, axis=axes)
            # Two passes: E[x^2] - E[x]^2 loses the variance where the mean is large.
            centred = x - _as_map(mean, x)
            var = jnp.mean(jnp.square(centred), axis=axes)
            if not self.is_initializing():
                unbiased = var * (count / max(count - 1, 1))
                running_mean.value = self._moved(running_mean.value, mean)
                running_var.value = self._moved(running_var.value, unbiased)
        else:
            mean = running_mean.value.astype(wide)
            var = running_var.value.astype(wide)
            centred = x - _as_map(mean, x)
        gain = scale * jax.lax.rsqrt(var + self.epsilon)
        y = centred * _as_map(gain, x) + _as_map(bias, x)
        return y.astype(self.dtype)

    def _moved(self, running: jax.Array, new: jax.Array) -> jax.Array:
        new = jax.lax.stop_gradient(new).astype(running.dtype)
        return running + self.momentum * (new - running)


@contextlib.contextmanager
def running_statistics(paths: Collection[str]) -> Iterator[None]:
    """Within it some normalisations use their running statistics also in training.

    Args:
        paths: of `BatchNorm` modules, as `backbone/stem/norm`.
    """

    def intercept(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        module = context.module
        if isinstance(module, BatchNorm) and "/".join(module.path) in paths:
            kwargs = {**kwargs, "train": False}
        return call(*args, **kwargs)

    if not paths:
        yield
        return
    with nn.intercept_methods(intercept):
        yield


class Conv(nn.Module):
    """A convolution without bias, padded by half its kernel on every side.

    A 1x1 kernel is a matrix product over the channels (`kernel` is [c_in, c_out]
    then, and [height, width, c_in / groups, c_out] otherwise): on a CPU its gradient
    is three times faster as a product than as a convolution.

    Attributes:
        features: channels that come out.
        kernel_size: height and width of the kernel; one number for both.
        stride: step, likewise.
        padding: pixels of zeros on every side, likewise; None for half the kernel.
        dtype: of the computation.
        groups: parts of the channels that do not see each other.
        use_bias: whether a `bias` is added.
    """

    features: int
    kernel_size: int | tuple[int, int] = 1
    stride: int | tuple[int, int] = 1
    padding: int | tuple[int, int] | None = None
    dtype: str = "float32"
    groups: int = 1
    use_bias: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = self._convolved(x.astype(self.dtype))
        if not self.use_bias:
            return y
        bias = self.param("bias", _zeros, (self.features,), jnp.float32)
        return y + _as_map(bias.astype(y.dtype), y)

    def _convolved(self, x: jax.Array) -> jax.Array:
        size, stride = _pair(self.kernel_size), _pair(self.stride)
        half = (size[0] // 2, size[1] // 2)
        pad = _pair(half if self.padding is None else self.padding)
        ends = (x.shape[-1] // self.groups, self.features)
        if size == stride == (1, 1) and pad == (0, 0) and self.groups == 1:
            kernel = self.param("kernel", _zeros, ends, jnp.float32)
            return x @ kernel.astype(x.dtype)
        kernel = self.param("kernel", _zeros, (*size, *ends), jnp.float32)
        return convolve(x, kernel.astype(x.dtype), stride, pad, self.groups)


class ConvUnit(nn.Module):
    """Convolution, batch normalisation and activation.

    Attributes: as `Conv` and `BatchNorm`, and
        activation: see `activate`.
    """

    features: int
    kernel_size: int | tuple[int, int] = 1
    stride: int | tuple[int, int] = 1
    padding: int | tuple[int, int] | None = None
    dtype: str = "float32"
    groups: int = 1
    activation: str = "silu"
    epsilon: float = NORM_EPSILON
    momentum: float = NORM_MOMENTUM
    use_bias: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        x = Conv(
            self.features,
            self.kernel_size,
            self.stride,
            self.padding,
            self.dtype,
            self.groups,
            self.use_bias,
            name="conv",
        )(x)
        norm = BatchNorm(self.dtype, self.epsilon, self.momentum, name="norm")
        return activate(norm(x, train=train), self.activation)


def mish(x: jax.Array) -> jax.Array:
    """x tanh(softplus(x)).

    Source: Misra 2019, arXiv:1908.08681.
    """
    return x * jnp.tanh(jax.nn.softplus(x))


ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "silu": nn.silu,
    "mish": mish,
    "leaky": lambda x: nn.leaky_relu(x, 0.1),
    "linear": lambda x: x,
    "logistic": nn.sigmoid,
    "relu": nn.relu,
    "relu6": nn.relu6,
    "hard_swish": nn.hard_swish,
    "hard_sigmoid": nn.hard_sigmoid,
    "gelu": lambda x: nn.gelu(x, approximate=False),
    "elu": nn.elu,
    "selu": nn.selu,
    "softplus": nn.softplus,
    "tanh": jnp.tanh,
}


def activate(x: jax.Array, name: str) -> jax.Array:
    """The activation called `name` of every element.

    Args:
        x: any shape.
        name: an entry of `ACTIVATIONS`; `leaky=0.2` is a leaky ReLU with that slope,
            where `leaky` alone has 0.1.

    Raises:
        ValueError: an unknown name.
    """
    kind, _, slope = name.partition("=")
    if kind == "leaky" and slope:
        return nn.leaky_relu(x, float(slope))
    return pick(ACTIVATIONS, name, "activation")(x)


def max_pool_same(x: jax.Array, size: int) -> jax.Array:
    """The largest value of the `size` x `size` window around every pixel.

    Args:
        x: [b, h, w, c].
        size: odd; pixels outside the map never win.
    """
    return max_pool(x, size, 1, (size // 2, size // 2))


def max_pool(
    x: jax.Array, size: int, stride: int, padding: tuple[int, int]
) -> jax.Array:
    """The largest value of each `size` x `size` window.

    Rows, then columns, each from shifted copies: the gradient of a windowed reduction
    is a scatter, which costs a CPU many times as much. Where a window holds its
    largest value twice, its gradient is shared between the two.

    Args:
        x: [b, h, w, c].
        size: in pixels.
        stride: from window to window.
        padding: pixels before the first row and column, and after the last; they
            never win.
    """
    for axis in (1, 2):
        widths = [(0, 0)] * x.ndim
        widths[axis] = padding
        padded = jnp.pad(x, widths, constant_values=-jnp.inf)
        reach = padded.shape[axis] - size + 1
        shifted = (
            jax.lax.slice_in_dim(padded, start, start + reach, stride, axis)
            for start in range(size)
        )
        x = functools.reduce(jnp.maximum, shifted)
    return x


def max_pool_ceil(x: jax.Array, size: int, stride: int) -> jax.Array:
    """`max_pool` that keeps a window which the last row or column cuts off.

    Of n pixels it makes ceil((n - size) / stride) + 1, where `max_pool` without
    padding rounds down ("ceil mode").

    Args:
        x: [b, h, w, c], sides of more than `size` - `stride`.
        size: in pixels.
        stride: from window to window, at most `size`.
    """
    return max_pool(x, size, stride, (0, stride - 1))


def mean_pool(x: jax.Array, size: int, stride: int = 1, padding: int = 0) -> jax.Array:
    """The mean of each `size` x `size` window, summed in float32.

    Args:
        x: [b, h, w, c].
        size: in pixels.
        stride: from window to window.
        padding: pixels of zeros on every side, which count as pixels.
    """
    kept = x.dtype
    x = x.astype(wide_dtype(kept.name))
    for axis in (1, 2):
        widths = [(0, 0)] * x.ndim
        widths[axis] = (padding, padding)
        padded = jnp.pad(x, widths)
        reach = padded.shape[axis] - size + 1
        shifted = (
            jax.lax.slice_in_dim(padded, start, start + reach, stride, axis)
            for start in range(size)
        )
        x = functools.reduce(jnp.add, shifted)
    return (x / size**2).astype(kept)


def upsample_nearest(x: jax.Array, factor: int = 2) -> jax.Array:
    """Every pixel of [b, h, w, c] `factor` x `factor` times."""
    (b, h, w, c), k = x.shape, factor
    wide = jnp.broadcast_to(x[:, :, None, :, None, :], (b, h, k, w, k, c))
    return wide.reshape(b, k * h, k * w, c)


def _as_map(values: jax.Array, x: jax.Array) -> jax.Array:
    """Values per channel in the rank of `x`."""
    return values.reshape((1,) * (x.ndim - 1) + (-1,))


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    """One number for both directions, or two."""
    return (value, value) if isinstance(value, int) else value
