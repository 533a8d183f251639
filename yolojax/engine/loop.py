"""The training loop: the order of step, log, evaluate and save, and nothing else."""

from __future__ import annotations

import collections
import dataclasses
import os
import signal
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from yolojax.engine.book import Bookkeeping
from yolojax.engine.checkpoint import Checkpoints
from yolojax.engine.judging import Judges
from yolojax.engine.log import RunLog
from yolojax.engine.pictures import PictureLosses
from yolojax.engine.progress import Progress
from yolojax.engine.step import Step
from yolojax.engine.swa import WeightAverage
from yolojax.engine.timing import MUCH_WAITING, StepClock, Times
from yolojax.records import TrainState, num_pictures

# The loop reads a step's numbers when so many later ones are under way, so that it
# learns of a bad step soon and still never waits for the device.
LAG = 2
MOST_BAD_STEPS = 10


@dataclasses.dataclass(frozen=True)
class Plan:
    """When things happen, in steps; 0 is never.

    Attributes:
        total_steps: end of the run.
        steps_per_epoch: steps between accounts of an epoch's time.
        log_every: steps between rows of metrics.csv.
        evaluate_every: steps between evaluations; the last step always has one.
        save_every: steps between checkpoints; so do evaluations, and the last step.
        max_seconds: time after which the run ends, over all its parts; 0: any.
        place: the step as if each epoch had `steps_per_epoch` steps, for runs whose
            epochs differ; what comes by epochs goes by it. None: they do not.
    """

    total_steps: int
    steps_per_epoch: int
    log_every: int
    evaluate_every: int
    save_every: int
    max_seconds: float = 0.0
    place: Callable[[int], int] | None = None

    def due(self, step: int, every: int, last: bool = False) -> bool:
        """Whether something that comes `every` so many steps comes after `step`.

        The last step has everything that comes at all.
        """
        if self.place is not None and every % self.steps_per_epoch == 0:
            return every > 0 and (
                self.place(step) % every == 0 or step == self.total_steps or last
            )
        return every > 0 and (step % every == 0 or step == self.total_steps or last)


class Interruption:
    """Notes SIGTERM and Ctrl-C, so that the loop can save first; twice ends at once."""

    def __init__(self) -> None:
        self.signal = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interruption:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame: object) -> None:
        if self.signal:
            raise KeyboardInterrupt
        self.signal = number
        # Not `print`: the signal may have come in the midst of one.
        os.write(2, b"\nstopping after this step and a save; once more stops at once\n")


class NotFinite(ValueError):
    """Too many steps in a row had a loss or gradient that is not finite."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a run ended, and its records.

    Attributes:
        state: at the end.
        book: what the loop remembered.
        reason: why the run is finished: `steps`, `patience` or `max_hours`; empty where
            a signal stopped it.
        signal: its number, or 0.
    """

    state: TrainState
    book: Bookkeeping
    reason: str
    signal: int


def why_finished(number: int, book: Bookkeeping, plan: Plan, judges: Judges) -> str:
    """The reason of `Outcome` for which a run ends after `number` steps; else empty."""
    if number >= plan.total_steps:
        return "steps"
    if judges.exhausted(book):
        return "patience"
    return "max_hours" if 0 < plan.max_seconds <= book.seconds else ""


