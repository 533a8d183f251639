"""What a run shows while it runs: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar
from rich.text import Text

from yolojax.printable import printable_lines, unguarded


def format_duration(seconds: float) -> str:
    """Hours, minutes and seconds as `2:03:04`, or `3:04` below an hour."""
    if not math.isfinite(seconds):
        return "--:--"
    whole = max(0, round(seconds))
    hours, minutes = whole // 3600, whole % 3600 // 60
    if hours:
        return f"{hours}:{minutes:02d}:{whole % 60:02d}"
    return f"{minutes}:{whole % 60:02d}"


class Progress:
    """Epoch, step, losses, speed, waiting and the time that is left.

    On a terminal a bar that follows every step; elsewhere (files, pipes, notebooks'
    shells) one plain line now and then, flushed at once.

    Args:
        total_steps: steps of the whole run.
        steps_per_epoch: steps of an epoch.
        start_step: steps done before, by a run that this one resumes.
        interval: seconds between plain lines; the end of an epoch always has one.
        file: where to; standard output if None.
        now: seconds, from any origin, never falling.
        place: see `loop.Plan`.
    """

    def __init__(
        self,
        *,
        total_steps: int,
        steps_per_epoch: int,
        start_step: int = 0,
        interval: float = 15.0,
        file: TextIO | None = None,
        now: Callable[[], float] = time.monotonic,
        place: Callable[[int], int] = lambda step: step,
    ):
        self._place_of = place
        self._file = file or sys.stdout
        self._total = total_steps
        self._per_epoch = max(1, steps_per_epoch)
        self._step = start_step
        self._interval = interval
        self._now = now
        # The first step compiles; the time that is left is reckoned from its end on.
        self._since: tuple[int, float] | None = None
        self._last_line = -math.inf
        self._last_epoch = place(start_step) // self._per_epoch
        self._detail = ""
        # Once is enough where lines stay.
        self._advised = ""
        self._live: Live | None = None
        if self._file.isatty():
            console = Console(file=unguarded(self._file))
            self._bar = Bar(
                TextColumn("{task.description}"),
                BarColumn(bar_width=None),
                TextColumn("{task.percentage:>3.0f}%"),
                TextColumn("eta {task.fields[eta]}"),
                console=console,
                expand=True,
            )
            self._task = self._bar.add_task(
                self._place(), total=total_steps, completed=start_step, eta="--:--"
            )
            live = Live(
                get_renderable=lambda: Group(self._bar, Text(self._detail)),
                console=console,
                refresh_per_second=4,
            )
            live.start()
            self._live = live

    def advance(self, step: int) -> None:
        """Notes that `step` steps are done; costs microseconds."""
        self._step = step
        if self._since is None:
            self._since = (step, self._now())
        if self._live is not None:
            self._bar.update(
                self._task,
                completed=step,
                description=self._place(),
                eta=format_duration(self.seconds_left),
            )

    def show(
        self,
        losses: Mapping[str, Any],
        *,
        images_per_second: float,
        wait_share: float,
        advice: str = "",
    ) -> None:
        """Shows the latest figures.

        Args:
            losses: values by name, in the order shown.
            images_per_second: over the last window.
            wait_share: part of it spent waiting for data, in [0, 1].
            advice: what to do about that.
        """
        parts = [f"{name} {float(value):.4g}" for name, value in losses.items()]
        parts += [f"{images_per_second:.1f} images/s", f"data wait {wait_share:.1%}"]
        if advice and advice != self._advised:
            parts[-1] += f" ({advice})"
        self._detail = "  ".join(parts)
        if self._live is not None:
            return
        now, epoch = self._now(), self._place_of(self._step) // self._per_epoch
        if now - self._last_line >= self._interval or epoch > self._last_epoch:
            self._last_line, self._last_epoch = now, epoch
            left = format_duration(self.seconds_left)
            self._print(f"{self._place()}  {self._detail}  eta {left}")
            self._advised = advice or self._advised

    def message(self, text: str) -> None:
        """Prints lines above the bar, as `printable_lines`."""
        if self._live is not None:
            text = printable_lines(text)
            self._live.console.print(text, markup=False, highlight=False)
        else:
            self._print(text)

    @property
    def seconds_left(self) -> float:
        """Reckoned from the mean step of this run; infinite before its second step."""
        if self._since is None or self._step <= self._since[0]:
            return math.inf
        spent = self._now() - self._since[1]
        return spent / (self._step - self._since[0]) * (self._total - self._step)

    def close(self) -> None:
        """Leaves the bar as it stands and gives the terminal back."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _place(self) -> str:
        epochs = math.ceil(self._place_of(self._total) / self._per_epoch)
        # Step 10 of 10 a epoch still belongs to epoch 1.
        place = self._place_of(max(0, self._step - 1))
        epoch = min(epochs, place // self._per_epoch + 1)
        return f"epoch {epoch}/{epochs}  step {self._step}/{self._total}"

    def _print(self, text: str) -> None:
        print(text, file=self._file, flush=True)


@contextlib.contextmanager
def counter(
    what: str, *, file: TextIO | None = None, interval: float = 5.0
) -> Iterator[Callable[[int, int], None]]:
    """A function `report(done, total)` for long work that is not training.

    A bar on a terminal; elsewhere a line every `interval` seconds, so that short work
    prints nothing.

    Args:
        what: what is counted, as `pictures`.
        file: where to; standard output if None.
        interval: seconds between plain lines.
    """
    out = file or sys.stdout
    if out.isatty():
        with Bar(console=Console(file=unguarded(out)), transient=True) as bar:
            task = bar.add_task(what, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)
        return
    last = time.monotonic()

    def report(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last >= interval:
            last = time.monotonic()
            print(f"{done}/{total} {what}", file=out, flush=True)

    yield report
