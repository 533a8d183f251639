"""Networks against NumPy float64, which reads the weights by their published names."""

import functools

import jax
import numpy as np
import pytest

from yolojax.models.classifiers import build_classifier
from yolojax.trees import flatten, unflatten_variables
from yolojax.weights.mapping import to_state_dict

STAGES = (1, 2, 8, 8, 4)


class Reference:
    """Layers of torchvision and timm on [b, h, w, c], by names in a state dict."""

    def __init__(self, state):
        self.state = {k: np.asarray(v, np.float64) for k, v in state.items()}

    def conv(self, x, name, stride=1):
        kernel = self.state[f"{name}.weight"]
        size = kernel.shape[-1]
        pad = 2 if size == 11 else size // 2
        x = np.pad(x, [(0, 0), (pad, pad), (pad, pad), (0, 0)])
        windows = np.lib.stride_tricks.sliding_window_view(x, (size, size), (1, 2))
        windows = windows[:, ::stride, ::stride]
        y = np.einsum("bhwcij,ocij->bhwo", windows, kernel, optimize=True)
        return y + self.state.get(f"{name}.bias", 0)

    def norm(self, x, name):
        scale, bias, mean, var = (
            self.state[f"{name}.{end}"]
            for end in ("weight", "bias", "running_mean", "running_var")
        )
        return (x - mean) / np.sqrt(var + 1e-5) * scale + bias

    def linear(self, x, name):
        return x @ self.state[f"{name}.weight"].T + self.state[f"{name}.bias"]

    def has(self, name):
        return f"{name}.weight" in self.state

    def unit(self, x, name, stride=1, slope=0.1):
        y = self.norm(self.conv(x, f"{name}.conv", stride), f"{name}.bn")
        return np.where(y > 0, y, slope * y)


def relu(x):
    return np.maximum(x, 0)


def maxima(x, size, stride, pad):
    x = np.pad(x, [(0, 0), (pad, pad), (pad, pad), (0, 0)], constant_values=-np.inf)
    windows = np.lib.stride_tricks.sliding_window_view(x, (size, size), (1, 2))
    return windows[:, ::stride, ::stride].max(axis=(-2, -1))


