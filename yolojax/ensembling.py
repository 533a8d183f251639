"""Several detectors, or several views of each picture, used as one detector."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from yolojax import datasets, experiment, inference, lookup, network, objectives
from yolojax.engine import evaluate, merging
from yolojax.inference import Found, Loaded, Predictor
from yolojax.metrics.detection import GroundTruth
from yolojax.ops.views import PLAIN, USUAL, View


@dataclasses.dataclass(frozen=True)
class Merging:
    """How detectors look, and how what they find becomes one.

    Attributes:
        views: how each of them looks at each picture.
        name: an entry of `engine.merging.MERGES`.
        iou: overlap above which boxes of a class are one object; None: that of the
            detectors' own suppression and, for weighted box fusion, at least .55.
    """

    views: tuple[View, ...] = USUAL
    name: str = "wbf"
    iou: float | None = None

    def __post_init__(self):
        lookup.pick(merging.MERGES, self.name, "merge")
        if not self.views:
            raise ValueError("a detector needs at least one view")
        if self.iou is not None and not 0 <= self.iou <= 1:
            raise ValueError(f"the iou of a merge is from 0 to 1, not {self.iou}")

    def make(
        self, num_members: int, *, score_threshold: float, iou_threshold: float, **more
    ) -> merging.Merge:
        """The merge of so many detectors; see `merging.make_merge`."""
        own = iou_threshold
        if self.name == "wbf":
            # Below that of the suppression it would fuse what a view keeps apart: .5604
            # and .3528 on COCO128 instead of .5614 and .3655.
            own = max(own, merging.FUSION_IOU)
        return merging.make_merge(
            self.name,
            num_parts=num_members * len(self.views),
            score_threshold=score_threshold,
            iou_threshold=own if self.iou is None else self.iou,
            **more,
        )

    def part_threshold(self, num_members: int, score_threshold: float) -> float:
        """From which score on a view's boxes matter; see `merging.part_threshold`."""
        num_parts = num_members * len(self.views)
        return merging.part_threshold(self.name, score_threshold, num_parts)


def parse_views(texts: Sequence[str]) -> tuple[View, ...]:
    """Views from their scales, with an `m` behind where they are mirrored.

    `("1", "0.83m", "0.67")` are the usual ones.

    Raises:
        ValueError: anything else, or a scale that is not above 0 and at most 4.
    """
    views = []
    for text in texts:
        found = re.fullmatch(r"\s*(\d+\.?\d*|\.\d+)(m?)\s*", text)
        if not found or not 0 < float(found[1]) <= 4:
            raise ValueError(
                f"no view {text!r}: give a scale above 0 and at most 4, with m behind "
                "it for mirrored pictures, as 1,0.83m,0.67"
            )
        views.append(View(float(found[1]), bool(found[2])))
    return tuple(views)


def kind_of(member: Loaded) -> str:
    """What a network is, in words."""
    if not network.is_classifier(member.settings):
        return "a detector"
    several = objectives.is_multi_label(member.settings)
    return f"a classifier of {'several labels' if several else 'one label'}"


def check_members(members: Sequence[Loaded]) -> None:
    """Check that networks can be asked together.

    Raises:
        ValueError: they are not all detectors, or all classifiers of one label or of
            several; or do not tell the same classes apart, in the same order.
    """
    first = members[0]
    for other in members[1:]:
        kinds = [kind_of(member) for member in (first, other)]
        if kinds[0] != kinds[1]:
            raise ValueError(
                f"networks of an ensemble must be of one kind: {first.origin} is "
                f"{kinds[0]}, {other.origin} is {kinds[1]}"
            )
        if other.class_names != first.class_names:
            raise ValueError(
                f"networks of an ensemble must know the same classes in the same "
                f"order: {first.origin} knows {lookup.listed(first.class_names)}; "
                f"{other.origin} knows {lookup.listed(other.class_names)}"
            )


def fold_note(members: Sequence[Loaded]) -> str | None:
    """A line about members that have trained on what the first one is judged on."""
    first = members[0].settings["data"]["folds"]
    if not first["count"]:
        return None
    trained = [
        member.origin
        for member in members[1:]
        if member.settings["data"]["folds"] != first
    ]
    if not trained:
        return None
    return (
        f"note: the pictures are those that fold {first['index']} left out, and "
        f"{', '.join(trained)} may have trained on them: the numbers flatter the "
        "ensemble. --split or --data_root take other pictures"
    )


