"""Options of the residual classifiers."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from yolojax.models.classifiers import build_classifier
from yolojax.models.dropping import DropPath
from yolojax.models.resnet import RESNET, ResidualBlock
from yolojax.trees import flatten


@pytest.mark.parametrize(
    ("name", "blocks"),
    [("resnet18", 8), ("darknet53", 23), ("cspdarknet53", 23), ("cspresnet50", 13)],
)
def test_later_blocks_are_left_out_more_often(name, blocks):
    model = build_classifier(name, num_classes=2, width=0.125, drop_path=0.3)
    rates = []

    def note(call, args, kwargs, context):
        if isinstance(context.module, DropPath) and context.method_name == "__call__":
            rates.append(context.module.rate)
        return call(*args, **kwargs)

    with nn.intercept_methods(note):
        model.shapes()
    np.testing.assert_allclose(rates, np.arange(1, blocks + 1) / blocks * 0.3)


def test_a_branch_that_starts_at_nothing_leaves_the_input():
    model = build_classifier("resnet50", num_classes=2, width=0.125, zero_init=True)
    zeros = [
        path
        for path, leaf in flatten(model.init(0)["params"]).items()
        if path.endswith("/scale") and not leaf.any()
    ]
    assert len(zeros) == 3 + 4 + 6 + 3
    assert all(path.endswith("/expand/norm/scale") for path in zeros)
    plain = build_classifier("resnet50", num_classes=2, width=0.125).init(0)
    assert all(flatten(plain["params"])[path].all() for path in zeros)


def test_the_mean_before_a_shortcut_takes_what_is_there_of_an_odd_side():
    spec = RESNET["resnet18d"]
    block = ResidualBlock(2, 2, spec)
    x = jnp.asarray(np.arange(3 * 5 * 1.0).reshape(1, 3, 5, 1), "float32")
    variables = block.init(jax.random.key(0), x, train=False)
    # All kernels start at 0: only the shortcut is left, given a kernel of 1 and 2.
    params = variables["params"]
    params["shortcut"]["conv"]["kernel"] = jnp.array([[1.0, 2.0]])
    y = block.apply(variables, x, train=False)
    # Rows 0 to 2 of five each: 2x2 means, then halves and the last corner.
    means = np.array([[3.0, 5.0, 6.5], [10.5, 12.5, 14.0]])
    expected = means[None, :, :, None] * np.array([1.0, 2.0])
    np.testing.assert_allclose(y, expected / np.sqrt(1 + 1e-5), rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("resnet18", {"stem": "depe"}, "no stem of resnet18 named 'depe'. Did you"),
        ("resnet18", {"shortcut": "pool"}, "no shortcut of resnet18 named 'pool'"),
        ("resnet18", {"width": 0}, "width of resnet18 is 0; it must be above 0"),
        ("vgg11", {"dropout": 1.0}, "dropout of vgg11 is 1.0; it must be at least 0"),
        ("vgg11", {"drop_path": 0.1}, "model 'vgg11' has no argument 'drop_path'"),
        ("darknet19", {"drop_path": 0.1}, "drop_path of darknet19 is 0.1; it has no"),
        ("cspresnet50", {"drop_path": -1}, "drop_path of cspresnet50 is -1; it must"),
    ],
)
def test_an_option_that_does_not_fit_is_named(name, changes, message):
    with pytest.raises(ValueError, match=message):
        build_classifier(name, num_classes=2, **changes)
