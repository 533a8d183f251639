"""By which number a run is judged: which weights are best, and when to stop."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import NamedTuple

from yolojax import lookup
from yolojax.engine.book import Bookkeeping
from yolojax.metrics.classification import MULTI_ROWS, SINGLE_ROWS
from yolojax.metrics.detection import ROWS

# Weights of mAP50 and mAP50-95 in "fitness", as published for YOLOv5.
FITNESS = {"mAP50": 0.1, "mAP50_95": 0.9}


class Metric(NamedTuple):
    """A number that a run can be judged by.

    Attributes:
        name: what a config calls it.
        higher: whether more is better.
        of_training: whether it comes from the training steps, at each end of an epoch,
            and not from an evaluation.
    """

    name: str
    higher: bool = True
    of_training: bool = False

    def score(self, values: Mapping[str, float]) -> float:
        """The value, negated where less is better; NaN where it is not there."""
        if self.name == "fitness":
            value = fitness(values)
        else:
            value = values.get(self.name, math.nan)
        return value if self.higher else -value


METRICS: dict[str, Metric] = {
    "fitness": Metric("fitness"),
    **{name: Metric(name) for name, *_ in ROWS},
    "val_loss": Metric("val_loss", higher=False),
    "loss": Metric("loss", higher=False, of_training=True),
}
# The same of classifiers.
_LOWER = ("ece", "nll", "val_loss")
CLASS_METRICS: dict[str, Metric] = {
    "fitness": Metric("fitness"),
    **{
        name: Metric(name, higher=name not in _LOWER)
        for name in (*dict(SINGLE_ROWS + MULTI_ROWS), "val_loss")
    },
    "loss": METRICS["loss"],
}


def fitness(metrics: Mapping[str, float]) -> float:
    """0.1 mAP50 + 0.9 mAP50-95; NaN where they are not there.

    Of classifiers the accuracy or, with several labels a picture, the mean average
    precision.
    """
    for name in ("mean_average_precision", "accuracy"):
        if name in metrics:
            return metrics[name]
    return sum(w * metrics.get(name, math.nan) for name, w in FITNESS.items())


@dataclasses.dataclass(frozen=True)
class Judges:
    """What decides which checkpoint is the best, and when a run stops improving.

    Attributes:
        best: the metric of the best checkpoint.
        stop: the metric that patience waits for.
        patience: times that it may be no better, one after the other; 0: any.
        min_change: by how much a value must be better to count.
        settled: evaluations before so many steps do not use patience up: running
            statistics are not yet those of the data.
    """

    best: Metric = METRICS["fitness"]
    stop: Metric = METRICS["fitness"]
    patience: int = 0
    min_change: float = 0.0
    settled: int = 0

    @property
    def of_evaluations(self) -> Metric:
        """The metric of the best checkpoint, or fitness where that is of training."""
        return METRICS["fitness"] if self.best.of_training else self.best

    def see(
        self, book: Bookkeeping, step: int, values: Mapping[str, float], *, train: bool
    ) -> bool:
        """Note the values of an evaluation or, with `train`, of an epoch's steps.

        A value that is not finite is never better.

        Returns:
            Whether the weights of this step are the best so far.
        """
        if self.stop.of_training == train:
            score = self.stop.score(values)
            if math.isfinite(score) and score > book.stop_best + self.min_change:
                book.stop_best, book.since_best = score, 0
            elif train or step >= self.settled:
                book.since_best += 1
        return self.best.of_training == train and self.see_best(book, step, values)

    def see_best(
        self,
        book: Bookkeeping,
        step: int,
        values: Mapping[str, float],
        weights: str = "ema",
    ) -> bool:
        """Whether these values are the best so far; if so they are noted."""
        score = self.best.score(values)
        better = math.isfinite(score) and score > book.best
        if better:
            book.best, book.best_step, book.best_weights = score, step, weights
            book.best_metrics = dict(values)
        return better

    def remark(self, book: Bookkeeping, step: int, *, better: bool) -> str:
        """What an evaluation of a step was for the run, to stand behind its numbers.

        Args:
            book: after the evaluation.
            step: of the weights.
            better: whether they are the best so far.
        """
        parts = ["best so far"] if better else []
        if self.patience and not self.stop.of_training and book.since_best:
            parts.append(f"patience {book.since_best}/{self.patience}")
        elif self.patience and not self.stop.of_training and step < self.settled:
            parts.append(f"patience counts from step {self.settled}")
        return f"  ({', '.join(parts)})" if parts else ""

    def exhausted(self, book: Bookkeeping) -> bool:
        """Whether patience is at its end."""
        return 0 < self.patience <= book.since_best


def make_judges(
    *,
    best: str,
    metric: str,
    patience: int,
    min_change: float,
    evaluates: bool,
    classifies: bool = False,
    settled: int = 0,
) -> Judges:
    """The judges of a config.

    Args:
        best: `checkpoint.best`.
        metric: `early_stopping.metric`.
        patience: see `Judges`, like `min_change`.
        min_change: in the metric's own unit.
        evaluates: whether the run has a val set and looks at it.
        classifies: whether it is a classifier that is judged.
        settled: see `Judges`.

    Raises:
        ValueError: an unknown metric, or one that needs evaluations without any.
    """
    metrics = CLASS_METRICS if classifies else METRICS
    known = [
        lookup.pick(metrics, name, f"metric (config.{key})")
        for key, name in (("checkpoint.best", best), ("early_stopping.metric", metric))
    ]
    what = "config.data.val and evaluate.every_epochs above 0"
    if patience and not known[1].of_training and not evaluates:
        raise ValueError(
            f"config.early_stopping.patience needs {what}, or "
            f"config.early_stopping.metric='loss', the training loss"
        )
    # The default does no harm where nothing is evaluated: the latest is handed on.
    if best != "fitness" and not known[0].of_training and not evaluates:
        raise ValueError(f"config.checkpoint.best={best!r} needs {what}")
    return Judges(known[0], known[1], patience, min_change, settled)
