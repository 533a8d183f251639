import jax
import jax.numpy as jnp
import numpy as np
import pytest

from yolojax.augment.colour import hsv
from yolojax.ops.colour import scale_hsv

KEYS = jax.random.split(jax.random.key(2), 2)


def test_value_gain_is_uniform():
    num = 10_000
    step = hsv(hue=0, saturation=0, value=0.4)
    draws = jax.random.uniform(jax.random.key(0), (num, step.num_draws))
    image = jnp.full((num, 1, 1, 3), 0.5)
    keys = jax.random.split(jax.random.key(1), num)
    out = np.asarray(jax.jit(step.apply)(image, draws, jnp.ones((num,), bool), keys))
    gains = out[:, 0, 0, 0] / 0.5
    np.testing.assert_allclose(
        np.quantile(gains, [0, 0.25, 0.5, 0.75, 1]), [0.6, 0.8, 1, 1.2, 1.4], atol=0.02
    )


def test_each_range_belongs_to_its_own_draw():
    step = hsv(hue=0.1, saturation=0.2, value=0.3)
    image = jax.random.uniform(jax.random.key(1), (2, 4, 4, 3))
    draws = jnp.asarray([[0.0, 0.5, 1.0], [1.0, 0.0, 0.5]])
    out = jax.jit(step.apply)(image, draws, jnp.ones((2,), bool), KEYS)
    gains = jnp.asarray([[0.9, 1.0, 1.3], [1.1, 0.8, 1.0]])
    np.testing.assert_allclose(out, scale_hsv(image, gains), atol=1e-5)


def test_a_sample_that_is_not_applied_stays():
    image = jax.random.uniform(jax.random.key(1), (2, 4, 4, 3))
    step = hsv()
    applied = jnp.asarray([False, True])
    out = jax.jit(step.apply)(image, jnp.ones((2, 3)), applied, KEYS)
    np.testing.assert_allclose(out[0], image[0], atol=1e-6)
    assert np.abs(out[1] - image[1]).max() > 0.01


@pytest.mark.parametrize("name", ["hue", "saturation", "value"])
def test_a_range_above_one_is_refused(name):
    with pytest.raises(ValueError, match=f"hsv: {name} is 1.5, expected 0 to 1"):
        hsv(**{name: 1.5})
