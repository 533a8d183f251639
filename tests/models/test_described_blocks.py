"""Modules of descriptions against NumPy, a whole network against the original."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models.descriptions import Rows, text_of
from tests.shared import shared
from yolojax.models import attention, blocks, ghost, reshaping
from yolojax.models.detector import build_model
from yolojax.trees import flatten, unflatten
from yolojax.weights.mapping import from_state_dict


def relative(ours, theirs):
    """The largest difference, as a share of the largest value."""
    return np.abs(np.asarray(ours) - theirs).max() / np.abs(theirs).max()


@pytest.mark.parametrize("state", ["seed0", "real"])
def test_yolov5n_from_its_description_matches_the_original_row_by_row(state):
    model = build_model("yaml", num_classes=0, description=text_of("yolov5n"))
    with np.load(shared("golden", f"state_n_{state}.npz")) as file:
        variables = from_state_dict(model, dict(file))
    golden = np.load(shared("golden", f"forward_n_{state}_small2x96x128.npz"))
    images = golden["input"].transpose(0, 2, 3, 1)

    @jax.jit
    def forward(variables, images):
        return model.module.apply(
            variables,
            images,
            train=False,
            capture_intermediates=True,
            mutable=["intermediates"],
        )

    maps, captured = forward(variables, images)
    outputs = flatten(captured["intermediates"])
    for node in model.spec.nodes[:-3]:
        ours = outputs[f"{node.part}/{node.name}/__call__"][0]
        number = int(node.name.removeprefix("layer"))
        theirs = golden[f"layer{number:02d}"].transpose(0, 2, 3, 1)
        assert relative(ours, theirs) < 2e-5, node.where
    for level, ours in enumerate(maps):
        theirs = golden[f"raw{level}"].transpose(0, 2, 3, 1, 4)
        assert relative(ours, theirs) < 2e-5, level


def random_variables(module, *maps, seed=0):
    """Variables of a module with nothing trivial in them, float64."""
    generator = np.random.default_rng(seed)
    start = functools.partial(module.init, train=False)
    with jax.enable_x64(True):
        leaves = flatten(jax.eval_shape(start, jax.random.key(0), *maps))
    values = {}
    for path in sorted(leaves):
        value = generator.normal(size=leaves[path].shape)
        values[path] = np.abs(value) + 0.5 if path.endswith("var") else value
    return unflatten(values)


def outcome(module, variables, *maps):
    with jax.enable_x64(True):
        return np.asarray(module.apply(variables, *maps, train=False))


def normed(x, norm, stats):
    centred = (x - stats["mean"]) / np.sqrt(stats["var"] + 1e-3)
    return centred * norm["scale"] + norm["bias"]


def silu(x):
    return x / (1 + np.exp(-x))


def convolved(x, kernel, stride=(1, 1), groups=1):
    """A convolution padded by half its kernel, pixel by pixel."""
    kernel = kernel[None, None] if kernel.ndim == 2 else kernel
    kh, kw, ci, co = kernel.shape
    pads = ((0, 0), (kh // 2, kh // 2), (kw // 2, kw // 2), (0, 0))
    padded = np.pad(x, pads)
    rows = range(0, padded.shape[1] - kh + 1, stride[0])
    columns = range(0, padded.shape[2] - kw + 1, stride[1])
    out = np.zeros((len(x), len(rows), len(columns), co))
    for i, top in enumerate(rows):
        for j, left in enumerate(columns):
            window = padded[:, top : top + kh, left : left + kw]
            for g in range(groups):
                inputs = window[..., g * ci : (g + 1) * ci]
                outs = slice(g * co // groups, (g + 1) * co // groups)
                out[:, i, j, outs] = np.einsum(
                    "bhwc,hwco->bo", inputs, kernel[..., outs]
                )
    return out


class Reference:
    """Units of a module's variables, in NumPy."""

    def __init__(self, variables):
        self.params, self.stats = variables["params"], variables["batch_stats"]

    def inside(self, name):
        return Reference({"params": self.params[name], "batch_stats": self.stats[name]})

    def unit(self, name, x, *, active=True, **options):
        params = self.params[name] if name else self.params
        stats = self.stats[name] if name else self.stats
        y = convolved(x, params["conv"]["kernel"], **options)
        y = normed(y, params["norm"], stats["norm"])
        return silu(y) if active else y


