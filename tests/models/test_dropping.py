import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from yolojax.engine.sharding import make_mesh, put_batch
from yolojax.models.blocks import Bottleneck
from yolojax.models.darknet_layers import Shortcut
from yolojax.models.detector import build_model
from yolojax.models.dropping import STREAM, Dropout, DropPath, linear_rates

KEY = jax.random.key(7)


def dropped(layer, x, key=KEY, train=True):
    rngs = None if key is None else {STREAM: key}
    return layer.apply({}, x, train=train, rngs=rngs)


@pytest.mark.parametrize("layer", [DropPath(0.3), Dropout(0.3)])
def test_what_stays_makes_up_for_what_goes(layer):
    x = jnp.ones((400, 5, 4, 3))
    y = np.asarray(jax.jit(functools.partial(dropped, layer))(x))
    assert set(np.unique(y)) == {np.float32(0), np.float32(1 / 0.7)}
    each = y.reshape(400, -1) > 0
    share = each.mean()
    # Three deviations of the mean of 400 draws, or of 400 times 60.
    draws = 400 if isinstance(layer, DropPath) else 400 * 60
    assert abs(share - 0.7) < 3 * np.sqrt(0.21 / draws)
    whole = (each.all(axis=1) | ~each.any(axis=1)).all()
    assert whole == isinstance(layer, DropPath)


@pytest.mark.parametrize("layer", [DropPath(0.5), Dropout(0.5)])
def test_nothing_goes_in_evaluation_without_a_key_or_at_a_rate_of_0(layer):
    x = jnp.ones((8, 2, 2, 3))
    assert dropped(layer, x, train=False) is x
    assert dropped(layer, x, key=None) is x
    assert dropped(type(layer)(0.0), x) is x


@pytest.mark.parametrize("layer", [DropPath(0.5), Dropout(0.5)])
def test_draws_depend_on_key_and_position_only(layer):
    x = jnp.ones((16, 4, 4, 2))
    function = jax.jit(functools.partial(dropped, layer))
    y = function(x)
    np.testing.assert_array_equal(function(x), y)
    np.testing.assert_array_equal(function(x[:8]), y[:8])
    assert not np.array_equal(function(x, jax.random.key(8)), y)
    (split,) = put_batch((x,), make_mesh(4))
    together = function(split)
    np.testing.assert_array_equal(together, y)
    assert len(together.sharding.device_set) == 4


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_stays(dtype):
    y = dropped(DropPath(0.5), jnp.ones((8, 1, 1, 2), dtype))
    assert y.dtype == dtype and set(np.unique(np.float32(y))) == {0, 2}


def rates_of(model):
    """(path, rate) of every layer that leaves branches out, in the order of calls."""
    found = []

    def note(next_function, args, kwargs, context):
        if isinstance(context.module, DropPath) and context.method_name == "__call__":
            found.append((context.module.path, context.module.rate))
        return next_function(*args, **kwargs)

    with nn.intercept_methods(note):
        model.shapes()
    return found


def test_rates_grow_linearly_up_to_the_last():
    np.testing.assert_allclose(linear_rates(0.2, 4), [0.05, 0.1, 0.15, 0.2])
    found = rates_of(build_model("yolov5n", num_classes=2, drop_path=0.3))
    # Blocks of the stages: 1, 2, 3, 1.
    in_backbone = [rate for path, rate in found if path[0] == "backbone"]
    np.testing.assert_allclose(in_backbone, np.arange(1, 8) / 7 * 0.3)
    assert not any(rate for path, rate in found if path[0] != "backbone")


DESCRIPTION = """
nc: 2
depth_multiple: 1.0
width_multiple: 1.0
anchors: [[10, 14, 20, 28]]
backbone:
  - [-1, 1, Conv, [8, 3, 2]]
  - [-1, 2, Bottleneck, [8]]
  - [-1, 2, BottleneckCSP, [8]]
  - [-1, 1, Bottleneck, [8, False]]
  - [-1, 1, C3, [8]]
head:
  - [-1, 1, C3, [8, False]]
  - [[5], 1, Detect, [nc, anchors]]
"""


def test_described_networks_leave_out_what_their_backbones_add():
    def build(rate, text=DESCRIPTION):
        model = build_model("yaml", num_classes=2, description=text, drop_path=rate)
        assert jax.tree.structure(model.shapes()) == structure
        return model

    plain = build_model("yaml", num_classes=2, description=DESCRIPTION)
    structure = jax.tree.structure(plain.shapes())
    assert not any(rate for _, rate in rates_of(plain))
    found = [(path[1], rate) for path, rate in rates_of(build(0.5)) if rate]
    layers = ["layer1"] * 2 + ["layer2"] * 2 + ["layer4"]
    assert [name for name, _ in found] == layers
    np.testing.assert_allclose([r for _, r in found], np.arange(1, 6) / 5 * 0.5)


