"""From the values of a config to an Optax chain.

The chain, in order: accumulate (only where the batch is smaller than the nominal
one), clip, the optimiser with its weight decay, the learning rate of each group.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from yolojax import lookup, trees
from yolojax.optim import schedules, transforms
from yolojax.optim.freeze import NOTHING, Frozen
from yolojax.optim.loss_scale import LossScaling
from yolojax.optim.sam import Sam
from yolojax.optim.schedules import Schedule
from yolojax.optim.transforms import Transform

# The last part of a parameter's path is its group.
GROUPS = ("bias", "kernel", "scale")


class Optimizer(NamedTuple):
    """An optimiser and what the training step and the log ask of it.

    Attributes:
        tx: `tx.update(grads, state, params, step=step)`, where `step` is the number
            of iterations done; the updates are zero between optimiser steps.
        stepped: from `step` to a bool scalar: whether the parameters move at the end
            of this iteration, and their moving average with them.
        rates: from `step` to float32 scalars by name, for the log.
        frozen: what is trained is the parameters without these.
        sam: what becomes of the gradient before `tx` has it; None: nothing.
        loss_scaling: how the loss is scaled; None: not.
    """

    tx: Transform
    stepped: Callable[[ArrayLike], jax.Array]
    rates: Callable[[ArrayLike], dict[str, jax.Array]]
    frozen: Frozen = NOTHING
    sam: Sam | None = None
    loss_scaling: LossScaling | None = None


def group_labels(params: Mapping[str, Any]) -> dict[str, Any]:
    """A tree like `params` with `bias`, `kernel` or `scale` at each leaf.

    Raises:
        ValueError: a parameter's path ends in none of these.
    """
    labels = {path: path.rsplit("/", 1)[-1] for path in trees.flatten(params)}
    strange = [path for path, label in labels.items() if label not in GROUPS]
    if strange:
        raise ValueError(
            f"{len(strange)} parameters belong to no group: {', '.join(strange[:5])}. "
            f"A path must end in one of {', '.join(GROUPS)}"
        )
    return trees.unflatten(labels)


def sgd(momentum: Schedule, decay: Transform, *, nesterov: bool = True) -> Transform:
    """SGD with momentum; the weight decay is part of the gradient.

    Args:
        momentum: factor of the buffer at an iteration.
        decay: adds the decayed weights.
        nesterov: whether to use Nesterov's correction.
    """
    return optax.named_chain(
        ("decay", decay),
        ("trace", transforms.scheduled_trace(momentum, nesterov=nesterov)),
    )


def adamw(
    momentum: Schedule, decay: Transform, *, b2: float = 0.999, eps: float = 1e-8
) -> Transform:
    """Adam; the weight decay acts beside the averages.

    Args:
        momentum: decay rate of the average of gradients at an iteration.
        decay: adds the decayed weights.
        b2: decay rate of the average of squares.
        eps: added to the root of the average of squares.

    Source: Loshchilov and Hutter 2019, arXiv:1711.05101, Algorithm 2.
    """
    return optax.named_chain(
        ("adam", transforms.scheduled_adam(momentum, b2=b2, eps=eps)),
        ("decay", decay),
    )


# Builders take the momentum as a schedule, the weight decay as a transform, and
# their own arguments by keyword.
OPTIMIZERS: dict[str, Callable[..., Transform]] = {"adamw": adamw, "sgd": sgd}


def _check_arguments(name: str, arguments: Mapping[str, Any]) -> None:
    def keywords(function: Callable[..., Any]) -> list[str]:
        parameters = inspect.signature(function).parameters.values()
        return [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]

    own = keywords(OPTIMIZERS[name])
    for argument in arguments:
        if argument not in own:
            choices = sorted(own + keywords(build_optimizer))
            raise ValueError(
                f"optimizer {name!r} has no argument {argument!r}."
                f"{lookup.hint(argument, choices)} Choices: {', '.join(choices)}"
            )


def build_optimizer(
    params: Mapping[str, Any],
    *,
    name: str = "sgd",
    learning_rate: float = 0.01,
    final_ratio: float = 0.01,
    schedule: str = "linear",
    momentum: float = 0.937,
    weight_decay: float = 0.0005,
    warmup_steps: int = 0,
    warmup_bias_rate: float = 0.1,
    warmup_momentum: float = 0.8,
    clip_norm: float = 10.0,
    batch_size: int,
    nominal_batch: int = 64,
    steps_per_epoch: int,
    epochs: int,
    **arguments: Any,
) -> Optimizer:
    """The optimiser of the YOLOv5 v7.0 recipe, or another one in its place.

    Weight decay acts on kernels only, and is scaled by the pictures that an optimiser
    step really sees over `nominal_batch`.

    Args:
        params: the parameters; only their paths are used.
        name: an entry of `OPTIMIZERS`.
        learning_rate: the base rate, reached at the end of the warm-up.
        final_ratio: what the schedule multiplies it with at the end of the run.
        schedule: an entry of `schedules.SCHEDULES`.
        momentum: SGD's momentum, Adam's first decay rate.
        weight_decay: for a step over `nominal_batch` pictures.
        warmup_steps: iterations; published: 3 epochs, at least 100. 0 for none.
        warmup_bias_rate: the rate of biases at iteration 0; all others start at 0.
        warmup_momentum: the momentum at iteration 0.
        clip_norm: the largest global norm of an accumulated gradient; 0 for no limit.
        batch_size: pictures in an iteration, over all devices.
        nominal_batch: pictures that one optimiser step should see; gradients are
            summed over round(nominal / batch) iterations.
        steps_per_epoch: iterations in an epoch.
        epochs: epochs in the run.
        **arguments: the optimiser's own arguments.

    Raises:
        ValueError: an unknown optimiser, argument, schedule or kind of parameter, or
            a count that is not positive.
    """
    builder = lookup.pick(OPTIMIZERS, name, "optimizer")
    _check_arguments(name, arguments)
    labels = group_labels(params)
    factor = schedules.epoch_decay(
        schedule,
        final_ratio=final_ratio,
        steps_per_epoch=steps_per_epoch,
        epochs=epochs,
    )
    plan = schedules.plan_accumulation(
        batch_size=batch_size, nominal_batch=nominal_batch, warmup_steps=warmup_steps
    )

    def rate_from(start: float) -> Schedule:
        return lambda step: schedules.warm_up(
            step,
            start=start,
            end=learning_rate * factor(step),
            warmup_steps=warmup_steps,
        )

    def momentum_at(step: ArrayLike) -> jax.Array:
        return schedules.warm_up(
            step, start=warmup_momentum, end=momentum, warmup_steps=warmup_steps
        )

    group_rates: dict[str, Schedule] = {
        group: rate_from(warmup_bias_rate if group == "bias" else 0.0)
        for group in GROUPS
    }
    seen = batch_size * max(round(nominal_batch / batch_size), 1)
    kernels = jax.tree.map(lambda label: label == "kernel", labels)
    decay = optax.with_extra_args_support(
        optax.add_decayed_weights(weight_decay * seen / nominal_batch, kernels)
    )
    pieces = [
        (name, builder(momentum_at, decay, **arguments)),
        ("rates", transforms.scale_by_rates(labels, group_rates)),
    ]
    if clip_norm > 0:
        pieces.insert(0, ("clip", transforms.clip_by_norm(clip_norm)))
    tx = optax.named_chain(*pieces)
    if plan.largest > 1:
        tx = transforms.accumulate(tx, plan.stepped)

    def rates(step: ArrayLike) -> dict[str, jax.Array]:
        return {
            "learning_rate": group_rates["kernel"](step),
            "learning_rate_bias": group_rates["bias"](step),
            "momentum": momentum_at(step),
            "accumulation": plan.count(step).astype(jnp.float32),
        }

    return Optimizer(tx, plan.stepped, rates)
