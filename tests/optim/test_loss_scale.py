"""Dynamic loss scaling, alone and in the training step of a network in float16."""

import functools
import io

import jax.numpy as jnp
import numpy as np
import pytest

from tests import small
from yolojax.engine import loop
from yolojax.engine.progress import Progress
from yolojax.optim import loss_scale
from yolojax.optim.loss_scale import LossScaling


def states(finite, *, initial, growth_steps):
    state = loss_scale.init(initial)
    for flag in finite:
        state = loss_scale.update(state, jnp.bool_(flag), growth_steps=growth_steps)
        yield float(state["scale"]), int(state["good_steps"])


def test_it_halves_on_overflow_and_doubles_after_enough_good_steps():
    finite = [1, 1, 1, 0, 1, 0, 0, 1, 1, 1]
    expected = [
        *((8, 1), (8, 2), (16, 0), (8, 0), (8, 1)),
        *((4, 0), (2, 0), (2, 1), (2, 2), (4, 0)),
    ]
    assert list(states(finite, initial=8.0, growth_steps=3)) == expected


def test_it_stays_within_what_helps():
    assert list(states([0, 0], initial=2.0, growth_steps=1)) == [(1, 0), (1, 0)]
    ((scale, _),) = states([1], initial=2.0**126, growth_steps=1)
    assert scale == 2.0**126
    assert not loss_scale.can_fall(loss_scale.init(1.0))
    assert loss_scale.can_fall(loss_scale.init(2.0))


half = functools.partial(small.apply, dtype="float16")


def run(steps, initial, growth_steps=2000, **changes):
    scaling = LossScaling(initial, growth_steps)
    optimizer = small.make_optimizer(loss_scaling=scaling)
    return small.run(optimizer, steps, apply=half, **changes)


def column(found, name):
    return [float(row[name]) for row in found.numbers]


def test_the_search_for_the_first_scale_skips_steps_but_is_no_sign_of_trouble():
    found = run(12, 2.0**20)
    finite = column(found, "finite")
    skipped = finite.index(1.0)
    # Gradients of a few units overflow float16 (65504) above a scale of some 2^13.
    assert 4 <= skipped <= 9
    assert finite == [0.0] * skipped + [1.0] * (12 - skipped)
    assert column(found, "scale_fell") == [1 - f for f in finite]
    scales = [2.0 ** (20 - min(n, skipped)) for n in range(12)]
    assert column(found, "loss_scale") == scales
    state = found.state
    assert int(state.skipped) == skipped and int(state.skipped_in_a_row) == 0
    assert int(state.step) == 12 and int(state.ema_updates) == 12 - skipped


def test_the_loop_gives_up_on_a_broken_run_but_not_on_a_search():
    falling = {"finite": np.float32(0), "scale_fell": np.float32(1)}
    broken = {"finite": np.float32(0), "scale_fell": np.float32(0)}
    with io.StringIO() as file:
        shown = Progress(total_steps=40, steps_per_epoch=40, file=file)
        bad = []
        for number in range(20):
            loop._count_bad(bad, number, falling, shown)
        assert not bad
        for number in range(loop.MOST_BAD_STEPS - 1):
            loop._count_bad(bad, number, broken, shown)
        with pytest.raises(loop.NotFinite, match="10 times in a row"):
            loop._count_bad(bad, 9, broken, shown)


def test_a_loss_that_is_never_finite_counts_once_the_scale_is_at_its_end():
    def broken(*arrays):
        total, parts = small.loss(*arrays)
        return total * jnp.nan, parts

    found = run(6, 8.0, loss=broken)
    assert column(found, "scale_fell") == [1, 1, 1, 0, 0, 0]
    assert int(found.state.skipped) == 6
    assert int(found.state.skipped_in_a_row) == 3
    for kernel, name in zip(found.kernels, ("first", "second"), strict=True):
        before = small.variables()["params"][name]["kernel"]
        np.testing.assert_array_equal(kernel, before)


def test_gradients_below_float16_survive_by_the_scale():
    def faint(*arrays):
        total, parts = small.loss(*arrays)
        return total * 2.0**-24, parts

    def moved(found):
        before = small.variables()["params"]["first"]["kernel"]
        return np.abs(found.kernels[0] - before).max() / 2.0**-24

    fast = {"rate": 1.0}
    plain = small.run(small.make_optimizer(**fast), 1, apply=half, loss=faint)
    scaling = LossScaling(2.0**20)
    made = small.make_optimizer(**fast, loss_scaling=scaling)
    gradient = column(small.run(made, 1, apply=half, loss=faint), "gradient_norm")[0]
    start = small.variables()["params"]
    w = [start[k]["kernel"].astype(np.float64) for k in ("first", "second")]
    expected = 2.0**-24 * np.sqrt(sum(np.sum(g**2) for g in small.gradient(w, 0)))
    assert gradient == pytest.approx(expected, rel=1e-2)
    lost = column(plain, "gradient_norm")[0]
    assert abs(lost - expected) > 0.03 * expected
