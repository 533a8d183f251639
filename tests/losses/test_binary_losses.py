"""Losses of binary classifiers against their published formulas in NumPy float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from yolojax.losses.classification import class_balanced_loss
from yolojax.losses.table import BINARY_LOSSES
from yolojax.losses.weights import (
    balanced_weights,
    count_classes,
    effective_weights,
    weight_of_labels,
)

LOSSES = {**BINARY_LOSSES, "class_balanced": class_balanced_loss}
SETTINGS = {
    "bce": {"positive_weight": 1.7},
    "focal": {"alpha": 0.3, "gamma": 1.5},
    "quality_focal": {"beta": 1.5},
    "varifocal": {"alpha": 0.6, "gamma": 1.5},
    "poly": {"epsilon": -0.5, "gamma": 2.0},
    "hinge": {"margin": 0.7},
    "class_balanced": {"gamma": 0.5},
}
every_loss = pytest.mark.parametrize("name", LOSSES)


def plain(name, x, t, **settings):
    """The loss from its definition, in float64."""
    p = 1 / (1 + np.exp(-x))
    pt = t * p + (1 - t) * (1 - p)
    ce = -t * np.log(p) - (1 - t) * np.log(1 - p)
    if name == "bce":
        weight = settings.get("positive_weight", 1.0)
        return -weight * t * np.log(p) - (1 - t) * np.log(1 - p)
    if name == "focal":
        alpha, gamma = settings.get("alpha", 0.25), settings.get("gamma", 2.0)
        return (t * alpha + (1 - t) * (1 - alpha)) * (1 - pt) ** gamma * ce
    if name == "quality_focal":
        return np.abs(t - p) ** settings.get("beta", 2.0) * ce
    if name == "varifocal":
        alpha, gamma = settings.get("alpha", 0.75), settings.get("gamma", 2.0)
        positive = -t * (t * np.log(p) + (1 - t) * np.log(1 - p))
        return np.where(t > 0, positive, -alpha * p**gamma * np.log(1 - p))
    if name == "poly":
        epsilon, gamma = settings.get("epsilon", 1.0), settings.get("gamma", 0.0)
        return (1 - pt) ** gamma * ce + epsilon * (1 - pt) ** (gamma + 1)
    if name == "mse":
        return (t - p) ** 2
    if name == "hinge":
        return np.maximum(0, settings.get("margin", 1.0) - (2 * t - 1) * x)
    return (1 - pt) ** settings.get("gamma", 0.0) * ce


def grid():
    """Logits with each of a few targets; none where a loss has a corner."""
    logits = np.linspace(-6.1, 6.3, 21)
    return map(np.ravel, np.meshgrid(logits, [0, 0.25, 0.6, 1]))


@functools.cache
def both(name, **settings):
    """Values, and the gradient of their sum by the logits, jitted."""
    function = functools.partial(LOSSES[name], **settings)
    gradient = jax.grad(lambda x, t: jnp.sum(function(x, t).astype(jnp.float32)))
    return jax.jit(lambda x, t: (function(x, t), gradient(x, t)))


@every_loss
def test_values_and_gradients_are_those_of_the_definition(name):
    logits, targets = grid()
    for settings in ({}, SETTINGS.get(name, {})):
        expected = plain(name, logits, targets, **settings)
        ends = [plain(name, logits + h, targets, **settings) for h in (1e-6, -1e-6)]
        slope = (ends[0] - ends[1]) / 2e-6
        with jax.enable_x64(True):
            values, gradients = both(name, **settings)(logits, targets)
        np.testing.assert_allclose(values, expected, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(gradients, slope, rtol=1e-6, atol=1e-8)
        single = [jnp.asarray(x, jnp.float32) for x in (logits, targets)]
        values, _ = both(name, **settings)(*single)
        np.testing.assert_allclose(values, expected, rtol=2e-5, atol=2e-6)


@every_loss
@pytest.mark.parametrize(
    "dtype",
    [jnp.float32, jnp.float16, pytest.param(jnp.bfloat16, marks=pytest.mark.slow)],
)
def test_extreme_logits_are_finite(name, dtype):
    logits = np.array([-6e4, -1e3, -100, -10, 0, 10, 100, 1e3, 6e4])
    logits, targets = map(np.ravel, np.meshgrid(logits, [0, 0.5, 1]))
    logits, targets = jnp.asarray(logits, dtype), jnp.asarray(targets, dtype)
    for settings in ({}, SETTINGS.get(name, {}), {"gamma": 0.5}):
        if settings == {"gamma": 0.5} and name not in ("focal", "varifocal", "poly"):
            continue
        values, gradients = both(name, **settings)(logits, targets)
        assert values.dtype == gradients.dtype == dtype
        assert jnp.isfinite(values).all() and jnp.isfinite(gradients).all()


@every_loss
def test_half_precision_is_single_precision_rounded(name):
    logits, targets = (jnp.asarray(x, jnp.float16) for x in grid())
    single = both(name)(logits.astype(jnp.float32), targets.astype(jnp.float32))
    for ours, theirs in zip(both(name)(logits, targets), single, strict=True):
        np.testing.assert_allclose(ours, theirs.astype(jnp.float16), rtol=2e-3)


def test_focal_loss_of_easy_examples_as_published():
    """Lin et al., section 3.2: gamma 2, p_t 0.9 is 100 times, 0.968 1000 times less."""
    chance = np.array([0.9, 0.968])
    logits = jnp.asarray(np.log(chance / (1 - chance)), jnp.float32)
    ones = jnp.ones_like(logits)
    focal = LOSSES["focal"](logits, ones, alpha=0.5, gamma=2.0) * 2
    ratio = LOSSES["bce"](logits, ones) / focal
    np.testing.assert_allclose(ratio, [100, 1000], rtol=0.03)


def test_quality_focal_is_least_at_the_quality():
    logits = jnp.linspace(-3, 3, 601)
    values = LOSSES["quality_focal"](logits, jnp.full_like(logits, 0.7))
    best = logits[np.argmin(values)]
    np.testing.assert_allclose(1 / (1 + np.exp(-best)), 0.7, atol=0.005)


def test_default_poly_adds_what_is_missed_to_the_cross_entropy():
    logits, targets = jnp.array([2.0, -1.0]), jnp.array([1.0, 0.0])
    missed = 1 / (1 + np.exp([2.0, 1.0]))
    np.testing.assert_allclose(
        LOSSES["poly"](logits, targets) - LOSSES["bce"](logits, targets),
        missed,
        rtol=1e-5,
    )


def test_effective_weights_are_those_of_the_definition():
    counts = [1000, 50, 1]
    effective = [sum(0.99**i for i in range(n)) for n in counts]
    expected = 1 / np.array(effective)
    weights = effective_weights(counts, beta=0.99)
    np.testing.assert_allclose(weights, 3 * expected / expected.sum(), rtol=1e-9)
    # As published: none at 0, by the inverse frequency towards 1.
    np.testing.assert_allclose(effective_weights(counts, beta=0.0), [1, 1, 1])
    inverse = 1 / np.array(counts)
    np.testing.assert_allclose(
        effective_weights(counts, beta=1 - 1e-10),
        3 * inverse / inverse.sum(),
        rtol=1e-6,
    )


def test_balanced_weights_give_every_class_the_same_share():
    weights = balanced_weights([60, 30, 10])
    np.testing.assert_allclose(np.multiply(weights, [60, 30, 10]), 100 / 3)
    assert all(np.isfinite(balanced_weights([5, 0])))
    assert all(np.isfinite(effective_weights([5, 0])))


def test_classes_are_counted_and_labels_weighed():
    labels = [np.array([0, 2, 2], np.int32), np.array([], np.int32)]
    assert count_classes(labels, 4) == (1, 0, 2, 0)
    weights = weight_of_labels(
        jnp.array([[2, 0], [1, 9]]), (1.0, 2.0, 3.0), jnp.float32
    )
    np.testing.assert_array_equal(weights, [[3, 1], [2, 3]])
