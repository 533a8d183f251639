"""Cross-validation: a run for each fold, and what all held-out pictures say together.

Every fold is an ordinary run in a directory of its own, `fold0` and so on, which can be
evaluated, used and gone on with like any other.
"""

from __future__ import annotations

import contextlib
import csv
import gc
import io
import json
import math
import os
import signal
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from yolojax import datasets, folding, inference, training
from yolojax import settings as config
from yolojax.automatic import as_begun
from yolojax.data.sources.base import Source
from yolojax.engine import classify, evaluate
from yolojax.engine.log import write_json
from yolojax.engine.progress import counter
from yolojax.files import replace_text
from yolojax.metrics.classification import (
    class_metrics,
    format_classes,
    multi_label_metrics,
)
from yolojax.metrics.detection import (
    GroundTruth,
    aligned,
    format_table,
    jsonable,
    shown_number,
)
from yolojax.trees import flatten

# What a fold leaves: of a detector in the COCO results format, of a classifier a table.
DETECTIONS, PROBABILITIES = "predictions.json", "out_of_fold.csv"
# The columns before the probabilities.
COLUMNS = ("name", "label", "fold")
# The part of an evaluation with a row a class.
PER_CLASS = "per_class"


def cross_validate(
    settings: Mapping[str, Any], workdir: Path, *, count: int = 0, kind: str = ""
) -> int:
    """Train and evaluate fold by fold, or go on where that stands.

    Args:
        settings: a complete config; the index of its fold is not read.
        workdir: gets fold0, fold1, ..., the runs; crossval.json, mean and sample
            standard deviation of every number over the folds, and the numbers of all
            out-of-fold predictions together; and these predictions, predictions.json of
            a detector or out_of_fold.csv of a classifier.
        count: how many folds; 0: as `data.folds.count` says.
        kind: what they go by; empty: as `data.folds.kind` says.

    Returns:
        0 when all is done, 128 plus the signal's number when one stopped it.

    Raises:
        ValueError: anything wrong with config, data or folds, or with what is in
            `workdir`.
    """
    folds = settings["data"]["folds"]
    count, kind = count or folds["count"], kind or folds["kind"]
    if count < 2:
        raise ValueError("give --folds, at least 2, or config.data.folds.count")
    if (workdir / "config.json").exists():
        raise ValueError(f"{workdir} holds a run; give another --workdir")
    runs = [fold_directory(workdir, index) for index in range(count)]
    several = [fold_settings(settings, count, i, kind) for i in range(count)]
    for chosen, run in zip(several, runs, strict=True):
        config.check_config(_as_begun(chosen, run), run)
    with _ending_on_sigterm():
        for index, (chosen, run) in enumerate(zip(several, runs, strict=True)):
            print(f"== fold {index} of {count}: {run} ==", flush=True)
            if code := run_fold(chosen, run):
                return code
        # What only one process does; the others are not needed for it.
        if jax.process_index() == 0:
            summarise(several, runs, workdir)
    return 0


def fold_directory(workdir: Path, index: int) -> Path:
    """Where the run of a fold is."""
    return workdir / f"fold{index}"


def fold_settings(
    settings: Mapping[str, Any], count: int, index: int, kind: str
) -> dict[str, Any]:
    """The config of one fold."""
    folds = {**settings["data"]["folds"], "count": count, "index": index, "kind": kind}
    return {**settings, "data": {**settings["data"], "folds": folds}}


def run_fold(settings: Mapping[str, Any], workdir: Path) -> int:
    """Train one fold and predict what it held out; nothing that is there already.

    Returns:
        See `training.train`.
    """
    if not _is_finished(settings, workdir):
        for name in (DETECTIONS, PROBABILITIES):
            # Of weights that may now change.
            (workdir / name).unlink(missing_ok=True)
        if code := training.train(settings, workdir):
            return code
        # The parts of a run refer to each other; the next needs the devices' memory.
        gc.collect()
    if any((workdir / name).exists() for name in (DETECTIONS, PROBABILITIES)):
        print(f"{workdir} is finished")
        return 0
    loaded = inference.load(workdir)
    source, fold = folding.open_evaluated(loaded.settings)
    with counter("pictures predicted") as progress:
        if is_classified(source):
            write_probabilities(loaded, source, fold, workdir / PROBABILITIES)
        else:
            inference.evaluate_detector(loaded, workdir, progress)
    return 0


def is_classified(source: Source) -> bool:
    """Whether a source has classes of pictures, not boxes."""
    return hasattr(source, "multi_label")


