"""The whole chain against a second implementation in NumPy, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.shared import shared
from yolojax import trees
from yolojax.engine.sharding import make_mesh, put_replicated
from yolojax.optim import build

RECIPE = dict(
    learning_rate=0.02,
    final_ratio=0.1,
    schedule="cosine",
    momentum=0.937,
    weight_decay=0.01,
    warmup_steps=6,
    warmup_bias_rate=0.1,
    warmup_momentum=0.8,
    clip_norm=4.0,
    batch_size=16,
    nominal_batch=40,
    steps_per_epoch=2,
    epochs=7,
)


def make_params():
    rng = np.random.default_rng(0)
    leaves = {
        "stem/conv/kernel": rng.normal(size=(3, 2)),
        "stem/bn/scale": rng.normal(size=2),
        "stem/bn/bias": rng.normal(size=2),
        "head/bias": rng.normal(size=4),
    }
    return trees.unflatten({k: v.astype(np.float32) for k, v in leaves.items()})


def make_grads(params, steps):
    rng = np.random.default_rng(1)
    return [
        jax.tree.map(lambda p: rng.normal(size=p.shape).astype(np.float32), params)
        for _ in range(steps)
    ]


def reference(params, grads, name, recipe):
    """Parameters after each iteration by the published rules, in float64."""
    r = recipe
    params = {k: v.astype(np.float64) for k, v in trees.flatten(params).items()}
    zeros = {k: np.zeros_like(v) for k, v in params.items()}
    total, first, second = dict(zeros), dict(zeros), dict(zeros)
    ratio = r["nominal_batch"] / r["batch_size"]
    seen = r["batch_size"] * max(round(ratio), 1)
    decay = r["weight_decay"] * seen / r["nominal_batch"]
    last, updates, weight, rows = -1, 0, 1.0, []
    for step, grad in enumerate(grads):
        epoch = step // r["steps_per_epoch"]
        wave = (1 - np.cos(epoch * np.pi / r["epochs"])) / 2
        base = r["learning_rate"] * (wave * (r["final_ratio"] - 1) + 1)
        ramp = [0, r["warmup_steps"]]
        rate = np.interp(step, ramp, [0.0, base])
        bias_rate = np.interp(step, ramp, [r["warmup_bias_rate"], base])
        m = np.interp(step, ramp, [r["warmup_momentum"], r["momentum"]])
        period = max(1, np.round(np.interp(step, ramp, [1, ratio])))
        total = {k: total[k] + g for k, g in trees.flatten(grad).items()}
        if step - last >= period:
            last, updates, weight = step, updates + 1, weight * m
            norm = np.sqrt(sum((g**2).sum() for g in total.values()))
            clip = min(r["clip_norm"] / (norm + 1e-6), 1.0)
            for k, p in params.items():
                g = total[k] * clip
                wd = decay if k.endswith("kernel") else 0.0
                lr = bias_rate if k.endswith("bias") else rate
                if name == "sgd":
                    g = g + wd * p
                    first[k] = m * first[k] + g
                    params[k] = p - lr * (g + m * first[k])
                else:
                    first[k] = m * first[k] + (1 - m) * g
                    second[k] = 0.999 * second[k] + 0.001 * g**2
                    mean = first[k] / (1 - weight)
                    root = np.sqrt(second[k] / (1 - 0.999**updates))
                    params[k] = p - lr * wd * p - lr * mean / (root + 1e-8)
            total = zeros
        rows.append(dict(params))
    return rows


def run(optimizer, params, grads, start=0, state=None):
    @jax.jit
    def one(params, state, grad, step):
        updates, state = optimizer.tx.update(grad, state, params, step=step)
        return optax.apply_updates(params, updates), state

    state = optimizer.tx.init(params) if state is None else state
    rows = []
    for step, grad in enumerate(grads, start):
        params, state = one(params, state, grad, jnp.int32(step))
        rows.append(params)
    return rows, state


@pytest.mark.parametrize("batch_size", [16, 40, 64], ids=["sums", "plain", "larger"])
@pytest.mark.parametrize("name", ("adamw", "sgd"))
def test_twelve_iterations_are_those_of_the_published_rules(name, batch_size):
    recipe = RECIPE | {"batch_size": batch_size}
    params = make_params()
    grads = make_grads(params, 12)
    got, _ = run(build.build_optimizer(params, name=name, **recipe), params, grads)
    expected = reference(params, grads, name, recipe)
    for row, wanted in zip(got, expected, strict=True):
        for path, value in trees.flatten(row).items():
            np.testing.assert_allclose(value, wanted[path], rtol=2e-5, atol=2e-6)


def test_parameters_move_only_when_stepped_says_so():
    params = make_params()
    grads = make_grads(params, 12)
    optimizer = build.build_optimizer(params, **RECIPE)
    rows, _ = run(optimizer, params, grads)
    moved = []
    for before, after in zip([params, *rows], rows, strict=False):
        same = jax.tree.map(lambda a, b: bool((a == b).all()), before, after)
        moved.append(not all(jax.tree.leaves(same)))
    stepped = [bool(optimizer.stepped(step)) for step in range(12)]
    assert moved == stepped
    assert 0 < sum(stepped) < 12


def test_weight_decay_moves_kernels_only():
    params = make_params()
    zeros = [jax.tree.map(np.zeros_like, params)]
    recipe = RECIPE | {"warmup_steps": 0, "batch_size": 40}
    for name in ("adamw", "sgd"):
        (after,), _ = run(
            build.build_optimizer(params, name=name, **recipe), params, zeros
        )
        before = trees.flatten(params)
        for path, value in trees.flatten(after).items():
            changed = not np.array_equal(value, before[path])
            assert changed == path.endswith("kernel"), (name, path)


def test_no_memory_for_sums_where_the_batch_is_the_nominal_one():
    params = make_params()
    sizes = {}
    for batch_size in (20, 40):
        recipe = RECIPE | {"batch_size": batch_size}
        state = build.build_optimizer(params, **recipe).tx.init(params)
        sizes[batch_size] = len(jax.tree.leaves(state))
    assert sizes == {20: 8, 40: 4}


@pytest.mark.parametrize("name", ("adamw", "sgd"))
def test_state_is_float32_and_keeps_its_structure(name):
    params = make_params()
    optimizer = build.build_optimizer(params, name=name, **RECIPE)
    start = optimizer.tx.init(params)
    _, state = run(optimizer, params, make_grads(params, 3))
    assert jax.tree.structure(start) == jax.tree.structure(state)
    for a, b in zip(jax.tree.leaves(start), jax.tree.leaves(state), strict=True):
        assert a.shape == b.shape
        assert a.dtype == b.dtype == jnp.float32


@pytest.mark.parametrize("name", ("adamw", "sgd"))
def test_a_state_written_and_read_between_steps_changes_nothing(name, tmp_path):
    params = make_params()
    grads = make_grads(params, 9)
    optimizer = build.build_optimizer(params, name=name, **RECIPE)
    whole, _ = run(optimizer, params, grads)
    # Iteration 5 lies between two optimiser steps: a sum is under way.
    assert not optimizer.stepped(4)
    first, state = run(optimizer, params, grads[:5])
    leaves = jax.tree.leaves((first[-1], state))
    np.savez(tmp_path / "state.npz", *leaves)
    stored = np.load(tmp_path / "state.npz")
    tree = jax.tree.structure((params, optimizer.tx.init(params)))
    read, state = jax.tree.unflatten(
        tree, [jnp.asarray(stored[f"arr_{i}"]) for i in range(len(leaves))]
    )
    second, _ = run(optimizer, read, grads[5:], start=5, state=state)
    jax.tree.map(np.testing.assert_array_equal, second[-1], whole[-1])


def test_a_replicated_state_on_four_devices_gives_the_same_bits():
    params = make_params()
    grads = make_grads(params, 6)
    optimizer = build.build_optimizer(params, **RECIPE)
    one, _ = run(optimizer, params, grads)
    mesh = make_mesh(4)
    spread = put_replicated(params, mesh)
    four, state = run(optimizer, spread, put_replicated(grads, mesh))
    jax.tree.map(np.testing.assert_array_equal, four[-1], one[-1])
    assert all(len(leaf.devices()) == 4 for leaf in jax.tree.leaves(state))


def test_rates_are_the_published_warm_up():
    golden = np.load(shared("golden", "train20_warmup_f64.npz"))
    optimizer = build.build_optimizer(
        make_params(),
        warmup_steps=100,
        batch_size=8,
        steps_per_epoch=1000,
        epochs=300,
    )
    rates = jax.vmap(optimizer.rates)(np.arange(20))
    lr = golden["lr"]
    np.testing.assert_allclose(rates["learning_rate_bias"], lr[:, 0], rtol=1e-6)
    np.testing.assert_allclose(rates["learning_rate"], lr[:, 1], rtol=1e-6)
    np.testing.assert_allclose(rates["momentum"], golden["momentum"], rtol=1e-6)
    np.testing.assert_array_equal(rates["accumulation"], golden["accumulate"])
    stepped = jax.vmap(optimizer.stepped)(np.arange(20))
    np.testing.assert_array_equal(stepped, golden["stepped"])


@pytest.mark.parametrize("schedule", ("constant", "cosine", "linear"))
@pytest.mark.parametrize("name", ("adamw", "sgd"))
def test_each_optimizer_with_each_schedule_lowers_a_quadratic(name, schedule):
    params = make_params()
    recipe = RECIPE | {"schedule": schedule, "epochs": 30, "batch_size": 40}
    optimizer = build.build_optimizer(params, name=name, **recipe)

    def loss(params):
        return sum((p**2).sum() for p in jax.tree.leaves(params))

    @jax.jit
    def one(params, state, step):
        updates, state = optimizer.tx.update(
            jax.grad(loss)(params), state, params, step=step
        )
        return optax.apply_updates(params, updates), state

    start, state = loss(params), optimizer.tx.init(params)
    for step in range(60):
        params, state = one(params, state, jnp.int32(step))
    assert loss(params) < 0.5 * start


def test_nesterov_off_differs_and_no_clipping_is_possible():
    params = make_params()
    grads = make_grads(params, 8)
    recipe = RECIPE | {"clip_norm": 0.0}
    plain, _ = run(
        build.build_optimizer(params, nesterov=False, **recipe), params, grads
    )
    ahead, _ = run(build.build_optimizer(params, **recipe), params, grads)
    clipped, _ = run(build.build_optimizer(params, **RECIPE), params, grads)
    kernels = [rows[-1]["stem"]["conv"]["kernel"] for rows in (plain, ahead, clipped)]
    assert not np.allclose(kernels[0], kernels[1])
    assert not np.allclose(kernels[1], kernels[2])


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"name": "sdg"}, "no optimizer named 'sdg'. Did you mean 'sgd'"),
        ({"nesterv": True}, "'sgd' has no argument 'nesterv'. Did you mean 'nesterov'"),
        ({"learning_rat": 0.1}, "Did you mean 'learning_rate'"),
        ({"b2": 0.9}, "optimizer 'sgd' has no argument 'b2'"),
        ({"schedule": "linar"}, "Did you mean 'linear'"),
    ],
)
def test_unknown_names_get_a_clear_error(arguments, message):
    with pytest.raises(ValueError, match=message):
        build.build_optimizer(make_params(), **(RECIPE | arguments))


def test_a_parameter_of_no_group_is_refused():
    params = make_params() | {"table": np.zeros(3, np.float32)}
    with pytest.raises(ValueError, match="1 parameters belong to no group: table"):
        build.build_optimizer(params, **RECIPE)
