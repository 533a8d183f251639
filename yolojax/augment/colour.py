"""Random changes of colour, which leave boxes where they are.

An augmentation here is a function of its published hyper-parameters that returns a
`ColourStep`; its signature is the schema of its policy entry. A pair of numbers is a
range from which a sample draws uniformly. All of them work on every pixel of the
output, the grey around a letterboxed picture included.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Key

from yolojax.ops import colour as ops

# The lower and the upper end of a range; a list where it comes from a file.
Pair = Sequence[float | int]


class ColourStep(NamedTuple):
    """One colour augmentation with its hyper-parameters fixed.

    Attributes:
        num_draws: how many uniform numbers in [0, 1) it uses for a sample.
        apply: `(image [b, h, w, 3] in [0, 1], draws [b, num_draws], applied [b],
            keys [b])` to the new image; samples that are not `applied` stay as they
            are. `keys` are for numbers of pixels, one key a sample.
    """

    num_draws: int
    apply: Callable[..., Array]


def make_step(
    num_draws: int, change: Callable[..., Array], *, costly: bool = False
) -> ColourStep:
    """A step that changes the samples it is applied to and no bit of the others.

    Args:
        num_draws: uniform numbers for a sample.
        change: `(image, draws, keys)` to the new image.
        costly: leave `change` out at run time when no sample is applied. Not for what
            is cheap: it then cannot be computed in one loop with its neighbours.
    """

    def apply(
        image: Float[Array, "b h w 3"],
        draws: Float[Array, "b d"],
        applied: Bool[Array, " b"],
        keys: Key[Array, " b"],
    ) -> Float[Array, "b h w 3"]:
        def changed(given: Array) -> Array:
            new = change(given, draws, keys)
            return jnp.where(applied[:, None, None, None], new, given)

        if not costly:
            return changed(image)
        return lax.cond(jnp.any(applied), changed, lambda given: given, image)

    return ColourStep(num_draws=num_draws, apply=apply)


def check_number(name: str, given: float | int, low: float, high: float) -> None:
    """Check that a number lies in a range.

    Raises:
        ValueError: it does not; the message has `name`.
    """
    if not low <= given <= high:
        raise ValueError(f"{name} is {given}, expected {low:g} to {high:g}")


def read_pair(name: str, given: Pair, low: float, high: float) -> tuple[float, float]:
    """The ends of a range that must lie within another.

    Raises:
        ValueError: not two numbers in order, or out of range; the message has `name`.
    """
    if len(given) != 2 or not low <= given[0] <= given[1] <= high:
        raise ValueError(
            f"{name} is {given}, expected two numbers, the lower one first, from "
            f"{low:g} to {high:g}"
        )
    return float(given[0]), float(given[1])


def read_factor(name: str, given: float | int | Pair) -> tuple[float, float]:
    """The ends of a range of factors, given as such or by how far it goes from 1.

    Raises:
        ValueError: not a number in [0, 1] nor a range within [0, 10].
    """
    if isinstance(given, int | float):
        check_number(name, given, 0.0, 1.0)
        return 1.0 - given, 1.0 + given
    return read_pair(name, given, 0.0, 10.0)


def read_whole_pair(
    name: str, given: Pair, low: float, high: float
) -> tuple[float, float]:
    """`read_pair` for whole numbers."""
    ends = read_pair(name, given, low, high)
    if any(end != int(end) for end in ends):
        raise ValueError(f"{name} is {given}, expected whole numbers")
    return ends


def between(
    draws: Float[Array, " b"], ends: tuple[float | int, float | int]
) -> Float[Array, " b"]:
    """Draws in [0, 1) moved to [low, high)."""
    return ends[0] + (ends[1] - ends[0]) * draws


def whole_between(
    draws: Float[Array, " b"], ends: tuple[float | int, float | int]
) -> Float[Array, " b"]:
    """Whole numbers from low to high, each as likely as the others."""
    number = ends[1] - ends[0] + 1.0
    return jnp.minimum(ends[0] + jnp.floor(number * draws), ends[1])


def hsv(
    *,
    hue: float | int = 0.015,
    saturation: float | int = 0.7,
    value: float | int = 0.4,
) -> ColourStep:
    """Multiply hue, saturation and value by factors drawn for each sample.

    Args:
        hue: the factor is uniform in `[1 - hue, 1 + hue]`; hues wrap around.
        saturation: likewise, clipped to full saturation.
        value: likewise, clipped to full value.

    Raises:
        ValueError: an argument lies outside of [0, 1].

    Source: `augment_hsv` of the published YOLOv5 trainer, without its rounding.
    """
    ranges = {"hue": hue, "saturation": saturation, "value": value}
    for name, given in ranges.items():
        check_number(f"hsv: {name}", given, 0.0, 1.0)
    spread = jnp.asarray(list(ranges.values()), jnp.float32)

    def change(image: Array, draws: Array, keys: Array) -> Array:
        return ops.scale_hsv(image, 1.0 + (2.0 * draws - 1.0) * spread[None])

    return make_step(3, change)


def brightness(
    *, factor: float | int | Pair = 0.2, shift: float | int = 0.0
) -> ColourStep:
    """Multiply by a factor and add a shift.

    Args:
        factor: range of the factor; a number is short for `(1 - factor, 1 + factor)`.
        shift: what is added is uniform in `[-shift, shift]`; 1 is from black to white.

    Raises:
        ValueError: `factor` is neither a number in [0, 1] nor a range within [0, 10],
            or `shift` lies outside of [0, 1].
    """
    ends = read_factor("brightness: factor", factor)
    check_number("brightness: shift", shift, 0.0, 1.0)

    def change(image: Array, draws: Array, keys: Array) -> Array:
        shifts = between(draws[:, 1], (-shift, shift))
        return ops.scale_and_shift(image, between(draws[:, 0], ends), shifts)

    return make_step(2, change)


def contrast(*, factor: float | int | Pair = 0.2) -> ColourStep:
    """Move values away from the mean luminance, or towards it, by a factor.

    Args:
        factor: as of `brightness`; 0 is grey.

    Raises:
        ValueError: neither a number in [0, 1] nor a range within [0, 10].
    """
    ends = read_factor("contrast: factor", factor)

    def change(image: Array, draws: Array, keys: Array) -> Array:
        return ops.scale_contrast(image, between(draws[:, 0], ends))

    return make_step(1, change)


def colour(*, factor: float | int | Pair = 0.2) -> ColourStep:
    """Move values away from the pixel's luminance, or towards it, by a factor.

    Args:
        factor: as of `brightness`; 0 is grey.

    Raises:
        ValueError: neither a number in [0, 1] nor a range within [0, 10].
    """
    ends = read_factor("colour: factor", factor)

    def change(image: Array, draws: Array, keys: Array) -> Array:
        return ops.scale_colour(image, between(draws[:, 0], ends))

    return make_step(1, change)


def gamma(*, exponent: Pair = (0.8, 1.2)) -> ColourStep:
    """Raise values in [0, 1] to a power.

    Args:
        exponent: range of the power; below 1 brightens.

    Raises:
        ValueError: not a range within [0.1, 10].
    """
    ends = read_pair("gamma: exponent", exponent, 0.1, 10.0)

    def change(image: Array, draws: Array, keys: Array) -> Array:
        return ops.apply_gamma(image, between(draws[:, 0], ends))

    return make_step(1, change, costly=True)


def to_gray() -> ColourStep:
    """Replace each pixel by its luminance."""
    return make_step(0, lambda image, draws, keys: ops.to_gray(image))


def channel_shuffle() -> ColourStep:
    """Put the channels in one of their six orders, the given one among them."""
    orders = jnp.asarray(list(itertools.permutations(range(3))), jnp.int32)

    def change(image: Array, draws: Array, keys: Array) -> Array:
        which = whole_between(draws[:, 0], (0.0, 5.0)).astype(jnp.int32)
        return ops.shuffle_channels(image, orders[which])

    return make_step(1, change)


def invert() -> ColourStep:
    """Replace each value by its complement."""
    return make_step(0, lambda image, draws, keys: ops.invert(image))


def solarise(*, threshold: Pair = (128, 128)) -> ColourStep:
    """Invert values from a threshold on.

    Args:
        threshold: range of the threshold, in 8-bit levels; 256 inverts none.

    Raises:
        ValueError: not a range within [0, 256].
    """
    ends = read_pair("solarise: threshold", threshold, 0.0, 256.0)

    def change(image: Array, draws: Array, keys: Array) -> Array:
        return ops.solarise(image, between(draws[:, 0], ends))

    return make_step(1, change)


def posterise(*, bits: Pair = (4, 8)) -> ColourStep:
    """Keep the highest bits of each 8-bit level.

    Args:
        bits: range of their number; whole numbers, each as likely as the others.

    Raises:
        ValueError: not a range of whole numbers within [1, 8].
    """
    ends = read_whole_pair("posterise: bits", bits, 1.0, 8.0)

    def change(image: Array, draws: Array, keys: Array) -> Array:
        return ops.posterise(image, whole_between(draws[:, 0], ends))

    return make_step(1, change)


def autocontrast() -> ColourStep:
    """Stretch each channel to the whole range."""
    return make_step(0, lambda image, draws, keys: ops.autocontrast(image), costly=True)


def equalise() -> ColourStep:
    """Spread the levels of each channel so that each is about equally common."""
    return make_step(0, lambda image, draws, keys: ops.equalise(image), costly=True)
