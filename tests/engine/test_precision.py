"""Half precision: which arrays have it, and that training does not notice."""

import collections
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.tiny import DESCRIPTION, tiny_config
from yolojax import experiment, recipe, training
from yolojax.engine import sharding
from yolojax.engine.step import init_state
from yolojax.models.attention import AttentionLayer
from yolojax.network import make_mesh, make_model
from yolojax.records import Batch

HALVES = ("float16", "bfloat16")
ROWS, SIZE, BOXES = 8, 64, 8
# Where a float32 array becomes a half one or the reverse, forward and backward.
PLACES = {
    "models/network.py Network.apply",  # the pictures
    "models/layers.py Conv._convolved",  # kernels
    "models/layers.py BatchNorm.__call__",  # in float32 inside
    "models/yolov5.py AnchorHead.__call__",  # the raw maps
    "linen/dtypes.py promote_dtype",  # kernel and bias of the head
}


def traced(dtype):
    """The step's jaxpr, and the shapes of the state before and after it."""
    settings = tiny_config(dtype=dtype)
    model, mesh = make_model(settings), make_mesh(settings)
    step, optimizer = recipe.make_step(
        settings, model, mesh, max_boxes=BOXES, steps_per_epoch=3
    )
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), model.shapes())
    state = jax.eval_shape(lambda: init_state(zeros, optimizer))
    shapes = {
        "image": ((ROWS, SIZE, SIZE, 3), "uint8"),
        "size": ((ROWS, 2), "int32"),
        "boxes": ((ROWS, BOXES, 4), "float32"),
        "labels": ((ROWS, BOXES), "int32"),
        "valid": ((ROWS, BOXES), "bool"),
        "image_id": ((ROWS,), "int32"),
        "origin": ((ROWS, 4), "float32"),
    }
    batch = Batch(**{k: jax.ShapeDtypeStruct(*v) for k, v in shapes.items()})
    jaxpr, (after, numbers) = jax.make_jaxpr(step, return_shape=True)(state, batch)
    return jaxpr.jaxpr, state, after, numbers


def equations(jaxpr):
    """All equations that hold none themselves."""
    for equation in jaxpr.eqns:
        inner = [
            getattr(value, "jaxpr", value)
            for value in jax.tree.leaves(
                list(equation.params.values()),
                is_leaf=lambda x: hasattr(x, "eqns") or hasattr(x, "jaxpr"),
            )
            if hasattr(value, "eqns") or hasattr(value, "jaxpr")
        ]
        if not inner:
            yield equation
        for part in inner:
            yield from equations(part)


def floats(variables):
    types = {getattr(v.aval, "dtype", jnp.dtype("int32")) for v in variables}
    return {str(t) for t in types if jnp.issubdtype(t, jnp.floating)}


def place(equation):
    """The innermost function of yolojax or flax that the equation comes from."""
    trace = equation.source_info.traceback
    for frame in trace.frames if trace is not None else ():
        name = "/".join(frame.file_name.split("/")[-2:])
        if name.startswith(("models/", "losses/", "optim/", "engine/", "linen/dtypes")):
            return f"{name} {frame.function_name.split('.<locals>')[0]}"
    return ""


@pytest.mark.parametrize("dtype", HALVES)
def test_only_the_network_computes_in_half_precision_and_all_else_is_float32(dtype):
    jaxpr, state, after, numbers = traced(dtype)
    converting, computing, unknown = set(), collections.Counter(), set()
    for equation in equations(jaxpr):
        before, now = floats(equation.invars), floats(equation.outvars)
        if dtype not in before | now:
            continue
        where = place(equation)
        computing[where.partition("/")[0]] += 1
        if before and now and before != now:
            assert equation.primitive.name == "convert_element_type", equation
            converting.add(where)
        if not where:
            unknown.add(equation.primitive.name)
    assert converting - {""} == PLACES
    # What the backward pass adds by itself has no place: sums of cotangents and the
    # conversions of the head's parameters.
    assert computing.keys() <= {"models", "linen", ""}, computing
    assert computing["models"] > 500
    for tree in (state, after):
        counts = {"step", "ema_updates", "skipped", "skipped_in_a_row"}
        for name, part in tree._asdict().items():
            kinds = {str(leaf.dtype) for leaf in jax.tree.leaves(part)}
            expected = {"int32"} if name in counts else {"float32"}
            if name == "loss_scale":
                expected = {"float32", "int32"} if dtype == "float16" else set()
            assert kinds <= expected, name
    kinds = {k: str(v.dtype) for k, v in numbers.items() if v.dtype != jnp.float32}
    assert kinds == {"image_id": "int32"}


