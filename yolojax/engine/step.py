"""The training step: one pure function, compiled once, over all devices."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from yolojax import trees
from yolojax.augment.adversarial import Attack
from yolojax.engine.ema import update_ema
from yolojax.optim import freeze, loss_scale
from yolojax.optim.build import Optimizer
from yolojax.optim.transforms import tree_where
from yolojax.records import Batch, Stored, TrainState, labels_of, num_pictures

Apply = Callable[..., tuple[Any, Any]]
Loss = Callable[..., tuple[jax.Array, Mapping[str, jax.Array]]]
Augment = Callable[..., tuple[Batch, jax.Array]]
# Keeps the network's own draws apart from those of the pictures.
_LEFT_OUT = 0x6C656674

Step = Callable[[TrainState, Batch | Stored], tuple[TrainState, dict[str, jax.Array]]]


def init_state(variables: Mapping[str, Any], optimizer: Optimizer) -> TrainState:
    """The state before the first step.

    Args:
        variables: `params` and `batch_stats`, float32.
        optimizer: gives its own initial state, of the parameters that it trains.
    """
    params = jax.tree.map(jnp.asarray, variables["params"])
    batch_stats = jax.tree.map(jnp.asarray, variables["batch_stats"])
    # The average starts as a copy: a donated buffer must not appear twice.
    ema = {
        "params": jax.tree.map(jnp.copy, params),
        "batch_stats": jax.tree.map(jnp.copy, batch_stats),
    }
    trained, _ = freeze.split(params, optimizer.frozen.parameters)
    scaling, sam = optimizer.loss_scaling, optimizer.sam
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=batch_stats,
        opt_state=optimizer.tx.init(trained),
        ema=ema,
        ema_updates=jnp.zeros((), jnp.int32),
        skipped=jnp.zeros((), jnp.int32),
        skipped_in_a_row=jnp.zeros((), jnp.int32),
        loss_scale=loss_scale.init(scaling.initial) if scaling else (),
        sam=sam.init(trained) if sam else (),
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
    first_step: int = 0,
    levels: Sequence[str] = (),
    per_picture: bool = False,
    look: bool | None = None,
    weight: float = 1.0,
    momenta: Mapping[str, float] | None = None,
) -> Step:
    """The step from state and uint8 batch to the next state and numbers for the log.

    A step whose loss or gradient is not finite leaves everything but the counters and
    the loss scale as it was.

    Args:
        apply: `apply(variables, images, train=True, key=...)` -> raw maps, batch
            statistics; takes `frozen`, too, where statistics are.
        loss: `loss(maps, boxes, labels, valid)` -> scalar, named arrays; takes
            `left_out`, too, where `augment` gives it.
        optimizer: see `optim.build`; it says what is frozen, and whether the loss is
            scaled and the gradient that of SAM.
        augment: `augment(key, batch, mosaic_on=..., progress=...)` -> batch, number of
            boxes cut.
        ema_decay: limit of the moving average's decay.
        ema_ramp: updates over which it rises.
        mosaic_steps: the step from which mosaic and mixing are off.
        total_steps: those of the whole training, of which `progress` is the share done.
        seed: all random numbers follow from it, the step and the picture's position.
        attack: changes a share of the augmented pictures against the network as it is,
            see `adversarial.make_attack`.
        first_step: the step that is 0 to the optimiser.
        levels: names of the head's levels, for the log.
        per_picture: whether to pass each picture's loss on, where the loss gives it.
        look: whether the step is one of those in which look-SAM takes its second
            gradient; None: that follows from the step.
        weight: of the loss in the gradient, not in the log.
        momenta: by paths of normalisations, whose running statistics begin with the
            first batches, see `begun_statistics`.

    Returns:
        A function to jit; the log's numbers are float32 scalars, `finite` among them.
        With `per_picture`, they hold it, float32 [b], and `image_id`, int32 [b]. With
        loss scaling `scale_fell` says that a skipped step is no sign of anything wrong.
    """
    frozen, sam, scaling = optimizer.frozen, optimizer.sam, optimizer.loss_scaling
    if frozen.norms:
        apply = functools.partial(apply, frozen=frozen.norms)

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
        trained, still = freeze.split(state.params, frozen.parameters)
        now = state.step - first_step if first_step else state.step
        rates = optimizer.rates(now, state.opt_state)

        def objective(params: Any) -> tuple[jax.Array, Any]:
            variables = {
                "params": freeze.merge(params, still),
                "batch_stats": state.batch_stats,
            }
            # Both passes of SAM leave the same out.
            left_out = jax.random.fold_in(key, _LEFT_OUT)
            maps, stats = apply(variables, pictures.image, train=True, key=left_out)
            total, parts = loss(maps, *labels_of(pictures))
            weighed = total if weight == 1.0 else total * weight
            scaled = weighed * state.loss_scale["scale"] if scaling else weighed
            return scaled, (total, parts, stats)

        def gradient(params: Any) -> tuple[Any, Any]:
            (_, found), grads = jax.value_and_grad(objective, has_aux=True)(params)
            if scaling:
                share = 1.0 / state.loss_scale["scale"]
                grads = jax.tree.map(lambda g: g * share, grads)
            return grads, found

        # The statistics move with the first pass only, whatever SAM does.
        grads, (total, parts, stats) = gradient(trained)
        if momenta:
            stats = begun_statistics(state.batch_stats, stats, state.step, momenta)
        sam_state = state.sam
        if sam is not None:
            grads, sam_state = sam.gradient(
                grads,
                lambda params: gradient(params)[0],
                trained,
                state.sam,
                step=now,
                share=rates["learning_rate"] / sam.peak,
                look=look,
            )
        norm = optax.tree.norm(grads)
        finite = jnp.isfinite(total) & jnp.isfinite(norm)
        updates, opt_state = optimizer.tx.update(
            grads, state.opt_state, trained, step=now
        )
        params = freeze.merge(optax.apply_updates(trained, updates), still)
        moved = finite & optimizer.stepped(now)
        averaged = update_ema(
            state.ema,
            params,
            stats,
            state.ema_updates,
            decay=ema_decay,
            ramp=ema_ramp,
        )
        if optimizer.evaluation is not None:
            # Schedule-free: its own average in place of a moving one.
            best = optimizer.evaluation(opt_state, freeze.split(params, still)[0])
            averaged = {**averaged, "params": freeze.merge(best, still)}
        if frozen.parameters:
            averaged = _keep_equal(averaged, state.ema, params, stats, frozen)
        bad = 1 - finite.astype(jnp.int32)
        # A loss scale that is on its way down is no reason to give up.
        telling = bad
        if scaling:
            telling = bad * (
                1 - loss_scale.can_fall(state.loss_scale).astype(jnp.int32)
            )
        new = TrainState(
            step=state.step + 1,
            params=tree_where(finite, params, state.params),
            batch_stats=tree_where(finite, stats, state.batch_stats),
            opt_state=tree_where(finite, opt_state, state.opt_state),
            ema=tree_where(moved, averaged, state.ema),
            ema_updates=state.ema_updates + moved.astype(jnp.int32),
            skipped=state.skipped + bad,
            skipped_in_a_row=(state.skipped_in_a_row + telling) * bad,
            sam=tree_where(finite, sam_state, state.sam),
        )
        pictures_seen = num_pictures(batch)
        numbers = {
            "loss": total / pictures_seen,
            **{
                name if "/" in name else f"loss/{name}": value
                for name, value in parts.items()
                if value.ndim == 0
            },
            "gradient_norm": norm,
            "boxes_cut": cut.astype(jnp.float32),
            "finite": finite.astype(jnp.float32),
            **rates,
            **_update_ratios(updates, trained, optimizer),
            **_targets_of_levels(parts, levels),
        }
        if scaling:
            new = new._replace(
                loss_scale=loss_scale.update(
                    state.loss_scale, finite, growth_steps=scaling.growth_steps
                )
            )
            numbers["loss_scale"] = state.loss_scale["scale"]
            numbers["scale_fell"] = (bad - telling).astype(jnp.float32)
        if per_picture and "per_picture" in parts:
            numbers["per_picture"] = parts["per_picture"]
            # Of a classifier a picture without a label has no loss.
            counts = parts.get("labelled", True)
            numbers["image_id"] = jnp.where(counts, pictures.image_id, -1)
        return new, numbers

    return step


def begun_statistics(
    before: Any, after: Any, step: jax.Array, momenta: Mapping[str, float]
) -> Any:
    """Running statistics that begin with the first batches, not with 0 and 1.

    While a step has seen fewer than 1 / momentum batches they are the mean over all of
    them, and from then on the moving average. With 0 and 1 in the beginning, their
    share is (1 - momentum)^n after n steps; where a variance is small, a thousandth
    of 1 still outweighs it.

    Args:
        before: `batch_stats` before the step.
        after: those that the network has made of them.
        step: int32 scalar, batches seen before.
        momenta: of normalisations by their paths; the others stay as they are.

    Source: the choice of the momentum is Adam's correction of a moving average that
    begins with 0, Kingma and Ba 2015, arXiv:1412.6980, section 3, for a plain mean.
    """
    batches = step.astype(jnp.float32) + 1.0
    leaves, old = trees.flatten(after), trees.flatten(before)
    begun = {}
    for path in leaves:
        momentum = momenta.get(path.rpartition("/")[0], 0.0)
        if momentum > 0:
            more = jnp.maximum(1.0, 1.0 / (batches * momentum))
            begun[path] = old[path] + more * (leaves[path] - old[path])
    return freeze.merge(after, begun)


class LookStep:
    """The jitted step of look-SAM, in a form for each of its two kinds of iteration.

    The host knows which one comes. In one program they would stand in a condition, in
    which XLA's convolutions on a CPU take eight times as long.

    Attributes:
        look: the step with the second gradient.
        between: the one without.
        lower: that of `look`, which needs more memory.
    """

    def __init__(self, look: Any, between: Any, period: int):
        self.look, self.between, self._period = look, between, period
        self.lower = look.lower

    def at(self, number: int) -> Step:
        """The step that comes after so many steps of its stage."""
        return self.between if number % self._period else self.look

    def __call__(self, state: TrainState, batch: Batch | Stored) -> Any:
        """As of the state's own count, of a run without stages; waits for it."""
        return self.at(int(state.step))(state, batch)


