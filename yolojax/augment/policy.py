"""A policy of augmentations as one function on the device.

The order is fixed, whatever order a policy lists its entries in, and is that of the
table `AUGMENTATIONS`:

1. geometry, composed into one scene: letterbox (always), mosaic, affine, flips;
2. one gather that reads the uint8 pictures (`yolojax.ops.warp`);
3. colour, then sharpness and blur, noise, and compression last;
4. mixing, and erasing.

To add an augmentation, write a function that returns a `GeometryStep`, a `ColourStep`
or a `MixStep` and put it at its place in the table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from yolojax.augment import colour, erase, mix, noise
from yolojax.augment.boxes import carry_boxes, cut_boxes
from yolojax.augment.colour import ColourStep
from yolojax.augment.geometry import (
    GeometryStep,
    Scene,
    affine,
    flip_left_right,
    flip_up_down,
    letterboxed,
    mosaic,
)
from yolojax.augment.mix import Mixed, MixStep
from yolojax.lookup import check_arguments, pick
from yolojax.ops.warp import invert, settle, warp_tiles
from yolojax.records import Batch, Stored

AUGMENTATIONS: dict[str, Callable[..., GeometryStep | ColourStep | MixStep]] = {
    "mosaic": mosaic,
    "affine": affine,
    "flip_up_down": flip_up_down,
    "flip_left_right": flip_left_right,
    "hsv": colour.hsv,
    "brightness": colour.brightness,
    "contrast": colour.contrast,
    "colour": colour.colour,
    "gamma": colour.gamma,
    "to_gray": colour.to_gray,
    "channel_shuffle": colour.channel_shuffle,
    "invert": colour.invert,
    "solarise": colour.solarise,
    "posterise": colour.posterise,
    "autocontrast": colour.autocontrast,
    "equalise": colour.equalise,
    "sharpen": noise.sharpen,
    "gaussian_blur": noise.gaussian_blur,
    "box_blur": noise.box_blur,
    "gaussian_noise": noise.gaussian_noise,
    "salt_and_pepper": noise.salt_and_pepper,
    "compression": noise.compression,
    "copy_paste": mix.copy_paste,
    "mixup": mix.mixup,
    "cutmix": mix.cutmix,
    "random_erasing": erase.random_erasing,
    "cutout": erase.cutout,
}

Step = GeometryStep | ColourStep | MixStep

# More than this many pictures a mosaic never has.
MOST_PARTNERS = 8
# Folded into a sample's key where other numbers than its uniform draws are needed.
# Above all that `fold_in` is given elsewhere.
PARTNERS, NOISE = 2**30, 2**30 + 1


class _Entry(NamedTuple):
    name: str
    probability: float
    step: Step


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
        at the top left of their arrays, a `Batch` or a `Stored`, and gives float32
        pictures in [0, 1] of `image_size`, with the boxes that they still show, valid
        ones first. `cut`, an int32 scalar, counts boxes that had no room. `mosaic_on`,
        a bool or a traced flag, False for the last epochs, leaves out the steps that
        mix pictures. A sample's random numbers depend on the key and on its place in
        the batch only, not on how the batch is split over devices. Mosaic shows other
        pictures of the batch, or, if it is `Stored`, of the whole store.

    Raises:
        ValueError: an entry is wrong; the message says which and what is allowed.
    """
    entries = _read_policy(policy)

    def augment(
        key: Array, batch: Batch | Stored, *, mosaic_on: bool | Bool[Array, ""]
    ) -> tuple[Batch, Int[Array, ""]]:
        batch = jax.tree.map(jnp.asarray, batch)
        if isinstance(batch, Stored):
            pictures, rows, first = batch.pictures, batch.rows, batch.first
            partners = _draw_partners(key, batch)
            image_id, origin = pictures.image_id[rows], pictures.origin[rows]
        else:
            pictures, rows, first, partners = batch, None, 0, None
            image_id, origin = pictures.image_id, pictures.origin
        num = image_id.shape[0]
        # All of a sample's numbers in one call: many small calls compile slowly.
        num_draws = sum(1 + entry.step.num_draws for entry in entries)
        draws = _draw(key, num, num_draws, first)
        scene = letterboxed(pictures, image_size, rows=rows, partners=partners)
        later: list[_Drawn] = []
        start = 0
        for number, entry in enumerate(entries):
            stop = start + 1 + entry.step.num_draws
            applied = draws[:, start] < entry.probability
            drawn = draws[:, start + 1 : stop]
            start = stop
            if not isinstance(entry.step, ColourStep) and entry.step.mixes:
                applied = applied & jnp.asarray(mosaic_on)
            if isinstance(entry.step, GeometryStep):
                scene = entry.step.apply(scene, drawn, applied, pictures, image_size)
            else:
                later.append(_Drawn(entry.step, drawn, applied, number))

        image = _render(pictures, scene, image_size)
        if later:
            # Sizes are never negative, which the compiler does not know.
            image = settle(image, jnp.any(pictures.size < 0))
        sample = Mixed(image, *carry_boxes(pictures, scene, image_size))
        for step, drawn, applied, number in later:
            keys = _noise_keys(key, num, first, number)
            if isinstance(step, ColourStep):
                image = step.apply(sample.image, drawn, applied, keys)
                sample = sample._replace(image=image)
            else:
                sample = step.apply(sample, drawn, applied, keys, image_size)
        sample, cut = cut_boxes(sample, max_boxes)
        return (
            Batch(
                size=jnp.broadcast_to(jnp.asarray(image_size, jnp.int32), (num, 2)),
                image_id=image_id,
                origin=origin,
                **sample._asdict(),
            ),
            cut,
        )

    return augment


class _Drawn(NamedTuple):
    """A step after the gather with its random numbers."""

    step: ColourStep | MixStep
    draws: Array
    applied: Array
    number: int


def _sample_keys(key: Array, num: int, first: Int[Array, ""] | int) -> Key[Array, " b"]:
    """Each sample's key, which depends on its place in the whole batch only."""
    return jax.vmap(lambda place: jax.random.fold_in(key, place))(
        jnp.arange(num) + first
    )


def _draw(
    key: Array, num: int, num_draws: int, first: Int[Array, ""] | int
) -> Float[Array, "b d"]:
    """Uniform numbers in [0, 1) for each sample."""
    return jax.vmap(lambda own: jax.random.uniform(own, (num_draws,)))(
        _sample_keys(key, num, first)
    )


def _noise_keys(
    key: Array, num: int, first: Int[Array, ""] | int, number: int
) -> Key[Array, " b"]:
    """Each sample's key for numbers of pixels in the entry of this number."""
    return _sample_keys(jax.random.fold_in(key, NOISE + number), num, first)


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
