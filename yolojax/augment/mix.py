"""What comes after colour: samples mixed with each other, or with parts taken out.

An augmentation here is a function of its published hyper-parameters that returns a
`MixStep`; its signature is the schema of its policy entry. A sample's partner is the
next one of a random order of the batch, as that of mosaic is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from yolojax.ops.boxes import box_area
from yolojax.ops.cover import rectangle_mask, uncovered_boxes, unmasked_boxes
from yolojax.ops.outlines import box_outlines, fill_outlines

# Shorter sides, in pixels, are not left of a box: the published rule for boxes.
MIN_SIDE = 2.0


class Mixed(NamedTuple):
    """The samples of a batch between two mixing steps.

    Attributes:
        image: float32 [b, h, w, 3], in [0, 1].
        boxes: float32 [b, n, 4], corners in pixels of `image`. A step may return more
            rows than it was given; the policy cuts them at the end.
        labels: int32 [b, n].
        valid: bool [b, n], False for padding, which may lie anywhere.
        polygons: float32 [b, n, e, 4], outlines of the objects as edges (see
            `ops.outlines`), in pixels of `image`, not cut to what it shows; () where
            there are none. Steps that come after `copy_paste` do not keep them.
    """

    image: Any
    boxes: Any
    labels: Any
    valid: Any
    polygons: Any = ()


class MixStep(NamedTuple):
    """One mixing augmentation with its hyper-parameters fixed.

    Attributes:
        num_draws: how many uniform numbers in [0, 1) it uses for a sample.
        mixes: whether it shows other samples of the batch; such steps are left out
            when `mosaic_on` is False.
        apply: `(sample: Mixed, draws [b, num_draws], applied [b], keys [b],
            image_size)` to the new `Mixed`; samples that are not `applied` stay as
            they are. `keys` are for numbers of pixels, one key a sample.
        own_share: `(draws, applied, keys, image_size)` to the share [b] that a sample
            has of its own picture, the rest being its partner's; None: it shows boxes
            of another picture, which whole pictures' labels have no place for.
    """

    num_draws: int
    mixes: bool
    apply: Callable[..., Mixed]
    own_share: Callable[..., Any] | None = None


def mixup(*, alpha: float | int = 32.0) -> MixStep:
    """The weighted mean of two pictures, with the boxes of both.

    Args:
        alpha: the weight is drawn from Beta(alpha, alpha); the larger, the nearer it
            is to one half.

    Raises:
        ValueError: `alpha` is not above 0.

    Source: Zhang et al. 2018, arXiv:1710.09412, and for detectors Zhang et al. 2019,
    arXiv:1902.04103, section 3.1, which keeps all boxes at full weight; 32 as in the
    published YOLOv5 trainer.
    """
    _require_positive("mixup: alpha", alpha)

    def own_share(
        draws: Float[Array, "b 1"],
        applied: Bool[Array, " b"],
        keys: Key[Array, " b"],
        image_size: tuple[int, int],
    ) -> Float[Array, " b"]:
        return jnp.where(applied, _beta(keys, alpha), 1.0)

    def apply(
        sample: Mixed,
        draws: Float[Array, "b 1"],
        applied: Bool[Array, " b"],
        keys: Key[Array, " b"],
        image_size: tuple[int, int],
    ) -> Mixed:
        partner = partners_of(draws[:, 0])
        weight = own_share(draws, applied, keys, image_size)[:, None, None, None]
        image = sample.image * weight + sample.image[partner] * (1.0 - weight)
        return _with_partner(
            sample,
            image,
            (sample.boxes, sample.valid),
            (sample.boxes[partner], sample.valid[partner] & applied[:, None]),
            partner,
        )

    return MixStep(num_draws=1, mixes=True, apply=apply, own_share=own_share)


def cutmix(*, alpha: float | int = 1.0, max_covered: float | int = 0.9) -> MixStep:
    """A rectangle of another picture in its place, with the boxes of what is shown.

    A picture keeps the share drawn from Beta(alpha, alpha); the rectangle has the
    picture's shape, whole pixels and a centre that is uniform over the picture, and is
    cut at its border. Boxes are those of what is still to be seen.

    Args:
        alpha: 1 for a uniform share.
        max_covered: a box of either picture stays if no more than this share of it is
            hidden, and its sides are longer than 2 pixels.

    Raises:
        ValueError: an argument out of range.

    Source: Yun et al. 2019, arXiv:1905.04899, section 3.1 and algorithm A1; boxes in
    place of their mixed labels.
    """
    _require_positive("cutmix: alpha", alpha)
    require_share("cutmix: max_covered", max_covered)

    def rectangle_of(
        draws: Float[Array, "b 3"],
        applied: Bool[Array, " b"],
        keys: Key[Array, " b"],
        image_size: tuple[int, int],
    ) -> Float[Array, "b 1 4"]:
        sides = jnp.asarray(image_size, jnp.float32)[None]
        half = 0.5 * jnp.sqrt(1.0 - _beta(keys, alpha))[:, None] * sides
        centre = draws[:, 1:] * sides
        ends = [jnp.round(jnp.clip(centre + way * half, 0.0, sides)) for way in (-1, 1)]
        rectangle = jnp.concatenate([jnp.flip(end, axis=1) for end in ends], axis=1)
        return jnp.where(applied[:, None], rectangle, 0.0)[:, None]

    def own_share(
        draws: Float[Array, "b 3"],
        applied: Bool[Array, " b"],
        keys: Key[Array, " b"],
        image_size: tuple[int, int],
    ) -> Float[Array, " b"]:
        covered = box_area(rectangle_of(draws, applied, keys, image_size))[:, 0]
        return 1.0 - covered / (image_size[0] * image_size[1])

    def apply(
        sample: Mixed,
        draws: Float[Array, "b 3"],
        applied: Bool[Array, " b"],
        keys: Key[Array, " b"],
        image_size: tuple[int, int],
    ) -> Mixed:
        partner = partners_of(draws[:, 0])
        rectangle = rectangle_of(draws, applied, keys, image_size)
        mask = rectangle_mask(rectangle, image_size)
        image = jnp.where(mask[..., None], sample.image[partner], sample.image)
        theirs = sample.boxes[partner]
        shown = jnp.concatenate(
            [
                jnp.clip(theirs[..., :2], rectangle[..., :2], rectangle[..., 2:]),
                jnp.clip(theirs[..., 2:], rectangle[..., :2], rectangle[..., 2:]),
            ],
            axis=-1,
        )
        area = box_area(theirs)
        share = box_area(shown) / jnp.where(area > 0, area, 1.0)
        kept = sample.valid[partner] & applied[:, None]
        return _with_partner(
            sample,
            image,
            still_seen(sample, *uncovered_boxes(sample.boxes, rectangle), max_covered),
            (shown, kept & _is_seen(shown, share, max_covered)),
            partner,
        )

    return MixStep(num_draws=3, mixes=True, apply=apply, own_share=own_share)


def copy_paste(*, share: float | int = 0.5, max_covered: float | int = 0.9) -> MixStep:
    """Objects of another picture, pasted where that picture shows them.

    Pasted is what lies inside of an object's outline, if the source has outlines, or
    else of its box. The other picture has been through its own scaling, move and
    flips. Boxes of the objects beneath shrink to what is still to be seen of them, as
    if each filled its box.

    Args:
        share: the probability of pasting an object.
        max_covered: a box stays if no more than this share of it is hidden, and its
            sides are longer than 2 pixels.

    Raises:
        ValueError: an argument out of range.

    Source: Ghiasi et al. 2021, arXiv:2012.07177, section 3, without blurred seams,
    which they found to make no difference.
    """
    require_share("copy_paste: share", share)
    require_share("copy_paste: max_covered", max_covered)

    def apply(
        sample: Mixed,
        draws: Float[Array, "b 1"],
        applied: Bool[Array, " b"],
        keys: Key[Array, " b"],
        image_size: tuple[int, int],
    ) -> Mixed:
        partner = partners_of(draws[:, 0])
        num_boxes = sample.valid.shape[1]
        chosen = jax.vmap(lambda key: jax.random.uniform(key, (num_boxes,)))(keys)
        pasted = sample.valid[partner] & (chosen < share) & applied[:, None]
        theirs = sample.boxes[partner]
        if isinstance(sample.polygons, tuple):
            outlines = box_outlines(theirs)
        else:
            outlines = sample.polygons[partner]
        mask = fill_outlines(outlines, theirs, pasted, image_size)
        image = jnp.where(mask[..., None], sample.image[partner], sample.image)
        return _with_partner(
            sample,
            image,
            still_seen(sample, *unmasked_boxes(sample.boxes, mask), max_covered),
            (theirs, pasted),
            partner,
        )

    return MixStep(num_draws=1, mixes=True, apply=apply)


def partners_of(draws: Float[Array, " b"]) -> Int[Array, " b"]:
    """The sample that each is mixed with: the next one of one random order."""
    order = jnp.argsort(draws)
    return jnp.zeros_like(order).at[order].set(jnp.roll(order, -1))


def still_seen(
    sample: Mixed,
    boxes: Float[Array, "b n 4"],
    share: Float[Array, "b n"],
    max_covered: float | int,
) -> tuple[Float[Array, "b n 4"], Bool[Array, "b n"]]:
    """What is left of a sample's boxes, and which of them stay; the rest is as it was.

    Args:
        sample: before something was put on it.
        boxes: around what is left of each box.
        share: of each box's area that is left.
        max_covered: the largest share that may be missing.
    """
    touched = share < 1.0
    stays = ~touched | _is_seen(boxes, share, max_covered)
    boxes = jnp.where(touched[..., None], boxes, sample.boxes)
    return boxes, sample.valid & stays


def require_share(name: str, value: float | int) -> None:
    """Raise a ValueError unless the value lies in [0, 1]."""
    if not 0 <= value <= 1:
        raise ValueError(f"{name} is {value}, expected 0 to 1")


def _require_positive(name: str, value: float | int) -> None:
    if not 0 < value < float("inf"):
        raise ValueError(f"{name} is {value}, expected more than 0")


def _is_seen(
    boxes: Float[Array, "b n 4"], share: Float[Array, "b n"], max_covered: float | int
) -> Bool[Array, "b n"]:
    sides = boxes[..., 2:] - boxes[..., :2]
    return (share >= 1.0 - max_covered) & jnp.all(sides > MIN_SIDE, axis=-1)


def _beta(keys: Key[Array, " b"], alpha: float | int) -> Float[Array, " b"]:
    """One number of Beta(alpha, alpha) a sample."""
    return jax.vmap(lambda key: jax.random.beta(key, alpha, alpha))(keys)


def _with_partner(
    sample: Mixed,
    image: Float[Array, "b h w 3"],
    own: tuple[Float[Array, "b n 4"], Bool[Array, "b n"]],
    theirs: tuple[Float[Array, "b n 4"], Bool[Array, "b n"]],
    partner: Int[Array, " b"],
) -> Mixed:
    """A new picture with its own boxes, then its partner's."""
    return Mixed(
        image=image,
        boxes=jnp.concatenate([own[0], theirs[0]], axis=1),
        labels=jnp.concatenate([sample.labels, sample.labels[partner]], axis=1),
        valid=jnp.concatenate([own[1], theirs[1]], axis=1),
    )
