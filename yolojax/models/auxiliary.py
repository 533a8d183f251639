"""A classifier with auxiliary heads, whose losses help early layers in training."""

from __future__ import annotations

import flax.linen as nn
import jax


class WithAuxiliary(nn.Module):
    """Pictures [b, h, w, 3] to logits [b, c]: the main ones, then auxiliary ones.

    The auxiliary heads run in training only. Their variables are there in any case.

    Attributes:
        backbone: from pictures to the maps of its stages, the auxiliary heads' last.
        head: from the maps of the stages to a tuple of logits, the main ones.
        auxiliary: from its maps to a tuple of logits, one for each.
        count: maps of the auxiliary heads.

    Source: Szegedy et al. 2015, arXiv:1409.4842, section 5.
    """

    backbone: nn.Module
    head: nn.Module
    auxiliary: nn.Module
    count: int

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> tuple[jax.Array, ...]:
        maps = self.backbone(images, train=train)  # type: ignore[operator]
        main = self.head(maps[: -self.count], train=train)  # type: ignore[operator]
        if not train and not self.is_initializing():
            return main
        return main + self.auxiliary(maps[-self.count :], train=train)  # type: ignore[operator]


def check_auxiliary(auxiliary: bool, name: str) -> None:
    """Check the argument that says whether there are auxiliary heads.

    Raises:
        ValueError: it is neither True nor False.
    """
    if not isinstance(auxiliary, bool):
        raise ValueError(
            f"auxiliary of {name} must be True or False, not {auxiliary!r}"
        )
