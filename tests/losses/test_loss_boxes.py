import jax
import jax.numpy as jnp
import numpy as np
import pytest

from yolojax.losses.boxes import predicted_ciou

ANCHOR = jnp.array([[3.0, 2.0]])


def test_a_prediction_equal_to_its_target_has_full_overlap():
    # Zero logits: the middle of the cell, the size of the anchor.
    target = jnp.array([[0.5, 0.5, 3.0, 2.0]])
    overlap = predicted_ciou(jnp.zeros((1, 4)), ANCHOR, target)
    np.testing.assert_allclose(overlap, [1], atol=1e-6)


def test_a_step_along_the_gradient_raises_the_overlap():
    target, logits = jnp.array([[0.9, 0.2, 5.0, 1.0]]), jnp.zeros((1, 4))

    @jax.jit
    def overlap(logits):
        return predicted_ciou(logits, ANCHOR, target)[0]

    moved = logits + 0.05 * jax.grad(overlap)(logits)
    assert overlap(moved) > overlap(logits)


@pytest.mark.parametrize("logit", [-100.0, 0.0, 100.0])
def test_degenerate_boxes_are_finite_in_value_and_gradient(logit):
    targets = jnp.array([[0.5, 0.5, 0.0, 0.0], [0.0, 1.0, 3.0, 0.0]])
    logits, anchors = jnp.full((2, 4), logit), jnp.repeat(ANCHOR, 2, axis=0)
    value, gradient = jax.jit(
        jax.value_and_grad(lambda x: jnp.sum(predicted_ciou(x, anchors, targets)))
    )(logits)
    assert np.isfinite(value) and np.isfinite(gradient).all()


def test_nothing_gives_nothing():
    empty = predicted_ciou(jnp.zeros((0, 4)), jnp.zeros((0, 2)), jnp.zeros((0, 4)))
    assert empty.shape == (0,)
