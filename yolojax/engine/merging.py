"""What several views and networks find on the same pictures, made one."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from yolojax import lookup
from yolojax.ops.fusion import weighted_box_fusion
from yolojax.ops.nms import suppress_found
from yolojax.records import Detections

Merge = Callable[[Sequence[Detections]], Detections]
Found = tuple[np.ndarray, Detections]

MERGES: dict[str, Callable[..., Detections]] = {
    "wbf": weighted_box_fusion,
    "nms": suppress_found,
}
# That of weighted box fusion's paper.
FUSION_IOU = 0.55


def part_threshold(name: str, score_threshold: float, num_parts: int) -> float:
    """The score from which boxes of a single view matter to the merged ones.

    A fused score is at most a mean over the views: what lies below this in each of them
    never makes up a box of `score_threshold`.

    Raises:
        ValueError: no such way to merge.
    """
    lookup.pick(MERGES, name, "merge")
    return score_threshold / num_parts if name == "wbf" else score_threshold


def make_merge(
    name: str,
    *,
    num_parts: int,
    score_threshold: float,
    iou_threshold: float,
    max_detections: int = 300,
) -> Merge:
    """The function from what each network finds on a batch to what all of them find.

    Args:
        name: an entry of `MERGES`.
        num_parts: views of a picture, over all networks.
        score_threshold: what is less sure in the end is left out.
        iou_threshold: above which boxes of a class are one object.
        max_detections: boxes kept a picture, k of the result.

    Returns:
        `merge(parts)`: detections, best first, of NumPy arrays.

    Raises:
        ValueError: no such way to merge, or a number out of range.
    """
    chosen = lookup.pick(MERGES, name, "merge")
    if num_parts < 1 or not 0 <= iou_threshold <= 1:
        raise ValueError(
            "a merge needs at least one view and an iou from 0 to 1, not "
            f"{num_parts} and {iou_threshold}"
        )
    more = {"num_models": num_parts} if name == "wbf" else {}
    merge_rows = functools.partial(
        chosen, iou_threshold=iou_threshold, max_detections=max_detections, **more
    )

    @jax.jit
    def merged(parts: Sequence[Detections]) -> Detections:
        rows = jax.tree.map(lambda *x: jax.numpy.concatenate(x, axis=1), *parts)
        return merge_rows(rows.boxes, rows.scores, rows.labels, rows.valid)

    def merge(parts: Sequence[Detections]) -> Detections:
        found = jax.device_get(merged(list(parts)))
        # Fused scores are below those of their members.
        return found._replace(valid=found.valid & (found.scores > score_threshold))

    return merge


def merge_passes(passes: Iterable[Iterable[Found]], merge: Merge) -> Iterator[Found]:
    """Picture indices and merged detections of each batch.

    Args:
        passes: for each network its pictures' indices and detections, batch by batch,
            in the same order.
        merge: from `make_merge`.

    Raises:
        ValueError: the batches do not hold the same pictures.
    """
    for found in zip(*passes, strict=True):
        image_id: Any = found[0][0]
        if any(not np.array_equal(ids, image_id) for ids, _ in found):
            raise ValueError("the networks should see the same pictures in each batch")
        yield image_id, merge([detections for _, detections in found])
