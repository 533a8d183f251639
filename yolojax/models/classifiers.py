"""Classifiers by name."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp

from yolojax.lookup import check_arguments, pick
from yolojax.models.classifier import Classifier
from yolojax.models.cnn import CNN, build_cnn
from yolojax.models.layers import activate
from yolojax.models.normalised import normalised

# Name -> builder; its keyword arguments are those of `config.model`.
CLASSIFIERS: dict[str, Callable[..., Classifier]] = {
    **{name: functools.partial(build_cnn, name) for name in CNN},
}


def build_classifier(
    name: str, *, normalise: str | Mapping[str, Any] = "unit", **arguments: Any
) -> Classifier:
    """The classifier called `name`.

    Args:
        name: an entry of `CLASSIFIERS`.
        normalise: see `normalised`.
        **arguments: of the entry's builder; all take `num_classes`, at least 1,
            `dtype` and `activation`.

    Raises:
        ValueError: an unknown name or argument, or one that does not fit.
    """
    build = pick(CLASSIFIERS, name, "model")
    check_arguments(build, arguments, f"model {name!r}")
    if "activation" in arguments:
        check_activation(arguments["activation"], name)
    return normalised(build(**arguments), normalise)


def check_activation(activation: str, name: str) -> None:
    """Check the name of an activation.

    Raises:
        ValueError: it is no name, or an unknown one.
    """
    if not isinstance(activation, str):
        raise ValueError(f"activation of {name} must be a name, not {activation!r}")
    activate(jnp.zeros(1), activation)
