"""The loss of a classifier's batch, in the form that the training step takes.

Labels come as rows with a share each (`records.Batch.valid`): a mixed picture has those
of both its pictures, a picture without a label has none and costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from yolojax.losses.classifiers import multi_label_cross_entropy

Element = Callable[..., Float[Array, "*n"]]
Losses = tuple[Float[Array, ""], Mapping[str, Any]]


def single_label_loss(
    outputs: Sequence[Float[Array, "b c"]],
    boxes: Float[Array, "b n 4"],
    labels: Int[Array, "b n"],
    valid: Float[Array, "b n"] | Bool[Array, "b n"],
    *,
    element: Element,
    auxiliary: float | int = 0.3,
    **arguments: Any,
) -> Losses:
    """The sum over the pictures of a loss of one class each.

    Args:
        outputs: logits of the main head, then of auxiliary ones.
        boxes: not read.
        labels: classes, rows with a share of 0 being padding.
        valid: the share that a picture has of each.
        element: from logits and classes to the loss of each example, as
            `classifiers.cross_entropy`; a mixed picture has the mean of its labels'
            by their shares.
        auxiliary: weight of each auxiliary head.
        **arguments: of `element`.

    Returns:
        The sum, and its parts: `class` and, with auxiliary heads, `auxiliary` a
        picture, `train/accuracy`, the share of labelled pictures whose class of the
        largest share has the largest logit, `per_picture` [b] and `labelled`, bool [b].

    Source: auxiliary heads: Szegedy et al. 2015, arXiv:1409.4842, section 5.
    """
    del boxes
    shares = valid.astype(jnp.float32)

    def losses(logits: Float[Array, "b c"]) -> Float[Array, " b"]:
        each = jnp.broadcast_to(logits[:, None], (*labels.shape, logits.shape[-1]))
        return jnp.sum(element(each, labels, **arguments) * shares, axis=1)

    likeliest = jnp.argmax(outputs[0], axis=-1).astype(labels.dtype)
    largest = jnp.argmax(shares, axis=1)
    wanted = jnp.take_along_axis(labels, largest[:, None], axis=1)[:, 0]
    right = (likeliest == wanted).astype(jnp.float32)
    return _summed(outputs, losses, right, shares, auxiliary)


def multi_label_loss(
    outputs: Sequence[Float[Array, "b c"]],
    boxes: Float[Array, "b n 4"],
    labels: Int[Array, "b n"],
    valid: Float[Array, "b n"] | Bool[Array, "b n"],
    *,
    auxiliary: float | int = 0.3,
    **arguments: Any,
) -> Losses:
    """The sum over the pictures of the binary cross entropy of all classes.

    Args: as `single_label_loss`; a class's target is the sum of the shares of its
        rows, at most 1. A picture without a label is one of none of the classes.

    Returns:
        As `single_label_loss`; `train/accuracy` is the share of pictures all of whose
        classes, and no others, have a logit above 0.
    """
    del boxes
    shares = valid.astype(jnp.float32)
    kinds = jax.nn.one_hot(labels, outputs[0].shape[-1], dtype=jnp.float32)
    targets = jnp.minimum(jnp.sum(kinds * shares[..., None], axis=1), 1.0)

    def losses(logits: Float[Array, "b c"]) -> Float[Array, " b"]:
        return multi_label_cross_entropy(
            logits.astype(jnp.float32), targets, **arguments
        )

    right = jnp.all((outputs[0] > 0) == (targets > 0.5), axis=1).astype(jnp.float32)
    return _summed(outputs, losses, right, jnp.ones_like(right)[:, None], auxiliary)


def _summed(
    outputs: Sequence[jax.Array],
    losses: Callable[[jax.Array], jax.Array],
    right: jax.Array,
    shares: jax.Array,
    auxiliary: float | int,
) -> Losses:
    """The loss of all heads, and what the log shows of it."""
    main, *others = (losses(logits) for logits in outputs)
    labelled = (jnp.sum(shares, axis=1) > 0).astype(jnp.float32)
    parts: dict[str, Any] = {
        "class": jnp.mean(main),
        "train/accuracy": jnp.sum(right * labelled)
        / jnp.maximum(jnp.sum(labelled), 1.0),
    }
    total = main
    if others:
        aside = auxiliary * sum(others[1:], others[0])
        parts["auxiliary"] = jnp.mean(aside)
        total = total + aside
    parts["per_picture"], parts["labelled"] = total, labelled > 0
    return jnp.sum(total), parts
