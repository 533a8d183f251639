"""Weight averaging against means in NumPy float64."""

import jax.numpy as jnp
import numpy as np
import pytest

from yolojax.engine import swa

RNG = np.random.default_rng(0)


def average_of(params, **options):
    given = dict(start=6, every=3, recompute=lambda v: {"m": v["params"]["a"] * 2})
    variables = {"params": params, "batch_stats": {"m": jnp.zeros(4)}}
    return swa.WeightAverage(variables, **(given | options))


def test_the_mean_is_that_of_the_ends_of_the_last_epochs():
    values = RNG.normal(size=(16, 4))
    average = average_of({"a": jnp.full(4, 7.0)})
    for step in range(1, 16):
        average.add(step, {"a": jnp.asarray(values[step], jnp.float32)})
    # Epochs of 3 steps, of which the first two do not count.
    expected = values[[9, 12, 15]].mean(axis=0)
    np.testing.assert_allclose(average.variables["params"]["a"], expected, atol=1e-6)
    assert [average.snapshots(n) for n in (0, 6, 8, 9, 15)] == [0, 0, 0, 1, 3]
    average.finish()
    np.testing.assert_allclose(
        average.variables["batch_stats"]["m"], 2 * expected, atol=1e-6
    )


def test_the_first_snapshot_takes_the_place_of_what_was_there():
    average = average_of({"a": jnp.full(4, 1e30)})
    new = jnp.asarray(RNG.normal(size=4), jnp.float32)
    average.add(9, {"a": new})
    np.testing.assert_array_equal(average.variables["params"]["a"], new)


def test_an_average_that_goes_on_is_the_same_to_the_bit():
    values = jnp.asarray(RNG.normal(size=(5, 4)), jnp.float32)
    whole, first = average_of({"a": values[0]}), average_of({"a": values[0]})
    for count in (1, 2):
        whole.add(6 + 3 * count, {"a": values[count]})
        first.add(6 + 3 * count, {"a": values[count]})
    second = average_of(first.variables["params"])
    for average in (whole, second):
        average.add(15, {"a": values[3]})
    np.testing.assert_array_equal(
        whole.variables["params"]["a"], second.variables["params"]["a"]
    )


def test_statistics_are_means_over_the_batches():
    batches = RNG.normal(size=(5, 8, 3)).astype(np.float32)

    def running(stats, batch):
        mean, var = batch.mean(axis=0), batch.var(axis=0)
        return {
            "mean": 0.97 * stats["mean"] + 0.03 * mean,
            "var": 0.97 * stats["var"] + 0.03 * var,
            "fixed": stats["fixed"],
        }

    before = {"mean": jnp.ones(3), "var": jnp.ones(3), "fixed": jnp.full(3, 4.0)}
    found = swa.mean_statistics(running, before, map(jnp.asarray, batches))
    exact = batches.astype(np.float64)
    np.testing.assert_allclose(
        found["mean"], exact.mean(axis=1).mean(axis=0), rtol=1e-4, atol=1e-5
    )
    np.testing.assert_allclose(found["var"], exact.var(axis=1).mean(axis=0), rtol=1e-4)
    np.testing.assert_array_equal(found["fixed"], before["fixed"])
    with pytest.raises(ValueError, match="no batch"):
        swa.mean_statistics(running, before, [])


def test_more_averaged_epochs_than_there_are_is_refused():
    swa.check_epochs(0, 1)
    swa.check_epochs(4, 5)
    with pytest.raises(ValueError, match="config.swa.epochs is 5, but .* has 5 epochs"):
        swa.check_epochs(5, 5)
