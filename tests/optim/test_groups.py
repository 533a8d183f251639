"""Groups by expressions over paths, depth, and what they do to a step."""

from typing import Any

import jax
import numpy as np
import optax
import pytest

from yolojax import trees
from yolojax.models.detector import build_model
from yolojax.optim import build, groups
from yolojax.weights.mapping import layer_numbers

RECIPE: dict[str, Any] = dict(
    learning_rate=0.1,
    schedule="constant",
    momentum=0.0,
    weight_decay=0.02,
    clip_norm=0.0,
    warmup_bias_rate=0.05,
    batch_size=16,
    nominal_batch=8,
    steps_per_epoch=4,
    epochs=5,
)
PATHS = (
    *("backbone/stem/conv/kernel", "backbone/stem/norm/scale"),
    *("backbone/stem/norm/bias", "neck/lateral5/conv/kernel"),
    *("head/level3/kernel", "head/level3/bias"),
)


def make_params():
    rng = np.random.default_rng(0)
    return trees.unflatten({p: rng.normal(size=2).astype(np.float32) for p in PATHS})


def step_of(params, number=0, grads=None, **recipe):
    """What one step adds to each parameter, by path, and the optimiser."""
    optimizer = build.build_optimizer(params, **(RECIPE | recipe))
    grads = jax.tree.map(np.ones_like, params) if grads is None else grads
    state = optimizer.tx.init(params)
    updates, _ = optimizer.tx.update(grads, state, params, step=number)
    return trees.flatten(updates), optimizer


def test_rate_decay_and_penalties_are_those_of_the_group():
    params = make_params()
    chosen = (
        dict(match="^backbone/", name="slow", rate=0.1, weight_decay=0.0, l1=0.3),
        dict(match=("^neck/", "^head/"), rate=2.0, l2=0.5),
    )
    moves, optimizer = step_of(params, groups=chosen)
    leaves = trees.flatten(params)
    # Twice the nominal batch is seen, so decay and penalties count twice.
    for path, value in leaves.items():
        if path.startswith("backbone/"):
            expected = -0.01 * (1 + 2 * 0.3 * np.sign(value))
        else:
            decay = 0.02 if path.endswith("kernel") else 0.0
            expected = -0.2 * (1 + 2 * (0.5 + decay) * value)
        np.testing.assert_allclose(moves[path], expected, rtol=1e-5)
    rates = {k: float(v) for k, v in optimizer.rates(0).items() if "rate" in k}
    assert rates == pytest.approx(
        {
            "learning_rate": 0.1,
            "learning_rate_slow": 0.01,
            "learning_rate_slow_bias": 0.01,
            "learning_rate_group2": 0.2,
            "learning_rate_group2_bias": 0.2,
        }
    )


def test_each_group_warms_up_from_its_own_rate():
    params = make_params()
    chosen = (
        dict(match="^backbone/", name="body", rate=0.5),
        dict(match="^(?!backbone/)", name="rest", warmup_start=0.3),
    )
    _, optimizer = step_of(params, groups=chosen, warmup_steps=4, weight_decay=0.0)
    for number, expected in (
        (0, {"body": 0.0, "body_bias": 0.025, "rest": 0.3}),
        (2, {"body": 0.025, "body_bias": 0.0375, "rest": 0.2}),
        (4, {"body": 0.05, "body_bias": 0.05, "rest": 0.1}),
    ):
        rates = optimizer.rates(number)
        for name, value in expected.items():
            np.testing.assert_allclose(rates[f"learning_rate_{name}"], value, rtol=1e-5)


def test_no_groups_are_the_published_ones():
    params = make_params()
    moves, optimizer = step_of(params)
    for path, value in trees.flatten(params).items():
        decay = 2 * 0.02 * value if path.endswith("kernel") else 0.0
        np.testing.assert_allclose(moves[path], -0.1 * (1 + decay), rtol=1e-5)
    assert set(optimizer.rates(0)) == {
        *("learning_rate", "learning_rate_bias", "momentum", "accumulation")
    }


