"""The finished output bent smoothly, in the gather that reads the pictures."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from yolojax.augment.scene import GeometryStep, Scene, between, require
from yolojax.ops.bending import BEYOND, MOST_BENT
from yolojax.records import Batch


def elastic(*, cells: int = 4, strength: float | int = 0.1) -> GeometryStep:
    """Bend the output by a smooth random displacement.

    Args:
        cells: the displacement is drawn on a grid of so many cells along each side.
        strength: both of its parts are uniform up to this share of a cell's shorter
            side, in either direction; 0.1 of a cell of 160 pixels is 16 pixels.

    Raises:
        ValueError: `cells` is not from 1 to 16, or `strength` from 0 to 0.15, above
            which a picture might fold.

    Source: Ronneberger et al. 2015, arXiv:1505.04597, section 3.1, with uniform numbers
    in place of normal ones; before it Simard et al. 2003, "Best practices for
    convolutional neural networks applied to visual document analysis", section 2.
    """
    if isinstance(cells, bool) or not isinstance(cells, int):
        raise ValueError(f"elastic: cells is {cells!r}, expected a whole number")
    require("elastic: cells", cells, 1.0, 16.0)
    require("elastic: strength", strength, 0.0, MOST_BENT)
    count = cells + BEYOND

    def apply(
        scene: Scene,
        draws: Float[Array, "b d"],
        applied: Bool[Array, " b"],
        batch: Batch,
        image_size: tuple[int, int],
    ) -> Scene:
        most = strength * min(image_size) / cells
        bend = between(draws, -most, most).reshape(-1, 2, count, count)
        return scene._replace(bend=jnp.where(applied[:, None, None, None], bend, 0.0))

    return GeometryStep(num_draws=2 * count**2, mixes=False, apply=apply)
