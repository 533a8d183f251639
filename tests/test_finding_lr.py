"""The range test: the curve that it judges, and the rates that it takes."""

import numpy as np
import pytest

from tests.tiny import tiny_config
from yolojax import finding_lr
from yolojax.vis import rates as drawing


def valley(rates):
    """Flat, falling fastest at 1e-2, lowest at 1, then up."""
    place = np.log10(rates)
    return (
        1 - 0.5 * (1 + np.tanh(2 * (place + 2))) / 2 + 0.3 * np.maximum(place, 0) ** 2
    )


def test_the_steepest_and_the_lowest_place_are_found():
    rates = np.geomspace(1e-6, 10, 300)
    noise = np.random.default_rng(0).normal(size=300) * 0.003
    found = finding_lr.judge(rates, valley(rates) + noise)
    assert abs(np.log10(found.steepest) + 2) < 0.3
    assert abs(np.log10(found.lowest)) < 0.6
    assert found.tenth == found.lowest / 10
    np.testing.assert_allclose(found.smoothed[100], valley(rates)[100], atol=0.01)


def test_a_loss_that_only_rises_has_no_descent():
    rates = np.geomspace(1e-3, 1, 50)
    found = finding_lr.judge(rates, np.linspace(1, 2, 50))
    assert np.isnan(found.steepest) and found.lowest == pytest.approx(1e-3)


def test_the_rate_rises_by_one_factor_and_nothing_warms_up():
    run = finding_lr.rising(tiny_config(), low=1e-4, high=1e-1, steps=7)
    assert run.total_steps >= 7 and run.settings["stages"] == ()
    numbers = [run.optimizer.rates(step) for step in range(8)]
    for name in ("learning_rate", "learning_rate_bias"):
        got = [float(row[name]) for row in numbers]
        np.testing.assert_allclose(got, np.geomspace(1e-4, 1e-1, 8), rtol=1e-4)
    assert all(float(row["momentum"]) == np.float32(0.937) for row in numbers)


@pytest.mark.slow
def test_a_range_test_of_a_tiny_run_stops_where_the_loss_runs_away(tmp_path):
    settings = tiny_config(optim__clip_norm=0.0, data__train__length=64)
    found = finding_lr.find(settings, low=1e-4, high=1e3, steps=40)
    assert 5 <= len(found.rates) < 40
    np.testing.assert_allclose(
        found.rates[1] / found.rates[0], 10 ** (7 / 40), rtol=1e-3
    )
    path = drawing.plot_range_test(
        found.rates, found.losses, found.smoothed, {"x": 0.1}, tmp_path / "a.png"
    )
    assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(low=0.1, high=0.01, steps=9), "rise from above 0, not from 0.1 to 0.01"),
        (dict(low=0.1, high=1.0, steps=3), "at least 5 steps, not 3"),
    ],
)
def test_a_range_that_cannot_be_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        finding_lr.find(tiny_config(), **arguments)


def test_too_few_losses_are_refused():
    with pytest.raises(ValueError, match="ran away after 3 steps"):
        finding_lr.judge(np.geomspace(1, 2, 3), np.ones(3))
