"""From pictures to the probabilities of their classes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from yolojax.engine import evaluate, sharding
from yolojax.models.classifier import Classifier
from yolojax.records import Batch

ProbabilityStep = Callable[[Any, Batch], jax.Array]


def make_probability_step(
    model: Classifier, mesh: Mesh, *, multi_label: bool
) -> ProbabilityStep:
    """The jitted function from variables and a batch to probabilities.

    Args:
        model: the classifier.
        mesh: its devices.
        multi_label: whether each class is decided by itself.

    Returns:
        `probabilities(variables, batch)`: float32 [b, c], the softmax of the logits or,
        with `multi_label`, their logistic function. Of the batch only `image` (uint8,
        or float32 in [0, 1]) is read.
    """
    decide = jax.nn.sigmoid if multi_label else jax.nn.softmax

    def probabilities(variables: Any, image: jax.Array) -> jax.Array:
        if image.dtype == jnp.uint8:
            image = image.astype(jnp.float32) / jnp.float32(255)
        (logits, *_), _ = model.apply(variables, image, train=False)
        return decide(logits.astype(jnp.float32))

    jitted = jax.jit(probabilities, out_shardings=sharding.split(mesh))
    return lambda variables, batch: jitted(variables, batch.image)


def predict_all(
    step: ProbabilityStep,
    variables: Any,
    batches: Iterable[Batch],
    *,
    mesh: Mesh,
    progress: Callable[[int], None] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The probabilities of all pictures.

    Args:
        step: from `make_probability_step`.
        variables: parameters and batch statistics.
        batches: this process's share of each batch.
        mesh: that of `step`.
        progress: is called with the number of pictures done.

    Returns:
        int64 [n], the pictures' places in their source, and float32 [n, c], without
        the padding of batches.
    """
    numbers: list[np.ndarray] = []
    found: list[np.ndarray] = []
    done = 0
    for image_id, rows in evaluate.run_ahead(step, variables, batches, mesh):
        there = image_id >= 0
        numbers.append(image_id[there].astype(np.int64))
        found.append(np.asarray(rows, np.float32)[there])
        done += int(there.sum())
        if progress is not None:
            progress(done)
    return np.concatenate(numbers), np.concatenate(found)
