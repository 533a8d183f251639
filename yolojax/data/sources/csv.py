"""Pictures with labels in a table: a line a picture, `path,label[,label2...]`."""

from __future__ import annotations

import collections
import csv
import os
import re
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from yolojax.data.report import Report
from yolojax.data.sources.base import PICTURE_SUFFIXES, SET_ROOT, describe
from yolojax.data.sources.folder import FOLDER_NAMES
from yolojax.data.sources.labelled import (
    ClassifiedPictures,
    check_classes,
    composed,
    in_order,
    readable,
    report_counts,
)
from yolojax.data.splits import check_split, stratified_split
from yolojax.files import FileError, read_text
from yolojax.lookup import hint

NO_LABEL = "-1"
# Headers of the column that names the pictures; otherwise it is the first one.
PATH_HEADERS = frozenset(
    "path file filename file_name image image_path image_id img id name picture".split()
)
# Headers of columns that hold labels; others, with 0 and 1 below, are the labels.
LABEL_HEADER = re.compile(r"(label|class|category|target|tag)(e?s|ies)?[ _]?\d*", re.I)
# Bytes of a table; a million lines.
LARGEST_TABLE = 2**26
# A line with its end, without copying the text.
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")
_SHOWN = 200  # characters of a cell in messages
# What a column of marks holds.
MARKS = frozenset(("0", "1", "0.0", "1.0"))


class _Row(NamedTuple):
    line: int
    name: str  # as the table has it
    labels: tuple[str, ...]
    split: str  # "" where the table does not say


class _Table(NamedTuple):
    rows: list[_Row]
    classes: tuple[str, ...]  # where the columns are the labels
    multi_label: bool


class CsvSource(ClassifiedPictures):
    """Pictures and labels of a table.

    Its first line may be a header. Labels stand in one column or in several (`label`,
    `label2`, ...), or each class has a column with 0 and 1 below its name. With more
    than one column, or a `separator`, pictures may have several labels. An empty label,
    or -1, is none. A column `split` says which pictures are for train, val and test;
    without it they are split by their labels, the rarest of each picture first.
    """

    def __init__(
        self,
        *,
        csv: str,
        root: str = "",
        split: str = "train",
        fractions: Sequence[float] = (0.8, 0.2),
        seed: int = 0,
        classes: Sequence[str] = (),
        classes_from: str = "",
        columns: Sequence[str] = (),
        separator: str = "",
        suffix: str = "",
    ) -> None:
        """Read the table and the pictures' sizes.

        Args:
            csv: the table, UTF-8; cells are parted by comma, semicolon or tab.
            root: folder that the paths start from; "" takes the table's own.
            split: `train`, `val` or `test`.
            fractions: shares of train, val and perhaps test, where the table does not
                say; (1,) takes the whole table for train.
            seed: of that split, see `splits.stratified_split`.
            classes: names in order; () takes those that the pictures of train have.
            classes_from: the table of train, where this is that of another split; then
                nothing is split.
            columns: headers of the columns with labels, where there are others.
            separator: what parts labels within a cell, such as " ".
            suffix: what the paths lack, such as ".jpg".

        Raises:
            ValueError: an argument that cannot be, a table that cannot be read, no
                picture.
        """
        check_split(split, fractions, seed)
        given = check_classes(classes)
        file = _find(csv)
        home = Path(root) if root else file.parent
        if not home.is_dir():
            raise ValueError(f"no folder {home}; {describe(home)}; {SET_ROOT}")
        report = Report()
        how = {"columns": columns, "separator": separator, "suffix": suffix}
        table = _read(file, home, report, **how)
        train = table
        if classes_from:
            train = _read(_find(classes_from), home, Report(), **how)
        of_train = [row for row in train.rows if row.split in ("", "train")]
        names = given or train.classes
        names = names or in_order(label for row in of_train for label in row.labels)
        said = any(row.split for row in table.rows)
        if said:
            rows = [row for row in table.rows if row.split == split]
        elif classes_from:
            rows = table.rows
        else:
            rows = _shares(table.rows, split, fractions, seed)
        training = not classes_from and (split == "train" or not said)
        by_name = {name: label for label, name in enumerate(names)}
        counted = rows if said or classes_from else table.rows
        counted = [[by_name[n] for n in r.labels if n in by_name] for r in counted]
        if any(counted):
            report_counts(counted, names, file, report, training=training)
        rows = _known(_existing(rows, home, suffix, file, report), names, file, report)
        super().__init__(
            **readable(
                [_path(home, row.name, suffix) for row in rows],
                [tuple(sorted({by_name[n] for n in row.labels})) for row in rows],
                report,
            ),
            class_names=names,
            report=report,
            multi_label=table.multi_label or train.multi_label,
        )


