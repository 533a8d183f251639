"""From the values of a config to an Optax chain.

The chain, in order: accumulate (only where the batch is smaller than the nominal
one), the transforms of the config, clip, L1 and L2 penalties, the optimiser with its
weight decay and the learning rate of each group, look-ahead around it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from yolojax import lookup, trees
from yolojax.optim import groups as grouping
from yolojax.optim import schedules, wrappers
from yolojax.optim.freeze import NOTHING, Frozen
from yolojax.optim.gradients import make_transforms
from yolojax.optim.groups import Leaf
from yolojax.optim.loss_scale import LossScaling
from yolojax.optim.optimizers import Pieces, keywords, make_optimizer
from yolojax.optim.sam import Sam
from yolojax.optim.schedules import Schedule
from yolojax.optim.transforms import (
    Transform,
    accumulate,
    add_parameters,
    add_signs,
    clip_by_norm,
    scale_by_rates,
)


class Optimizer(NamedTuple):
    """An optimiser and what the training step and the log ask of it.

    Attributes:
        tx: `tx.update(grads, state, params, step=step)`, where `step` is the number
            of iterations done; the updates are zero between optimiser steps.
        stepped: from `step` to a bool scalar: whether the parameters move at the end
            of this iteration, and their moving average with them.
        rates: from `step` to float32 scalars by name, for the log; given the state,
            too, with what evaluations have made of the rates.
        frozen: what is trained is the parameters without these.
        sam: what becomes of the gradient before `tx` has it; None: nothing.
        loss_scaling: how the loss is scaled; None: not.
        evaluation: from state and parameters to those that should be evaluated and
            kept in place of a moving average; None: there are no others.
        on_metric: from state and an evaluation's number (larger is better) to the
            state; None: evaluations change nothing.
        leaves: what is done with each parameter, by path.
    """

    tx: Transform
    stepped: Callable[[ArrayLike], jax.Array]
    rates: Callable[..., dict[str, jax.Array]]
    frozen: Frozen = NOTHING
    sam: Sam | None = None
    loss_scaling: LossScaling | None = None
    evaluation: Callable[[Any, Any], Any] | None = None
    on_metric: Callable[[Any, float], Any] | None = None
    leaves: Mapping[str, Leaf] = {}


def build_optimizer(
    params: Mapping[str, Any],
    *,
    name: str = "sgd",
    learning_rate: float = 0.01,
    final_ratio: float = 0.01,
    schedule: str = "linear",
    schedule_arguments: Mapping[str, Any] | None = None,
    momentum: float = 0.937,
    weight_decay: float = 0.0005,
    warmup_steps: int = 0,
    warmup_bias_rate: float = 0.1,
    warmup_momentum: float = 0.8,
    clip_norm: float = 10.0,
    layer_decay: float = 1.0,
    groups: Sequence[Mapping[str, Any]] = (),
    transforms: Sequence[Mapping[str, Any]] = (),
    lookahead: Mapping[str, Any] | None = None,
    batch_size: int,
    nominal_batch: int = 64,
    steps_per_epoch: int,
    epochs: int,
    seed: int = 0,
    network: Mapping[str, Any] | None = None,
    hold_from: int = 0,
    hold_rate: float = 0.0,
    **arguments: Any,
) -> Optimizer:
    """The optimiser of the YOLOv5 v7.0 recipe, or another one in its place.

    Unless `groups` say otherwise weight decay acts on kernels only. It is scaled by the
    pictures that an optimiser step really sees over `nominal_batch`, and so are the
    penalties.

    Args:
        params: the parameters; only their paths and shapes are used.
        name: an entry of `optimizers.OPTIMIZERS`.
        learning_rate: the base rate, reached at the end of the warm-up.
        final_ratio: what the schedule multiplies it with at the end of the run.
        schedule: an entry of `schedules.SCHEDULES`.
        schedule_arguments: its own.
        momentum: SGD's momentum, Adam's first decay rate.
        weight_decay: for a step over `nominal_batch` pictures.
        warmup_steps: iterations; published: 3 epochs, at least 100. 0 for none.
        warmup_bias_rate: the rate of biases at iteration 0; all others start at 0.
        warmup_momentum: the momentum at iteration 0.
        clip_norm: the largest global norm of an accumulated gradient; 0 for no limit.
        layer_decay: factor of the rate from a layer to the one before, see
            `groups.depth_factors`; 1 for none.
        groups: see `groups.Group`.
        transforms: of the gradient, see `gradients.TRANSFORMS`; before the clip.
        lookahead: `steps` and `share` of `wrappers.lookahead`; empty for none.
        batch_size: pictures in an iteration, over all devices.
        nominal_batch: pictures that one optimiser step should see; gradients are
            summed over round(nominal / batch) iterations.
        steps_per_epoch: iterations in an epoch.
        epochs: epochs in the run.
        seed: of what is random, as noise in the gradient.
        network: all parameters, where `params` are those that are not frozen; groups
            and layers go by them.
        hold_from: iteration from which the base rate is `hold_rate`.
        hold_rate: see there; 0: the schedule's to the end.
        **arguments: the optimiser's own arguments.

    Raises:
        ValueError: an unknown optimiser, argument, schedule or kind of parameter,
            parameters in no group or in several, a schedule that is longer than the
            run, or a count that is not positive.
    """
    builder = make_optimizer(name, arguments, others=keywords(build_optimizer))
    leaves = grouping.leaves_of(
        params,
        groups=groups,
        layer_decay=layer_decay,
        weight_decay=weight_decay,
        warmup_bias_rate=warmup_bias_rate,
        network=network,
    )
    course = schedules.epoch_decay(
        schedule,
        final_ratio=final_ratio,
        steps_per_epoch=steps_per_epoch,
        epochs=epochs,
        momentum=momentum,
        arguments=schedule_arguments,
    )
    if hold_rate > 0:
        course = schedules.held(course, hold_from, hold_rate / (learning_rate or 1.0))
    plan = schedules.plan_accumulation(
        batch_size=batch_size, nominal_batch=nominal_batch, warmup_steps=warmup_steps
    )
    averages = name.startswith("schedule_free")
    if averages:
        _check_schedule_free(name, momentum, warmup_momentum, lookahead)

    def rate_from(start: float, highest: float) -> Schedule:
        return lambda step: schedules.warm_up(
            step,
            start=start,
            end=highest * course.factor(step),
            warmup_steps=warmup_steps,
        )

    def momentum_at(step: ArrayLike) -> jax.Array:
        return schedules.warm_up(
            step,
            start=warmup_momentum,
            end=course.momentum(step),
            warmup_steps=warmup_steps,
        )

    base = rate_from(0.0, learning_rate)
    group_rates = {
        leaf.label: rate_from(leaf.start, learning_rate * leaf.rate)
        for leaf in leaves.values()
    }
    seen = schedules.pictures_of_step(batch_size, nominal_batch)

    def of_leaves(value: Callable[[Leaf], Any]) -> dict[str, Any]:
        return trees.unflatten({path: value(leaf) for path, leaf in leaves.items()})

    def scaled(value: Callable[[Leaf], float]) -> dict[str, Any]:
        return of_leaves(lambda leaf: value(leaf) * seen / nominal_batch)

    labels = of_leaves(lambda leaf: leaf.label)
    depths = of_leaves(lambda leaf: leaf.depth) if layer_decay < 1 else None
    inner = builder(
        Pieces(
            momentum=momentum_at,
            decay=add_parameters(scaled(lambda leaf: leaf.weight_decay)),
            rates=scale_by_rates(labels, group_rates, depths),
            rate=base,
            params=params,
        )
    )
    if lookahead:
        where = "config.optim.lookahead"
        lookup.check_arguments(wrappers.lookahead, {"inner": 0, **lookahead}, where)
        inner = wrappers.lookahead(inner, **lookahead)
    pieces = make_transforms(transforms, leaves, seed=seed)
    if clip_norm > 0:
        pieces.append(("clip", clip_by_norm(clip_norm)))
    if any(leaf.l1 for leaf in leaves.values()):
        pieces.append(("l1", add_signs(scaled(lambda leaf: leaf.l1))))
    if any(leaf.l2 for leaf in leaves.values()):
        pieces.append(("l2", add_parameters(scaled(lambda leaf: leaf.l2))))
    tx = optax.named_chain(*pieces, (name, inner))
    on_metric = None
    if schedule == schedules.PLATEAU:
        tx, on_metric = _with_plateau(tx, schedule_arguments or {})
    if plan.largest > 1:
        tx = accumulate(tx, plan.stepped)

    def rates(step: ArrayLike, state: Any = None) -> dict[str, jax.Array]:
        found = {"learning_rate": base(step)}
        if groups:
            found |= {
                f"learning_rate_{k}": rate(step) for k, rate in group_rates.items()
            }
        elif "bias" in group_rates:
            found["learning_rate_bias"] = group_rates["bias"](step)
        plateau = wrappers.find_state(state, wrappers.PlateauState)
        if plateau is not None:
            found = {name: rate * plateau.factor for name, rate in found.items()}
        return {
            **found,
            "momentum": momentum_at(step),
            "accumulation": plan.count(step).astype(jnp.float32),
        }

    return Optimizer(
        tx,
        plan.stepped,
        rates,
        evaluation=_averaged if averages else None,
        on_metric=on_metric,
        leaves=leaves,
    )


def _averaged(opt_state: Any, params: Any) -> Any:
    state = wrappers.find_state(opt_state, wrappers.ScheduleFreeState)
    return wrappers.averaged_parameters(state, params)


def _with_plateau(
    tx: Transform, arguments: Mapping[str, Any]
) -> tuple[Transform, Callable[[Any, float], Any]]:
    own = {key: value for key, value in arguments.items() if key != "per_step"}
    wrappers.check_plateau(**own)

    def on_metric(opt_state: Any, value: float) -> Any:
        return wrappers.on_plateau(opt_state, value, **own)

    return wrappers.with_plateau(tx), on_metric


def _check_schedule_free(
    name: str, momentum: float, warmup_momentum: float, lookahead: Any
) -> None:
    for key, value in (("momentum", momentum), ("warmup_momentum", warmup_momentum)):
        if not 0 < value <= 1:
            raise ValueError(
                f"{name} takes its average's share from config.optim.{key}, which must "
                f"be above 0, not {value}; the source has 0.9"
            )
    if lookahead:
        raise ValueError(
            f"config.optim.lookahead does not go with {name}, which is an average of "
            "its own steps already"
        )
