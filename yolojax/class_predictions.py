"""What a classifier says of files: tables, a submission, and pictures to look at."""

from __future__ import annotations

import csv
import dataclasses
import io
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from yolojax import datasets, files, objectives
from yolojax.classifying import ClassPredictor
from yolojax.data import media
from yolojax.data.report import Report
from yolojax.decoding import decoding_of
from yolojax.inference import Loaded
from yolojax.records import Decoding
from yolojax.vis import draw

# Classes that get a column of their own; and the best so many of each picture.
MOST_COLUMNS, BEST = 100, 5
# Of a classifier of several labels, from which probability on a label is said.
LABEL_THRESHOLD = 0.5
# Up to so many pictures are drawn unasked; the sheets show so many.
FEW, SHEET = 20, 48
_CELL = (200, 200)
_BLANK = np.zeros((8, 8, 3), np.uint8)


class _Cell(NamedTuple):
    """A small picture of a sheet, and how sure its class is."""

    sureness: float
    place: int
    picture: np.ndarray
    caption: str


@dataclasses.dataclass(frozen=True)
class Classified:
    """What was found on some files.

    Attributes:
        items: the files that could be read.
        probabilities: float32 [n, c].
        lines: about each file that was written.
        report: what could not be read.
    """

    items: list[media.MediaItem]
    probabilities: np.ndarray
    lines: list[str]
    report: Report


