import collections
import re
import time
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from yolojax.engine import judging, loop
from yolojax.engine.book import UNJUDGED, Bookkeeping
from yolojax.engine.log import RunLog, read_metrics
from yolojax.engine.pictures import PictureLosses
from yolojax.engine.progress import Progress
from yolojax.engine.swa import WeightAverage
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

    def save(self, state, *, data, progress):
        step = int(state.step)
        # The best checkpoint is the bookkeeping's.
        best = progress["best_step"] == step
        self.append((step, progress["best"] if best else UNJUDGED))
        self.progress, self.state = progress, state

    def wait(self):
        pass


def state_at(step, skipped_in_a_row=0):
    zero = jnp.int32(0)
    return TrainState(
        step=jnp.int32(step),
        params={"a": jnp.float32(step)},
        batch_stats={},
        opt_state=(),
        ema={"params": {"a": jnp.float32(0)}, "batch_stats": {}},
        ema_updates=zero,
        skipped=zero,
        skipped_in_a_row=jnp.int32(skipped_in_a_row),
    )


def run(
    tmp_path,
    state,
    *,
    total,
    numbers=None,
    evaluations=None,
    judges=None,
    batches=None,
    book=None,
    max_seconds=0.0,
    average=None,
    on_metric=None,
    pictures=None,
    on_epoch=lambda number, state: None,
):
    """The outcome, and what was saved; the only parameter is the step's number."""
    scores = collections.deque(evaluations or [])
    saved = Saved()

    def step(state: Any, _: Any) -> Any:
        done = int(state.step) + 1
        given = {"loss": 1.0, "boxes_cut": 0.0, "finite": 1.0} | (numbers or {})
        given = {k: v(done) if callable(v) else v for k, v in given.items()}
        return state._replace(
            step=state.step + 1, params={"a": jnp.float32(done)}
        ), given

    with (
        RunLog(tmp_path, start_step=int(state.step), tensorboard=False) as log,
        Progress(total_steps=total, steps_per_epoch=2) as progress,
    ):
        outcome = loop.fit(
            state,
            step=lambda _: step,
            batches=batches or Batches(),
            put=lambda batch: batch,
            evaluate=(lambda _: scores.popleft()) if scores else None,
            judges=judges or judging.Judges(),
            checkpoints=saved,  # pyright: ignore[reportArgumentType]
            log=log,
            progress=progress,
            plan=loop.Plan(
                total_steps=total,
                steps_per_epoch=2,
                log_every=2,
                evaluate_every=2,
                save_every=0,
                max_seconds=max_seconds,
            ),
            book=book or Bookkeeping(),
            pictures=pictures or PictureLosses(4),
            average=average,
            advice=lambda filled: f"filled: {filled}",
            on_metric=on_metric,
            on_epoch=on_epoch,
        )
    return outcome, saved


def scores(*values):
    """Evaluations with such a fitness."""
    return [{"mAP50": value, "mAP50_95": value} for value in values]


def patient(patience, best="fitness", metric="fitness", min_change=0.0):
    return judging.make_judges(
        best=best,
        metric=metric,
        patience=patience,
        min_change=min_change,
        evaluates=True,
    )


def test_steps_that_were_bad_before_a_resume_count_and_are_named(tmp_path):
    with pytest.raises(loop.NotFinite, match="steps 14 to 23: .* 10 times in a row"):
        run(
            tmp_path,
            state_at(20, skipped_in_a_row=7),
            total=40,
            numbers={"finite": 0.0},
        )


def test_a_step_skipped_for_its_loss_scale_is_not_counted_as_bad(tmp_path):
    fell = {"finite": 0.0, "scale_fell": 1.0}
    outcome, _ = run(tmp_path, state_at(0), total=20, numbers=fell)
    assert outcome.reason == "steps"
    row = read_metrics(tmp_path)[-1]
    assert (row["skipped_steps"], row["skipped_share"]) == (2, 1.0)


def test_only_the_best_step_is_saved_as_such_and_patience_ends_the_run(tmp_path):
    outcome, saved = run(
        tmp_path,
        state_at(0),
        total=10,
        evaluations=scores(0.25, 0.5, float("nan"), 0.5, 0.75),
        judges=patient(2),
    )
    assert saved == [(2, 0.25), (4, 0.5), (6, UNJUDGED), (8, UNJUDGED)]
    assert outcome.reason == "patience"
    assert (outcome.book.best_step, int(outcome.state.step)) == (4, 8)


def test_an_evaluation_may_change_the_optimiser_s_state(tmp_path):
    seen = []

    def on_metric(opt_state, value):
        seen.append(value)
        return (*opt_state, len(seen))

    given = {"total": 6, "evaluations": scores(0.25, 0.5, 0.125)}
    outcome, _ = run(tmp_path, state_at(0), **given, on_metric=on_metric)
    assert seen == [0.25, 0.5, 0.125]
    assert outcome.state.opt_state == (1, 2, 3)


