"""Cross-validation: a run for each fold, and what all held-out pictures say together.

Every fold is an ordinary run in a directory of its own, `fold0` and so on, which can be
evaluated, used and gone on with like any other.
"""

from __future__ import annotations

import contextlib
import gc
import math
import os
import signal
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from yolojax import changes, datasets, inference, pooling, run_lock, training
from yolojax import settings as config
from yolojax.automatic import as_begun
from yolojax.engine.log import write_json
from yolojax.engine.progress import counter
from yolojax.json_files import read_json
from yolojax.metrics.detection import aligned, jsonable, shown_number
from yolojax.trees import flatten

# The part of an evaluation with a row a class.
PER_CLASS = "per_class"
# What is no measure: how it was evaluated.
CONDITIONS = ("evaluated", "threshold")


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
    config.check_folder(workdir)
    alone = jax.process_index() == 0
    with run_lock.held(workdir) if alone else contextlib.nullcontext():
        return _cross_validate(settings, workdir, count, kind)


def _cross_validate(
    settings: Mapping[str, Any], workdir: Path, count: int, kind: str
) -> int:
    """`cross_validate`, in a directory that is locked."""
    runs = [fold_directory(workdir, index) for index in range(count)]
    _check_place(workdir, runs[0])
    several = [fold_settings(settings, count, i, kind) for i in range(count)]
    for chosen, run in zip(several, runs, strict=True):
        config.check_config(chosen, run)
    with ending_on_sigterm():
        for index, (chosen, run) in enumerate(zip(several, runs, strict=True)):
            print(f"== fold {index} of {count}: {run} ==", flush=True)
            if code := run_fold(chosen, run):
                return code
        # What only one process does; the others are not needed for it.
        if jax.process_index() == 0:
            summarise(several, runs, workdir)
    return 0


def _check_place(workdir: Path, first: Path) -> None:
    """Check that what a cross-validation writes is not there from elsewhere.

    Raises:
        ValueError: it is.
    """
    if first.exists():
        return
    for name in ("crossval.json", *pooling.FILES):
        if (workdir / name).exists():
            raise ValueError(
                f"{workdir / name} would be replaced, but is from elsewhere: give "
                "another --workdir"
            )


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
    if not is_finished(settings, workdir):
        for name in pooling.FILES:
            # Of weights that may now change.
            (workdir / name).unlink(missing_ok=True)
        if code := training.train(settings, workdir):
            return code
        # The parts of a run refer to each other; the next needs the devices' memory.
        gc.collect()
    if any((workdir / name).exists() for name in pooling.FILES):
        print(f"{workdir} is finished")
        return 0
    with counter("pictures predicted") as progress:
        # Its own config may say where the data were before they were moved.
        loaded = inference.load(
            workdir, change=lambda chosen: chosen.update(data=settings["data"])
        )
        pooling.predict_held_out(loaded, workdir, progress)
    return 0


def is_finished(settings: Mapping[str, Any], workdir: Path) -> bool:
    """Whether the run has come to its end by just this config."""
    summary, begun_by = workdir / "summary.json", workdir / "config.json"
    if not summary.exists():
        return False
    # A run that goes on, as for more epochs, has written its config again.
    if summary.stat().st_mtime_ns < begun_by.stat().st_mtime_ns:
        return False
    begun = config.read_config(workdir)
    return changes.same_numbers(begun, as_begun(settings, begun))


@contextlib.contextmanager
def ending_on_sigterm() -> Iterator[None]:
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
    advice = "Remove summary.json of that fold, and give the command again."
    found = [read_json(run / "evaluation.json", advice=advice) for run in runs]
    numbers = spread([numbers_in(metrics) for metrics in found])
    print(f"\nmean and spread over {len(runs)} folds:")
    print(format_spread(numbers))
    print("\nall out-of-fold predictions together:")
    data = datasets.look_at_pictures(
        several[0], source, cache_path=runs[0] / "scan_train.json"
    )
    together, name = pooling.pool(data, runs, workdir)
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


def numbers_in(metrics: Mapping[str, Any]) -> dict[str, float]:
    """The measures of an evaluation by their path in it; counts are left out.

    Args:
        metrics: as in evaluation.json: measures are floats, or None where undefined.

    Returns:
        As `published/mAP50`; NaN where undefined.
    """
    of_data = {key: value for key, value in metrics.items() if key not in CONDITIONS}
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


def format_spread(numbers: Mapping[str, Mapping[str, Any]]) -> str:
    """The numbers of `spread` as text: a line each, then a line a class.

    Args:
        numbers: as `numbers_in` calls them; "-" is printed where one is undefined.
    """
    count = max((len(row["folds"]) for row in numbers.values()), default=0)
    rows = [["", "mean", "std", *(f"fold {index}" for index in range(count))]]
    classes: dict[str, dict[str, str]] = {}
    for name, row in numbers.items():
        values = [*map(shown_number, (row["mean"], row["std"], *row["folds"]))]
        if name.startswith(f"{PER_CLASS}/"):
            own, measure = name.rsplit("/", 1)
            classes.setdefault(own, {})[measure] = "{:>6}  {:>6}".format(*values)
        elif PER_CLASS not in name.split("/"):
            rows.append([name, *values])
    lines = aligned(rows, "<" + ">" * (len(rows[0]) - 1))
    measures = list(dict.fromkeys(m for row in classes.values() for m in row))
    rows = [["class", *(f"{measure} mean std" for measure in measures)]]
    for name, row in classes.items():
        cells = [row.get(measure, "") for measure in measures]
        rows.append([name.removeprefix(f"{PER_CLASS}/"), *cells])
    more = ["", *aligned(rows, "<" + ">" * len(measures))] if classes else []
    return "\n".join([*lines, *more])
