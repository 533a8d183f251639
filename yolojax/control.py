"""From the settings of a config to what controls its run, checked before all else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from yolojax.engine import judging, swa
from yolojax.engine.ema import Decay, choose_decay
from yolojax.engine.judging import METRICS, Judges
from yolojax.network import is_classifier

FITNESS = METRICS["fitness"]


def check(settings: Mapping[str, Any]) -> None:
    """Check early stopping, keep-best, and both kinds of average.

    Raises:
        ValueError: an unknown metric or average, a metric without anything to evaluate
            it on, or more averaged epochs than there are.
    """
    make_judges(settings)
    make_decay(settings)
    last = [s for s in settings["stages"][-1:] if isinstance(s, Mapping)]
    epochs = last[0].get("epochs", 0) if last else settings["epochs"]
    swa.check_epochs(settings["swa"]["epochs"], epochs)


def num_epochs(settings: Mapping[str, Any]) -> int:
    """Epochs of the run, over all its stages."""
    return settings["epochs"]


def has_val(settings: Mapping[str, Any]) -> bool:
    """Whether there is something to evaluate on: `data.val`, or a fold held out."""
    return bool(settings["data"]["val"]) or settings["data"]["folds"]["count"] > 0


def make_judges(settings: Mapping[str, Any]) -> Judges:
    """What decides which checkpoint is best and when to stop."""
    return judging.make_judges(
        best=settings["checkpoint"]["best"],
        evaluates=has_val(settings) and settings["evaluate"]["every_epochs"] > 0,
        classifies=is_classifier(settings),
        **settings["early_stopping"],
    )


def make_decay(settings: Mapping[str, Any]) -> Decay:
    """The decay of the moving average."""
    return choose_decay(**settings["ema"])
