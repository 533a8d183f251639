"""One training run in a working directory: start or go on, and leave its results."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from yolojax import (
    averaging,
    control,
    datasets,
    evaluating,
    experiment,
    results,
    resuming,
    run_lock,
    unlabelled,
)
from yolojax import settings as config
from yolojax.class_file import write_classes
from yolojax.data import identity
from yolojax.engine import (
    checkpoint,
    evaluate,
    loop,
    stages,
    timing,
)
from yolojax.engine.book import Bookkeeping
from yolojax.engine.log import RunLog
from yolojax.engine.pictures import PictureLosses
from yolojax.engine.progress import Progress, counter
from yolojax.evaluating import Evaluation
from yolojax.experiment import Experiment
from yolojax.objectives import noun_of
from yolojax.records import TrainState


def train(settings: Mapping[str, Any], workdir: Path) -> int:
    """Train as `settings` say, or go on where `workdir` stands.

    Args:
        settings: a complete config, see `settings.complete`.
        workdir: gets config.json, metrics.csv, events, checkpoints, plots,
            evaluation.json and summary.json.

    Returns:
        0 when the run has finished, 128 plus the signal's number when one stopped it.

    Raises:
        ValueError: anything wrong with config or data, before any compile; another
            process works in `workdir`; or too many steps in a row that were not finite.
    """
    config.check_folder(workdir)
    # The others of a run over several processes only read what this one writes.
    alone = jax.process_index() == 0
    with run_lock.held(workdir) if alone else contextlib.nullcontext():
        return _train(settings, workdir)


def _train(settings: Mapping[str, Any], workdir: Path) -> int:
    """`train`, in a directory that is locked."""
    began = time.monotonic()
    before = config.read_begun(workdir)
    if before is not None:
        # Before the data are read, which may take long.
        config.check_config(settings, workdir)
    allowed = settings["data"]["allow_changes"]
    with counter("pictures looked at") as progress:
        run = experiment.build(settings, workdir=workdir, progress=progress)
    settings = run.settings
    config.check_config(settings, workdir)
    describe(run)
    checkpoints = checkpoint.Checkpoints(workdir, keep=settings["checkpoint"]["keep"])
    patient = settings["early_stopping"]["patience"] > 0
    settled = control.settled_after(settings, run.model) if patient else 0
    judges = control.make_judges(settings, settled=settled)
    plan, book = make_plan(run), Bookkeeping()

    def fresh(step: int) -> TrainState:
        state = run.initial_state(step)
        return state._replace(swa=state.ema) if settings["swa"]["epochs"] else state

    restored = checkpoints.restore(fresh)
    state = fresh(0) if restored is None else restored.state
    if restored is not None:
        for note in restored.notes:
            print(note, flush=True)
        book = Bookkeeping.restored(restored.progress)
        # Not only at the end, which may be hours away.
        _set_best_aside(workdir, book)
        reason = loop.why_finished(int(state.step), book, plan, judges)
        if int(state.step) > run.total_steps:
            raise ValueError(resuming.beyond(run, workdir, int(state.step)))
        if reason and (workdir / "summary.json").exists():
            checkpoints.close()
            print(resuming.ended(run, workdir, int(state.step), reason))
            return 0
    parts = resuming.parts_of(run, workdir)
    saved, start = dict(book.data), int(state.step)
    if restored is not None:
        note = resuming.check_data(parts, workdir, book, start, allowed=allowed)
        print(note, end="\n" * bool(note))
    if before is not None:
        note = resuming.note_course(before, run, book, start)
        print(note, end="\n" * bool(note))
    if restored is not None:
        print(f"going on from step {int(state.step)} of {run.total_steps}", flush=True)
    pictures = PictureLosses(len(run.train.source), book.pictures)
    feed = run.feed(state)
    writes = jax.process_index() == 0
    book.data = identity.digests_of(parts)
    if writes:
        identity.write_parts(workdir, parts, saved)
    # Only now: a config whose cache was refused must not stand in the way of the next.
    config.write_config(settings, workdir)
    source = run.train.source
    write_classes(source.class_names, source.category_ids, workdir)
    batches = feed.batches
    # Only of a stream that goes by them.
    see_losses = getattr(batches, "see_losses", lambda step, losses: None)
    if restored is not None:
        batches.set_state(resuming.stream_state(restored.data, saved, parts))
    if feed.note:
        print(feed.note, flush=True)
    with counter("pictures stored") as progress:
        feed.fill(progress)
    book_before = book.seconds
    evaluation, val_loss = evaluation_of(run), make_val_loss(run)
    refresh = unlabelled.make_refresh(settings, run.model, run.mesh, run.train, batches)
    average = averaging.make_average(run, state, feed)
    state = state._replace(swa=())
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
            place=run.place_of,
        ) as progress,
    ):

        def see_epoch(number: int, state: TrainState) -> None:
            see_losses(number, pictures.last)
            if refresh is not None:
                found = refresh(run.place_of(number), state.ema)
                log.write(number, found)
                if found:
                    progress.message(
                        f"step {number}: pseudo-labels for "
                        f"{found['pseudo/labelled_share']:.0%} of the pictures of "
                        "config.data.unlabelled"
                    )

        if start == 0 and settings["log"]["pictures"] and writes:
            results.draw_labels(run, workdir)
        outcome = loop.fit(
            state,
            step=run.step_at,
            batches=batches,
            put=feed.put,
            evaluate=evaluation
            and (lambda v: _numbers(evaluation(v)) | {"loss": val_loss(v)}),
            judges=judges,
            checkpoints=checkpoints,
            log=log,
            progress=progress,
            plan=plan,
            book=book,
            pictures=pictures,
            average=average,
            advice=lambda filled: timing.advice(
                settings["data"]["cache"],
                num_threads=datasets.num_threads(settings),
                num_cores=os.cpu_count() or 1,
                filled=filled,
            ),
            on_metric=run.optimizer.on_metric,
            on_epoch=see_epoch,
        )
        with loop.Interruption() as interruption:
            # Waits for the last save, which a signal must not cut off.
            checkpoints.close()
        batches.close()
        if interruption.signal:
            stopped = {"reason": "", "signal": interruption.signal}
            outcome = dataclasses.replace(outcome, **stopped)
        if not outcome.reason:
            step = int(outcome.state.step)
            name = signal.Signals(outcome.signal).name
            print(f"stopped by {name} at step {step}; saved.")
            print("The same command goes on from there.")
            return 128 + outcome.signal
        minutes = (book_before + time.monotonic() - began) / 60
        if outcome.reason != "steps":
            print(_stopped(outcome, settings))
        _set_best_aside(workdir, outcome.book)
        results.finish(run, evaluation, workdir, outcome, pictures, log, minutes)
    return 0


def _set_best_aside(workdir: Path, book: Bookkeeping) -> None:
    """Rename the best checkpoint where it is damaged; the newest one stands for it."""
    if jax.process_index() > 0:
        return
    if note := checkpoint.set_aside(workdir, book.best_step):
        print(f"the best {note}; the newest one stands for it", flush=True)


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
    for note in (*run.start.notes, *run.notes):
        print(note)
    most = run.max_boxes
    for part, data in (("train", run.train), ("val", run.val)):
        if data is None:
            continue
        counts = [len(data.source[i].labels) for i in data.keep.tolist()]
        what = f"{sum(counts)} boxes"
        if hasattr(data.source, "multi_label"):
            what = f"{sum(map(bool, counts))} of them with a label"
            most = max(counts, default=0) if part == "train" else most
        print(f"{part}: {len(data.keep)} pictures, {what}")
        if text := data.report.render():
            print(text)
    if plan := stages.describe(run.stages, run.model.shapes()["params"]):
        print(plan)
    many = "boxes" if noun_of(run.train.source) == "box" else "labels"
    print(
        f"{run.steps_per_epoch} steps an epoch, {run.total_steps} in all"
        + f"; up to {most} {many} a picture" * (most > 1),
        flush=True,
    )
    chosen = run.settings["optim"]
    if 0 < chosen["warmup_epochs"] and run.total_steps <= chosen["warmup_min_steps"]:
        print(
            f"the warm-up lasts {chosen['warmup_min_steps']} steps, no less than the "
            "run: lower config.optim.warmup_min_steps, or raise config.epochs"
        )
    batches = round(run.settings["optim"]["nominal_batch"] / run.settings["batch_size"])
    if batches > run.total_steps:
        print(
            f"the optimiser sums {batches} steps after its warm-up, more than the run "
            f"has: lower config.optim.nominal_batch, or raise config.epochs"
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
        max_seconds=3600 * run.settings["max_hours"],
        place=run.place_of if run.later else None,
    )


def evaluation_of(run: Experiment) -> Evaluation | None:
    """A function from variables to their numbers on val, if there is one."""
    if run.val is None:
        return None
    return evaluating.make_evaluation(run.settings, run.model, run.mesh, run.val)


def make_val_loss(run: Experiment) -> Callable[[Any], float]:
    """A function from variables to their loss on val, without augmentation.

    A forward pass over val more than the evaluation needs, and one more compile for
    each shape of its batches: the verdict on a run is read from it.
    """
    data = run.val
    if data is None:
        return lambda variables: math.nan
    value = evaluate.make_loss_step(run.model, results.loss_of(run), run.mesh)
    batches = datasets.make_eval_batches(
        run.settings, data, stride=run.model.max_stride
    )
    return lambda variables: evaluate.mean_loss(
        value, variables, batches, mesh=run.mesh
    )


def _numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    return {k: v for k, v in metrics.items() if isinstance(v, float)}


def _stopped(outcome: loop.Outcome, settings: Mapping[str, Any]) -> str:
    """Why the run ended before its last step."""
    at = f"at step {int(outcome.state.step)}"
    if outcome.reason == "max_hours":
        hours = settings["max_hours"]
        return f"stopped {at}: config.max_hours={hours:g} is used up"
    chosen = settings["early_stopping"]
    return (
        f"stopped early {at}: {chosen['metric']} was no better {chosen['patience']} "
        f"times in a row (config.early_stopping)"
    )
