"""Training at several sizes: which there are, and which one a step has."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Size = tuple[int, int]
# Above every seed, so that these numbers are not those of any other use of a seed.
_STREAM = 2**63


def training_sizes(
    image_size: Size, factors: Sequence[float], stride: int
) -> tuple[Size, ...]:
    """The (height, width) of the training steps; each is compiled once.

    Args:
        image_size: (height, width) at a factor of 1, in pixels.
        factors: both sides are multiplied by one of these and rounded to the nearest
            multiple of `stride`, at least one; none: by 1.
        stride: the largest of the network.

    Returns:
        The different ones among them, in order.

    Raises:
        ValueError: a factor that is not from 0.1 to 4.
    """
    for factor in factors:
        if isinstance(factor, bool) or not isinstance(factor, int | float):
            raise ValueError(f"config.augment.multi_scale holds {factor!r}, no number")
        if not 0.1 <= factor <= 4:
            raise ValueError(
                f"config.augment.multi_scale has the factor {factor}, expected 0.1 to 4"
            )
    if not factors:
        return (image_size,)
    sizes = {
        tuple(stride * max(1, round(side * factor / stride)) for side in image_size)
        for factor in factors
    }
    return tuple((height, width) for height, width in sorted(sizes))


def describe_sizes(sizes: Sequence[Size], stride: int) -> str:
    """The sizes that are trained at, to be printed."""
    shown = ", ".join(f"{height}x{width}" for height, width in sizes)
    return (
        f"config.augment.multi_scale: each step at one of {shown} px (height x width; "
        f"multiples of {stride})"
    )


def size_of_step(sizes: Sequence[Size], seed: int, step: int) -> Size:
    """The size of one step, each as likely as the others; a function of its arguments.

    Args:
        sizes: those to choose from.
        seed: that of the run.
        step: steps done before it.
    """
    if len(sizes) == 1:
        return sizes[0]
    generator = np.random.Generator(np.random.Philox(key=_STREAM + seed, counter=step))
    return sizes[int(generator.integers(len(sizes)))]
