"""Pictures and boxes through 3x3 matrices, several source pictures in one gather.

A matrix maps points `(x, y, 1)` in continuous pixel coordinates: pixel `i` covers
`[i, i + 1)` and its centre is `i + 0.5`, in the source, on the canvas and in the
output alike. The canvas is never built: it is the plane on which the tiles of an
output lie, and each output pixel asks it which picture to read, and where.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Shaped, UInt8

# Grey of what no picture covers, as in the published YOLO trainers.
FILL = 114.0
# Points nearer to the horizon of a perspective than this are not shown.
NEAR = 1e-3
# A coordinate outside of every picture, far enough that no tap gets a weight.
OUTSIDE = -9.0
# So many pixels need more than one int32 to be counted.
MOST_PIXELS = 2**31


def multiply(
    left: Float[Array, "*b 3 3"], right: Float[Array, "*b 3 3"]
) -> Float[Array, "*b 3 3"]:
    """The product of 3x3 matrices: first `right`, then `left`.

    Written out, because a matrix unit may round its inputs to bfloat16 or TF32,
    which moves a pixel at coordinate 1000 by several pixels.
    """
    return jnp.sum(left[..., :, :, None] * right[..., None, :, :], axis=-2)


def invert(matrix: Float[Array, "*b 3 3"]) -> Float[Array, "*b 3 3"]:
    """The inverse of 3x3 matrices, by the adjugate.

    Returns:
        The inverse; exact for whole-pixel translations and flips. A singular matrix
        gives values that are not finite.
    """
    first, second, third = matrix[..., 0, :], matrix[..., 1, :], matrix[..., 2, :]
    columns = [
        _cross(second, third),
        _cross(third, first),
        _cross(first, second),
    ]
    determinant = jnp.sum(first * columns[0], axis=-1)
    return jnp.stack(columns, axis=-1) / determinant[..., None, None]


def _cross(a: Float[Array, "*b 3"], b: Float[Array, "*b 3"]) -> Float[Array, "*b 3"]:
    return jnp.stack(
        [
            a[..., 1] * b[..., 2] - a[..., 2] * b[..., 1],
            a[..., 2] * b[..., 0] - a[..., 0] * b[..., 2],
            a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0],
        ],
        axis=-1,
    )


def transform_boxes(
    boxes: Float[Array, "*b n 4"], matrix: Float[Array, "*b 3 3"]
) -> Float[Array, "*b n 4"]:
    """The smallest upright box around each box after `matrix`.

    Args:
        boxes: corners x1 y1 x2 y2, in pixels.
        matrix: maps points of the boxes' plane; the last row may hold a perspective.

    Returns:
        Corners in pixels. Of a box that crosses the horizon of a perspective, the
        part before it counts; a box that lies behind it becomes all zeros.
    """
    x = boxes[..., jnp.array([0, 2, 2, 0])]
    y = boxes[..., jnp.array([1, 1, 3, 3])]
    m = matrix[..., None, None, :, :]
    u, v, depth = (m[..., i, 0] * x + m[..., i, 1] * y + m[..., i, 2] for i in range(3))

    # Where an edge crosses the horizon: four more points at depth NEAR.
    shown = depth > NEAR
    crossing = shown != jnp.roll(shown, -1, axis=-1)
    change = jnp.roll(depth, -1, axis=-1) - depth
    share = (NEAR - depth) / jnp.where(crossing, change, 1.0)
    u_crossing = u + share * (jnp.roll(u, -1, axis=-1) - u)
    v_crossing = v + share * (jnp.roll(v, -1, axis=-1) - v)

    depth = jnp.where(shown, depth, 1.0)
    px = jnp.concatenate([u / depth, u_crossing / NEAR], axis=-1)
    py = jnp.concatenate([v / depth, v_crossing / NEAR], axis=-1)
    used = jnp.concatenate([shown, crossing], axis=-1)
    low = [jnp.min(jnp.where(used, p, jnp.inf), axis=-1) for p in (px, py)]
    high = [jnp.max(jnp.where(used, p, -jnp.inf), axis=-1) for p in (px, py)]
    enclosing = jnp.stack(low + high, axis=-1)
    return jnp.where(jnp.any(used, axis=-1)[..., None], enclosing, 0.0)


def warp_tiles(
    images: UInt8[Array, "b h w 3"],
    sizes: Int[Array, "b 2"],
    sources: Int[Array, "k t"],
    canvas_to_source: Float[Array, "k t 3 3"],
    regions: Float[Array, "k t 4"],
    output_to_canvas: Float[Array, "k 3 3"],
    *,
    output_size: tuple[int, int],
    levels: int = 0,
    displacement: Float[Array, "k 2 oh ow"] | None = None,
) -> Float[Array, "k oh ow 3"]:
    """Outputs sampled from several pictures each, bilinearly, in one gather.

    Bilinear sampling aliases where it shrinks to less than half. With `levels`, a tile
    is read from its picture, its half, its quarter and so on: the smallest that it
    does not enlarge. The shrinkage is that in the middle of the output, and the mean
    of both axes.

    Args:
        images: source pictures.
        sizes: height and width of the part of each that may be read.
        sources: which picture each tile of an output shows.
        canvas_to_source: from the canvas to pixels of the tile's picture; affine, the
            last row is not read.
        regions: x1 y1 x2 y2, the part of the canvas that belongs to the tile; where
            regions overlap, the last tile counts; a region without area belongs to
            an unused tile.
        output_to_canvas: from output pixels to the canvas; may hold a perspective.
        output_size: height and width of the outputs.
        levels: how many times the pictures are halved; 0 costs least.
        displacement: added to x and y of each output pixel before all else.

    Returns:
        Values in [0, 255]. What no picture covers is grey 114, and a tap outside of
        the valid part counts as that grey, so that a border blends into it.

    Raises:
        ValueError: the halved pictures hold more pixels than an int32 can count.
    """
    # A pair of taps needs two pixels; the added ones lie outside of every size.
    short = [(0, max(0, 2 - length)) for length in images.shape[1:3]]
    if any(added for _, added in short):
        images = jnp.pad(images, [(0, 0), *short, (0, 0)])
    b, h, w, _ = images.shape
    many = b * h * w >= MOST_PIXELS
    if levels and b * h * w >= MOST_PIXELS // 2:
        raise ValueError(
            f"{b} source pictures of {h}x{w} hold 2**30 pixels or more; "
            "use a smaller batch, or a policy that shrinks no picture below a half"
        )

    valid = sizes[sources]
    if levels:
        level = _levels(canvas_to_source, output_to_canvas, output_size, levels)
        pyramid = _pyramid(images, sizes, levels)
        scales = jnp.asarray([0.5**i for i in range(levels + 1)], jnp.float32)
        canvas_to_source = canvas_to_source * scales[level][..., None, None]
        shapes = jnp.asarray(pyramid.shapes, jnp.int32)[level]
        start = jnp.asarray(pyramid.starts, jnp.int32)[level]
        start = start + sources * shapes[..., 0] * shapes[..., 1]
        valid = -(-valid // 2 ** level[..., None])
        x, y, tile_of = _locate(
            canvas_to_source, regions, output_to_canvas, output_size, displacement
        )
        values = [start[..., None], shapes[..., 1:], valid]
        first, stride, height, width = _per_pixel(
            tile_of, jnp.concatenate(values, axis=-1)
        )
        column, left, right = _taps(x, width, jnp.maximum(width - 2, 0))
        row, top, bottom = _taps(y, height, jnp.maximum(height - 2, 0))
        index, pixels = first + row * stride + column, pyramid.pixels
    else:
        x, y, tile_of = _locate(
            canvas_to_source, regions, output_to_canvas, output_size, displacement
        )
        source, height, width = _per_pixel(
            tile_of, jnp.concatenate([sources[..., None], valid], axis=-1)
        )
        column, left, right = _taps(x, width, w - 2)
        row, top, bottom = _taps(y, height, h - 2)
        stride = w
        index = row * w + column if many else (source * h + row) * w + column
        pixels = images.reshape((b, -1, 3) if many else (-1, 3))

    def tap(
        offset: Int[Array, "k oh ow"] | int, weight: Float[Array, "k oh ow"]
    ) -> Float[Array, "k oh ow 3"]:
        # One index a pixel and a slice of three: a third of the index arithmetic.
        at = index + offset
        taken = pixels.at[(source, at) if many else at].get(mode="promise_in_bounds")
        return taken.astype(jnp.float32) * weight[..., None]

    covered = (left + right) * (top + bottom)
    return (
        tap(0, top * left)
        + tap(1, top * right)
        + tap(stride, bottom * left)
        + tap(stride + 1, bottom * right)
        + (FILL * (1.0 - covered))[..., None]
    )


class _Pyramid(NamedTuple):
    """Pictures, their halves, their quarters and so on, one after the other.

    Attributes:
        pixels: uint8 [p, 3].
        starts: where each level starts.
        shapes: (height, width) of the pictures of each level.
    """

    pixels: Array
    starts: list[int]
    shapes: list[tuple[int, int]]


def _pyramid(
    images: UInt8[Array, "b h w 3"], sizes: Int[Array, "b 2"], levels: int
) -> _Pyramid:
    """Each level's pixel is the mean of four; what lies outside counts as grey."""
    all_levels, valid = [images], sizes
    for _ in range(levels):
        image = all_levels[-1]
        # Even, and at least two pixels after halving.
        more = [max(4, n + n % 2) - n for n in image.shape[1:3]]
        image = jnp.pad(image, ((0, 0), (0, more[0]), (0, more[1]), (0, 0)))
        inside = [
            jnp.arange(n, dtype=jnp.int32)[None] < valid[:, axis : axis + 1]
            for axis, n in enumerate(image.shape[1:3])
        ]
        mask = inside[0][:, :, None, None] & inside[1][:, None, :, None]
        whole = jnp.where(mask, image.astype(jnp.uint16), jnp.uint16(FILL))
        rows = whole[:, ::2] + whole[:, 1::2]
        four = rows[:, :, ::2] + rows[:, :, 1::2]
        all_levels.append(((four + jnp.uint16(2)) // jnp.uint16(4)).astype(jnp.uint8))
        valid = (valid + 1) // 2
    shapes = [(image.shape[1], image.shape[2]) for image in all_levels]
    flat = [image.reshape(-1, 3) for image in all_levels]
    starts = [sum(part.shape[0] for part in flat[:i]) for i in range(len(flat))]
    pixels = jnp.concatenate(flat)
    return _Pyramid(settle(pixels, jnp.any(sizes < 0)), starts, shapes)


def _levels(
    canvas_to_source: Float[Array, "k t 3 3"],
    output_to_canvas: Float[Array, "k 3 3"],
    output_size: tuple[int, int],
    levels: int,
) -> Int[Array, "k t"]:
    """The level that each tile is read from, at most `levels`."""
    height, width = output_size
    m = output_to_canvas
    depth = 0.5 * width * m[:, 2, 0] + 0.5 * height * m[:, 2, 1] + m[:, 2, 2]
    area = jnp.abs(_determinant(m) / jnp.maximum(depth, NEAR) ** 3)[:, None]
    t = canvas_to_source
    area = area * jnp.abs(t[..., 0, 0] * t[..., 1, 1] - t[..., 0, 1] * t[..., 1, 0])
    # Of one output pixel in source pixels; a hair below a power of four counts as one.
    exponent = 0.5 * jnp.log2(jnp.maximum(area, 1.0)) + 1e-3
    return jnp.clip(exponent, 0.0, levels).astype(jnp.int32)


def _determinant(matrix: Float[Array, "*b 3 3"]) -> Float[Array, "*b"]:
    product = matrix[..., 0, :] * _cross(matrix[..., 1, :], matrix[..., 2, :])
    return jnp.sum(product, axis=-1)


def _locate(
    canvas_to_source: Float[Array, "k t 3 3"],
    regions: Float[Array, "k t 4"],
    output_to_canvas: Float[Array, "k 3 3"],
    output_size: tuple[int, int],
    displacement: Float[Array, "k 2 oh ow"] | None,
) -> tuple[
    Float[Array, "k oh ow"], Float[Array, "k oh ow"], list[Bool[Array, "k oh ow"]]
]:
    """Source coordinates of each output pixel, and one mask a tile that owns it."""
    height, width = output_size
    x = (jnp.arange(width, dtype=jnp.float32) + 0.5)[None, None, :]
    y = (jnp.arange(height, dtype=jnp.float32) + 0.5)[None, :, None]
    if displacement is not None:
        x, y = x + displacement[:, 0], y + displacement[:, 1]
    m = output_to_canvas[:, :, :, None, None]
    depth = m[:, 2, 0] * x + m[:, 2, 1] * y + m[:, 2, 2]
    shown = depth > 0.0
    depth = jnp.where(shown, depth, 1.0)
    canvas_x = (m[:, 0, 0] * x + m[:, 0, 1] * y + m[:, 0, 2]) / depth
    canvas_y = (m[:, 1, 0] * x + m[:, 1, 1] * y + m[:, 1, 2]) / depth

    source_x = jnp.full_like(canvas_x, OUTSIDE)
    source_y = jnp.full_like(canvas_y, OUTSIDE)
    owned = []
    for tile in range(regions.shape[1]):
        region = regions[:, tile, :, None, None]
        t = canvas_to_source[:, tile, :, :, None, None]
        inside = (
            shown
            & (canvas_x >= region[:, 0])
            & (canvas_y >= region[:, 1])
            & (canvas_x < region[:, 2])
            & (canvas_y < region[:, 3])
        )
        tile_x = t[:, 0, 0] * canvas_x + t[:, 0, 1] * canvas_y + t[:, 0, 2]
        tile_y = t[:, 1, 0] * canvas_x + t[:, 1, 1] * canvas_y + t[:, 1, 2]
        source_x = jnp.where(inside, tile_x, source_x)
        source_y = jnp.where(inside, tile_y, source_y)
        owned.append(inside)
    return source_x, source_y, owned


def _per_pixel(
    owned: list[Bool[Array, "k oh ow"]], values: Int[Array, "k t v"]
) -> list[Int[Array, "k oh ow"]]:
    """Each of the `v` values of the tile that owns a pixel; 0 where none does."""
    result = []
    for column in range(values.shape[-1]):
        value = jnp.zeros(owned[0].shape, jnp.int32)
        for tile, inside in enumerate(owned):
            of_tile = values[:, tile, column, None, None].astype(jnp.int32)
            value = jnp.where(inside, of_tile, value)
        result.append(value)
    return result


def _taps(
    position: Float[Array, "k oh ow"],
    valid: Int[Array, "k oh ow"],
    last: Int[Array, "k oh ow"] | int,
) -> tuple[Int[Array, "k oh ow"], Float[Array, "k oh ow"], Float[Array, "k oh ow"]]:
    """Index of the first of two neighbouring taps, and the weights of both.

    The index lies from 0 to `last`; a tap that is not in `[0, valid)`, or not next to
    `position`, has weight zero.
    """
    centre = position - 0.5
    first = jnp.clip(jnp.floor(centre), 0.0, jnp.asarray(last, jnp.float32))
    index = first.astype(jnp.int32)
    distance = jnp.abs(centre - first)
    next_distance = jnp.abs(centre - first - 1.0)
    weight = jnp.where(index < valid, jnp.maximum(0.0, 1.0 - distance), 0.0)
    next_weight = jnp.where(
        index + 1 < valid, jnp.maximum(0.0, 1.0 - next_distance), 0.0
    )
    return index, weight, next_weight


def settle(image: Shaped[Array, "*n"], never: Bool[Array, ""]) -> Shaped[Array, "*n"]:
    """The image, computed in full before anything reads it.

    Keeps XLA from fusing a gather into what follows, where it would be repeated for
    every use of a pixel. On the CPU, where XLA drops an optimisation barrier before it
    fuses, a branch on a flag that it cannot foresee does the same.

    Args:
        image: any array.
        never: False, but computed, so that the compiler does not know.
    """
    return lax.platform_dependent(
        image,
        never,
        cpu=lambda x, flag: lax.cond(flag, jnp.negative, lambda y: y, x),
        default=lambda x, flag: lax.optimization_barrier(x),
    )
