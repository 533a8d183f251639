"""A policy of augmentations as one function on the device.

The order is fixed, whatever order a policy lists its entries in, and is that of the
table `AUGMENTATIONS`:

1. geometry, composed into one scene: letterbox (always), mosaic, affine, flips;
2. one gather that reads the uint8 pictures (`yolojax.ops.warp`);
3. colour.

To add an augmentation, write a function that returns a `GeometryStep` or a
`ColourStep` and put it at its place in the table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from yolojax.augment.colour import ColourStep, hsv
from yolojax.augment.geometry import (
    GeometryStep,
    Scene,
    affine,
    flip_left_right,
    flip_up_down,
    letterboxed,
    mosaic,
)
from yolojax.lookup import check_arguments, pick
from yolojax.ops.warp import invert, settle, transform_boxes, warp_tiles
from yolojax.records import Batch

AUGMENTATIONS: dict[str, Callable[..., GeometryStep | ColourStep]] = {
    "mosaic": mosaic,
    "affine": affine,
    "flip_up_down": flip_up_down,
    "flip_left_right": flip_left_right,
    "hsv": hsv,
}

# The published rule: a box stays if both sides are longer than this many pixels,
MIN_SIDE = 2.0
# if the output shows more than this share of its area on the canvas,
MIN_AREA_RATIO = 0.1
# and if it is less elongated than this.
MAX_ASPECT = 100.0


class _Entry(NamedTuple):
    name: str
    probability: float
    step: GeometryStep | ColourStep


def _read_policy(policy: Iterable[Mapping[str, Any]]) -> list[_Entry]:
    """The policy's entries in the order of the table.

    Raises:
        ValueError: an unknown name or argument, a name twice, a wrong probability.
    """
    entries: dict[str, _Entry] = {}
    for position, given in enumerate(policy):
        arguments = dict(given)
        where = f"augmentation policy, entry {position}"
        if "name" not in arguments:
            raise ValueError(f"{where}: needs a name, got {sorted(arguments)}")
        name = arguments.pop("name")
        function = pick(AUGMENTATIONS, name, "augmentation")
        if name in entries:
            raise ValueError(f"{where}: {name!r} is there twice; give it once")
        probability = arguments.pop("probability", 1.0)
        if not 0 <= probability <= 1:
            raise ValueError(
                f"{where}: probability of {name!r} is {probability}, expected 0 to 1"
            )
        check_arguments(function, arguments, f"augmentation {name!r}")
        entries[name] = _Entry(name, float(probability), function(**arguments))
    return [entries[name] for name in AUGMENTATIONS if name in entries]


def make_augment(
    policy: Iterable[Mapping[str, Any]],
    *,
    image_size: tuple[int, int],
    max_boxes: int,
) -> Callable[..., tuple[Batch, Int[Array, ""]]]:
    """The augmentation of a training batch, as a pure function of a key.

    Args:
        policy: entries `dict(name=..., probability=..., **arguments)` with names of
            `AUGMENTATIONS`, in any order, each at most once. `probability` is that of
            applying it to a sample, 1 if left out. Empty: letterbox only.
        image_size: height and width of the output, in pixels.
        max_boxes: room for boxes in each output.

    Returns:
        `augment(key, batch, *, mosaic_on) -> (batch, cut)`. It takes uint8 pictures
        at the top left of their arrays and gives float32 pictures in [0, 1] of
        `image_size`, with the boxes that they still show, valid ones first. `cut`, an
        int32 scalar, counts boxes that had no room. `mosaic_on`, a bool or a traced
        flag, False for the last epochs, leaves out the steps that mix pictures. A
        sample's random numbers depend on the key and on its place in the batch only,
        not on how the batch is split over devices.

    Raises:
        ValueError: an entry is wrong; the message says which and what is allowed.
    """
    entries = _read_policy(policy)

    def augment(
        key: Array, batch: Batch, *, mosaic_on: bool | Bool[Array, ""]
    ) -> tuple[Batch, Int[Array, ""]]:
        batch = jax.tree.map(jnp.asarray, batch)
        num = batch.image.shape[0]
        # All of a sample's numbers in one call: many small calls compile slowly.
        num_draws = sum(1 + entry.step.num_draws for entry in entries)
        draws = _draw(key, num, num_draws)
        scene = letterboxed(batch, image_size)
        colours = []
        start = 0
        for entry in entries:
            stop = start + 1 + entry.step.num_draws
            applied = draws[:, start] < entry.probability
            own = draws[:, start + 1 : stop]
            start = stop
            if isinstance(entry.step, ColourStep):
                colours.append((entry.step, own, applied))
                continue
            if entry.step.mixes:
                applied = applied & jnp.asarray(mosaic_on)
            scene = entry.step.apply(scene, own, applied, batch, image_size)

        image = _render(batch, scene, image_size)
        if colours:
            # Sizes are never negative, which the compiler does not know.
            image = settle(image, jnp.any(batch.size < 0))
        for step, own, applied in colours:
            image = step.apply(image, own, applied)
        boxes, labels, valid, cut = _carry_boxes(batch, scene, image_size, max_boxes)
        return (
            Batch(
                image=image,
                size=jnp.broadcast_to(jnp.asarray(image_size, jnp.int32), (num, 2)),
                boxes=boxes,
                labels=labels,
                valid=valid,
                image_id=batch.image_id,
                origin=batch.origin,
            ),
            cut,
        )

    return augment


def _draw(key: Array, num: int, num_draws: int) -> Float[Array, "b d"]:
    """Uniform numbers in [0, 1); a row depends on the key and its position only."""
    return jax.vmap(
        lambda position: jax.random.uniform(
            jax.random.fold_in(key, position), (num_draws,)
        )
    )(jnp.arange(num))


def _render(
    batch: Batch, scene: Scene, image_size: tuple[int, int]
) -> Float[Array, "b h w 3"]:
    """The scene's pictures in [0, 1]."""
    image = warp_tiles(
        batch.image,
        batch.size,
        scene.sources,
        invert(scene.placements),
        scene.regions,
        invert(scene.view),
        output_size=image_size,
    )
    return image / 255.0


