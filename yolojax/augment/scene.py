"""Which pictures an output shows and where they lie, before a pixel is read.

An augmentation of geometry is a function of its published hyper-parameters that
returns a `GeometryStep`; its signature is the schema of its policy entry. A step
changes a `Scene`, and one gather reads the finished scene (`yolojax.ops.warp`). The
boxes go through the same matrices.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from yolojax.ops.warp import multiply
from yolojax.records import Batch


class Swap(NamedTuple):
    """Classes that change places, since a mirror turns one into the other.

    Attributes:
        pairs: int32 [p, 2], a class of a row becomes the other one of it.
        applied: bool [b], the samples that are mirrored.
    """

    pairs: Array
    applied: Array


class Scene(NamedTuple):
    """What each output of a batch is made from.

    Attributes:
        sources: int32 [b, t], the picture of the batch that each tile shows.
        placements: float32 [b, t, 3, 3], from a tile's picture to the canvas; affine.
        regions: float32 [b, t, 4], x1 y1 x2 y2 on the canvas, the part that belongs to
            the tile; the last of overlapping ones counts; no area: tile not in use.
        view: float32 [b, 3, 3], from the canvas to the output.
        gain: float32 [b], by how much `view` enlarges, for the rule that drops boxes.
        partners: int32 [b, p], other pictures for the steps that mix; None: they take
            those of the batch, in a random order.
        swaps: what the mirrors do to the classes, in their order.
        bend: float32 [b, 2, r, c], controls of a displacement of the finished output,
            see `ops.bending`; None: there is none.
    """

    sources: Array
    placements: Array
    regions: Array
    view: Array
    gain: Array
    partners: Array | None = None
    swaps: tuple[Swap, ...] = ()
    bend: Array | None = None


def _keeps_size(image_size: tuple[int, int]) -> float:
    return 1.0


class GeometryStep(NamedTuple):
    """One geometric augmentation with its hyper-parameters fixed.

    Attributes:
        num_draws: how many uniform numbers in [0, 1) it uses for a sample.
        mixes: whether it shows other pictures of the batch; such steps are left out
            when `mosaic_on` is False.
        apply: `(scene, draws [b, num_draws], applied [b], batch, image_size)` to the
            new scene; samples that are not `applied` keep theirs.
        smallest: from the output's (height, width) to the smallest factor by which it
            scales; the gather must not alias there.
        tiles: how many images it shows side by side.
    """

    num_draws: int
    mixes: bool
    apply: Callable[..., Scene]
    smallest: Callable[[tuple[int, int]], float] = _keeps_size
    tiles: int = 1


def matrix(
    rows: tuple[tuple[Array | float, ...], ...], shape: tuple[int, ...]
) -> Float[Array, "*b 3 3"]:
    """Matrices from 3x3 entries, each one number for all or an array of `shape`."""
    entries = [
        jnp.broadcast_to(jnp.asarray(entry, jnp.float32), shape)
        for row in rows
        for entry in row
    ]
    return jnp.stack(entries, axis=-1).reshape(*shape, 3, 3)


def between(
    draws: Float[Array, "*b"],
    low: Float[Array, "*#b"] | float | int,
    high: Float[Array, "*#b"] | float | int,
) -> Float[Array, "*b"]:
    """Uniform numbers from `low` to `high`, of those from 0 to 1."""
    return low + (high - low) * draws


def require(name: str, value: float | int, low: float, high: float) -> None:
    """Raise ValueError if a hyper-parameter is not from `low` to `high`."""
    if not low <= value <= high:
        limits = f"{low:g} to {high:g}" if math.isfinite(high) else f"{low:g} or more"
        raise ValueError(f"{name} is {value}, expected {limits}")


def fitted_size(
    sizes: Int[Array, "*b 2"], image_size: tuple[int, int]
) -> Float[Array, "*b 2"]:
    """Height and width, in whole pixels, of pictures that just fit in `image_size`.

    The shape is kept up to that rounding; small pictures are enlarged. A picture
    without pixels counts as 1x1.
    """
    given = jnp.maximum(sizes, 1).astype(jnp.float32)
    height, width = image_size
    by_height = height * given[..., 1] < width * given[..., 0]
    # Multiplied before it is divided, so that halves are exact and round as in
    # `ops.letterbox`.
    fitted = jnp.where(
        by_height[..., None],
        given * height / given[..., :1],
        given * width / given[..., 1:],
    )
    return jnp.maximum(jnp.round(fitted), 1.0)


def place(
    sizes: Int[Array, "*b 2"],
    fitted: Float[Array, "*b 2"],
    top: Float[Array, "*b"],
    left: Float[Array, "*b"],
) -> Float[Array, "*b 3 3"]:
    """Resizes pictures to `fitted` and moves their top left corner to (left, top)."""
    scale = fitted / jnp.maximum(sizes, 1).astype(jnp.float32)
    return matrix(
        ((scale[..., 1], 0.0, left), (0.0, scale[..., 0], top), (0.0, 0.0, 1.0)),
        top.shape,
    )


def letterboxed(
    batch: Batch,
    image_size: tuple[int, int],
    *,
    rows: Int[Array, " b"] | None = None,
    partners: Int[Array, "b p"] | None = None,
) -> Scene:
    """The scene that every policy starts from: each picture alone, fitted, centred.

    Args:
        batch: all pictures.
        image_size: height and width of the outputs, in pixels.
        rows: which pictures the outputs show; None: each.
        partners: see `Scene`.
    """
    num = batch.image.shape[0] if rows is None else rows.shape[0]
    sizes = batch.size if rows is None else batch.size[rows]
    if rows is None:
        rows = jnp.arange(num, dtype=jnp.int32)
    fitted = fitted_size(sizes, image_size)
    border = jnp.floor((jnp.asarray(image_size, jnp.float32)[None] - fitted) / 2.0)
    placement = place(sizes, fitted, border[:, 0], border[:, 1])
    everywhere = jnp.asarray([-jnp.inf, -jnp.inf, jnp.inf, jnp.inf], jnp.float32)
    return Scene(
        sources=rows[:, None],
        placements=placement[:, None],
        regions=jnp.broadcast_to(everywhere, (num, 1, 4)),
        view=jnp.broadcast_to(jnp.eye(3, dtype=jnp.float32), (num, 3, 3)),
        gain=jnp.ones((num,), jnp.float32),
        partners=partners,
    )


def then(
    scene: Scene,
    after: Float[Array, "b 3 3"],
    applied: Bool[Array, " b"],
    *,
    gain: Float[Array, " b"] | float = 1.0,
) -> Scene:
    """The scene with its view followed by `after`, where `applied`.

    Args:
        scene: before.
        after: from the output to the output.
        applied: the samples that are changed.
        gain: by how much `after` enlarges.
    """
    view = jnp.where(applied[:, None, None], multiply(after, scene.view), scene.view)
    return scene._replace(view=view, gain=scene.gain * jnp.where(applied, gain, 1.0))


def with_partners(
    scene: Scene, draws: Float[Array, " b"], count: int
) -> Int[Array, "b t"]:
    """Each sample's own picture, then `count` others.

    Those of the scene, or the next ones of one random order of the batch, so that each
    picture is shown equally often.
    """
    if scene.partners is not None:
        return jnp.concatenate([scene.sources[:, :1], scene.partners[:, :count]], 1)
    num = draws.shape[0]
    order = jnp.argsort(draws)
    step = jnp.arange(count + 1, dtype=jnp.int32)[None]
    rank = (jnp.arange(num, dtype=jnp.int32)[:, None] + step) % num
    sources = jnp.zeros((num, count + 1), jnp.int32)
    return sources.at[order].set(order[rank].astype(jnp.int32))


def tiled(
    scene: Scene,
    sources: Int[Array, "b t"],
    placements: Float[Array, "b t 3 3"],
    regions: Float[Array, "b t 4"],
    applied: Bool[Array, " b"],
) -> Scene:
    """The scene with these tiles where `applied`; the view stays.

    Other samples keep their tiles; the scene has as many as the larger number of both.
    """
    num_tiles = max(scene.sources.shape[1], sources.shape[1])

    def spread(tiles: Array, *, used: bool) -> Array:
        # A tile without a region is not used, but its matrix is inverted.
        shape = (tiles.shape[0], num_tiles - tiles.shape[1], *tiles.shape[2:])
        spare = jnp.broadcast_to(tiles[:, :1], shape)
        spare = spare if used else jnp.zeros_like(spare)
        return jnp.concatenate([tiles, spare], axis=1)

    def merged(new: Array, old: Array, *, used: bool = True) -> Array:
        chosen = applied.reshape(-1, *[1] * (new.ndim - 1))
        return jnp.where(chosen, spread(new, used=used), spread(old, used=used))

    return scene._replace(
        sources=merged(sources, scene.sources),
        placements=merged(placements, scene.placements),
        regions=merged(regions, scene.regions, used=False),
    )
