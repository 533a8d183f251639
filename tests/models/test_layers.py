import jax
import jax.numpy as jnp
import numpy as np
import pytest

from yolojax.engine.sharding import make_mesh, put_batch
from yolojax.models.layers import (
    BatchNorm,
    Conv,
    max_pool_ceil,
    max_pool_same,
    mean_pool,
    upsample_nearest,
)

RNG = np.random.default_rng(0)


def normal(*shape, mean=0.0, std=1.0):
    return (RNG.normal(size=shape) * std + mean).astype(np.float32)


def batch_norm(x, *, train, dtype="float32", **changes):
    layer = BatchNorm(dtype)
    channels = x.shape[-1]
    variables = {
        "params": {
            "scale": changes.get("scale", np.ones(channels, np.float32)),
            "bias": changes.get("bias", np.zeros(channels, np.float32)),
        },
        "batch_stats": {
            "mean": changes.get("mean", np.zeros(channels, np.float32)),
            "var": changes.get("var", np.ones(channels, np.float32)),
        },
    }
    y, changed = layer.apply(variables, x, train=train, mutable=["batch_stats"])
    return y, changed["batch_stats"]


def test_batch_norm_of_two_values_by_hand():
    # Mean 2, variance 1 (biased), 2 (unbiased); epsilon 1e-3, momentum .03.
    x = jnp.array([1.0, 3.0]).reshape(2, 1, 1, 1)
    y, stats = batch_norm(x, train=True)
    np.testing.assert_allclose(y.ravel(), [-0.9995004, 0.9995004], rtol=1e-6)
    np.testing.assert_allclose(stats["mean"], [0.06], rtol=1e-6)
    np.testing.assert_allclose(stats["var"], [0.97 + 0.03 * 2], rtol=1e-6)


def test_batch_norm_matches_float64_where_the_mean_is_large():
    x = normal(8, 40, 40, 4, mean=50.0, std=0.5)
    scale, bias = normal(4), normal(4)
    y, _ = batch_norm(x, train=True, scale=scale, bias=bias)
    wide = x.astype(np.float64)
    mean, var = wide.mean((0, 1, 2)), wide.var((0, 1, 2))
    expected = (wide - mean) / np.sqrt(var + 1e-3) * scale + bias
    np.testing.assert_allclose(y, expected, atol=1e-4)


def test_batch_norm_in_evaluation_uses_and_keeps_the_running_statistics():
    x = normal(2, 3, 5, 2)
    mean, var = np.float32([1, -1]), np.float32([4, 0.25])
    y, stats = batch_norm(x, train=False, mean=mean, var=var)
    expected = (x - mean) / np.sqrt(var + np.float32(1e-3))
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(stats["mean"], mean)
    np.testing.assert_array_equal(stats["var"], var)


def test_batch_norm_gradient_matches_the_published_formula():
    x, cotangent = normal(4, 3, 3, 2), normal(4, 3, 3, 2)
    scale = normal(2)

    def value(x):
        return jnp.sum(batch_norm(x, train=True, scale=scale)[0] * cotangent)

    axes = (0, 1, 2)
    inverse = 1 / np.sqrt(x.var(axes) + 1e-3)
    unit = (x - x.mean(axes)) * inverse
    # Ioffe and Szegedy 2015, the equations below Algorithm 1.
    expected = (
        scale
        * inverse
        * (
            cotangent
            - cotangent.mean(axes)
            - unit * (cotangent * unit).mean(axes, dtype=np.float64)
        )
    )
    np.testing.assert_allclose(jax.grad(value)(x), expected, atol=2e-6)


