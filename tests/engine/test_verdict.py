import numpy as np
import pytest

from yolojax.engine import verdict

FALLING = np.linspace(2.0, 1.0, 20)
FLAT = np.full(20, 1.0)
# Down for half of the run, then up again.
VALLEY = np.abs(np.linspace(-1.0, 1.0, 20)) + 1.0


@pytest.mark.parametrize(
    "train, val, metric, name",
    [
        (FALLING, VALLEY, (), "over-fitting"),
        (FALLING, FALLING, (), "still improving"),
        (FALLING, FLAT, np.linspace(0, 0.5, 20), "still improving"),
        (FLAT, 0.9 * FLAT, 0.96 * FLAT, "under-fitting"),
        (FLAT, 1.1 * FLAT, 0.96 * FLAT, "over-fitting"),
        # Label smoothing keeps both losses up.
        (FLAT, 0.9 * FLAT, 0.98 * FLAT, "good enough"),
        (FLAT, 1.1 * FLAT, FLAT, "good enough"),
        # Of a metric that has no value yet nothing is known.
        (FLAT, 0.9 * FLAT, np.full(20, np.nan), "under-fitting"),
        # Both rise: that is no over-fitting but a run that diverges.
        (VALLEY, VALLEY - 0.5, (), "under-fitting"),
        (FALLING[:7], VALLEY[:7], (), "too short to say"),
        (FALLING, np.full(20, np.nan), (), "too short to say"),
    ],
    ids=[
        *("valley", "falling", "metric", "flat", "gap", "good", "perfect"),
        *("no metric", "diverging", "short", "nan"),
    ],
)
def test_the_verdict_on_made_up_curves(train, val, metric, name):
    found = verdict.judge_curves(train, val, metric)
    assert found.name == name
    assert name in found.text() and "Rule" in found.text()


def test_single_values_that_are_not_finite_are_passed_over():
    train, val = FALLING.copy(), FALLING.copy()
    train[3], val[19] = np.nan, np.inf
    assert verdict.judge_curves(train, val).name == "still improving"


def test_noise_below_the_rise_is_no_over_fitting():
    noisy = 0.5 + 0.02 * np.resize([1, -1], 24)
    falling = np.linspace(2.0, 1.0, 24)
    assert verdict.judge_curves(falling, noisy).name == "under-fitting"


def test_the_training_loss_is_the_mean_since_the_last_evaluation():
    rows = [
        {"step": 1, "loss": 4.0},
        {"step": 2, "loss": 2.0, "val/loss": 1.5, "val/mAP50_95": 0.1},
        {"step": 3, "time/step": 0.1},
        {"step": 4, "loss": 1.0},
        {"step": 5, "val/loss": 1.25},
    ]
    train, val, metric = verdict.curves_of(rows, "val/mAP50_95")
    assert (train, val, metric[0]) == ([3.0, 1.0], [1.5, 1.25], 0.1)
    assert np.isnan(metric[1])


def test_epochs_without_a_row_of_the_log_count_by_their_means():
    rows = [
        {"step": 3, "epoch_loss": 3.0, "val/loss": 2.5},
        {"step": 5, "loss": 9.0},
        {"step": 6, "epoch_loss": 2.0},
        {"step": 9, "epoch_loss": 1.0, "val/loss": 1.5},
        {"step": 10, "loss": 0.5, "val/loss": 1.25},
        {"step": 11, "val/loss": 1.25},
    ]
    train, val, _ = verdict.curves_of(rows)
    np.testing.assert_array_equal(train, [3.0, 1.5, 0.5, np.nan])
    assert val == [2.5, 1.5, 1.25, 1.25]


def test_curves_of_other_lengths_are_refused():
    with pytest.raises(ValueError, match="lengths differ: 2 train, 3 val"):
        verdict.judge_curves([1, 2], [1, 2, 3])


def test_how_to_go_on_stands_between_the_advice_and_the_rule():
    found = verdict.judge_curves(FALLING, FALLING)
    lines = found.text("command --config.epochs=20\nand what it does").splitlines()
    assert lines[0].endswith("What may help: more epochs.")
    assert lines[1:3] == ["  command --config.epochs=20", "  and what it does"]
    assert lines[3].startswith("  Rule")
