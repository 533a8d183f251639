import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from yolojax.models.detector import build_model
from yolojax.ops import colour

TINY = dict(num_classes=2, width=0.125, depth=0.33)


@pytest.mark.parametrize(
    "normalise, function",
    [
        ("unit", lambda x: x),
        ("statistics", colour.normalise_statistics),
        ("each", colour.normalise_each),
        (
            dict(name="statistics", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
            lambda x: 2 * x - 1,
        ),
    ],
)
def test_the_network_sees_normalised_pictures(normalise, function):
    model = build_model("yolov5n", normalise=normalise, **TINY)
    seen = []

    class Module:
        def apply(self, variables, images, *, train):
            seen.append(images)
            return ()

    model = dataclasses.replace(model, module=Module())
    images = np.random.default_rng(0).uniform(0, 1, (2, 32, 32, 3)).astype(np.float32)
    empty = {"params": {}, "batch_stats": {}}
    model.apply(empty, jnp.asarray(images), train=False)
    np.testing.assert_allclose(seen[0], function(jnp.asarray(images)), atol=1e-6)


@pytest.mark.parametrize(
    "normalise, message",
    [
        ("imagenet", "no normalisation named 'imagenet'.*Choices: each, stat.*, unit"),
        (dict(name="each", mean=0.5), "normalise 'each' has no argument 'mean'"),
        (dict(name="statistics", std=(1.0, 0.0, 1.0)), "normalise .stat.*: .* above 0"),
        (dict(name="statistics", mean=(1.0, 0.0)), "normalise 'statistics': "),
    ],
)
def test_a_wrong_normalisation_is_named(normalise, message):
    with pytest.raises(ValueError, match=message):
        build_model("yolov5n", normalise=normalise, **TINY)
