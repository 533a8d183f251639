import io
import math

import pytest

from yolojax.engine import progress
from yolojax.engine.progress import Progress, format_duration


class Hands:
    """A clock that stands still until it is moved."""

    def __init__(self):
        self.seconds = 100.0

    def __call__(self):
        return self.seconds

    def move(self, seconds):
        self.seconds += seconds


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    "seconds, shown",
    [
        (0, "0:00"),
        (59.6, "1:00"),
        (3599, "59:59"),
        (7384, "2:03:04"),
        (360000, "100:00:00"),
        (math.inf, "--:--"),
        (math.nan, "--:--"),
    ],
)
def test_durations_are_shown_with_hours_only_where_needed(seconds, shown):
    assert format_duration(seconds) == shown


def follow(bar, now, first, last, seconds=2.0):
    for step in range(first, last + 1):
        now.move(seconds)
        bar.advance(step)
        bar.show({"loss": 1.5, "box": 0.0321}, images_per_second=8.0, wait_share=0.0125)


def test_without_a_terminal_there_is_a_line_every_interval_and_epoch():
    now, file = Hands(), io.StringIO()
    bar = Progress(total_steps=20, steps_per_epoch=10, interval=6.0, file=file, now=now)
    with bar:
        follow(bar, now, 1, 20)
    lines = file.getvalue().splitlines()
    # The first at once, then every third step of two seconds, counted anew from the
    # line that ends an epoch.
    assert [line.split("step ")[1].split("/")[0] for line in lines] == [
        *("1", "4", "7", "10"),
        *("13", "16", "19", "20"),
    ]
    assert lines[1] == (
        "epoch 1/2  step 4/20  loss 1.5  box 0.0321  8.0 images/s  data wait 1.2%  "
        "eta 0:32"
    )
    assert lines[3].startswith("epoch 1/2  step 10/20")
    assert lines[0].endswith("eta --:--") and lines[-1].endswith("eta 0:00")


def test_the_time_left_leaves_out_the_first_step_which_compiles():
    now = Hands()
    bar = Progress(total_steps=11, steps_per_epoch=11, file=io.StringIO(), now=now)
    now.move(60.0)
    bar.advance(1)
    assert bar.seconds_left == math.inf
    now.move(2.0)
    bar.advance(2)
    assert bar.seconds_left == 18.0


def test_a_resumed_run_counts_from_where_it_starts():
    now, file = Hands(), io.StringIO()
    bar = Progress(
        total_steps=30, steps_per_epoch=10, start_step=20, file=file, now=now
    )
    with bar:
        follow(bar, now, 21, 22, seconds=20.0)
    first, second = file.getvalue().splitlines()
    assert first.startswith("epoch 3/3  step 21/30")
    assert second.endswith("eta 2:40")


def test_messages_are_lines_of_their_own():
    file = io.StringIO()
    with Progress(total_steps=2, steps_per_epoch=2, file=file) as bar:
        bar.message("step 1: [skipped]")
    assert file.getvalue() == "step 1: [skipped]\n"


def test_on_a_terminal_there_is_a_bar_with_the_figures_under_it(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    now, file = Hands(), Terminal()
    bar = Progress(total_steps=4, steps_per_epoch=2, file=file, now=now)
    with bar:
        follow(bar, now, 1, 4)
        bar.message("step 2: [skipped]")
    shown = file.getvalue()
    assert "step 4/4" in shown and "100%" in shown and "box 0.0321" in shown
    assert "step 2: [skipped]" in shown
    bar.close()  # twice does no harm


def test_long_other_work_is_counted_on_a_terminal_and_quiet_when_short():
    file = io.StringIO()
    with progress.counter("pictures", file=file, interval=1e9) as report:
        report(1, 2)
    assert file.getvalue() == ""
    with progress.counter("pictures", file=file, interval=0.0) as report:
        report(1, 2)
    assert file.getvalue() == "1/2 pictures\n"
    terminal = Terminal()
    with progress.counter("pictures", file=terminal) as report:
        report(2, 2)
    assert "pictures" in terminal.getvalue()


def test_lines_that_stay_say_once_what_to_do_about_waiting():
    now, file = Hands(), io.StringIO()
    given = ["take a cache"] * 3 + ["use threads"] * 2
    with Progress(total_steps=5, steps_per_epoch=1, file=file, now=now) as bar:
        for step, advice in enumerate(given, 1):
            bar.advance(step)
            bar.show({}, images_per_second=8.0, wait_share=0.5, advice=advice)
    text = file.getvalue()
    assert text.count("data wait 50.0%") == 5
    assert text.count("(take a cache)") == text.count("(use threads)") == 1