def fit(
    state: TrainState,
    *,
    step: Callable[[int], Step],
    batches: Any,
    put: Callable[[Any], Any],
    evaluate: Callable[[Any], dict[str, float]] | None,
    judges: Judges,
    checkpoints: Checkpoints,
    log: RunLog,
    progress: Progress,
    plan: Plan,
    book: Bookkeeping,
    pictures: PictureLosses,
    average: WeightAverage | None,
    advice: Callable[[bool], str],
    on_metric: Callable[[Any, float], Any] | None = None,
    on_epoch: Callable[[int, TrainState], None] = lambda number, state: None,
) -> Outcome:
    """Train from `state` to the end of the plan, an early stop or a signal.

    Args:
        state: on the devices; donated.
        step: from the number of steps done to the next jitted one.
        batches: iterator of host batches with `get_state()` and `stats`.
        put: from a host batch to the devices.
        evaluate: numbers of such variables as `state.ema`; None: never.
        judges: decide which checkpoint is best and when to stop.
        checkpoints: where to save.
        log: where the numbers go.
        progress: what the user sees.
        plan: when things happen.
        book: what an earlier part of the run remembered.
        pictures: the last loss of each picture.
        average: of the last epochs' weights; None: none.
        advice: what to change where steps wait for data; takes whether an epoch has
            passed in this part of the run.
        on_metric: from the optimiser's state and an evaluation's score to the state.
        on_epoch: called after the last step of an epoch with the number of steps done
            and the state, when the losses of its pictures are known and before anything
            is saved.

    Raises:
        NotFinite: ten steps in a row had to be skipped.
    """
    number = int(state.step)
    pending: collections.deque[tuple[int, Any]] = collections.deque()
    bad = list(range(number + 1 - int(state.skipped_in_a_row), number + 1))
    clock = StepClock(lambda: batches.stats)
    window = epoch = first = clock.read()
    before, began = book.seconds, time.monotonic()
    reason, stopped = why_finished(number, book, plan, judges), 0

    def settle(most: int) -> None:
        while len(pending) > most:
            at, numbers = pending.popleft()
            numbers = _take_pictures(jax.device_get(numbers), pictures)
            if numbers["boxes_cut"] > 0 and not book.boxes_cut:
                progress.message(
                    f"step {at}: {numbers['boxes_cut']:.0f} boxes have no row and are "
                    "left out of the loss. For a row each raise "
                    "config.augment.max_boxes; metrics.csv counts them (boxes_cut)"
                )
            book.add(numbers)
            _count_bad(bad, at, numbers, progress)

    with Interruption() as interruption:
        while not reason and not stopped:
            with clock.waiting():
                batch = next(batches)
            batch = clock.moved(put, batch)
            state, numbers = step(number)(state, batch)
            number += 1
            pending.append((number, numbers))
            settle(LAG)
            clock.count(num_pictures(batch))
            progress.advance(number)
            if plan.due(number, plan.log_every):
                settle(0)
                now = clock.read()
                window, spent = now, now.since(window)
                tip = advice(epoch is not first)
                _log(number, log, book, spent, progress, tip)
            best = False
            if plan.due(number, plan.steps_per_epoch):
                settle(0)
                now = clock.read()
                epoch, spent = now, now.since(epoch)
                mean = {"loss": book.take_epoch()}
                _log_epoch(number, log, spent, pictures, mean["loss"])
                with clock.excluding():
                    on_epoch(number, state)
                best = judges.see(book, number, mean, train=True)
            if average is not None:
                average.add(number, state.params)
            book.seconds = _agreed(before + time.monotonic() - began, plan, number)
            reason = why_finished(number, book, plan, judges)
            due = plan.due(number, plan.evaluate_every, last=bool(reason))
            evaluated = due and evaluate is not None
            if due and evaluate is not None:
                with clock.excluding():
                    metrics = evaluate(state.ema)
                    _judge(number, metrics, judges, book, log, progress)
                if on_metric is not None:
                    value = judges.of_evaluations.score(_named(metrics))
                    changed = on_metric(state.opt_state, value)
                    state = state._replace(opt_state=changed)
                reason = reason or why_finished(number, book, plan, judges)
            if reason and average is not None:
                with clock.excluding():
                    _judge_average(number, average, evaluate, judges, book, progress)
            stopped = interruption.signal
            saved = plan.due(number, plan.save_every) or best or evaluated
            if saved or reason or stopped:
                settle(0)
                with clock.excluding():
                    kept = state._replace(swa=average.variables if average else ())
                    _save(kept, batches, checkpoints, book, pictures, log)
    checkpoints.wait()
    return Outcome(state, book, reason, stopped)


def _take_pictures(
    numbers: Mapping[str, Any], pictures: PictureLosses
) -> dict[str, Any]:
    """The scalars of a step; the losses of its pictures are noted."""
    scalars = dict(numbers)
    losses, image_id = scalars.pop("per_picture", None), scalars.pop("image_id", None)
    if losses is not None and image_id is not None:
        pictures.add(image_id, losses)
    return scalars


def _agreed(seconds: float, plan: Plan, number: int) -> float:
    """The time spent, on which several hosts agree when they are to log."""
    if jax.process_count() == 1 or not plan.max_seconds:
        return seconds
    if not plan.due(number, plan.log_every):
        return min(seconds, plan.max_seconds * (1 - 1e-6))
    return float(multihost_utils.broadcast_one_to_all(np.float32(seconds)))


