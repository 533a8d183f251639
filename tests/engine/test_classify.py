"""Probabilities of classes, in order and without padding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from yolojax.engine import sharding
from yolojax.engine.classify import make_probability_step, predict_all
from yolojax.records import Batch


class Brightness:
    """Says the mean of each colour, over and over."""

    def apply(self, variables, image, *, train):
        assert not train
        logits = variables["params"]["gain"] * jnp.mean(image, axis=(1, 2))
        return (logits, jnp.full_like(logits, jnp.nan)), variables["batch_stats"]


VARIABLES = {"params": {"gain": np.float32(3)}, "batch_stats": {}}


def batches(numbers, size=4):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (len(numbers), 5, 6, 3), np.uint8)
    for start in range(0, len(numbers), size):
        own = numbers[start : start + size]
        padding = size - len(own)
        ids = np.array([*own, *[-1] * padding], np.int32)
        image = np.concatenate(
            [images[start : start + size], np.zeros((padding, 5, 6, 3), np.uint8)]
        )
        empty = np.zeros((size, 0), np.int32)
        yield Batch(image, ids, ids, empty, empty > 0, ids, ids)


def expected(count, kind):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, 5, 6, 3), np.uint8)
    logits = 3 * images.mean(axis=(1, 2)) / 255
    if kind == "several":
        return 1 / (1 + np.exp(-logits))
    powers = np.exp(logits)
    return powers / powers.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("kind", ["one", "several"])
@pytest.mark.parametrize("devices", [1, 4])
def test_probabilities_come_in_order_without_padding(kind, devices):
    mesh = sharding.make_mesh(devices)
    step = make_probability_step(Brightness(), mesh, multi_label=kind == "several")  # type: ignore[arg-type]
    seen = []
    numbers = [3, 1, 7, 0, 2, 9]
    ids, found = predict_all(
        step, VARIABLES, batches(numbers), mesh=mesh, progress=seen.append
    )
    assert ids.tolist() == numbers
    assert seen == [4, 6]
    np.testing.assert_allclose(found, expected(6, kind), rtol=1e-5)


def test_pictures_that_are_floats_are_taken_as_they_are():
    mesh = sharding.make_mesh(1)
    step = make_probability_step(Brightness(), mesh, multi_label=True)  # type: ignore[arg-type]
    image = np.full((1, 2, 2, 3), 0.5, np.float32)
    empty = np.zeros((1, 0), np.int32)
    batch = Batch(image, empty, empty, empty, empty > 0, np.zeros(1, np.int32), empty)
    found = step(VARIABLES, jax.tree.map(jnp.asarray, batch))
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-1.5)), rtol=1e-6)
