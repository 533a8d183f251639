"""Element-wise losses of classification."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

# Share of the positives in the focal loss, as published.
FOCAL_ALPHA = 0.25


def smooth_one_hot(
    labels: Int[Array, "*n"],
    num_classes: int,
    *,
    label_smoothing: float = 0.0,
    dtype: jnp.dtype | type = jnp.float32,
) -> Float[Array, "*n {num_classes}"]:
    """Targets of independent binary classifiers, smoothed.

    Args:
        labels: index of the class; one outside the range is negative everywhere.
        num_classes: length of the last axis.
        label_smoothing: the positive becomes 1 - s/2, the negatives s/2.
        dtype: of the result.

    Source: smoothing as in YOLOv4, Bochkovskiy et al. 2020, arXiv:2004.10934.
    """
    one_hot = jax.nn.one_hot(labels, num_classes, dtype=dtype)
    return one_hot * (1 - label_smoothing) + label_smoothing / 2


def binary_cross_entropy(
    logits: Float[Array, "*n"],
    targets: Float[Array, "*n"],
    *,
    positive_weight: float = 1.0,
    focal_gamma: float = 0.0,
) -> Float[Array, "*n"]:
    """Binary cross entropy of each element, with optional weight and focus.

    Args:
        logits: any real values.
        targets: probabilities in [0, 1].
        positive_weight: factor of the positive part.
        focal_gamma: exponent of the focal loss; 0 is the plain cross entropy
            without its alpha.

    Returns:
        Values >= 0, finite for any finite logit, as is the gradient.

    Source: Lin et al. 2017, arXiv:1708.02002, with targets between 0 and 1: the
    probability of the truth is t p + (1 - t)(1 - p).
    """
    weight = 1 + (positive_weight - 1) * targets
    loss = (1 - targets) * logits + weight * jax.nn.softplus(-logits)
    if focal_gamma <= 0:
        return loss
    chance = jax.nn.sigmoid(logits)
    missed = targets * (1 - chance) + (1 - targets) * chance
    # An exponent below 1 has no finite gradient at 0.
    missed = jnp.maximum(missed, jnp.finfo(missed.dtype).tiny ** 0.5)
    alpha = targets * FOCAL_ALPHA + (1 - targets) * (1 - FOCAL_ALPHA)
    return loss * alpha * missed**focal_gamma
