"""Every entry of the table of classifiers: sizes, shapes, gradients, first values."""

import functools
import inspect

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from yolojax.models.classifiers import CLASSIFIERS, build_classifier
from yolojax.trees import flatten

# Parameters at 1000 classes, exactly as published. torchvision 0.20: the tables of its
# documentation.
PUBLISHED = {
    "alexnet": 61_100_840,
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
    "vgg11": 132_863_336,
    "vgg13": 133_047_848,
    "vgg16": 138_357_544,
    "vgg19": 143_667_240,
    "vgg11_bn": 132_868_840,
    "vgg13_bn": 133_053_736,
    "vgg16_bn": 138_365_992,
    "vgg19_bn": 143_678_248,
    # With the auxiliary heads; without: 6,624,904 and 23,834,568.
    "googlenet": 13_004_888,
    "inception_v3": 27_161_264,
    "mobilenet_v2": 3_504_872,
    "mobilenet_v3_small": 2_542_856,
    "mobilenet_v3_large": 5_483_032,
    "efficientnet_b0": 5_288_548,
    "efficientnet_b1": 7_794_184,
    "efficientnet_b2": 9_109_994,
    "efficientnet_b3": 12_233_232,
    "convnext_tiny": 28_589_128,
    "squeezenet1_0": 1_248_424,
    "squeezenet1_1": 1_235_496,
}
# Published in millions to two digits, by the tables of timm's results; the networks
# that timm 1.0.31 builds have the exact sums below.
ROUNDED = {
    "darknet53": 41.61,
    "cspdarknet53": 27.64,
    "cspresnet50": 21.62,
    "resnet18d": 11.71,
    "resnet34d": 21.82,
    "resnet50d": 25.58,
    "resnet101d": 44.57,
    "resnet152d": 60.21,
    "mobilenet_v1": 4.23,
}


def conv(size, inputs, outputs):
    """Parameters of a convolution without bias, and of the normalisation after it."""
    return size**2 * inputs * outputs + 2 * outputs


def linear(inputs, outputs=1000):
    return inputs * outputs + outputs


def turns(inputs, *channels):
    """3x3 and 1x1 convolutions in turn."""
    rows = zip((inputs, *channels), channels, strict=False)
    return sum(conv(1 if i % 2 else 3, *row) for i, row in enumerate(rows))


def dark(inputs, outputs, blocks):
    """A stage of Darknet-53."""
    half = outputs // 2
    block = conv(1, outputs, half) + conv(3, half, outputs)
    return conv(3, inputs, outputs) + blocks * block


def cross(inputs, outputs, blocks, half, hidden):
    """A stage of CSPDarknet-53."""
    block = conv(1, half, hidden) + conv(3, hidden, half)
    ends = 3 * conv(1, outputs, half) if outputs == half else 2 * conv(1, outputs, half)
    if outputs != half:
        ends += conv(1, half, half)
    return conv(3, inputs, outputs) + ends + blocks * block + conv(1, 2 * half, outputs)