def test_darknet_leaves_out_what_its_shortcuts_add():
    model = build_model("yolov3", num_classes=2, drop_path=0.23)
    nodes = [node for node in model.spec.nodes if node.kind == "shortcut"]
    rates = [node.arguments["drop_path"] for node in nodes]
    # Darknet-53 has 1 + 2 + 8 + 8 + 4 shortcuts.
    np.testing.assert_allclose(rates, np.arange(1, 24) / 100)
    x = jnp.ones((16, 2, 2, 3))
    y = Shortcut(drop_path=0.5).apply({}, x, x * 4, train=True, rngs={STREAM: KEY})
    # The layer before goes or counts twice; what it is added to stays.
    assert set(np.unique(y)) == {4.0, 6.0}


@pytest.mark.parametrize(
    "name, rate, message",
    [
        ("yolov3", 1.0, "drop_path of yolov3 is 1.0; it must be at least 0 and below"),
        ("yolov3-tiny", 0.1, "drop_path of yolov3-tiny is 0.1, but no block of the ba"),
    ],
)
def test_what_cannot_be_left_out_is_said(name, rate, message):
    with pytest.raises(ValueError, match=message):
        build_model(name, num_classes=2, drop_path=rate)


def test_a_block_without_its_branch_is_its_input():
    block = Bottleneck(4, drop_path=0.5)
    x = jax.random.normal(jax.random.key(2), (16, 4, 4, 4))
    variables = block.init(jax.random.key(0), x, train=False)
    y, _ = block.apply(
        variables, x + 0, train=True, mutable="batch_stats", rngs={STREAM: KEY}
    )
    still = (np.asarray(y) == np.asarray(x)).all(axis=(1, 2, 3))
    # Kernels start at 0, so that a branch gives 0, too: mark it by its bias.
    variables["params"]["spatial"]["norm"]["bias"] += 1.0
    assert still.all()
    y, _ = block.apply(
        variables, x, train=True, mutable="batch_stats", rngs={STREAM: KEY}
    )
    gone = (np.asarray(y) == np.asarray(x)).all(axis=(1, 2, 3))
    np.testing.assert_allclose((y - x)[~gone], 2 * jax.nn.silu(1.0), rtol=1e-5)
    assert 3 <= gone.sum() <= 13


@pytest.mark.slow
def test_a_detector_leaves_out_the_same_on_any_number_of_devices():
    model = build_model(
        "yolov5n", num_classes=2, width=0.125, drop_path=0.5, dropout=0.2
    )
    plain = build_model("yolov5n", num_classes=2, width=0.125)
    variables = model.init(0)
    images = jax.random.uniform(jax.random.key(1), (8, 32, 32, 3))

    @jax.jit
    def run(images, key):
        def total(params):
            network = {**variables, "params": params}
            maps, _ = model.apply(network, images, train=True, key=key)
            return sum(jnp.sum(x**2) for x in maps), maps[0]

        gradient, maps = jax.grad(total, has_aux=True)(variables["params"])
        return maps, gradient["backbone"]["stem"]["conv"]["kernel"]

    alone, other = run(images, KEY), run(images, jax.random.key(8))
    assert np.abs(alone[0] - other[0]).max() > 1e-3
    (split,) = put_batch((images,), make_mesh(4))
    for ours, theirs in zip(run(split, KEY), alone, strict=True):
        assert np.linalg.norm(ours - theirs) < 1e-4 * np.linalg.norm(theirs)

    # In evaluation, and without a key, it is the network without.
    for same in (model, plain):
        assert jax.tree.structure(same.shapes()) == jax.tree.structure(plain.shapes())
    evaluated = [
        jax.jit(lambda x, m=m: m.apply(variables, x, train=False)[0][0])(images)
        for m in (model, plain)
    ]
    np.testing.assert_array_equal(*evaluated)


@pytest.mark.parametrize("name", ["drop_path", "dropout"])
@pytest.mark.parametrize("value", [1.0, -0.1, "0.5"])
def test_a_rate_that_cannot_be_is_refused(name, value):
    text = f"model 'yolov5n': {name} must be a number, not '0.5'"
    message = f"{name} of yolov5n is .* at least 0 and below 1"
    with pytest.raises(ValueError, match=text if isinstance(value, str) else message):
        build_model("yolov5n", num_classes=2, **{name: value})