def test_the_rate_falls_from_the_head_to_the_stem():
    params = make_params()
    moves, optimizer = step_of(params, layer_decay=0.5, weight_decay=0.0)
    for path, share in (("head", 1.0), ("neck", 0.5), ("backbone", 0.25)):
        for name in (p for p in PATHS if p.startswith(path)):
            np.testing.assert_allclose(moves[name], -0.1 * share, rtol=1e-6)
            assert optimizer.leaves[name].depth == share


def test_depth_goes_by_the_whole_network_where_a_part_is_frozen():
    params = make_params()
    part = {k: v for k, v in params.items() if k != "neck"}
    moves, _ = step_of(part, layer_decay=0.5, weight_decay=0.0, network=params)
    np.testing.assert_allclose(moves["backbone/stem/norm/bias"], -0.025, rtol=1e-6)
    chosen = (dict(match="^neck/"), dict(match="^(?!neck/)", rate=3.0))
    moves, _ = step_of(part, groups=chosen, weight_decay=0.0, network=params)
    np.testing.assert_allclose(moves["head/level3/bias"], -0.3, rtol=1e-6)


@pytest.mark.parametrize("name", ["yolov5n", "yolov5n6", "yolov4-tiny", "yolov3"])
def test_layers_come_in_the_published_order_and_the_head_last(name):
    model = build_model(name, num_classes=2)
    found = groups.layers(trees.flatten(model.shapes()["params"]))
    numbers = layer_numbers(model)
    body = [numbers[layer] for (layer,) in found[:-1]]
    assert body == sorted(body) and len(set(body)) == len(body)
    assert set(found[-1]) == {f"head/{level}" for level in model.levels}


def test_auxiliary_heads_are_in_the_last_layer():
    names = ("auxiliary/head0", "head/linear", "backbone/stage3", "backbone/stem")
    paths = dict.fromkeys(f"{name}/kernel" for name in names)
    found = groups.layers(paths)
    assert found[:-1] == [("backbone/stem",), ("backbone/stage3",)]
    assert set(found[-1]) == {"auxiliary/head0", "head/linear"}


def test_layers_of_an_unknown_kind_come_by_their_numbers():
    paths = dict.fromkeys(("body/block10/kernel", "body/block2/kernel", "head/x/bias"))
    assert groups.layers(paths) == [("body/block2",), ("body/block10",), ("head/x",)]


@pytest.mark.parametrize(
    "chosen, message",
    [
        (
            (dict(match="^backbone/"),),
            "3 parameters match no group: neck/lateral5/conv",
        ),
        (
            (dict(match="."), dict(match="kernel$", name="k")),
            r"3 parameters match more than one group: backbone/stem/conv/kernel "
            r"\(group1, k\)",
        ),
        ((dict(match="."), dict(match="^tail/")), "group2: pattern '\\^tail/' matches"),
        ((dict(match="("),), r"groups\[0\].match: '\(' is no regular expression"),
        (
            (dict(math="."),),
            r"groups\[0\] has no argument 'math'. Did you mean 'match'",
        ),
        ((dict(rate=2.0),), r"groups\[0\] needs match"),
        ((dict(match=".", rate=-1.0),), r"rate must be at least 0, not -1.0"),
        ((dict(match=".", l1="x"),), r"l1 must be a number, not 'x'"),
        (
            (dict(match="^b", name="a"), dict(match="^[^b]", name="a")),
            "two are called a",
        ),
        (("^backbone/",), r"groups\[0\] must be a dict"),
    ],
)
def test_groups_that_cannot_be_are_refused(chosen, message):
    with pytest.raises(ValueError, match=message):
        build.build_optimizer(make_params(), **RECIPE, groups=chosen)


def test_a_layer_decay_of_zero_is_refused():
    with pytest.raises(ValueError, match="layer_decay must be above 0"):
        build.build_optimizer(make_params(), **RECIPE, layer_decay=0.0)


def test_l1_leaves_what_has_come_to_zero_alone():
    params = {"a": {"kernel": np.float32([0.0, 1.0])}}
    zeros = jax.tree.map(np.zeros_like, params)
    chosen = (dict(match=".", l1=0.5, weight_decay=0.0),)
    moves, _ = step_of(params, grads=zeros, groups=chosen)
    np.testing.assert_allclose(moves["a/kernel"], [0.0, -0.1], rtol=1e-6)
    assert optax.apply_updates(params, trees.unflatten(moves))["a"]["kernel"][0] == 0