def test_a_change_that_is_too_small_does_not_count_for_patience(tmp_path):
    outcome, _ = run(
        tmp_path,
        state_at(0),
        total=20,
        evaluations=scores(0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.52),
        judges=patient(3, min_change=0.125),
    )
    # 0.4 is the first over 0.375; none after it is over 0.525.
    assert (outcome.reason, int(outcome.state.step)) == ("patience", 14)
    assert outcome.book.best == pytest.approx(0.52)


def test_a_plateau_of_the_training_loss_ends_a_run_without_evaluations(tmp_path):
    # Means of the epochs: 3.5, 1.5, 1, 1, 1.
    losses = {1: 4.0, 2: 3.0, 3: 2.0}
    outcome, saved = run(
        tmp_path,
        state_at(0),
        total=40,
        numbers={"loss": lambda step: losses.get(step, 1.0)},
        judges=patient(2, best="loss", metric="loss"),
    )
    assert (outcome.reason, int(outcome.state.step)) == ("patience", 10)
    assert saved == [(2, -3.5), (4, -1.5), (6, -1.0), (10, UNJUDGED)]


def test_best_by_the_loss_on_val_is_the_lowest(tmp_path):
    outcome, saved = run(
        tmp_path,
        state_at(0),
        total=6,
        evaluations=[{"loss": 2.0}, {"loss": 1.0}, {"loss": 1.5}],
        judges=patient(0, best="val_loss"),
    )
    assert saved == [(2, -2.0), (4, -1.0), (6, UNJUDGED)]
    assert [row["val/loss"] for row in read_metrics(tmp_path)] == [2.0, 1.0, 1.5]
    assert outcome.reason == "steps"


def test_time_over_ends_the_run_with_an_evaluation_and_a_save(tmp_path):
    book = Bookkeeping(seconds=3.0)
    outcome, saved = run(
        tmp_path,
        state_at(0),
        total=100,
        evaluations=scores(0.5),
        book=book,
        batches=SlowBatches(),
        max_seconds=3.01,
    )
    assert outcome.reason == "max_hours"
    assert saved == [(1, 0.5)]
    again = run(tmp_path, outcome.state, total=100, book=book, max_seconds=3.01)
    assert again[0].reason == "max_hours" and not again[1]


def test_losses_of_pictures_are_kept_saved_and_logged(tmp_path):
    numbers = {
        "per_picture": lambda step: np.array([step, 9.0, np.nan], np.float32),
        "image_id": np.array([2, -1, 0], np.int32),
    }
    _, saved = run(tmp_path, state_at(0), total=3, numbers=numbers)
    kept = PictureLosses(4, saved.progress["pictures"])
    np.testing.assert_array_equal(kept.last, [np.nan, np.nan, 3.0, np.nan])
    rows = {row["step"]: row for row in read_metrics(tmp_path)}
    assert rows[2]["loss/picture_q50"] == 2.0 and rows[3]["loss/picture_max"] == 3.0
    assert "per_picture" not in rows[2]


def average_of(state, start):
    return WeightAverage(
        state.ema,
        start=start,
        every=2,
        recompute=lambda variables: {"m": variables["params"]["a"]},
    )


@pytest.mark.parametrize("last, taken", [(0.75, "swa"), (0.25, "ema")])
def test_the_mean_of_the_last_epochs_is_taken_where_it_is_better(tmp_path, last, taken):
    state = state_at(0)
    outcome, saved = run(
        tmp_path,
        state,
        total=8,
        evaluations=scores(0.1, 0.2, 0.3, 0.5, last),
        average=average_of(state, start=2),
    )
    # Ends of the epochs that count: steps 4, 6, 8.
    assert float(saved.state.swa["params"]["a"]) == 6.0
    assert float(saved.state.swa["batch_stats"]["m"]) == 6.0
    assert outcome.book.best_weights == saved.progress["best_weights"] == taken
    assert outcome.book.best == pytest.approx(max(last, 0.5))
    assert outcome.state.swa == ()


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


def test_the_end_of_an_epoch_is_told_when_its_losses_are_known(tmp_path):
    """Of a picture a step, whose loss is the step's number."""
    pictures, told = PictureLosses(4), []
    run(
        tmp_path,
        state_at(0),
        total=5,
        numbers={
            "per_picture": lambda done: np.float32([done]),
            "image_id": lambda done: np.int32([done % 4]),
        },
        pictures=pictures,
        on_epoch=lambda number, _: told.append((number, pictures.last.tolist())),
    )
    nan = pytest.approx(np.nan, nan_ok=True)
    assert told == [(2, [nan, 1, 2, nan]), (4, [4, 1, 2, 3]), (5, [4, 5, 2, 3])]


def test_the_first_cut_box_is_reported_once_when_it_happens(tmp_path, capsys):
    numbers = {"boxes_cut": lambda step: 3.0 if step in (2, 4) else 0.0}
    outcome, _ = run(tmp_path, state_at(0), total=4, numbers=numbers)
    lines = [x for x in capsys.readouterr().out.splitlines() if "no row" in x]
    assert len(lines) == 1
    assert "step 2: 3 boxes have no row and are left out of the loss" in lines[0]
    assert "config.augment.max_boxes" in lines[0]
    assert outcome.book.boxes_cut == 6
