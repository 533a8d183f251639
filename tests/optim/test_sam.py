"""Sharpness-aware minimisation: against two steps by hand, and on known minima."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import small
from yolojax.engine import sharding
from yolojax.engine.step import LookStep
from yolojax.optim import sam
from yolojax.optim.loss_scale import LossScaling

METHODS = {
    "sam": dict(name="sam", rho=0.3),
    "asam": dict(name="asam", rho=0.4, eta=0.02),
    "gsam": dict(name="gsam", rho=0.3, alpha=0.4),
    "gsam_falling": dict(name="gsam", rho=0.4, rho_min=0.1, alpha=0.4),
    "looksam": dict(name="looksam", rho=0.3, k=3, alpha=0.7),
}


def norm(vector):
    return np.sqrt(sum(np.sum(v * v) for v in vector))


def dot(one, other):
    return sum(np.sum(a * b) for a, b in zip(one, other, strict=True))


def add(one, other, factor):
    return [a + factor * b for a, b in zip(one, other, strict=True)]


class Reference:
    """The published algorithms in float64, on the network of `tests.small`."""

    def __init__(self, chosen):
        self.chosen = chosen
        self.side = None

    def gradient(self, w, number):
        c, g = self.chosen, small.gradient(w, number)
        if c["name"] == "sam":
            return small.gradient(add(w, g, c["rho"] / norm(g)), number)
        if c["name"] == "asam":
            size = [np.abs(x) + c["eta"] for x in w]
            length = norm([s * x for s, x in zip(size, g, strict=True)])
            step = [s**2 * x for s, x in zip(size, g, strict=True)]
            return small.gradient(add(w, step, c["rho"] / length), number)
        if c["name"] == "gsam":
            # The rate is half of the peak.
            rho = (c["rho"] + c["rho_min"]) / 2 if "rho_min" in c else c["rho"]
            worst = small.gradient(add(w, g, rho / norm(g)), number)
            across = add(g, worst, -dot(g, worst) / dot(worst, worst))
            return add(worst, across, -c["alpha"])
        if number % c["k"]:
            return add(g, self.side, c["alpha"] * norm(g) / norm(self.side))
        worst = small.gradient(add(w, g, c["rho"] / norm(g)), number)
        cosine = dot(g, worst) / norm(g) / norm(worst)
        self.side = add(worst, g, -norm(worst) * cosine / norm(g))
        return worst


@functools.cache
def run(name, **changes):
    method = sam.make_sam(METHODS[name], peak=2 * small.RATE)
    optimizer = small.make_optimizer(sam=method, **changes)
    return small.run(optimizer, 6)


@pytest.mark.parametrize("name", METHODS)
def test_steps_are_those_of_the_published_algorithm(name):
    start = small.variables()["params"]
    w = [start[k]["kernel"].astype(np.float64) for k in ("first", "second")]
    reference = Reference(METHODS[name])
    for number in range(6):
        w = add(w, reference.gradient(w, number), -small.RATE)
    for found, expected in zip(run(name).kernels, w, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


def test_each_accumulated_gradient_is_that_of_its_own_batch():
    start = small.variables()["params"]
    w = [start[k]["kernel"].astype(np.float64) for k in ("first", "second")]
    reference = Reference(METHODS["sam"])
    for number in range(0, 6, 2):
        parts = (reference.gradient(w, n) for n in (number, number + 1))
        w = add(w, add(*parts, 1.0), -small.RATE)
    for found, expected in zip(run("sam", every=2).kernels, w, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", METHODS)
def test_the_first_pass_alone_moves_statistics_and_gives_the_loss(name):
    plain = small.run(small.make_optimizer(), 1)
    one = run(name)
    assert one.numbers[0]["loss"] == plain.numbers[0]["loss"]
    means = [small.batch(n).image.mean(axis=(0, 1, 2)) for n in range(6)]
    expected = sum(0.1 * 0.9 ** (5 - n) * mean for n, mean in enumerate(means))
    stats = one.state.batch_stats["first"]["mean"]
    np.testing.assert_allclose(stats, expected, rtol=1e-6)


@pytest.mark.parametrize("name", ["asam", "looksam"])
def test_four_devices_and_a_loss_scale_change_nothing(name):
    method = sam.make_sam(METHODS[name], peak=2 * small.RATE)
    mesh = sharding.make_mesh(4)
    spread = small.run(
        small.make_optimizer(sam=method), 6, put=lambda b: sharding.put_batch(b, mesh)
    )
    scaling = LossScaling(initial=1024.0, growth_steps=2)
    scaled = small.run(small.make_optimizer(sam=method, loss_scaling=scaling), 6)
    for other in (spread, scaled):
        for found, expected in zip(other.kernels, run(name).kernels, strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert scaled.state.loss_scale["scale"] == 8192


def test_the_second_gradient_stands_in_a_condition():
    method = sam.make_sam(METHODS["looksam"])
    w = {"kernel": jnp.ones(3)}

    def update(w, state, step):
        return method.gradient(
            w, jax.grad(lambda x: jnp.sum(jnp.sin(x["kernel"]))), w, state,
            step=step, share=1.0,
        )  # fmt: skip

    equations = jax.make_jaxpr(update)(w, method.init(w), 0).jaxpr.eqns
    (condition,) = [e for e in equations if e.primitive.name == "cond"]
    assert "cos" not in {e.primitive.name for e in equations}
    reuse, look = (str(branch) for branch in condition.params["branches"])
    assert "cos" in look and "cos" not in reuse


def test_a_step_for_each_kind_of_iteration_is_the_one_that_tells_them_apart():
    method = sam.make_sam(METHODS["looksam"])
    assert method.period == 3
    w, state = jnp.arange(1.0, 4.0), method.init(jnp.ones(3))
    slope = jax.grad(lambda x: jnp.sum(jnp.sin(x)))
    for number in range(5):
        both = [
            method.gradient(
                slope(w), slope, w, state, step=number, share=1.0, look=look
            )
            for look in (None, number % 3 == 0)
        ]
        for one, other in zip(*map(jax.tree.leaves, both), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
        w, state = w - 0.1 * both[0][0], both[0][1]
    step = LookStep(FakeStep("look"), FakeStep("between"), 3)
    assert [step.at(n)(0, 0) for n in range(4)] == ["look", *["between"] * 2, "look"]
    assert step.lower() == "look"


class FakeStep:
    def __init__(self, name):
        self.name = name

    def lower(self):
        return self.name

    def __call__(self, state, batch):
        return self.name


# Two minima of value 0 at y = 10; across, along y, one is curved by 50, one by 4.5.
# Far from the origin, where ASAM's step is equally long in all directions.
SHARP, FLAT = 10.0, 13.0


def landscape(w):
    x, y = w[0] - 10, w[1] - 10
    curvature = 50 * jnp.exp(-0.8 * x)
    return 0.5 * curvature * y**2 + 0.05 * (x * (x - 3)) ** 2


@pytest.mark.parametrize("start", [(9.8, 10.2), (10.3, 9.9)])
@pytest.mark.parametrize("name", ["none", "sam", "asam", "gsam", "looksam"])
def test_plain_descent_ends_in_the_sharp_minimum_and_sam_in_the_flat_one(name, start):
    chosen = METHODS.get(name, {}) | ({"rho": 0.03} if name == "asam" else {})
    method = sam.make_sam(chosen)

    def step(number, carry):
        w, state = carry
        grads = jax.grad(landscape)(w)
        if method is not None:
            grads, state = method.gradient(
                grads, jax.grad(landscape), w, state, step=number, share=1.0
            )
        return w - 0.01 * grads, state

    w = jnp.asarray(start, jnp.float32)
    state = method.init(w) if method is not None else ()
    w, _ = jax.jit(lambda c: jax.lax.fori_loop(0, 3000, step, c))((w, state))
    assert abs(float(w[0]) - (SHARP if method is None else FLAT)) < 0.4


@pytest.mark.parametrize(
    "chosen, message",
    [
        (dict(rho=0.1), "config.optim.sam needs name"),
        (dict(name="san"), "no SAM method named 'san'. Did you mean 'sam'"),
        (dict(name="sam", roh=1), "no argument 'roh'. Did you mean 'rho'"),
        (dict(name="sam", rho=-1.0), "rho must be a number, at least 0, not -1.0"),
        (dict(name="looksam", k=0), "k must be a whole number, at least 1, not 0"),
        (dict(name="sam", alpha=1.0), "no argument 'alpha'"),
    ],
)
def test_what_is_wrong_is_said(chosen, message):
    with pytest.raises(ValueError, match=message):
        sam.make_sam(chosen)


def test_nothing_chosen_is_nothing():
    assert sam.make_sam({}) is None
