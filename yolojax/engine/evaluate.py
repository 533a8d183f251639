"""From pictures to metrics: the jitted prediction step and the loop around it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, PartitionSpec

from yolojax.data.sources.base import Source
from yolojax.engine import sharding
from yolojax.metrics.curves import published_metrics
from yolojax.metrics.detection import GroundTruth, coco_metrics
from yolojax.models.classifier import Classifier
from yolojax.ops.nms import non_max_suppression
from yolojax.ops.views import PLAIN, View, boxes_from_view, view_of
from yolojax.records import Batch, Detections

Predict = Callable[[Any, Batch], Detections]
ValLoss = Callable[[Any, Batch], jax.Array]


class Detector(Protocol):
    """What is needed of a model."""

    def apply(
        self, variables: Any, images: Any, *, train: bool
    ) -> tuple[tuple[Any, ...], Any]: ...

    def decode(self, maps: Sequence[Any]) -> tuple[Any, Any, Any]: ...

    @property
    def max_stride(self) -> int: ...


def make_predict_step(
    model: Detector,
    mesh: Mesh,
    *,
    score_threshold: float = 0.001,
    iou_threshold: float = 0.6,
    max_detections: int = 300,
    max_candidates: int = 4096,
    class_aware: bool = True,
    multi_label: bool = True,
    views: Sequence[View] = (PLAIN,),
) -> Predict:
    """The jitted function from variables and a batch to what is found on it.

    The defaults are those of the published evaluation; see `non_max_suppression` for
    the thresholds and limits.

    Args:
        model: the detector.
        mesh: its devices; each takes an equal share of the batch and exchanges nothing.
        views: how each picture is looked at.

    Returns:
        `predict(variables, batch)`: detections in pixels of the original pictures,
        clipped to them; padded rows of the batch have none. Those of one view follow
        those of the other, to be merged. Of the batch only `image` (uint8), `size`,
        `origin` and `image_id` are read.
    """

    def see(variables, picture, view) -> Detections:
        shown = view_of(picture, view, stride=model.max_stride)
        maps, _ = model.apply(variables, shown, train=False)
        boxes, objectness, probabilities = model.decode(maps)
        found = non_max_suppression(
            boxes,
            objectness[:, :, None] * probabilities,
            score_threshold=score_threshold,
            iou_threshold=iou_threshold,
            max_detections=max_detections,
            max_candidates=max_candidates,
            class_aware=class_aware,
            multi_label=multi_label,
        )
        size = (picture.shape[1], picture.shape[2])
        return found._replace(boxes=boxes_from_view(found.boxes, view, size=size))

    def predict_share(variables, image, size, origin, image_id) -> Detections:
        picture = image.astype(jnp.float32) / jnp.float32(255)
        parts = [see(variables, picture, view) for view in views]
        found = jax.tree.map(lambda *rows: jnp.concatenate(rows, axis=1), *parts)
        valid = found.valid & (image_id >= 0)[:, None]
        boxes = to_original(found.boxes, size, origin)
        return Detections(
            boxes=jnp.where(valid[:, :, None], boxes, jnp.float32(0)),
            scores=jnp.where(valid, found.scores, jnp.float32(0)),
            labels=jnp.where(valid, found.labels, jnp.int32(0)),
            valid=valid,
        )

    # Mapped by hand, so that the loop of the suppression ends on each device by itself
    # instead of asking all others every round.
    row = PartitionSpec(sharding.AXIS)
    mapped = jax.shard_map(
        predict_share,
        mesh=mesh,
        in_specs=(PartitionSpec(), row, row, row, row),
        out_specs=row,
        check_vma=False,
    )
    jitted = jax.jit(mapped)

    def predict(variables: Any, batch: Batch) -> Detections:
        return jitted(variables, batch.image, batch.size, batch.origin, batch.image_id)

    return predict


def make_loss_step(model: Detector, loss: Callable[..., Any], mesh: Mesh) -> ValLoss:
    """The jitted function from variables and a batch to its loss a picture.

    Args:
        model: the detector.
        loss: `loss(maps, boxes, labels, valid)` -> sum over the batch, and its parts.
        mesh: the devices.

    Returns:
        `value(variables, batch)`: float32 [2], the loss a picture times the number of
        pictures, and that number. Padding counts as pictures without a box in the
        first, so that the last batch of a pass tells a little less. Those of a
        classifier cost nothing and do not count, as pictures without a label.
    """
    alone = isinstance(model, Classifier)

    def value(variables: Any, batch: Batch) -> jax.Array:
        picture = batch.image.astype(jnp.float32) / jnp.float32(255)
        maps, _ = model.apply(variables, picture, train=False)
        total, parts = loss(maps, batch.boxes, batch.labels, batch.valid)
        there = batch.image_id >= 0
        if alone:
            own = jnp.where(there, parts["per_picture"], 0.0)
            count = jnp.sum(there & (jnp.any(batch.valid, axis=1) | (own > 0)))
            return jnp.stack([jnp.sum(own), count.astype(jnp.float32)])
        count = jnp.sum(there).astype(jnp.float32)
        return jnp.stack([total / len(batch.image_id) * count, count])

    return jax.jit(value, out_shardings=sharding.replicated(mesh))


def mean_loss(
    value: ValLoss, variables: Any, batches: Iterable[Batch], *, mesh: Mesh
) -> float:
    """The mean loss of the pictures, as the network sees them when it is used.

    Args:
        value: from `make_loss_step`.
        variables: parameters and batch statistics.
        batches: the pictures, without augmentation; this process's share.
        mesh: that of `value`.
    """
    variables = sharding.put_replicated(variables, mesh)
    sums = [value(variables, sharding.put_batch(batch, mesh)) for batch in batches]
    total, count = np.sum(np.asarray(jax.device_get(sums), np.float64), axis=0)
    return float(total / count)


def make_own_loss_step(
    model: Detector, loss: Callable[..., Any], mesh: Mesh
) -> ValLoss:
    """The jitted function from variables and a batch to the loss of each picture alone.

    Unlike a picture's share of its batch's loss it does not grow with the number of
    boxes, so that it tells pictures apart which the network gets wrong.

    Args:
        model: the detector.
        loss: see `make_loss_step`.
        mesh: the devices.

    Returns:
        `values(variables, batch)`: float32 [b].
    """

    def alone(*arrays: Any) -> jax.Array:
        maps, *labels = jax.tree.map(lambda x: x[None], arrays)
        return loss(maps, *labels)[0]

    def values(variables: Any, batch: Batch) -> jax.Array:
        picture = batch.image.astype(jnp.float32) / jnp.float32(255)
        maps, _ = model.apply(variables, picture, train=False)
        return jax.vmap(alone)(maps, batch.boxes, batch.labels, batch.valid)

    return jax.jit(values, out_shardings=sharding.replicated(mesh))


def own_losses(
    values: ValLoss, variables: Any, batches: Iterable[Batch], *, mesh: Mesh
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Index in the source, -1 for padding, and loss of each picture, batch by batch.

    Args:
        values: from `make_own_loss_step`.
        variables: parameters and batch statistics.
        batches: the pictures, without augmentation.
        mesh: that of `values`.
    """
    variables = sharding.put_replicated(variables, mesh)
    for batch in batches:
        found = values(variables, sharding.put_batch(batch, mesh))
        yield np.asarray(batch.image_id), np.asarray(found)


