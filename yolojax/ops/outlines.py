"""Outlines of objects: through matrices, cut to what is shown, filled to masks.

An outline is a set of straight edges, `x1 y1 x2 y2` each, in any order and of any
number of closed parts, holes included; what is inside follows from the even-odd rule.
An edge without length means nothing, so that outlines are padded with those.
"""

from __future__ import annotations

from functools import partial

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from yolojax.ops.warp import NEAR, invert

# In place of an infinite limit: further than any picture reaches.
FAR = 1e6
# Likewise, of what int16 can hold.
FAR_PIXEL = 32000.0


def box_outlines(boxes: Float[Array, "*n 4"]) -> Float[Array, "*n 4 4"]:
    """The four sides of each box as edges.

    Args:
        boxes: corners x1 y1 x2 y2.
    """
    start = boxes[..., jnp.array([[0, 1], [2, 1], [2, 3], [0, 3]])]
    return jnp.concatenate([start, jnp.roll(start, -1, axis=-2)], axis=-1)


def transform_outlines(
    edges: Float[Array, "*b n e 4"], matrix: Float[Array, "*b 3 3"]
) -> tuple[Float[Array, "*b n e 4"], Bool[Array, "*b n"]]:
    """Outlines through matrices.

    Args:
        edges: of `n` outlines.
        matrix: maps points of the outlines' plane; may hold a perspective.

    Returns:
        The edges, and whether all of an outline lies before the horizon of the
        perspective; one that does not is of no use.
    """
    m = matrix[..., None, None, :, :]
    ends, before = [], True
    for x, y in ((edges[..., 0], edges[..., 1]), (edges[..., 2], edges[..., 3])):
        u, v, depth = (
            m[..., i, 0] * x + m[..., i, 1] * y + m[..., i, 2] for i in range(3)
        )
        shown = depth > NEAR
        depth = jnp.where(shown, depth, 1.0)
        ends += [u / depth, v / depth]
        before = before & shown
    return jnp.stack(ends, axis=-1), jnp.all(before, axis=-1)


def shown_points(
    edges: Float[Array, "*b n e 4"],
    region: Float[Array, "*b 4"],
    view: Float[Array, "*b 3 3"],
    frame: tuple[float, float, float, float],
    *,
    samples: int = 2,
) -> tuple[Float[Array, "*b n p 2"], Bool[Array, "*b n p"]]:
    """Points whose enclosing box is that of the part of each outline that is shown.

    That part is a polygon; its corners are ends of edges, where edges leave the region
    or the frame, and corners of region and frame that lie inside of the outline.

    Args:
        edges: of `n` outlines on the canvas.
        region: x1 y1 x2 y2, what is shown of the canvas; may be infinite.
        view: from the canvas to the output; may hold a perspective, what lies behind
            its horizon is not shown.
        frame: x1 y1 x2 y2, what is shown of the output.
        samples: points an edge, evenly spaced on the part of it that is shown; more
            than 2 where straight edges will be bent.

    Returns:
        Points in the output, `p = e * samples + 16`, and which of them are in use.
    """
    region = jnp.clip(region, -FAR, FAR)
    inner = _region_planes(region)
    outer = _frame_planes(view, frame)
    start, stop = edges[..., :2], edges[..., 2:]
    start, stop, used = _cut(start, stop, jnp.concatenate([inner, outer], axis=-2))
    shares = [index / (samples - 1) for index in range(samples)]
    points = jnp.stack([start + share * (stop - start) for share in shares], axis=-2)
    num_points = edges.shape[-2] * samples
    points = points.reshape(*points.shape[:-3], num_points, 2)
    used = jnp.repeat(used, samples, axis=-1)

    corners, in_both = _corners(region, view, frame, inner, outer)
    inside = in_both[..., None, :] & _holds(edges, corners)
    corners = jnp.broadcast_to(corners[..., None, :, :], (*inside.shape, 2))
    points = jnp.concatenate([points, corners], axis=-2)
    used = jnp.concatenate([used, inside], axis=-1)
    return _project(points, view[..., None, None, :, :]), used


