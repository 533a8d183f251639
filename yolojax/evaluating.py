"""From variables to their numbers on a data set, for detectors and classifiers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from yolojax import class_report, datasets, experiment
from yolojax.datasets import Data
from yolojax.engine import classify, evaluate
from yolojax.metrics.classification import format_classes
from yolojax.metrics.detection import GroundTruth, format_table
from yolojax.models.classifier import Classifier
from yolojax.models.network import Network

Evaluation = Callable[[Any], dict[str, Any]]


def make_evaluation(
    settings: Mapping[str, Any], model: Network, mesh: Mesh, data: Data
) -> Evaluation:
    """A function from variables to their numbers; compiles once.

    Those of a detector are COCO's and the published ones, those of a classifier those
    of `metrics.classification`.

    Args:
        settings: a complete config.
        model: the network.
        mesh: the devices.
        data: labelled pictures.
    """
    if isinstance(model, Classifier):
        probabilities = make_probabilities(settings, model, mesh, data)
        return lambda variables: class_report.report_numbers(
            probabilities(variables), data.source, data.keep
        )
    predict = experiment.make_predict(settings, model, mesh)
    batches = datasets.make_eval_batches(settings, data, stride=model.max_stride)
    truth = GroundTruth.from_source(data.source, data.keep)

    def evaluation(variables: Any) -> dict[str, Any]:
        metrics, _ = evaluate.evaluate(
            predict,
            variables,
            batches,
            data.source,
            data.keep,
            mesh=mesh,
            ground_truth=truth,
        )
        return metrics

    return evaluation


def make_probabilities(
    settings: Mapping[str, Any],
    model: Classifier,
    mesh: Mesh,
    data: Data,
    progress: Callable[[int, int], None] | None = None,
) -> Callable[[Any], np.ndarray]:
    """A function from variables to probabilities of classes; compiles once.

    Args:
        settings: a complete config.
        model: the classifier.
        mesh: the devices.
        data: pictures, with labels or without.
        progress: `progress(done, total)` in pictures.

    Returns:
        `probabilities(variables)`: float32 [n, c], in the order of `data.keep`.
    """
    step = experiment.make_predict(settings, model, mesh)
    batches = datasets.make_eval_batches(settings, data, stride=model.max_stride)
    total = len(data.keep)

    def tell(done: int) -> None:
        if progress is not None:
            progress(done, total)

    def probabilities(variables: Any) -> np.ndarray:
        numbers, found = classify.predict_all(
            step, variables, batches, mesh=mesh, progress=tell
        )
        row_of = {number: row for row, number in enumerate(numbers.tolist())}
        return found[[row_of[number] for number in data.keep.tolist()]]

    return probabilities


def evaluate_classifier(
    settings: Mapping[str, Any],
    model: Classifier,
    mesh: Mesh,
    data: Data,
    variables: Any,
    class_names: tuple[str, ...],
    output: Path,
    *,
    conditions: Mapping[str, Any] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[dict[str, Any], list[str]]:
    """A classifier's numbers, printed and written with pictures.

    Args:
        settings: a complete config.
        model: the classifier.
        mesh: the devices.
        data: labelled pictures.
        variables: parameters and batch statistics.
        class_names: names by label.
        output: gets what `class_report.write_report` writes.
        conditions: what the numbers are of, to be written with them.
        progress: `progress(done, total)` in pictures.

    Returns:
        The numbers, and a line about each file.
    """
    probabilities = make_probabilities(settings, model, mesh, data, progress)(variables)
    return report_classes(
        probabilities, data, class_names, output, conditions=conditions
    )


def report_classes(
    probabilities: np.ndarray,
    data: Data,
    class_names: tuple[str, ...],
    output: Path,
    *,
    conditions: Mapping[str, Any] | None = None,
) -> tuple[dict[str, Any], list[str]]:
    """The numbers of probabilities, printed and written; see `evaluate_classifier`.

    Args:
        probabilities: [n, c], in the order of `data.keep`.
        data: the pictures.
        class_names: names by label.
        output: gets the files.
        conditions: what the numbers are of.
    """
    metrics = class_report.report_numbers(probabilities, data.source, data.keep)
    print(format_numbers(metrics, class_names))
    if jax.process_index() > 0:
        return metrics, []
    lines = class_report.write_report(
        probabilities,
        data.source,
        data.keep,
        class_names,
        output,
        conditions=conditions,
    )
    return metrics, lines


def format_numbers(metrics: Mapping[str, Any], class_names: tuple[str, ...]) -> str:
    """The table of a detector's or a classifier's numbers."""
    if "mAP50_95" in metrics:
        return format_table(metrics, class_names)
    return format_classes(metrics, class_names)