def test_batch_norm_takes_the_whole_batch_where_four_devices_share_it():
    # Every picture has a mean of its own, so that a part of the batch is far off.
    x = normal(8, 4, 4, 3) + np.arange(8, dtype=np.float32)[:, None, None, None]
    forward = jax.jit(lambda x: batch_norm(x, train=True))
    one, four = (forward(put_batch(x, make_mesh(n))) for n in (1, 4))
    for ours, theirs in zip(jax.tree.leaves(one), jax.tree.leaves(four), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_batch_norm_takes_statistics_in_float32_for_bfloat16():
    x = jnp.asarray(normal(16, 16, 16, 2, mean=10.0), jnp.bfloat16)
    y, stats = batch_norm(x, train=True, dtype="bfloat16")
    assert y.dtype == jnp.bfloat16
    assert stats["mean"].dtype == jnp.float32
    mean = np.asarray(x, np.float64).mean((0, 1, 2))
    np.testing.assert_allclose(stats["mean"], 0.03 * mean, rtol=1e-5)


@pytest.mark.parametrize("size", [1, 3, 6], ids=["1x1", "3x3", "6x6"])
@pytest.mark.parametrize("stride", [1, 2])
def test_conv_matches_a_sum_over_shifted_windows(size, stride):
    layer, pad = Conv(4, size, stride, padding=size // 2), size // 2
    x, kernel = normal(2, 9, 8, 3), normal(size, size, 3, 4)
    shape = jax.eval_shape(layer.init, jax.random.key(0), x)["params"]["kernel"].shape
    y = layer.apply({"params": {"kernel": kernel.reshape(shape)}}, x)
    padded = np.pad(x, [(0, 0), (pad, pad), (pad, pad), (0, 0)])
    rows = (9 + 2 * pad - size) // stride + 1
    columns = (8 + 2 * pad - size) // stride + 1
    expected = np.zeros((2, rows, columns, 4))
    for i in range(rows):
        for j in range(columns):
            top, left = i * stride, j * stride
            window = padded[:, top : top + size, left : left + size]
            expected[:, i, j] = np.einsum("bhwc,hwco->bo", window, kernel)
    np.testing.assert_allclose(y, expected, atol=3e-5)


@pytest.mark.parametrize("shape", [(2, 7, 4, 3), (1, 1, 1, 2), (1, 2, 9, 1)])
def test_max_pool_matches_windows_cut_out_one_by_one(shape):
    x = normal(*shape, mean=-5.0)
    expected = np.empty_like(x)
    for i in range(shape[1]):
        for j in range(shape[2]):
            window = x[:, max(i - 2, 0) : i + 3, max(j - 2, 0) : j + 3]
            expected[:, i, j] = window.max((1, 2))
    np.testing.assert_array_equal(
        jax.jit(max_pool_same, static_argnums=1)(x, 5), expected
    )


def test_pools_in_ceil_mode_keep_the_window_that_the_border_cuts():
    x = normal(2, 6, 7, 3, mean=-5.0)
    threes, twos = jax.jit(lambda x: (max_pool_ceil(x, 3, 2), max_pool_ceil(x, 2, 2)))(
        x
    )
    for size, pooled, shape in ((3, threes, (3, 3)), (2, twos, (3, 4))):
        expected = np.empty((2, *shape, 3), np.float32)
        for i, j in np.ndindex(*shape):
            window = x[:, 2 * i : 2 * i + size, 2 * j : 2 * j + size]
            expected[:, i, j] = window.max((1, 2))
        np.testing.assert_array_equal(pooled, expected)


def test_a_pool_in_ceil_mode_of_few_pixels_by_hand():
    x = jnp.array([[1.0, 2.0, 9.0, 3.0], [4.0, 0.0, 5.0, 6.0]])[None, :, :, None]
    # One window of three rows, the last of them outside; two of three columns.
    pooled, back = jax.jit(jax.value_and_grad(lambda x: max_pool_ceil(x, 3, 2).sum()))(
        x
    )
    assert pooled == 9 + 9
    assert back.sum() == back[0, 0, 2, 0] == 2


@pytest.mark.parametrize("size, stride, padding", [(3, 1, 1), (5, 3, 0)])
def test_means_of_windows_count_the_padding_as_pixels(size, stride, padding):
    x = normal(2, 8, 11, 3)
    padded = np.pad(x, [(0, 0), (padding,) * 2, (padding,) * 2, (0, 0)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, (size, size), (1, 2))
    expected = windows[:, ::stride, ::stride].mean((-1, -2), dtype=np.float64)
    ours, half = jax.jit(
        lambda x: [
            mean_pool(x.astype(t), size, stride, padding)
            for t in (jnp.float32, jnp.bfloat16)
        ]
    )(x)
    np.testing.assert_allclose(ours, expected, atol=1e-6)
    assert half.dtype == jnp.bfloat16


def test_gradient_of_three_pools_in_a_row_matches_windowed_reductions():
    x, cotangent = normal(1, 9, 8, 2), normal(3, 1, 9, 8, 2)

    def windowed(x):
        return jax.lax.reduce_window(
            x, -jnp.inf, jax.lax.max, (1, 5, 5, 1), (1, 1, 1, 1), "SAME"
        )

    def chained(pool):
        def value(x):
            first = pool(x)
            second = pool(first)
            return jnp.sum(jnp.stack([first, second, pool(second)]) * cotangent)

        return jax.grad(value)(x)

    ours = chained(lambda x: max_pool_same(x, 5))
    np.testing.assert_allclose(ours, chained(windowed), atol=1e-5)


def test_max_pool_shares_the_gradient_of_equal_values():
    gradient = jax.grad(lambda x: jnp.sum(max_pool_same(x, 3)))(jnp.zeros((1, 4, 4, 1)))
    np.testing.assert_allclose(jnp.sum(gradient), 16, rtol=1e-6)


def test_upsampling_repeats_every_pixel_and_its_gradient_sums_them():
    x = normal(2, 3, 2, 4)
    expected = x.repeat(2, axis=1).repeat(2, axis=2)
    np.testing.assert_array_equal(upsample_nearest(x), expected)
    gradient = jax.grad(lambda x: jnp.sum(upsample_nearest(x)))(x)
    np.testing.assert_array_equal(gradient, np.full_like(x, 4))
