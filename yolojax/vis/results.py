"""All curves of a run in one picture: losses, metrics, rates, and what tells of them.

Matplotlib is imported when used.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from yolojax.vis.plots import (
    Series,
    hex_colour,
    line_colour,
    open_figure,
    read_series,
    say_empty,
    smooth,
)

COLUMNS = 3
# Rises by more than this factor get a logarithmic axis.
_WIDE = 100


def plot_results(
    metrics_path: str | os.PathLike[str], output: str | os.PathLike[str]
) -> Path:
    """Draws a run's curves over its steps, and gives the path of the PNG.

    Panels, of which the first four are always there, the others where the table has
    something for them: the loss in training (raw in pale, smoothed in full colour) and
    on val; average precision, or accuracy of classifiers; learning rates; the share of
    time spent waiting for data; the parts of the loss; the loss of single pictures as
    quantiles; other metrics on val; the negative log-likelihood; the norm of the
    gradient; sizes of updates over those of parameters; targets of each level; the
    share of skipped steps.

    Args:
        metrics_path: a metrics.csv; see `engine.log.RunLog`.
        output: the PNG; its folder is made where it is missing.

    Raises:
        ValueError: no such file, or not one of ours.
    """
    series = read_series(metrics_path)
    output = Path(output)
    shown = [
        (draw, names)
        for number, (draw, choose) in enumerate(PANELS)
        if (names := [n for n in series if choose(n)]) or number < 4
    ]
    rows = math.ceil(len(shown) / COLUMNS)
    with open_figure(output, rows, COLUMNS, (5 * COLUMNS, 3.2 * rows)) as (_, axes):
        for axis, (draw, names) in zip(axes.flat, shown, strict=False):
            draw(axis, {name: series[name] for name in names})
            _finish_steps(axis, series)
        for axis in axes.flat[len(shown) :]:
            axis.set_visible(False)
    return output


def _short(name: str) -> str:
    return name.split("/", 1)[-1]


def _plot_losses(axis: Any, series: dict[str, Series]) -> None:
    axis.set_title("Loss")
    for name, (steps, values) in series.items():
        of_val = name == "val/loss"
        label, colour = ("val" if of_val else "training"), line_colour(int(of_val))
        _plot_smoothed(axis, steps, values, colour, label)
    _log_if_wide(axis, series)


def _plot_parts(axis: Any, series: dict[str, Series]) -> None:
    axis.set_title("Parts of the loss in training")
    for index, (name, (steps, values)) in enumerate(series.items()):
        _plot_smoothed(axis, steps, values, line_colour(index), _short(name))
    _log_if_wide(axis, series)


def _plot_smoothed(
    axis: Any, steps: np.ndarray, values: np.ndarray, colour: str, label: str
) -> None:
    many = len(values) >= 20
    if many:
        axis.plot(steps, values, color=colour, alpha=0.25, linewidth=0.8)
    axis.plot(
        steps,
        smooth(values, len(values) / 60) if many else values,
        color=colour,
        linewidth=1.8,
        marker="." if len(values) <= 5 else "",
        label=label,
    )


def _log_if_wide(axis: Any, series: dict[str, Series]) -> None:
    """A logarithmic axis where the values span more than two orders."""
    finite = np.concatenate([np.zeros(0), *(v for _, v in series.values())])
    finite = finite[np.isfinite(finite)]
    if len(finite) and finite.min() > 0 and finite.max() > _WIDE * finite.min():
        axis.set_yscale("log")


def _plot_precision(axis: Any, series: dict[str, Series]) -> None:
    accurate = any(name.endswith("accuracy") for name in series)
    axis.set_title("Accuracy" if accurate else "Average precision")
    # Training has the colour that it has among the losses, and so has val.
    ordered = sorted(series.items(), key=lambda item: not item[0].startswith("train/"))
    first = 0 if ordered and ordered[0][0].startswith("train/") else 1
    for index, (name, (steps, values)) in enumerate(ordered, first):
        colour = line_colour(index)
        short = _short(name).replace("50_95", "50-95").replace("_", " ")
        label = short
        if name.startswith("train/"):
            label = f"{short} in training"
        elif np.isfinite(values).any():
            best = int(np.nanargmax(values))
            label = f"{short} on val, best {values[best]:.3f} at step {steps[best]:.0f}"
            axis.plot(steps[best], values[best], "o", color=colour, markersize=6)
        marker = "." if len(values) <= 60 else ""
        axis.plot(
            steps, values, color=colour, linewidth=1.8, marker=marker, label=label
        )
    if series:
        axis.set_ylim(0, 1)


def _plot_metrics(axis: Any, series: dict[str, Series]) -> None:
    axis.set_title("Other metrics on val")
    for index, (name, (steps, values)) in enumerate(series.items()):
        style = "-" if index < 6 else "--"
        axis.plot(
            steps,
            values,
            color=line_colour(index),
            linewidth=1.4,
            linestyle=style,
            marker="." if len(values) <= 5 else "",
            label=_short(name),
        )


def _plot_rates(axis: Any, series: dict[str, Series]) -> None:
    axis.set_title("Learning rate")
    for index, (name, (steps, values)) in enumerate(series.items()):
        # Rates often agree; the later one is dashed so that both show.
        axis.plot(
            steps,
            values,
            color=line_colour(index),
            linewidth=1.8,
            linestyle="-" if index == 0 else (0, (4, 1 + index)),
            label=_short(name),
        )
    axis.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))


def _plot_waiting(axis: Any, series: dict[str, Series]) -> None:
    axis.set_title("Time spent waiting for data")
    for steps, values in series.values():
        percent = np.where(np.isfinite(values), values, 0.0) * 100
        label = f"mean {percent.mean():.1f} %, highest {percent.max():.1f} %"
        pale, full = hex_colour(1), hex_colour(4)
        axis.fill_between(steps, 0, percent, color=pale, alpha=0.35, linewidth=0)
        axis.plot(steps, percent, color=full, linewidth=1.2, label=label)
        # The first steps wait for the first pictures; they must not flatten the rest.
        usual = float(np.quantile(percent, 0.98))
        axis.set_ylim(0, min(100.0, max(5.0, usual * 1.3)))
        axis.set_ylabel("% of the step")


def _plot_pictures(axis: Any, series: dict[str, Series]) -> None:
    axis.set_title("Last loss of each training picture")
    for index, (name, (steps, values)) in enumerate(series.items()):
        label = _short(name).removeprefix("picture_")
        label = {"q10": "10 %", "q50": "median", "q90": "90 %"}.get(label, label)
        marker = "." if len(values) <= 60 else ""
        axis.plot(steps, values, color=line_colour(index), marker=marker, label=label)
    _log_if_wide(axis, series)


def _lines(title: str) -> Callable[[Any, dict[str, Series]], None]:
    def plot(axis: Any, series: dict[str, Series]) -> None:
        axis.set_title(title)
        for index, (name, (steps, values)) in enumerate(series.items()):
            _plot_smoothed(axis, steps, values, line_colour(index), _short(name))
        _log_if_wide(axis, series)

    return plot


def _plot_skipped(axis: Any, series: dict[str, Series]) -> None:
    axis.set_title("Share of skipped steps")
    for steps, values in series.values():
        axis.plot(steps, values, color=line_colour(0), linewidth=1.8, label="skipped")
        axis.set_ylim(0, max(0.05, 1.1 * np.nanmax([0.0, *values])))


def _is_part(name: str) -> bool:
    return name.startswith("loss/") and not name.startswith("loss/picture_")


def _is_precision(name: str) -> bool:
    scores = ("mAP50", "mAP50_95", "accuracy", "mean_average_precision")
    return name.endswith(scores)


def _is_metric(name: str) -> bool:
    elsewhere = ("val/loss", "val/nll")
    return name.startswith("val/") and name not in elsewhere and not _is_precision(name)


def _begins(*beginnings: str) -> Callable[[str], bool]:
    return lambda name: name.startswith(beginnings)


# How a panel is drawn, and which columns belong there.
PANELS: Sequence[
    tuple[Callable[[Any, dict[str, Series]], None], Callable[[str], bool]]
] = (
    (_plot_losses, lambda name: name in ("loss", "val/loss")),
    (_plot_precision, _is_precision),
    (_plot_rates, _begins("rate", "learning_rate")),
    (_plot_waiting, lambda name: name.endswith("wait_share")),
    (_plot_parts, _is_part),
    (_plot_pictures, _begins("loss/picture_")),
    (_plot_metrics, _is_metric),
    (_lines("Negative log-likelihood on val"), lambda name: name == "val/nll"),
    (_lines("Norm of the gradient"), _begins("gradient_norm")),
    (_lines("Updates over parameters"), _begins("update_ratio/")),
    (_lines("Targets of each level"), _begins("targets/")),
    (_lines("Pseudo-labels, shares"), _begins("pseudo/")),
    (_plot_skipped, lambda name: name == "skipped_share"),
)


def _finish_steps(axis: Any, series: dict[str, Series]) -> None:
    axis.set_xlabel("step")
    last = max((float(steps[-1]) for steps, _ in series.values()), default=1.0)
    axis.set_xlim(0, max(last, 1.0) * 1.01)
    if axis.get_legend_handles_labels()[0]:
        axis.legend(loc="best")
    else:
        say_empty(axis, "nothing logged")
