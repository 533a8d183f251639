"""Runs a reader on damaged inputs until the time is up, and counts what comes out.

A fuzz script gives two functions: `make(rng, number)` makes an input, `run(input)`
reads it and names the outcome ("read", "report", ...). A ValueError counts as the
outcome "error". Everything else is a failure: another exception, an input over the
time limit, an error message that is too long or does not name the file. By hand:

    python -m tests.data.fuzz_coco --seconds 600 --seed 0
    python -m tests.data.fuzz_coco --seed 0 --only 4711

Each input has a random generator of its own, made from the seed and the input's number.
One input can be made again without those before it.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

import numpy as np

LONGEST_MESSAGE = 5000  # characters of an error message
MOST_FAILURES = 20  # distinct ones, after which the run stops

Make = Callable[[np.random.Generator, int], Any]
Run = Callable[[Any], str]


class Hang(BaseException):
    """An input took too long. Not an Exception, so that no reader catches it."""


@dataclasses.dataclass
class Tally:
    """What a run counted.

    Attributes:
        inputs: number of inputs.
        outcomes: number of inputs for each outcome.
        failures: for each place in the code the first failure, as text.
        slowest: seconds of the slowest input, and its number.
        start_mb: peak memory of the process before the first input.
        peak_mb: peak memory of the process at the end.
    """

    inputs: int = 0
    outcomes: collections.Counter[str] = dataclasses.field(
        default_factory=collections.Counter
    )
    failures: dict[str, str] = dataclasses.field(default_factory=dict)
    slowest: tuple[float, int] = (0.0, -1)
    start_mb: float = 0.0
    peak_mb: float = 0.0

    def __str__(self) -> str:
        counts = ", ".join(f"{name} {n}" for name, n in self.outcomes.most_common())
        lines = [
            f"{self.inputs} inputs: {counts}",
            f"slowest {self.slowest[0]:.2f} s (input {self.slowest[1]}); peak memory "
            f"{self.peak_mb:.0f} MB, {self.peak_mb - self.start_mb:.0f} MB more than "
            "before",
            *self.failures.values(),
        ]
        return "\n".join(lines)


def fuzz(
    make: Make,
    run: Run,
    *,
    seconds: float,
    seed: int,
    limit: float = 5.0,
    names: str = "",
    only: int | None = None,
) -> Tally:
    """Run inputs until the time is up.

    Args:
        make: makes an input; its own time is not limited.
        run: reads the input and returns the name of the outcome.
        seconds: time for all inputs; at least one is run.
        seed: decides all inputs.
        limit: seconds of the processor's time for one input; of the clock, ten times
            as many.
        names: text that every error message must have, such as the file's name.
        only: number of the one input to run; its exception is not caught.

    Returns:
        The counts, with the failures.
    """
    tally = Tally(start_mb=_peak_mb())
    kinds = (signal.SIGALRM, signal.SIGPROF)
    old = [signal.signal(kind, _raise_hang) for kind in kinds]
    end = time.monotonic() + seconds
    number = only or 0
    try:
        while True:
            value = make(np.random.default_rng((seed, number)), number)
            _run_one(run, value, number, limit, names, tally, raising=only is not None)
            number += 1
            full = len(tally.failures) >= MOST_FAILURES
            if only is not None or full or time.monotonic() > end:
                break
    finally:
        for kind, handler in zip(kinds, old, strict=True):
            signal.signal(kind, handler)
    tally.peak_mb = _peak_mb()
    return tally


def main(make: Make, run: Run, **settings: Any) -> int:
    """Run as the command line says; print the counts; 1 where something failed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="number of the one input to run")
    given = parser.parse_args()
    tally = fuzz(make, run, **vars(given), **settings)
    print(f"seed {given.seed}, {given.seconds:g} s; {tally}")
    return 1 if tally.failures else 0


def _run_one(
    run: Run,
    value: Any,
    number: int,
    limit: float,
    names: str,
    tally: Tally,
    *,
    raising: bool,
) -> None:
    start = time.monotonic()
    try:
        # By the processor's time, since other processes may hold a reader up; what
        # waits for ever is ended by the clock.
        signal.setitimer(signal.ITIMER_PROF, limit)
        signal.setitimer(signal.ITIMER_REAL, 10 * limit)
        try:
            outcome = run(value)
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.setitimer(signal.ITIMER_REAL, 0)
    except ValueError as error:
        outcome = "error"
        text = str(error)
        if names not in text or len(text) > LONGEST_MESSAGE:
            if raising:
                raise
            outcome = "bad message"
            _keep_failure(tally, number, error)
    except (Exception, Hang) as error:
        if raising:
            raise
        outcome = type(error).__name__
        _keep_failure(tally, number, error)
    tally.inputs += 1
    tally.outcomes[outcome] += 1
    tally.slowest = max(tally.slowest, (time.monotonic() - start, number))


def _keep_failure(tally: Tally, number: int, error: BaseException) -> None:
    place = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{type(error).__name__} at {place.filename}:{place.lineno}"
    text = str(error)[:300] or "no message"
    tally.failures.setdefault(where, f"input {number}: {where}: {text}")


def _raise_hang(*_: Any) -> None:
    raise Hang("over the time limit")


def _peak_mb() -> float:
    """Most memory that the process has had, in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if sys.platform == "darwin" else 1024)