def to_original(boxes: jax.Array, size: jax.Array, origin: jax.Array) -> jax.Array:
    """The boxes in pixels of the original pictures, clipped to them.

    Args:
        boxes: [b, k, 4], corners, in pixels of the batch's pictures.
        size: [b, 2], height and width of the part that holds the picture.
        origin: [b, 4], see `records.Batch`.
    """
    # Padded rows have no scale.
    scale = jnp.where(origin[:, :2] > 0, origin[:, :2], jnp.float32(1))
    scale, offset = scale[:, None, ::-1], origin[:, None, :1:-1]
    limits = size[:, None, ::-1].astype(jnp.float32) / scale
    low = (boxes[..., :2] - offset) / scale
    high = (boxes[..., 2:] - offset) / scale
    return jnp.concatenate(
        [jnp.clip(corner, 0, limits) for corner in (low, high)], axis=-1
    )


def evaluate(
    predict: Predict,
    variables: Any,
    batches: Iterable[Batch],
    source: Source,
    keep: Iterable[int],
    *,
    mesh: Mesh,
    ground_truth: GroundTruth | None = None,
    progress: Callable[[int], None] | None = None,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """COCO's and the published numbers of a detector on pictures of a source.

    Args:
        predict: from `make_predict_step`.
        variables: parameters and batch statistics.
        batches: the pictures, in any order and of any shapes; on several hosts, this
            process's share of each batch.
        source: where the labels and the pictures' sizes come from.
        keep: the indices of all pictures in `batches`.
        mesh: that of `predict`.
        ground_truth: the labels, where the caller has them from an earlier call.
        progress: is called with the number of pictures done.

    Returns:
        See `coco_metrics`, and under `published` see `published_metrics`; and the
        detections in the COCO results format, in the source's numbering of pictures
        and categories, in the order of `keep`.

    Raises:
        ValueError: the batches do not hold each picture once.
    """
    return evaluate_found(
        run_ahead(predict, variables, batches, mesh),
        ground_truth or GroundTruth.from_source(source, keep),
        progress,
    )


def evaluate_found(
    detections: Iterable[tuple[np.ndarray, Detections]],
    truth: GroundTruth,
    progress: Callable[[int], None] | None = None,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The numbers of what was found; see `evaluate`.

    Args:
        detections: picture indices, -1 for padding, and detections of each batch.
        truth: the labels of all pictures.
        progress: is called with the number of pictures done.

    Raises:
        ValueError: the batches do not hold each picture once.
    """
    results: list[dict[str, Any]] = []
    done: list[int] = []
    for image_id, found in detections:
        results.extend(coco_results(found, image_id, truth))
        done.extend(image_id[image_id >= 0].tolist())
        if progress is not None:
            progress(len(done))
    if sorted(done) != sorted(truth.indices.tolist()):
        raise ValueError(
            f"the batches should hold each of {len(truth.indices)} pictures once, but "
            f"hold {len(done)}, of which {len(set(done))} are different ones. Do all "
            "hosts read the same files, with the same NumPy on the same kind of CPU?"
        )
    # Stable: within a picture the best stay first.
    place = {number: row for row, number in enumerate(truth.image_ids)}
    results.sort(key=lambda row: place[row["image_id"]])
    return numbers_of(truth, results), results


def numbers_of(
    truth: GroundTruth, results: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """`coco_metrics` of such detections, and under `published` `published_metrics`."""
    metrics = coco_metrics(truth, results)
    metrics["published"] = published_metrics(truth, results)
    return metrics


def coco_results(
    found: Detections, image_id: np.ndarray, truth: GroundTruth
) -> list[dict[str, Any]]:
    """The detections of a batch as rows of the COCO results format.

    Args:
        found: NumPy arrays, in pixels of the original pictures.
        image_id: int [b], index of each picture in its source; -1 is passed over.
        truth: gives numbers and sizes of the pictures, and numbers of the classes.

    Returns:
        Rows with `image_id`, `category_id`, `bbox` (x y width height, clipped to the
        picture, in pixels) and `score`.
    """
    row_of = {int(index): row for row, index in enumerate(truth.indices)}
    results = []
    for picture, index in enumerate(image_id.tolist()):
        if index < 0:
            continue
        row = row_of[index]
        height, width = truth.sizes[row]
        valid = found.valid[picture]
        # To the pixel: the step knows the size only as far as float32 scales tell it.
        boxes = np.clip(
            found.boxes[picture][valid].astype(np.float64),
            0.0,
            np.asarray([width, height, width, height], np.float64),
        )
        boxes[:, 2:] -= boxes[:, :2]
        number = truth.image_ids[row]
        results.extend(
            {
                "image_id": number,
                "category_id": truth.category_ids[label],
                "bbox": box,
                "score": score,
            }
            for box, label, score in zip(
                boxes.tolist(),
                found.labels[picture][valid].tolist(),
                found.scores[picture][valid].tolist(),
                strict=True,
            )
        )
    return results


def run_ahead(
    predict: Callable[[Any, Batch], Any],
    variables: Any,
    batches: Iterable[Batch],
    mesh: Mesh,
) -> Iterator[tuple[np.ndarray, Any]]:
    """Picture indices and what is predicted of each batch, on the host.

    The next batch is under way before the last is fetched, so that the host decodes
    while the devices work.
    """
    variables = sharding.put_replicated(variables, mesh)
    waiting: tuple[Any, Any] | None = None
    for batch in batches:
        on_device = sharding.put_batch(batch, mesh)
        started = (on_device.image_id, predict(variables, on_device))
        if waiting is not None:
            yield _fetch(waiting)
        waiting = started
    if waiting is not None:
        yield _fetch(waiting)


def _fetch(tree: Any) -> Any:
    if jax.process_count() == 1:
        return jax.device_get(tree)
    return multihost_utils.process_allgather(tree, tiled=True)
