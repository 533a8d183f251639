"""Plots of a run and of a data set, as PNG files. Matplotlib is imported when used."""

from __future__ import annotations

import contextlib
import csv
import io
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from yolojax.files import replace_file
from yolojax.outputs import marked
from yolojax.vis.palette import class_colour
from yolojax.vis.text import class_title

Series = tuple[np.ndarray, np.ndarray]

STYLE: dict[Any, Any] = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "axes.labelcolor": "#444444",
    "axes.edgecolor": "#888888",
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.8,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "legend.fontsize": 8,
    "legend.frameon": False,
    "font.family": "DejaVu Sans",
    "figure.dpi": 110,
}
# What a classifier does right and wrong.
RIGHT, WRONG = "#0072b2", "#d55e00"
MAX_NAMED_CLASSES = 40
MAX_NAME_LENGTH = 24
# Places in the palette whose colours show on white, the first ones far apart.
LINE_COLOURS = (4, 5, 2, 6, 0, 1)


@contextlib.contextmanager
def open_figure(output: Path, rows: int, columns: int, size: tuple[float, float]):
    """A figure's axes, saved to `output` at the end; no window, nothing left open."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)
        yield figure, figure.subplots(rows, columns, squeeze=False)
        content = io.BytesIO()
        figure.savefig(content, format="png")
    replace_file(output, marked(content.getvalue()))


def smooth(values: np.ndarray, width: float) -> np.ndarray:
    """The values [n], each averaged with its neighbours by a Gaussian weight.

    Unlike a running average it does not lag behind. Values that are not finite are
    left out of the averages; where nothing finite is near, the result is NaN.

    Args:
        values: [n], evenly spaced.
        width: standard deviation, in places; 0 changes nothing.
    """
    values = np.asarray(values, np.float64)
    if width <= 0 or len(values) < 3:
        return values
    reach = min(math.ceil(3 * width), len(values) - 1)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / width) ** 2)
    finite = np.isfinite(values)
    # "same" would give the kernel's length where that is the longer one.
    middle = slice(reach, reach + len(values))
    total = np.convolve(np.where(finite, values, 0.0), kernel)[middle]
    weight = np.convolve(finite.astype(np.float64), kernel)[middle]
    return np.divide(total, weight, out=np.full_like(total, np.nan), where=weight > 0)


def read_series(path: str | os.PathLike[str]) -> dict[str, Series]:
    """Steps and values of each column of a metrics.csv, without empty cells.

    A last line without its end, and cells that are no numbers, are left out.

    Raises:
        ValueError: there is no such file, or it has no column `step`.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such file; a run writes it with its first log")
    text = path.read_text(encoding="utf-8", errors="replace")
    reader = csv.DictReader(text[: text.rfind("\n") + 1].splitlines())
    try:
        columns, rows = reader.fieldnames or (), list(reader)
    except csv.Error as error:
        raise ValueError(f"{path}: {error}") from error
    if "step" not in columns:
        raise ValueError(f"{path}: expected a column 'step' in its first line")
    points: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        for name, cell in row.items():
            if name != "step" and isinstance(cell, str) and cell:
                with contextlib.suppress(ValueError, TypeError):
                    point = (float(row["step"]), float(cell))
                    points.setdefault(name, []).append(point)
    return {
        name: (np.array(pairs)[:, 0], np.array(pairs)[:, 1])
        for name, pairs in points.items()
    }


def line_colour(index: int) -> str:
    """The colour of a panel's line, as `#rrggbb`; after some they come again."""
    return hex_colour(LINE_COLOURS[index % len(LINE_COLOURS)])


def hex_colour(label: int) -> str:
    """The colour of a class, as `#rrggbb`."""
    red, green, blue = class_colour(label)
    return f"#{red:02x}{green:02x}{blue:02x}"


def say_empty(axis: Any, text: str) -> None:
    """Write into a panel that there is nothing to draw."""
    axis.text(
        0.5,
        0.5,
        text,
        transform=axis.transAxes,
        ha="center",
        va="center",
        color="#999999",
    )
    axis.set_xticks([])
    axis.set_yticks([])
    axis.grid(False)


def plot_labels(
    boxes: np.ndarray,
    labels: np.ndarray,
    class_names: Sequence[str],
    output: str | os.PathLike[str],
) -> Path:
    """Draws what a data set holds, and gives the path of the PNG.

    Panels: boxes a class (by name up to 40 classes, above that all by rank and the
    most frequent ones named), where their centres lie, how large they are.

    Args:
        boxes: [n, 4], corners x1 y1 x2 y2 as shares of the picture's sides, in [0, 1].
        labels: [n], index into `class_names`.
        class_names: names by label.
        output: the PNG; its folder is made where it is missing.

    Raises:
        ValueError: the lengths disagree.
    """
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    labels = np.asarray(labels, np.int64).reshape(-1)
    if len(boxes) != len(labels):
        raise ValueError(
            f"plot_labels: the lengths disagree: {len(boxes)} boxes, "
            f"{len(labels)} labels"
        )
    counts = np.bincount(labels, minlength=len(class_names))
    output = Path(output)
    height = 4.6 if len(counts) <= 25 else 6.4
    with open_figure(output, 1, 3, (14, height)) as (figure, axes):
        counted, placed, sized = axes[0]
        plot_counts(counted, counts, class_names)
        centres = (boxes[:, :2] + boxes[:, 2:]) / 2
        sides = boxes[:, 2:] - boxes[:, :2]
        placed.set_title("Where the centres lie")
        placed.set_xlabel("x, share of the width")
        placed.set_ylabel("y, share of the height")
        _plot_density(figure, placed, centres)
        placed.invert_yaxis()
        sized.set_title("How large the boxes are")
        sized.set_xlabel("box width, share of the picture's")
        sized.set_ylabel("box height, share of the picture's")
        _plot_density(figure, sized, sides)
    return output


