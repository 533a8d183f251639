"""What comes after colour: samples mixed with each other, or with parts taken out.

An augmentation here is a function of its published hyper-parameters that returns a
`MixStep`; its signature is the schema of its policy entry.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple


class Mixed(NamedTuple):
    """The samples of a batch between two mixing steps.

    Attributes:
        image: float32 [b, h, w, 3], in [0, 1].
        boxes: float32 [b, n, 4], corners in pixels of `image`. A step may return more
            rows than it was given; the policy cuts them at the end.
        labels: int32 [b, n].
        valid: bool [b, n], False for padding, which may lie anywhere.
    """

    image: Any
    boxes: Any
    labels: Any
    valid: Any


class MixStep(NamedTuple):
    """One mixing augmentation with its hyper-parameters fixed.

    Attributes:
        num_draws: how many uniform numbers in [0, 1) it uses for a sample.
        mixes: whether it shows other samples of the batch; such steps are left out
            when `mosaic_on` is False.
        apply: `(sample: Mixed, draws [b, num_draws], applied [b], keys [b],
            image_size)` to the new `Mixed`; samples that are not `applied` stay as
            they are. `keys` are for numbers of pixels, one key a sample.
    """

    num_draws: int
    mixes: bool
    apply: Callable[..., Mixed]
