"""The moving average against the published decay and a NumPy float64 loop."""

import jax
import jax.numpy as jnp
import numpy as np

from tests.shared import shared
from yolojax.engine.ema import ema_decay, update_ema


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
