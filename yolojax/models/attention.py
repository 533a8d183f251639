"""Self-attention between the pixels of a map."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from yolojax.models.blocks import CspStage
from yolojax.models.layers import wide_dtype


class Linear(nn.Module):
    """A matrix over the last axis; `kernel` is [in, out].

    Attributes:
        features: out.
        use_bias: whether a `bias` is added.
        dtype: of the computation.
    """

    features: int
    use_bias: bool = False
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        zeros = nn.initializers.zeros
        ends = (x.shape[-1], self.features)
        kernel = self.param("kernel", zeros, ends, jnp.float32)
        y = x @ kernel.astype(x.dtype)
        if not self.use_bias:
            return y
        bias = self.param("bias", zeros, ends[1:], jnp.float32).astype(y.dtype)
        return y + bias.reshape((1,) * (y.ndim - 1) + (-1,))


class AttentionLayer(nn.Module):
    """Multi-head self-attention and two matrices, each with its input added.

    There is no normalisation and no activation. Queries, keys and values go through
    a matrix each, and then through one together (`in_projection`, with bias), as the
    published weights have it.

    Attributes:
        num_heads: parts of the channels, which must divide them.
        dtype: of the computation; logits and softmax are in float32 at least.

    Source: Vaswani et al. 2017, arXiv:1706.03762, section 3.2; without normalisation
    as in YOLOv5 ("TransformerLayer").
    """

    num_heads: int
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        b, n, c = x.shape
        kinds = ("query", "key", "value")
        projected = [Linear(c, dtype=self.dtype, name=kind)(x) for kind in kinds]
        zeros = nn.initializers.zeros
        kernel, bias = _Projection(3 * c, name="in_projection")(c, zeros)
        parts = []
        for i, y in enumerate(projected):
            columns = slice(i * c, (i + 1) * c)
            y = y @ kernel[:, columns].astype(y.dtype)
            y = y + bias[columns].astype(y.dtype).reshape(1, 1, c)
            parts.append(y.reshape(b, n, self.num_heads, c // self.num_heads))
        query, key, value = parts
        # Before it is scaled, a sum over channels may leave float16's range.
        wide = wide_dtype(self.dtype)
        logits = jnp.einsum("bqhd,bkhd->bhqk", query, key, preferred_element_type=wide)
        logits = logits * (c // self.num_heads) ** -0.5
        weights = jax.nn.softmax(logits, axis=-1).astype(value.dtype)
        y = jnp.einsum("bhqk,bkhd->bqhd", weights, value).reshape(b, n, c)
        x = x + Linear(c, True, self.dtype, name="out_projection")(y)
        y = Linear(c, dtype=self.dtype, name="first")(x)
        return x + Linear(c, dtype=self.dtype, name="second")(y)


class _Projection(nn.Module):
    """A kernel [in, features] and a bias, used by columns."""

    features: int

    @nn.compact
    def __call__(self, inputs: int, start) -> tuple[jax.Array, jax.Array]:
        kernel = self.param("kernel", start, (inputs, self.features), jnp.float32)
        return kernel, self.param("bias", start, (self.features,), jnp.float32)


class Attention(nn.Module):
    """Attention layers over all pixels of a map, which stays as large as it is.

    A pixel's place is told by nothing: what is added before the first layer is a
    matrix of the pixel itself.

    Attributes:
        num_layers: attention layers.
        num_heads: of each.
        dtype: of the computation.

    Source: Dosovitskiy et al. 2021, arXiv:2010.11929, in the form of YOLOv5
    ("TransformerBlock").
    """

    num_layers: int
    num_heads: int = 4
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        b, h, w, c = x.shape
        tokens = x.astype(self.dtype).reshape(b, h * w, c)
        tokens = tokens + Linear(c, True, self.dtype, name="position")(tokens)
        for i in range(self.num_layers):
            layer = AttentionLayer(self.num_heads, self.dtype, name=f"layer{i}")
            tokens = layer(tokens)
        return tokens.reshape(b, h, w, c)


class AttentionCspStage(CspStage):
    """A `CspStage` with attention instead of bottlenecks, 4 heads ("C3TR").

    `num_blocks` are its layers; `shortcut` and `groups` change nothing.
    """

    def inside(self, y: jax.Array, *, train: bool) -> jax.Array:
        del train
        return Attention(self.num_blocks, dtype=self.dtype, name="attention")(y)