def cross_residual(inputs, n, blocks, stride):
    """A stage of CSPResNet-50 with n channels."""
    block = conv(1, n, n // 2) + conv(3, n // 2, n // 2) + conv(1, n // 2, n)
    down = conv(3, inputs, inputs) if stride > 1 else 0
    ends = 2 * conv(1, inputs, n) + conv(1, n, n) + conv(1, 2 * n, n)
    return down + ends + blocks * block


def csp(depth, *channels):
    """YOLOv5-cls of these channels; a stage has 3, 6, 9 and 3 blocks times `depth`."""
    blocks = [max(round(count * depth), 1) for count in (3, 6, 9, 3)]
    total = 6**2 * 3 * channels[0] + 2 * channels[0]
    for inputs, n, count in zip(channels, channels[1:], blocks, strict=False):
        half = n // 2
        block = conv(1, half, half) + conv(3, half, half)
        ends = 2 * conv(1, n, half) + conv(1, n, n)
        total += conv(3, inputs, n) + ends + count * block
    return total + conv(1, channels[-1], 1280) + linear(1280)


def separable(inputs, *channels):
    """Depthwise 3x3 and 1x1 convolutions in turn."""
    rows = zip((inputs, *channels), channels, strict=False)
    return sum(9 * row[0] + 2 * row[0] + conv(1, *row) for row in rows)


# What the first three convolutions of form D have more than the one of 7x7.
DEEP = conv(3, 3, 32) + conv(3, 32, 32) + conv(3, 32, 64) - conv(7, 3, 64)
# Sums by hand, over the layers of the papers' tables.
BY_HAND = {
    # A bias before the normalisation, too; 8192, 1024 and 512 inputs.
    "cnn11": conv(3, 3, 64)
    + conv(3, 64, 128)
    + conv(3, 128, 256)
    + conv(3, 256, 512)
    + conv(3, 512, 512)
    + (64 + 128 + 256 + 512 + 512)
    + linear(8192, 1024)
    + linear(1024, 512)
    + linear(512),
    "cnn5": conv(3, 3, 32)
    + conv(3, 32, 64)
    + conv(3, 64, 128)
    + (32 + 64 + 128)
    + linear(512, 128)
    + linear(128),
    "darknet19": turns(3, 32)
    + turns(32, 64)
    + turns(64, 128, 64, 128)
    + turns(128, 256, 128, 256)
    + turns(256, 512, 256, 512, 256, 512)
    + turns(512, 1024, 512, 1024, 512, 1024)
    + linear(1024),
    "darknet53": conv(3, 3, 32)
    + dark(32, 64, 1)
    + dark(64, 128, 2)
    + dark(128, 256, 8)
    + dark(256, 512, 8)
    + dark(512, 1024, 4)
    + linear(1024),
    "cspdarknet53": conv(3, 3, 32)
    + cross(32, 64, 1, half=64, hidden=32)
    + cross(64, 128, 2, half=64, hidden=64)
    + cross(128, 256, 8, half=128, hidden=128)
    + cross(256, 512, 8, half=256, hidden=256)
    + cross(512, 1024, 4, half=512, hidden=512)
    + linear(1024),
    "cspresnet50": conv(7, 3, 64)
    + cross_residual(64, 128, 3, stride=1)
    + cross_residual(128, 256, 3, stride=2)
    + cross_residual(256, 512, 5, stride=2)
    + cross_residual(512, 1024, 2, stride=2)
    + linear(1024),
    "mobilenet_v1": conv(3, 3, 32)
    + separable(32, 64, 128, 128, 256, 256, *(512,) * 6, 1024, 1024)
    + linear(1024),
    "yolov5n-cls": csp(0.33, 16, 32, 64, 128, 256),
    "yolov5s-cls": csp(0.33, 32, 64, 128, 256, 512),
    "yolov5m-cls": csp(0.67, 48, 96, 192, 384, 768),
    "yolov5l-cls": csp(1.0, 64, 128, 256, 512, 1024),
    "yolov5x-cls": csp(1.33, 80, 160, 320, 640, 1280),
    **{
        f"{name}d": PUBLISHED[name] + DEEP
        for name in ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")
    },
}
COUNTS = BY_HAND | PUBLISHED
# Others of their families say the same in the default run.
SLOW = (
    "resnet101d",
    "resnet152d",
    "efficientnet_b0",
    "efficientnet_b1",
    "efficientnet_b2",
    "mobilenet_v3_small",
    "yolov5m-cls",
    "yolov5l-cls",
    "yolov5x-cls",
)


def small(name):
    """An entry with 7 classes, narrow where it can be."""
    narrow = "width" in inspect.signature(CLASSIFIERS[name]).parameters
    return build_classifier(name, num_classes=7, **({"width": 0.125} if narrow else {}))


def test_the_count_of_every_classifier_is_known():
    assert set(COUNTS) == set(CLASSIFIERS)


def images(*size):
    return jax.ShapeDtypeStruct((2, *size, 3), "float32")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name
        for name in COUNTS
    ],
)
def test_parameters_and_logits_are_as_many_as_published(name):
    model = build_classifier(name, num_classes=1000)
    shapes = model.shapes()
    assert shapes["params"].keys() <= {"backbone", "head", "auxiliary"}
    leaves = jax.tree.leaves(shapes["params"])
    count = sum(int(np.prod(leaf.shape)) for leaf in leaves)
    assert count == COUNTS[name]
    if name in ROUNDED:
        assert round(count / 1e6, 2) == ROUNDED[name]
    run = functools.partial(model.apply, train=False)
    size = model.smallest + 33, model.smallest + 98
    (logits,), _ = jax.eval_shape(run, shapes, images(*size))
    assert logits.shape == (2, 1000)


@pytest.mark.slow
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_logits_have_the_shape_of_batch_and_classes(name):
    model = small(name)
    shapes = model.shapes()
    run = functools.partial(model.apply, train=False)
    smallest = images(model.smallest, model.smallest)
    (logits,), stats = jax.eval_shape(run, shapes, smallest)
    assert logits.shape == (2, 7)
    run = functools.partial(model.apply, train=True)
    logits, after = jax.eval_shape(run, shapes, images(160, 160))
    assert {row.shape for row in logits} == {(2, 7)}
    for tree in (stats, after):
        before = jax.tree.map(jnp.shape, shapes["batch_stats"])
        assert jax.tree.map(jnp.shape, tree) == before


