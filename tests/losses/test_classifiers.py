"""Losses of classifiers against their formulas in NumPy float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from yolojax.losses.table import CLASSIFIER_LOSSES

every_loss = pytest.mark.parametrize("name", CLASSIFIER_LOSSES)
WEIGHTS = (0.5, 1.0, 2.0, 0.1)
SETTINGS = {
    "cross_entropy": {"label_smoothing": 0.1, "class_weights": WEIGHTS},
    "mse": {"label_smoothing": 0.1, "class_weights": WEIGHTS},
    "multi_label": {"label_smoothing": 0.1, "class_weights": WEIGHTS},
    "hinge": {"margin": 0.5, "class_weights": WEIGHTS},
}


def plain(name, x, y, label_smoothing=0.0, class_weights=(1.0,) * 4, margin=1.0):
    """The loss of one example from its definition; `y` is a class, or one a class."""
    weights = np.array(class_weights)
    if name == "multi_label":
        t = y * (1 - label_smoothing) + label_smoothing / 2
        p = 1 / (1 + np.exp(-x))
        return np.mean(weights * -(t * np.log(p) + (1 - t) * np.log(1 - p)))
    if name == "hinge":
        others = np.delete(x, y)
        return weights[y] * max(0, margin + others.max() - x[y])
    p = np.exp(x) / np.exp(x).sum()
    t = np.eye(4)[y] * (1 - label_smoothing) + label_smoothing / 4
    if name == "mse":
        return weights[y] * np.mean((t - p) ** 2)
    return weights[y] * -np.sum(t * np.log(p))


def examples(name):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(6, 4)) * 2
    labels = rng.integers(0, 4, 6)
    return logits, rng.random((6, 4)).round() if name == "multi_label" else labels


@functools.cache
def both(name, **settings):
    function = functools.partial(CLASSIFIER_LOSSES[name], **settings)
    gradient = jax.grad(lambda x, t: jnp.sum(function(x, t).astype(jnp.float32)))
    return jax.jit(lambda x, t: (function(x, t), gradient(x, t)))


def typed(labels, dtype):
    return jnp.asarray(labels, dtype if labels.ndim == 2 else jnp.int32)


@every_loss
def test_values_and_gradients_are_those_of_the_definition(name):
    logits, labels = examples(name)
    rows = range(len(logits))
    for settings in ({}, SETTINGS[name]):
        expected = [plain(name, logits[i], labels[i], **settings) for i in rows]
        slopes = np.zeros_like(logits)
        for row, column in np.ndindex(logits.shape):
            step = np.eye(4)[column] * 1e-6
            ends = [
                plain(name, logits[row] + s * step, labels[row], **settings)
                for s in (1, -1)
            ]
            slopes[row, column] = (ends[0] - ends[1]) / 2e-6
        with jax.enable_x64(True):
            values, gradients = both(name, **settings)(
                logits, typed(labels, jnp.float64)
            )
        np.testing.assert_allclose(values, expected, rtol=1e-9)
        np.testing.assert_allclose(gradients, slopes, rtol=1e-6, atol=1e-8)


@every_loss
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float16])
def test_extreme_logits_of_classifiers_are_finite(name, dtype):
    logits = jnp.asarray([[3e4, -3e4, 0, 0], [-3e4] * 4, [0.0] * 4, [3e4] * 4], dtype)
    labels = np.eye(4)[:4] if name == "multi_label" else np.array([1, 0, 2, 3])
    values, gradients = both(name, **SETTINGS[name])(logits, typed(labels, dtype))
    assert values.dtype == gradients.dtype == dtype
    assert jnp.isfinite(values).all() and jnp.isfinite(gradients).all()


def test_equal_logits_have_the_entropy_of_a_guess():
    values, _ = both("cross_entropy")(jnp.zeros((1, 4)), jnp.array([2]))
    np.testing.assert_allclose(values, [np.log(4)], rtol=1e-6)


def test_a_clear_margin_has_no_hinge_loss():
    logits = jnp.array([[3.0, 1.0, 0.0, 2.0], [1.0, 0.5, 0.0, 0.0]])
    values, _ = both("hinge")(logits, jnp.array([0, 0]))
    np.testing.assert_allclose(values, [0, 0.5])
