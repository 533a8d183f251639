"""Every optimiser with every schedule in each precision, on one small problem.

All schedules of an optimiser run at once, as a batch of states, so that there is one
compile for an optimiser and a precision.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from yolojax.engine.checkpoint import Checkpoints
from yolojax.engine.sharding import make_mesh
from yolojax.optim import build, schedules
from yolojax.optim.optimizers import OPTIMIZERS
from yolojax.records import TrainState

STEPS = 5
ARGUMENTS = {
    "step": {"milestones": (3,)},
    "cosine_restarts": {"period": 3},
    "one_cycle": {"start_ratio": 0.2},
}
RATES = {
    **{"adadelta": 3.0, "adafactor": 0.05, "adagrad": 0.03, "lamb": 0.02, "lars": 10.0},
    **{"lion": 0.005, "muon": 0.02, "rmsprop": 0.01, "sgd": 0.03, "yogi": 0.02},
    **{"schedule_free_sgd": 0.1, "schedule_free_adamw": 0.03},
}
DEFAULT = ("lion", "schedule_free_adamw")
# Four devices sum in another order. In half precision a loss may differ by as much as
# bfloat16 rounds a number, 2^-8 of it.
SAME = {"float32": 1e-4, "bfloat16": 2.0**-8, "float16": 2.0**-8}
# Gradients of single pixels are below float16's smallest numbers.
LOSS_SCALE = {"float32": 1.0, "bfloat16": 1.0, "float16": 2.0**8}


def make_params():
    rng = np.random.default_rng(0)

    def draw(*shape, around=0.0):
        value = around + rng.normal(size=shape) * 0.3
        # One for each schedule.
        return jnp.asarray(np.stack([value] * len(schedules.SCHEDULES)), jnp.float32)

    stem = {"conv": {"kernel": draw(3, 3, 2, 4)}, "norm": {"scale": draw(4, around=1)}}
    return {"stem": stem, "head": {"kernel": draw(4, 3), "bias": draw(3)}}


def make_data():
    rng = np.random.default_rng(1)
    images = rng.normal(size=(8, 6, 6, 2)).astype(np.float32)
    return images, rng.normal(size=(8, 3)).astype(np.float32)


def loss_of(params, images, targets, dtype):
    low = jax.tree.map(lambda p: p.astype(dtype), params)
    x = jax.lax.conv_general_dilated(
        images.astype(dtype),
        low["stem"]["conv"]["kernel"],
        (1, 1),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    x = jax.nn.silu(x * low["stem"]["norm"]["scale"][None, None, None]).mean((1, 2))
    out = x @ low["head"]["kernel"] + low["head"]["bias"][None]
    return ((out.astype(jnp.float32) - targets) ** 2).mean()


@functools.cache
def tables():
    """Factors and momenta [schedules, steps] of all schedules."""
    rows = []
    for name in schedules.SCHEDULES:
        course = schedules.epoch_decay(
            name,
            final_ratio=0.1,
            steps_per_epoch=1,
            epochs=2 * STEPS,
            momentum=0.9,
            arguments=ARGUMENTS.get(name),
        )
        steps = range(2 * STEPS)
        rows.append([(course.factor(s), course.momentum(s)) for s in steps])
    return np.moveaxis(np.array(rows, np.float32), -1, 0)


class Problem:
    """An optimiser whose schedule is chosen by an index, and five steps with it."""

    def __init__(self, name, dtype, monkeypatch):
        factors, momenta = map(jnp.asarray, tables())
        chosen = {"index": 0}
        course = schedules.Course(
            lambda step: factors[chosen["index"], step],
            lambda step: momenta[chosen["index"], step],
        )
        monkeypatch.setattr(schedules, "epoch_decay", lambda *_, **__: course)
        self.params = make_params()
        self.optimizer = build.build_optimizer(
            jax.tree.map(lambda p: p[0], self.params),
            name=name,
            learning_rate=RATES.get(name, 0.02),
            schedule=schedules.PLATEAU,
            schedule_arguments={"patience": 1, "factor": 0.5},
            warmup_steps=2,
            warmup_bias_rate=0.0,
            batch_size=8,
            nominal_batch=8,
            steps_per_epoch=1,
            epochs=2 * STEPS,
        )
        self.state = jax.jit(jax.vmap(self.optimizer.tx.init))(self.params)

        scale = LOSS_SCALE[dtype]

        def scaled(*arguments):
            return loss_of(*arguments, dtype) * scale

        def steps(index, params, state, start, images, targets):
            chosen["index"] = index

            def one(carry, step):
                params, state = carry
                loss, grads = jax.value_and_grad(scaled)(params, images, targets)
                grads = jax.tree.map(lambda g: g / scale, grads)
                moves, state = self.optimizer.tx.update(grads, state, params, step=step)
                return (optax.apply_updates(params, moves), state), loss / scale

            done = start + jnp.arange(STEPS, dtype=jnp.int32)
            (params, state), losses = jax.lax.scan(one, (params, state), done)
            return params, state, losses

        index = jnp.arange(len(schedules.SCHEDULES), dtype=jnp.int32)
        together = jax.jit(jax.vmap(steps, (0, 0, 0, None, None, None)))
        self.run = lambda *arguments: together(index, *arguments)


def assert_same_bits(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    jax.tree.map(np.testing.assert_array_equal, one, other)


def through_a_checkpoint(params, state, folder):
    """The same arrays, written and read."""
    number, nothing = jnp.int32(STEPS), {"params": params, "batch_stats": {}}
    saved = TrainState(number, params, {}, state, nothing, number, number, number)
    checkpoints = Checkpoints(folder, keep=1, asynchronous=False)
    checkpoints.save(saved, data={}, progress={})
    found = checkpoints.restore(lambda step: saved)
    checkpoints.close()
    return found.state.params, found.state.opt_state


@pytest.mark.parametrize(
    "name, dtype",
    [
        (name, dtype)
        if name in DEFAULT and dtype == "float32"
        else pytest.param(name, dtype, marks=pytest.mark.slow)
        for name in OPTIMIZERS
        for dtype in SAME
    ],
)
def test_loss_falls_state_is_kept_and_devices_change_nothing(
    name, dtype, monkeypatch, tmp_path
):
    problem = Problem(name, dtype, monkeypatch)
    images, targets = make_data()
    start = jnp.int32(0)
    params, state, first = problem.run(
        problem.params, problem.state, start, images, targets
    )
    for value in (0.5, 0.4):
        state = problem.optimizer.on_metric(state, value)
    read = through_a_checkpoint(params, state, tmp_path)
    assert_same_bits((params, state), read)
    going_on = problem.run(params, state, start + STEPS, images, targets)
    restored = problem.run(*read, start + STEPS, images, targets)
    assert_same_bits(going_on, restored)
    last = going_on[2]
    for row, before, after in zip(schedules.SCHEDULES, first, last, strict=True):
        assert after[-1] < before[0], (row, before, after)
    rows = np.concatenate([first, last], axis=1)
    flat = list(schedules.SCHEDULES).index("constant")
    other = list(schedules.SCHEDULES).index("one_cycle")
    assert not np.array_equal(rows[flat], rows[other])

    mesh = make_mesh(4)
    split = NamedSharding(mesh, PartitionSpec(*mesh.axis_names))
    whole = NamedSharding(mesh, PartitionSpec())
    spread = problem.run(
        *jax.device_put((problem.params, problem.state, start), whole),
        *jax.device_put((images, targets), split),
    )
    np.testing.assert_allclose(spread[2], first, rtol=SAME[dtype])
    if dtype == "float32":
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4),
            spread[0],
            params,
        )