def predict_pictures(
    predictor: ClassPredictor,
    loaded: Loaded,
    items: Sequence[media.MediaItem],
    output: Path,
    *,
    submission: bool = False,
    drawn: bool | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Classified:
    """Classify pictures, write the classes down and draw them.

    Args:
        predictor: gives the probabilities.
        loaded: gives the classes.
        items: the files; videos are left out and reported.
        output: gets predictions.csv, see `prediction_rows`; predictions.png, a sheet
            of the first pictures, and, where there are more, unsure.png, one of those
            whose class has the lowest probability; with `submission` submission.csv,
            see `submission_rows`.
        submission: whether to write it.
        drawn: whether to write each picture with its class below; None: where they
            are few.
        progress: `progress(done, total)` in files.

    Raises:
        ValueError: there are only videos.
    """
    report = Report()
    films = [item for item in items if item.kind == "video"]
    pictures = [item for item in items if item.kind != "video"]
    if not pictures:
        raise ValueError(
            f"{films[0].path} is a video: a classifier takes pictures"
            if films
            else "there is no picture"
        )
    for film in films:
        report.add("video", film.path, None, "a classifier takes pictures; left out")
    drawn = len(pictures) <= FEW if drawn is None else drawn
    several = objectives.is_multi_label(loaded.settings)
    read: list[media.MediaItem] = []
    parts: list[np.ndarray] = []
    shown: list[_Cell] = []
    unsure: list[_Cell] = []
    threads = datasets.num_threads(loaded.settings)
    start = 0
    decoding = decoding_of(loaded.settings)
    for group in _decoded(pictures, predictor.batch_size, threads, decoding, report):
        # An unreadable picture has its place in the batch, so that it changes no other.
        given = [_BLANK if picture is None else picture for _, picture in group]
        found = predictor(given, start)
        for place, ((item, picture), row) in enumerate(
            zip(group, found, strict=True), start
        ):
            if picture is None:
                continue
            read.append(item)
            parts.append(row[None])
            caption = _caption(row, loaded.class_names, several)
            sureness = float(np.max(row))
            if drawn:
                draw.save_image(
                    output / f"{item.output_name}.jpg", _labelled(picture, caption)
                )
            if len(shown) < SHEET or sureness < unsure[-1].sureness:
                small = draw.fit_into(picture, _CELL)
                cell = _Cell(sureness, place, small, f"{caption}  {item.path.name}")
                shown = [*shown, cell][:SHEET]
                unsure = sorted([*unsure, cell], key=lambda c: c[:2])[:SHEET]
        start += len(group)
        if progress is not None:
            progress(start, len(pictures))
    num_classes = len(loaded.class_names)
    probabilities = np.concatenate([np.zeros((0, num_classes), np.float32), *parts])
    lines = ["predictions.csv: the class of each file, and probabilities"]
    rows = prediction_rows(read, probabilities, loaded.class_names, several=several)
    _write_csv(output / "predictions.csv", rows)
    if submission:
        chosen = submission_rows(
            pictures, read, probabilities, loaded.class_names, several=several
        )
        _write_csv(output / "submission.csv", chosen)
        missing = len(pictures) - len(read)
        note = f"; {missing} unreadable, without a row" if missing else ""
        note += "; videos do not count" if films else ""
        _, rule = padded_ids(pictures)
        lines.append(f"submission.csv: {len(read)} rows of Id,Category; {rule}{note}")
    if shown:
        lines.append("predictions.png: the first pictures")
        _save_sheet(output / "predictions.png", shown)
    if len(read) > SHEET:
        lines.append("unsure.png: pictures whose class has the lowest probability")
        _save_sheet(output / "unsure.png", unsure)
    return Classified(read, probabilities, lines, report)


def file_names(
    items: Sequence[media.MediaItem], submission: bool, drawn: bool | None
) -> list[str]:
    """The files that `predict_pictures` may write."""
    pictures = [item for item in items if item.kind != "video"]
    names = ["predictions.csv", "predictions.png"]
    names += ["unsure.png"] * (len(pictures) > SHEET)
    names += ["submission.csv"] * submission
    if len(pictures) <= FEW if drawn is None else drawn:
        names += [f"{item.output_name}.jpg" for item in pictures]
    return names


def prediction_rows(
    items: Sequence[media.MediaItem],
    probabilities: np.ndarray,
    class_names: Sequence[str],
    *,
    several: bool,
) -> list[list[str]]:
    """The header and rows of predictions.csv.

    A row has `file`, `class`, `probability`, then those of the next classes as
    `class_2`, `probability_2` up to the fifth, and the probability of each class, as
    long as there are at most 100, as `p(name)`. Where a picture has several labels,
    `classes` stands before `class_1`, `probability_1` and so on: those whose
    probability is at least .5, joined by `;`.

    Args:
        items: the files.
        probabilities: [n, c].
        class_names: names by label.
        several: whether a picture has several labels.
    """
    best = min(BEST, len(class_names))
    header = ["file", "classes"] if several else ["file"]
    for place in range(1, best + 1):
        end = f"_{place}" if several or place > 1 else ""
        header += [f"class{end}", f"probability{end}"]
    columns = len(class_names) <= MOST_COLUMNS
    if columns:
        header += [f"p({name})" for name in class_names]
    rows = [header]
    for item, row in zip(items, probabilities, strict=True):
        order = np.argsort(-row, kind="stable")[:best]
        cells = [str(item.path)]
        if several:
            cells.append(_answer(row, class_names, several, ";"))
        for label in order.tolist():
            cells += [class_names[label], f"{row[label]:.6f}"]
        rows.append(cells + [f"{value:.6f}" for value in row if columns])
    return rows


def submission_rows(
    items: Sequence[media.MediaItem],
    read: Sequence[media.MediaItem],
    probabilities: np.ndarray,
    class_names: Sequence[str],
    *,
    several: bool,
) -> list[list[str]]:
    """The header and rows of submission.csv: `Id,Category`, in the order of the files.

    Args:
        items: all files, whose names or places are the ids; see `padded_ids`.
        read: those that could be read, in the same order.
        probabilities: [n, c], theirs.
        class_names: what `Category` is, by label; several labels are joined by spaces.
        several: see `prediction_rows`.
    """
    ids, _ = padded_ids(items)
    id_of = dict(zip((item.path for item in items), ids, strict=True))
    return [["Id", "Category"]] + [
        [id_of[item.path], _answer(row, class_names, several, " ")]
        for item, row in zip(read, probabilities, strict=True)
    ]


def padded_ids(items: Sequence[media.MediaItem]) -> tuple[list[str], str]:
    """An id for each file, and what it is, in words.

    Zeros stand before a number, up to the width of the widest.

    The number at the end of a file's name, as 17 of `17.jpg`, `0017.png` and
    `-1_017.jpg`, where each file has one and no two the same; otherwise its place in
    the list, from 1. Zeros that stand in the names count for the width.
    """
    found = [re.search(r"\d+$", item.path.stem, re.ASCII) for item in items]
    digits = [match[0] for match in found if match]
    numbers = {int(text) for text in digits}
    rule = "an Id is the number that a file's name ends with"
    if len(numbers) < len(items):
        why = (
            "two names end with one number"
            if len(digits) == len(items)
            else ("not all names end with a number")
        )
        rule = f"an Id is a file's place from 1, since {why}"
        digits = [str(place) for place in range(1, len(items) + 1)]
    width = max(map(len, digits), default=0)
    return [text.zfill(width) for text in digits], rule


def _answer(
    row: np.ndarray, class_names: Sequence[str], several: bool, between: str
) -> str:
    """The class, or the classes that are said."""
    if not several:
        return class_names[int(np.argmax(row))]
    said = np.flatnonzero(row >= LABEL_THRESHOLD).tolist()
    return between.join(class_names[label] for label in said)


def _caption(row: np.ndarray, class_names: Sequence[str], several: bool) -> str:
    answer = _answer(row, class_names, several, ", ") or "-"
    return f"{answer} {np.max(row):.2f}"


def _decoded(
    items: Sequence[media.MediaItem],
    size: int,
    num_threads: int,
    decoding: Decoding,
    report: Report,
) -> Iterator[list[tuple[media.MediaItem, np.ndarray | None]]]:
    """Groups of files with their pictures, decoded by threads; None: unreadable."""

    def read(item: media.MediaItem) -> tuple[np.ndarray | None, Report]:
        own = Report()
        decoded = media.decode_item(item, own, decoding)
        return None if decoded is None else decoded.pixels, own

    with ThreadPoolExecutor(num_threads) as pool:
        for start in range(0, len(items), size):
            part = items[start : start + size]
            decoded = list(pool.map(read, part))
            for _, own in decoded:
                report.merge(own)
            pictures = [picture for picture, _ in decoded]
            yield list(zip(part, pictures, strict=True))


def _labelled(picture: np.ndarray, caption: str) -> np.ndarray:
    """The picture with a line below, and large enough for it."""
    height, width = picture.shape[:2]
    scale = max(1.0, 320 / width)
    cell = (round(height * scale), round(width * scale))
    return draw.contact_sheet([picture], 1, cell_size=cell, captions=[caption])


def _save_sheet(path: Path, cells: Sequence[_Cell]) -> None:
    sheet = draw.contact_sheet(
        [cell.picture for cell in cells],
        8,
        cell_size=_CELL,
        captions=[cell.caption for cell in cells],
    )
    draw.save_image(path, sheet)


def _write_csv(path: Path, rows: Sequence[Sequence[str]]) -> None:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    files.replace_text(path, text.getvalue())
