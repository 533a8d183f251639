"""From the settings of a config to what controls its run, checked before all else."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from yolojax.engine import judging, swa
from yolojax.engine.ema import Decay, choose_decay
from yolojax.engine.judging import METRICS, Judges
from yolojax.lookup import pick
from yolojax.models.network import Network
from yolojax.network import is_classifier

FITNESS = METRICS["fitness"]


def check(settings: Mapping[str, Any]) -> None:
    """Check early stopping, keep-best, and both kinds of average.

    Raises:
        ValueError: an unknown metric or average, a metric without anything to evaluate
            it on, more averaged epochs than there are, or the mean of an average.
    """
    make_judges(settings)
    make_decay(settings)
    if settings["init"]["statistics"]:
        name = settings["init"]["statistics"]
        pick({"batches": None}, name, "statistics (config.init.statistics)")
    last = [s for s in settings["stages"][-1:] if isinstance(s, Mapping)]
    epochs = last[0].get("epochs", 0) if last else settings["epochs"]
    swa.check_epochs(settings["swa"]["epochs"], epochs)
    name = settings["optim"]["name"]
    if settings["swa"]["epochs"] and name.startswith("schedule_free"):
        raise ValueError(
            f"config.swa.epochs does not go with {name}, which is an average of its "
            "own steps already"
        )


def notes(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """What the config says without an effect, or against itself; a line each."""
    found, optim, augment = [], settings["optim"], settings["augment"]
    if optim["name"].startswith("schedule_free") and optim["schedule"] != "constant":
        found.append(
            f"config.optim.schedule {optim['schedule']!r} lowers the rate of "
            f"{optim['name']}, whose average stands in for a schedule: take 'constant'"
        )
    closed, epochs = augment["close_mosaic_epochs"], settings["epochs"]
    if closed >= epochs and augment["policy"]:
        found.append(
            f"config.augment.close_mosaic_epochs is {closed} and the run has {epochs} "
            "epochs: none of them mixes pictures"
        )
    return tuple(found)


def settled_after(settings: Mapping[str, Any], model: Network) -> int:
    """Steps until the running statistics are those of the data; 0 where they are.

    Of a first value the share (1 - momentum)^n is left after n steps; they count as
    settled when that is a tenth. What val says before comes of the first values.

    Args:
        settings: of the run.
        model: its network.
    """
    init = settings["init"]
    if init["weights"] or init["statistics"]:
        return 0
    momentum = min(model.norm_momenta().values(), default=0.0)
    if not 0 < momentum < 1:
        return 0
    return math.ceil(math.log(0.1) / math.log(1 - momentum))


def settling(
    settings: Mapping[str, Any], model: Network, *, steps_per_epoch: int, total: int
) -> tuple[str, ...]:
    """A line where val says little for much of the run, and what is done about it.

    Args:
        settings: of the run.
        model: its network.
        steps_per_epoch: batches.
        total: steps of all epochs.
    """
    settled = settled_after(settings, model) if has_val(settings) else 0
    every, patience = (
        settings["evaluate"]["every_epochs"],
        settings["early_stopping"]["patience"],
    )
    if total < settled:
        end = (
            f"the run has {total}: val says little before. What helps: "
            "config.init.statistics='batches', more epochs, a smaller "
            "config.batch_size, or trained weights (config.init.weights)"
        )
    elif patience and (patience + 1) * every * steps_per_epoch < settled:
        end = (
            "config.early_stopping counts from there on "
            "(config.init.statistics='batches' has them at once)"
        )
    else:
        return ()
    return (
        f"batch normalisation of {model.name} takes about {settled} steps until its "
        f"running statistics are those of the data, and {end}",
    )


def num_epochs(settings: Mapping[str, Any]) -> int:
    """Epochs of the run, over all its stages."""
    return settings["epochs"]


def has_val(settings: Mapping[str, Any]) -> bool:
    """Whether there is something to evaluate on: `data.val`, or a fold held out."""
    return bool(settings["data"]["val"]) or settings["data"]["folds"]["count"] > 0


def make_judges(settings: Mapping[str, Any], *, settled: int = 0) -> Judges:
    """What decides which checkpoint is best and when to stop.

    Args:
        settings: of the run.
        settled: see `settled_after`.
    """
    return judging.make_judges(
        best=settings["checkpoint"]["best"],
        evaluates=has_val(settings) and settings["evaluate"]["every_epochs"] > 0,
        classifies=is_classifier(settings),
        settled=settled,
        **settings["early_stopping"],
    )


def make_decay(settings: Mapping[str, Any]) -> Decay:
    """The decay of the moving average."""
    return choose_decay(**settings["ema"])
