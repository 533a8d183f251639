"""What the folds of a cross-validation predict on pictures that they did not train on.

Of a detector in the COCO results format; of a classifier a table with a row a picture:
name, label, fold, and the probability of each class.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from yolojax import class_report, evaluating, inference
from yolojax.datasets import Data
from yolojax.engine import evaluate
from yolojax.engine.log import write_json
from yolojax.files import as_written, replace_text
from yolojax.inference import Loaded
from yolojax.json_files import read_json
from yolojax.metrics.detection import GroundTruth
from yolojax.models.classifier import Classifier

DETECTIONS, PROBABILITIES = FILES = ("predictions.json", "out_of_fold.csv")
# What to do where one of them is damaged.
_AGAIN = "Remove it and give the command again, which predicts anew."
# The columns before the probabilities.
COLUMNS = ("name", "label", "fold")


def predict_held_out(
    loaded: Loaded, workdir: Path, progress: Callable[[int, int], None]
) -> None:
    """Write what a fold's network says of the pictures that the fold held out.

    Args:
        loaded: the network, with the config of its fold.
        workdir: gets one of `FILES`.
        progress: `progress(done, total)` in pictures.
    """
    if not isinstance(loaded.model, Classifier):
        inference.evaluate_detector(loaded, workdir, progress)
        return
    _, data = inference.labelled_data(loaded)
    predict = evaluating.make_probabilities(
        loaded.settings, loaded.model, loaded.mesh, data, progress
    )
    probabilities = predict(loaded.variables)
    if jax.process_index() > 0:
        return
    source, fold = data.source, loaded.settings["data"]["folds"]["index"]
    rows = [[*COLUMNS, *source.class_names]]
    for index, own in zip(data.keep.tolist(), probabilities.tolist(), strict=True):
        example = source[index]
        label = ";".join(source.class_names[label] for label in example.labels)
        # Nine digits tell all float32 apart.
        numbers = [f"{value:.9g}" for value in own]
        rows.append([example.name, label, str(fold), *numbers])
    _write_table(workdir / PROBABILITIES, rows)


def pool(data: Data, runs: Sequence[Path], workdir: Path) -> tuple[dict[str, Any], str]:
    """Put the predictions of all folds into one file, and print their numbers.

    Args:
        data: the pictures of all folds.
        runs: the directory of each fold.
        workdir: gets one of `FILES`.

    Returns:
        The numbers, and the file's name.

    Raises:
        ValueError: the folds have predicted other pictures than these.
    """
    if (runs[0] / PROBABILITIES).exists():
        return _pool_probabilities(data, runs, workdir)
    truth = GroundTruth.from_source(data.source, data.keep)
    rows = [row for run in runs for row in _detections(run / DETECTIONS)]
    place = {number: row for row, number in enumerate(truth.image_ids)}
    # Stable: within a picture the best stay first.
    rows.sort(key=lambda row: place.get(row["image_id"], len(place)))
    metrics = evaluate.numbers_of(truth, rows)
    print(evaluating.format_numbers(metrics, data.source.class_names))
    write_json(workdir / DETECTIONS, rows)
    return metrics, DETECTIONS


def _pool_probabilities(
    data: Data, runs: Sequence[Path], workdir: Path
) -> tuple[dict[str, Any], str]:
    tables = [_read_table(run / PROBABILITIES) for run in runs]
    rows = {row[0]: row for table in tables for row in table[1:]}
    names = [as_written(data.source[index].name) for index in data.keep.tolist()]
    if sorted(rows) != sorted(names):
        raise ValueError(
            f"{workdir}: the folds hold {len(rows)} pictures, but config.data.train "
            f"has {len(names)}: have the data changed? Take a new --workdir"
        )
    ordered = [rows[name] for name in names]
    probabilities = np.array(
        [[float(value) for value in row[len(COLUMNS) :]] for row in ordered]
    )
    metrics = class_report.report_numbers(probabilities, data.source, data.keep)
    print(evaluating.format_numbers(metrics, data.source.class_names))
    _write_table(workdir / PROBABILITIES, [tables[0][0], *ordered])
    return metrics, PROBABILITIES


def _write_table(path: Path, rows: Iterable[Sequence[str]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    replace_text(path, text.getvalue())


def _read_table(path: Path) -> list[list[str]]:
    """The header and the rows.

    Raises:
        ValueError: the file is damaged.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.reader(file))
        header = rows[0] if rows else []
        if header[: len(COLUMNS)] != list(COLUMNS):
            raise ValueError("its first line is not ours")
        for number, row in enumerate(rows[1:], start=2):
            if len(row) != len(header):
                raise ValueError(f"line {number} has {len(row)} cells")
            _ = [float(cell) for cell in row[len(COLUMNS) :]]
    except (ValueError, csv.Error) as error:
        raise ValueError(f"{path} cannot be read: {error}. {_AGAIN}") from error
    return rows


def _detections(path: Path) -> list[dict[str, Any]]:
    """Detections of a fold.

    Raises:
        ValueError: the file is damaged.
    """
    rows = read_json(path, list, advice=_AGAIN, limit=None, most_values=10**9)
    keys = {"image_id", "category_id", "bbox", "score"}
    for number, row in enumerate(rows):
        is_one = isinstance(row, dict) and keys <= row.keys()
        if not is_one or not isinstance(row["image_id"], int | str):
            raise ValueError(f"{path}: entry {number} is no detection. {_AGAIN}")
    return rows
