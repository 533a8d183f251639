"""Scenes of one augmentation of geometry, for the tests of each."""

import jax
import jax.numpy as jnp
import numpy as np

from yolojax.augment.scene import letterboxed
from yolojax.records import Batch

IMAGE_SIZE = (40, 60)


def blank(num, sizes=None, shape=(40, 60)):
    """Black pictures without boxes."""
    sizes = np.full((num, 2), shape) if sizes is None else np.asarray(sizes)
    return Batch(
        image=jnp.zeros((num, *shape, 3), jnp.uint8),
        size=jnp.asarray(sizes, jnp.int32),
        boxes=jnp.zeros((num, 0, 4)),
        labels=jnp.zeros((num, 0), jnp.int32),
        valid=jnp.zeros((num, 0), bool),
        image_id=jnp.arange(num, dtype=jnp.int32),
        origin=jnp.zeros((num, 4)),
    )


def run(step, num, seed=0, applied=True, batch=None, image_size=IMAGE_SIZE):
    """The scene of a batch, blank if not given, after one step."""
    draws = jax.random.uniform(jax.random.key(seed), (num, step.num_draws))
    batch = blank(num) if batch is None else batch

    @jax.jit
    def scene(draws, applied):
        start = letterboxed(batch, image_size)
        return step.apply(start, draws, applied, batch, image_size)

    return jax.tree.map(np.asarray, scene(draws, jnp.full((num,), applied)))


def assert_uniform(values, low, high):
    """The sample looks like 10,000 draws from [low, high], or its whole numbers."""
    width = high - low
    assert values.min() >= low - 1e-4 * width
    assert values.max() <= high + 1e-4 * width
    quantiles = np.quantile(values, [0.0, 0.25, 0.5, 0.75, 1.0])
    expected = low + width * np.linspace(0, 1, 5)
    np.testing.assert_allclose(quantiles, expected, atol=0.025 * width)
