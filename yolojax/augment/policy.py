"""A policy of augmentations as one function on the device.

The order is fixed, whatever order a policy lists its entries in, and is that of the
table `AUGMENTATIONS`:

1. geometry, composed into one scene: letterbox (always), crop of a picture alone,
   mosaic, crop of the view, room around it, affine changes, mirrors, bends;
2. one gather that reads the uint8 pictures (`yolojax.ops.warp`);
3. colour, then sharpness and blur, noise, and compression last;
4. mixing, and erasing.

To add an augmentation, write a function that returns a `GeometryStep`, a `ColourStep`
or a `MixStep` and put it at its place in the table `augment.table.AUGMENTATIONS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from yolojax.augment import mix
from yolojax.augment.boxes import (
    PUBLISHED_RULE,
    BoxRule,
    carry_boxes,
    carry_outlines,
    cut_boxes,
    swap_labels,
)
from yolojax.augment.colour import ColourStep
from yolojax.augment.mix import Mixed, MixStep
from yolojax.augment.presets import PRESETS
from yolojax.augment.reading import Plan, Policy, read_policy
from yolojax.augment.scene import GeometryStep, Scene, letterboxed
from yolojax.augment.table import AUGMENTATIONS
from yolojax.ops.bending import displacements
from yolojax.ops.warp import invert, settle, warp_tiles
from yolojax.records import Batch, Stored, num_pictures

# More than this many other pictures no mosaic has.
MOST_PARTNERS = 8
# Folded into a key where other numbers than the samples' uniform draws are needed.
# Above all places in a batch.
PARTNERS, NOISE = 2**30, 2**30 + 1


def make_augment(
    policy: Policy,
    *,
    image_size: tuple[int, int],
    max_boxes: int,
    source_size: tuple[int, int] | None = None,
    rule: BoxRule = PUBLISHED_RULE,
    taught_boxes: int | None = None,
    max_left_out: int = 0,
) -> Callable[..., tuple[Batch, Int[Array, ""]]]:
    """The augmentation of a training batch, as a pure function of a key.

    Args:
        policy: entries `dict(name=..., probability=..., **arguments)` with names of
            `AUGMENTATIONS`, in any order, each at most once. `probability` is that of
            applying it to a sample, 1 if left out; two numbers are those at the start
            and the end of training. Presets and choices: see `reading.read_policy`.
            Empty: letterbox only.
        image_size: height and width of the output, in pixels.
        max_boxes: room for boxes in each output.
        source_size: height and width that the pictures were fitted in before; None:
            `image_size`. Where they are shrunk to less than half, they are halved
            first as often as needed.
        rule: which boxes stay.
        taught_boxes: of a picture's boxes the first so many are taught; the others get
            no row. None: all are.
        max_left_out: rows of `Batch.left_out`, for boxes without a row; 0: none.

    Returns:
        `augment(key, batch, *, mosaic_on, progress=0.0) -> (batch, cut)`. It takes
        uint8 pictures at the top left of their arrays, a `Batch` or a `Stored`, and
        gives float32 pictures in [0, 1] of `image_size`, with the boxes that they
        still show, valid ones first. `cut`, an int32 scalar, counts boxes that had no
        room. `mosaic_on`, a bool or a traced flag, False for the last epochs, leaves
        out the steps that mix pictures. `progress` is the share of the training that
        is done. A sample's random numbers depend on the key and on its place in the
        batch only, not on how the batch is split over devices. Mosaic shows other
        pictures of the batch, or, if it is `Stored`, of the whole store.

    Raises:
        ValueError: an entry is wrong; the message says which and what is allowed.
    """
    plan = read_policy(policy, AUGMENTATIONS, PRESETS)
    levels = _num_levels(plan, image_size, source_size or image_size)

    def augment(
        key: Array,
        batch: Batch | Stored,
        *,
        mosaic_on: bool | Bool[Array, ""],
        progress: float | Float[Array, ""] = 0.0,
    ) -> tuple[Batch, Int[Array, ""]]:
        batch = jax.tree.map(jnp.asarray, batch)
        drawn = _draw(plan, key, batch, mosaic_on, progress)
        scene = _compose(plan, drawn, key, batch, image_size)
        pictures, _, _ = _taken(batch)
        if taught_boxes is not None:
            pictures = _taught(pictures, taught_boxes)
        image = _render(pictures, scene, image_size, levels)
        if any(not isinstance(entry.step, GeometryStep) for entry in plan.entries):
            # Sizes are never negative, which the compiler does not know.
            image = settle(image, jnp.any(pictures.size < 0))
        boxes, labels, valid = carry_boxes(pictures, scene, image_size, rule)
        outlines = carry_outlines(pictures, scene, boxes, image_size)
        sample = Mixed(image, boxes, labels, valid, outlines)
        for step, applied, own, keys in _later(plan, drawn, key, batch):
            if isinstance(step, ColourStep):
                image = step.apply(sample.image, own, applied, keys)
                sample = sample._replace(image=image)
            else:
                sample = step.apply(sample, own, applied, keys, image_size)
        sample, left_out, cut = cut_boxes(sample, max_boxes, max_left_out)
        shown = _as_batch(batch, sample, image_size)
        return shown._replace(left_out=left_out), cut

    return augment


def most_pictures(policy: Policy) -> int:
    """How many pictures an output can show the boxes of, as the policy stands.

    Mosaics show several side by side, and each step that mixes adds those of another
    output. A picture may be among them more than once.

    Raises:
        ValueError: see `make_augment`.
    """
    used = [
        entry.step
        for entry in read_policy(policy, AUGMENTATIONS, PRESETS).entries
        if max(entry.probability) > 0
    ]
    tiles = [step.tiles for step in used if isinstance(step, GeometryStep)]
    doublings = sum(isinstance(step, MixStep) and step.mixes for step in used)
    return max(tiles, default=1) * 2**doublings


def _taught(pictures: Batch, count: int) -> Batch:
    """The pictures with the label -1 from box `count` on."""
    place = jnp.arange(pictures.labels.shape[1], dtype=jnp.int32)[None]
    return pictures._replace(labels=jnp.where(place < count, pictures.labels, -1))


def make_label_augment(
    policy: Policy,
    *,
    image_size: tuple[int, int],
    source_size: tuple[int, int] | None = None,
) -> Callable[..., tuple[Batch, Int[Array, ""]]]:
    """The augmentation of a classifier's batch, as a pure function of a key.

    A picture keeps its labels, but for the `swap` of mirrors; where it is mixed with
    another one, it has the labels of both, each by the share of the pictures (Zhang et
    al. 2018, arXiv:1710.09412; Yun et al. 2019, arXiv:1905.04899).

    Args:
        policy: see `make_augment`.
        image_size: see `make_augment`.
        source_size: see `make_augment`.

    Returns:
        As that of `make_augment`, with boxes around whole pictures, and `valid`
        float32 [b, n]: the share that a picture has of each label, 0 for padding.

    Raises:
        ValueError: as for `make_augment`; or an entry that puts boxes of several
            pictures side by side.
    """
    plan = read_policy(policy, AUGMENTATIONS, PRESETS)
    levels = _num_levels(plan, image_size, source_size or image_size)
    for entry in plan.entries:
        if _mixes(entry.step) and getattr(entry.step, "own_share", None) is None:
            raise ValueError(
                f"{entry.name} is for boxes: a picture with a class has none. "
                "Mix pictures by mixup or cutmix"
            )

    def augment(
        key: Array,
        batch: Batch | Stored,
        *,
        mosaic_on: bool | Bool[Array, ""],
        progress: float | Float[Array, ""] = 0.0,
    ) -> tuple[Batch, Int[Array, ""]]:
        batch = jax.tree.map(jnp.asarray, batch)
        drawn = _draw(plan, key, batch, mosaic_on, progress)
        scene = _compose(plan, drawn, key, batch, image_size)
        pictures, rows, _ = _taken(batch)
        image = _render(pictures, scene, image_size, levels)
        if any(not isinstance(entry.step, GeometryStep) for entry in plan.entries):
            image = settle(image, jnp.any(pictures.size < 0))
        labels, shares = pictures.labels, pictures.valid.astype(jnp.float32)
        if rows is not None:
            labels, shares = labels[rows], shares[rows]
        for swap in scene.swaps:
            labels = swap_labels(labels, swap)
        for step, applied, own, keys in _later(plan, drawn, key, batch):
            if isinstance(step, ColourStep):
                image = step.apply(image, own, applied, keys)
                continue
            empty = jnp.zeros((len(image), 0), jnp.int32)
            boxes = jnp.zeros((len(image), 0, 4), jnp.float32)
            sample = Mixed(image, boxes, empty, empty.astype(jnp.bool_))
            image = step.apply(sample, own, applied, keys, image_size).image
            if step.own_share is not None:
                partner = mix.partners_of(own[:, 0])
                share = step.own_share(own, applied, keys, image_size)[:, None]
                shares = [shares * share, shares[partner] * (1.0 - share)]
                shares = jnp.concatenate(shares, axis=1)
                labels = jnp.concatenate([labels, labels[partner]], axis=1)
        height, width = image_size
        whole = jnp.asarray((0, 0, width, height), jnp.float32)
        boxes = jnp.broadcast_to(whole, (*labels.shape, 4))
        sample = Mixed(image, boxes, labels, shares)
        return _as_batch(batch, sample, image_size), jnp.zeros((), jnp.int32)

    return augment


class Explanation(NamedTuple):
    """What an augmentation does to the samples of a step.

    Attributes:
        scene: which pictures each shows, and where.
        applied: bool [b] by an entry's name, the samples that it changes.
        partners: int32 [b] by a mixing entry's name, the samples that they are mixed
            with, by their place in the batch.
    """

    scene: Scene
    applied: dict[str, Array]
    partners: dict[str, Array]


def make_explain(
    policy: Policy, *, image_size: tuple[int, int]
) -> Callable[..., Explanation]:
    """What `make_augment` does, to be shown: a function of the arguments of `augment`.

    Raises:
        ValueError: as for `make_augment`.
    """
    plan = read_policy(policy, AUGMENTATIONS, PRESETS)

    def explain(
        key: Array,
        batch: Batch | Stored,
        *,
        mosaic_on: bool | Bool[Array, ""],
        progress: float | Float[Array, ""] = 0.0,
    ) -> Explanation:
        batch = jax.tree.map(jnp.asarray, batch)
        drawn = _draw(plan, key, batch, mosaic_on, progress)
        scene = _compose(plan, drawn, key, batch, image_size)
        steps = {entry.name: entry.step for entry in plan.entries}
        draws = dict(zip(steps, drawn, strict=True))
        return Explanation(
            scene,
            {name: applied for name, (applied, _) in draws.items()},
            {
                name: mix.partners_of(draws[name][1][:, 0])
                for name, step in steps.items()
                if isinstance(step, MixStep) and step.mixes
            },
        )

    return explain


def _taken(
    batch: Batch | Stored,
) -> tuple[Batch, Int[Array, " b"] | None, Int[Array, ""] | int]:
    """All pictures, the rows taken of them (None: each), and the first one's place."""
    if isinstance(batch, Stored):
        return batch.pictures, batch.rows, batch.first
    return batch, None, 0


