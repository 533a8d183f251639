"""Pictures without labels in a classifier's training: `config.data.unlabelled`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh

from yolojax import datasets
from yolojax.data.pseudo import PseudoLabelled
from yolojax.data.report import Report
from yolojax.data.sources.joined import JoinedSource
from yolojax.datasets import Data
from yolojax.decoding import set_white
from yolojax.engine.classify import make_probability_step, predict_all


def check(settings: Mapping[str, Any], source: Any) -> None:
    """Check `data.unlabelled` and `data.pseudo_labels` against the training data.

    Args:
        settings: a complete config.
        source: that of `data.train`.

    Raises:
        ValueError: they do not go with the data, the cache or the stages.
    """
    if not settings["data"]["unlabelled"]:
        return
    if not hasattr(source, "multi_label"):
        raise ValueError(
            "config.data.unlabelled is for classifiers, but config.data.train has boxes"
        )
    if source.multi_label:
        raise ValueError(
            "config.data.unlabelled needs pictures with one label each: where a "
            "picture may have several, none is a label as well"
        )
    if settings["data"]["cache"] == "device":
        raise ValueError(
            "config.data.unlabelled needs config.data.cache 'encoded', 'disk' or "
            "'none': what the devices hold has the labels that it was stored with"
        )
    if any(stage.get("data_fraction", 1) < 1 for stage in settings["stages"]):
        raise ValueError(
            "config.data.unlabelled needs epochs of the same length; config.stages has "
            "a data_fraction below 1"
        )


def join(
    settings: Mapping[str, Any],
    data: Data,
    *,
    workdir: Path | None = None,
    progress: Any = None,
) -> Data:
    """The training data with the pictures of `data.unlabelled` behind them.

    To be called for what is trained on: after folds are held out, before
    `datasets.sampled`.

    Args:
        settings: a complete config, checked by `check`.
        data: the labelled pictures; their indices stay.
        workdir: where to remember what was read of which file.
        progress: `progress(done, total)`, called now and then.

    Returns:
        `data` itself where there are none.

    Raises:
        ValueError: anything wrong with `data.unlabelled`.
    """
    if not settings["data"]["unlabelled"]:
        return data
    check(settings, data.source)
    path = workdir / "scan_unlabelled.json" if workdir else None
    others = datasets.look_at_pictures(
        settings,
        datasets.open_source(settings, "unlabelled"),
        cache_path=path,
        progress=progress,
    )
    source = JoinedSource(data.source, others.source)
    report = Report()
    report.merge(data.report)
    report.merge(others.report)
    report.note("picture of data.unlabelled", len(others.keep))
    if text := _too_sure(settings, len(source.class_names)):
        report.note("pseudo-labels that will be rare", message=text)
    keep = np.concatenate([data.keep, others.keep + source.num_labelled])
    white = max(data.white, others.white)
    set_white([source], settings["data"]["white"] or white)
    return dataclasses.replace(
        data, source=source, keep=keep, report=report, white=white
    )


def _too_sure(settings: Mapping[str, Any], num_classes: int) -> str:
    """What to change where label smoothing aims below the threshold; else nothing."""
    smoothing = settings["loss"]["label_smoothing"]
    threshold = settings["data"]["pseudo_labels"]["threshold"]
    aim = 1 - smoothing * (num_classes - 1) / num_classes
    if threshold <= aim:
        return ""
    return (
        f"config.data.pseudo_labels.threshold is {threshold:g}, but label smoothing of "
        f"{smoothing:g} aims at a probability of {aim:.3g}: lower one of them"
    )


def pseudo_labelled(settings: Mapping[str, Any], batches: Any, data: Data) -> Any:
    """The training stream, with pseudo-labels where there is `data.unlabelled`.

    Args:
        settings: a complete config.
        batches: what the host gives, weighed or not.
        data: what is trained on, from `join`.
    """
    if not settings["data"]["unlabelled"]:
        return batches
    chosen = settings["data"]["pseudo_labels"]
    return PseudoLabelled(
        batches,
        unlabelled_of(data),
        len(data.source),
        threshold=chosen["threshold"],
        every_epochs=chosen["every_epochs"],
    )


def unlabelled_of(data: Data) -> np.ndarray:
    """int64: the pictures used that have no label, by their index in the source."""
    return data.keep[data.keep >= data.source.num_labelled]


def make_refresh(
    settings: Mapping[str, Any], model: Any, mesh: Mesh, data: Data, batches: Any
) -> Callable[[int, Any], dict[str, float]] | None:
    """What gives new pseudo-labels at the end of an epoch; compiles once.

    Args:
        settings: a complete config.
        model: the classifier.
        mesh: its devices.
        data: what is trained on, from `join`.
        batches: the training stream, from `pseudo_labelled`.

    Returns:
        `refresh(step, variables)`, to be called after the last step of every epoch
        with the number of steps done (as if every epoch had as many as the longest)
        and such variables as `state.ema`. In epochs that are not due it does nothing
        and gives {}; else what `PseudoLabelled.see_probabilities` gives, for the log.
        It costs a forward pass over the pictures without labels. None: there are none.
    """
    if not settings["data"]["unlabelled"]:
        return None
    step = make_probability_step(model, mesh, multi_label=False)
    others = dataclasses.replace(data, keep=unlabelled_of(data))
    pictures = datasets.make_eval_batches(settings, others, stride=1)

    def refresh(number: int, variables: Any) -> dict[str, float]:
        if not batches.due(number):
            return {}
        return batches.see_probabilities(
            *predict_all(step, variables, pictures, mesh=mesh)
        )

    return refresh
