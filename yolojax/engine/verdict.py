"""What the curves of a run say: what holds it back, if anything does."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

Curve = Sequence[float] | np.ndarray

FEWEST = 8
CHANGE = 0.01
RISE = 0.05
GOOD = 0.97

RULE = (
    f"Rule: L is the mean over the last quarter of the evaluations, B over the quarter "
    f"before, of the training loss t and of v, the loss on val without augmentation, "
    f"of averaged weights if there are any. over-fitting: v(L) is {RISE:.0%} above the "
    f"lowest mean of "
    f"a quarter's length, and t fell since. Else still improving: v fell, or mAP50-95 "
    f"(of classifiers the accuracy) rose, by more than {CHANGE:.0%} from B to L. Else "
    f"both stand still: good enough where the metric is {GOOD:.0%} or more, else "
    f"over-fitting where v(L) is above t(L), under-fitting where not. Fewer than "
    f"{FEWEST} evaluations say nothing."
)
ADVICE = {
    "over-fitting": "more or more varied data, more augmentation, a smaller model, "
    "weight decay, or fewer epochs",
    "under-fitting": "a larger model or picture, less augmentation, another learning "
    "rate",
    "still improving": "more epochs",
    "good enough": "",
    "too short to say": "",
}


class Verdict(NamedTuple):
    """What is wrong, the numbers behind it, and what to do; see `judge_curves`."""

    name: str
    why: str

    def text(self, more: str = "") -> str:
        """For the user, with the rule.

        Args:
            more: how the run goes on; lines. Empty: nothing is said of it.
        """
        advice = ADVICE[self.name]
        tip = f" What may help: {advice}." if advice else ""
        rule = textwrap.fill(RULE, 86, initial_indent="  ", subsequent_indent="  ")
        if more:
            tip += "\n" + textwrap.indent(more, "  ")
        return f"verdict: {self.name} ({self.why}).{tip}\n{rule}"


def judge_curves(train: Curve, val: Curve, metric: Curve = ()) -> Verdict:
    """The verdict on a run, by `RULE`.

    Args:
        train: the training loss before each evaluation.
        val: the loss on val at each evaluation, in the same unit.
        metric: what the run is judged by at each evaluation, more being better; may be
            empty.
    """
    t, v, m = (np.asarray(curve, np.float64) for curve in (train, val, metric))
    if len(t) != len(v) or len(m) not in (0, len(v)):
        raise ValueError(f"lengths differ: {len(t)} train, {len(v)} val, {len(m)}")
    keep = np.isfinite(t) & np.isfinite(v)
    t, v, m = t[keep], v[keep], m[keep] if len(m) else m
    if len(v) < FEWEST:
        return Verdict("too short to say", f"{len(v)} evaluations with both losses")
    length = len(v) // 4
    t_before, t_last = _ends(t, length)
    v_before, v_last = _ends(v, length)
    windows = np.lib.stride_tricks.sliding_window_view(v, length).mean(axis=1)
    lowest, end = float(windows.min()), int(windows.argmin()) + length
    t_there = float(t[end - length : end].mean())
    if v_last > lowest * (1 + RISE) and t_last < t_there:
        why = (
            f"the loss on val rose from {lowest:.4g} at evaluation {end} of {len(v)} "
            f"to {v_last:.4g}, that of training fell from {t_there:.4g} to {t_last:.4g}"
        )
        return Verdict("over-fitting", why)
    if v_last < v_before * (1 - CHANGE):
        why = f"the loss on val still falls, from {v_before:.4g} to {v_last:.4g}"
        return Verdict("still improving", why)
    if len(m) and np.isfinite(m).all():
        before, last = _ends(m, length)
        if last > before + CHANGE * abs(before):
            why = f"the metric still rises, from {before:.4g} to {last:.4g}"
            return Verdict("still improving", why)
        if last >= GOOD:
            return Verdict("good enough", f"the metric stands at {last:.4g}")
    why = f"val stands at {v_last:.4g}, training at {t_last:.4g}"
    return Verdict("over-fitting" if v_last > t_last else "under-fitting", why)


def _ends(curve: np.ndarray, length: int) -> tuple[float, float]:
    """Means over the last `length` values and over those before."""
    last, before = curve[-length:], curve[-2 * length : -length]
    return float(before.mean()), float(last.mean())


def curves_of(
    rows: Sequence[Mapping[str, float]], metric: str = ""
) -> tuple[list[float], list[float], list[float]]:
    """Training loss, val loss and metric at each evaluation, from rows of metrics.csv.

    The training loss is the mean over the epochs since the last evaluation or, where
    none ended or a log is older than these means, over its rows.

    Args:
        rows: in the order of their steps.
        metric: a column, as `val/mAP50_95`.
    """
    train, val, judged = [], [], []
    since: dict[str, list[float]] = {"epoch_loss": [], "loss": []}
    for row in rows:
        for name, values in since.items():
            if name in row:
                values.append(row[name])
        if "val/loss" in row:
            values = next((v for v in since.values() if v), [float("nan")])
            train.append(float(np.mean(values)))
            val.append(row["val/loss"])
            judged.append(row.get(metric, float("nan")))
            since = {name: [] for name in since}
    return train, val, judged
