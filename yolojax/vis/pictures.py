"""Plots of a set of pictures to classify, as PNG files."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from yolojax.vis.plots import (
    MAX_NAMED_CLASSES,
    class_label,
    line_colour,
    name_rows,
    open_figure,
    plot_counts,
    plot_groups,
    say_empty,
)


class Pictures(NamedTuple):
    """What is known of a data set's pictures before they are read.

    Attributes:
        labels: int [m], all labels of all pictures.
        sizes: int [n, 2], height and width in pixels.
    """

    labels: np.ndarray
    sizes: np.ndarray


def plot_pictures(
    parts: Mapping[str, Pictures],
    class_names: Sequence[str],
    output: str | os.PathLike[str],
) -> Path:
    """Draws the classes and the sizes of a data set's pictures; gives the PNG's path.

    Panels: pictures a class in each part (of more than 40 classes those of the first
    part alone, by rank), widths and heights, and the ratio of both.

    Args:
        parts: by name, as train and val; the first one counts for the order.
        class_names: names by label.
        output: the PNG; its folder is made where it is missing.
    """
    output, count = Path(output), len(class_names)
    counts = {
        name: np.bincount(np.asarray(part.labels, np.int64), minlength=count)
        for name, part in parts.items()
    }
    height = float(np.clip(1.6 + 0.24 * count, 4.2, 8.5))
    with open_figure(output, 1, 3, (14, height)) as (_, axes):
        counted, sized, shaped = axes[0]
        first = next(iter(counts.values()))
        if count > MAX_NAMED_CLASSES or len(parts) == 1 or not first.sum():
            plot_counts(counted, first, class_names, ("picture", "pictures"))
        else:
            order = np.argsort(-first, kind="stable")
            groups = {
                f"{name} ({len(parts[name].sizes):,})": own[order]
                for name, own in counts.items()
            }
            counted.set_title(f"Pictures of {count} classes")
            plot_groups(counted, groups, [line_colour(i) for i in range(len(parts))])
            name_rows(counted, [class_label(class_names, int(i)) for i in order])
            counted.set_xlabel("pictures")
            counted.legend(loc="lower right", bbox_to_anchor=(1, 0.99), ncols=3)
        _plot_sizes(sized, parts)
        _plot_ratios(shaped, parts)
    return output


def _plot_sizes(axis: Any, parts: Mapping[str, Pictures]) -> None:
    axis.set_title("Sizes of the pictures")
    axis.set_xlabel("width in pixels")
    axis.set_ylabel("height in pixels")
    most = 0
    for number, (name, part) in enumerate(parts.items()):
        if not len(part.sizes):
            continue
        sizes, counts = np.unique(part.sizes, axis=0, return_counts=True)
        area = 12 + 500 * counts / counts.sum()
        colour = line_colour(number)
        axis.scatter(
            sizes[:, 1],
            sizes[:, 0],
            # A set with one size must not hide the other's.
            s=area * (1 if number == 0 else 0.5),
            color=colour,
            alpha=0.35,
            linewidths=0.8,
            edgecolors=colour,
            label=f"{name}: {len(sizes):,} size{'s' * (len(sizes) > 1)}",
        )
        most = max(most, int(sizes.max()))
    if not most:
        say_empty(axis, "no picture")
        return
    axis.set_xlim(0, 1.12 * most)
    axis.set_ylim(0, 1.12 * most)
    axis.set_aspect("equal")
    for handle in axis.legend(loc="upper left").legend_handles:
        handle.set_sizes([40])


def _plot_ratios(axis: Any, parts: Mapping[str, Pictures]) -> None:
    axis.set_title("Width over height")
    shares = [
        np.log2(part.sizes[:, 1] / part.sizes[:, 0])
        for part in parts.values()
        if len(part.sizes)
    ]
    if not shares:
        say_empty(axis, "no picture")
        return
    reach = max(1.0, *(float(np.abs(values).max()) for values in shares))
    edges = np.linspace(-reach, reach, 42)
    for number, ((name, part), values) in enumerate(
        zip(((n, p) for n, p in parts.items() if len(p.sizes)), shares, strict=True)
    ):
        axis.hist(
            values,
            edges,
            weights=np.full(len(values), 100 / len(part.sizes)),
            histtype="stepfilled" if number == 0 else "step",
            color=line_colour(number),
            alpha=0.4 if number == 0 else 1.0,
            linewidth=1.6,
            label=name,
        )
    whole = [k for k in range(-8, 9) if abs(k) <= reach]
    ticks = sorted({*whole, *(x for x in np.log2([3 / 4, 4 / 3]))})
    names = {0: "1:1", np.log2(4 / 3): "4:3", np.log2(3 / 4): "3:4"}
    for k in whole:
        names.setdefault(k, f"{2**k}:1" if k > 0 else f"1:{2**-k}")
    axis.set_xticks(ticks, [names[tick] for tick in ticks])
    axis.set_ylabel("% of the pictures")
    axis.legend(loc="upper left")
