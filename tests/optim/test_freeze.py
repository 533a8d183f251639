"""Frozen parameters: which they are, that they stay, and what they no longer cost."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import small
from yolojax.engine.step import init_state, make_train_step
from yolojax.models.detector import build_model
from yolojax.optim import freeze
from yolojax.optim.build import build_optimizer
from yolojax.optim.freeze import Frozen, find_frozen
from yolojax.weights.mapping import layer_numbers

MODEL = build_model("yolov5n", num_classes=2, width=0.125)
NUMBERS = layer_numbers(MODEL)


def found(**chosen):
    return find_frozen(MODEL.shapes(), NUMBERS, **chosen)


def test_the_first_ten_layers_of_a_yolov5_are_its_backbone():
    frozen = found(layers=10)
    paths = freeze.flatten(MODEL.shapes()["params"])
    assert frozen.parameters == {p for p in paths if p.startswith("backbone/")}
    norms = freeze.flatten(MODEL.shapes()["batch_stats"])
    owners = {p.rpartition("/")[0] for p in norms if p.startswith("backbone/")}
    assert frozen.norms == owners and len(owners) > 20
    assert found(layers=10, statistics=False).norms == frozenset()


def test_patterns_and_layers_add_up_and_half_a_normalisation_goes_on():
    frozen = found(layers=1, match=("^neck/.*/kernel$", "^backbone/down2/norm/scale"))
    stem = {
        f"backbone/stem/{end}" for end in ("conv/kernel", "norm/scale", "norm/bias")
    }
    assert stem < frozen.parameters
    assert "backbone/down2/norm/scale" in frozen.parameters
    assert frozen.norms == {"backbone/stem/norm"}
    assert found() == Frozen()


def test_layers_of_darknet_networks_have_the_numbers_of_their_sections():
    numbers = layer_numbers(build_model("yolov3-tiny", num_classes=2))
    assert numbers["body/layer0"] == 0
    # The first map, [convolutional] 15 counted from 0, and [yolo] after it.
    assert numbers["head/layer15"] == 15


@pytest.mark.parametrize(
    "chosen, message",
    [
        (dict(match=("^backbne/",)), r"config.freeze.match: '\^backbne/' matches no"),
        (dict(match=("(",)), r"'\(' is no regular expression"),
        (dict(layers=25), r"layers is 25, but the network has 25 layers \(0 to 24\)"),
        (dict(match=("",)), "config.freeze freezes all parameters"),
    ],
)
def test_what_is_wrong_is_said(chosen, message):
    with pytest.raises(ValueError, match=message):
        found(**chosen)


def test_what_was_split_is_put_together_again():
    params = small.variables()["params"]
    kept, leaves = freeze.split(params, {"first/kernel"})
    assert list(leaves) == ["first/kernel"] and list(kept) == ["second"]
    whole = freeze.merge(kept, leaves)
    assert whole["first"]["kernel"] is params["first"]["kernel"]
    assert freeze.split(params, ()) == (params, {})


FIRST = frozenset({"first/kernel"})


@functools.cache
def run(norms):
    frozen = Frozen(FIRST, frozenset({"first"} if norms else ()))
    return small.run(small.make_optimizer(frozen=frozen), 5)


@pytest.mark.parametrize("norms", [True, False])
def test_frozen_parameters_and_their_average_keep_every_bit(norms):
    start = small.variables()
    state = run(norms).state
    before = start["params"]["first"]["kernel"]
    for params in (state.params, state.ema["params"]):
        np.testing.assert_array_equal(params["first"]["kernel"], before)
        assert np.all(params["second"]["kernel"] != start["params"]["second"]["kernel"])
    assert int(state.ema_updates) == 5
    moved = np.any(state.batch_stats["first"]["mean"] != 0)
    assert moved == (not norms)
    assert np.any(state.ema["batch_stats"]["first"]["mean"] != 0) == (not norms)


def test_the_rest_is_trained_as_if_the_frozen_were_constants():
    start = small.variables()["params"]
    w = [start[k]["kernel"].astype(np.float64) for k in ("first", "second")]
    for number in range(5):
        w[1] = w[1] - small.RATE * small.gradient(w, number)[1]
    np.testing.assert_allclose(run(False).kernels[1], w[1], rtol=1e-6, atol=1e-6)


def test_an_average_that_lags_behind_frozen_parameters_goes_on_to_them():
    made = small.make_optimizer(frozen=Frozen(FIRST))
    state = init_state(small.variables(), made)
    state.ema["params"]["first"]["kernel"] += 1.0
    step = make_train_step(
        apply=small.apply, loss=small.loss, optimizer=made,
        augment=lambda key, batch, **_: (batch, jnp.int32(0)),
        ema_decay=0.5, ema_ramp=1e-3, mosaic_steps=0, total_steps=1, seed=0,
    )  # fmt: skip
    new, _ = jax.jit(step)(state, small.batch(0))
    lag = new.ema["params"]["first"]["kernel"] - new.params["first"]["kernel"]
    np.testing.assert_allclose(lag, 0.5, rtol=1e-5)


def step_of(frozen):
    """A lowered step of the network without loss and data, and its optimiser state."""
    trained, _ = freeze.split(MODEL.shapes()["params"], frozen.parameters)
    made = build_optimizer(trained, batch_size=2, steps_per_epoch=1, epochs=1)
    made = made._replace(frozen=frozen)
    step = make_train_step(
        apply=MODEL.apply,
        loss=lambda maps, *_: (sum(jnp.mean(jnp.square(m)) for m in maps), {}),
        optimizer=made,
        augment=lambda key, batch, **_: (batch, jnp.int32(0)),
        ema_decay=0.9, ema_ramp=4.0, mosaic_steps=0, total_steps=1, seed=0,
    )  # fmt: skip
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), MODEL.shapes())
    state = jax.eval_shape(lambda: init_state(zeros, made))
    batch = small.batch(0)._replace(image=np.zeros((2, 64, 64, 3), np.float32))
    return jax.jit(step).lower(state, batch), state


@pytest.mark.slow
def test_a_frozen_backbone_costs_no_gradient_and_no_memory_of_the_optimiser():
    leaves = freeze.flatten(MODEL.shapes()["params"])
    sizes = {path: int(np.prod(leaf.shape)) for path, leaf in leaves.items()}
    forward = jax.jit(lambda v, x: MODEL.apply(v, x, train=False)[0])
    image = jax.ShapeDtypeStruct((2, 64, 64, 3), "float32")

    def flops(lowered):
        # Counted before code is made, which need not be quick.
        options = {"xla_backend_optimization_level": 0}
        return lowered.compile(compiler_options=options).cost_analysis()["flops"]

    once = flops(forward.lower(MODEL.shapes(), image))
    full, whole = step_of(Frozen())
    frozen, part = step_of(found(layers=10))
    head, _ = step_of(found(layers=24))

    def held(state):
        return sum(int(np.prod(x.shape)) for x in jax.tree.leaves(state.opt_state))

    backbone = sum(n for p, n in sizes.items() if p.startswith("backbone/"))
    # Momentum and, at 2 of 64 pictures, the accumulated gradient.
    assert held(whole) - held(part) == 2 * backbone
    # A forward pass and twice that for the gradients, of what is trained alone.
    assert flops(full) > 2.5 * once
    assert flops(frozen) < 0.75 * flops(full)
    assert flops(head) < 1.4 * once
