"""Random parts of a picture, and pictures with room around them."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from yolojax.augment.boxes import carry_boxes, clip_boxes
from yolojax.augment.scene import (
    GeometryStep,
    Scene,
    between,
    matrix,
    require,
    then,
)
from yolojax.ops.warp import transform_boxes
from yolojax.records import Batch

Size = tuple[int, int]
LAST_ROW = (0.0, 0.0, 1.0)


def pad(*, largest: float | int = 2.0) -> GeometryStep:
    """Shrink, and put the result at a random place of the grey output.

    Args:
        largest: the room is this many times as wide and high as the picture; the
            factor is uniform in `[1, largest]`, the place uniform where all of it
            shows.

    Raises:
        ValueError: not from 1 to 16.

    Source: the zoom-out of Liu et al. 2016, arXiv:1512.02325v5, section 3.6, which has
    16 times the area, a `largest` of 4.
    """
    require("pad: largest", largest, 1.0, 16.0)

    def apply(
        scene: Scene,
        draws: Float[Array, "b 3"],
        applied: Bool[Array, " b"],
        batch: Batch,
        image_size: Size,
    ) -> Scene:
        gain = 1.0 / between(draws[:, 0], 1.0, largest)
        top = draws[:, 1] * (1.0 - gain) * image_size[0]
        left = draws[:, 2] * (1.0 - gain) * image_size[1]
        rows = ((gain, 0.0, left), (0.0, gain, top), LAST_ROW)
        return then(scene, matrix(rows, applied.shape), applied, gain=gain)

    return GeometryStep(
        num_draws=3, mixes=False, apply=apply, smallest=lambda _: 1.0 / largest
    )


def random_crop(
    *, smallest: float | int = 0.5, keep: float | int = 0.0
) -> GeometryStep:
    """Enlarge a random part of the view to the whole output.

    Args:
        smallest: the part's sides are a share of the output's that is uniform in
            `[smallest, 1]`. It lies anywhere where it shows nothing but pictures, or,
            where it is longer than these, all of them.
        keep: of each box in view, at least this share of its area stays in view,
            which makes the part larger where it has to be; 0: boxes may be lost.

    Raises:
        ValueError: `smallest` is not from 0.05 to 1, or `keep` from 0 to 1.
    """
    require("random_crop: smallest", smallest, 0.05, 1.0)
    require("random_crop: keep", keep, 0.0, 1.0)

    def apply(
        scene: Scene,
        draws: Float[Array, "b 3"],
        applied: Bool[Array, " b"],
        batch: Batch,
        image_size: Size,
    ) -> Scene:
        boxes, _, valid = carry_boxes(batch, scene, image_size)
        across, down = (_span(boxes, valid, axis, keep) for axis in (0, 1))
        height, width = image_size
        needed = jnp.maximum(across.needed / width, down.needed / height)
        share = jnp.maximum(between(draws[:, 0], smallest, 1.0), needed)
        share = jnp.minimum(share, 1.0)
        extent = _extent(scene, batch, image_size)
        left = across.start(draws[:, 1], width * share, extent[:, 0], extent[:, 2])
        top = down.start(draws[:, 2], height * share, extent[:, 1], extent[:, 3])
        gain = 1.0 / share
        rows = ((gain, 0.0, -left * gain), (0.0, gain, -top * gain), LAST_ROW)
        return then(scene, matrix(rows, applied.shape), applied, gain=gain)

    return GeometryStep(num_draws=3, mixes=False, apply=apply)


def random_resized_crop(
    *,
    smallest: float | int = 0.08,
    largest: float | int = 1.0,
    aspect: float | int = 4 / 3,
    keep: float | int = 0.0,
) -> GeometryStep:
    """A random part of the picture, stretched to the output; not of mosaics.

    Args:
        smallest: the part's area is a share of the picture's that is uniform in
            `[smallest, largest]`.
        largest: see `smallest`.
        aspect: the part is wider than it would be without stretching by a factor
            whose logarithm is uniform, from `1 / aspect` to `aspect`.
        keep: as for `random_crop`.

    Raises:
        ValueError: an argument out of range.

    Source: Szegedy et al. 2015, arXiv:1409.4842, section 6. Where the part is wider or
    higher than the picture, the usual trainers draw again up to ten times; here it is
    cut to the picture.
    """
    require("random_resized_crop: smallest", smallest, 0.01, 1.0)
    require("random_resized_crop: largest", largest, smallest, 1.0)
    require("random_resized_crop: aspect", aspect, 1.0, 10.0)
    require("random_resized_crop: keep", keep, 0.0, 1.0)

    def apply(
        scene: Scene,
        draws: Float[Array, "b 4"],
        applied: Bool[Array, " b"],
        batch: Batch,
        image_size: Size,
    ) -> Scene:
        own = scene.sources[:, 0]
        sizes = jnp.maximum(batch.size[own], 1).astype(jnp.float32)
        out_height, out_width = image_size
        area = between(draws[:, 0], smallest, largest) * sizes[:, 0] * sizes[:, 1]
        limit = math.log(aspect)
        ratio = jnp.exp(between(draws[:, 1], -limit, limit)) * (out_width / out_height)
        ends = []
        for axis, length in enumerate((jnp.sqrt(area * ratio), jnp.sqrt(area / ratio))):
            side = sizes[:, 1 - axis]
            span = _span(batch.boxes[own], batch.valid[own], axis, keep)
            length = jnp.minimum(jnp.maximum(length, span.needed), side)
            start = span.start(draws[:, 2 + axis], length, jnp.zeros_like(side), side)
            ends.append((start, length))
        (left, width), (top, height) = ends
        across, down = out_width / width, out_height / height
        rows = ((across, 0.0, -left * across), (0.0, down, -top * down), LAST_ROW)
        placement = matrix(rows, applied.shape)[:, None]
        # The regions of a mosaic end; that of a picture alone does not.
        alone = applied & jnp.all(jnp.isinf(scene.regions[:, 0]), axis=-1)
        first = jnp.where(
            alone[:, None, None, None], placement, scene.placements[:, :1]
        )
        placements = jnp.concatenate([first, scene.placements[:, 1:]], axis=1)
        return scene._replace(placements=placements)

    return GeometryStep(num_draws=4, mixes=False, apply=apply)


class _Span(NamedTuple):
    """Where a part may lie along one axis, so that enough of every box stays.

    Attributes:
        reach: float32 [b], it must not end before.
        latest: float32 [b], it must not start after.
        needed: float32 [b], its smallest length.
    """

    reach: Array
    latest: Array
    needed: Array

    def start(
        self,
        draws: Float[Array, " b"],
        length: Float[Array, " b"],
        low: Float[Array, " b"],
        high: Float[Array, " b"],
    ) -> Float[Array, " b"]:
        """Where a part of this length starts, at random between `low` and `high`.

        A part that is longer than from `low` to `high` lies around them.
        """
        first = jnp.minimum(low, high - length)
        last = jnp.maximum(low, high - length)
        first = jnp.maximum(first, self.reach - length)
        last = jnp.maximum(jnp.minimum(last, self.latest), first)
        return between(draws, first, last)


def _span(
    boxes: Float[Array, "b n 4"],
    valid: Bool[Array, "b n"],
    axis: int,
    keep: float | int,
) -> _Span:
    """The limits along x (axis 0) or y, for a share `keep` of the area of every box.

    A share `sqrt(keep)` of each side is enough for that. Along one axis it is kept if
    the part ends after the first such share, starts before the last, and is as long.
    """
    low, high = boxes[..., axis], boxes[..., axis + 2]
    part = math.sqrt(keep) * (high - low)
    bound = valid & (keep > 0)
    reach = jnp.max(low + part, axis=1, initial=-jnp.inf, where=bound)
    latest = jnp.min(high - part, axis=1, initial=jnp.inf, where=bound)
    longest = jnp.max(part, axis=1, initial=0.0, where=bound)
    return _Span(reach, latest, jnp.maximum(reach - latest, longest))


def _extent(scene: Scene, batch: Batch, image_size: Size) -> Float[Array, "b 4"]:
    """The smallest box around all that the view shows of pictures."""
    sizes = batch.size[scene.sources].astype(jnp.float32)
    whole = jnp.concatenate([jnp.zeros_like(sizes), sizes[..., ::-1]], axis=-1)
    on_canvas = transform_boxes(whole[..., None, :], scene.placements)[..., 0, :]
    on_canvas = clip_boxes(on_canvas, scene.regions)
    height, width = image_size
    frame = jnp.asarray([0, 0, width, height], jnp.float32)
    shown = clip_boxes(transform_boxes(on_canvas, scene.view), frame[None, None])
    used = jnp.all(shown[..., 2:] > shown[..., :2], axis=-1, keepdims=True)
    low = jnp.min(jnp.where(used, shown[..., :2], jnp.inf), axis=1)
    high = jnp.max(jnp.where(used, shown[..., 2:], -jnp.inf), axis=1)
    # Without any picture in view, the whole of it.
    extent = jnp.concatenate([low, high], axis=-1)
    return jnp.where(jnp.any(used, axis=1), extent, frame[None])