def _draw(
    plan: Plan,
    key: Array,
    batch: Batch | Stored,
    mosaic_on: bool | Bool[Array, ""],
    progress: float | Float[Array, ""],
) -> list[tuple[Bool[Array, " b"], Float[Array, "b _"]]]:
    """Of each entry, the samples that it changes, and its numbers in [0, 1)."""
    num, first = num_pictures(batch), _taken(batch)[2]
    # All of a sample's numbers in one call: many small calls compile slowly.
    draws = jax.vmap(lambda own: jax.random.uniform(own, (plan.num_draws,)))(
        _sample_keys(key, num, first)
    )
    return [
        (applied & jnp.asarray(mosaic_on) if _mixes(entry.step) else applied, own)
        for entry, (applied, own) in zip(
            plan.entries, plan.applied(draws, progress), strict=True
        )
    ]


def _later(
    plan: Plan,
    drawn: list[tuple[Bool[Array, " b"], Float[Array, "b _"]]],
    key: Array,
    batch: Batch | Stored,
) -> Iterator[tuple[ColourStep | MixStep, Any, Any, Any]]:
    """The steps after the gather, the samples that each changes, numbers and keys."""
    num, first = num_pictures(batch), _taken(batch)[2]
    for number, entry in enumerate(plan.entries):
        if not isinstance(entry.step, GeometryStep):
            # Each sample's key for numbers of pixels in this entry.
            keys = _sample_keys(jax.random.fold_in(key, NOISE + number), num, first)
            yield entry.step, *drawn[number], keys


