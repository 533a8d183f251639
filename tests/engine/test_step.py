"""The training step: sharding, compilation, seeds, bad numbers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import small
from tests.tiny import DESCRIPTION, tiny_config
from yolojax import experiment, trees
from yolojax.engine import sharding, step
from yolojax.optim.groups import Leaf

# From random parameters, training at the published rate is chaotic: rounding grows
# tenfold a step. A small rate shows whether the mathematics is the same.
CALM = {
    "model": {"name": "yaml", "description": DESCRIPTION},
    "optim__learning_rate": 1e-3,
    "optim__warmup_bias_rate": 1e-3,
}


def run_steps(count, **changes):
    run = experiment.build(tiny_config(**CALM, **changes))
    state = run.initial_state()
    batches = run.train_batches()
    losses = []
    for _ in range(count):
        batch = sharding.put_batch(next(batches), run.mesh)
        state, numbers = run.step(state, batch)
        losses.append(float(numbers["loss"]))
    return run, state, losses


@pytest.fixture(scope="module")
def on_one_device():
    return run_steps(5)


def largest_difference(one, other):
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return max(float(np.max(np.abs(np.asarray(a) - np.asarray(b)))) for a, b in pairs)


@pytest.mark.slow
def test_four_devices_give_the_same_losses_and_parameters(on_one_device):
    _, state, losses = on_one_device
    _, sharded, sharded_losses = run_steps(5, devices=4)
    np.testing.assert_allclose(losses, sharded_losses, rtol=1e-5)
    for name in ("params", "ema", "batch_stats"):
        pairs = zip(
            jax.tree.leaves(getattr(state, name)),
            jax.tree.leaves(getattr(sharded, name)),
            strict=True,
        )
        for one, other in pairs:
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("momentum", [0.03, 0.1, 0.25])
def test_statistics_begin_as_the_mean_of_the_batches(momentum):
    seen = np.random.default_rng(0).uniform(1e-3, 2.0, 50)
    tree, expected = {"a": {"norm": {"var": jnp.ones(())}}, "b": jnp.ones(())}, None
    momenta = {"a/norm": momentum}
    begin = jax.jit(functools.partial(step.begun_statistics, momenta=momenta))
    for number, value in enumerate(seen):
        moved = jax.tree.map(lambda old, v=value: old + momentum * (v - old), tree)
        begun = begin(tree, moved, jnp.int32(number))
        # What is not named stays as it is.
        assert begun["b"] == moved["b"]
        count = number + 1
        if count <= 1 / momentum:
            expected = seen[:count].mean()
        else:
            expected += momentum * (value - expected)
        np.testing.assert_allclose(begun["a"]["norm"]["var"], expected, rtol=1e-5)
        tree = begun


def test_after_one_step_the_statistics_are_those_of_its_batch(on_one_device):
    run = experiment.build(tiny_config(**CALM, init__statistics="batches"))
    published = on_one_device[0]
    batch = sharding.put_batch(next(run.train_batches()), run.mesh)
    one, _ = run.step(run.initial_state(), batch)
    other, _ = published.step(published.initial_state(), batch)
    momenta, pairs = run.model.norm_momenta(), {}
    for tree, name in ((one, "one"), (other, "other")):
        for path, leaf in trees.flatten(tree.batch_stats).items():
            pairs.setdefault(path, {})[name] = np.asarray(leaf, np.float64)
    assert {path.rpartition("/")[0] for path in pairs} == momenta.keys()
    for path, found in pairs.items():
        norm, _, kind = path.rpartition("/")
        first = 1.0 if kind == "var" else 0.0
        of_batch = first + (found["other"] - first) / momenta[norm]
        np.testing.assert_allclose(found["one"], of_batch, rtol=1e-3, atol=1e-5)


def test_a_step_compiles_once(on_one_device):
    run, _, _ = on_one_device
    assert run.step._cache_size() == 1


@pytest.mark.parametrize("name", ["adamw", "schedule_free_sgd", "sgd"])
def test_no_buffer_of_a_first_state_is_donated_twice(name):
    state = experiment.build(tiny_config(optim__name=name)).initial_state()
    leaves = jax.tree.leaves(state)
    assert len({leaf.unsafe_buffer_pointer() for leaf in leaves}) == len(leaves)


def test_the_same_seed_gives_the_same_bits_and_another_does_not(on_one_device):
    run, state, losses = on_one_device

    batches = run.train_batches()
    repeated = run.initial_state()
    for _ in range(5):
        batch = sharding.put_batch(next(batches), run.mesh)
        repeated, _ = run.step(repeated, batch)
    assert largest_difference(state, repeated) == 0
    _, other, other_losses = run_steps(1, seed=1)
    assert other_losses[0] != losses[0]


def test_a_step_that_is_not_finite_changes_nothing_but_the_counters(on_one_device):
    run, _, _ = on_one_device
    state = run.initial_state()
    broken = jax.tree.map(jnp.copy, state.params)
    level = next(iter(broken["head"].values()))
    level["bias"] = level["bias"] * jnp.nan
    state = state._replace(params=broken)
    kept = jax.tree.map(np.array, state)
    batch = sharding.put_batch(next(run.train_batches()), run.mesh)
    state, numbers = run.step(state, batch)
    assert float(numbers["finite"]) == 0
    assert int(state.step) == 1
    assert int(state.skipped) == int(state.skipped_in_a_row) == 1
    for name in ("batch_stats", "opt_state", "ema"):
        assert largest_difference(getattr(kept, name), getattr(state, name)) == 0


def test_updates_are_told_by_the_config_s_groups_and_else_by_kind():
    kernels = [small.variables()["params"][k]["kernel"] for k in ("first", "second")]
    grads = small.gradient([np.float64(k) for k in kernels], 0)
    moves = [small.RATE * g for g in grads]
    plain = small.run(small.make_optimizer(), 1).numbers[0]
    both = np.linalg.norm(np.hstack([m.ravel() for m in moves]))
    sizes = np.linalg.norm(np.hstack([k.ravel() for k in kernels]))
    assert plain["update_ratio/kernel"] == pytest.approx(both / sizes, rel=1e-5)
    leaves = {
        f"{name}/kernel": Leaf(label, 1.0, 1.0, 0.0, 0.0)
        for name, label in (("first", "stem"), ("second", "rest"))
    }
    row = small.run(small.make_optimizer(leaves=leaves), 1).numbers[0]
    ratios = {k: v for k, v in row.items() if k.startswith("update_ratio/")}
    assert ratios.keys() == {"update_ratio/stem", "update_ratio/rest"}
    for label, move, kernel in zip(("stem", "rest"), moves, kernels, strict=True):
        expected = np.linalg.norm(move) / np.linalg.norm(kernel)
        assert ratios[f"update_ratio/{label}"] == pytest.approx(expected, rel=1e-5)


def test_all_state_is_float32_or_int32(on_one_device):
    _, state, _ = on_one_device
    assert {str(x.dtype) for x in jax.tree.leaves(state)} == {"float32", "int32"}
