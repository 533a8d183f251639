"""A classifier's confusion matrix as a picture, from 2 to 1000 classes and more."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from yolojax.vis.plots import (
    MAX_NAMED_CLASSES,
    RIGHT,
    WRONG,
    class_label,
    name_rows,
    open_figure,
    say_empty,
)

# Of a class without pictures.
UNKNOWN = "#e4e4e4"
# Up to so many classes the cells hold their counts.
_NUMBERED = 25
# Cells a side that can be told apart; of more classes several share one.
_CELLS = 200
_PAIRS = 30


def plot_confusion(
    confusion: np.ndarray, class_names: Sequence[str], output: str | os.PathLike[str]
) -> Path:
    """Draws what each class was taken for, and gives the path of the PNG.

    The shade goes by the share of the class's pictures: blue on the diagonal, vermilion
    beside it, grey for a class without pictures. Up to 25 classes cells hold counts,
    up to 40 classes have their names on both sides; above, the largest cells are
    listed beside. Of more than 200 classes neighbours share a cell, which has the
    largest of their shares (on the diagonal the mean).

    Args:
        confusion: int [c, c], counts by [label, prediction].
        class_names: names by label.
        output: the PNG; its folder is made where it is missing.
    """
    confusion = np.asarray(confusion, np.int64)
    count = len(confusion)
    listed = count > MAX_NAMED_CLASSES
    # Of a cell for a count, or for the names beside it.
    side = (
        9.0 if listed else 3.4 + (0.3 if count <= _NUMBERED else 0.22) * max(4, count)
    )
    size = (side + 7.0, side) if listed else (side + 1.2, side)
    output = Path(output)
    with open_figure(output, 1, 1 + listed, size) as (figure, axes):
        axis: Any = axes[0, 0]
        axis.set_title(f"{int(confusion.sum()):,} pictures by class and prediction")
        if not confusion.sum():
            say_empty(axis, "no picture with a label")
            return output
        pooled = -(-count // _CELLS)
        share = pool_shares(confusion, pooled)
        axis.imshow(_shaded(share), interpolation="nearest", aspect="equal")
        axis.set_xlabel("prediction")
        axis.set_ylabel("label")
        axis.grid(False)
        if listed:
            _tick_classes(axis, count, pooled)
            _plot_pairs(axes[0, 1], confusion, class_names)
            axis.get_subplotspec().get_gridspec().set_width_ratios((5, 3))
        else:
            names = [class_label(class_names, i, longest=18) for i in range(count)]
            font = 9 if count <= _NUMBERED else 7
            axis.set_yticks(range(count), names, fontsize=font)
            axis.set_xticks(
                range(count), names, fontsize=font, rotation=45, ha="right", va="top",
                rotation_mode="anchor",
            )  # fmt: skip
            if count <= _NUMBERED:
                _write_counts(axis, confusion, share)
        _add_shades(figure, axis, side)
    return output


def pool_shares(confusion: np.ndarray, pooled: int) -> np.ndarray:
    """Shares of each label's pictures, `pooled` neighbouring classes in one cell.

    Args:
        confusion: int [c, c].
        pooled: at least 1.

    Returns:
        float64 [k, k], k = c / pooled, rounded up: off the diagonal the largest share
        of a cell; on it the mean of the classes' own, in which no mistake among them
        shows. NaN where no label has pictures.
    """
    totals = confusion.sum(axis=1, keepdims=True)
    unknown = np.full(confusion.shape, math.nan)
    share = np.divide(confusion, totals, out=unknown, where=totals > 0)
    if pooled == 1:
        return share
    cells = -(-len(share) // pooled)
    right = np.diagonal(share)
    padded = np.full((cells * pooled, cells * pooled), math.nan)
    padded[: len(share), : len(share)] = share
    blocks = padded.reshape(cells, pooled, cells, pooled).swapaxes(1, 2)
    blocks = blocks.reshape(cells, cells, -1)
    # Also where all are NaN, of which np.nanmax would warn.
    largest = np.fmax.reduce(blocks, axis=-1)
    for cell in range(cells):
        own = right[cell * pooled : (cell + 1) * pooled]
        own = own[np.isfinite(own)]
        largest[cell, cell] = own.mean() if len(own) else math.nan
    return largest


def confused_pairs(confusion: np.ndarray, most: int) -> list[tuple[int, int, int]]:
    """The most frequent mistakes: (label, prediction, count), of equal counts in order.

    Args:
        confusion: int [c, c].
        most: how many at most; those that never happened are left out.
    """
    wrong = np.array(confusion, np.int64)
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    rows, columns = np.unravel_index(order, wrong.shape)
    return [
        (int(row), int(column), int(wrong[row, column]))
        for row, column in zip(rows, columns, strict=True)
        if wrong[row, column]
    ]


def _shaded(share: np.ndarray) -> np.ndarray:
    """RGB [c, c, 3] of shares; the root makes single mistakes visible."""
    from matplotlib.colors import to_rgb

    depth = np.sqrt(np.nan_to_num(share))[..., None]
    diagonal = np.eye(len(share), dtype=bool)[..., None]
    full = np.where(diagonal, to_rgb(RIGHT), to_rgb(WRONG))
    shaded = 1 - depth * (1 - full)
    return np.where(np.isnan(share)[..., None], to_rgb(UNKNOWN), shaded)


def _add_shades(figure: Any, axis: Any, side: float) -> None:
    """What the shades stand for, beside the panel of about `side` inches."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LinearSegmentedColormap, PowerNorm

    step = 0.22 / side
    ticks = [0, 0.01, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1]
    for number, (title, colour) in enumerate({"right": RIGHT, "wrong": WRONG}.items()):
        shades = LinearSegmentedColormap.from_list(title, ["#ffffff", colour])
        place = axis.inset_axes((1 + (0.5 + number) * step, 0.0, 0.6 * step, 1.0))
        bar = figure.colorbar(ScalarMappable(PowerNorm(0.5, 0, 1), shades), cax=place)
        bar.outline.set_edgecolor("#bbbbbb")
        bar.set_ticks(ticks, labels=[f"{t:.0%}" if number else "" for t in ticks])
        bar.minorticks_off()
        if not number:
            place.tick_params(length=0)
        place.set_xlabel(title, fontsize=7, rotation=90)
    bar.set_label("share of the label's pictures", fontsize=8)


