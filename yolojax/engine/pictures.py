"""The last training loss of each picture: which ones the network cannot learn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from yolojax.data.weighing import array_from_text, array_to_text

QUANTILES = {"q10": 0.1, "q50": 0.5, "q90": 0.9, "max": 1.0}


class PictureLosses:
    """The last finite loss of each picture of a source.

    It is that of the picture as it was augmented; with mosaic that of all pictures that
    were put beside it, too. The training step gives the losses of the whole batch to
    every host, so that all hosts hold the same.

    Args:
        length: pictures of the source.
        text: what `to_text` gave; empty: no picture was seen yet.

    Attributes:
        last: float32 [length], NaN for a picture that was not seen.
    """

    def __init__(self, length: int, text: str = ""):
        self.last = np.full(length, np.nan, np.float32)
        if text:
            self.last = array_from_text(text)
        if len(self.last) != length:
            raise ValueError(
                f"the run was begun with {len(self.last)} training pictures, now "
                f"there are {length}. Use another --workdir, or the same data"
            )

    def to_text(self) -> str:
        """The array in a form for JSON; empty where no picture was seen."""
        if not np.isfinite(self.last).any():
            return ""
        return array_to_text(self.last)

    def add(self, image_id: Any, losses: Any) -> None:
        """Note the losses of a batch.

        Args:
            image_id: int [b], index in the source; -1 is passed over.
            losses: [b]; those that are not finite are passed over.
        """
        image_id, losses = np.asarray(image_id), np.asarray(losses, np.float32)
        use = (image_id >= 0) & np.isfinite(losses)
        self.last[image_id[use]] = losses[use]

    def quantiles(self) -> dict[str, float]:
        """Quantiles over all pictures seen, for the log; empty before the first."""
        seen = self.last[np.isfinite(self.last)].astype(np.float64)
        if not len(seen):
            return {}
        found = np.quantile(seen, list(QUANTILES.values())).tolist()
        names = [f"loss/picture_{name}" for name in QUANTILES]
        return dict(zip(names, found, strict=True))

    def worst(self, count: int, among: Sequence[int] | np.ndarray) -> list[int]:
        """The pictures with the highest losses, highest first.

        Args:
            count: at most so many.
            among: indices of the source to choose from.
        """
        chosen = np.asarray(among, np.int64)
        chosen = chosen[np.isfinite(self.last[chosen])]
        order = np.argsort(-self.last[chosen], kind="stable")
        return chosen[order[:count]].tolist()