def _as_batch(
    batch: Batch | Stored, sample: Mixed, image_size: tuple[int, int]
) -> Batch:
    """The augmented samples of a batch."""
    pictures, rows, _ = _taken(batch)
    image_id, origin = pictures.image_id, pictures.origin
    if rows is not None:
        image_id, origin = image_id[rows], origin[rows]
    size = jnp.asarray(image_size, jnp.int32)
    return Batch(
        image=sample.image,
        size=jnp.broadcast_to(size, (image_id.shape[0], 2)),
        boxes=sample.boxes,
        labels=sample.labels,
        valid=sample.valid,
        image_id=image_id,
        origin=origin,
    )


def _mixes(step: GeometryStep | ColourStep | MixStep) -> bool:
    return not isinstance(step, ColourStep) and step.mixes


def _compose(
    plan: Plan,
    drawn: list[tuple[Bool[Array, " b"], Float[Array, "b _"]]],
    key: Array,
    batch: Batch | Stored,
    image_size: tuple[int, int],
) -> Scene:
    """The finished scene."""
    pictures, rows, _ = _taken(batch)
    partners = _draw_partners(key, batch) if isinstance(batch, Stored) else None
    scene = letterboxed(pictures, image_size, rows=rows, partners=partners)
    for entry, (applied, own) in zip(plan.entries, drawn, strict=True):
        if isinstance(entry.step, GeometryStep):
            scene = entry.step.apply(scene, own, applied, pictures, image_size)
    return scene


