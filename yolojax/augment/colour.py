"""Random changes of colour, which leave boxes where they are.

An augmentation here is a function of its published hyper-parameters that returns a
`ColourStep`; its signature is the schema of its policy entry.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from yolojax.ops.colour import scale_hsv


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
    """
    ranges = {"hue": hue, "saturation": saturation, "value": value}
    for name, given in ranges.items():
        if not 0 <= given <= 1:
            raise ValueError(f"hsv: {name} is {given}, expected 0 to 1")
    spread = jnp.asarray(list(ranges.values()), jnp.float32)

    def apply(
        image: Float[Array, "b h w 3"],
        draws: Float[Array, "b 3"],
        applied: Bool[Array, " b"],
        keys: Key[Array, " b"],
    ) -> Float[Array, "b h w 3"]:
        gains = 1.0 + (2.0 * draws - 1.0) * spread[None]
        return scale_hsv(image, jnp.where(applied[:, None], gains, 1.0))

    return ColourStep(num_draws=3, apply=apply)