def enclosing_boxes(
    points: Float[Array, "*n p 2"], used: Bool[Array, "*n p"]
) -> Float[Array, "*n 4"]:
    """The smallest upright box around the points in use; zeros if there is none."""
    low = jnp.min(jnp.where(used[..., None], points, jnp.inf), axis=-2, initial=jnp.inf)
    high = jnp.max(
        jnp.where(used[..., None], points, -jnp.inf), axis=-2, initial=-jnp.inf
    )
    some = jnp.any(used, axis=-1)[..., None]
    return jnp.where(some, jnp.concatenate([low, high], axis=-1), 0.0)


def fill_outlines(
    edges: Float[Array, "b n e 4"],
    limits: Float[Array, "b n 4"],
    used: Bool[Array, "b n"],
    image_size: tuple[int, int],
) -> Bool[Array, "b h w"]:
    """The pixels whose centre lies inside of an outline in use.

    It takes as many passes over the mask as the picture with most outlines in use has.

    Args:
        edges: of `n` outlines for each picture, in pixels.
        limits: x1 y1 x2 y2, beyond which an outline counts for nothing.
        used: which outlines count.
        image_size: height and width of the mask.
    """
    height, width = image_size
    nothing = jnp.zeros((edges.shape[0], height, width), bool)
    if edges.shape[1] == 0:
        return nothing
    order = jnp.argsort(~used, axis=1, stable=True)
    edges = jnp.take_along_axis(edges, order[..., None, None], axis=1)
    limits = jnp.take_along_axis(limits, order[..., None], axis=1)
    # Pixels by the first one of each kind whose centre lies at or after a position.
    low, high = _first_pixel(limits[..., :2]), _first_pixel(limits[..., 2:])
    count = jnp.sum(used, axis=1)
    x = jnp.arange(width, dtype=jnp.int16)[None, None]
    y = jnp.arange(height, dtype=jnp.int16)[None]
    centre = (jnp.arange(height, dtype=jnp.float32) + 0.5)[None, None]

    def add(number: Array, mask: Bool[Array, "b h w"]) -> Bool[Array, "b h w"]:
        one = partial(lax.dynamic_index_in_dim, index=number, axis=1, keepdims=False)
        x1, y1, x2, y2 = (one(edges)[..., i, None] for i in range(4))
        crosses = (y1 <= centre) != (y2 <= centre)
        slope = (x2 - x1) / jnp.where(y1 == y2, 1.0, y2 - y1)
        column = _first_pixel(x1 + (centre - y1) * slope)
        column = jnp.where(crosses, column, width)
        inside = jnp.zeros(mask.shape, bool)
        for edge in range(edges.shape[2]):
            inside = inside ^ (x >= column[:, edge, :, None])
        (left, top), (right, bottom) = (one(limit).T for limit in (low, high))
        rows = (y >= top[:, None]) & (y < bottom[:, None]) & (number < count)[:, None]
        columns = (x >= left[:, None, None]) & (x < right[:, None, None])
        return mask | (inside & rows[..., None] & columns)

    return lax.fori_loop(0, jnp.max(count), add, nothing)


def _first_pixel(position: Float[Array, "*n"]) -> Array:
    """The first pixel whose centre is not before a position; int16, clipped."""
    return jnp.clip(jnp.ceil(position - 0.5), -FAR_PIXEL, FAR_PIXEL).astype(jnp.int16)


def _region_planes(region: Float[Array, "*b 4"]) -> Float[Array, "*b 4 3"]:
    """Half-planes `a x + b y + c >= 0` that make up a rectangle."""
    x1, y1, x2, y2 = (region[..., i] for i in range(4))
    one, zero = jnp.ones_like(x1), jnp.zeros_like(x1)
    rows = [(one, zero, -x1), (zero, one, -y1), (-one, zero, x2), (zero, -one, y2)]
    return jnp.stack([jnp.stack(row, axis=-1) for row in rows], axis=-2)


