"""Rectangles of a picture painted over."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from yolojax.augment.mix import Mixed, MixStep, require_share, still_seen
from yolojax.ops.cover import rectangle_mask, uncovered_boxes

# The published letterbox's grey.
GREY = 114 / 255
# Side in pixels of the random squares that make up noise. A number for each pixel of a
# batch would take as long as all the rest.
TILE = 64
# More holes than these are noise, and the work for boxes grows with their square.
MOST_HOLES = 16


def random_erasing(
    *,
    area: tuple[float | int, float | int] = (0.02, 0.4),
    aspect: float | int = 0.3,
    max_covered: float | int = 0.6,
    fill: str | float | int = "noise",
) -> MixStep:
    """One rectangle of the picture painted over.

    A box becomes that of what is still to be seen of its object, as if this filled it.

    Args:
        area: the rectangle's share of the picture is uniform between these.
        aspect: its height over its width is uniform in `[aspect, 1 / aspect]`; a side
            that would be longer than the picture's is cut to it.
        max_covered: a box stays if no more than this share of it is painted over.
        fill: "noise", uniform for each pixel (repeated every 64 pixels), or a grey
            level in [0, 1].

    Raises:
        ValueError: an argument out of range.

    Source: Zhong et al. 2017, arXiv:1708.04896, algorithm 1, which draws again where
    the rectangle does not fit, and leaves boxes as they are; here it is cut, and lies
    anywhere in the picture.
    """
    low, high = area
    if not 0 < low <= high <= 1:
        raise ValueError(
            f"random_erasing: area is {area}, expected the smallest and the largest "
            "share, above 0 and at most 1"
        )
    if not 0 < aspect <= 1:
        raise ValueError(
            f"random_erasing: aspect is {aspect}, expected more than 0, at most 1"
        )
    require_share("random_erasing: max_covered", max_covered)
    _check_fill("random_erasing", fill)

    def apply(
        sample: Mixed,
        draws: Float[Array, "b 4"],
        applied: Bool[Array, " b"],
        keys: Key[Array, " b"],
        image_size: tuple[int, int],
    ) -> Mixed:
        height, width = image_size
        pixels = (low + (high - low) * draws[:, 0]) * height * width
        ratio = aspect + (1.0 / aspect - aspect) * draws[:, 1]
        sides = jnp.stack([jnp.sqrt(pixels * ratio), jnp.sqrt(pixels / ratio)], axis=-1)
        limits = jnp.asarray(image_size, jnp.float32)[None]
        sides = jnp.clip(jnp.round(sides), 1.0, limits)
        corner = jnp.round(draws[:, 2:] * (limits - sides))
        rectangles = _rectangles(corner[:, None], (corner + sides)[:, None])
        return _paint(sample, rectangles, applied, keys, fill, max_covered)

    return MixStep(num_draws=4, mixes=False, apply=apply)


def cutout(
    *,
    holes: int = 1,
    side: float | int = 0.25,
    max_covered: float | int = 0.6,
    fill: str | float | int = GREY,
) -> MixStep:
    """Squares of the picture painted over.

    A box becomes that of what is still to be seen of its object, as if this filled it.

    Args:
        holes: how many; their centres are uniform over the picture, and what reaches
            over its border is cut.
        side: of a square, as a share of the picture's shorter side; published are 1/2
            for 10 classes of small pictures, and 1/4 for 100.
        max_covered: a box stays if no more than this share of it is painted over.
        fill: "noise", uniform for each pixel (repeated every 64 pixels), or a grey
            level in [0, 1].

    Raises:
        ValueError: an argument out of range.

    Source: DeVries and Taylor 2017, arXiv:1708.04552, section 3.2.
    """
    if not 1 <= holes <= MOST_HOLES:
        raise ValueError(f"cutout: holes is {holes}, expected 1 to {MOST_HOLES}")
    if not 0 < side <= 1:
        raise ValueError(f"cutout: side is {side}, expected more than 0, at most 1")
    require_share("cutout: max_covered", max_covered)
    _check_fill("cutout", fill)

    def apply(
        sample: Mixed,
        draws: Float[Array, "b k"],
        applied: Bool[Array, " b"],
        keys: Key[Array, " b"],
        image_size: tuple[int, int],
    ) -> Mixed:
        limits = jnp.asarray(image_size, jnp.float32)[None, None]
        length = max(1.0, float(round(side * min(image_size))))
        centre = draws.reshape(-1, holes, 2) * limits
        low = jnp.round(centre - 0.5 * length)
        rectangles = _rectangles(
            jnp.clip(low, 0.0, limits), jnp.clip(low + length, 0.0, limits)
        )
        return _paint(sample, rectangles, applied, keys, fill, max_covered)

    return MixStep(num_draws=2 * holes, mixes=False, apply=apply)


def _check_fill(name: str, fill: str | float | int) -> None:
    known = fill == "noise" if isinstance(fill, str) else 0 <= fill <= 1
    if not known:
        raise ValueError(
            f"{name}: fill is {fill!r}, expected 'noise' or a grey level from 0 to 1"
        )


def _rectangles(
    low: Float[Array, "b k 2"], high: Float[Array, "b k 2"]
) -> Float[Array, "b k 4"]:
    """Corners x1 y1 x2 y2 of two corners y x."""
    return jnp.concatenate([jnp.flip(low, axis=-1), jnp.flip(high, axis=-1)], axis=-1)


def _paint(
    sample: Mixed,
    rectangles: Float[Array, "b k 4"],
    applied: Bool[Array, " b"],
    keys: Key[Array, " b"],
    fill: str | float | int,
    max_covered: float | int,
) -> Mixed:
    """Samples with rectangles painted over where `applied`, and the boxes left."""
    rectangles = jnp.where(applied[:, None, None], rectangles, 0.0)
    size = sample.image.shape[1:3]
    mask = rectangle_mask(rectangles, size)[..., None]
    paint = _noise(keys, size) if isinstance(fill, str) else jnp.float32(fill)
    boxes, valid = still_seen(
        sample, *uncovered_boxes(sample.boxes, rectangles), max_covered
    )
    return sample._replace(
        image=jnp.where(mask, paint, sample.image), boxes=boxes, valid=valid
    )


def _noise(keys: Key[Array, " b"], size: tuple[int, int]) -> Float[Array, "b h w 3"]:
    """Uniform noise that repeats itself every 64 pixels."""
    tile = jax.vmap(lambda key: jax.random.uniform(key, (TILE, TILE, 3)))(keys)
    height, width = (-(-length // TILE) for length in size)
    return jnp.tile(tile, (1, height, width, 1))[:, : size[0], : size[1]]
