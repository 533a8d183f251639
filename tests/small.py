"""A network of two matrices and one statistic, whose gradient is written out by hand.

It stands in for a detector in tests of the training step: x is each picture's mean
colour less that of the batch, the maps are tanh(x A) B, the loss is half the sum of
their squared distance from the boxes' first corners.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax

from yolojax.engine.step import init_state, make_train_step
from yolojax.optim.build import Optimizer
from yolojax.optim.transforms import accumulate
from yolojax.records import Batch

RATE, SIZE = 0.1, 4


def apply(variables, images, *, train, dtype="float32", frozen=(), key=None):
    """Maps [b, 2] and the statistics, which move in training unless frozen."""
    del key
    x = jnp.mean(images, axis=(1, 2))
    running = variables["batch_stats"]["first"]["mean"]
    mean = jnp.mean(x, axis=0)
    stats = {"first": {"mean": 0.9 * running + 0.1 * mean}}
    if not train or "first" in frozen:
        mean, stats = running, variables["batch_stats"]
    params = variables["params"]
    kernels = (params[k]["kernel"].astype(dtype) for k in ("first", "second"))
    one, two = kernels
    x = (x - mean.reshape(1, -1)).astype(dtype)
    return (jnp.tanh(x @ one) @ two).astype(jnp.float32), stats


def loss(maps, boxes, labels, valid):
    """Half the sum of squares."""
    del labels, valid
    each = 0.5 * jnp.sum(jnp.square(maps - boxes[:, 0, :2]), axis=1)
    return jnp.sum(each), {"per_picture": each, "targets": jnp.arange(2, 4)}


def variables():
    """First parameters and statistics, float32."""
    rng = np.random.default_rng(0)
    one, two = (rng.normal(size=(3, SIZE)), rng.normal(size=(SIZE, 2)))
    params = {"first": {"kernel": one}, "second": {"kernel": two}}
    return {
        "params": jax.tree.map(np.float32, params),
        "batch_stats": {"first": {"mean": np.zeros(3, np.float32)}},
    }


def batch(number, rows=8):
    """Random pictures in [0, 1] and boxes."""
    rng = np.random.default_rng(number + 1)
    return Batch(
        image=rng.random((rows, 2, 2, 3)).astype(np.float32),
        size=np.full((rows, 2), 2, np.int32),
        boxes=rng.normal(size=(rows, 1, 4)).astype(np.float32),
        labels=np.zeros((rows, 1), np.int32),
        valid=np.ones((rows, 1), bool),
        image_id=np.arange(rows, dtype=np.int32),
        origin=np.zeros((rows, 4), np.float32),
    )


def gradient(params, number):
    """The loss's gradient in float64, by hand: what any step must agree with."""
    given = batch(number)
    x = given.image.astype(np.float64).mean(axis=(1, 2))
    x = x - x.mean(axis=0)
    hidden = np.tanh(x @ params[0])
    error = hidden @ params[1] - given.boxes[:, 0, :2].astype(np.float64)
    inner = (error @ params[1].T) * (1 - hidden**2)
    return [x.T @ inner, hidden.T @ error]


def make_optimizer(*, every=1, rate=RATE, **fields):
    """Plain gradient descent, over the sum of `every` iterations."""
    tx = optax.with_extra_args_support(optax.sgd(rate))

    def stepped(step):
        return (jnp.asarray(step) + 1) % every == 0

    if every > 1:
        tx = accumulate(tx, stepped)
    rates = {"learning_rate": jnp.float32(rate)}
    return Optimizer(tx, stepped, lambda step, state=None: rates, **fields)


@dataclasses.dataclass
class Run:
    """The state after some steps, and the numbers of each."""

    state: object
    numbers: list

    @property
    def kernels(self):
        """Both matrices, NumPy."""
        params = self.state.params
        return [np.asarray(params[k]["kernel"]) for k in ("first", "second")]


def run(optimizer, steps, *, put=lambda x: x, apply=apply, loss=loss, **options):
    """Steps of the training step on batches 0, 1, ..."""
    made = make_train_step(
        apply=apply,
        loss=loss,
        optimizer=optimizer,
        augment=lambda key, batch, **_: (batch, jnp.int32(0)),
        ema_decay=0.9,
        ema_ramp=4.0,
        mosaic_steps=0,
        total_steps=steps,
        seed=0,
        **options,
    )
    made = jax.jit(made)
    state, numbers = init_state(variables(), optimizer), []
    for number in range(steps):
        state, row = made(state, put(batch(number)))
        numbers.append(jax.device_get(row))
    return Run(state, numbers)
