"""What a run writes down: metrics.csv, TensorBoard events, JSON summaries."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from yolojax.engine.events import Events
from yolojax.files import naming, read_file, replace_text

Row = dict[str, float]


def to_json(value: Any) -> Any:
    """The value in JSON's own types: arrays as lists, NaN and infinities as null.

    Raises:
        TypeError: a value that has no such form.
    """
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [to_json(item) for item in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "__array__"):
        return to_json(np.asarray(value).tolist())
    raise TypeError(f"cannot write a {type(value).__name__} as JSON: {value!r}")


def write_json(path: str | os.PathLike[str], value: Any) -> Path:
    """Writes the value as strict JSON in one step, and gives the path.

    NumPy and JAX values become numbers and lists; NaN and infinities, which JSON
    does not have, become null.
    """
    path = Path(path)
    text = json.dumps(to_json(value), indent=2, ensure_ascii=False, allow_nan=False)
    replace_text(path, text + "\n")
    return path


def read_metrics(path: str | os.PathLike[str]) -> list[Row]:
    """The rows of a metrics.csv, in order of their steps.

    Args:
        path: the file, or a run's folder. A file that is not there has no rows; a last
            line without its end, as a killed run may leave it, is left out.

    Returns:
        For each row its values by column; empty cells are left out. `step` is an int.

    Raises:
        ValueError: a whole line is damaged; names file and line.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "metrics.csv"
    if not path.exists():
        return []
    return _read(path)[1]


def _read(path: Path) -> tuple[list[str], list[Row]]:
    """Columns and rows of the file's whole lines."""
    text = read_file(path).decode("utf-8", "replace")
    if text and not text.strip("\0"):
        raise ValueError(f"{path} holds only zeros; move the file away")
    try:
        lines = list(csv.reader(text[: text.rfind("\n") + 1].splitlines()))
    except csv.Error as error:
        raise ValueError(f"{path}: {error}; move the file away") from error
    if not lines:
        return [], []
    columns, rows = lines[0], []
    if columns[:1] != ["step"]:
        raise ValueError(
            f"{path} line 1: expected a header that starts with 'step', "
            f"got {','.join(columns)[:80]!r}; move the file away"
        )
    for number, cells in enumerate(lines[1:], start=2):
        try:
            if len(cells) != len(columns):
                raise ValueError
            row = {
                column: float(cell)
                for column, cell in zip(columns, cells, strict=True)
                if cell
            }
            row["step"] = int(cells[0])
        except ValueError:
            raise ValueError(
                f"{path} line {number}: expected {len(columns)} numbers, "
                f"got {','.join(cells)[:80]!r}; mend or remove the line"
            ) from None
        if rows and row["step"] <= rows[-1]["step"]:
            raise ValueError(
                f"{path} line {number}: step {cells[0]} comes after step "
                f"{rows[-1]['step']:.0f}; mend or remove the line"
            )
        rows.append(row)
    return columns, rows


class RunLog:
    """The numbers of a run, one row a step, in a table and for TensorBoard.

    `metrics.csv` holds floats in full precision, so that a run that was killed and
    resumed leaves the same file as one that was not; values that depend on the clock
    belong under names that start with `time/`, which a comparison leaves out.

    Args:
        workdir: the run's folder; made where it is missing.
        start_step: the step that the run resumes from. Rows of later steps, written by
            a run that was killed, are removed, and TensorBoard drops its later events.
        columns: names known beforehand; others are added when they first come.
        tensorboard: also write events, into `workdir/events`.
        active: False where another process writes; then every call does nothing.

    Raises:
        ValueError: `metrics.csv` is there, but is not one of ours.
    """

    def __init__(
        self,
        workdir: str | os.PathLike[str],
        *,
        start_step: int = 0,
        columns: tuple[str, ...] = (),
        tensorboard: bool = True,
        active: bool = True,
    ):
        self.workdir = Path(workdir)
        self.path = self.workdir / "metrics.csv"
        self._active = active
        self._columns = ["step"]
        self._rows: list[Row] = []
        self._events = None
        if not active:
            return
        self.workdir.mkdir(parents=True, exist_ok=True)
        if self.path.exists():
            known, rows = _read(self.path)
            self._rows = [row for row in rows if row["step"] <= start_step]
            self._columns = known if self._rows else self._columns
        self._columns += [name for name in columns if name not in self._columns]
        self._rewrite()
        if tensorboard:
            self._events = Events(self.workdir / "events", purge_step=start_step + 1)

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Adds a row; it is in the file when this returns.

        A second call for the last step adds to its row. Values are scalars (also
        NumPy's and JAX's; reading a JAX value waits for the device).

        Raises:
            ValueError: a step before the last one, or a value that is not a scalar.
        """
        if not self._active:
            return
        step = int(step)
        row: Row = {"step": step}
        for name, value in values.items():
            if np.ndim(value) != 0:
                raise ValueError(
                    f"metric {name!r}: expected a scalar, got shape {np.shape(value)}"
                )
            row[name] = float(value)
        last = self._rows[-1]["step"] if self._rows else -math.inf
        if step < last:
            raise ValueError(
                f"metrics of step {step} come after those of step {last:.0f}"
            )
        fresh = [name for name in row if name not in self._columns]
        self._columns += fresh
        if step == last:
            self._rows[-1].update(row)
            self._rewrite()
        else:
            self._rows.append(row)
            if fresh:
                self._rewrite()
            else:
                with (
                    naming(self.path),
                    self.path.open("a", encoding="utf-8", newline="") as file,
                ):
                    file.write(self._line(row))
        if self._events is not None:
            for name, value in row.items():
                # TensorBoard draws no NaN; the table keeps them.
                if name != "step" and math.isfinite(value):
                    self._events.add_scalar(name, value, step)

    def write_image(self, step: int, name: str, image: np.ndarray) -> None:
        """Shows a uint8 RGB picture [h, w, 3] in TensorBoard."""
        if self._events is not None:
            self._events.add_image(name, image, step)

    def write_summary(self, values: Mapping[str, Any]) -> Path:
        """Writes the run's final values into summary.json, and gives its path."""
        path = self.workdir / "summary.json"
        return write_json(path, values) if self._active else path

    def flush(self) -> None:
        """Hands events that are still in memory to the file; call it with each save."""
        if self._events is not None:
            self._events.flush()

    def close(self) -> None:
        """Ends the events file; the table needs no end."""
        if self._events is not None:
            events, self._events = self._events, None
            events.close()

    def __enter__(self) -> RunLog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _line(self, row: Row) -> str:
        cells = [repr(row[name]) if name in row else "" for name in self._columns]
        return _csv_line(cells)

    def _rewrite(self) -> None:
        lines = [_csv_line(self._columns), *map(self._line, self._rows)]
        replace_text(self.path, "".join(lines))


def _csv_line(cells: list[str]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(cells)
    return line.getvalue()
