"""What may be done to a gradient before the optimiser sees it.

They are `config.optim.transforms`, and act on the summed gradient of an optimiser step
in the order of the config, before `config.optim.clip_norm`. None has a state.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from yolojax import lookup, trees
from yolojax.optim.borrowed import borrowed
from yolojax.optim.transforms import Transform, clip_by_norm, stateless


def clip_value(*, limit: float) -> Transform:
    """Each component cut off at `limit` on either side.

    Args:
        limit: above 0.
    """
    _check_above_zero("clip_value", "limit", limit)
    return borrowed(optax.clip(limit))


def clip_norm(*, limit: float) -> Transform:
    """The gradient as a whole shrunk to the norm `limit` where it is longer.

    Args:
        limit: above 0; see `transforms.clip_by_norm`.
    """
    _check_above_zero("clip_norm", "limit", limit)
    return clip_by_norm(limit)


def agc(
    *, clipping: float = 0.01, eps: float = 1e-3, skip: Sequence[str] = ("^head/",)
) -> Transform:
    """Each unit's gradient shrunk to a share of the norm of the unit's weights.

    A unit is an output channel of a kernel, or a whole vector.

    Args:
        clipping: the largest norm of a gradient over that of the weights.
        eps: the least norm of weights to reckon with.
        skip: regular expressions of paths that are left alone; the source leaves out
            the last layer.

    Source: Brock et al. 2021, arXiv:2102.06171, section 4.1.
    """
    _check_above_zero("agc", "clipping", clipping)
    whole = borrowed(optax.adaptive_grad_clip(clipping, eps))

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> Any:
        clipped: Any = whole.update(updates, optax.EmptyState(), params, **extra)[0]
        skipped = trees.flatten(trees.match_mask(updates, skip))
        before, after = trees.flatten(updates), trees.flatten(clipped)
        chosen = {k: before[k] if skipped[k] else after[k] for k in before}
        return trees.unflatten(chosen), state

    return stateless(update)


def normalize(*, norm: float = 1.0, eps: float = 1e-6) -> Transform:
    """The gradient as a whole at a given norm.

    Args:
        norm: above 0.
        eps: added to the norm that is divided by.
    """
    _check_above_zero("normalize", "norm", norm)
    return borrowed(optax.normalize_by_update_norm(norm, eps))


def centralize() -> Transform:
    """Each output channel of a kernel without its mean; vectors stay as they are.

    Optax's function of that name takes the first axis for the output channels; here,
    as in Flax, it is the last.

    Source: Yong et al. 2020, arXiv:2004.01461, equation 1.
    """

    def update(updates, state, params=None, **extra):
        del params, extra

        def centred(g):
            axes = tuple(range(g.ndim - 1))
            return g - g.mean(axes, keepdims=True) if axes else g

        return jax.tree.map(centred, updates), state

    return stateless(update)


def noise(*, variance: float = 0.01, decay: float = 0.55, seed: int = 0) -> Transform:
    """Normal noise added, of variance `variance` / (1 + t)^`decay` at iteration t.

    The numbers are a function of seed, iteration and the parameter's place in the
    tree, so that a resumed run has the same.

    Args:
        variance: at iteration 0; the source tries 0.01, 0.3 and 1.
        decay: the source's gamma.
        seed: the config's, if none is given.

    Source: Neelakantan et al. 2015, arXiv:1511.06807, section 3.
    """
    if variance < 0:
        raise ValueError(f"config.optim.transforms: noise has variance {variance}")

    def update(updates, state, params=None, *, step, **extra):
        del params, extra
        time = 1.0 + jnp.asarray(step, jnp.float32)
        deviation = jnp.sqrt(variance / time**decay)
        # Apart from the keys of the augmentation, which fold the step into the seed.
        key = jax.random.fold_in(jax.random.key(seed), 0x6E6F6973)
        key = jax.random.fold_in(key, step)
        leaves, structure = jax.tree.flatten(updates)
        noisy = [
            leaf + deviation * jax.random.normal(jax.random.fold_in(key, i), leaf.shape)
            for i, leaf in enumerate(leaves)
        ]
        return jax.tree.unflatten(structure, noisy), state

    return stateless(update)


def _check_above_zero(name: str, argument: str, value: float) -> None:
    if value <= 0:
        raise ValueError(
            f"config.optim.transforms: {argument} of {name} must be above 0, "
            f"not {value}"
        )


TRANSFORMS: dict[str, Callable[..., Transform]] = {
    "agc": agc,
    "centralize": centralize,
    "clip_norm": clip_norm,
    "clip_value": clip_value,
    "noise": noise,
    "normalize": normalize,
}


def make_transforms(
    given: Sequence[Mapping[str, Any]], paths: Mapping[str, Any], *, seed: int
) -> list[tuple[str, Transform]]:
    """The transforms of a config, in their order, with names for a chain.

    Args:
        given: dicts of a `name` of `TRANSFORMS` and its arguments.
        paths: the parameters' paths, to check patterns against.
        seed: for `noise`, where it has none of its own.

    Raises:
        ValueError: an unknown name or argument, a value out of range, or a pattern
            that matches nothing.
    """
    made = []
    for number, entry in enumerate(given):
        where = f"config.optim.transforms[{number}]"
        if not isinstance(entry, Mapping) or "name" not in entry:
            raise ValueError(f"{where} must be a dict(name=..., ...), not {entry!r}")
        arguments = dict(entry)
        name = arguments.pop("name")
        builder = lookup.pick(TRANSFORMS, name, "gradient transform")
        lookup.check_arguments(builder, arguments, where)
        if builder is noise:
            arguments.setdefault("seed", seed)
        if builder is agc:
            # The default skips what a network may lack; a pattern of the config not.
            skip = arguments.get("skip")
            if skip is None:
                head = any(path.startswith("head/") for path in paths)
                arguments["skip"] = ("^head/",) if head else ()
            else:
                arguments["skip"] = (skip,) if isinstance(skip, str) else tuple(skip)
                trees.match_mask(trees.unflatten(paths), arguments["skip"])
        try:
            made.append((f"transform{number}", builder(**arguments)))
        except TypeError as error:
            raise ValueError(
                f"{where}: a value is of the wrong kind: {error}"
            ) from None
    return made