def _carry_boxes(
    batch: Batch, scene: Scene, image_size: tuple[int, int], max_boxes: int
) -> tuple[
    Float[Array, "b n 4"], Int[Array, "b n"], Bool[Array, "b n"], Int[Array, ""]
]:
    """The boxes that the scene still shows, valid ones first, and how many were cut."""
    num = batch.image.shape[0]
    on_canvas = transform_boxes(batch.boxes[scene.sources], scene.placements)
    on_canvas = _clip(on_canvas, scene.regions[:, :, None, :]).reshape(num, -1, 4)
    labels = batch.labels[scene.sources].reshape(num, -1)
    valid = batch.valid[scene.sources].reshape(num, -1)

    height, width = image_size
    frame = jnp.asarray([0, 0, width, height], jnp.float32)
    boxes = _clip(transform_boxes(on_canvas, scene.view), frame[None, None])
    valid = valid & _is_shown(on_canvas, boxes, scene.gain[:, None])

    room = max(0, max_boxes - valid.shape[1])
    order = jnp.argsort(~valid, axis=1, stable=True)[:, :max_boxes]
    kept = jnp.take_along_axis(valid, order, axis=1)
    boxes = jnp.take_along_axis(boxes, order[..., None], axis=1)
    labels = jnp.take_along_axis(labels, order, axis=1)
    cut = jnp.sum(jnp.maximum(jnp.sum(valid, axis=1, dtype=jnp.int32) - max_boxes, 0))
    return (
        jnp.pad(jnp.where(kept[..., None], boxes, 0.0), ((0, 0), (0, room), (0, 0))),
        jnp.pad(jnp.where(kept, labels, 0), ((0, 0), (0, room))),
        jnp.pad(kept, ((0, 0), (0, room))),
        cut,
    )


def _clip(
    boxes: Float[Array, "*n 4"], limits: Float[Array, "*m 4"]
) -> Float[Array, "*n 4"]:
    """Boxes cut to `limits`, which may be broadcast."""
    low, high = limits[..., :2], limits[..., 2:]
    return jnp.concatenate(
        [jnp.clip(boxes[..., :2], low, high), jnp.clip(boxes[..., 2:], low, high)],
        axis=-1,
    )


def _is_shown(
    before: Float[Array, "b n 4"],
    after: Float[Array, "b n 4"],
    gain: Float[Array, "b 1"],
) -> Bool[Array, "b n"]:
    """The published rule, `box_candidates` of YOLOv5, for boxes before and after."""
    width, height = after[..., 2] - after[..., 0], after[..., 3] - after[..., 1]
    area = (before[..., 2] - before[..., 0]) * (before[..., 3] - before[..., 1])
    area = area * gain**2
    longer, shorter = jnp.maximum(width, height), jnp.minimum(width, height)
    return (
        (shorter > MIN_SIDE)
        & (width * height > MIN_AREA_RATIO * area)
        & (longer < MAX_ASPECT * shorter)
    )
