"""One training run in a working directory: start or go on, and leave its results."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from yolojax import datasets, experiment, inference
from yolojax import settings as config
from yolojax.data.decode import decode_image
from yolojax.datasets import Data
from yolojax.engine import checkpoint, evaluate, loop, timing
from yolojax.engine.log import RunLog, write_json
from yolojax.engine.progress import Progress, counter
from yolojax.experiment import Experiment
from yolojax.metrics.detection import GroundTruth, format_table, jsonable
from yolojax.vis import draw, plots
from yolojax.vis.cells import draw_cell

# Weights of mAP50 and mAP50-95 in what "best" means, as published for YOLOv5.
FITNESS = {"mAP50": 0.1, "mAP50_95": 0.9}

Evaluation = Callable[[Any], dict[str, Any]]


def fitness(metrics: Mapping[str, float]) -> float:
    """What decides which checkpoint is the best: 0.1 mAP50 + 0.9 mAP50-95."""
    return sum(weight * metrics[name] for name, weight in FITNESS.items())


def train(settings: Mapping[str, Any], workdir: Path) -> int:
    """Train as `settings` say, or go on where `workdir` stands.

    Args:
        settings: a complete config, see `settings.complete`.
        workdir: gets config.json, metrics.csv, events, checkpoints, plots,
            evaluation.json and summary.json.

    Returns:
        0 when the run has finished, 128 plus the signal's number when one stopped it.

    Raises:
        ValueError: anything wrong with config or data, before any compile; or too
            many steps in a row that were not finite.
    """
    began = time.monotonic()
    with counter("pictures looked at") as progress:
        run = experiment.build(settings, workdir=workdir, progress=progress)
    config.check_config(settings, workdir)
    describe(run)
    state = run.initial_state()
    checkpoints = checkpoint.Checkpoints(workdir, keep=settings["checkpoint"]["keep"])
    book = loop.Bookkeeping()
    restored = checkpoints.restore(state)
    if restored is not None:
        state, book = restored.state, loop.Bookkeeping(**restored.progress)
        if int(state.step) >= run.total_steps and (workdir / "summary.json").exists():
            checkpoints.close()
            print(f"{workdir} is finished; for more, raise config.epochs")
            return 0
        print(f"going on from step {int(state.step)} of {run.total_steps}", flush=True)
    feed = run.feed(state)
    # Only now: a config whose cache was refused must not stand in the way of the next.
    config.write_config(settings, workdir)
    source = run.train.source
    config.write_classes(source.class_names, source.category_ids, workdir)
    batches = feed.batches
    if restored is not None:
        batches.set_state(restored.data)
    if feed.note:
        print(feed.note, flush=True)
    with counter("pictures stored") as progress:
        feed.fill(progress)
    book_before = book.seconds
    start, writes = int(state.step), jax.process_index() == 0
    evaluation = make_evaluation(run)
    with (
        RunLog(
            workdir,
            start_step=start,
            tensorboard=settings["log"]["tensorboard"],
            active=writes,
        ) as log,
        Progress(
            total_steps=run.total_steps,
            steps_per_epoch=run.steps_per_epoch,
            start_step=start,
        ) as progress,
    ):
        if start == 0 and settings["log"]["pictures"] and writes:
            draw_labels(run.train, workdir)
        outcome = loop.fit(
            state,
            step=run.step_at,
            batches=batches,
            put=feed.put,
            evaluate=evaluation and (lambda state: _numbers(evaluation(state.ema))),
            fitness=fitness,
            checkpoints=checkpoints,
            log=log,
            progress=progress,
            plan=make_plan(run),
            book=book,
            advice=lambda filled: timing.advice(
                settings["data"]["cache"],
                num_threads=datasets.num_threads(settings),
                num_cores=os.cpu_count() or 1,
                filled=filled,
            ),
        )
        checkpoints.close()
        batches.close()
        if not outcome.finished:
            step = int(outcome.state.step)
            name = signal.Signals(outcome.signal).name
            print(f"stopped by {name} at step {step}; saved.")
            print("The same command goes on from there.")
            return 128 + outcome.signal
        minutes = (book_before + time.monotonic() - began) / 60
        finish(run, evaluation, workdir, outcome, log, minutes)
    return 0


def describe(run: Experiment) -> None:
    """Print what is trained on what, and what is wrong with the data."""
    leaves = jax.tree.leaves(run.model.shapes()["params"])
    parameters = sum(int(np.prod(leaf.shape)) for leaf in leaves)
    devices = run.mesh.devices
    print(
        f"{run.model.name}: {parameters:,} parameters, {run.model.num_classes} "
        f"classes, {run.image_size[0]}x{run.image_size[1]} px, "
        f"{run.settings['dtype']}, {devices.size} {devices.flat[0].platform} device(s)"
    )
    for note in run.start.notes:
        print(note)
    for part, data in (("train", run.train), ("val", run.val)):
        if data is None:
            continue
        boxes = sum(len(data.source[i].labels) for i in data.keep.tolist())
        print(f"{part}: {len(data.keep)} pictures, {boxes} boxes")
        if text := data.report.render():
            print(text)
    print(
        f"{run.steps_per_epoch} steps an epoch, {run.total_steps} in all; "
        f"up to {run.max_boxes} boxes a picture",
        flush=True,
    )


def make_plan(run: Experiment) -> loop.Plan:
    """When to log, evaluate and save, in steps."""
    chosen = run.settings["checkpoint"]
    return loop.Plan(
        total_steps=run.total_steps,
        steps_per_epoch=run.steps_per_epoch,
        log_every=run.settings["log"]["every_steps"],
        evaluate_every=run.settings["evaluate"]["every_epochs"] * run.steps_per_epoch,
        save_every=chosen["every_steps"]
        or chosen["every_epochs"] * run.steps_per_epoch,
        patience=run.settings["early_stopping"]["patience"],
    )


def make_evaluation(run: Experiment) -> Evaluation | None:
    """A function from variables to their COCO numbers on val; compiles once."""
    if run.val is None:
        return None
    predict = experiment.make_predict(run.settings, run.model, run.mesh)
    batches = datasets.make_eval_batches(
        run.settings, run.val, stride=run.model.max_stride
    )
    data = run.val
    truth = GroundTruth.from_source(data.source, data.keep)

    def evaluation(variables: Any) -> dict[str, Any]:
        metrics, _ = evaluate.evaluate(
            predict,
            variables,
            batches,
            data.source,
            data.keep,
            mesh=run.mesh,
            ground_truth=truth,
        )
        return metrics

    return evaluation


def _numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    return {k: v for k, v in metrics.items() if isinstance(v, float)}


def finish(
    run: Experiment,
    evaluation: Evaluation | None,
    workdir: Path,
    outcome: loop.Outcome,
    log: RunLog,
    minutes: float,
) -> None:
    """Evaluate the best weights, draw the pictures, write the summary."""
    final: dict[str, Any] = {}
    if run.val is not None and evaluation is not None:
        # Not of the last state but of the checkpoint that is handed on.
        loaded = inference.load(workdir)
        final = evaluation(loaded.variables)
        print(f"\nbest weights (step {loaded.step}) on val:")
        print(format_table(final, run.val.source.class_names))
        if jax.process_index() == 0:
            write_json(workdir / "evaluation.json", jsonable(final))
            count = run.settings["log"]["pictures"]
            draw_predictions(loaded, run.val, workdir, count)
    if jax.process_index() > 0:
        return
    plots.plot_curves(workdir / "metrics.csv", workdir / "plots" / "curves.png")
    log.write_summary(
        {
            "finished": True,
            "stopped_early": outcome.stopped_early,
            "steps": int(outcome.state.step),
            "best_step": outcome.book.best_step,
            "skipped_steps": int(outcome.state.skipped),
            "boxes_cut": outcome.book.boxes_cut,
            "minutes": minutes,
            "model": run.model.name,
            "seed": run.settings["seed"],
            **{k: v for k, v in final.items() if isinstance(v, int | float)},
        }
    )
    print(f"\nfinished in {minutes:.1f} minutes. Results in {workdir}:")
    print("  summary.json, metrics.csv, plots/curves.png")
    if run.val is not None:
        print("  evaluation.json")
        if run.settings["log"]["pictures"]:
            print("  plots/predictions.png: what the detector finds on val")
    if outcome.book.boxes_cut:
        print(
            f"{outcome.book.boxes_cut:.0f} boxes found no room after augmentation: "
            f"raise config.augment.max_boxes"
        )
    if run.settings["message"]:
        print(f"\n{run.settings['message'].format(workdir=workdir)}")


def draw_labels(data: Data, workdir: Path) -> None:
    """Draw how often each class occurs and how large its boxes are."""
    examples = [data.source[i] for i in data.keep.tolist()]
    shares = [
        e.boxes / np.tile(np.array(e.size[::-1], np.float32), 2) for e in examples
    ]
    plots.plot_labels(
        np.concatenate(shares),
        np.concatenate([e.labels for e in examples]),
        data.source.class_names,
        workdir / "plots" / "labels.png",
    )


def draw_predictions(
    loaded: inference.Loaded, data: Data, workdir: Path, count: int
) -> None:
    """Draw what `predict` would find on the first `count` pictures."""
    if not count:
        return
    predictor = inference.Predictor(
        loaded, score_threshold=0.25, iou_threshold=0.45, batch_size=min(count, 8)
    )
    pictures = [decode_image(data.source[i].image) for i in data.keep.tolist()[:count]]
    cells = [
        draw_cell(picture, boxes, labels, scores, loaded.class_names)
        for group in inference.grouped(pictures, predictor.batch_size)
        for picture, (boxes, labels, scores) in zip(
            group, predictor(group), strict=True
        )
    ]
    sheet = draw.contact_sheet(cells, 4)
    draw.save_image(workdir / "plots" / "predictions.png", sheet)