def _keep_equal(
    averaged: Any, ema: Any, params: Any, stats: Any, frozen: freeze.Frozen
) -> dict[str, Any]:
    """The average, whose rounding must not move what it has reached and is frozen."""

    def kept(tree: Any, before: Any, now: Any, paths: Collection[str]) -> Any:
        leaves, old, new = (trees.flatten(t) for t in (tree, before, now))
        exact = {
            path: jnp.where(old[path] == new[path], old[path], leaves[path])
            for path in paths
        }
        return freeze.merge(tree, exact)

    still = {p for p in trees.flatten(stats) if p.rpartition("/")[0] in frozen.norms}
    return {
        "params": kept(averaged["params"], ema["params"], params, frozen.parameters),
        "batch_stats": kept(averaged["batch_stats"], ema["batch_stats"], stats, still),
    }


def _update_ratios(
    updates: Any, params: Any, optimizer: Optimizer
) -> dict[str, jax.Array]:
    """The norm of the update over that of the parameters, of each group.

    These are the config's or, without any, kernels, biases and scales. Parameters that
    are all 0 count as if they had the norm 1e-12.
    """
    ratios: dict[str, jax.Array] = {}
    moves, sizes = trees.flatten(updates), trees.flatten(params)
    labels = {path: path.rpartition("/")[2] for path in moves}
    labels |= {path: leaf.label for path, leaf in optimizer.leaves.items()}
    for group in sorted(set(labels.values())):
        paths = [path for path in moves if labels[path] == group]
        move, size = (optax.tree.norm([t[p] for p in paths]) for t in (moves, sizes))
        ratios[f"update_ratio/{group}"] = move / jnp.maximum(size, 1e-12)
    return ratios


def _targets_of_levels(
    parts: Mapping[str, jax.Array], levels: Sequence[str]
) -> dict[str, jax.Array]:
    """How many targets the loss gave each level, where it says so."""
    targets = parts.get("targets")
    if targets is None or targets.shape != (len(levels),):
        return {}
    return {
        f"targets/{name}": targets[i].astype(jnp.float32)
        for i, name in enumerate(levels)
    }
