"""Schedules against the published values and the published rule."""

import jax
import numpy as np
import pytest

from tests.shared import shared
from yolojax.optim import schedules


def reference_accumulation(batch, nominal, warmup, steps):
    """The published loop: period per iteration and whether the optimiser stepped."""
    last, period, rows = -1, max(round(nominal / batch), 1), []
    for step in range(steps):
        if warmup and step <= warmup:
            ramp = np.interp(step, [0, warmup], [1, nominal / batch])
            period = max(1, int(np.round(ramp)))
        stepped = step - last >= period
        last = step if stepped else last
        rows.append((period, stepped))
    return np.asarray(rows)


@pytest.mark.parametrize(
    "name, golden", [("linear", "lr_linear10"), ("cosine", "lr_cos10")]
)
def test_decay_over_ten_epochs_is_the_published_one(name, golden):
    expected = np.load(shared("golden", "misc.npz"))[golden]
    factor, _ = schedules.epoch_decay(
        name, final_ratio=0.01, steps_per_epoch=3, epochs=10
    )
    got = [factor(3 * epoch) for epoch in range(11)]
    np.testing.assert_allclose(got, expected, atol=2e-7)


@pytest.mark.parametrize("name", ("constant", "cosine", "linear"))
def test_decay_changes_between_epochs_only_and_stays_after_the_last(name):
    factor, _ = schedules.epoch_decay(
        name, final_ratio=0.1, steps_per_epoch=4, epochs=5
    )
    got = np.asarray(jax.vmap(factor)(np.arange(40)))
    np.testing.assert_array_equal(got[:20], np.repeat(got[:20:4], 4))
    np.testing.assert_array_equal(got[20:], got[20])
    assert got[0] == 1.0
    np.testing.assert_allclose(got[20], 1.0 if name == "constant" else 0.1, atol=1e-7)


def test_warm_up_is_exact_at_both_ends_and_linear_between():
    def value(step):
        return schedules.warm_up(step, start=0.1, end=0.03, warmup_steps=7)

    assert value(0) == np.float32(0.1)
    assert value(7) == np.float32(0.03)
    assert value(1000) == np.float32(0.03)
    np.testing.assert_allclose(value(3), 0.1 + (0.03 - 0.1) * 3 / 7, rtol=1e-6)


def test_no_warm_up_gives_the_final_value_at_once():
    assert schedules.warm_up(0, start=0.1, end=0.03, warmup_steps=0) == np.float32(0.03)


@pytest.mark.parametrize(
    "batch, nominal, warmup",
    [(8, 64, 100), (16, 64, 100), (3, 64, 40), (1, 64, 10), (24, 64, 0), (8, 20, 37)]
    + [(64, 64, 100), (128, 64, 100), (2, 64, 3)],
)
def test_accumulation_follows_the_published_loop(batch, nominal, warmup):
    plan = schedules.plan_accumulation(
        batch_size=batch, nominal_batch=nominal, warmup_steps=warmup
    )
    expected = reference_accumulation(batch, nominal, warmup, 300)
    steps = np.arange(300)
    np.testing.assert_array_equal(jax.vmap(plan.count)(steps), expected[:, 0])
    np.testing.assert_array_equal(jax.vmap(plan.stepped)(steps), expected[:, 1])
    assert plan.largest == expected[:, 0].max()


def test_a_step_is_never_summed_where_the_batch_is_the_nominal_one():
    plan = schedules.plan_accumulation(
        batch_size=64, nominal_batch=64, warmup_steps=100
    )
    assert plan.largest == 1


def test_unknown_schedule_names_the_nearest_one():
    with pytest.raises(ValueError, match="Did you mean 'cosine'"):
        schedules.epoch_decay("cosin", final_ratio=0.1, steps_per_epoch=1, epochs=1)


@pytest.mark.parametrize("counts", [(0, 3), (3, 0)], ids=["steps", "epochs"])
def test_an_empty_epoch_or_run_is_refused(counts):
    steps_per_epoch, epochs = counts
    with pytest.raises(ValueError, match="is 0; expected at least 1"):
        schedules.epoch_decay(
            "linear", final_ratio=0.1, steps_per_epoch=steps_per_epoch, epochs=epochs
        )


def test_an_empty_batch_is_refused():
    with pytest.raises(ValueError, match="batch_size is 0 and nominal_batch 64"):
        schedules.plan_accumulation(batch_size=0, nominal_batch=64, warmup_steps=0)


def test_a_held_course_has_one_factor_from_its_start_on():
    course = schedules.epoch_decay(
        "linear", final_ratio=0.1, steps_per_epoch=2, epochs=5, momentum=0.9
    )
    held = schedules.held(course, 6, 0.5)
    for step in range(12):
        expected = 0.5 if step >= 6 else course.factor(step)
        assert float(held.factor(step)) == float(expected)
        assert float(held.momentum(step)) == float(course.momentum(step))
