"""What the layers inside a network give: features of pictures, by the layers' names.

A layer's name is the path of its module, as `backbone/stem`; with `:input` behind it,
what the layer is given instead of what it gives.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from yolojax.lookup import hint
from yolojax.models.network import Network

INPUT = ":input"
# Names that an error lists; deeper ones are left out before those.
_LISTED = 40


def layer_names(model: Network) -> tuple[str, ...]:
    """The paths of all modules, in the order that a prediction calls them in.

    Args:
        model: a detector or a classifier.
    """
    order: dict[str, None] = {}

    def note(call: Callable[..., Any], path: str, *given: Any, **options: Any) -> Any:
        order.setdefault(path)
        return call(*given, **options)

    _trace(model, note)
    return tuple(order)


def default_layer(model: Network) -> str:
    """What the last layer with a kernel in the head is given.

    Of a classifier it is what its last linear layer sees; of a detector the map that
    the head's last level sees.
    """
    params = model.shapes()["params"]
    inside = [name for name in layer_names(model) if name.startswith("head/")]
    kernels = [name for name in inside if "kernel" in _at(params, name)]
    return (kernels or layer_names(model))[-1] + INPUT


def check_layer(model: Network, name: str) -> None:
    """Check that a network has a layer.

    Raises:
        ValueError: it has none of this name; the message lists names, and the nearest.
    """
    names = layer_names(model)
    if name.removesuffix(INPUT) in names:
        return
    shown = names
    for depth in (3, 2, 1):
        if len(shown) > _LISTED:
            shown = [path for path in names if path.count("/") < depth]
    more = (
        f" ({len(names)} in all, with those inside)" if len(shown) < len(names) else ""
    )
    raise ValueError(
        f"{model.name} has no layer named {name!r}.{hint(name, names)} "
        f"Choices: {', '.join(shown[:_LISTED])}{more}; with {INPUT!r} behind the name "
        "what the layer is given"
    )


def layer_features(
    model: Network, variables: Mapping[str, Any], images: jax.Array, name: str
) -> jax.Array:
    """What a layer gives for each picture, float32 [b, c].

    The mean over rows and columns of a map [b, h, w, c], in general over all axes but
    the first and the last. Of several maps it is the last one, of several calls of a
    layer the last one, too. Nothing is random: it is as in a prediction.

    Args:
        model: a detector or a classifier.
        variables: `params` and `batch_stats`.
        images: float [b, h, w, 3] in [0, 1].
        name: of the layer.

    Raises:
        ValueError: no such layer, or pictures that do not fit the network.
    """
    check_layer(model, name)
    wanted, found = name.removesuffix(INPUT), []

    def take(call: Callable[..., Any], path: str, *given: Any, **options: Any) -> Any:
        result = call(*given, **options)
        if path == wanted:
            found.append(given if name.endswith(INPUT) else result)
        return result

    with _intercepted(take):
        model.apply(variables, images, train=False)
    arrays = [x for x in jax.tree.leaves(found[-1]) if jnp.ndim(x) > 1]
    if not arrays:
        raise ValueError(f"the layer {name!r} of {model.name} has no features")
    last = arrays[-1]
    return jnp.mean(last.astype(jnp.float32), axis=tuple(range(1, last.ndim - 1)))


def _trace(model: Network, observer: Callable[..., Any]) -> None:
    """Call the network without computing anything."""
    images = jax.ShapeDtypeStruct((1, *model.example_size, 3), "float32")
    with _intercepted(observer):
        jax.eval_shape(
            lambda variables, x: model.apply(variables, x, train=False),
            model.shapes(),
            images,
        )


def _intercepted(observer: Callable[..., Any]) -> Any:
    """Within it every call of a module inside a network goes through `observer`."""

    def intercept(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        path: Sequence[str] = context.module.path
        if context.method_name != "__call__" or not path:
            return call(*args, **kwargs)
        return observer(call, "/".join(path), *args, **kwargs)

    return nn.intercept_methods(intercept)


def _at(tree: Mapping[str, Any], path: str) -> Mapping[str, Any]:
    for name in path.split("/"):
        tree = tree.get(name, {})
    return tree
