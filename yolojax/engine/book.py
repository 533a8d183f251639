"""What a run must remember besides its state: sums for the log, and the best so far."""

from __future__ import annotations

import dataclasses
import math
import reprlib
from collections.abc import Mapping
from typing import Any

# Worse than any score; JSON has no infinity.
UNJUDGED = -1e30


@dataclasses.dataclass
class Bookkeeping:
    """What the loop must remember besides the state; saved in every checkpoint.

    Scores are the values of a metric, negated where less is better.

    Attributes:
        best: largest score of `checkpoint.best` so far.
        best_step: its step; 0 before the first.
        best_weights: `ema`, or `swa` where the mean of the last epochs was better.
        best_metrics: numbers of the evaluation that gave it.
        stop_best: largest score of `early_stopping.metric` that counted as better.
        since_best: times that it was looked at since then.
        boxes_cut: boxes that did not fit, over the whole run.
        seconds: time spent in the loop, over all parts of the run.
        window: sums of the numbers since the last row of the log, and their count.
        epoch: sum and count of the training loss since the last end of an epoch.
        pictures: see `pictures.PictureLosses.to_text`.
        data: the digest of each part of the data, see `data.identity`; empty in
            checkpoints that are older.
        changes: what was another from a step on, as the data or the epochs: `step` and
            `what`.
    """

    best: float = UNJUDGED
    best_step: int = 0
    best_weights: str = "ema"
    best_metrics: dict[str, float] = dataclasses.field(default_factory=dict)
    stop_best: float = UNJUDGED
    since_best: int = 0
    boxes_cut: float = 0.0
    seconds: float = 0.0
    window: dict[str, float] = dataclasses.field(default_factory=dict)
    epoch: list[float] = dataclasses.field(default_factory=lambda: [0.0, 0.0])
    pictures: str = ""
    data: dict[str, str] = dataclasses.field(default_factory=dict)
    changes: list[dict[str, Any]] = dataclasses.field(default_factory=list)

    @classmethod
    def restored(cls, progress: Mapping[str, Any]) -> Bookkeeping:
        """From what a checkpoint holds, also one that is older than some fields.

        Raises:
            ValueError: a value has another type, or there is an unknown one.
        """
        if problem := misfit(progress):
            raise ValueError(f"the checkpoint's bookkeeping does not fit: {problem}")
        known = dict(progress)
        known.setdefault("stop_best", known.get("best", UNJUDGED))
        return cls(**known)

    def add(self, numbers: Mapping[str, Any]) -> None:
        """Add a step's scalars to the window; those of a skipped step only count."""
        values = {name: float(value) for name, value in numbers.items()}
        self.boxes_cut += values["boxes_cut"]
        finite = values["finite"] > 0
        self._sum("steps", 1.0)
        self._sum("skipped", 0.0 if finite else 1.0)
        if finite:
            self.epoch = [self.epoch[0] + values["loss"], self.epoch[1] + 1.0]
        for name, value in values.items():
            if name not in ("finite", "boxes_cut", "scale_fell") and finite:
                self._sum(name, value)

    def take_window(self) -> dict[str, float]:
        """Means over the window, which starts anew."""
        sums, self.window = self.window, {}
        skipped, steps = sums.pop("skipped", 0.0), sums.pop("steps", 0.0)
        counted = steps - skipped
        means = {k: v / counted if counted else math.nan for k, v in sums.items()}
        return {
            **means,
            "skipped_steps": skipped,
            "skipped_share": skipped / steps if steps else 0.0,
            "boxes_cut": self.boxes_cut,
        }

    def take_epoch(self) -> float:
        """The mean training loss since the last call; NaN without a step."""
        (total, count), self.epoch = self.epoch, [0.0, 0.0]
        return total / count if count else math.nan

    def _sum(self, name: str, value: float) -> None:
        self.window[name] = self.window.get(name, 0.0) + value


def misfit(progress: Mapping[str, Any]) -> str:
    """What a `Bookkeeping` cannot be made of, in a checkpoint's JSON; else empty."""
    fresh = dataclasses.asdict(Bookkeeping())
    for name, value in progress.items():
        if name not in fresh:
            return f"the entry {name!r} is unknown, as of a newer yolojax"
        kind = type(fresh[name])
        fits = type(value) in ((int, float) if kind is float else (kind,))
        if kind is dict and fits:
            inner = (str,) if name == "data" else (int, float)
            fits = all(type(one) in inner for one in value.values())
        if name == "epoch" and fits:
            fits = [type(one) in (int, float) for one in value] == [True, True]
        if name == "changes" and fits:
            fits = all(isinstance(one, dict) for one in value)
        if not fits:
            return f"{name} is {reprlib.repr(value)}"
    return ""