def plot_counts(
    axis: Any,
    counts: np.ndarray,
    class_names: Sequence[str],
    noun: tuple[str, str] = ("box", "boxes"),
) -> None:
    """Draws into a panel how often each class occurs, the most frequent ones by name.

    Args:
        axis: of the panel.
        counts: int [c].
        class_names: names by label.
        noun: what is counted, one and many.
    """
    one, many = noun
    total = int(counts.sum())
    missing = int((counts == 0).sum())
    title = f"{total:,} {many}, {len(counts)} classes"
    axis.set_title(title + (f" ({missing} without a {one})" if missing else ""))
    if not total:
        say_empty(axis, f"no {one}")
        return
    order = np.argsort(-counts, kind="stable")
    named = order[:MAX_NAMED_CLASSES]
    places = np.arange(len(named))
    colours = [hex_colour(int(label)) for label in named]
    axis.barh(places, counts[named], color=colours, height=0.8)
    name_rows(axis, [class_label(class_names, int(label)) for label in named])
    axis.set_xlabel(many)
    if len(named) <= 25:
        for place, label in zip(places, named, strict=True):
            axis.annotate(
                f"{counts[label]:,}",
                (counts[label], place),
                xytext=(3, 0),
                textcoords="offset points",
                va="center",
                fontsize=7,
                color="#444444",
            )
        axis.margins(x=0.12)
    if len(order) > len(named):
        rest = int(counts[order[len(named) :]].sum())
        axis.set_xlabel(f"{many}; {len(order) - len(named)} more classes have {rest:,}")


def plot_groups(
    axis: Any, groups: Mapping[str, np.ndarray], colours: Sequence[str]
) -> None:
    """Bars of several counts beside each other, a row a class."""
    thickness = 0.8 / len(groups)
    for number, (name, counts) in enumerate(groups.items()):
        places = np.arange(len(counts)) - 0.4 + (number + 0.5) * thickness
        axis.barh(places, counts, thickness, color=colours[number], label=name)


def name_rows(axis: Any, names: Sequence[str]) -> None:
    """Write names at the places 0, 1, ... of a panel's rows, the first one on top."""
    size = 8 if len(names) <= 25 else 7
    axis.set_yticks(np.arange(len(names)), names, fontsize=size)
    axis.set_ylim(len(names) - 0.4, -0.6)
    axis.grid(False, axis="y")


def _plot_density(figure: Any, axis: Any, points: np.ndarray) -> None:
    """How many of the points [n, 2] lie where in the unit square."""
    from matplotlib.colors import LinearSegmentedColormap, LogNorm

    axis.set_xlim(0, 1)
    axis.set_ylim(0, 1)
    axis.set_aspect("equal")
    points = points[np.isfinite(points).all(axis=1)].clip(0, 1)
    if not len(points):
        say_empty(axis, "no box")
        return
    bins = int(np.clip(math.sqrt(len(points)), 12, 60))
    density, edges_x, edges_y = np.histogram2d(
        points[:, 0], points[:, 1], bins=bins, range=[[0, 1], [0, 1]]
    )
    shown = np.ma.masked_equal(density.T, 0)
    norm = LogNorm(1, max(2.0, float(density.max())))
    # From a pale blue that still shows on white to the darkest one.
    shades = LinearSegmentedColormap.from_list(
        "counts", ["#cfe3f5", "#56b4e9", "#0072b2", "#0b1f4b"]
    )
    mesh = axis.pcolormesh(edges_x, edges_y, shown, cmap=shades, norm=norm)
    top = norm.vmax or 2.0
    round_numbers = [m * 10**e for e in range(9) for m in (1, 2, 5)]
    ticks = [number for number in round_numbers if number <= top]
    bar = figure.colorbar(mesh, cax=axis.inset_axes((1.02, 0, 0.035, 1)))
    bar.set_ticks(ticks, labels=[f"{number:,}" for number in ticks])
    bar.minorticks_off()
    bar.set_label("boxes", fontsize=8)
    bar.outline.set_visible(False)


def _has_glyph(character: str) -> bool:
    from matplotlib.font_manager import findfont, get_font

    font = get_font(findfont("DejaVu Sans"))
    return character.isprintable() and font.get_char_index(ord(character)) != 0


def class_label(
    class_names: Sequence[str], label: int, *, longest: int = MAX_NAME_LENGTH
) -> str:
    """A class's name for matplotlib.

    Long ones are cut, what the font lacks is left out, and no dollar sign is read as
    mathematics.
    """
    name = class_title(class_names, label, _has_glyph)
    short = name if len(name) <= longest else name[: longest - 2] + ".."
    return short.replace("$", r"\$")
