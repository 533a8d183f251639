"""Plots of learning rates: a config's schedule, and a range test."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from yolojax.vis.plots import line_colour, open_figure, say_empty

Curves = Mapping[str, np.ndarray]


def plot_schedule(
    epochs: np.ndarray,
    panels: Mapping[str, Curves],
    output: str | os.PathLike[str],
    *,
    borders: tuple[float, ...] = (),
) -> Path:
    """Draws what a run will do over its epochs, and gives the path of the PNG.

    Args:
        epochs: [n], epochs done, rising.
        panels: up to four titles, each with its curves [n] by name.
        output: the PNG; its folder is made where it is missing.
        borders: epochs at which a stage ends.
    """
    output = Path(output)
    with open_figure(output, 2, 2, (11, 7)) as (_, axes):
        for axis, (title, curves) in zip(axes.flat, panels.items(), strict=False):
            axis.set_title(title)
            for index, (name, values) in enumerate(curves.items()):
                # Curves often agree; the later ones are dashed so that all show.
                axis.plot(
                    epochs,
                    values,
                    color=line_colour(index),
                    linewidth=1.8,
                    linestyle="-" if index == 0 else (0, (4, 1 + index)),
                    label=name,
                )
            for border in borders:
                axis.axvline(border, color="#999999", linewidth=0.8)
            axis.set_xlabel("epoch")
            axis.set_xlim(float(epochs[0]), float(max(epochs[-1], epochs[0] + 1e-9)))
            if curves:
                _keep_rounding_flat(axis, curves)
                axis.ticklabel_format(axis="y", style="sci", scilimits=(-2, 4))
                axis.legend(loc="best")
            else:
                say_empty(axis, "nothing")
        for axis in axes.flat[len(panels) :]:
            axis.set_visible(False)
    return output


def _keep_rounding_flat(axis: Any, curves: Curves) -> None:
    """What differs by rounding alone is drawn as a straight line."""
    values = np.concatenate(list(curves.values()))
    low, high = float(values.min()), float(values.max())
    middle = (low + high) / 2
    if high - low < 1e-4 * abs(middle):
        axis.set_ylim(*sorted((0.9 * middle, 1.1 * middle)))


def plot_range_test(
    rates: np.ndarray,
    losses: np.ndarray,
    smoothed: np.ndarray,
    marks: Mapping[str, float],
    output: str | os.PathLike[str],
) -> Path:
    """Draws a range test's loss over the learning rate; gives the path of the PNG.

    Args:
        rates: [n], rising, above 0.
        losses: [n], of each step.
        smoothed: [n], the same, smoothed.
        marks: rates to mark, by what is said of them.
        output: the PNG; its folder is made where it is missing.
    """
    output = Path(output)
    with open_figure(output, 1, 1, (8, 5)) as (_, axes):
        axis: Any = axes[0, 0]
        axis.set_title("Loss while the learning rate rises")
        axis.plot(rates, losses, color=line_colour(0), alpha=0.25, linewidth=0.8)
        axis.plot(
            rates, smoothed, color=line_colour(0), linewidth=1.8, label="smoothed"
        )
        for index, (name, rate) in enumerate(marks.items(), 1):
            axis.axvline(
                rate,
                color=line_colour(index),
                linewidth=1.4,
                linestyle=(0, (4, 2)),
                label=f"{name}: {rate:.2g}",
            )
        axis.set_xscale("log")
        axis.set_xlabel("learning rate")
        axis.set_ylabel("loss of a picture")
        finite = smoothed[np.isfinite(smoothed)]
        if len(finite):
            low, high = float(finite.min()), float(min(finite.max(), 3 * finite[0]))
            room = 0.1 * max(high - low, 1e-9)
            axis.set_ylim(low - room, high + room)
        axis.legend(loc="best")
    return output
