import jax
import jax.numpy as jnp
import numpy as np
import pytest

from yolojax.models.darknet_layers import (
    AveragePool,
    BiasedUnit,
    MaxPool,
    Route,
    Shortcut,
    Softmax,
    Upsample,
)


def picture(height=5, width=6, channels=2, seed=0):
    values = np.random.default_rng(seed).normal(size=(1, height, width, channels))
    return values.astype(np.float32)


def run(module, *maps):
    call = jax.jit(lambda *maps: module.apply({}, *maps, train=False))
    return np.asarray(call(*map(jnp.asarray, maps)))


def windows(x, size, stride, padding):
    """Largest values, window after window; the low side has half of the padding."""
    _, height, width, channels = x.shape
    rows, columns = ((n + padding - size) // stride + 1 for n in (height, width))
    y = np.zeros((1, rows, columns, channels), x.dtype)
    for i in range(rows):
        for j in range(columns):
            top, left = i * stride - padding // 2, j * stride - padding // 2
            part = x[:, max(top, 0) : top + size, max(left, 0) : left + size]
            y[:, i, j] = part.max((1, 2))
    return y


@pytest.mark.parametrize(
    "size, stride, padding",
    [(2, 2, 1), (2, 1, 1), (3, 1, 2), (5, 1, 4), (9, 1, 8), (3, 2, 0), (2, 2, 0)],
)
def test_max_pool_is_the_largest_of_each_window(size, stride, padding):
    for shape in ((5, 6), (8, 4), (9, 9)):
        x = picture(*shape)
        y = run(MaxPool(size, stride, padding), x)
        np.testing.assert_array_equal(y, windows(x, size, stride, padding))


def test_max_pool_of_two_with_step_one_looks_right_and_down():
    x = np.arange(4, dtype=np.float32).reshape(1, 2, 2, 1)
    y = run(MaxPool(2, 1, 1), x)
    assert y[0, :, :, 0].tolist() == [[3, 3], [3, 3]]
    y = run(MaxPool(2, 1, 1), -x)
    assert y[0, :, :, 0].tolist() == [[0, -1], [-2, -3]]


def test_max_pool_has_a_finite_gradient():
    x = jnp.asarray(picture())
    grad = jax.grad(lambda x: MaxPool(3, 2, 2).apply({}, x, train=True).sum())(x)
    assert np.isfinite(grad).all()
    assert np.asarray(grad).sum() == 3 * 3 * 2


def test_route_puts_one_group_of_each_map_side_by_side():
    one, two = picture(channels=4, seed=1), picture(channels=2, seed=2)
    np.testing.assert_array_equal(
        run(Route(2, 1), one, two), np.concatenate([one[..., 2:], two[..., 1:]], -1)
    )
    np.testing.assert_array_equal(
        run(Route(), two, one), np.concatenate([two, one], -1)
    )


def test_shortcut_adds_and_then_activates():
    one, two, three = (picture(seed=seed) for seed in range(3))
    np.testing.assert_allclose(run(Shortcut(), one, two, three), one + two + three)
    total = one + two
    np.testing.assert_allclose(
        run(Shortcut("leaky"), one, two), np.where(total > 0, total, 0.1 * total)
    )


def test_upsample_repeats_rows_and_columns():
    x = picture()
    np.testing.assert_array_equal(
        run(Upsample(3), x), x.repeat(3, axis=1).repeat(3, axis=2)
    )


def test_average_and_softmax():
    x = picture()
    y = run(AveragePool(), x)
    assert y.shape == (1, 1, 1, 2)
    np.testing.assert_allclose(y[0, 0, 0], x.mean((0, 1, 2)), rtol=1e-5)
    exps = np.exp(x.astype(np.float64))
    expected = exps / exps.sum(-1, keepdims=True)
    np.testing.assert_allclose(run(Softmax(), x), expected, rtol=1e-5)


def test_a_biased_unit_convolves_adds_and_activates():
    x = picture(3, 3, 2)
    kernel = np.array([[1.0, 0.0, -1.0], [0.5, 2.0, 0.0]], np.float32)
    bias = np.array([0.1, -3.0, 0.0], np.float32)
    params = {"params": {"conv": {"kernel": kernel, "bias": bias}}}
    unit = BiasedUnit(3, activation="relu")
    y = unit.apply(params, jnp.asarray(x), train=False)
    expected = np.maximum(x.reshape(-1, 2) @ kernel + bias, 0).reshape(1, 3, 3, 3)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)
