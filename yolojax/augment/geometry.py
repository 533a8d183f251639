"""Random changes of where an output looks: scaled, turned, tilted, mirrored."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from yolojax.augment.scene import (
    GeometryStep,
    Scene,
    Swap,
    between,
    fitted_size,
    matrix,
    place,
    require,
    then,
)
from yolojax.ops.warp import multiply
from yolojax.records import Batch

Size = tuple[int, int]
LAST_ROW = (0.0, 0.0, 1.0)


def identity() -> GeometryStep:
    """Nothing, as one of a choice."""

    def apply(
        scene: Scene,
        draws: Float[Array, "b 0"],
        applied: Bool[Array, " b"],
        batch: Batch,
        image_size: Size,
    ) -> Scene:
        return scene

    return GeometryStep(num_draws=0, mixes=False, apply=apply)


def letterbox(
    *, scale_up: bool = True, stretch: bool = False, random_place: bool = False
) -> GeometryStep:
    """How a picture that is shown alone is fitted into the output.

    Without this entry it is enlarged or shrunk, keeping its shape, until it just fits,
    and lies in the middle.

    Args:
        scale_up: whether a picture smaller than the output is enlarged.
        stretch: fill the output; the picture's shape is lost.
        random_place: it lies anywhere in the output, uniformly, in whole pixels.

    Raises:
        ValueError: `stretch` with one of the others, which it leaves nothing to do.
    """
    if stretch and (random_place or not scale_up):
        raise ValueError(
            "letterbox: stretch fills the output, so that scale_up and random_place "
            "have nothing to do; leave them out"
        )

    def apply(
        scene: Scene,
        draws: Float[Array, "b 2"],
        applied: Bool[Array, " b"],
        batch: Batch,
        image_size: Size,
    ) -> Scene:
        sizes = batch.size[scene.sources[:, 0]]
        whole = jnp.asarray(image_size, jnp.float32)[None]
        fitted = jnp.broadcast_to(whole, sizes.shape)
        if not stretch:
            fitted = fitted_size(sizes, image_size)
        if not scale_up:
            given = jnp.maximum(sizes, 1).astype(jnp.float32)
            enlarged = jnp.any(fitted > given, axis=-1, keepdims=True)
            fitted = jnp.where(enlarged, given, fitted)
        share = draws if random_place else jnp.full_like(draws, 0.5)
        corner = jnp.floor(share * (whole - fitted + (1.0 if random_place else 0.0)))
        placement = place(sizes, fitted, corner[:, 0], corner[:, 1])[:, None]
        kept = scene.placements[:, :1]
        placement = jnp.where(applied[:, None, None, None], placement, kept)
        placements = jnp.concatenate([placement, scene.placements[:, 1:]], axis=1)
        return scene._replace(placements=placements)

    return GeometryStep(num_draws=2, mixes=False, apply=apply)


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
    require("affine: scale", scale, 0.0, 0.99)
    require("affine: translate", translate, 0.0, 1.0)
    require("affine: degrees", degrees, 0.0, 180.0)
    require("affine: shear", shear, 0.0, 80.0)
    require("affine: perspective", perspective, 0.0, 0.01)

    def apply(
        scene: Scene,
        draws: Float[Array, "b 8"],
        applied: Bool[Array, " b"],
        batch: Batch,
        image_size: Size,
    ) -> Scene:
        shape = applied.shape
        height, width = image_size
        gain = between(draws[:, 0], 1.0 - scale, 1.0 + scale)
        angle = jnp.deg2rad(between(draws[:, 1], -degrees, degrees))
        cosine, sine = gain * jnp.cos(angle), gain * jnp.sin(angle)
        shear_x, shear_y = (
            jnp.tan(jnp.deg2rad(between(draws[:, i], -shear, shear))) for i in (2, 3)
        )
        tilt_x, tilt_y = (
            between(draws[:, i], -perspective, perspective) for i in (4, 5)
        )
        to_x = width * between(draws[:, 6], 0.5 - translate, 0.5 + translate)
        to_y = height * between(draws[:, 7], 0.5 - translate, 0.5 + translate)
        centre = ((1.0, 0.0, -0.5 * width), (0.0, 1.0, -0.5 * height), LAST_ROW)
        change = matrix(centre, shape)
        for rows in (
            ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (tilt_x, tilt_y, 1.0)),
            ((cosine, sine, 0.0), (-sine, cosine, 0.0), LAST_ROW),
            ((1.0, shear_x, 0.0), (shear_y, 1.0, 0.0), LAST_ROW),
            ((1.0, 0.0, to_x), (0.0, 1.0, to_y), LAST_ROW),
        ):
            change = multiply(matrix(rows, shape), change)
        return then(scene, change, applied, gain=gain)

    return GeometryStep(
        num_draws=8, mixes=False, apply=apply, smallest=lambda _: 1.0 - scale
    )


def _one_number(
    rows: Callable[[Array, Size], tuple[tuple[Array | float, ...], ...]],
    low: float | int,
    high: float | int,
) -> GeometryStep:
    """A step about the output's centre with one number, uniform from `low` to `high`.

    Args:
        rows: from the numbers and the output's size to a matrix that maps points given
            from the centre, and keeps areas.
        low: lower limit.
        high: upper limit.
    """

    def apply(
        scene: Scene,
        draws: Float[Array, "b 1"],
        applied: Bool[Array, " b"],
        batch: Batch,
        image_size: Size,
    ) -> Scene:
        x, y = 0.5 * image_size[1], 0.5 * image_size[0]
        change = rows(between(draws[:, 0], low, high), image_size)
        centred = matrix(((1.0, 0.0, -x), (0.0, 1.0, -y), LAST_ROW), applied.shape)
        back = matrix(((1.0, 0.0, x), (0.0, 1.0, y), LAST_ROW), applied.shape)
        change = multiply(multiply(back, matrix(change, applied.shape)), centred)
        return then(scene, change, applied)

    return GeometryStep(num_draws=1, mixes=False, apply=apply)


def rotate(*, degrees: float | int = 30.0) -> GeometryStep:
    """Turn about the centre, by an angle uniform in `[-degrees, degrees]`.

    Raises:
        ValueError: not from 0 to 180.
    """
    require("rotate: degrees", degrees, 0.0, 180.0)

    def rows(angle: Array, image_size: Size) -> tuple[tuple[Array | float, ...], ...]:
        cosine, sine = jnp.cos(jnp.deg2rad(angle)), jnp.sin(jnp.deg2rad(angle))
        return ((cosine, sine, 0.0), (-sine, cosine, 0.0), LAST_ROW)

    return _one_number(rows, -degrees, degrees)


def shear_x(*, factor: float | int = 0.3) -> GeometryStep:
    """Move each row sideways by its distance from the centre times a factor.

    Args:
        factor: it is uniform in `[-factor, factor]`; 0.3 shears by 17 degrees.

    Raises:
        ValueError: not from 0 to 2.
    """
    require("shear_x: factor", factor, 0.0, 2.0)
    return _one_number(
        lambda by, _: ((1.0, by, 0.0), (0.0, 1.0, 0.0), LAST_ROW), -factor, factor
    )


def shear_y(*, factor: float | int = 0.3) -> GeometryStep:
    """Move each column up or down by its distance from the centre times a factor.

    Args:
        factor: it is uniform in `[-factor, factor]`; 0.3 shears by 17 degrees.

    Raises:
        ValueError: not from 0 to 2.
    """
    require("shear_y: factor", factor, 0.0, 2.0)
    return _one_number(
        lambda by, _: ((1.0, 0.0, 0.0), (by, 1.0, 0.0), LAST_ROW), -factor, factor
    )


def translate_x(*, share: float | int = 0.45) -> GeometryStep:
    """Move sideways by a share of the width that is uniform in `[-share, share]`.

    Raises:
        ValueError: not from 0 to 1.
    """
    require("translate_x: share", share, 0.0, 1.0)
    return _one_number(
        lambda by, size: ((1.0, 0.0, by * size[1]), (0.0, 1.0, 0.0), LAST_ROW),
        -share,
        share,
    )


def translate_y(*, share: float | int = 0.45) -> GeometryStep:
    """Move up or down by a share of the height that is uniform in `[-share, share]`.

    Raises:
        ValueError: not from 0 to 1.
    """
    require("translate_y: share", share, 0.0, 1.0)
    return _one_number(
        lambda by, size: ((1.0, 0.0, 0.0), (0.0, 1.0, by * size[0]), LAST_ROW),
        -share,
        share,
    )


def quarter_turn() -> GeometryStep:
    """Turn by 90, 180 or 270 degrees, equally likely; exact if the output is square.

    An output that is not square is shrunk by 90 and 270 degrees, so that all of it
    still shows.
    """

    def apply(
        scene: Scene,
        draws: Float[Array, "b 1"],
        applied: Bool[Array, " b"],
        batch: Batch,
        image_size: Size,
    ) -> Scene:
        height, width = image_size
        turns = jnp.floor(3.0 * draws[:, 0]).astype(jnp.int32)
        upright = turns == 1
        gain = jnp.where(upright, 1.0, min(height / width, width / height))
        cosine = jnp.where(upright, -1.0, 0.0)
        sine = gain * jnp.asarray([1.0, 0.0, -1.0])[turns]
        x, y = 0.5 * width, 0.5 * height
        rows = (
            (cosine, sine, x - cosine * x - sine * y),
            (-sine, cosine, y + sine * x - cosine * y),
            LAST_ROW,
        )
        return then(scene, matrix(rows, applied.shape), applied, gain=gain)

    return GeometryStep(
        num_draws=1,
        mixes=False,
        apply=apply,
        smallest=lambda size: min(size) / max(size),
    )


def flip_left_right(*, swap: Iterable[Any] = ()) -> GeometryStep:
    """Mirror left and right.

    Args:
        swap: pairs of classes, by their indices, of which each becomes the other, as
            an arrow to the left becomes one to the right.

    Raises:
        ValueError: `swap` does not hold pairs, or has a class twice.
    """
    return _flip("flip_left_right", swap, horizontal=True)


def flip_up_down(*, swap: Iterable[Any] = ()) -> GeometryStep:
    """Mirror top and bottom.

    Args:
        swap: pairs of classes, by their indices, of which each becomes the other.

    Raises:
        ValueError: `swap` does not hold pairs, or has a class twice.
    """
    return _flip("flip_up_down", swap, horizontal=False)


def _flip(name: str, swap: Iterable[Any], *, horizontal: bool) -> GeometryStep:
    pairs = tuple(tuple(pair) for pair in swap)
    classes = [index for pair in pairs for index in pair]
    whole = all(type(index) is int and index >= 0 for index in classes)
    if not whole or any(len(pair) != 2 for pair in pairs):
        raise ValueError(
            f"{name}: swap is {pairs}, expected pairs of class indices such as "
            "((0, 1), (4, 5))"
        )
    if len(set(classes)) < len(classes):
        raise ValueError(f"{name}: swap {pairs} has a class twice")

    def apply(
        scene: Scene,
        draws: Float[Array, "b 0"],
        applied: Bool[Array, " b"],
        batch: Batch,
        image_size: Size,
    ) -> Scene:
        height, width = map(float, image_size)
        rows = ((-1.0, 0.0, width), (0.0, 1.0, 0.0), LAST_ROW)
        if not horizontal:
            rows = ((1.0, 0.0, 0.0), (0.0, -1.0, height), LAST_ROW)
        scene = then(scene, matrix(rows, applied.shape), applied)
        if not pairs:
            return scene
        swap = Swap(jnp.asarray(pairs, jnp.int32), applied)
        return scene._replace(swaps=(*scene.swaps, swap))

    return GeometryStep(num_draws=0, mixes=False, apply=apply)
