"""Random geometry: which pictures an output shows, and where they lie.

An augmentation here is a function of its published hyper-parameters that returns a
`GeometryStep`; its signature is the schema of its policy entry. A step never touches
a pixel: it changes a `Scene`, and one gather reads the finished scene
(`yolojax.ops.warp`). The boxes go through the same matrices.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from yolojax.ops.warp import multiply
from yolojax.records import Batch


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
    """

    sources: Array
    placements: Array
    regions: Array
    view: Array
    gain: Array
    partners: Array | None = None


class GeometryStep(NamedTuple):
    """One geometric augmentation with its hyper-parameters fixed.

    Attributes:
        num_draws: how many uniform numbers in [0, 1) it uses for a sample.
        mixes: whether it shows other pictures of the batch; such steps are left out
            when `mosaic_on` is False.
        apply: `(scene, draws [b, num_draws], applied [b], batch, image_size)` to the
            new scene; samples that are not `applied` keep theirs.
    """

    num_draws: int
    mixes: bool
    apply: Callable[..., Scene]


def _matrix(
    rows: tuple[tuple[Array | float, ...], ...], shape: tuple[int, ...]
) -> Float[Array, "*b 3 3"]:
    """Matrices from 3x3 entries, each one number for all or an array of `shape`."""
    entries = [
        jnp.broadcast_to(jnp.asarray(entry, jnp.float32), shape)
        for row in rows
        for entry in row
    ]
    return jnp.stack(entries, axis=-1).reshape(*shape, 3, 3)


def _between(
    draws: Float[Array, "*b"], low: float | int, high: float | int
) -> Float[Array, "*b"]:
    return low + (high - low) * draws


