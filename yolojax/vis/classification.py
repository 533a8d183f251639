"""Plots of how well a classifier does, as PNG files. Matplotlib is imported when used.

Right is blue and wrong is vermilion throughout, which colour-blind readers tell apart.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from yolojax.metrics.classification import reliability
from yolojax.vis.plots import (
    MAX_NAMED_CLASSES,
    RIGHT,
    WRONG,
    class_label,
    hex_colour,
    line_colour,
    name_rows,
    open_figure,
    plot_groups,
    say_empty,
)

# The interval that holds a share in 19 of 20 cases, in standard deviations.
_SIGMAS = 1.96


def plot_reliability(
    confidence: np.ndarray, right: np.ndarray, output: str | os.PathLike[str]
) -> Path:
    """Draws how often a classifier is right by how sure it is; gives the PNG's path.

    Left the share that is right in each bin of confidence, with the interval that holds
    it in 19 of 20 cases, against the diagonal on which a calibrated classifier lies.
    Right how many predictions each bin has.

    Args:
        confidence: [n], in [0, 1], of each prediction.
        right: bool [n].
        output: the PNG; its folder is made where it is missing.

    Source: Guo et al. 2017, arXiv:1706.04599, figure 1.
    """
    found, output = reliability(confidence, right), Path(output)
    with open_figure(output, 1, 2, (11, 4.8)) as (_, axes):
        shares, amounts = axes[0]
        for axis in (shares, amounts):
            axis.set_xlabel("confidence")
            axis.set_xlim(0, 1)
        if not len(right):
            say_empty(shares, "no picture with a label")
            say_empty(amounts, "no picture with a label")
            return output
        shares.set_title(f"Expected calibration error {found.expected_error:.3f}")
        amounts.set_title(f"{len(right):,} predictions, {right.mean():.1%} right")
        width = 1 / len(found.counts)
        some = found.counts > 0
        centres = (np.arange(len(found.counts))[some] + 0.5) * width
        counts, share = found.counts[some], found.accuracy[some]
        shares.plot([0, 1], [0, 1], "--", color="#888888", linewidth=1)
        shares.bar(centres, share, 0.92 * width, color=RIGHT, label="share right")
        shares.vlines(centres, *wilson_interval(share, counts), "#222222", linewidth=1)
        shares.plot(
            centres,
            found.confidence[some],
            "_",
            color=WRONG,
            markersize=12,
            markeredgewidth=2.2,
            label="mean confidence",
        )
        shares.set_ylim(0, 1)
        good = np.rint(counts * share)
        amounts.bar(centres, good, 0.92 * width, color=RIGHT, label="right")
        amounts.bar(
            centres, counts - good, 0.92 * width, good, color=WRONG, label="wrong"
        )
        amounts.set_ylim(0, 1.08 * counts.max())
        mean = float(confidence.mean())
        label = f"mean confidence {mean:.1%}"
        amounts.axvline(mean, color="#222222", linestyle=(0, (3, 2)), label=label)
        shares.legend(loc="upper left")
        amounts.legend(loc="best")
    return output


def wilson_interval(
    share: np.ndarray, counts: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Where the true share lies in 19 of 20 cases, of a share [m] of `counts` [m].

    Source: Wilson 1927, "Probable inference, the law of succession, and statistical
    inference".
    """
    square = _SIGMAS**2 / counts
    middle = (share + square / 2) / (1 + square)
    reach = np.sqrt(square * (share * (1 - share) + square / 4)) / (1 + square)
    return middle - reach, middle + reach


def plot_classes(
    metrics: Mapping[str, Any],
    predicted: np.ndarray,
    class_names: Sequence[str],
    output: str | os.PathLike[str],
) -> Path:
    """Draws how often each class is predicted, and how well; gives the PNG's path.

    Of more than 40 classes those with the lowest F1 are shown.

    Args:
        metrics: from `class_metrics` or `multi_label_metrics`.
        predicted: int [c], how many pictures are said to be of each class; also those
            without a label.
        class_names: names by label.
        output: the PNG; its folder is made where it is missing.
    """
    per_class = metrics["per_class"]
    labelled = np.asarray([row["support"] for row in per_class])
    quality = np.asarray([row["f1"] for row in per_class])
    shown = np.arange(len(per_class))
    if len(shown) > MAX_NAMED_CLASSES:
        worst = np.argsort(np.where(np.isnan(quality), 2, quality), kind="stable")
        shown = worst[:MAX_NAMED_CLASSES]
    output = Path(output)
    height = 1.8 + 0.26 * max(4, len(shown))
    with open_figure(output, 1, 2, (12, height)) as (_, axes):
        counted, judged = axes[0]
        counted.set_title("Pictures of each class")
        groups = {"labelled": labelled[shown], "predicted": predicted[shown]}
        plot_groups(counted, groups, ("#999999", line_colour(2)))
        names = [class_label(class_names, int(label)) for label in shown]
        name_rows(counted, names)
        counted.set_xlabel("pictures")
        judged.set_title("How well it is found")
        if len(shown) < len(per_class):
            counted.set_ylabel(
                f"the {len(shown)} of {len(per_class)} classes with the lowest F1"
            )
        places = np.arange(len(shown))
        for name, marker, colour in (
            ("precision", "<", hex_colour(0)),
            ("recall", ">", hex_colour(2)),
            ("f1", "o", RIGHT),
        ):
            values = [per_class[label][name] for label in shown]
            label = name.replace("f1", "F1")
            judged.plot(
                values, places, marker, color=colour, label=label, clip_on=False
            )
        name_rows(judged, names)
        judged.grid(True, axis="y")
        judged.set_xlim(0, 1)
        for axis in (counted, judged):
            axis.legend(loc="lower right", bbox_to_anchor=(1, 0.99), ncols=3)
    return output
