"""Classes of pictures, from one classifier or several, and from several views."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from yolojax import (
    datasets,
    ensembling,
    evaluating,
    inference,
    objectives,
    recipe,
)
from yolojax.data import pipeline
from yolojax.data.cache import NoCache
from yolojax.data.decode import decode_image
from yolojax.engine import classify, sharding
from yolojax.inference import DecodedPictures, Loaded
from yolojax.records import Stored


@dataclasses.dataclass(frozen=True)
class Views:
    """Test-time augmentation of a classifier.

    Attributes:
        count: augmented views of each picture; 0: the plain one alone.
        plain_weight: share of the plain view in the mean, in [0, 1]; the augmented
            ones have the rest.
        seed: decides the augmented ones.
    """

    count: int = 0
    plain_weight: float = 0.5
    seed: int = 0

    def __post_init__(self):
        if self.count < 0 or not 0 <= self.plain_weight <= 1:
            raise ValueError(
                "views are 0 or more, and the plain one's weight is from 0 to 1, not "
                f"{self.count} and {self.plain_weight}"
            )


def views_note(members: Sequence[Loaded], views: Views) -> str:
    """A line where views of a member show the picture itself; else empty."""
    for member in members:
        if views.count and not member.settings["augment"]["policy"]:
            return (
                f"{member.origin} was trained without augmentation "
                "(config.augment.policy): its views are the picture itself"
            )
    return ""


class ClassPredictor:
    """Probabilities of the classes of pictures of any size, a few at a time.

    The mean over several classifiers, each of which looks at pictures at its own size;
    and over views: the plain one, as in evaluation, and augmented ones by the policy
    that the classifier was trained with, without what mixes pictures, as at the end of
    its training.

    Args:
        members: the classifiers.
        batch_size: pictures that go through a network together.
        views: the views.

    Raises:
        ValueError: they do not know the same classes; see `ensembling.check_members`.
    """

    def __init__(
        self,
        members: Sequence[Loaded],
        *,
        batch_size: int,
        views: Views = Views(),  # noqa: B008
    ):
        ensembling.check_members(members)
        self.batch_size = batch_size
        self._members = [_Member(member, batch_size, views) for member in members]

    def __call__(self, pictures: Sequence[np.ndarray], first: int = 0) -> np.ndarray:
        """The probabilities of each picture.

        Args:
            pictures: uint8 RGB [h, w, 3], at most `batch_size`, of any sizes.
            first: the place of the first of them among all pictures: it decides what
                the augmented views show, not the size of the batches.

        Returns:
            float32 [n, c].
        """
        if not pictures:
            return np.zeros((0, self._members[0].num_classes), np.float32)
        found = [member.probabilities(pictures, first) for member in self._members]
        return np.asarray(np.mean(found, axis=0, dtype=np.float64), np.float32)


class _Member:
    """One classifier, ready on the device."""

    def __init__(self, loaded: Loaded, batch_size: int, views: Views):
        settings, model = loaded.settings, loaded.model
        self.num_classes = len(loaded.class_names)
        # One device: the pictures of a folder come one after the other.
        self._mesh = sharding.make_mesh(1)
        self._variables = sharding.put_replicated(loaded.variables, self._mesh)
        self._size = datasets.image_size_of(settings)
        self._threads = datasets.num_threads(settings)
        self._place = datasets.place_of(settings)
        self._batch_size, self._views = batch_size, views
        multi_label = objectives.is_multi_label(settings)
        self._step: Any = classify.make_probability_step(
            model,  # type: ignore[arg-type]
            self._mesh,
            multi_label=multi_label,
        )
        if not views.count:
            return
        augment = recipe.make_augmentation(settings, 1)

        @jax.jit
        def augmented(key: jax.Array, batch: Any, first: jax.Array) -> Any:
            rows = jax.numpy.arange(len(batch.image), dtype=jax.numpy.int32)
            return augment(
                key, Stored(batch, rows, first), mosaic_on=False, progress=1.0
            )[0]

        self._augmented = augmented

    def probabilities(self, pictures: Sequence[np.ndarray], first: int) -> np.ndarray:
        """Float32 [n, c]; see `ClassPredictor`."""
        count, weight = self._views.count, self._views.plain_weight
        if len(pictures) > self._batch_size:
            raise ValueError(f"at most {self._batch_size} pictures at a time")
        total = np.zeros((len(pictures), self.num_classes), np.float64)
        if not count or weight:
            plain = pipeline.make_eval_batches(
                DecodedPictures(pictures),
                range(len(pictures)),
                image_size=self._size,
                batch_size=self._batch_size,
                num_threads=self._threads,
                place=self._place,
            )
            total += (weight if count else 1.0) * self._run(next(iter(plain)))
        if count and weight < 1:
            [batch] = self._training_batches(pictures)
            on_device = sharding.put_batch(batch, self._mesh)
            start = np.int32(first)
            for view in range(count):
                key = jax.random.fold_in(jax.random.key(self._views.seed), view)
                shown = self._augmented(key, on_device, start)
                total += (1 - weight) / count * self._run(shown)
        return total.astype(np.float32)

    def _run(self, batch: Any) -> np.ndarray:
        """Probabilities of the batch's pictures, without its padding."""
        found = self._step(self._variables, sharding.put_batch(batch, self._mesh))
        there = np.asarray(jax.device_get(batch.image_id)) >= 0
        return np.asarray(jax.device_get(found), np.float64)[there]

    def _training_batches(self, pictures: Sequence[np.ndarray]) -> pipeline.EvalBatches:
        """A batch laid out as the augmentation takes it."""
        row = np.full((1, self._batch_size), -1, np.int64)
        row[0, : len(pictures)] = np.arange(len(pictures))
        layout = pipeline.training_layout(self._size, 1, NoCache())
        return pipeline.EvalBatches(
            DecodedPictures(pictures), row, [layout], num_threads=self._threads
        )