@pytest.mark.slow
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_half_precision_gives_float32_logits_and_keeps_statistics(name):
    model = build_classifier(name, num_classes=3, dtype="bfloat16")
    shapes = model.shapes()
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype("float32")}
    run = functools.partial(model.apply, train=True)
    logits, stats = jax.eval_shape(run, shapes, images(160, 160))
    dtypes = {leaf.dtype for leaf in jax.tree.leaves((logits, stats))}
    assert dtypes == {jnp.dtype("float32")}


@pytest.mark.slow
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_feature_info_is_what_the_backbone_gives(name):
    model = build_classifier(name, num_classes=3)
    backbone = {k: tree.get("backbone", {}) for k, tree in model.shapes().items()}
    run = functools.partial(model.backbone.apply, train=False)
    # 64 px more are as many pixels more as the stride says, at any padding.
    side = -(-model.smallest // 32) * 32
    one, two = (jax.eval_shape(run, backbone, images(s, s)) for s in (side, side + 64))
    pairs = zip(one, two, strict=True)
    found = [(x.shape[-1], 64 / (y.shape[1] - x.shape[1])) for x, y in pairs]
    assert found == list(model.feature_info)


def unreached(loss, params, *others):
    """Paths of parameters whose gradient depends on nothing."""
    closed = jax.make_jaxpr(jax.grad(loss))(params, *others)
    known = set(closed.jaxpr.invars)
    for line in closed.jaxpr.eqns:
        if any(not hasattr(x, "val") and x in known for x in line.invars):
            known |= set(line.outvars)
    reached = [not hasattr(x, "val") and x in known for x in closed.jaxpr.outvars]
    tree = jax.tree.unflatten(jax.tree.structure(params), reached)
    return [path for path, is_reached in flatten(tree).items() if not is_reached]


class TwoDense(nn.Module):
    """A layer that counts, and one whose gradient is cut off."""

    @nn.compact
    def __call__(self, x):
        cut = jax.lax.stop_gradient(nn.Dense(2, name="cut")(x))
        return nn.Dense(2, name="taken")(x) + cut


def test_a_parameter_without_gradient_is_found():
    module, x = TwoDense(), jnp.ones((1, 3))
    params = module.init(jax.random.key(0), x)["params"]

    def loss(params, x):
        return jnp.sum(module.apply({"params": params}, x) ** 2)

    assert unreached(loss, params, x) == ["cut/bias", "cut/kernel"]


@pytest.mark.slow
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_the_gradient_reaches_every_parameter(name):
    # Which numbers there are does not matter: what counts is that the gradient of
    # each parameter is computed from something. Running statistics, as a bias before
    # the batch's own has no gradient; squares, as a sum has a constant one.
    model = build_classifier(name, num_classes=3)
    shapes = model.shapes()
    norms = {path.rpartition("/")[0] for path in flatten(shapes["batch_stats"])}

    def loss(params, stats, images):
        variables = {"params": params, "batch_stats": stats}
        logits, _ = model.apply(variables, images, train=True, frozen=norms)
        return sum(jnp.sum(row**2) for row in logits)

    side = max(model.smallest, 64)
    given = shapes["params"], shapes["batch_stats"], images(side, side)
    assert unreached(loss, *given) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_first_variables_are_a_function_of_the_seed(name):
    one, two, other = (flatten(small(name).init(seed)) for seed in (3, 3, 4))
    assert all(np.isfinite(leaf).all() for leaf in one.values())
    assert all(np.array_equal(one[path], two[path]) for path in one)
    kernels = [path for path in one if path.endswith("/kernel")]
    assert not any(np.array_equal(one[path], other[path]) for path in kernels)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_every_classifier_says_what_is_wrong(name):
    with pytest.raises(ValueError, match=f"num_classes of {name} is 0"):
        build_classifier(name, num_classes=0)
    with pytest.raises(ValueError, match="no dtype named 'int8'"):
        build_classifier(name, num_classes=2, dtype="int8")
    with pytest.raises(ValueError, match=f"model '{name}' has no argument 'dept'"):
        build_classifier(name, num_classes=2, dept=3)
    with pytest.raises(ValueError, match="no activation named 'rellu'"):
        build_classifier(name, num_classes=2, activation="rellu")
    model = build_classifier(name, num_classes=2)
    with pytest.raises(ValueError, match=f"too small for {name}, which takes"):
        model.check_size((model.smallest, model.smallest - 1))


def test_an_unknown_classifier_is_named():
    with pytest.raises(ValueError, match="no model named 'resnet5'. Did you mean"):
        build_classifier("resnet5", num_classes=2)