def _write_counts(axis: Any, confusion: np.ndarray, share: np.ndarray) -> None:
    font = 10 if len(confusion) <= 12 else 7
    for (row, column), value in np.ndenumerate(confusion):
        if value:
            ink = "#ffffff" if share[row, column] > 0.4 else "#222222"
            axis.text(
                column, row, f"{value}", ha="center", va="center", fontsize=font,
                color=ink,
            )  # fmt: skip


def _tick_classes(axis: Any, count: int, pooled: int) -> None:
    """Labels at round places; cells hold `pooled` classes each."""
    step = next(s for s in (10, 20, 25, 50, 100, 200, 500, 10**9) if count / s <= 10)
    labels = np.arange(0, count, step)
    places = (labels + 0.5) / pooled - 0.5
    axis.set_xticks(places, labels)
    axis.set_yticks(places, labels)
    if pooled > 1:
        axis.set_ylabel(
            f"label; a cell is {pooled} x {pooled} classes, the largest share"
        )


def _plot_pairs(axis: Any, confusion: np.ndarray, class_names: Sequence[str]) -> None:
    axis.set_title("Most frequent mistakes: label \N{RIGHTWARDS ARROW} prediction")
    pairs = confused_pairs(confusion, _PAIRS)
    if not pairs:
        say_empty(axis, "no mistake")
        return
    axis.barh(range(len(pairs)), [n for *_, n in pairs], color=WRONG, height=0.75)
    names = [[class_label(class_names, i) for i in pair[:2]] for pair in pairs]
    name_rows(axis, [" \N{RIGHTWARDS ARROW} ".join(pair) for pair in names])
    axis.set_xlabel("pictures")
    axis.xaxis.get_major_locator().set_params(integer=True)