def test_attention_s_logits_may_leave_the_range_of_float16():
    channels, pixels = 64, 4
    layers = {d: AttentionLayer(num_heads=1, dtype=d) for d in ("float16", "float32")}
    x = np.full((1, pixels, channels), 40.0, np.float32)
    x[0, 1:] *= 0.5
    params = layers["float32"].init(jax.random.key(0), jnp.asarray(x))["params"]
    eye = np.eye(channels, dtype=np.float32)
    for name in ("query", "key", "value", "out_projection"):
        params[name]["kernel"] = eye
    params["in_projection"]["kernel"] = np.concatenate([eye] * 3, axis=1)
    # 64 x 40 x 40 is above 65504.
    half, whole = (
        layers[d].apply({"params": params}, jnp.asarray(x, d))
        for d in ("float16", "float32")
    )
    np.testing.assert_allclose(np.float32(half), whole, rtol=2e-3)

    def total(params):
        return jnp.sum(layers["float16"].apply({"params": params}, jnp.float16(x)))

    grads = jax.grad(lambda p: total(p).astype(jnp.float32))(params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))


STEPS, SEEDS = 200, 4


def digits_run(dtype):
    digits = {"source": "digits", "size": 64}
    return experiment.build(
        tiny_config(
            batch_size=16,
            epochs=STEPS // 10,
            dtype=dtype,
            model={"name": "yaml", "description": DESCRIPTION},
            augment__policy=(),
            data__train={**digits, "split": "train", "length": 160},
            data__val={**digits, "split": "val", "length": 64},
            optim__name="adamw",
            optim__nominal_batch=16,
            optim__warmup_min_steps=20,
        )
    )


def trained(run, seed, spoil=lambda state: state):
    """Training loss of all steps and the state at the end; one compile for all seeds.

    The seed decides the first weights and the order of the pictures.
    """
    state = init_state(run.model.init(seed), run.optimizer)
    state = sharding.put_replicated(state, run.mesh)
    seeded = dataclasses.replace(run, settings={**run.settings, "seed": seed})
    batches, losses = seeded.train_batches(), []
    for number in range(STEPS):
        batch = sharding.put_batch(next(batches), run.mesh)
        state, numbers = run.step_at(number)(state, batch)
        state = spoil(state)
        losses.append(numbers["loss"])
    return np.array(jax.device_get(losses)), state


@jax.jit
def with_half_optimizer(state):
    def rounded(x):
        half = x.astype(jnp.float16).astype(x.dtype)
        return half if jnp.issubdtype(x.dtype, jnp.floating) else x

    return state._replace(opt_state=jax.tree.map(rounded, state.opt_state))


@pytest.mark.slow
def test_training_on_digits_ends_within_noise_in_every_precision():
    whole = digits_run("float32")
    # All weights are judged in float32, on pictures that were not trained on.
    val_loss = training.make_val_loss(whole)

    def ends(run, seeds, **options):
        found = []
        for seed in range(seeds):
            losses, state = trained(run, seed, **options)
            # The search for a loss scale is over after some steps.
            assert int(state.skipped) < 16 and int(state.skipped_in_a_row) == 0
            found.append((losses[-20:].mean(), val_loss(state.ema)))
            first = losses[:5].mean()
        return np.array(found, np.float64), first

    expected, first = ends(whole, SEEDS)
    # Something was learnt, and the same by all seeds: else noise would hide all.
    assert (expected[:, 0] < 0.65 * first).all(), (first, expected)
    centre, noise = expected.mean(axis=0), expected.std(axis=0, ddof=1)
    assert (noise < 0.03 * centre).all(), (noise, centre)

    def distance(found):
        return np.abs(found.mean(axis=0) - centre) / noise

    for dtype in HALVES:
        found, _ = ends(digits_run(dtype), 2)
        assert (distance(found) < 3).all(), (dtype, found, centre, noise)
    # What this can see: an optimiser that keeps its numbers in half precision.
    spoilt, _ = ends(whole, 1, spoil=with_half_optimizer)
    assert (distance(spoilt) > 30).all(), spoilt
