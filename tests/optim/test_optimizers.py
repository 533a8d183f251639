"""Each optimiser against Optax's own function of its name, and what surrounds them."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

from yolojax import trees
from yolojax.engine.sharding import make_mesh, put_replicated
from yolojax.optim import build, wrappers
from yolojax.optim.optimizers import OPTIMIZERS

RATE, MOMENTUM = 0.03, 0.9
PLAIN: dict[str, Any] = dict(
    learning_rate=RATE,
    schedule="constant",
    momentum=MOMENTUM,
    weight_decay=0.0,
    clip_norm=0.0,
    batch_size=8,
    nominal_batch=8,
    steps_per_epoch=4,
    epochs=5,
)
FREE = optax.contrib

# What Optax calls it, and the arguments of ours that are not the defaults.
CASES = {
    "adadelta": (optax.adadelta(RATE), {}),
    "adafactor": (optax.adafactor(RATE), {}),
    "adafactor-momentum": (
        optax.adafactor(RATE, momentum=MOMENTUM, min_dim_size_to_factor=2),
        {"use_momentum": True, "min_dim_size_to_factor": 2},
    ),
    "adagrad": (optax.adagrad(RATE), {}),
    "adam": (optax.adam(RATE, MOMENTUM), {}),
    "adamax": (optax.adamax(RATE, MOMENTUM), {}),
    "adamw": (optax.adamw(RATE, MOMENTUM, weight_decay=0.0), {}),
    "lamb": (optax.lamb(RATE, MOMENTUM), {}),
    "lars": (optax.lars(RATE, momentum=MOMENTUM), {}),
    "lars-nesterov": (
        optax.lars(RATE, momentum=MOMENTUM, nesterov=True, trust_coefficient=0.1),
        {"nesterov": True, "trust_coefficient": 0.1},
    ),
    "lion": (optax.lion(RATE, MOMENTUM, weight_decay=0.0), {}),
    "nadam": (optax.nadam(RATE, MOMENTUM), {}),
    "radam": (optax.radam(RATE, MOMENTUM), {}),
    "radam-short": (optax.radam(RATE, MOMENTUM, threshold=1.5), {"threshold": 1.5}),
    "rmsprop": (optax.rmsprop(RATE), {}),
    "rmsprop-momentum": (
        optax.rmsprop(RATE, momentum=MOMENTUM, centered=True, eps=1e-3),
        {"use_momentum": True, "centered": True, "eps": 1e-3},
    ),
    "schedule_free_adamw": (FREE.schedule_free_adamw(RATE, b1=MOMENTUM), {}),
    "schedule_free_sgd": (FREE.schedule_free_sgd(RATE, b1=MOMENTUM), {}),
    "sgd": (optax.sgd(RATE, MOMENTUM), {"nesterov": False}),
    "yogi": (optax.yogi(RATE, MOMENTUM), {}),
}


def make_params():
    rng = np.random.default_rng(0)
    shapes = {
        "stem/conv/kernel": (3, 3, 2, 4),
        "stem/norm/scale": (4,),
        "head/level3/kernel": (4, 3),
        "head/level3/bias": (3,),
    }
    return trees.unflatten(
        {k: rng.normal(size=s).astype(np.float32) for k, s in shapes.items()}
    )


def make_grads(params, steps):
    rng = np.random.default_rng(1)
    return [
        jax.tree.map(lambda p: rng.normal(size=p.shape).astype(np.float32), params)
        for _ in range(steps)
    ]


def ours(params, grads, **recipe):
    optimizer = build.build_optimizer(params, **(PLAIN | recipe))
    state = optimizer.tx.init(params)
    for step, grad in enumerate(grads):
        updates, state = optimizer.tx.update(grad, state, params, step=step)
        params = optax.apply_updates(params, updates)
    return optimizer, params, state


def theirs(tx, params, grads):
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        params = jax.tree.map(jnp.asarray, params)
        state = tx.init(params)
        for grad in grads:
            updates, state = tx.update(grad, state, params)
            params = optax.apply_updates(params, updates)
    return params, state


def assert_close(got, expected, **tolerance):
    tolerance = {"rtol": 1e-5, "atol": 1e-6} | tolerance
    jax.tree.map(
        lambda g, e: np.testing.assert_allclose(g, e, **tolerance), got, expected
    )


@pytest.mark.parametrize("case", sorted(CASES))
def test_the_first_steps_are_those_of_optax(case):
    tx, arguments = CASES[case]
    params = make_params()
    grads = make_grads(params, 3)
    _, got, _ = ours(params, grads, name=case.split("-")[0], **arguments)
    expected, _ = theirs(tx, params, grads)
    assert_close(got, expected)


def test_every_optimizer_but_muon_is_compared():
    assert {case.split("-")[0] for case in CASES} == set(OPTIMIZERS) - {"muon"}


def test_muon_is_that_of_optax_with_kernels_as_matrices():
    params = make_params()
    grads = make_grads(params, 3)
    _, got, _ = ours(params, grads, name="muon")

    def flat(tree):
        stem = tree["stem"]
        kernel = stem["conv"]["kernel"].reshape(-1, 4)
        return {**tree, "stem": {**stem, "conv": {"kernel": kernel}}}

    # Adam's nesterov and b1 follow muon's in Optax's function, too.
    tx = FREE.muon(RATE, beta=MOMENTUM, adam_b1=MOMENTUM)
    expected, _ = theirs(tx, flat(params), [flat(grad) for grad in grads])
    assert_close(flat(got), expected, atol=1e-5)


def test_muon_leaves_the_kernels_that_it_is_told_to_adam():
    params = make_params()
    grads = make_grads(params, 2)
    _, whole, _ = ours(params, grads, name="muon")
    _, part, _ = ours(params, grads, name="muon", adam_paths=("^head/",))
    _, adam, _ = ours(params, grads, name="adam", nesterov=True)
    assert_close(part["stem"], whole["stem"])
    assert_close(part["head"], adam["head"])


@pytest.mark.parametrize("name", ["schedule_free_adamw", "schedule_free_sgd"])
def test_schedule_free_evaluates_its_average(name):
    params = make_params()
    grads = make_grads(params, 4)
    optimizer, got, state = ours(params, grads, name=name)
    expected, their_state = theirs(CASES[name][0], params, grads)
    average = FREE.schedule_free_eval_params(their_state, expected)
    assert optimizer.evaluation is not None
    assert_close(optimizer.evaluation(state, got), average, atol=1e-5)
    plain, _, _ = ours(params, grads[:1])
    assert plain.evaluation is None


def test_schedule_free_with_a_warm_up_of_rate_and_share_is_its_formula():
    params = {"a": {"kernel": np.float32([2.0])}}
    rates, shares = [0.0, 0.5, 1.0], [0.5, 0.7, 0.9]
    optimizer, got, state = ours(
        params,
        [{"a": {"kernel": np.float32([g])}} for g in (1.0, -2.0, 3.0)],
        name="schedule_free_sgd",
        learning_rate=1.0,
        warmup_steps=2,
        warmup_momentum=0.5,
    )
    x = z = y = 2.0
    total = 0.0
    for rate, share, g in zip(rates, shares, (1.0, -2.0, 3.0), strict=True):
        z -= rate * g
        total += rate**2
        c = rate**2 / total if total else 0.0
        x = (1 - c) * x + c * z
        y = share * x + (1 - share) * z
    np.testing.assert_allclose(got["a"]["kernel"], [y], rtol=1e-5)
    average = optimizer.evaluation(state, got)
    np.testing.assert_allclose(average["a"]["kernel"], [x], rtol=1e-5)


def adam_with_changing_momentum(name, grads, momenta):
    """First components of the direction, by the rule of each source, in float64."""
    mean = squares = largest = weight = 0.0
    rows = []
    for t, (g, m) in enumerate(zip(grads, momenta, strict=True), 1):
        mean = m * mean + (1 - m) * g
        weight = m * weight + (1 - m)
        squares = 0.999 * squares + 0.001 * g**2
        largest = max(0.999 * largest, abs(g) + 1e-8)
        if name == "adamax":
            rows.append(mean / weight / largest)
        else:
            root = np.sqrt(squares / (1 - 0.999**t))
            rows.append(mean / weight / (root + 1e-8))
    return rows


@pytest.mark.parametrize("name", ["adam", "adamax"])
def test_the_mean_is_right_while_the_momentum_warms_up(name):
    grads = [1.0, -2.0, 3.0, 0.5]
    momenta = np.interp(range(4), [0, 3], [0.1, MOMENTUM])
    params = {"a": {"scale": np.float32([0.0])}}
    _, got, _ = ours(
        params,
        [{"a": {"scale": np.float32([g])}} for g in grads],
        name=name,
        warmup_steps=3,
        warmup_momentum=0.1,
        learning_rate=1.0,
    )
    rates = [0.0, 1 / 3, 2 / 3, 1.0]
    moves = adam_with_changing_momentum(name, grads, momenta)
    expected = -sum(r * m for r, m in zip(rates, moves, strict=True))
    np.testing.assert_allclose(got["a"]["scale"], [expected], rtol=1e-5)


COUPLED = ("sgd", "adam", "nadam", "radam", "adamax", "yogi", "adagrad", "adadelta")


@pytest.mark.parametrize("name", sorted(set(OPTIMIZERS) - {"adafactor"}))
def test_weight_decay_acts_in_the_gradient_or_beside_it_as_documented(name):
    coupled = (*COUPLED, "rmsprop", "lars", "schedule_free_sgd")
    params = make_params()
    grads = make_grads(params, 1)
    decay = 0.3
    _, got, _ = ours(params, grads, name=name, weight_decay=decay)
    steeper = trees.flatten(grads[0])
    for path, value in trees.flatten(params).items():
        if path.endswith("kernel"):
            steeper[path] = steeper[path] + np.float32(decay) * value
    chosen = [trees.unflatten(steeper)] if name in coupled else grads
    _, plain, _ = ours(params, chosen, name=name)
    if name == "lamb":
        # It acts before the step is brought to the size of the parameters.
        assert_close(plain["stem"]["norm"], got["stem"]["norm"])
        kernels = [p["head"]["level3"]["kernel"] for p in (params, got)]
        moved = np.linalg.norm(kernels[1] - kernels[0])
        np.testing.assert_allclose(moved, RATE * np.linalg.norm(kernels[0]), rtol=1e-4)
        return
    for path, value in trees.flatten(got).items():
        expected = trees.flatten(plain)[path]
        if name not in coupled and path.endswith("kernel"):
            expected = expected - RATE * decay * trees.flatten(params)[path]
        np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-5)


def test_kernels_only_leaves_plain_steps_to_the_rest():
    params = make_params()
    grads = make_grads(params, 1)
    _, got, _ = ours(params, grads, name="lars", kernels_only=True, nesterov=False)
    bias = params["head"]["level3"]["bias"] - RATE * grads[0]["head"]["level3"]["bias"]
    np.testing.assert_allclose(got["head"]["level3"]["bias"], bias, rtol=1e-5)


def test_lookahead_goes_back_half_way_every_third_step():
    params = {"a": {"kernel": np.float32([1.0, -2.0])}}
    rng = np.random.default_rng(3)
    grads = [{"a": {"kernel": rng.normal(size=2).astype(np.float32)}} for _ in range(7)]
    chosen = {"steps": 3, "share": 0.4}
    _, got, state = ours(params, grads, momentum=0.5, nesterov=False, lookahead=chosen)
    slow = fast = params["a"]["kernel"].astype(np.float64)
    buffer = np.zeros(2)
    for number, grad in enumerate(grads, 1):
        buffer = 0.5 * buffer + grad["a"]["kernel"]
        fast = fast - RATE * buffer
        if number % 3 == 0:
            slow = slow + 0.4 * (fast - slow)
            fast = slow
    np.testing.assert_allclose(got["a"]["kernel"], fast, rtol=1e-5)
    kept = wrappers.find_state(state, wrappers.LookaheadState)
    np.testing.assert_allclose(kept.slow["a"]["kernel"], slow, rtol=1e-5)
    assert int(kept.since) == 1


def test_the_rate_falls_on_a_plateau_and_rests_afterwards():
    params = make_params()
    optimizer = build.build_optimizer(
        params,
        **(PLAIN | {"schedule": "reduce_on_plateau", "name": "sgd"}),
        schedule_arguments=dict(factor=0.5, patience=2, min_change=0.05, cooldown=2),
    )
    assert optimizer.on_metric is not None
    mesh = make_mesh(4)
    state = put_replicated(optimizer.tx.init(params), mesh)
    # Better, better by too little, worse: falls; two that rest; two more: falls.
    values = [0.1, 0.2, 0.24, 0.1, 0.0, 0.0, float("nan"), 0.0, 0.3]
    factors = []
    for value in values:
        state = optimizer.on_metric(state, value)
        rates = optimizer.rates(0, state)
        factors.append(float(rates["learning_rate"]) / RATE)
    expected = [1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25]
    np.testing.assert_allclose(factors, expected, rtol=1e-6)
    assert all(len(leaf.devices()) == 4 for leaf in jax.tree.leaves(state))
    grads = make_grads(params, 1)[0]
    slow, _ = optimizer.tx.update(grads, state, params, step=0)
    fast, _ = optimizer.tx.update(grads, optimizer.tx.init(params), params, step=0)
    assert_close(slow, jax.tree.map(lambda u: 0.25 * u, fast))


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"name": "adamv"}, "no optimizer named 'adamv'. Did you mean 'adam"),
        ({"name": "adam", "b1": 0.9}, "'b1' here; it is config.optim.momentum"),
        ({"name": "muon", "steps": 3}, "no argument 'steps'. Did you mean 'ns_steps'"),
        ({"name": "adam", "b2": "x"}, "b2 of adam must be a number, not 'x'"),
        ({"nesterov": 1}, "nesterov of sgd must be True or False, not 1"),
        ({"name": "muon", "adam_paths": ("^tail/",)}, "matches no parameter"),
        ({"lookahead": {"k": 5}}, "config.optim.lookahead has no argument 'k'"),
        ({"lookahead": {"steps": 0}}, "steps must be an integer from 1 on, not 0"),
        ({"lookahead": {"share": 0.0}}, "share must be above 0 and at most 1"),
        (
            {"name": "schedule_free_sgd", "lookahead": {"steps": 5}},
            "lookahead does not go with schedule_free_sgd",
        ),
        ({"name": "schedule_free_sgd", "momentum": 0.0}, "momentum, which must be"),
        (
            {"schedule": "reduce_on_plateau", "schedule_arguments": {"factor": 2.0}},
            "needs a factor between 0 and 1, not 2.0",
        ),
    ],
)
def test_what_cannot_be_is_said(arguments, message):
    with pytest.raises(ValueError, match=message):
        build.build_optimizer(make_params(), **(PLAIN | arguments))
