"""Layers that leave something out at random in training.

The draws are a function of the key that `Model.apply` is given, of the layer's path
and of the picture's position in the whole batch: neither the number of devices nor the
other pictures change them. Without a key, and outside training, nothing is left out.
What stays is divided by the chance to stay, so that evaluation needs no factor.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

# What flax calls the stream of keys.
STREAM = "dropping"


class DropPath(nn.Module):
    """Leaves a picture's whole map out: for the residual branch of a block.

    Attributes:
        rate: chance to leave it out, in [0, 1).

    Source: Huang et al. 2016, arXiv:1603.09382, section 3, which multiplies by the
    chance to stay in evaluation instead.
    """

    rate: float

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        if self.rate == 0 or not train or not self.has_rng(STREAM):
            return x
        return _dropped(self.make_rng(STREAM), x, self.rate, (1,) * (x.ndim - 1))


class Dropout(nn.Module):
    """Leaves out single elements.

    Attributes:
        rate: chance of each element, in [0, 1).

    Source: Srivastava et al. 2014, Journal of Machine Learning Research 15.
    """

    rate: float

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        if self.rate == 0 or not train or not self.has_rng(STREAM):
            return x
        return _dropped(self.make_rng(STREAM), x, self.rate, x.shape[1:])


def linear_rates(last: float, count: int) -> tuple[float, ...]:
    """The rates of `count` blocks: l / count of the last one's for the l-th.

    Source: Huang et al. 2016, arXiv:1603.09382, equation 4.
    """
    return tuple(last * (place + 1) / count for place in range(count))


def check_rate(value: float, what: str) -> None:
    """Check that a rate is in [0, 1).

    Raises:
        ValueError: it is not.
    """
    if not isinstance(value, (int, float)) or not 0 <= value < 1:
        raise ValueError(f"{what} is {value!r}; it must be at least 0 and below 1")


def _dropped(
    key: jax.Array, x: jax.Array, rate: float, shape: tuple[int, ...]
) -> jax.Array:
    """Parts of x left out, the draws of a picture having the given shape."""
    # A key for each picture: in a larger batch, and on any device, it has the same.
    number = jnp.arange(len(x), dtype=jnp.uint32)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, number)
    stays = jax.vmap(lambda k: jax.random.bernoulli(k, 1 - rate, shape))(keys)
    return jnp.where(stays, x * (1 / (1 - rate)), jnp.zeros((), x.dtype))