def pictures(*shape, seed=1):
    return np.random.default_rng(seed).normal(size=shape)


def float64(module, **attributes):
    return module(dtype="float64", **attributes)


def test_focus_takes_squares_column_by_column():
    x = np.arange(2 * 4 * 3, dtype=np.float64).reshape(1, 4, 2, 3)
    module = float64(reshaping.Focus, features=12)
    variables = random_variables(module, x)
    ours = outcome(module, variables, x)
    # Each output pixel: rows 0 and 1 of column 0, then rows 0 and 1 of column 1.
    parts = [x[:, r::2, c::2] for c in (0, 1) for r in (0, 1)]
    stacked = np.concatenate(parts, axis=-1)
    assert stacked[0, 0, 0].tolist() == [0, 1, 2, 6, 7, 8, 3, 4, 5, 9, 10, 11]
    theirs = Reference(variables).unit("unit", stacked)
    assert relative(ours, theirs) < 1e-12


def ghost_unit(reference, x, active=True, **options):
    y = reference.unit("primary", x, active=active, **options)
    cheap = reference.unit("cheap", y, active=active, groups=y.shape[-1])
    return np.concatenate((y, cheap), axis=-1)


@pytest.mark.parametrize("stride", [1, 2])
def test_ghost_bottleneck(stride):
    x = pictures(2, 4, 6, 8)
    features = 8 if stride == 1 else 12
    module = float64(ghost.GhostBottleneck, features=features, stride=stride)
    variables = random_variables(module, x)
    reference = Reference(variables)
    y = ghost_unit(reference.inside("expand"), x)
    past = x
    if stride == 2:
        steps = {"stride": (2, 2), "active": False}
        y = reference.unit("depthwise", y, groups=features // 2, **steps)
        past = reference.unit("shortcut_depthwise", x, groups=8, **steps)
        past = reference.unit("shortcut_point", past, active=False)
    theirs = ghost_unit(reference.inside("project"), y, active=False) + past
    assert relative(outcome(module, variables, x), theirs) < 1e-12


@pytest.mark.parametrize("stride", [1, 2])
def test_cross_block_is_a_row_and_a_column(stride):
    x = pictures(1, 6, 8, 4)
    module = float64(
        blocks.CrossBlock, features=4, size=3, stride=stride, hidden=6, groups=2
    )
    variables = random_variables(module, x)
    reference = Reference(variables)
    assert variables["params"]["row"]["conv"]["kernel"].shape[:2] == (1, 3)
    assert variables["params"]["column"]["conv"]["kernel"].shape[:2] == (3, 1)
    y = reference.unit("row", x, stride=(1, stride))
    theirs = reference.unit("column", y, stride=(stride, 1), groups=2)
    assert relative(outcome(module, variables, x), theirs) < 1e-12
    added = module.clone(stride=1, shortcut=True)
    plain = module.clone(stride=1)
    ours = outcome(added, variables, x) - outcome(plain, variables, x)
    np.testing.assert_allclose(ours, x, atol=1e-12)


def softmax(x):
    powers = np.exp(x - x.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def test_attention_against_sums_over_tokens():
    x, heads = pictures(2, 2, 3, 8), 4
    module = float64(attention.Attention, num_layers=2, num_heads=heads)
    with jax.enable_x64(True):
        start = jax.eval_shape(module.init, jax.random.key(0), x)
    generator = np.random.default_rng(3)
    values = {k: generator.normal(size=v.shape) for k, v in flatten(start).items()}
    params = unflatten(values)["params"]
    tokens = x.reshape(2, 6, 8)
    tokens = tokens + tokens @ params["position"]["kernel"] + params["position"]["bias"]
    for i in range(2):
        layer = params[f"layer{i}"]
        mixed = np.zeros_like(tokens)
        for b in range(2):
            projected = []
            for part, name in enumerate(("query", "key", "value")):
                columns = slice(8 * part, 8 * part + 8)
                y = tokens[b] @ layer[name]["kernel"]
                y = y @ layer["in_projection"]["kernel"][:, columns]
                projected.append(y + layer["in_projection"]["bias"][columns])
            for head in range(heads):
                q, k, v = (y[:, 2 * head : 2 * head + 2] for y in projected)
                share = softmax(q @ k.T / np.sqrt(2))
                mixed[b, :, 2 * head : 2 * head + 2] = share @ v
        out = layer["out_projection"]
        tokens = tokens + mixed @ out["kernel"] + out["bias"]
        inner = tokens @ layer["first"]["kernel"] @ layer["second"]["kernel"]
        tokens = tokens + inner
    with jax.enable_x64(True):
        ours = module.apply({"params": params}, x)
    assert relative(ours, tokens.reshape(x.shape)) < 1e-12


def test_normed_stage_normalises_both_halves_together():
    x = pictures(1, 3, 4, 6)
    module = float64(
        blocks.NormedCspStage, features=8, num_blocks=1, joint_activation="leaky"
    )
    variables = random_variables(module, x)
    reference = Reference(variables)
    y = reference.unit("main", x)
    block = reference.inside("block0")
    y = y + block.unit("spatial", block.unit("point", y))
    y = y @ variables["params"]["after"]["kernel"]
    past = x @ variables["params"]["bypass"]["kernel"]
    y = np.concatenate((y, past), axis=-1)
    y = normed(y, variables["params"]["norm"], variables["batch_stats"]["norm"])
    theirs = reference.unit("merge", np.maximum(y, 0.1 * y))
    assert relative(outcome(module, variables, x), theirs) < 1e-12


def test_pooling_in_a_chain_is_pooling_side_by_side():
    x = pictures(1, 16, 20, 4)
    chain = float64(blocks.PyramidPooling, features=6)
    parallel = float64(blocks.ParallelPooling, features=6)
    variables = random_variables(chain, x)
    ours = outcome(parallel, variables, x)
    np.testing.assert_array_equal(ours, outcome(chain, variables, x))


def test_expand_undoes_contract():
    x = np.arange(1 * 4 * 6 * 3, dtype=np.float64).reshape(1, 4, 6, 3)
    contract, expand = float64(reshaping.Contract), float64(reshaping.Expand)
    small = outcome(contract, {}, x)
    assert small.shape == (1, 2, 3, 12)
    # Channel (dy * 2 + dx) * 3 + i.
    assert small[0, 1, 2, 1 * 6 + 0 * 3 + 2] == x[0, 3, 4, 2]
    assert small[0, 0, 1, 0 * 6 + 1 * 3 + 1] == x[0, 0, 3, 1]
    np.testing.assert_array_equal(outcome(expand, {}, small), x)


@pytest.mark.parametrize(
    ("size", "stride", "padding"), [(2, 2, 0), (2, 1, 0), (3, 2, 1), (5, 1, 2)]
)
def test_max_pool_takes_the_largest_of_each_window(size, stride, padding):
    x = pictures(1, 9, 7, 2)
    pads = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    padded = np.pad(x, pads, constant_values=-np.inf)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (size, size), (1, 2))
    theirs = windows[:, ::stride, ::stride].max(axis=(-1, -2))
    module = float64(reshaping.MaxPool, size=size, stride=stride, padding=padding)
    np.testing.assert_array_equal(outcome(module, {}, x), theirs)


def test_padding_upsampling_and_concatenation():
    x = pictures(1, 2, 3, 2)
    padded = outcome(float64(reshaping.ZeroPad, widths=(1, 2, 3, 4)), {}, x)
    assert padded.shape == (1, 2 + 3 + 4, 3 + 1 + 2, 2)
    np.testing.assert_array_equal(padded[:, 3:5, 1:4], x)
    assert np.abs(padded).sum() == np.abs(x).sum()
    larger = outcome(float64(reshaping.Upsample, scale=3), {}, x)
    np.testing.assert_array_equal(larger, x.repeat(3, axis=1).repeat(3, axis=2))
    both = outcome(float64(reshaping.Concat), {}, x, 2 * x)
    np.testing.assert_array_equal(both, np.concatenate((x, 2 * x), axis=-1))


def every_module():
    """A description that uses each module, small enough to be differentiated."""
    rows = Rows()
    rows.add("Focus", 8, 3)
    rows.add("Conv", 16, 3, 2)
    rows.add("Bottleneck", 16, times=2)
    rows.add("BottleneckCSP", 16)
    rows.add("DWConv", 16, 3, 2)
    early = rows.add("CrossConv", 16, 3, 1, 1, 1.0, True)
    rows.add("GhostConv", 16, 1, 1)
    rows.add("GhostBottleneck", 16, 3, 2)
    rows.add("C3Ghost", 16)
    rows.add("C3TR", 16)
    rows.add("SPP", 16, [3, 5])
    rows.add("SPPF", 16, 3)
    coarse = rows.add("C3", 16, False)
    rows.add("nn.Upsample", None, 2, "nearest")
    rows.add("Concat", 1, source=[-1, early])
    rows.add("nn.Conv2d", 16, 1)
    rows.add("nn.BatchNorm2d", 16)
    rows.add("nn.ZeroPad2d", [0, 1, 0, 1])
    rows.add("nn.MaxPool2d", 2, 1, 0)
    rows.add("Contract", 2)
    fine = rows.add("Expand", 2)
    content = rows.description("l", 13, [fine, coarse], anchors=2)
    return json.dumps(content)


@pytest.mark.slow
def test_a_gradient_reaches_every_parameter_of_every_module():
    model = build_model("yaml", num_classes=2, description=every_module())
    assert model.strides == (8, 16)
    variables = model.init(0, (64, 64))
    images = np.random.default_rng(0).random((2, 64, 64, 3), dtype=np.float32)
    shapes = [(2, s, s, 2, 7) for s in (8, 4)]
    weights = [np.float32(pictures(*shape)) for shape in shapes]

    @jax.jit
    @jax.grad
    def slope(params):
        maps, _ = model.apply({**variables, "params": params}, images, train=True)
        return sum(jnp.sum(m * w) for m, w in zip(maps, weights, strict=True))

    gradients = flatten(slope(variables["params"]))
    assert len(gradients) == len(flatten(variables["params"])) == 146
    for path, gradient in gradients.items():
        assert np.isfinite(gradient).all(), path
        # A bias before a normalisation changes nothing.
        if path != "neck/layer15/conv/bias":
            assert np.abs(gradient).max() > 1e-6, path


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_keeps_parameters_and_maps_in_float32(dtype):
    model = build_model("yaml", num_classes=2, description=every_module(), dtype=dtype)
    images = jax.ShapeDtypeStruct((1, 64, 64, 3), "float32")
    shapes = model.shapes()
    forward = functools.partial(model.apply, train=True)
    results = jax.eval_shape(forward, shapes, images)
    dtypes = {leaf.dtype for leaf in jax.tree.leaves((shapes, results))}
    assert dtypes == {jnp.dtype("float32")}
    layers = jax.eval_shape(
        functools.partial(
            model.module.apply,
            train=False,
            capture_intermediates=True,
            mutable=["intermediates"],
        ),
        shapes,
        images,
    )[1]
    outputs = flatten(layers["intermediates"])
    for node in model.spec.nodes[:-2]:
        (out,) = outputs[f"{node.part}/{node.name}/__call__"]
        assert out.dtype == jnp.dtype(dtype), node.where
