import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from yolojax.models.classifiers import build_classifier
from yolojax.models.convnext import Block, LayerNorm, LayerScale
from yolojax.models.detector import build_model
from yolojax.models.dropping import DropPath
from yolojax.trees import flatten

RNG = np.random.default_rng(0)


def normal(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def layer_norm(x, params):
    mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) / np.sqrt(var + 1e-6) * params["scale"] + params["bias"]


def test_layer_norm_matches_float64_where_the_mean_is_large():
    x = normal(2, 3, 4, 6) + np.float32(50)
    params = {"scale": normal(6), "bias": normal(6)}
    ours, half = jax.jit(
        lambda x: [
            LayerNorm(dtype).apply({"params": params}, x)
            for dtype in ("float32", "bfloat16")
        ]
    )(x)
    expected = layer_norm(x.astype(np.float64), params)
    np.testing.assert_allclose(ours, expected, atol=1e-4)
    assert half.dtype == jnp.bfloat16
    # Half a step of bfloat16's 8 bits, of values up to this one.
    error = np.abs(np.asarray(half, np.float64) - expected).max()
    assert error < np.abs(expected).max() * 2.0**-8


def test_a_block_is_depthwise_norm_and_two_layers_scaled_by_channel():
    module, x = Block(), normal(1, 5, 4, 3)
    key = jax.random.key(0)
    shapes = jax.eval_shape(lambda x: module.init(key, x, train=False), x)["params"]
    params = jax.tree.map(lambda leaf: normal(*leaf.shape), dict(shapes))
    ours = jax.jit(lambda p, x: module.apply({"params": p}, x, train=False))(params, x)
    layer = params["depthwise"]
    assert layer["kernel"].shape == (7, 7, 1, 3)
    padded = np.pad(x.astype(np.float64), [(0, 0), (3, 3), (3, 3), (0, 0)])
    y = np.zeros(x.shape)
    for i, j in np.ndindex(5, 4):
        window = padded[:, i : i + 7, j : j + 7]
        y[:, i, j] = (window * layer["kernel"][:, :, 0]).sum((1, 2)) + layer["bias"]
    y = layer_norm(y, params["norm"])
    y = y @ params["expand"]["kernel"] + params["expand"]["bias"]
    assert y.shape[-1] == 12
    y = y * (1 + np.vectorize(math.erf)(y / math.sqrt(2))) / 2
    y = y @ params["project"]["kernel"] + params["project"]["bias"]
    expected = x + y * params["layer_scale"]["scale"]
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-4)


def test_layer_scale_by_hand():
    x = jnp.array([[1.0, 2.0], [3.0, 4.0]])
    scaled = LayerScale().apply({"params": {"scale": jnp.array([2.0, 0.5])}}, x)
    np.testing.assert_array_equal(scaled, [[2, 1], [6, 2]])


def test_layer_scale_starts_near_nothing_and_other_scales_at_one():
    model = build_classifier("convnext_tiny", num_classes=2, width=0.01)
    scales = {k: v for k, v in flatten(model.init(0)).items() if k.endswith("scale")}
    assert len(scales) == 18 + 18 + 4 + 1
    for path, values in scales.items():
        start = 1e-6 if path.endswith("layer_scale/scale") else 1
        assert (values == np.float32(start)).all(), path
    # Detectors with this backbone start as it does.
    detector = build_model("yolo", backbone="convnext_tiny", num_classes=2)
    assert detector.starts == model.starts == {"layer_scale/scale": 1e-6}
    without = build_classifier("convnext_tiny", num_classes=2, layer_scale=0)
    assert not [path for path in flatten(without.shapes()) if "layer_scale" in path]


def rates(name, **arguments):
    """Of each block that may be left out, in order."""
    found = []

    def note(call, args, kwargs, context):
        if isinstance(context.module, DropPath):
            found.append(context.module.rate)
        return call(*args, **kwargs)

    with nn.intercept_methods(note):
        build_classifier(name, num_classes=2, width=0.01, **arguments).shapes()
    return found


def test_later_blocks_are_left_out_more_often():
    # 18 blocks: from 0 to a tenth by equal steps.
    expected = [0.1 * i / 17 for i in range(18)]
    np.testing.assert_allclose(rates("convnext_tiny"), expected, rtol=1e-12)
    # Of 16 blocks, those that repeat a stage's first one; from 0 to 0.2 * 15 / 16.
    repeats = (2, 4, 6, 7, 9, 10, 12, 13, 14)
    expected = [0.2 * i / 16 for i in repeats]
    # So narrow, the first block and the last have as many channels as come in, too.
    found = [rate for rate in rates("efficientnet_b0") if rate]
    assert set(expected) <= set(found)


@pytest.mark.parametrize("layer_scale", [-1, 2, "small"])
def test_a_layer_scale_out_of_range_is_refused(layer_scale):
    message = "layer_scale of convnext_tiny is .* 0 and 1"
    if layer_scale == "small":
        message = "'convnext_tiny': layer_scale must be a number, not 'small'"
    with pytest.raises(ValueError, match=message):
        build_classifier("convnext_tiny", num_classes=2, layer_scale=layer_scale)


def test_rates_out_of_range_are_refused():
    with pytest.raises(ValueError, match="drop_path of convnext_tiny is 1"):
        build_classifier("convnext_tiny", num_classes=2, drop_path=1)
    with pytest.raises(ValueError, match="dropout of efficientnet_b1 is -0.5"):
        build_classifier("efficientnet_b1", num_classes=2, dropout=-0.5)
    with pytest.raises(ValueError, match="depth of efficientnet_b1 is 0; it must be"):
        build_classifier("efficientnet_b1", num_classes=2, depth=0)
    with pytest.raises(ValueError, match="width of yolov5n-cls is -1; it must be"):
        build_classifier("yolov5n-cls", num_classes=2, width=-1)