def _sample_keys(key: Array, num: int, first: Int[Array, ""] | int) -> Key[Array, " b"]:
    """Each sample's key, which depends on its place in the whole batch only."""
    return jax.vmap(lambda place: jax.random.fold_in(key, place))(
        jnp.arange(num) + first
    )


def _draw_partners(key: Array, stored: Stored) -> Int[Array, "b p"]:
    """For each sample, pictures of the whole store that are not its own."""
    rows = stored.rows
    count = stored.pictures.size.shape[0] if stored.count is None else stored.count
    keys = _sample_keys(jax.random.fold_in(key, PARTNERS), rows.shape[0], stored.first)
    others = jnp.maximum(jnp.asarray(count, jnp.int32) - 1, 1)
    steps = jax.vmap(
        lambda own: jax.random.randint(own, (MOST_PARTNERS,), 1, others + 1)
    )(keys)
    return (rows[:, None] + steps) % count


def _num_levels(
    plan: Plan, image_size: tuple[int, int], source_size: tuple[int, int]
) -> int:
    """How often the pictures are halved, so that no policy shrinks one below a half."""
    shrinks = zip(image_size, source_size, strict=True)
    smallest = min(1.0, *(now / before for now, before in shrinks))
    for entry in plan.entries:
        if isinstance(entry.step, GeometryStep) and max(entry.probability) > 0:
            smallest *= entry.step.smallest(image_size)
    # Not for the sake of rounding.
    return max(0, math.ceil(math.log2(0.5 / smallest) - 1e-6))


def _render(
    batch: Batch, scene: Scene, image_size: tuple[int, int], levels: int
) -> Float[Array, "b h w 3"]:
    """The scene's pictures in [0, 1]."""
    images, sizes, sources = batch.image, batch.size, scene.sources
    if levels and scene.partners is not None:
        # Of a whole store, only what is shown is halved.
        images, sizes = (x[sources.reshape(-1)] for x in (images, sizes))
        sources = jnp.arange(sources.size, dtype=jnp.int32).reshape(sources.shape)
    bend = scene.bend
    image = warp_tiles(
        images,
        sizes,
        sources,
        invert(scene.placements),
        scene.regions,
        invert(scene.view),
        output_size=image_size,
        levels=levels,
        displacement=None if bend is None else displacements(bend, image_size),
    )
    return image / 255.0
