import jax
import jax.numpy as jnp
import numpy as np
import pytest

from yolojax.losses.classification import binary_cross_entropy, smooth_one_hot


def test_one_hot_has_one_positive():
    targets = smooth_one_hot(jnp.array([1, 0]), 3)
    np.testing.assert_array_equal(targets, [[0, 1, 0], [1, 0, 0]])


def test_smoothing_moves_half_of_it_from_the_positive_to_each_negative():
    targets = smooth_one_hot(jnp.array([2]), 3, label_smoothing=0.1)
    np.testing.assert_allclose(targets, [[0.05, 0.05, 0.95]], atol=1e-7)


@pytest.mark.parametrize("positive_weight", [1.0, 1.7])
def test_cross_entropy_is_that_of_the_definition(positive_weight):
    logits, targets = jnp.array([-2.0, 0.3, 4.0]), jnp.array([1.0, 0.25, 0.0])
    chance = 1 / (1 + np.exp(-np.asarray(logits, np.float64)))
    expected = -positive_weight * targets * np.log(chance) - (1 - targets) * np.log(
        1 - chance
    )
    loss = binary_cross_entropy(logits, targets, positive_weight=positive_weight)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_focal_loss_is_that_of_the_definition():
    logits, targets = jnp.array([-2.0, 0.3]), jnp.array([1.0, 0.0])
    chance = 1 / (1 + np.exp(-np.asarray(logits, np.float64)))
    truth = np.array([chance[0], 1 - chance[1]])
    expected = -np.array([0.25, 0.75]) * (1 - truth) ** 1.5 * np.log(truth)
    loss = binary_cross_entropy(logits, targets, focal_gamma=1.5)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


@pytest.mark.parametrize("focal_gamma", [0.0, 0.5, 1.5])
def test_extreme_logits_are_finite_in_value_and_gradient(focal_gamma):
    logits = jnp.array([-1e4, -100.0, 0.0, 100.0, 1e4])
    for target in (0.0, 0.5, 1.0):
        targets = jnp.full_like(logits, target)
        value, gradient = jax.jit(
            jax.value_and_grad(
                lambda x, t: jnp.sum(
                    binary_cross_entropy(x, t, focal_gamma=focal_gamma)
                )
            )
        )(logits, targets)
        assert np.isfinite(value) and np.isfinite(gradient).all()


def test_elements_are_independent_under_vmap_and_nothing_gives_nothing():
    logits, targets = jnp.array([[0.5, -1.0], [2.0, 0.0]]), jnp.eye(2)
    once = binary_cross_entropy(logits, targets)
    np.testing.assert_allclose(jax.vmap(binary_cross_entropy)(logits, targets), once)
    assert binary_cross_entropy(jnp.zeros((0, 3)), jnp.zeros((0, 3))).shape == (0, 3)