def _count_bad(
    bad: list[int], at: int, numbers: Mapping[str, Any], progress: Progress
) -> None:
    if float(numbers["finite"]) > 0:
        bad.clear()
        return
    if float(numbers.get("scale_fell", 0.0)) > 0:
        # The loss scale of float16 finds its place so; nothing is wrong.
        return
    bad.append(at)
    progress.message(f"step {at}: loss or gradient not finite; step skipped")
    if len(bad) >= MOST_BAD_STEPS:
        raise NotFinite(
            f"steps {bad[0]} to {at}: loss or gradient not finite {len(bad)} times in "
            f"a row. Try a lower config.optim.learning_rate, a longer warm-up, "
            f"config.dtype='float32', or look at the batch: python -m yolojax.preview"
        )


def _log(
    number: int,
    log: RunLog,
    book: Bookkeeping,
    times: Times,
    progress: Progress,
    advice: str,
) -> None:
    row = book.take_window()
    speed, wait = times.images_per_second, times.wait_share
    row |= {"time/images_per_second": speed, "time/wait_share": wait}
    log.write(number, row | {f"time/{k}": v for k, v in times.columns().items()})
    progress.show(
        {k.removeprefix("loss/"): v for k, v in row.items() if k.startswith("loss")},
        images_per_second=speed,
        wait_share=wait,
        advice=advice if wait > MUCH_WAITING else "",
    )


def _log_epoch(
    number: int, log: RunLog, times: Times, pictures: PictureLosses, loss: float
) -> None:
    """The same account for an epoch, its loss, how the pictures' losses are spread."""
    row = {"seconds": times.seconds, **times.columns()}
    timed = {f"time/epoch_{name}": value for name, value in row.items()}
    log.write(number, {"epoch_loss": loss} | pictures.quantiles() | timed)


def _judge(
    number: int,
    metrics: dict[str, float],
    judges: Judges,
    book: Bookkeeping,
    log: RunLog,
    progress: Progress,
) -> None:
    """Log an evaluation and note whether it is the best so far."""
    better = judges.see(book, number, _named(metrics), train=False)
    log.write(number, {f"val/{name}": v for name, v in metrics.items()})
    remark = judges.remark(book, number, better=better)
    progress.message(f"step {number}: {_shown(metrics)}{remark}")


def _judge_average(
    number: int,
    average: WeightAverage,
    evaluate: Callable[[Any], dict[str, float]] | None,
    judges: Judges,
    book: Bookkeeping,
    progress: Progress,
) -> None:
    """Take the mean of the last epochs where it is better than all before."""
    count = average.snapshots(number)
    if not count:
        progress.message("SWA: the run ended before the first of its epochs")
        return
    average.finish()
    if evaluate is None or judges.best.of_training:
        # Nothing to compare by: what was asked for is what is handed on.
        book.best_step, book.best_weights = number, "swa"
        progress.message(f"SWA: the mean of {count} epochs is taken, not compared")
        return
    metrics = evaluate(average.variables)
    before, name = book.best, judges.best.name
    better = judges.see_best(book, number, _named(metrics), weights="swa")
    progress.message(
        f"SWA: the mean of {count} epochs has {_shown(metrics)}; by {name} it is "
        f"{'better than all before and is taken' if better else 'no better'} "
        f"({abs(judges.best.score(_named(metrics))):.4f}, before {abs(before):.4f})"
    )


def _named(metrics: Mapping[str, float]) -> dict[str, float]:
    """The numbers of an evaluation as `judging.METRICS` calls them."""
    return {"val_loss" if k == "loss" else k: v for k, v in metrics.items()}


def _shown(metrics: Mapping[str, float]) -> str:
    shown = ("mAP50", "mAP50_95", "mean_average_precision", "accuracy", "loss")
    names = [name for name in shown if name in metrics]
    return "  ".join(f"{name} {metrics[name]:.4f}" for name in names)


def _save(
    state: TrainState,
    batches: Any,
    checkpoints: Checkpoints,
    book: Bookkeeping,
    pictures: PictureLosses,
    log: RunLog,
) -> None:
    book.pictures = pictures.to_text()
    checkpoints.save(
        state,
        data=batches.get_state(),
        progress=dataclasses.asdict(book),
    )
    log.flush()