def _frame_planes(
    view: Float[Array, "*b 3 3"], frame: tuple[float, float, float, float]
) -> Float[Array, "*b 5 3"]:
    """Half-planes of the canvas that `view` shows in the frame, before the horizon."""
    x1, y1, x2, y2 = frame
    u, v, depth = (view[..., i, :] for i in range(3))
    horizon = depth.at[..., 2].add(-NEAR)
    rows = [u - x1 * depth, v - y1 * depth, x2 * depth - u, y2 * depth - v, horizon]
    return jnp.stack(rows, axis=-2)


def _cut(
    start: Float[Array, "*b n e 2"],
    stop: Float[Array, "*b n e 2"],
    planes: Float[Array, "*b k 3"],
) -> tuple[Float[Array, "*b n e 2"], Float[Array, "*b n e 2"], Bool[Array, "*b n e"]]:
    """The parts of segments on the good side of all half-planes; whether there is any.

    Source: Cyrus and Beck 1978, "Generalized two- and three-dimensional clipping".
    """
    first, last = 0.0, 1.0
    used = True
    for index in range(planes.shape[-2]):
        a, b, c = (planes[..., index, i, None, None] for i in range(3))
        at_start = a * start[..., 0] + b * start[..., 1] + c
        at_stop = a * stop[..., 0] + b * stop[..., 1] + c
        enters, leaves = (
            (at_start < 0) & (at_stop >= 0),
            (at_start >= 0) & (at_stop < 0),
        )
        crossing = at_start / jnp.where(enters | leaves, at_start - at_stop, 1.0)
        first = jnp.where(enters, jnp.maximum(first, crossing), first)
        last = jnp.where(leaves, jnp.minimum(last, crossing), last)
        used = used & ((at_start >= 0) | (at_stop >= 0))
    first, last = jnp.asarray(first), jnp.asarray(last)
    way = stop - start
    return (
        start + first[..., None] * way,
        start + last[..., None] * way,
        used & (first <= last),
    )


def _corners(
    region: Float[Array, "*b 4"],
    view: Float[Array, "*b 3 3"],
    frame: tuple[float, float, float, float],
    inner: Float[Array, "*b 4 3"],
    outer: Float[Array, "*b 5 3"],
) -> tuple[Float[Array, "*b 16 2"], Bool[Array, "*b 16"]]:
    """On the canvas: the corners of what region and frame share, some of them twice."""
    sides = box_outlines(jnp.asarray(frame, jnp.float32))[None]
    sides = jnp.broadcast_to(sides, (*view.shape[:-2], 1, 4, 4))
    sides, whole = transform_outlines(sides, invert(view))
    found = [_cut(sides[..., :2], sides[..., 2:], inner)]
    found[0] = (*found[0][:2], found[0][2] & whole[..., None])
    sides = box_outlines(region)[..., None, :, :]
    found.append(_cut(sides[..., :2], sides[..., 2:], outer))
    points = [end[..., 0, :, :] for start, stop, _ in found for end in (start, stop)]
    used = [shown[..., 0, :] for _, _, shown in found for _ in range(2)]
    return jnp.concatenate(points, axis=-2), jnp.concatenate(used, axis=-1)


def _holds(
    edges: Float[Array, "*b n e 4"], points: Float[Array, "*b p 2"]
) -> Bool[Array, "*b n p"]:
    """Whether each point lies inside of each outline, by the even-odd rule."""
    x1, y1, x2, y2 = (edges[..., None, :, i] for i in range(4))
    x, y = points[..., None, :, 0, None], points[..., None, :, 1, None]
    crosses = (y1 <= y) != (y2 <= y)
    slope = (x2 - x1) / jnp.where(y1 == y2, 1.0, y2 - y1)
    left = crosses & (x1 + (y - y1) * slope <= x)
    return jnp.sum(left, axis=-1, dtype=jnp.int32) % 2 == 1


def _project(
    points: Float[Array, "*b 2"], matrix: Float[Array, "*#b 3 3"]
) -> Float[Array, "*b 2"]:
    """Points through a matrix; those behind its horizon mean nothing."""
    x, y = points[..., 0], points[..., 1]
    u, v, depth = (
        matrix[..., i, 0] * x + matrix[..., i, 1] * y + matrix[..., i, 2]
        for i in range(3)
    )
    depth = jnp.maximum(depth, NEAR)
    return jnp.stack([u / depth, v / depth], axis=-1)
