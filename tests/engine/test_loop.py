import collections
import re
import time
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from yolojax.engine import loop
from yolojax.engine.log import RunLog, read_metrics
from yolojax.engine.progress import Progress
from yolojax.records import Batch, TrainState


class Batches:
    """Endless empty batches."""

    def __next__(self):
        return Batch(*[None] * 5, image_id=np.zeros(1, np.int32), origin=None)

    stats = {"decode_seconds": 0.0, "pictures": 0}

    def get_state(self):
        return {}


class Saved(list):
    """Notes what would be saved."""

    def save(self, state, *, data, progress, fitness):
        self.append((int(state.step), fitness))

    def wait(self):
        pass


def state_at(step, skipped_in_a_row=0):
    zero = jnp.int32(0)
    return TrainState(
        jnp.int32(step), {}, {}, (), {}, zero, zero, jnp.int32(skipped_in_a_row)
    )


def run(
    tmp_path,
    state,
    *,
    total,
    finite=True,
    evaluations=None,
    patience=0,
    batches=None,
):
    """The outcome, and what was saved."""
    scores = collections.deque(evaluations or [])
    saved = Saved()

    def step(state: Any, _: Any) -> Any:
        numbers = {"loss": 1.0, "boxes_cut": 0.0, "finite": float(finite)}
        return state._replace(step=state.step + 1), numbers

    with (
        RunLog(tmp_path, start_step=int(state.step), tensorboard=False) as log,
        Progress(total_steps=total, steps_per_epoch=2) as progress,
    ):
        outcome = loop.fit(
            state,
            step=lambda _: step,
            batches=batches or Batches(),
            put=lambda batch: batch,
            evaluate=(lambda _: {"score": scores.popleft()}) if scores else None,
            fitness=lambda metrics: metrics["score"],
            checkpoints=saved,  # pyright: ignore[reportArgumentType]
            log=log,
            progress=progress,
            plan=loop.Plan(
                total_steps=total,
                steps_per_epoch=2,
                log_every=2,
                evaluate_every=2,
                save_every=0,
                patience=patience,
            ),
            book=loop.Bookkeeping(),
            advice=lambda filled: f"filled: {filled}",
        )
    return outcome, list(saved)


def test_steps_that_were_bad_before_a_resume_count_and_are_named(tmp_path):
    with pytest.raises(loop.NotFinite, match="steps 14 to 23: .* 10 times in a row"):
        run(tmp_path, state_at(20, skipped_in_a_row=7), total=40, finite=False)


def test_only_the_best_step_is_saved_as_such_and_patience_ends_the_run(tmp_path):
    scores = [0.2, 0.5, float("nan"), 0.5, 0.9]
    outcome, saved = run(
        tmp_path, state_at(0), total=10, evaluations=scores, patience=2
    )
    assert saved == [(2, 0.2), (4, 0.5), (6, -1.0), (8, -1.0)]
    assert outcome.finished and outcome.stopped_early
    assert (outcome.book.best_step, int(outcome.state.step)) == (4, 8)


def test_an_account_of_time_is_written_by_window_and_by_epoch(tmp_path, capsys):
    run(tmp_path, state_at(0), total=5)
    rows = {row["step"]: row for row in read_metrics(tmp_path)}
    names = ("data_wait", "decode", "transfer", "step")
    for step in (2, 4, 5):
        for name in names:
            assert rows[step][f"time/{name}"] >= 0
            assert rows[step][f"time/epoch_{name}"] >= 0
        assert rows[step]["time/epoch_seconds"] > 0


class SlowBatches(Batches):
    """A host that holds everything up."""

    def __next__(self):
        time.sleep(0.02)
        return super().__next__()


def test_the_progress_line_says_what_to_change_where_steps_wait(tmp_path, capsys):
    run(tmp_path, state_at(0), total=4, batches=SlowBatches())
    lines = [line for line in capsys.readouterr().out.splitlines() if "wait" in line]
    assert len(lines) == 2
    assert re.search(r"data wait \d\d\.\d% \(filled: False\)", lines[0])
    assert re.search(r"data wait \d\d\.\d% \(filled: True\)", lines[1])
