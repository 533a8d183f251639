"""Features of pictures as points in the plane, coloured by class."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from yolojax.vis.palette import NUM_COLOURS
from yolojax.vis.plots import (
    MAX_NAMED_CLASSES,
    class_label,
    hex_colour,
    open_figure,
    say_empty,
)

# Shapes tell classes apart where colours do not.
_MARKERS = "os^Dv"
_COLOURED = 8
# Of fewer points a name would hide too many.
_CLOUD = 10
# Points of the other parts.
_OTHERS = "#dddddd"


def plot_embedding(
    parts: Mapping[str, tuple[np.ndarray, np.ndarray]],
    class_names: Sequence[str],
    output: str | os.PathLike[str],
    *,
    title: str,
    axes_named: Sequence[str] = (),
) -> Path:
    """Draws points of several parts of a data set beside each other; gives the path.

    All panels have the same limits; the other parts' points are pale grey. Pictures
    without a class are crosses. The 40 most frequent classes stand in a legend, and
    where there are no more, their names at the median of 10 points or more.

    Args:
        parts: by name, points [n, 2] and labels int [n], -1 for none.
        class_names: names by label.
        output: the PNG; its folder is made where it is missing.
        title: what is drawn.
        axes_named: names of both axes; without them these have no scale.
    """
    output = Path(output)
    everything = np.concatenate([points for points, _ in parts.values()])
    labels = np.concatenate([labels for _, labels in parts.values()]).astype(np.int64)
    found, counts = np.unique(labels[labels >= 0], return_counts=True)
    frequent = found[np.argsort(-counts, kind="stable")[:MAX_NAMED_CLASSES]]
    named = np.sort(frequent).tolist()
    clouds = named if len(found) == len(named) else []
    size = (5.6 * len(parts) + (1.8 if len(named) <= 25 else 3.4), 6.0)
    with open_figure(output, 1, len(parts), size) as (figure, axes):
        figure.suptitle(title, x=0.01, ha="left", fontsize=11)
        for axis, (name, (points, own)) in zip(axes[0], parts.items(), strict=True):
            axis.set_title(f"{name}: {len(points):,} pictures")
            if not len(points):
                say_empty(axis, "no picture")
                continue
            _plot_points(axis, points, own, everything)
            _limit(axis, everything)
            large = [i for i in clouds if (own == i).sum() >= _CLOUD]
            middles = [np.median(points[own == i], axis=0) for i in large]
            for label, (x, y) in zip(large, _apart(axis, middles), strict=True):
                _write_name(axis, x, y, class_label(class_names, label, longest=16))
            if not axes_named:
                axis.set_xticks([])
                axis.set_yticks([])
            else:
                axis.set_xlabel(axes_named[0])
                axis.set_ylabel(axes_named[1])
        if named:
            handles = [
                _handle(class_label(class_names, label), **_style(label))
                for label in named
            ]
            if len(parts) > 1:
                handles.append(_handle("other parts", color=_OTHERS, marker="o"))
            figure.legend(
                handles=handles,
                loc="outside right upper",
                ncols=1 if len(named) <= 25 else 2,
                title="" if clouds else f"{len(named)} of {len(found)} classes",
            )
    return output


def _style(label: int) -> dict[str, Any]:
    """Colour and shape of a class; eight colours, then the next shape."""
    if label < 0:
        return {"color": "#777777", "marker": "x"}
    marker = _MARKERS[label // _COLOURED % len(_MARKERS)]
    return {"color": hex_colour(label % NUM_COLOURS), "marker": marker}


def _handle(name: str, **style: Any) -> Any:
    from matplotlib.lines import Line2D

    return Line2D([], [], linestyle="", markersize=6, label=name, **style)


def _plot_points(
    axis: Any, points: np.ndarray, labels: np.ndarray, everything: np.ndarray
) -> None:
    area = float(np.clip(12000 / len(points), 4, 36))
    axis.scatter(*everything.T, s=0.6 * area, color=_OTHERS, linewidths=0)
    # In turns, so that the last class does not hide the others.
    shuffled = np.random.default_rng(0).permutation(len(points))
    for chunk in np.array_split(shuffled, min(8, len(points))):
        for label in np.unique(labels[chunk]):
            rows = chunk[labels[chunk] == label]
            edge = {} if label < 0 else {"edgecolors": "#00000055"}
            axis.scatter(
                *points[rows].T, s=area, linewidths=0.4, **_style(int(label)), **edge
            )
    axis.grid(False)


def _apart(axis: Any, places: Sequence[np.ndarray]) -> list[tuple[float, float]]:
    """The places [2] of names, those moved down that would lie on an earlier one."""
    (left, right), (low, high) = axis.get_xlim(), axis.get_ylim()
    width, height = 0.14 * (right - left), 0.035 * (high - low)
    taken: list[tuple[float, float]] = []
    # From the top, so that what is moved down meets the next one, which then moves.
    order = sorted(range(len(places)), key=lambda i: -places[i][1])
    found = dict.fromkeys(order, (0.0, 0.0))
    for i in order:
        x, y = map(float, places[i])
        while any(abs(x - u) < width and abs(y - v) < 0.99 * height for u, v in taken):
            y -= height / 4
        taken.append((x, y))
        found[i] = (x, y)
    return [found[i] for i in range(len(places))]


def _write_name(axis: Any, x: float, y: float, name: str) -> None:
    from matplotlib.patheffects import withStroke

    axis.text(
        x,
        y,
        name,
        ha="center",
        va="center",
        fontsize=8,
        fontweight="bold",
        color="#111111",
        path_effects=[withStroke(linewidth=2.5, foreground="#ffffffcc")],
    )


def _limit(axis: Any, everything: np.ndarray) -> None:
    low, high = everything.min(axis=0), everything.max(axis=0)
    room = 0.04 * np.maximum(high - low, 1e-9)
    axis.set_xlim(low[0] - room[0], high[0] + room[0])
    axis.set_ylim(low[1] - room[1], high[1] + room[1])
