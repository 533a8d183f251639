"""Families of classifiers with numbers: a training step at a tenth of their width."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from yolojax.models.classifiers import build_classifier


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "mobilenet_v1",
        "mobilenet_v2",
        "mobilenet_v3_small",
        "efficientnet_b0",
        "convnext_tiny",
        "squeezenet1_1",
        "yolov5n-cls",
    ],
)
def test_a_step_against_the_gradient_lowers_the_loss(name):
    model = build_classifier(name, num_classes=3, width=0.1)
    variables = model.init(0)
    side = max(model.smallest, 40)
    shape = (4, side, side + 3, 3)
    images = np.random.default_rng(0).random(shape).astype(np.float32)
    labels = np.array([0, 1, 2, 0])

    def loss(params, stats, key=None):
        given = {"params": params, "batch_stats": stats}
        logits, after = model.apply(given, images, train=True, key=key)
        rows = jnp.arange(4)
        losses = [-jax.nn.log_softmax(row)[rows, labels].mean() for row in logits]
        return sum(losses), after

    stats = variables["batch_stats"]
    step = jax.jit(jax.value_and_grad(loss, has_aux=True))
    (value, after), gradient = step(variables["params"], stats)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    moved = jax.tree.map(lambda x, y: bool((x != y).any()), stats, after)
    assert all(jax.tree.leaves(moved))
    # So short a step falls by about what the slope says.
    size = sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(gradient))
    rate = 1e-3 / jnp.sqrt(size)
    params = jax.tree.map(lambda p, g: p - rate * g, variables["params"], gradient)
    (lower, _), _ = step(params, stats)
    fall = float((value - lower) / (rate * size))
    assert 0.5 < fall < 1.5


@pytest.mark.slow
def test_what_is_left_out_goes_by_the_key_in_training_only():
    model = build_classifier("squeezenet1_0", num_classes=3, width=0.1)
    variables = model.init(0)
    shape = (2, 40, 40, 3)
    images = np.random.default_rng(0).random(shape).astype(np.float32)
    run = functools.partial(model.apply, variables, images)
    train = jax.jit(lambda key: run(train=True, key=key)[0])
    one, again, other = (train(jax.random.key(seed)) for seed in (0, 0, 1))
    for row, same, changed in zip(one, again, other, strict=True):
        np.testing.assert_array_equal(row, same)
        assert (row != changed).any()
    evaluate = jax.jit(lambda key: run(train=False, key=key)[0][0])
    rows = [evaluate(jax.random.key(seed)) for seed in (0, 1)]
    np.testing.assert_array_equal(*rows)