def means(x):
    """Of 2x2 pixels, or of what is left of them at the end."""
    b, h, w, c = x.shape
    y = np.empty((b, -(-h // 2), -(-w // 2), c))
    for i in range(y.shape[1]):
        for j in range(y.shape[2]):
            y[:, i, j] = x[:, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].mean(axis=(1, 2))
    return y


def adaptive(x, size):
    """Torch's adaptive average pooling, flattened with the channels first."""
    b, h, w, c = x.shape
    y = np.empty((b, c, size, size))
    for i in range(size):
        rows = slice(i * h // size, -(-(i + 1) * h // size))
        for j in range(size):
            columns = slice(j * w // size, -(-(j + 1) * w // size))
            y[:, :, i, j] = x[:, rows, columns].mean(axis=(1, 2))
    return y.reshape(b, -1)


def resnet(net, x):
    if net.has("conv1.0"):
        x = relu(net.norm(net.conv(x, "conv1.0", 2), "conv1.1"))
        x = relu(net.norm(net.conv(x, "conv1.3"), "conv1.4"))
        x = relu(net.norm(net.conv(x, "conv1.6"), "bn1"))
    else:
        x = relu(net.norm(net.conv(x, "conv1", 2), "bn1"))
    x = maxima(x, 3, 2, 1)
    names = [n.removesuffix(".conv1.weight") for n in net.state if "conv1.weight" in n]
    for name in sorted(n for n in names if n.startswith("layer")):
        stride = 2 if name.endswith(".0") and name[5] != "1" else 1
        y, last = x, 3 if net.has(f"{name}.conv3") else 2
        for number in range(1, last + 1):
            # The stride stands in the 3x3 convolution, or in the first of two.
            step = stride if number == last - 1 else 1
            y = net.norm(
                net.conv(y, f"{name}.conv{number}", step), f"{name}.bn{number}"
            )
            y = y if number == last else relu(y)
        if net.has(f"{name}.downsample.2"):
            x = means(x) if stride == 2 else x
            x = net.norm(net.conv(x, f"{name}.downsample.1"), f"{name}.downsample.2")
        elif net.has(f"{name}.downsample.0"):
            x = net.conv(x, f"{name}.downsample.0", stride)
            x = net.norm(x, f"{name}.downsample.1")
        x = relu(x + y)
    return net.linear(x.mean(axis=(1, 2)), "fc")


def vgg11_bn(net, x):
    for place in (0, 4, 8, 11, 15, 18, 22, 25):
        x = relu(net.norm(net.conv(x, f"features.{place}"), f"features.{place + 1}"))
        if place in (0, 4, 11, 18, 25):
            x = maxima(x, 2, 2, 0)
    x = relu(net.linear(adaptive(x, 7), "classifier.0"))
    return net.linear(relu(net.linear(x, "classifier.3")), "classifier.6")


def alexnet(net, x):
    for place in (0, 3, 6, 8, 10):
        x = relu(net.conv(x, f"features.{place}", 1 if place else 4))
        if place in (0, 3, 10):
            x = maxima(x, 3, 2, 0)
    x = relu(net.linear(adaptive(x, 6), "classifier.1"))
    return net.linear(relu(net.linear(x, "classifier.4")), "classifier.6")


def darknet53(net, x):
    x = net.unit(x, "stem.conv1")
    for stage, count in enumerate(STAGES):
        x = net.unit(x, f"stages.{stage}.conv_down", 2)
        for number in range(count):
            name = f"stages.{stage}.blocks.{number}"
            x = x + net.unit(net.unit(x, f"{name}.conv1"), f"{name}.conv2")
    return net.linear(x.mean(axis=(1, 2)), "head.fc")


def crossed(net, x, *, counts, bottleneck):
    x = net.unit(x, "stem.conv1", 2 if bottleneck else 1)
    x = maxima(x, 3, 2, 1) if bottleneck else x
    for stage, count in enumerate(counts):
        name = f"stages.{stage}"
        if net.has(f"{name}.conv_down.conv"):
            x = net.unit(x, f"{name}.conv_down", 2)
        x = net.unit(x, f"{name}.conv_exp", slope=1.0 if bottleneck else 0.1)
        past, x = np.split(x, 2, axis=-1)
        for number in range(count):
            block = f"{name}.blocks.{number}"
            y = net.unit(net.unit(x, f"{block}.conv1"), f"{block}.conv2")
            if bottleneck:
                y = x + net.unit(y, f"{block}.conv3", slope=1.0)
                x = np.where(y > 0, y, 0.1 * y)
            else:
                x = x + y
        x = net.unit(x, f"{name}.conv_transition_b")
        x = net.unit(np.concatenate((past, x), axis=-1), f"{name}.conv_transition")
    return net.linear(x.mean(axis=(1, 2)), "head.fc")


FORM_D = {"stem": "deep", "shortcut": "pooled"}
CASES = {
    "resnet18": ("resnet18", {}, resnet),
    "resnet18d": ("resnet18", FORM_D, resnet),
    "resnet50": ("resnet50", {}, resnet),
    "vgg11_bn": ("vgg11_bn", {}, vgg11_bn),
    "alexnet": ("alexnet", {}, alexnet),
    "darknet53": ("darknet53", {}, darknet53),
    "cspdarknet53": (
        "cspdarknet53",
        {},
        functools.partial(crossed, counts=STAGES, bottleneck=False),
    ),
    "cspresnet50": (
        "cspresnet50",
        {},
        functools.partial(crossed, counts=(3, 3, 5, 2), bottleneck=True),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_logits_are_those_of_the_layers_by_their_published_names(case):
    name, changes, reference = CASES[case]
    model = build_classifier(name, num_classes=5, width=0.125, **changes)
    rng = np.random.default_rng(0)
    leaves = {}
    for path, leaf in flatten(model.init(0)).items():
        if path.endswith(("/scale", "/var")):
            leaves[path] = rng.uniform(0.5, 1.5, leaf.shape).astype(np.float32)
        elif path.endswith("/mean") or "/norm/" in path:
            leaves[path] = rng.normal(0, 0.2, leaf.shape).astype(np.float32)
        else:
            # The gain keeps differences alive through many layers.
            leaves[path] = leaf * np.float32(2.4)
    variables = unflatten_variables(leaves)
    # Sides that no stride divides.
    images = rng.random((2, 75, 67, 3)).astype(np.float32)
    run = jax.jit(lambda v, x: model.apply(v, x, train=False)[0][0])
    found = run(variables, images)
    expected = reference(Reference(to_state_dict(model, variables)), images)
    spread = np.ptp(expected, axis=0).min()
    assert spread > 1e-3 * np.abs(expected).max(), "pictures make no difference"
    np.testing.assert_allclose(found, expected, atol=2e-5 * np.abs(expected).max())
