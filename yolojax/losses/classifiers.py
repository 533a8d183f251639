"""Losses of classifiers, one value an example.

In the formulas x are the logits of an example, y is its class, p the softmax of x.
Elements of 16 bits are computed in float32.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from yolojax.losses.classification import binary_cross_entropy
from yolojax.losses.weights import weight_of_labels
from yolojax.ops.precision import computed_in_single


@computed_in_single
def cross_entropy(
    logits: Float[Array, "*n c"],
    labels: Int[Array, "*n"],
    *,
    label_smoothing: float = 0.0,
    class_weights: Sequence[float] = (),
) -> Float[Array, "*n"]:
    """-w_y sum_k t_k log p_k, with t_k = (1 - s) [k = y] + s / c.

    Args:
        logits: any real values.
        labels: y in [0, c).
        label_smoothing: s.
        class_weights: w, one a class; none: 1.

    Source: smoothing: Szegedy et al. 2016, arXiv:1512.00567, section 7.
    """
    chances = jax.nn.log_softmax(logits, axis=-1)
    targets = _smoothed(labels, logits, label_smoothing)
    return -jnp.sum(targets * chances, axis=-1) * _weight(
        class_weights, labels, logits.dtype
    )


@computed_in_single
def squared_error(
    logits: Float[Array, "*n c"],
    labels: Int[Array, "*n"],
    *,
    label_smoothing: float = 0.0,
    class_weights: Sequence[float] = (),
) -> Float[Array, "*n"]:
    """w_y times the mean over k of (t_k - p_k)^2, with t as in `cross_entropy`.

    Args:
        logits: any real values.
        labels: y in [0, c).
        label_smoothing: s.
        class_weights: w, one a class; none: 1.

    Source: Brier 1950, Monthly Weather Review 78(1), by the number of classes.
    """
    targets = _smoothed(labels, logits, label_smoothing)
    errors = (targets - jax.nn.softmax(logits, axis=-1)) ** 2
    return jnp.mean(errors, axis=-1) * _weight(class_weights, labels, logits.dtype)


@computed_in_single
def multi_label_cross_entropy(
    logits: Float[Array, "*n c"],
    targets: Float[Array, "*n c"],
    *,
    label_smoothing: float = 0.0,
    class_weights: Sequence[float] = (),
) -> Float[Array, "*n"]:
    """Mean over classes of w_k times the binary cross entropy.

    Args:
        logits: any real values.
        targets: 1 for each class that the example has, 0 for others, or between.
        label_smoothing: s; a target t becomes t (1 - s) + s / 2.
        class_weights: w, one a class; none: 1.
    """
    targets = targets * (1 - label_smoothing) + label_smoothing / 2
    losses = binary_cross_entropy(logits, targets)
    if class_weights:
        weights = jnp.asarray(class_weights, logits.dtype)
        losses = losses * jnp.broadcast_to(weights, losses.shape)
    return jnp.mean(losses, axis=-1)


@computed_in_single
def multi_class_hinge(
    logits: Float[Array, "*n c"],
    labels: Int[Array, "*n"],
    *,
    margin: float = 1.0,
    class_weights: Sequence[float] = (),
) -> Float[Array, "*n"]:
    """w_y max(0, margin + max over k != y of x_k - x_y).

    Args:
        logits: any real values of at least two classes.
        labels: y in [0, c).
        margin: by how much the class's logit must be above all others.
        class_weights: w, one a class; none: 1.

    Source: Crammer and Singer 2001, Journal of Machine Learning Research 2.
    """
    is_own = jax.nn.one_hot(labels, logits.shape[-1], dtype=jnp.bool_)
    own = jnp.sum(jnp.where(is_own, logits, 0), axis=-1)
    other = jnp.max(jnp.where(is_own, -jnp.inf, logits), axis=-1)
    losses = jnp.maximum(margin + other - own, 0)
    return losses * _weight(class_weights, labels, logits.dtype)


def _smoothed(
    labels: Int[Array, "*n"], logits: Float[Array, "*n c"], label_smoothing: float
) -> Float[Array, "*n c"]:
    """Targets that sum to 1: (1 - s) at the class, and s / c everywhere."""
    num_classes = logits.shape[-1]
    targets = jax.nn.one_hot(labels, num_classes, dtype=logits.dtype)
    return targets * (1 - label_smoothing) + label_smoothing / num_classes


def _weight(
    class_weights: Sequence[float], labels: Int[Array, "*n"], dtype: jnp.dtype | type
) -> Float[Array, "*n"]:
    """The weight of each example's class."""
    if not class_weights:
        return jnp.ones(labels.shape, dtype)
    return weight_of_labels(labels, class_weights, dtype)
