"""States that differ in one number, and working directories with their checkpoints."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax

from yolojax.engine import checkpoint, sharding
from yolojax.records import TrainState


def make_state(mesh, value=0.0, rows=0):
    """A state after `value` steps, whose arrays hold that number.

    With `rows` there is a larger array too, which does not fit into Orbax's index.
    """
    params = {"head": {"kernel": jnp.full((2, 3), value + 1 / 3, jnp.float32)}}
    if rows:
        noise = np.random.default_rng(int(value)).normal(size=(rows, 64))
        params["body"] = {"kernel": jnp.asarray(noise, jnp.float32)}
    stats = {"norm": {"mean": jnp.full(3, value, jnp.float32)}}
    zero = jnp.zeros((), jnp.int32)
    state = TrainState(
        step=jnp.asarray(int(value), jnp.int32),
        params=params,
        batch_stats=stats,
        opt_state=optax.adam(1e-3).init(params),
        ema={
            "params": jax.tree.map(jnp.copy, params),
            "batch_stats": jax.tree.map(jnp.copy, stats),
        },
        ema_updates=zero,
        skipped=zero + 0,
        skipped_in_a_row=zero + 0,
    )
    return sharding.put_replicated(state, mesh)


def save_all(tmp_path, mesh, fitnesses, rows=0):
    """Checkpoints 0, 10, 20, ... of a run, the best of which has the largest number."""
    (tmp_path / "config.json").write_text(json.dumps({"seed": 3}))
    saver = checkpoint.Checkpoints(tmp_path, keep=2)
    best = (-1.0, 0)
    for number, value in enumerate(fitnesses):
        step = 10 * number
        best = max(best, (value, step))
        saver.save(
            make_state(mesh, step, rows),
            data={"position": number},
            progress={"best_step": best[1], "window": {"loss": 0.1}},
        )
    saver.wait()
    return saver
