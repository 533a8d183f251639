"""Where a picture lies on a canvas that it fits, or fills, without being stretched.

Arithmetic on Python numbers only, for the host's pipeline and the evaluator alike; it
never imports jax. The roundings are those of the published YOLOv5 letterbox, so that
published figures can be reproduced to the pixel.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

# How an evaluation lays pictures on a canvas, see `evaluate.letterbox`.
LETTERBOXES = ("square", "rectangular", "centre_crop")
# The part of the shorter side that a centre crop of classifiers shows: 224 of 256 px.
CROP_SHARE = 0.875


class Letterbox(NamedTuple):
    """A picture's place on its canvas.

    Attributes:
        size: (height, width) of the resized picture, at least 1 each.
        offset: (top, left) padding in pixels, negative where the picture is cut off;
            the rest is at the bottom and right.
        ratio: the common scale before rounding, resized over original side.
    """

    size: tuple[int, int]
    offset: tuple[int, int]
    ratio: float


def letterbox_shape(
    size: tuple[int, int],
    target: tuple[int, int],
    *,
    scale_up: bool = True,
    round_up: bool = False,
) -> Letterbox:
    """The size, offset and ratio that centre a picture on a canvas of `target`.

    Args:
        size: (height, width) of the picture, in pixels.
        target: (height, width) of the canvas, in pixels.
        scale_up: whether a picture smaller than the canvas is enlarged.
        round_up: sides are rounded up, as where the published evaluation resizes,
            instead of to the nearest pixel, as where the published prediction does.

    Returns:
        The place: sides are `side * ratio`, rounded; an odd pixel of padding goes to
        the bottom and right.

    Raises:
        ValueError: a side is not positive.
    """
    ratio, resized = _resized(size, target, scale_up)
    if round_up:
        height, width = (
            min(limit, math.ceil(side * ratio))
            for side, limit in zip(size, target, strict=True)
        )
        resized = (height, width)
    return Letterbox(resized, _centred(resized, target), ratio)


def crop_shape(
    size: tuple[int, int], target: tuple[int, int], *, share: float = CROP_SHARE
) -> Letterbox:
    """The place of a picture that fills a canvas with its middle.

    The picture is resized, also enlarged, until the canvas is `share` of its shorter
    side, and what sticks out is cut off: of 500x375 px on 224 px the middle 224x224 of
    341x256.

    Args:
        size: (height, width) of the picture, in pixels.
        target: (height, width) of the canvas, in pixels.
        share: in (0, 1].

    Returns:
        The place, with offsets of 0 or below.

    Raises:
        ValueError: a side is not positive.

    Source: the evaluation of classifiers on ImageNet since Krizhevsky et al. 2012,
    section 2 and 6: the shorter side resized to 256 px, the middle 224x224.
    """
    _check_sides(size, target)
    least = [max(1, round(side / share)) for side in target]
    ratio = max(wanted / side for wanted, side in zip(least, size, strict=True))
    height, width = (
        # The longer side is rounded down, but not below the canvas.
        max(wanted, math.floor(side * ratio + 1e-6))
        for wanted, side in zip(least, size, strict=True)
    )
    # Half a pixel goes to the even number, as in torchvision.
    top, left = round((height - target[0]) / 2), round((width - target[1]) / 2)
    return Letterbox((height, width), (-top, -left), ratio)


def rectangle_shape(
    size: tuple[int, int],
    target: tuple[int, int],
    *,
    stride: int,
    scale_up: bool = True,
) -> tuple[tuple[int, int], Letterbox]:
    """The smallest canvas for a picture resized to fit `target`, and its place there.

    Args:
        size: (height, width) of the picture, in pixels.
        target: (height, width) that the picture is resized to fit, in pixels;
            multiples of `stride`.
        stride: the canvas's sides are multiples of it.
        scale_up: whether a picture smaller than the target is enlarged.

    Returns:
        (height, width) of the canvas, and the place on it.

    Raises:
        ValueError: a side is not positive.
    """
    ratio, resized = _resized(size, target, scale_up)
    height, width = (
        side + (wanted - side) % stride
        for side, wanted in zip(resized, target, strict=True)
    )
    canvas = (height, width)
    return canvas, Letterbox(resized, _centred(resized, canvas), ratio)


def batch_canvas(
    sizes: Iterable[tuple[int, int]], target: tuple[int, int], *, stride: int
) -> tuple[int, int]:
    """The canvas that the published rectangular evaluation gives to a batch.

    On each axis the largest side of the pictures, resized to fit `target`, plus half a
    stride, rounded up to a multiple of the stride: at 640 px and stride 32 the longer
    side becomes 672, so that every picture has padding.

    Args:
        sizes: (height, width) of the batch's pictures, in pixels; at least one.
        target: (height, width) that the pictures are resized to fit, in pixels;
            multiples of `stride`.
        stride: the canvas's sides are multiples of it.
    """
    ratios = [height / width * (target[1] / target[0]) for height, width in sizes]
    shares = (min(1.0, max(ratios)), min(1.0, 1 / min(ratios)))
    height, width = (
        math.ceil(share * side / stride + 0.5) * stride
        for share, side in zip(shares, target, strict=True)
    )
    return height, width


def centred(place: Letterbox, canvas: tuple[int, int]) -> Letterbox:
    """The place of the same size in the middle of another canvas that can hold it."""
    return place._replace(offset=_centred(place.size, canvas))


def letterbox_origin(
    size: tuple[int, int], place: Letterbox
) -> tuple[float, float, float, float]:
    """The numbers of `Batch.origin` for a letterboxed picture.

    The scales are those of the resize as it happens, resized over original side for
    each axis, not the common ratio before rounding that the published code undoes with:
    at 640 px the two differ by half a pixel at most.

    Args:
        size: (height, width) of the original picture, in pixels.
        place: its place on the canvas.

    Returns:
        `scale_y scale_x offset_y offset_x`: original times scale plus offset is the
        point on the canvas.
    """
    return (
        place.size[0] / size[0],
        place.size[1] / size[1],
        float(place.offset[0]),
        float(place.offset[1]),
    )


def published_origin(
    size: tuple[int, int], place: Letterbox, canvas: tuple[int, int]
) -> tuple[float, float, float, float]:
    """The numbers of `Batch.origin` as the published evaluation undoes its padding.

    Its offsets are half of the padding also where that is odd and the picture lies half
    a pixel further up or left. Boxes come back that much off; to compare with published
    numbers, they have to.

    Args:
        size: (height, width) of the original picture, in pixels.
        place: its place on the canvas.
        canvas: (height, width) of the canvas, in pixels.
    """
    scales = letterbox_origin(size, place)[:2]
    top, left = (
        (side - used) / 2 for side, used in zip(canvas, place.size, strict=True)
    )
    return *scales, top, left


def _resized(
    size: tuple[int, int], target: tuple[int, int], scale_up: bool
) -> tuple[float, tuple[int, int]]:
    _check_sides(size, target)
    ratio = min(target[0] / size[0], target[1] / size[1])
    if not scale_up:
        ratio = min(ratio, 1.0)
    # A side of a very long picture would round to 0.
    return ratio, (max(1, round(size[0] * ratio)), max(1, round(size[1] * ratio)))


def _check_sides(size: tuple[int, int], target: tuple[int, int]) -> None:
    if min(size) < 1 or min(target) < 1:
        raise ValueError(
            f"a letterbox needs positive sides, but the picture is {size} and the "
            f"canvas {target} (height, width)"
        )


def _centred(size: tuple[int, int], canvas: tuple[int, int]) -> tuple[int, int]:
    # Half a pixel goes to the bottom and right; .1 keeps the rounding of halves from
    # depending on whether the number is even.
    return (
        round((canvas[0] - size[0]) / 2 - 0.1),
        round((canvas[1] - size[1]) / 2 - 0.1),
    )