def _find(name: str) -> Path:
    file = Path(name)
    if not file.is_file():
        raise ValueError(f"no table at {file}; {describe(file)}; {SET_ROOT}")
    return file


def _path(home: Path, name: str, suffix: str) -> str:
    """Where a picture is; names are also read as other systems write them."""
    path = os.path.join(home, name + suffix)
    if os.path.exists(path):
        return path
    forward = name.replace("\\", "/")
    others = [forward, *(unicodedata.normalize(f, forward) for f in ("NFC", "NFD"))]
    found = (os.path.join(home, other + suffix) for other in others)
    return next(filter(os.path.exists, found), path)


def _cells(file: Path) -> Iterator[tuple[int, list[str]]]:
    """(line, cells) of each line, blank ones included."""
    try:
        text = read_text(file, limit=LARGEST_TABLE)
    except FileError as error:
        problem = f"{file} cannot be read as UTF-8 text: {error.reason}"
        raise ValueError(problem) from error
    lines = (match.group() for match in _LINE.finditer(text))
    first = next((line for line in lines if line.strip()), "")
    # Of marks that come equally often the comma.
    delimiter = max(",;\t", key=first.count)
    lines = (match.group() for match in _LINE.finditer(text))
    reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True)
    begin = 1
    try:
        for cells in reader:
            if any("\n" in cell or "\r" in cell for cell in cells):
                raise ValueError(
                    f"{file} line {begin}: a quote that opens here does not close in "
                    "the same line"
                )
            begin = reader.line_num + 1
            yield reader.line_num, [cell.strip() for cell in cells]
    except csv.Error as error:
        raise ValueError(f"{file} line {begin}: {error}") from error


def _read(
    file: Path,
    home: Path,
    report: Report,
    *,
    columns: Sequence[str],
    separator: str,
    suffix: str,
) -> _Table:
    """The rows that have as many cells as they should; the others are reported."""
    lines = list(_cells(file))
    filled = [(line, cells) for line, cells in lines if any(cells)]
    for line, cells in lines:
        if not any(cells):
            report.add("empty row", file, line, "expected path,label; left out")
    if not filled:
        raise ValueError(f"{file} is empty; expected lines of path,label")
    header = filled[0][1]
    if _is_data(header[0], home, suffix):
        header = []
    where = _columns(header, columns, file)
    body = filled[1:] if header else filled
    width = len(header) if header else max(len(cells) for _, cells in body)
    labels_at = where.labels if header else list(range(1, width))
    classes = _indicators(header, labels_at, body)
    rows, seen = [], {}
    for line, cells in body:
        if len(cells) > width:
            message = f"{len(cells)} cells, but the header has {width}; left out"
            report.add("row with too many cells", file, line, message)
            continue
        if classes and (wrong := _wrong_mark(header, labels_at, cells)):
            report.add("wrong mark", file, line, f"{wrong}; left out")
            continue
        cells = cells + [""] * (width - len(cells))
        name, found = cells[where.path], [cells[place] for place in labels_at]
        if not name:
            report.add(
                "row without a path",
                file,
                line,
                f"{','.join(cells)[:_SHOWN]!r}; left out",
            )
            continue
        if first := seen.get(name):
            message = f"{name[:_SHOWN]} stands in line {first} as well; left out"
            report.add("picture listed twice", file, line, message)
            continue
        seen[name] = line
        if classes:
            marks = zip(labels_at, found, strict=True)
            marked = (header[place] for place, mark in marks if float(mark or 0))
            labels = tuple(map(composed, marked))
        else:
            parts = [cell.split(separator) if separator else [cell] for cell in found]
            labels = tuple(composed(part.strip()) for own in parts for part in own)
        labels = tuple(label for label in labels if label not in ("", NO_LABEL))
        rows.append(_Row(line, name, labels, _split(cells, where, file, line)))
    several = bool(classes or separator or len(labels_at) > 1)
    return _Table(rows, classes, several)


class _Columns(NamedTuple):
    path: int
    labels: list[int]
    split: int | None


