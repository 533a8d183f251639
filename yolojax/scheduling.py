"""What learning rate, momentum and weight decay a config gives over its run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from yolojax import datasets, experiment, folding, recipe
from yolojax.optim.build import Optimizer
from yolojax.vis import rates as drawing

# Points of a curve; a run has many more steps.
POINTS = 1500


def draw_schedule(
    settings: Mapping[str, Any], output: Path, *, steps_per_epoch: int = 0
) -> list[str]:
    """Draw the learning rate of each group, momentum, decay and accumulation.

    Weight decay is drawn as what it takes off a weight in an optimiser step: the rate
    times the decay. What evaluations make of the rate on a plateau is not foreseen.

    Args:
        settings: a complete config.
        output: the PNG.
        steps_per_epoch: 0: counted from the training data, where each picture counts
            once.

    Returns:
        Lines that say the same in short.

    Raises:
        ValueError: something in the config that cannot be, or data that are not there.
    """
    if not isinstance(settings["batch_size"], int):
        raise ValueError(
            f"a schedule goes by the batch: give config.batch_size a number in place "
            f"of {settings['batch_size']!r}"
        )
    names: tuple[str, ...] | None = None
    if not steps_per_epoch:
        source = datasets.open_source(settings, "train")
        names = source.class_names
        fold = folding.fold_of(settings, source)
        total = len(source) if fold is None else fold.num_training
        share = settings["data"]["sampling"].get("fraction", 1.0)
        pictures = max(1, round(total * share))
    if names is None and not settings["model"].get("num_classes"):
        # The number of classes changes no path.
        settings = {**settings, "model": {**settings["model"], "num_classes": 1}}
    model = experiment.make_model(settings, names)

    def steps_of(fraction: float) -> int:
        if steps_per_epoch:
            return max(1, math.ceil(steps_per_epoch * fraction))
        return math.ceil(max(1, round(pictures * fraction)) / settings["batch_size"])

    plan = recipe.make_stages(settings, model, steps_of)
    parts = []
    for stage in plan:
        optimizer = recipe.make_optimizer(settings, model, stage.steps_per_epoch, stage)
        steps = stage.epochs * stage.steps_per_epoch
        points = np.unique(np.linspace(0, steps - 1, POINTS // len(plan)).astype(int))
        found = _curves(optimizer, points)
        found["epoch"] = stage.first_epoch + points / stage.steps_per_epoch
        parts.append(found)
    curves = {
        name: np.concatenate(
            [p.get(name, np.full_like(p["epoch"], np.nan)) for p in parts]
        )
        for name in dict.fromkeys(name for part in parts for name in part)
    }
    epochs = curves.pop("epoch")

    def chosen(beginning: str) -> dict[str, np.ndarray]:
        return {
            name.removeprefix(f"{beginning}_"): values
            for name, values in curves.items()
            if name.startswith(beginning)
        }

    panels = {
        "Learning rate": chosen("learning_rate"),
        "Momentum": chosen("momentum"),
        "Weight decay in a step: rate times decay": chosen("decay"),
        "Batches in an optimiser step": chosen("accumulation"),
    }
    borders = tuple(float(stage.first_epoch) for stage in plan[1:])
    drawing.plot_schedule(epochs, panels, output, borders=borders)
    steps = sum(stage.epochs * stage.steps_per_epoch for stage in plan)
    lines = [
        f"{settings['optim']['name']}, {settings['optim']['schedule']}: {steps} steps "
        f"in {plan[-1].first_epoch + plan[-1].epochs} epochs"
    ]
    for name, values in {**panels["Learning rate"], **panels["Momentum"]}.items():
        top = int(np.nanargmax(values))
        lines.append(
            f"{name:<28} from {values[0]:.4g} to {values[-1]:.4g}, highest "
            f"{values[top]:.4g} at epoch {epochs[top]:.1f}"
        )
    return lines


def _curves(optimizer: Optimizer, steps: np.ndarray) -> dict[str, np.ndarray]:
    """The numbers of the log over the steps, and the decay of each group."""
    found = jax.vmap(optimizer.rates)(steps)
    curves = {name: np.asarray(values) for name, values in found.items()}
    for leaf in optimizer.leaves.values():
        if not leaf.weight_decay:
            continue
        rate = curves.get(f"learning_rate_{leaf.label}", curves["learning_rate"])
        # Layers differ: that of the head stands for all.
        curves[f"decay_{leaf.label}"] = rate * leaf.weight_decay
    least = min(leaf.depth for leaf in optimizer.leaves.values())
    if least < 1:
        curves["learning_rate_of the first layer"] = curves["learning_rate"] * least
    return curves