def evaluate_classifiers(
    members: Sequence[Loaded],
    views: Views,
    output: Path,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[dict[str, Any], list[str]]:
    """The numbers of classifiers, views, or both together, on `data.val` of the first.

    Args:
        members: the classifiers; each sees pictures at its own size.
        views: how they look at each picture.
        output: gets what `class_report.write_report` writes.
        progress: `progress(done, total)` in pictures.

    Returns:
        The numbers, printed too, and a line about each file.

    Raises:
        ValueError: no data, or other classes than the classifiers'.
    """
    ensembling.check_members(members)
    first, data = inference.labelled_data(members[0])
    conditions = inference.conditions(first)
    if len(members) == 1 and not views.count:
        return evaluating.evaluate_classifier(
            first.settings,
            first.model,  # type: ignore[arg-type]
            first.mesh,
            data,
            first.variables,
            first.class_names,
            output,
            conditions=conditions,
            progress=progress,
        )
    chosen, indices = first.settings, data.keep.tolist()
    batch_size = chosen["evaluate"]["batch_size"] or chosen["batch_size"]
    batch_size = min(batch_size, len(indices))
    predict = ClassPredictor(members, batch_size=batch_size, views=views)
    parts = []
    for start in range(0, len(indices), batch_size):
        some = indices[start : start + batch_size]
        pictures = [
            decode_image(example.image, decoding=example.decoding, may_shrink=True)
            for example in map(data.source.__getitem__, some)
        ]
        parts.append(predict(pictures, start))
        if progress is not None:
            progress(start + len(some), len(indices))
    probabilities = np.concatenate(parts)
    return evaluating.report_classes(
        probabilities,
        data,
        first.class_names,
        output,
        conditions=conditions
        | {"weights": [member.origin for member in members]}
        | {"views": dataclasses.asdict(views)},
    )