def _is_data(cell: str, home: Path, suffix: str) -> bool:
    """Whether the first cell is a picture, and thus no header."""
    known = os.path.splitext(cell)[1].lower() in PICTURE_SUFFIXES
    return known or os.path.isfile(_path(home, cell, suffix))


def _columns(header: Sequence[str], wanted: Sequence[str], file: Path) -> _Columns:
    """What stands in which column; without a header the path is the first."""
    if isinstance(wanted, str):
        wanted = (wanted,)
    for name in wanted:
        if name not in header:
            said = f"it has {', '.join(header)}" if header else "it has no header"
            raise ValueError(
                f"{file} has no column {name!r}.{hint(name, header)} Its header: {said}"
            )
    lower = [cell.lower() for cell in header]
    path = next((n for n, cell in enumerate(lower) if cell in PATH_HEADERS), 0)
    split = lower.index("split") if "split" in lower else None
    # A column without a name is the index that pandas writes.
    wanted = wanted or [cell for cell in header if LABEL_HEADER.fullmatch(cell)]
    wanted = wanted or [cell for cell in header if cell]
    places = [place for place, cell in enumerate(header) if cell in wanted]
    return _Columns(path, [n for n in places if n not in (path, split)], split)


def _indicators(
    header: Sequence[str],
    labels_at: Sequence[int],
    body: Sequence[tuple[int, list]],
) -> tuple[str, ...]:
    """The classes, where each has a column with mostly 0 and 1 below; else ()."""
    names = [header[place] for place in labels_at] if header else []
    if len(names) < 2 or any(LABEL_HEADER.fullmatch(name) for name in names):
        return ()
    found = [
        cells[place]
        for _, cells in body
        for place in labels_at
        if place < len(cells) and cells[place]
    ]
    others = [mark for mark in found if mark not in MARKS]
    few = len(others) < len(found) / 2
    return tuple(map(composed, names)) if few or not found else ()


def _wrong_mark(
    header: Sequence[str], labels_at: Sequence[int], cells: Sequence[str]
) -> str:
    """What is no 0 or 1 in a row of marks; empty where all are."""
    for place in labels_at:
        if place >= len(cells):
            return f"no cell for {header[place]}, expected 0 or 1"
        if cells[place] and cells[place] not in MARKS:
            return (
                f"expected 0 or 1 for {header[place]}; came {cells[place][:_SHOWN]!r}"
            )
    return ""


def _split(cells: Sequence[str], where: _Columns, file: Path, line: int) -> str:
    if where.split is None:
        return ""
    for split, aliases in FOLDER_NAMES.items():
        if cells[where.split].lower() in aliases:
            return split
    came = cells[where.split][:_SHOWN]
    raise ValueError(f"{file} line {line}: split {came!r}, expected train, val or test")


def _existing(
    rows: Sequence[_Row], home: Path, suffix: str, file: Path, report: Report
) -> list[_Row]:
    """The rows whose picture exists; the others are reported."""
    found = []
    for row in rows:
        if os.path.isfile(_path(home, row.name, suffix)):
            found.append(row)
        else:
            message = f"{row.name[:_SHOWN]}{suffix} does not exist in {home}; left out"
            report.add("missing picture", file, row.line, message)
    return found


def _known(
    rows: Sequence[_Row], names: Sequence[str], file: Path, report: Report
) -> list[_Row]:
    """The rows whose labels are all among the classes; the others are reported."""
    known, found = set(names), []
    for row in rows:
        unknown = [label for label in row.labels if label not in known]
        if not unknown:
            found.append(row)
            continue
        label = unknown[0][:_SHOWN]
        message = f"{row.name[:_SHOWN]} has the label {label!r}.{hint(label, names)} "
        message += f"Classes: {', '.join(names[:8])}{', ...' * (len(names) > 8)}; "
        report.add("unknown class", file, row.line, f"{message}left out")
    return found


def _shares(
    rows: Sequence[_Row], split: str, fractions: Sequence[float], seed: int
) -> list[_Row]:
    """The rows of a split, by the label of each picture that fewest others have."""
    counts = collections.Counter(label for row in rows for label in row.labels)
    chosen = stratified_split(
        [row.name for row in rows],
        [min(row.labels, key=lambda n: (counts[n], n), default=None) for row in rows],
        split=split,
        fractions=fractions,
        seed=seed,
    )
    return [rows[index] for index in chosen]
