"""Element-wise losses of independent binary classifiers: classes, objectness.

All take logits and targets in [0, 1] and give one value an element, at least 0 and
finite for any finite logit, as is the gradient. In the formulas p is the sigmoid of
the logit, t the target, p_t = t p + (1 - t)(1 - p), CE the binary cross entropy. Where
a chance or an error is raised to a power, it is at least 1e-19, so that an exponent
below 1 has a finite gradient at 0.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from yolojax.ops.precision import computed_in_single

# Share of the positives in the focal loss, as published.
FOCAL_ALPHA = 0.25

Elements = Float[Array, "*n"]


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


@computed_in_single
def binary_cross_entropy(
    logits: Elements,
    targets: Elements,
    *,
    positive_weight: float = 1.0,
    focal_gamma: float = 0.0,
    focal_alpha: float = FOCAL_ALPHA,
) -> Elements:
    """Binary cross entropy of each element, with optional weight and focus.

    Args:
        logits: any real values.
        targets: probabilities in [0, 1].
        positive_weight: factor of the positive part.
        focal_gamma: exponent of the focal loss; 0 is the plain cross entropy
            without its alpha.
        focal_alpha: share of the positives in the focal loss.

    Returns:
        Values >= 0, finite for any finite logit, as is the gradient.

    Source: Lin et al. 2017, arXiv:1708.02002, with targets between 0 and 1: the
    probability of the truth is t p + (1 - t)(1 - p).
    """
    weight = 1 + (positive_weight - 1) * targets
    loss = (1 - targets) * logits + weight * jax.nn.softplus(-logits)
    if focal_gamma <= 0:
        return loss
    alpha = targets * focal_alpha + (1 - targets) * (1 - focal_alpha)
    return loss * alpha * _away_from_0(_missed(logits, targets)) ** focal_gamma


def weighted_cross_entropy(
    logits: Elements, targets: Elements, *, positive_weight: float = 1.0
) -> Elements:
    """-w t log p - (1 - t) log(1 - p): the cross entropy, with a weight w."""
    return binary_cross_entropy(logits, targets, positive_weight=positive_weight)


@computed_in_single
def focal_loss(
    logits: Elements,
    targets: Elements,
    *,
    alpha: float = FOCAL_ALPHA,
    gamma: float = 2.0,
) -> Elements:
    """alpha_t (1 - p_t)^gamma CE, with alpha_t = t alpha + (1 - t)(1 - alpha).

    Args:
        logits: any real values.
        targets: probabilities in [0, 1].
        alpha: share of the positives; 0.5 is half the loss without it.
        gamma: at 0 the cross entropy with alpha.

    Source: Lin et al. 2017, arXiv:1708.02002, equation 5.
    """
    share = targets * alpha + (1 - targets) * (1 - alpha)
    loss = share * binary_cross_entropy(logits, targets)
    if gamma == 0:
        return loss
    return loss * _away_from_0(_missed(logits, targets)) ** gamma


def class_balanced_loss(
    logits: Elements, targets: Elements, *, beta: float = 0.999, gamma: float = 0.0
) -> Elements:
    """(1 - p_t)^gamma CE, to be times the weight of the example's class.

    Args:
        logits: any real values.
        targets: probabilities in [0, 1].
        beta: of the weights, which the caller has from `weights.effective_weights`.
        gamma: of the focal loss; 0 is the cross entropy.

    Source: Cui et al. 2019, arXiv:1901.05555, section 4.
    """
    del beta
    return poly_loss(logits, targets, epsilon=0.0, gamma=gamma)


@computed_in_single
def quality_focal_loss(
    logits: Elements, targets: Elements, *, beta: float = 2.0
) -> Elements:
    """|t - p|^beta CE.

    Args:
        logits: any real values.
        targets: the quality of the prediction, such as its IoU, 0 for negatives.
        beta: at 0 the cross entropy.

    Source: Li et al. 2020, arXiv:2006.04388, equation 2.
    """
    apart = jnp.abs(targets - jax.nn.sigmoid(logits))
    return _away_from_0(apart) ** beta * binary_cross_entropy(logits, targets)


@computed_in_single
def varifocal_loss(
    logits: Elements, targets: Elements, *, alpha: float = 0.75, gamma: float = 2.0
) -> Elements:
    """t CE where t > 0, and alpha p^gamma CE where t = 0.

    Args:
        logits: any real values.
        targets: the quality of the prediction, such as its IoU, 0 for negatives.
        alpha: weight of the negatives.
        gamma: how little easy negatives count.

    Source: Zhang et al. 2021, arXiv:2008.13367, equation 2.
    """
    chance = _away_from_0(jax.nn.sigmoid(logits))
    weight = jnp.where(targets > 0, targets, alpha * chance**gamma)
    return weight * binary_cross_entropy(logits, targets)


@computed_in_single
def poly_loss(
    logits: Elements, targets: Elements, *, epsilon: float = 1.0, gamma: float = 0.0
) -> Elements:
    """(1 - p_t)^gamma CE + epsilon (1 - p_t)^(gamma + 1).

    Args:
        logits: any real values.
        targets: probabilities in [0, 1].
        epsilon: weight of the first polynomial term; at least -1.
        gamma: of the focal loss; 0 is Poly-1 of the cross entropy.

    Source: Poly-1, Leng et al. 2022, arXiv:2204.12511, without the alpha of the
    focal loss.
    """
    missed = _missed(logits, targets)
    loss = binary_cross_entropy(logits, targets)
    if gamma == 0:
        return loss + epsilon * missed
    missed = _away_from_0(missed)
    return missed**gamma * loss + epsilon * missed ** (gamma + 1)


@computed_in_single
def brier_loss(logits: Elements, targets: Elements) -> Elements:
    """(t - p)^2: the squared error of the probability.

    Source: Brier 1950, Monthly Weather Review 78(1), for one of the outcomes.
    """
    return (targets - jax.nn.sigmoid(logits)) ** 2


@computed_in_single
def hinge_loss(logits: Elements, targets: Elements, *, margin: float = 1.0) -> Elements:
    """max(0, margin - (2 t - 1) x), of the logit x.

    Args:
        logits: any real values.
        targets: 0 or 1; a value between asks for less, 0.5 for nothing.
        margin: by how much a logit must be on the right side.

    Source: Cortes and Vapnik 1995, Machine Learning 20.
    """
    return jnp.maximum(margin - (2 * targets - 1) * logits, 0)


def _missed(logits: Elements, targets: Elements) -> Elements:
    """1 - p_t."""
    chance = jax.nn.sigmoid(logits)
    return targets * (1 - chance) + (1 - targets) * chance


def _away_from_0(values: Elements) -> Elements:
    return jnp.maximum(values, jnp.finfo(values.dtype).tiny ** 0.5)
