"""Schedules against formulas in NumPy float64, and what is wrong with them."""

import math

import jax
import numpy as np
import pytest

from yolojax.optim import schedules

EPOCHS, STEPS, END = 12, 5, 0.1


def curve(name, *, final_ratio=END, momentum=0.9, **arguments):
    course = schedules.epoch_decay(
        name,
        final_ratio=final_ratio,
        steps_per_epoch=STEPS,
        epochs=EPOCHS,
        momentum=momentum,
        arguments=arguments,
    )
    steps = np.arange(EPOCHS * STEPS + 3)
    rates = np.asarray(jax.vmap(course.factor)(steps), np.float64)
    momenta = np.asarray(jax.vmap(lambda s: course.momentum(s))(steps), np.float64)
    return rates, momenta


def between_epochs(formula):
    epoch = np.minimum(np.arange(EPOCHS * STEPS + 3) // STEPS, EPOCHS)
    return np.array([formula(e) for e in epoch])


def in_every_step(formula):
    done = np.minimum(np.arange(EPOCHS * STEPS + 3) / STEPS, EPOCHS)
    return np.array([formula(e) for e in done])


def wave(share, low):
    return low + (1 - low) * (1 + np.cos(np.pi * share)) / 2


def restarts(epoch, period, growth):
    start, length = 0.0, period
    while start + length <= epoch and start + length < EPOCHS:
        start, length = start + length, length * growth
    return wave((epoch - start) / length, END)


def cycle(epoch, rise=0.3, first=0.04):
    share = epoch / EPOCHS
    if share < rise:
        return wave(1 - share / rise, first)
    return wave((share - rise) / (1 - rise), END)


def line(epoch, rise, fall):
    share = epoch / EPOCHS
    up = min(share / rise, 1) if rise else 1
    return min(up, END + (1 - END) * min((1 - share) / fall, 1))


@pytest.mark.parametrize(
    "name, arguments, expected",
    [
        ("step", dict(milestones=(3, 7)), lambda e: 0.1 ** (int(e >= 3) + int(e >= 7))),
        ("step", dict(every=5, factor=0.5), lambda e: 0.5 ** (min(e, 11) // 5)),
        ("exponential", {}, lambda e: END ** (e / EPOCHS)),
        ("exponential", dict(factor=0.9), lambda e: 0.9**e),
        ("polynomial", {}, lambda e: END + (1 - END) * (1 - e / EPOCHS) ** 2),
        ("polynomial", dict(power=0.5), lambda e: END + 0.9 * (1 - e / 12) ** 0.5),
        ("cosine_restarts", dict(period=4), lambda e: restarts(e, 4, 1)),
        ("cosine_restarts", dict(period=2, growth=2.0), lambda e: restarts(e, 2, 2)),
        ("reduce_on_plateau", {}, lambda e: 1.0),
        ("trapezoid", dict(per_step=False), lambda e: line(e, 0, 0.2)),
    ],
)
def test_between_epochs_it_is_the_formula(name, arguments, expected):
    rates, momenta = curve(name, **arguments)
    np.testing.assert_allclose(rates, between_epochs(expected), rtol=2e-5, atol=1e-6)
    np.testing.assert_allclose(momenta, 0.9, rtol=1e-6)


@pytest.mark.parametrize(
    "name, arguments, expected",
    [
        ("cosine", dict(per_step=True), lambda e: wave(e / EPOCHS, END)),
        ("one_cycle", {}, cycle),
        ("one_cycle", dict(rise=0.5, start_ratio=0.2), lambda e: cycle(e, 0.5, 0.2)),
        ("trapezoid", dict(rise=0.25, fall=0.5), lambda e: line(e, 0.25, 0.5)),
    ],
)
def test_in_every_step_it_is_the_formula(name, arguments, expected):
    rates, _ = curve(name, **arguments)
    np.testing.assert_allclose(rates, in_every_step(expected), rtol=2e-5, atol=1e-6)


def test_the_momentum_of_one_cycle_moves_against_the_rate():
    rates, momenta = curve("one_cycle", momentum=0.95, lowest_momentum=0.8, rise=0.4)
    top = round(0.4 * EPOCHS * STEPS)
    assert momenta.argmin() == rates.argmax() == top
    np.testing.assert_allclose(momenta[[0, top, -1]], [0.95, 0.8, 0.95], rtol=1e-6)
    # Half way up the rate, the momentum is half way down.
    np.testing.assert_allclose(momenta[top // 2], 0.875, rtol=1e-6)


@pytest.mark.parametrize("name", sorted(schedules.SCHEDULES))
def test_every_schedule_is_at_most_1_and_stays_after_the_last_epoch(name):
    arguments = {"every": 3} if name == "step" else {}
    rates, _ = curve(name, **arguments)
    assert np.isfinite(rates).all() and rates.max() == pytest.approx(1.0)
    assert (rates[-3:] == rates[-1]).all()


@pytest.mark.parametrize(
    "name, arguments, message",
    [
        ("step", {}, "either milestones or every"),
        ("step", dict(every=3, milestones=(2,)), "either milestones or every"),
        ("step", dict(milestones=(3, 12)), "at epoch 12, but the run has 12 epochs"),
        ("step", dict(every=12), "at epoch 12, but the run has 12 epochs"),
        ("step", dict(milestones=(7, 3)), "must be above 0 and rise"),
        ("step", dict(milestone=(7, 3)), "'milestone'. Did you mean 'milestones'"),
        ("step", dict(every="3"), "of the wrong kind"),
        ("cosine_restarts", dict(period=13), "period of 13 epochs.*run has 12 epochs"),
        ("cosine_restarts", dict(growth=0.5), "growth is at least 1"),
        ("one_cycle", dict(rise=1.2), "rise must lie between 0 and 1, not 1.2"),
        ("trapezoid", dict(rise=0.5, fall=0.6), "more than all of it"),
        ("polynomial", dict(power=0.0), "power must be above 0"),
        ("exponential", dict(factor=-1.0), "factor above 0, not -1.0"),
        ("linear", dict(factor=0.5), "schedule 'linear' has no argument 'factor'"),
    ],
)
def test_a_schedule_that_cannot_be_is_refused(name, arguments, message):
    with pytest.raises(ValueError, match=message):
        curve(name, **arguments)


def test_an_exponential_end_of_zero_needs_a_factor():
    with pytest.raises(ValueError, match="final_ratio above 0, not 0.0"):
        curve("exponential", final_ratio=0.0)
    rates, _ = curve("exponential", final_ratio=0.0, factor=0.5)
    assert math.isclose(rates[-1], 0.5**12, rel_tol=1e-5)
