"""Labels that the network itself gives to pictures without one: pseudo-labels.

They are written into a batch when it is handed out and not when it is prepared, so that
it has those of its step however many batches are prepared ahead. The labels are part of
the stream's state: a run that goes on goes on with them.

Source: Lee 2013, "Pseudo-Label: The Simple and Efficient Semi-Supervised Learning
Method for Deep Neural Networks", section 2.2; the threshold as in Sohn et al. 2020,
arXiv:2001.07685, section 2.3. Unlike in both the labels stand for whole epochs and are
given to the picture without augmentation.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from yolojax.data.weighing import array_from_text, array_to_text
from yolojax.records import Batch

NONE = -1


def labels_above(probabilities: np.ndarray, threshold: float) -> np.ndarray:
    """The likeliest class of each picture where it is likely enough, else -1.

    Args:
        probabilities: float [n, c], in [0, 1]. Rows that are not finite have no label.
        threshold: the least probability that counts.

    Returns:
        int32 [n].
    """
    probabilities = np.asarray(probabilities, np.float32)
    if not len(probabilities):
        return np.zeros(0, np.int32)
    fine = np.isfinite(probabilities).all(axis=1)
    # As float32, in which .95 of the network and of the config are the same.
    sure = fine & (probabilities.max(axis=1) >= np.float32(threshold))
    return np.where(sure, probabilities.argmax(axis=1), NONE).astype(np.int32)


def with_labels(batch: Batch, table: np.ndarray) -> Batch:
    """The batch with the labels of a table.

    Args:
        batch: on the host; it is left as it is.
        table: int32 [pictures of the source], -1 where the table says nothing; the
            picture then keeps what it has.

    Returns:
        The batch; a picture with a label of the table has this one alone, in its first
        row, and as its box the whole picture.
    """
    image_id = np.asarray(batch.image_id)
    # A padded row has -1, the last entry: it is not looked at.
    rows = np.flatnonzero((image_id >= 0) & (table[image_id] >= 0))
    if not len(rows):
        return batch
    boxes, labels, valid = (
        np.array(part) for part in (batch.boxes, batch.labels, batch.valid)
    )
    boxes[rows], labels[rows], valid[rows] = 0, 0, False
    # The picture lies at the top left.
    boxes[rows, 0, 2:] = np.asarray(batch.size)[rows, ::-1]
    labels[rows, 0] = table[image_id[rows]]
    valid[rows, 0] = True
    return batch._replace(boxes=boxes, labels=labels, valid=valid)


class PseudoLabelled(Iterator[Batch]):
    """A training stream whose pictures without labels get those of the network.

    Until probabilities are told they have none. It has what the stream has, `stats` and
    the others; it may wrap a `WeighedBatches`.

    Attributes:
        table: int32 [pictures of the source], the pseudo-labels; -1: none.
    """

    def __init__(
        self,
        batches: Any,
        unlabelled: np.ndarray,
        num_pictures: int,
        *,
        threshold: float,
        every_epochs: int = 1,
    ):
        """Wrap a stream.

        Args:
            batches: of pictures on the host, with `steps_per_epoch`.
            unlabelled: int64, the pictures without labels, by their index in the
                source.
            num_pictures: of the source.
            threshold: the least probability that makes a label.
            every_epochs: epochs from one refreshing to the next.
        """
        self._batches, self._unlabelled = batches, np.asarray(unlabelled, np.int64)
        self._threshold, self._every = threshold, every_epochs
        self.table = np.full(num_pictures, NONE, np.int32)

    def __next__(self) -> Batch:
        """The next batch, with the labels that are known now."""
        return with_labels(next(self._batches), self.table)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batches, name)

    def due(self, step: int) -> bool:
        """Whether the labels are to be refreshed after so many steps.

        Args:
            step: as if every epoch had as many steps as the longest.
        """
        return step > 0 and step % (self._every * self._batches.steps_per_epoch) == 0

    def see_probabilities(
        self, image_id: np.ndarray, probabilities: np.ndarray
    ) -> dict[str, float]:
        """Take new labels, which all later batches have.

        Call it between two steps, on every host with the probabilities of all
        pictures. Pictures without labels that are not told of lose theirs.

        Args:
            image_id: int [n], indices in the source; labelled ones are passed over.
            probabilities: float [n, c].

        Returns:
            For the log: `pseudo/labelled_share`, of the pictures without labels, and
            `pseudo/changed_share`, of those whose label is another than before.
        """
        before = self.table[self._unlabelled]
        found = np.full(len(self.table), NONE, np.int32)
        found[image_id] = labels_above(probabilities, self._threshold)
        self.table = np.full(len(self.table), NONE, np.int32)
        self.table[self._unlabelled] = now = found[self._unlabelled]
        count = max(len(now), 1)
        return {
            "pseudo/labelled_share": float((now >= 0).sum() / count),
            "pseudo/changed_share": float((now != before).sum() / count),
        }

    def get_state(self) -> dict[str, Any]:
        """As that of the stream, with the pseudo-labels."""
        # Whole numbers this small are exact.
        known = array_to_text(self.table.astype(np.float32))
        text = known if (self.table >= 0).any() else ""
        return {**self._batches.get_state(), "pseudo_labels": text}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on where `get_state` was called, or without pseudo-labels.

        Raises:
            ValueError: the labels are those of other pictures.
        """
        state = dict(state)
        table = np.full(len(self.table), NONE, np.int32)
        if text := state.pop("pseudo_labels", ""):
            table = array_from_text(text).astype(np.int32)
        if len(table) != len(self.table):
            raise ValueError(
                f"the checkpoint has pseudo-labels of {len(table)} training pictures, "
                f"but there are {len(self.table)} now. Use another --workdir, or the "
                "same data"
            )
        self.table = table
        self._batches.set_state(state)