def _is_finished(settings: Mapping[str, Any], workdir: Path) -> bool:
    """Whether the run has come to its end by just this config."""
    if not (workdir / "summary.json").exists():
        return False
    begun = config.from_json((workdir / "config.json").read_text())
    return _plain(as_begun(settings, begun)) == _plain(begun)


def _as_begun(settings: Mapping[str, Any], workdir: Path) -> dict[str, Any]:
    path = workdir / "config.json"
    if not path.is_file():
        return dict(settings)
    return as_begun(settings, config.from_json(path.read_text()))


def _plain(settings: Mapping[str, Any]) -> Any:
    return json.loads(json.dumps(settings))


@contextlib.contextmanager
def _ending_on_sigterm() -> Iterator[None]:
    """SIGTERM ends the process in order, with its usual code, also between the folds.

    In training the loop sees to it, and saves first; all other files are written in one
    step and made again where they are missing.
    """

    def end(number: int, _frame: object) -> None:
        # Not `print`: the signal may have come in the midst of one.
        os.write(2, b"\nstopped by SIGTERM; the same command goes on from there\n")
        sys.exit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def write_probabilities(
    loaded: inference.Loaded, source: Any, fold: folding.Fold | None, path: Path
) -> None:
    """Write what a classifier says of the pictures that its fold held out.

    Args:
        loaded: the classifier.
        source: that of the fold.
        fold: None: all pictures, of fold 0.
        path: gets a row a picture: name, label, fold, the probability of each class. Of
            a multi-label source the labels are joined by semicolons.
    """
    data = datasets.look_at_pictures(loaded.settings, source)
    data = folding.held_out_part(fold, data)
    batches = datasets.make_eval_batches(
        loaded.settings, data, stride=loaded.model.max_stride
    )
    step = classify.make_probability_step(
        loaded.model,  # pyright: ignore[reportArgumentType]
        loaded.mesh,
        multi_label=source.multi_label,
    )
    places, probabilities = classify.predict_all(
        step, loaded.variables, batches, mesh=loaded.mesh
    )
    if jax.process_index() > 0:
        return
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow([*COLUMNS, *source.class_names])
    for row in np.argsort(places, kind="stable").tolist():
        example = source[int(places[row])]
        label = ";".join(source.class_names[label] for label in example.labels)
        # Nine digits tell all float32 apart.
        numbers = [f"{value:.9g}" for value in probabilities[row].tolist()]
        table.writerow([example.name, label, fold.index if fold else 0, *numbers])
    replace_text(path, text.getvalue())


def summarise(
    several: Sequence[Mapping[str, Any]], runs: Sequence[Path], workdir: Path
) -> None:
    """Print and write the numbers over all folds, and their predictions in one file.

    Args:
        several: the config of each fold.
        runs: their directories.
        workdir: gets the files, see `cross_validate`.
    """
    source = datasets.open_source(several[0], "train")
    found = [json.loads((run / "evaluation.json").read_text()) for run in runs]
    names = source.class_names
    numbers = spread([numbers_in(metrics, names) for metrics in found])
    print(f"\nmean and spread over {len(runs)} folds:")
    print(format_spread(numbers, names))
    print("\nall out-of-fold predictions together:")
    data = datasets.look_at_pictures(
        several[0], source, cache_path=runs[0] / "scan_train.json"
    )
    pool = _pool_probabilities if is_classified(source) else _pool_detections
    together, name = pool(data, runs, workdir)
    write_json(
        workdir / "crossval.json",
        {
            "folds": several[0]["data"]["folds"] | {"index": None},
            "seed": several[0]["seed"],
            "runs": [run.name for run in runs],
            "metrics": numbers,
            "out_of_fold": jsonable(together),
        },
    )
    print(f"written: {workdir / 'crossval.json'}, {workdir / name}")


def numbers_in(
    metrics: Mapping[str, Any], class_names: Sequence[str]
) -> dict[str, float]:
    """The measures of an evaluation by their path in it; counts are left out.

    Args:
        metrics: as in evaluation.json: measures are floats, or None where undefined.
        class_names: by label, for measures of classes that stand in a list.

    Returns:
        As `published/mAP50`; NaN where undefined.
    """
    per_class = metrics.get(PER_CLASS)
    if isinstance(per_class, list):
        named = dict(zip(class_names, per_class, strict=True))
        metrics = {**metrics, PER_CLASS: named}
    of_data = {key: value for key, value in metrics.items() if key != "evaluated"}
    return {
        path: math.nan if value is None else value
        for path, value in flatten(of_data).items()
        if value is None or isinstance(value, float)
    }


