"""The layers below every block: normalisation, convolution, pooling, upsampling.

Maps are [b, h, w, c]. Compute runs in the module's `dtype`; parameters, running
statistics and everything that decides a statistic stay in float32 (or in float64,
where `dtype` is float64).
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

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


class Conv(nn.Module):
    """A convolution without bias, padded by half its kernel on every side.

    A 1x1 kernel is a matrix product over the channels (`kernel` is [c_in, c_out]
    then, and [kernel, kernel, c_in, c_out] otherwise): on a CPU its gradient is
    three times faster as a product than as a convolution.

    Attributes:
        features: channels that come out.
        kernel_size: height and width of the kernel.
        stride: step in both directions.
        padding: pixels of zeros on every side; None for half the kernel.
        dtype: of the computation.
    """

    features: int
    kernel_size: int = 1
    stride: int = 1
    padding: int | None = None
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        dtype = jnp.dtype(self.dtype)
        size, ends = self.kernel_size, (x.shape[-1], self.features)
        if size == 1 and self.stride == 1:
            kernel = self.param("kernel", _zeros, ends, jnp.float32)
            return x.astype(dtype) @ kernel.astype(dtype)
        kernel = self.param("kernel", _zeros, (size, size, *ends), jnp.float32)
        pad = size // 2 if self.padding is None else self.padding
        return jax.lax.conv_general_dilated(
            x.astype(dtype),
            kernel.astype(dtype),
            window_strides=(self.stride, self.stride),
            padding=((pad, pad), (pad, pad)),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )


class ConvUnit(nn.Module):
    """Convolution, batch normalisation and SiLU.

    Attributes: as `Conv`.
    """

    features: int
    kernel_size: int = 1
    stride: int = 1
    padding: int | None = None
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        x = Conv(
            self.features,
            self.kernel_size,
            self.stride,
            self.padding,
            self.dtype,
            name="conv",
        )(x)
        x = BatchNorm(self.dtype, name="norm")(x, train=train)
        return nn.silu(x)


def max_pool_same(x: jax.Array, size: int) -> jax.Array:
    """The largest value of the `size` x `size` window around every pixel.

    Rows, then columns, each from shifted copies: the gradient of a windowed reduction
    is a scatter, which costs a CPU many times as much. Where a window holds its
    largest value twice, its gradient is shared between the two.

    Args:
        x: [b, h, w, c].
        size: odd; pixels outside the map never win.
    """
    for axis in (1, 2):
        length, reach = x.shape[axis], size // 2
        widths = [(0, 0)] * x.ndim
        widths[axis] = (reach, reach)
        padded = jnp.pad(x, widths, constant_values=-jnp.inf)
        x = jax.lax.slice_in_dim(padded, 0, length, axis=axis)
        for start in range(1, size):
            x = jnp.maximum(
                x, jax.lax.slice_in_dim(padded, start, start + length, axis=axis)
            )
    return x


def upsample_nearest(x: jax.Array) -> jax.Array:
    """Every pixel of [b, h, w, c] four times: [b, 2h, 2w, c]."""
    b, h, w, c = x.shape
    wide = jnp.broadcast_to(x[:, :, None, :, None, :], (b, h, 2, w, 2, c))
    return wide.reshape(b, 2 * h, 2 * w, c)


def _as_map(values: jax.Array, x: jax.Array) -> jax.Array:
    """Values per channel in the rank of `x`."""
    return values.reshape((1,) * (x.ndim - 1) + (-1,))
