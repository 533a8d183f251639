"""The pieces of the chain, one at a time."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from yolojax.optim import transforms

GRADS = {"a": jnp.array([3.0, 0.0]), "b": {"c": jnp.array([[4.0]])}}


def assert_trees_close(got, expected, **tolerance):
    jax.tree.map(
        lambda g, e: np.testing.assert_allclose(g, e, **tolerance), got, expected
    )


def constant(value):
    return lambda step: jnp.float32(value)


@pytest.mark.parametrize("flag", [True, False])
def test_tree_where_lets_nothing_of_the_other_tree_through(flag):
    good, bad = jnp.array([1.0, 2.0]), jnp.array([jnp.nan, jnp.inf])
    new, old = ({"a": good}, {"a": bad}) if flag else ({"a": bad}, {"a": good})
    got = transforms.tree_where(jnp.array(flag), new, old)
    np.testing.assert_array_equal(got["a"], good)


def test_tree_where_keeps_integer_types():
    got = transforms.tree_where(True, jnp.int32(3), jnp.int32(4))
    assert got.dtype == jnp.int32 and got == 3


@pytest.mark.parametrize(
    "limit, factor", [(10.0, 1.0), (2.5, 2.5 / (5.0 + 1e-6))], ids=["within", "beyond"]
)
def test_clip_scales_all_parameters_by_one_factor(limit, factor):
    tx = transforms.clip_by_norm(limit)
    got, _ = tx.update(GRADS, tx.init(GRADS))
    assert_trees_close(got, jax.tree.map(lambda g: g * factor, GRADS), rtol=1e-6)


def test_clip_of_a_zero_gradient_is_zero():
    zeros = jax.tree.map(jnp.zeros_like, GRADS)
    tx = transforms.clip_by_norm(1.0)
    got, _ = tx.update(zeros, tx.init(zeros))
    assert_trees_close(got, zeros, atol=0)


@pytest.mark.parametrize("nesterov", [True, False])
def test_trace_with_a_constant_factor_is_that_of_optax(nesterov):
    ours = transforms.scheduled_trace(constant(0.9), nesterov=nesterov)
    theirs = optax.trace(0.9, nesterov=nesterov)
    state, their_state = ours.init(GRADS), theirs.init(GRADS)
    for step in range(3):
        got, state = ours.update(GRADS, state, step=step)
        expected, their_state = theirs.update(GRADS, their_state)
        assert_trees_close(got, expected, rtol=1e-6)


def test_trace_uses_the_factor_of_the_iteration():
    tx = transforms.scheduled_trace(
        lambda step: jnp.asarray(step, jnp.float32) / 10, nesterov=True
    )
    state = transforms.TraceState({"a": jnp.float32(2.0)})
    got, state = tx.update({"a": jnp.float32(1.0)}, state, step=5)
    # buffer 0.5 * 2 + 1 = 2, ahead 1 + 0.5 * 2 = 2; at step 9: 0.9 * 2 + 1 = 2.8
    assert got["a"] == 2.0
    got, state = tx.update({"a": jnp.float32(1.0)}, state, step=9)
    np.testing.assert_allclose(state.trace["a"], 2.8, rtol=1e-6)
    np.testing.assert_allclose(got["a"], 1.0 + 0.9 * 2.8, rtol=1e-6)


def test_adam_with_a_constant_rate_is_that_of_optax():
    ours = transforms.scheduled_adam(constant(0.9), b2=0.99, eps=1e-8)
    theirs = optax.scale_by_adam(0.9, 0.99, 1e-8)
    state, their_state = ours.init(GRADS), theirs.init(GRADS)
    for step in range(5):
        grads = jax.tree.map(lambda g, k=step: g * jnp.float32(1.0 - 0.4 * k), GRADS)
        got, state = ours.update(grads, state, step=step)
        with jax.numpy_dtype_promotion("standard"):
            expected, their_state = theirs.update(grads, their_state)
        assert_trees_close(got, expected, rtol=1e-4, atol=1e-6)


def test_adam_of_a_constant_gradient_is_its_sign_also_while_the_rate_changes():
    tx = transforms.scheduled_adam(
        lambda step: 0.5 + jnp.asarray(step, jnp.float32) / 20, b2=0.999, eps=1e-8
    )
    state = tx.init(GRADS)
    for step in range(8):
        got, state = tx.update(GRADS, state, step=step)
        assert_trees_close(got, jax.tree.map(jnp.sign, GRADS), rtol=1e-5)


def test_rates_are_those_of_the_group_and_the_iteration():
    labels = {"a": "slow", "b": {"c": "fast"}}
    rates = {
        "slow": lambda step: jnp.asarray(step, jnp.float32),
        "fast": constant(10.0),
    }
    tx = transforms.scale_by_rates(labels, rates)
    got, _ = tx.update(GRADS, tx.init(GRADS), step=2)
    expected = {"a": jnp.array([-6.0, 0.0]), "b": {"c": jnp.array([[-40.0]])}}
    assert_trees_close(got, expected, rtol=0)


def test_accumulate_hands_on_sums_and_holds_the_inner_state_meanwhile():
    inner = transforms.scheduled_trace(constant(0.5), nesterov=False)
    tx = transforms.accumulate(inner, lambda step: step % 2 == 1)
    update = jax.jit(tx.update)
    state = tx.init({"a": jnp.float32(0)})
    seen, traces = [], []
    for step, grad in enumerate([1.0, 2.0, 4.0, 8.0]):
        got, state = update({"a": jnp.float32(grad)}, state, step=step)
        seen.append(float(got["a"]))
        traces.append(float(state.inner.trace["a"]))
    # sums 3 and 12; the second buffer is 0.5 * 3 + 12
    assert seen == [0.0, 3.0, 0.0, 13.5]
    assert traces == [0.0, 3.0, 3.0, 13.5]
    assert state.total["a"] == 0.0
