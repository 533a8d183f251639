"""Several pictures on one canvas, of which the output shows the middle."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from yolojax.augment.scene import (
    GeometryStep,
    Scene,
    between,
    fitted_size,
    matrix,
    place,
    then,
    tiled,
    with_partners,
)
from yolojax.records import Batch


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
        centre_y = jnp.floor(between(draws[:, :1], 0.5 * height, 1.5 * height))
        centre_x = jnp.floor(between(draws[:, 1:2], 0.5 * width, 1.5 * width))
        turn = jnp.floor(4.0 * draws[:, 2:3]).astype(jnp.int32)
        quadrant = (turn + jnp.arange(4, dtype=jnp.int32)[None]) % 4
        right, below = lies_right[quadrant], lies_below[quadrant]

        sources = with_partners(scene, draws[:, 3], 3)
        sizes = batch.size[sources]
        fitted = fitted_size(sizes, image_size)
        placements = place(
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
        scene = tiled(scene, sources, placements, regions, applied)
        middle = ((1.0, 0.0, -0.5 * width), (0.0, 1.0, -0.5 * height), (0.0, 0.0, 1.0))
        return then(scene, matrix(middle, (num,)), applied)

    return GeometryStep(num_draws=4, mixes=True, apply=apply, tiles=4)


def mosaic9() -> GeometryStep:
    """Nine pictures: one, and eight around it, each touching the one before.

    Each picture is fitted to the output's size. The first lies with its top left
    corner at one output's size from that of a canvas of three times this size; the
    others follow clockwise from above it, at the corners of their predecessors, so
    that they leave gaps but never overlap. A part of twice the output's size, at a
    random place in whole pixels, is cut out, and the view is its middle. A sample's
    own picture comes to a random one of the nine places. In a policy that has `mosaic`
    too, samples with both show this one.

    Source: `load_mosaic9` of the published YOLOv5 trainer, except that partners come
    from the batch, or from all pictures that the device holds.
    """

    def apply(
        scene: Scene,
        draws: Float[Array, "b 4"],
        applied: Bool[Array, " b"],
        batch: Batch,
        image_size: tuple[int, int],
    ) -> Scene:
        num = draws.shape[0]
        cut_y = jnp.floor(draws[:, 0] * image_size[0])
        cut_x = jnp.floor(draws[:, 1] * image_size[1])
        turn = jnp.floor(9.0 * draws[:, 2:3]).astype(jnp.int32)

        sources = with_partners(scene, draws[:, 3], 8)
        sizes = batch.size[sources]
        fitted = fitted_size(sizes, image_size)
        tile = jnp.arange(9, dtype=jnp.int32)[None]
        at_place = jnp.take_along_axis(fitted, ((tile - turn) % 9)[..., None], axis=1)
        corners = _nine_corners(at_place, image_size)
        corners = jnp.take_along_axis(corners, ((tile + turn) % 9)[..., None], axis=1)
        placements = place(sizes, fitted, corners[..., 0], corners[..., 1])
        low = jnp.stack([cut_x, cut_y], axis=-1)[:, None]
        high = low + 2.0 * jnp.asarray(image_size[::-1], jnp.float32)[None, None]
        first, last = corners[..., ::-1], (corners + fitted)[..., ::-1]
        regions = [jnp.clip(corner, low, high) for corner in (first, last)]
        regions = jnp.concatenate(regions, axis=-1)
        scene = tiled(scene, sources, placements, regions, applied)
        to_x, to_y = -(cut_x + 0.5 * image_size[1]), -(cut_y + 0.5 * image_size[0])
        view = ((1.0, 0.0, to_x), (0.0, 1.0, to_y), (0.0, 0.0, 1.0))
        # In place of the view of a mosaic of four.
        view = jnp.where(applied[:, None, None], matrix(view, (num,)), scene.view)
        return scene._replace(view=view)

    return GeometryStep(num_draws=4, mixes=True, apply=apply, tiles=9)


def _nine_corners(
    fitted: Float[Array, "b 9 2"], image_size: tuple[int, int]
) -> Float[Array, "b 9 2"]:
    """Top and left of the nine pictures on the canvas, in the order of their places."""
    height, width = (
        [fitted[:, i, 0] for i in range(9)],
        [fitted[:, i, 1] for i in range(9)],
    )
    top, left = (jnp.full_like(height[0], side) for side in image_size)
    right, bottom = left + width[0], top + height[0]
    corners = [
        (top, left),
        (top - height[1], left),
        (top - height[2], left + width[1]),
        (top, right),
        (top + height[3], right),
        (bottom, right - width[5]),
        (bottom, right - width[5] - width[6]),
        (bottom - height[7], left - width[7]),
        (bottom - height[7] - height[8], left - width[8]),
    ]
    return jnp.stack([jnp.stack(corner, axis=-1) for corner in corners], axis=1)
