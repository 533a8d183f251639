"""Networks that normalise the pictures which they are given."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, TypeVar

import jax

from yolojax.lookup import check_arguments, pick
from yolojax.models.network import Network
from yolojax.ops.colour import NORMALISATIONS

AnyNetwork = TypeVar("AnyNetwork", bound=Network)


def normalised(network: AnyNetwork, normalise: str | Mapping[str, Any]) -> AnyNetwork:
    """The network behind a normalisation of its pictures.

    Args:
        network: takes what comes out of the normalisation.
        normalise: a name in `NORMALISATIONS`, or its `name` and arguments: what is done
            to pictures first, in training and later.

    Raises:
        ValueError: an unknown name or argument, or one that does not fit.
    """
    chosen = {"name": normalise} if isinstance(normalise, str) else dict(normalise)
    kind = chosen.pop("name", "")
    function = pick(NORMALISATIONS, kind, "normalisation")
    if kind == "unit" and not chosen:
        return network
    check_arguments(function, chosen, f"normalise {kind!r}")
    function = functools.partial(function, **chosen)
    try:
        jax.eval_shape(function, jax.ShapeDtypeStruct((1, 1, 1, 3), "float32"))
    except (TypeError, ValueError) as error:
        raise ValueError(f"normalise {kind!r}: {error}") from error
    return dataclasses.replace(network, normalise=function)
