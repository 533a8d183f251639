"""The training step: one pure function, compiled once, over all devices."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from yolojax.augment.adversarial import Attack
from yolojax.engine.ema import update_ema
from yolojax.optim.build import Optimizer
from yolojax.optim.transforms import tree_where
from yolojax.records import Batch, Stored, TrainState, num_pictures

Apply = Callable[..., tuple[Any, Any]]
Loss = Callable[..., tuple[jax.Array, Mapping[str, jax.Array]]]
Augment = Callable[..., tuple[Batch, jax.Array]]
Step = Callable[[TrainState, Batch | Stored], tuple[TrainState, dict[str, jax.Array]]]


def init_state(variables: Mapping[str, Any], optimizer: Optimizer) -> TrainState:
    """The state before the first step.

    Args:
        variables: `params` and `batch_stats`, float32.
        optimizer: gives its own initial state.
    """
    params = jax.tree.map(jnp.asarray, variables["params"])
    batch_stats = jax.tree.map(jnp.asarray, variables["batch_stats"])
    # The average starts as a copy: a donated buffer must not appear twice.
    ema = {
        "params": jax.tree.map(jnp.copy, params),
        "batch_stats": jax.tree.map(jnp.copy, batch_stats),
    }
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=batch_stats,
        opt_state=optimizer.tx.init(params),
        ema=ema,
        ema_updates=jnp.zeros((), jnp.int32),
        skipped=jnp.zeros((), jnp.int32),
        skipped_in_a_row=jnp.zeros((), jnp.int32),
    )


def augmentation_of_step(
    step: jax.Array, *, seed: int, mosaic_steps: int, total_steps: int
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """What `augment` is given in a step besides its batch: the key, and options.

    Args:
        step: int32 scalar, steps done.
        seed: see `make_train_step`, like the others.
        mosaic_steps: the step from which mosaic and mixing are off.
        total_steps: those of the whole training.
    """
    done = step.astype(jnp.float32) / max(1, total_steps)
    options = {"mosaic_on": step < mosaic_steps, "progress": jnp.minimum(done, 1.0)}
    return jax.random.fold_in(jax.random.key(seed), step), options


def make_train_step(
    *,
    apply: Apply,
    loss: Loss,
    optimizer: Optimizer,
    augment: Augment,
    ema_decay: float,
    ema_ramp: float,
    mosaic_steps: int,
    total_steps: int,
    seed: int,
    attack: Attack | None = None,
) -> Step:
    """The step from state and uint8 batch to the next state and numbers for the log.

    A step whose loss or gradient is not finite leaves everything but the counters as
    it was.

    Args:
        apply: `apply(variables, images, train=True)` -> raw maps, batch statistics.
        loss: `loss(maps, boxes, labels, valid)` -> scalar, named scalars.
        optimizer: see `optim.build`.
        augment: `augment(key, batch, mosaic_on=..., progress=...)` -> batch, number of
            boxes cut.
        ema_decay: limit of the moving average's decay.
        ema_ramp: updates over which it rises.
        mosaic_steps: the step from which mosaic and mixing are off.
        total_steps: those of the whole training, of which `progress` is the share done.
        seed: all random numbers follow from it, the step and the picture's position.
        attack: changes a share of the augmented pictures against the network as it is,
            see `adversarial.make_attack`.

    Returns:
        A function to jit; the log's numbers are float32 scalars, `finite` among them.
    """

    def step(
        state: TrainState, batch: Batch | Stored
    ) -> tuple[TrainState, dict[str, Any]]:
        key, options = augmentation_of_step(
            state.step, seed=seed, mosaic_steps=mosaic_steps, total_steps=total_steps
        )
        pictures, cut = augment(key, batch, **options)

        if attack is not None:
            network = {"params": state.params, "batch_stats": state.batch_stats}
            pictures = attack(key, apply, loss, network, pictures)

        def objective(params: Any) -> tuple[jax.Array, Any]:
            variables = {"params": params, "batch_stats": state.batch_stats}
            maps, stats = apply(variables, pictures.image, train=True)
            total, parts = loss(maps, pictures.boxes, pictures.labels, pictures.valid)
            return total, (parts, stats)

        (total, (parts, stats)), grads = jax.value_and_grad(objective, has_aux=True)(
            state.params
        )
        norm = optax.tree.norm(grads)
        finite = jnp.isfinite(total) & jnp.isfinite(norm)
        updates, opt_state = optimizer.tx.update(
            grads, state.opt_state, state.params, step=state.step
        )
        params = optax.apply_updates(state.params, updates)
        moved = finite & optimizer.stepped(state.step)
        averaged = update_ema(
            state.ema,
            params,
            stats,
            state.ema_updates,
            decay=ema_decay,
            ramp=ema_ramp,
        )
        bad = 1 - finite.astype(jnp.int32)
        new = TrainState(
            step=state.step + 1,
            params=tree_where(finite, params, state.params),
            batch_stats=tree_where(finite, stats, state.batch_stats),
            opt_state=tree_where(finite, opt_state, state.opt_state),
            ema=tree_where(moved, averaged, state.ema),
            ema_updates=state.ema_updates + moved.astype(jnp.int32),
            skipped=state.skipped + bad,
            skipped_in_a_row=(state.skipped_in_a_row + 1) * bad,
        )
        pictures_seen = num_pictures(batch)
        numbers = {
            "loss": total / pictures_seen,
            **{f"loss/{name}": v for name, v in parts.items() if v.ndim == 0},
            "gradient_norm": norm,
            "boxes_cut": cut.astype(jnp.float32),
            "finite": finite.astype(jnp.float32),
            **optimizer.rates(state.step),
        }
        return new, numbers

    return step