def spread(folds: Sequence[Mapping[str, float]]) -> dict[str, dict[str, Any]]:
    """Mean and sample standard deviation of each number over the folds.

    Args:
        folds: the numbers of each.

    Returns:
        By name `mean`, `std` and `folds`, the numbers themselves, NaN where a fold has
        none. Mean and deviation are over the folds that have one; NaN without any, and
        the deviation of a single one.
    """
    names = list(dict.fromkeys(name for fold in folds for name in fold))
    found = {}
    for name in names:
        values = [fold.get(name, math.nan) for fold in folds]
        defined = [value for value in values if not math.isnan(value)]
        found[name] = {
            "mean": statistics.fmean(defined) if defined else math.nan,
            "std": statistics.stdev(defined) if len(defined) > 1 else math.nan,
            "folds": values,
        }
    return found


def format_spread(
    numbers: Mapping[str, Mapping[str, Any]], class_names: Sequence[str]
) -> str:
    """The numbers of `spread` as text: a line each, then a line a class.

    Args:
        numbers: as `numbers_in` calls them; "-" is printed where one is undefined.
        class_names: the classes to list.
    """
    count = max((len(row["folds"]) for row in numbers.values()), default=0)
    rows = [["", "mean", "std", *(f"fold {index}" for index in range(count))]]
    for name, row in numbers.items():
        if PER_CLASS not in name.split("/"):
            values = (row["mean"], row["std"], *row["folds"])
            rows.append([name, *map(shown_number, values)])
    lines = aligned(rows, "<" + ">" * (len(rows[0]) - 1))
    prefixes = [f"{PER_CLASS}/{name}/" for name in class_names]
    first = next(iter(prefixes), "")
    measures = [n.removeprefix(first) for n in numbers if first and n.startswith(first)]
    if not measures:
        return "\n".join(lines)
    rows = [["class", *(f"{measure} mean std" for measure in measures)]]
    for name, prefix in zip(class_names, prefixes, strict=True):
        cells = [numbers[prefix + measure] for measure in measures]
        pairs = [(shown_number(c["mean"]), shown_number(c["std"])) for c in cells]
        rows.append([name, *map("{0[0]:>6}  {0[1]:>6}".format, pairs)])
    return "\n".join([*lines, "", *aligned(rows, "<" + ">" * len(measures))])


def _pool_detections(
    data: datasets.Data, runs: Sequence[Path], workdir: Path
) -> tuple[dict[str, Any], str]:
    """The COCO numbers of all detections, which are written into one file."""
    truth = GroundTruth.from_source(data.source, data.keep)
    rows = [row for run in runs for row in json.loads((run / DETECTIONS).read_text())]
    place = {int(number): row for row, number in enumerate(truth.image_ids)}
    rows.sort(key=lambda row: place.get(row["image_id"], len(place)))
    metrics = evaluate.numbers_of(truth, rows)
    print(format_table(metrics, data.source.class_names))
    write_json(workdir / DETECTIONS, rows)
    return metrics, DETECTIONS


def _pool_probabilities(
    data: datasets.Data, runs: Sequence[Path], workdir: Path
) -> tuple[dict[str, Any], str]:
    """The numbers of all probabilities, which are written into one file."""
    names, label_sets = [], []
    for index in data.keep.tolist():
        example = data.source[index]
        names.append(example.name)
        label_sets.append(example.labels)
    tables = [_read_probabilities(run / PROBABILITIES) for run in runs]
    rows = {row[0]: row for _, table in tables for row in table}
    if sorted(rows) != sorted(names):
        raise ValueError(
            f"{workdir}: the folds hold {len(rows)} pictures, but config.data.train "
            f"has {len(names)}: have the data changed? Take a new --workdir"
        )
    ordered = [rows[name] for name in names]
    probabilities = np.array(
        [[float(value) for value in row[len(COLUMNS) :]] for row in ordered]
    )
    classes = len(data.source.class_names)
    if data.source.multi_label:
        targets = np.zeros((len(names), classes), bool)
        for row, labels in enumerate(label_sets):
            targets[row, labels] = True
        metrics = multi_label_metrics(probabilities, targets)
    else:
        single = [int(labels[0]) if len(labels) else -1 for labels in label_sets]
        metrics = class_metrics(probabilities, np.array(single))
    print(format_classes(metrics, data.source.class_names))
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([tables[0][0], *ordered])
    replace_text(workdir / PROBABILITIES, text.getvalue())
    return metrics, PROBABILITIES


def _read_probabilities(path: Path) -> tuple[list[str], list[list[str]]]:
    """The header and the rows of a table that `write_probabilities` wrote."""
    with path.open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    return header, rows
