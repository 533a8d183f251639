"""Sheets of pictures that a classifier takes for something else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from yolojax.vis import text as text_of
from yolojax.vis.cells import draw_cell
from yolojax.vis.draw import INK, PAPER, contact_sheet, fit_into

# Width and height of a picture on a sheet, in pixels.
CELL = (200, 200)
COLUMNS = 6
_GAP = 6


class Shown(NamedTuple):
    """A picture on a sheet.

    Attributes:
        image: uint8 RGB [h, w, 3].
        predicted: the class that it is drawn as.
        score: its probability.
        caption: what stands below.
    """

    image: np.ndarray
    predicted: int
    score: float
    caption: str


def draw_verdict(shown: Shown, class_names: Sequence[str]) -> np.ndarray:
    """The picture with the predicted class, in its colour, fitted into a cell."""
    small = fit_into(shown.image, CELL)
    height, width = small.shape[:2]
    box = np.array([[0, 0, width, height]], np.float64)
    label, score = np.array([shown.predicted]), np.array([shown.score])
    return draw_cell(small, box, label, score, class_names, at_least=1)


def sheet_of(
    pictures: Sequence[Shown], class_names: Sequence[str], *, columns: int = COLUMNS
) -> np.ndarray:
    """The pictures in rows, each with its prediction and caption: uint8 [h, w, 3].

    Args:
        pictures: at least one.
        class_names: names by label.
        columns: cells in a row.
    """
    cells = [draw_verdict(shown, class_names) for shown in pictures]
    captions = [shown.caption for shown in pictures]
    return contact_sheet(cells, columns, cell_size=CELL, captions=captions, gap=_GAP)


def titled_rows(
    rows: Sequence[tuple[str, Sequence[Shown]]], class_names: Sequence[str]
) -> np.ndarray:
    """Rows of pictures, each below its title: uint8 [h, w, 3].

    Args:
        rows: at least one; each has at least one picture. More than `COLUMNS` of them
            do not fit and are left out.
        class_names: names by label.
    """
    width = COLUMNS * (CELL[1] + _GAP) + _GAP
    scale = text_of.scale_for_height(13.0)
    _, above, below = text_of.measure("Ag0", scale)
    strips = []
    for title, pictures in rows:
        strip = np.full((above + below + 12, width, 3), PAPER, np.uint8)
        line = text_of.shorten(
            text_of.drawable_name(title, 0),
            lambda candidate: text_of.measure(candidate, scale)[0] <= width - 2 * _GAP,
        )
        base = strip.shape[0] - below - 2
        text_of.put_text(strip, line, _GAP, base, scale, INK)
        sheet = sheet_of(pictures[:COLUMNS], class_names)
        rest = np.full((sheet.shape[0], width - sheet.shape[1], 3), PAPER, np.uint8)
        strips += [strip, np.concatenate([sheet, rest], axis=1)]
    return np.concatenate(strips)
