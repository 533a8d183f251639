"""The moving average against the published decay and a NumPy float64 loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.shared import shared
from yolojax.engine.ema import choose_decay, ema_decay, update_ema


def test_decay_rises_as_published():
    golden = np.load(shared("golden", "misc.npz"))["ema_decay_at"]
    got = [ema_decay(updates, decay=0.9999, ramp=2000) for updates in golden[:, 0]]
    np.testing.assert_allclose(got, golden[:, 1], rtol=3e-7)


def test_decay_is_zero_before_the_first_update_and_ends_at_its_limit():
    assert ema_decay(0, decay=0.99, ramp=10) == 0.0
    np.testing.assert_allclose(ema_decay(10**6, decay=0.99, ramp=10), 0.99, rtol=1e-7)


def test_average_of_parameters_and_statistics_is_that_of_a_float64_loop():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(30, 2, 5))
    ema = {
        "params": {"a": jnp.asarray(values[0, 0], jnp.float32)},
        "batch_stats": {"m": jnp.asarray(values[0, 1], jnp.float32)},
    }
    expected = values[0]
    update = jax.jit(lambda *args: update_ema(*args, decay=0.9, ramp=5))
    for done in range(29):
        new = jnp.asarray(values[done + 1], jnp.float32)
        ema = update(ema, {"a": new[0]}, {"m": new[1]}, jnp.int32(done))
        keep = 0.9 * (1 - np.exp(-(done + 1) / 5))
        expected = keep * expected + (1 - keep) * values[done + 1]
    np.testing.assert_allclose(ema["params"]["a"], expected[0], rtol=2e-5, atol=1e-6)
    np.testing.assert_allclose(
        ema["batch_stats"]["m"], expected[1], rtol=2e-5, atol=1e-6
    )


def test_average_of_a_constant_is_the_constant():
    value = {"a": jnp.float32(0.1)}
    ema = {"params": value, "batch_stats": value}
    for done in (0, 7, 10**6):
        ema = update_ema(ema, value, value, done, decay=0.9999, ramp=2000)
    np.testing.assert_allclose(ema["params"]["a"], 0.1, rtol=2e-7)


def averages(name, updates=6):
    chosen = choose_decay(name, decay=0.75, ramp=4.0)
    values = np.random.default_rng(1).normal(size=(updates, 3)).astype(np.float32)
    start = jnp.asarray(values[0])
    ema = {"params": {"a": start}, "batch_stats": {"m": start}}
    for done, new in enumerate(jnp.asarray(values[1:])):
        ema = update_ema(ema, {"a": new}, {"m": new}, done, **chosen._asdict())
    return values, ema


def test_without_an_average_the_weights_themselves_are_kept_to_the_bit():
    values, ema = averages("none")
    np.testing.assert_array_equal(ema["params"]["a"], values[-1])
    np.testing.assert_array_equal(ema["batch_stats"]["m"], values[-1])


def test_a_constant_decay_is_the_same_from_the_first_update_on():
    values, ema = averages("constant")
    # 0.75 ** k of the k-th value from the end, the first one without the 0.25.
    weights = 0.25 * 0.75 ** np.arange(5)[::-1]
    expected = 0.75**5 * values[0].astype(np.float64) + weights @ values[1:]
    np.testing.assert_allclose(ema["params"]["a"], expected, rtol=1e-5)


def test_an_unknown_average_is_named():
    with pytest.raises(ValueError, match=r"config.ema.name.*'ram'.*mean 'ramp'"):
        choose_decay("ram", decay=0.9, ramp=1.0)
