import jax
import jax.numpy as jnp
import numpy as np
import pytest

from yolojax.models.classifiers import build_classifier
from yolojax.models.initial import draw_variables
from yolojax.models.separable import (
    Block,
    DepthwiseSeparable,
    InvertedResidual,
    Row,
    SqueezeExcite,
    rounded_channels,
)

RNG = np.random.default_rng(0)


def normal(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def variables_of(module, x, **arguments):
    """Random values for all variables; variances are above 0."""
    key = jax.random.key(0)
    shapes = jax.eval_shape(lambda x: module.init(key, x, **arguments), x)
    drawn = jax.tree.map(lambda leaf: normal(*leaf.shape), dict(shapes))
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: np.abs(leaf) + 1 if path[-1].key == "var" else leaf, drawn
    )


def normalised(x, norms, stats):
    unit = (x - stats["mean"]) / np.sqrt(stats["var"] + 1e-5)
    return unit * norms["scale"] + norms["bias"]


def test_a_separable_block_is_a_filter_a_channel_and_a_mix_of_channels():
    block, x = DepthwiseSeparable(4, stride=2), normal(2, 7, 6, 3)
    variables = variables_of(block, x, train=False)
    ours = jax.jit(lambda v, x: block.apply(v, x, train=False))(variables, x)
    params, stats = variables["params"], variables["batch_stats"]
    kernel = params["depthwise"]["conv"]["kernel"]
    assert kernel.shape == (3, 3, 1, 3)
    padded = np.pad(x.astype(np.float64), [(0, 0), (1, 1), (1, 1), (0, 0)])
    expected = np.zeros((2, 4, 3, 3))
    for i, j in np.ndindex(4, 3):
        window = padded[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3]
        expected[:, i, j] = (window * kernel[:, :, 0]).sum((1, 2))
    for name in ("depthwise", "point"):
        if name == "point":
            expected = expected @ params[name]["conv"]["kernel"]
        norms = params[name]["norm"], stats[name]["norm"]
        expected = np.maximum(normalised(expected, *norms), 0)
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "gate, published",
    [
        ("logistic", lambda x: 1 / (1 + np.exp(-x))),
        ("hard_sigmoid", lambda x: np.clip(x + 3, 0, 6) / 6),
    ],
)
def test_squeeze_and_excitation_weighs_channels_by_their_means(gate, published):
    module, x = SqueezeExcite(2, gate=gate), normal(2, 4, 5, 3)
    variables = variables_of(module, x)
    ours = jax.jit(module.apply)(variables, x)
    squeeze, expand = (variables["params"][name] for name in ("squeeze", "expand"))
    y = x.mean((1, 2), dtype=np.float64) @ squeeze["kernel"] + squeeze["bias"]
    factors = published(np.maximum(y, 0) @ expand["kernel"] + expand["bias"])
    np.testing.assert_allclose(ours, x * factors[:, None, None], atol=1e-5)


def test_an_inverted_residual_adds_the_input_where_it_has_the_shape_of_the_result():
    x = normal(1, 4, 4, 8)

    def run(module):
        key = jax.random.key(0)
        shapes = jax.eval_shape(lambda x: module.init(key, x, train=False), x)
        return shapes["params"], module, draw_variables(shapes, 0)

    params, module, variables = run(InvertedResidual(8, 24, squeezed=2))
    assert params.keys() == {"expand", "depthwise", "excite", "project"}
    norm = variables["params"]["project"]["norm"]
    y = jax.jit(lambda v, x: module.apply(v, x, train=False))
    branch = y(variables, x) - x
    assert np.abs(branch).max() > 1e-4
    # Nothing but the input is left where the last unit gives nothing.
    norm["scale"][:] = 0
    np.testing.assert_array_equal(y(variables, x), x)
    # Without more channels inside there is nothing to expand.
    params, *_ = run(InvertedResidual(12, 8, stride=2))
    assert params.keys() == {"depthwise", "project"}


@pytest.mark.parametrize(
    "channels, expected",
    # Nearest multiples of 8; 16 would be less than 90 % of 19.2 or 19.
    [(35.2, 32), (19.2, 24), (19, 24), (17, 16), (12, 16), (3, 8), (44, 48)],
)
def test_channels_are_rounded_as_published(channels, expected):
    assert rounded_channels(channels) == expected


def test_a_row_has_one_map_of_each_stride():
    blocks = (Block(8), Block(16, 2), Block(24), Block(32, 2), Block(40, 1, hidden=64))
    row = Row(4, blocks)
    assert row.strides == (2, 2, 4, 4, 8, 8)
    assert row.feature_info == ((8, 2), (24, 4), (40, 8))


def count(name, **arguments):
    model = build_classifier(name, num_classes=1000, **arguments)
    leaves = jax.tree.leaves(model.shapes()["params"])
    return sum(int(np.prod(leaf.shape)) for leaf in leaves)


@pytest.mark.parametrize("width, published", [(0.25, 0.5), (0.5, 1.3), (0.75, 2.6)])
def test_narrow_mobilenets_have_the_sizes_of_the_paper(width, published):
    # Howard et al. 2017, table 7, in millions.
    assert round(count("mobilenet_v1", width=width) / 1e6, 1) == published


def test_odd_sides_are_halved_upwards():
    backbone = build_classifier("mobilenet_v3_small", num_classes=2, width=0.1).backbone
    images = jax.ShapeDtypeStruct((1, 33, 70, 3), jnp.float32)
    maps = jax.eval_shape(
        lambda x: backbone.init_with_output(jax.random.key(0), x, train=False)[0],
        images,
    )
    sizes = [x.shape[1:3] for x in maps]
    assert sizes == [(17, 35), (9, 18), (5, 9), (3, 5), (2, 3)]