def _require(name: str, value: float | int, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ValueError(f"{name} is {value}, expected {low:g} to {high:g}")


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


def _place(
    sizes: Int[Array, "*b 2"],
    fitted: Float[Array, "*b 2"],
    top: Float[Array, "*b"],
    left: Float[Array, "*b"],
) -> Float[Array, "*b 3 3"]:
    """Resizes pictures to `fitted` and moves their top left corner to (left, top)."""
    scale = fitted / jnp.maximum(sizes, 1).astype(jnp.float32)
    return _matrix(
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
    placement = _place(sizes, fitted, border[:, 0], border[:, 1])
    everywhere = jnp.asarray([-jnp.inf, -jnp.inf, jnp.inf, jnp.inf], jnp.float32)
    return Scene(
        sources=rows[:, None],
        placements=placement[:, None],
        regions=jnp.broadcast_to(everywhere, (num, 1, 4)),
        view=jnp.broadcast_to(jnp.eye(3, dtype=jnp.float32), (num, 3, 3)),
        gain=jnp.ones((num,), jnp.float32),
        partners=partners,
    )


def _with_partners(
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
    place = (jnp.arange(num, dtype=jnp.int32)[:, None] + step) % num
    sources = jnp.zeros((num, count + 1), jnp.int32)
    return sources.at[order].set(order[place].astype(jnp.int32))


def mosaic() -> GeometryStep:
    """Four pictures around a random centre, on a canvas of twice the output's size.

    Each picture is fitted to the output's size and touches the centre with a corner;
    what reaches over the canvas is cut. The centre is uniform in [0.5, 1.5] times the
    output's size, in whole pixels, and the view is the middle of the canvas. A
    sample's own picture comes to a random quadrant, and the next three of one random
    order of the batch to the others: they differ if the batch has four pictures.

    Source: Bochkovskiy et al. 2020, arXiv:2004.10934, section 3.3, in the form of the
    published YOLOv5 trainer, except that partners come from the batch, or from all
    pictures that the device holds.
    """
    # The quadrants clockwise from the top left: whether they lie right, below.
    lies_right = jnp.asarray([False, True, True, False])
    lies_below = jnp.asarray([False, False, True, True])

    def apply(
        scene: Scene,
        draws: Float[Array, "b 4"],
        applied: Bool[Array, " b"],
        batch: Batch,
        image_size: tuple[int, int],
    ) -> Scene:
        num = draws.shape[0]
        height, width = image_size
        centre_y = jnp.floor(_between(draws[:, :1], 0.5 * height, 1.5 * height))
        centre_x = jnp.floor(_between(draws[:, 1:2], 0.5 * width, 1.5 * width))
        turn = jnp.floor(4.0 * draws[:, 2:3]).astype(jnp.int32)
        tile = jnp.arange(4, dtype=jnp.int32)[None]
        quadrant = (turn + tile) % 4
        right, below = lies_right[quadrant], lies_below[quadrant]

        sources = _with_partners(scene, draws[:, 3], 3)
        sizes = batch.size[sources]
        fitted = fitted_size(sizes, image_size)
        placements = _place(
            sizes,
            fitted,
            jnp.where(below, centre_y, centre_y - fitted[..., 0]),
            jnp.where(right, centre_x, centre_x - fitted[..., 1]),
        )
        regions = jnp.stack(
            [
                jnp.where(right, centre_x, 0.0),
                jnp.where(below, centre_y, 0.0),
                jnp.where(right, 2.0 * width, centre_x),
                jnp.where(below, 2.0 * height, centre_y),
            ],
            axis=-1,
        )
        # Without mosaic the first tile keeps the scene and the others are not used.
        first = tile[..., None] == 0
        alone = jnp.where(first, scene.regions[:, :1], jnp.zeros_like(regions))
        kept = jnp.where(first[..., None], scene.placements[:, :1], placements)
        middle = ((1.0, 0.0, -0.5 * width), (0.0, 1.0, -0.5 * height), (0.0, 0.0, 1.0))
        return scene._replace(
            sources=sources,
            placements=jnp.where(applied[:, None, None, None], placements, kept),
            regions=jnp.where(applied[:, None, None], regions, alone),
            view=_then(scene, _matrix(middle, (num,)), applied),
        )

    return GeometryStep(num_draws=4, mixes=True, apply=apply)


def _then(
    scene: Scene, matrix: Float[Array, "b 3 3"], applied: Bool[Array, " b"]
) -> Float[Array, "b 3 3"]:
    """The scene's view followed by `matrix` where `applied`."""
    return jnp.where(applied[:, None, None], multiply(matrix, scene.view), scene.view)


def affine(
    *,
    scale: float | int = 0.5,
    translate: float | int = 0.1,
    degrees: float | int = 0.0,
    shear: float | int = 0.0,
    perspective: float | int = 0.0,
) -> GeometryStep:
    """Scale, rotate, shear, tilt and move about the centre of the output.

    Args:
        scale: the factor is uniform in `[1 - scale, 1 + scale]`.
        translate: the centre comes to a point uniform in `[0.5 - translate, 0.5 +
            translate]` of the output's height and width.
        degrees: the angle is uniform in `[-degrees, degrees]`.
        shear: both angles are uniform in `[-shear, shear]` degrees.
        perspective: both entries of the last row are uniform in `[-perspective,
            perspective]` per pixel of the canvas; 0.001 is strong.

    Raises:
        ValueError: an argument out of range.

    Source: `random_perspective` of the published YOLOv5 trainer: centre, perspective,
    rotation with scale, shear, translation, in this order.
    """
    _require("affine: scale", scale, 0.0, 0.99)
    _require("affine: translate", translate, 0.0, 1.0)
    _require("affine: degrees", degrees, 0.0, 180.0)
    _require("affine: shear", shear, 0.0, 80.0)
    _require("affine: perspective", perspective, 0.0, 0.01)

    def apply(
        scene: Scene,
        draws: Float[Array, "b 8"],
        applied: Bool[Array, " b"],
        batch: Batch,
        image_size: tuple[int, int],
    ) -> Scene:
        shape = applied.shape
        height, width = image_size
        gain = _between(draws[:, 0], 1.0 - scale, 1.0 + scale)
        angle = jnp.deg2rad(_between(draws[:, 1], -degrees, degrees))
        cosine, sine = gain * jnp.cos(angle), gain * jnp.sin(angle)
        shear_x, shear_y = (
            jnp.tan(jnp.deg2rad(_between(draws[:, i], -shear, shear))) for i in (2, 3)
        )
        tilt_x, tilt_y = (
            _between(draws[:, i], -perspective, perspective) for i in (4, 5)
        )
        to_x = width * _between(draws[:, 6], 0.5 - translate, 0.5 + translate)
        to_y = height * _between(draws[:, 7], 0.5 - translate, 0.5 + translate)
        last = (0.0, 0.0, 1.0)
        centre = ((1.0, 0.0, -0.5 * width), (0.0, 1.0, -0.5 * height), last)
        matrix = _matrix(centre, shape)
        for rows in (
            ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (tilt_x, tilt_y, 1.0)),
            ((cosine, sine, 0.0), (-sine, cosine, 0.0), last),
            ((1.0, shear_x, 0.0), (shear_y, 1.0, 0.0), last),
            ((1.0, 0.0, to_x), (0.0, 1.0, to_y), last),
        ):
            matrix = multiply(_matrix(rows, shape), matrix)
        return scene._replace(
            view=_then(scene, matrix, applied),
            gain=scene.gain * jnp.where(applied, gain, 1.0),
        )

    return GeometryStep(num_draws=8, mixes=False, apply=apply)


def flip_left_right() -> GeometryStep:
    """Mirror left and right."""

    def apply(
        scene: Scene,
        draws: Float[Array, "b 0"],
        applied: Bool[Array, " b"],
        batch: Batch,
        image_size: tuple[int, int],
    ) -> Scene:
        rows = ((-1.0, 0.0, float(image_size[1])), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
        return scene._replace(view=_then(scene, _matrix(rows, applied.shape), applied))

    return GeometryStep(num_draws=0, mixes=False, apply=apply)


def flip_up_down() -> GeometryStep:
    """Mirror top and bottom."""

    def apply(
        scene: Scene,
        draws: Float[Array, "b 0"],
        applied: Bool[Array, " b"],
        batch: Batch,
        image_size: tuple[int, int],
    ) -> Scene:
        rows = ((1.0, 0.0, 0.0), (0.0, -1.0, float(image_size[0])), (0.0, 0.0, 1.0))
        return scene._replace(view=_then(scene, _matrix(rows, applied.shape), applied))

    return GeometryStep(num_draws=0, mixes=False, apply=apply)
