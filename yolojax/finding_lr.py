"""The learning-rate range test: how the loss answers to a rate that rises."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from yolojax import experiment, recipe
from yolojax.engine import sharding
from yolojax.experiment import Experiment
from yolojax.losses.weights import count_classes
from yolojax.vis.plots import smooth

# A loss so many times the lowest one has run away; more steps say nothing.
RUNAWAY = 4.0
# Share of the steps over which the loss is smoothed, as a standard deviation.
SMOOTHING = 0.03


class RangeTest(NamedTuple):
    """A range test's curve and what to make of it.

    Attributes:
        rates: float64 [n], the learning rate of each step.
        losses: float64 [n], the loss of a picture at each step.
        smoothed: float64 [n], the same, averaged with its neighbours.
        steepest: the rate at which the loss falls fastest, or NaN where it never does.
        lowest: the rate at which it is lowest.
    """

    rates: np.ndarray
    losses: np.ndarray
    smoothed: np.ndarray
    steepest: float
    lowest: float

    @property
    def tenth(self) -> float:
        """A tenth of the rate at which the loss is lowest."""
        return self.lowest / 10


def judge(rates: np.ndarray, losses: np.ndarray) -> RangeTest:
    """The curve smoothed, with the rates that it recommends.

    Args:
        rates: [n], rising by the same factor each step, above 0.
        losses: [n]; what is not finite is left out.

    Raises:
        ValueError: fewer than 5 losses.

    Source: Smith 2017, arXiv:1506.01186, section 3.3; a rate that rises by a factor,
    and the steepest descent, are later usage.
    """
    rates, losses = np.asarray(rates, np.float64), np.asarray(losses, np.float64)
    if len(losses) < 5:
        raise ValueError(
            f"the loss ran away after {len(losses)} steps, or there were no more; "
            "start lower, or take more steps"
        )
    smoothed = smooth(losses, max(1.0, SMOOTHING * len(losses)))
    lowest = int(np.nanargmin(smoothed))
    slope = np.gradient(smoothed, np.log(rates))
    before = slope[: lowest + 1]
    steepest = math.nan
    if np.nanmin(before) < 0:
        steepest = float(rates[int(np.nanargmin(before))])
    return RangeTest(rates, losses, smoothed, steepest, float(rates[lowest]))


def find(
    settings: Mapping[str, Any],
    *,
    low: float,
    high: float,
    steps: int,
    progress: Callable[[int, int], None] | None = None,
) -> RangeTest:
    """Train for some steps, from the config's first weights, with a rising rate.

    Everything else is the config's: optimiser, momentum (without its warm-up), groups,
    batch, augmentation. Stops where the loss runs away.

    Args:
        settings: a complete config.
        low: the rate of the first step.
        high: that of the last.
        steps: how many.
        progress: `progress(done, total)`.

    Raises:
        ValueError: rates or steps that cannot be, or anything wrong with config or
            data.
    """
    if not 0 < low < high:
        raise ValueError(f"rates must rise from above 0, not from {low} to {high}")
    if steps < 5:
        raise ValueError(f"a range test needs at least 5 steps, not {steps}")
    run = rising(settings, low=low, high=high, steps=steps)
    state = run.initial_state()
    batches = run.train_batches()
    rates, losses, kept, least = [], [], 0.0, math.inf
    try:
        for number in range(steps):
            rates.append(float(run.optimizer.rates(number)["learning_rate"]))
            batch = sharding.put_batch(next(batches), run.mesh)
            state, numbers = run.step_at(number)(state, batch)
            loss = float(numbers["loss"])
            losses.append(loss)
            if progress is not None:
                progress(number + 1, steps)
            # Corrected for its start, as Adam's averages are.
            kept = 0.9 * kept + 0.1 * loss
            mean = kept / (1 - 0.9 ** (number + 1))
            if not math.isfinite(mean) or mean > RUNAWAY * least:
                break
            least = min(least, mean)
    finally:
        batches.close()
    finite = [i for i, loss in enumerate(losses) if math.isfinite(loss)]
    jax.block_until_ready(state.step)
    return judge(np.array(rates)[finite], np.array(losses)[finite])


def rising(
    settings: Mapping[str, Any], *, low: float, high: float, steps: int
) -> Experiment:
    """The run of a config whose rate rises by a factor in each of its steps.

    Args:
        settings: a complete config.
        low: the rate of the first step.
        high: the rate after `steps` steps.
        steps: how many; the run has as many, or a few more.
    """
    changed = {
        "stages": (),
        "max_steps": 0,
        "swa": {**settings["swa"], "epochs": 0},
        "data": {**settings["data"], "cache": "none"},
        "optim": {
            **settings["optim"],
            "learning_rate": low,
            "schedule": "exponential",
            "schedule_arguments": {"per_step": True},
            "warmup_epochs": 0.0,
        },
    }
    run = experiment.build({**settings, **changed, "epochs": steps})
    length = run.steps_per_epoch
    epochs = math.ceil(steps / length)
    optim = {
        **run.settings["optim"],
        "final_ratio": (high / low) ** (epochs * length / steps),
    }
    chosen = {**run.settings, "epochs": epochs, "optim": optim}
    counts = count_classes(
        (run.train.source[i].labels for i in run.train.keep.tolist()),
        run.model.num_classes,
    )
    plan = recipe.make_stages(chosen, run.model, lambda _: length)
    made, optimizer = recipe.make_steps(
        chosen,
        run.model,
        run.mesh,
        max_boxes=run.max_boxes,
        steps_per_epoch=length,
        class_counts=counts,
        plan=plan,
    )
    return dataclasses.replace(
        run, settings=chosen, steps=made, optimizer=optimizer, stages=plan, later=()
    )
