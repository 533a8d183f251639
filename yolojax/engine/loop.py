"""The training loop: the order of step, log, evaluate and save, and nothing else."""

from __future__ import annotations

import collections
import dataclasses
import math
import os
import signal
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax

from yolojax.engine.checkpoint import Checkpoints
from yolojax.engine.log import RunLog
from yolojax.engine.progress import Progress
from yolojax.engine.step import Step
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
        patience: evaluations without a better result after which the run stops.
    """

    total_steps: int
    steps_per_epoch: int
    log_every: int
    evaluate_every: int
    save_every: int
    patience: int

    def due(self, step: int, every: int) -> bool:
        """Whether something that comes `every` so many steps comes after `step`."""
        return every > 0 and (step % every == 0 or step == self.total_steps)


@dataclasses.dataclass
class Bookkeeping:
    """What the loop must remember besides the state; saved in every checkpoint.

    Attributes:
        best: largest fitness so far; -1 before the first evaluation.
        best_step: its step.
        since_best: evaluations since then.
        boxes_cut: boxes that did not fit, over the whole run.
        seconds: time spent in the loop, over all parts of the run.
        window: sums of the numbers since the last row of the log, and their count.
        best_metrics: numbers of the best evaluation.
    """

    best: float = -1.0
    best_step: int = 0
    since_best: int = 0
    boxes_cut: float = 0.0
    seconds: float = 0.0
    window: dict[str, float] = dataclasses.field(default_factory=dict)
    best_metrics: dict[str, float] = dataclasses.field(default_factory=dict)

    def add(self, numbers: Mapping[str, Any]) -> None:
        """Add a step's numbers to the window; those of a skipped step only count."""
        values = {name: float(value) for name, value in numbers.items()}
        self.boxes_cut += values["boxes_cut"]
        finite = values["finite"] > 0
        self._sum("steps", 1.0)
        self._sum("skipped", 0.0 if finite else 1.0)
        for name, value in values.items():
            if name not in ("finite", "boxes_cut") and finite:
                self._sum(name, value)

    def take_window(self) -> dict[str, float]:
        """Means over the window, which starts anew."""
        sums, self.window = self.window, {}
        skipped = sums.pop("skipped", 0.0)
        counted = sums.pop("steps", 0.0) - skipped
        means = {k: v / counted if counted else math.nan for k, v in sums.items()}
        return {**means, "skipped_steps": skipped, "boxes_cut": self.boxes_cut}

    def _sum(self, name: str, value: float) -> None:
        self.window[name] = self.window.get(name, 0.0) + value


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
    """How a run ended: at its `state`, `finished` or by a `signal`, and its records."""

    state: TrainState
    book: Bookkeeping
    finished: bool
    stopped_early: bool
    signal: int


def fit(
    state: TrainState,
    *,
    step: Callable[[int], Step],
    batches: Any,
    put: Callable[[Any], Any],
    evaluate: Callable[[TrainState], dict[str, float]] | None,
    fitness: Callable[[Mapping[str, float]], float],
    checkpoints: Checkpoints,
    log: RunLog,
    progress: Progress,
    plan: Plan,
    book: Bookkeeping,
    advice: Callable[[bool], str],
) -> Outcome:
    """Train from `state` to the end of the plan, an early stop or a signal.

    Args:
        state: on the devices; donated.
        step: from the number of steps done to the next jitted one.
        batches: iterator of host batches with `get_state()` and `stats`.
        put: from a host batch to the devices.
        evaluate: numbers of the averaged weights; None: never.
        fitness: what of these numbers decides which checkpoint is best.
        checkpoints: where to save.
        log: where the numbers go.
        progress: what the user sees.
        plan: when things happen.
        book: what an earlier part of the run remembered.
        advice: what to change where steps wait for data; takes whether an epoch has
            passed in this part of the run.

    Raises:
        NotFinite: ten steps in a row had to be skipped.
    """
    number = int(state.step)
    pending: collections.deque[tuple[int, Any]] = collections.deque()
    bad = list(range(number + 1 - int(state.skipped_in_a_row), number + 1))
    clock = StepClock(lambda: batches.stats)
    window = epoch = first = clock.read()
    before, began = book.seconds, time.monotonic()
    stopped_early = plan.patience > 0 and book.since_best >= plan.patience

    def settle(most: int) -> None:
        while len(pending) > most:
            at, numbers = pending.popleft()
            numbers = jax.device_get(numbers)
            book.add(numbers)
            _count_bad(bad, at, float(numbers["finite"]) > 0, progress)

    with Interruption() as interruption:
        while number < plan.total_steps and not stopped_early:
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
            if plan.due(number, plan.steps_per_epoch):
                settle(0)
                now = clock.read()
                epoch, spent = now, now.since(epoch)
                _log_epoch(number, log, spent)
            evaluated = evaluate is not None and plan.due(number, plan.evaluate_every)
            if evaluated and evaluate is not None:
                with clock.excluding():
                    _judge(number, evaluate(state), fitness, book, log, progress)
                stopped_early = 0 < plan.patience <= book.since_best
            saved = plan.due(number, plan.save_every) or number == plan.total_steps
            if saved or evaluated or interruption.signal:
                settle(0)
                book.seconds = before + time.monotonic() - began
                with clock.excluding():
                    _save(state, batches, checkpoints, book, log)
            if interruption.signal:
                break
    checkpoints.wait()
    finished = stopped_early or number >= plan.total_steps
    return Outcome(state, book, finished, stopped_early, interruption.signal)


def _count_bad(bad: list[int], at: int, finite: bool, progress: Progress) -> None:
    if finite:
        bad.clear()
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


def _log_epoch(number: int, log: RunLog, times: Times) -> None:
    """The same account for an epoch."""
    row = {"seconds": times.seconds, **times.columns()}
    log.write(number, {f"time/epoch_{name}": value for name, value in row.items()})


def _judge(
    number: int,
    metrics: dict[str, float],
    fitness: Callable[[Mapping[str, float]], float],
    book: Bookkeeping,
    log: RunLog,
    progress: Progress,
) -> None:
    """Log an evaluation and note whether it is the best so far."""
    value = fitness(metrics)
    better = math.isfinite(value) and value > book.best
    if better:
        book.best, book.best_step, book.since_best = value, number, 0
        book.best_metrics = metrics
    else:
        book.since_best += 1
    log.write(number, {f"val/{name}": v for name, v in metrics.items()})
    shown = "  ".join(
        f"{name} {metrics[name]:.4f}"
        for name in ("mAP50", "mAP50_95")
        if name in metrics
    )
    progress.message(f"step {number}: {shown}{'  (best so far)' if better else ''}")


def _save(
    state: TrainState,
    batches: Any,
    checkpoints: Checkpoints,
    book: Bookkeeping,
    log: RunLog,
) -> None:
    checkpoints.save(
        state,
        data=batches.get_state(),
        progress=dataclasses.asdict(book),
        fitness=book.best if book.best_step == int(state.step) else -1.0,
    )
    log.flush()
