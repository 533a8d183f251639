"""What ends a run, which weights it hands on, and what it leaves to look at."""

import json
import re

import jax
import numpy as np
import pytest

from tests.tiny import tiny_config
from yolojax import control, inference, training
from yolojax.engine.log import read_metrics
from yolojax.network import make_model


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"swa__epochs": 2}, "config.swa.epochs is 2, but .* has 2 epochs"),
        ({"swa__epochs": 3, "stages": ({"epochs": 9}, {"epochs": 3})}, "3 epochs"),
        (
            {"epochs": 5, "swa__epochs": 2, "optim__name": "schedule_free_adamw"},
            "config.swa.epochs does not go with schedule_free_adamw",
        ),
        ({"ema__name": "no"}, "config.ema.name.*Choices: constant, none, ramp"),
        (
            {"init__statistics": "batch"},
            r"config.init.statistics\).*Did you mean 'batches'",
        ),
        ({"checkpoint__best": "mAP5"}, "config.checkpoint.best.*'mAP5'"),
        (
            {"evaluate__every_epochs": 0, "early_stopping__patience": 1},
            "patience needs config.data.val and evaluate.every_epochs",
        ),
    ],
)
def test_settings_that_cannot_be_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        control.check(tiny_config(**changes))


def test_what_has_no_effect_is_told():
    assert control.notes(tiny_config(augment__close_mosaic_epochs=1)) == ()
    free = tiny_config(optim__name="schedule_free_sgd", optim__schedule="linear")
    (line,) = control.notes(free)
    assert "'linear' lowers the rate of schedule_free_sgd" in line
    (line,) = control.notes(tiny_config(augment__close_mosaic_epochs=2))
    assert "close_mosaic_epochs is 2 and the run has 2 epochs: none of them" in line


@pytest.mark.parametrize(
    "changes, steps, total, end",
    [
        # .97^76 is below a tenth, .97^75 is not.
        ({}, 25, 75, "the run has 75: .* more epochs, a smaller"),
        ({}, 25, 76, None),
        ({"early_stopping__patience": 2}, 25, 99, "early_stopping counts from there"),
        ({"early_stopping__patience": 2}, 26, 99, None),
        ({"early_stopping__patience": 2, "evaluate__every_epochs": 2}, 25, 99, None),
        ({"init__weights": "there.npz"}, 1, 2, None),
        ({"init__statistics": "batches", "early_stopping__patience": 2}, 1, 2, None),
        ({"data__val": {}}, 1, 2, None),
    ],
)
def test_val_before_the_statistics_have_settled_is_told(changes, steps, total, end):
    config = tiny_config(**changes)
    lines = control.settling(
        config, make_model(config), steps_per_epoch=steps, total=total
    )
    if end is None:
        assert lines == ()
    else:
        assert re.search(rf"yolov5n takes about 76 steps .*{end}", lines[0])


@pytest.mark.slow
def test_a_run_with_averaged_weights_and_losses_of_pictures(tmp_path, capsys):
    config = tiny_config(
        epochs=6,
        swa__epochs=2,
        swa__learning_rate=0.005,
        checkpoint__best="val_loss",
        ema__name="none",
        log__worst=5,
    )
    assert training.train(config, tmp_path / "run") == 0
    shown = capsys.readouterr().out
    assert "SWA: the mean of 2 epochs has" in shown
    assert "verdict: too short to say" in shown
    rows = read_metrics(tmp_path / "run")
    last = rows[-1]
    for name in (
        *("gradient_norm", "learning_rate", "skipped_share", "val/loss"),
        *("update_ratio/kernel", "update_ratio/bias", "update_ratio/scale"),
        *("loss/picture_q10", "loss/picture_q50", "loss/picture_max"),
    ):
        assert np.isfinite(last[name]), name
    assert any(name.startswith("targets/") for name in last)
    # Rows at step 14 and 16 are means over steps that all have the constant rate.
    assert [r["learning_rate"] for r in rows if r["step"] in (14, 16)] == [
        pytest.approx(0.005)
    ] * 2
    for name in ("results.png", "worst.png", "predictions.png"):
        assert (tmp_path / "run" / "plots" / name).stat().st_size
    worst = json.loads((tmp_path / "run" / "worst.json").read_text())
    losses = [row["loss"] for row in worst]
    assert len(losses) == 5 and losses == sorted(losses, reverse=True)
    assert {"name", "image_id", "boxes"} < worst[0].keys()
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    loaded = inference.load(tmp_path / "run")
    taken = "better than all before and is taken" in shown
    assert summary["weights"] == ("swa" if taken else "raw")
    assert loaded.step == summary["best_step"]
    # What was finished is not evaluated again.
    assert training.train(config, tmp_path / "run") == 0
    assert "is finished" in capsys.readouterr().out


@pytest.mark.slow
def test_without_val_the_mean_is_taken_and_patience_waits_for_the_loss(
    tmp_path, capsys
):
    config = tiny_config(
        epochs=4,
        data__val={},
        swa__epochs=3,
        early_stopping={"patience": 2, "metric": "loss", "min_change": 100.0},
    )
    assert training.train(config, tmp_path / "run") == 0
    shown = capsys.readouterr().out
    assert "stopped early at step 9: loss was no better 2 times in a row" in shown
    assert "SWA: the mean of 2 epochs is taken, not compared" in shown
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (summary["reason"], summary["weights"]) == ("patience", "swa")
    assert jax.tree.leaves(inference.load(tmp_path / "run").variables)
    assert training.train(config, tmp_path / "run") == 0
    assert "it stopped early" in capsys.readouterr().out
