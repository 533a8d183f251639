"""Weights of classes, from how many examples of each there are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int


def count_classes(labels: Iterable[np.ndarray], num_classes: int) -> tuple[int, ...]:
    """How many boxes of each class there are.

    Args:
        labels: the classes of each picture's boxes.
        num_classes: length of the result.
    """
    counts = np.zeros(num_classes, np.int64)
    for own in labels:
        counts += np.bincount(own, minlength=num_classes)[:num_classes]
    return tuple(counts.tolist())


def balanced_weights(counts: Sequence[int] | np.ndarray) -> tuple[float, ...]:
    """n / (c n_k) of each class k: every class has the same weight in the whole.

    Args:
        counts: n_k, examples of each of the c classes; n is their sum. A class without
            examples counts as if it had one.

    Returns:
        A weight per class; the examples' mean weight is 1.

    Source: King and Zeng 2001, Political Analysis 9(2), for c classes.
    """
    there = np.maximum(np.asarray(counts, np.float64), 1)
    return tuple((there.sum() / (len(there) * there)).tolist())


def effective_weights(
    counts: Sequence[int] | np.ndarray, *, beta: float = 0.999
) -> tuple[float, ...]:
    """1 / E_k with E_k = (1 - beta^n_k) / (1 - beta), scaled to the sum c.

    Args:
        counts: n_k, examples of each of the c classes. A class without examples counts
            as if it had one.
        beta: in [0, 1); 0 gives equal weights, and towards 1 they go as 1 / n_k.

    Source: Cui et al. 2019, arXiv:1901.05555, section 4.
    """
    there = np.maximum(np.asarray(counts, np.float64), 1)
    # 1 - beta^n by way of the logarithm: it is exact near 0.
    with np.errstate(divide="ignore"):
        number = -np.expm1(there * np.log(beta))
    weights = 1 / number
    return tuple((weights * len(there) / weights.sum()).tolist())


def weight_of_labels(
    labels: Int[Array, "*n"], weights: Sequence[float], dtype: jnp.dtype | type
) -> Float[Array, "*n"]:
    """The weight of each label's class.

    Args:
        labels: classes; one outside the range has the nearest class's weight.
        weights: one a class.
        dtype: of the result.
    """
    return jnp.take(jnp.asarray(weights, dtype), labels, mode="clip")