class MergedPredictor:
    """Finds objects as a `Predictor` does, with several detectors, views, or both.

    Args:
        members: the detectors; each sees pictures at its own size.
        how: their views, and how what they find is merged.
        score_threshold: what is less sure in the end is left out.
        iou_threshold: overlap above which the less sure box of a class goes in what a
            detector finds on a view.
        batch_size: pictures that go through the networks together.

    Raises:
        ValueError: see `check_members`.
    """

    def __init__(
        self,
        members: Sequence[Loaded],
        how: Merging,
        *,
        score_threshold: float,
        iou_threshold: float,
        batch_size: int,
    ):
        check_members(members)
        self.batch_size = batch_size
        self._predictors = [
            Predictor(
                member,
                score_threshold=how.part_threshold(len(members), score_threshold),
                iou_threshold=iou_threshold,
                batch_size=batch_size,
                views=how.views,
            )
            for member in members
        ]
        self._merge = how.make(
            len(members), score_threshold=score_threshold, iou_threshold=iou_threshold
        )

    def __call__(self, pictures: Sequence[np.ndarray]) -> list[Found]:
        """What is found on each picture; see `Predictor`."""
        if not pictures:
            return []
        # A last group that is smaller needs no compile of its own.
        short = max(0, self.batch_size - len(pictures))
        filled = [*pictures, *[pictures[-1]] * short]
        found = self._merge(
            [predictor.detect(filled) for predictor in self._predictors]
        )
        return [inference.rows_of(found, i) for i in range(len(pictures))]


def evaluate_detectors(
    members: Sequence[Loaded],
    how: Merging,
    output: Path,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """The numbers of detectors, views, or both together; see `evaluate_detector`.

    Args:
        members: the detectors. Data, batches and thresholds are the first one's; each
            sees pictures at its own size.
        how: their views, and how what they find is merged.
        output: gets evaluation.json and predictions.json.
        progress: `progress(done, total)` in pictures.

    Raises:
        ValueError: no data, or other classes than the detectors'.
    """
    check_members(members)
    first, data = inference.labelled_data(members[0])
    chosen = first.settings["evaluate"]
    total = len(data.keep)
    shared = ("data", "evaluate", "batch_size")
    least = how.part_threshold(len(members), chosen["score_threshold"])
    passes = []
    for member in members:
        settings = member.settings | {key: first.settings[key] for key in shared}
        passes.append(
            evaluate.run_ahead(
                experiment.make_predict(
                    settings,
                    member.model,
                    first.mesh,
                    score_threshold=least,
                    views=how.views,
                ),
                member.variables,
                datasets.make_eval_batches(
                    settings, data, stride=member.model.max_stride
                ),
                first.mesh,
            )
        )
    merge = how.make(
        len(members),
        score_threshold=chosen["score_threshold"],
        iou_threshold=chosen["iou_threshold"],
        max_detections=chosen["max_detections"],
    )
    metrics, results = evaluate.evaluate_found(
        merging.merge_passes(passes, merge),
        GroundTruth.from_source(data.source, data.keep),
        functools.partial(_report, progress, total) if progress else None,
    )
    evaluated = inference.conditions(first) | {
        "weights": [member.origin for member in members],
        "views": [view._asdict() for view in how.views],
        "merge": how.name,
        "merge_iou": how.iou,
    }
    inference.write_evaluation(metrics, results, output, first, data, evaluated)
    return metrics


def _report(progress: Callable[[int, int], None], total: int, done: int) -> None:
    progress(done, total)


def asked_for(
    num_weights: int,
    *,
    augment: bool,
    scales: Sequence[str] | None,
    merge: str | None,
    merge_iou: float | None,
) -> Merging | None:
    """How to merge, as the flags of a command say; None: there is nothing to merge.

    Args:
        num_weights: how often `--weights` was given.
        augment: whether pictures are looked at in several views.
        scales: these, see `parse_views`; None: the usual ones.
        merge: the name of the merge; None: weighted box fusion.
        merge_iou: its overlap.

    Raises:
        ValueError: a wrong value, or one that nothing uses.
    """
    if scales and not augment:
        raise ValueError("--scales are those of --augment: give it, too")
    if num_weights < 2 and not augment:
        if merge is not None or merge_iou is not None:
            raise ValueError(
                "--merge is for several views or networks: add --augment, or --weights "
                "once more"
            )
        return None
    views = (parse_views(scales) if scales else USUAL) if augment else (PLAIN,)
    return Merging(views, "wbf" if merge is None else merge, merge_iou)
