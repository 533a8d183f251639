"""Anchors of a config's network against the boxes of its data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from yolojax.automatic import AUTO, with_anchors
from yolojax.data import anchors as fitting
from yolojax.data.anchors import LEAST_RECALL, Fit
from yolojax.datasets import Data, image_size_of
from yolojax.models.model import Model


class Comparison(NamedTuple):
    """Fitted anchors beside those that a network has.

    Attributes:
        before: how well the network's own fit.
        after: how well the new ones do.
        anchors: float64 [levels, a, 2], the new ones, in pixels; the network's own
            where none were found that fit better.
        num_boxes: boxes that both are measured on.
        improved: whether the new ones are others.
    """

    before: Fit
    after: Fit
    anchors: np.ndarray
    num_boxes: int
    improved: bool


def sides_of(settings: Mapping[str, Any], data: Data) -> np.ndarray:
    """Sides of the boxes that training uses, float64 [n, 2], pixels of `image_size`."""
    return fitting.box_sides(
        (data.source[index] for index in data.keep.tolist()),
        image_size_of(settings),
        min_side=settings["augment"]["boxes"]["min_side"],
    )


def compare(
    settings: Mapping[str, Any], model: Model, data: Data, *, distance: str = "iou"
) -> Comparison:
    """Fit anchors to the boxes of a data set.

    They get fitter by what decides in training: the ratio of sides where a head can
    reach only so far (`Decoding.sizes` is square), and else IoU.

    Args:
        settings: a complete config; its seed decides the result.
        model: says how many anchors there are, and which ones it has.
        data: the pictures that are trained on.
        distance: of the clustering, an entry of `fitting.DISTANCES`.

    Raises:
        ValueError: a classifier; fewer boxes, or fewer different ones, than anchors.
    """
    if not isinstance(model, Model):
        raise ValueError(
            f"anchors are for detectors; config.model.name {model.name!r} is a "
            "classifier"
        )
    sides = sides_of(settings, data)
    if not len(sides):
        raise ValueError(f"no anchors from config.data.train: {_none_large(settings)}")
    ratio = settings["loss"]["anchor_ratio"]
    fitness = "ratio" if model.decoding.sizes == "square" else "iou"
    own = np.asarray(model.anchors, np.float64)
    try:
        found = fitting.fit_anchors(
            sides,
            own.shape[0] * own.shape[1],
            anchor_ratio=ratio,
            distance=distance,
            fitness=fitness,
            min_side=settings["augment"]["boxes"]["min_side"],
            seed=settings["seed"],
        ).reshape(own.shape)
    except ValueError as error:
        raise ValueError(f"no anchors from config.data.train: {error}") from error
    before, after = (
        fitting.measure(sides, anchors.reshape(-1, 2), ratio)
        for anchors in (own, found)
    )
    key = "fitness" if fitness == "ratio" else "mean_iou"
    improved = getattr(after, key) > getattr(before, key)
    if not improved:
        # As the float32 of the network are written, not as float64 has them.
        found = np.array([[[float(f"{s:g}") for s in p] for p in row] for row in own])
        after = before
    return Comparison(before, after, found, len(sides), improved)


def resolve(
    settings: dict[str, Any], model: Model, data: Data
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The config with numbers for `model.anchors`, and what to say about them.

    Args:
        settings: a complete config.
        model: its network; with its own anchors where they are `auto`.
        data: the pictures that are trained on.

    Returns:
        The settings, which are those given where nothing is `auto`, and lines of text.

    Raises:
        ValueError: see `compare`.
    """
    if settings["model"].get("anchors") != AUTO:
        return settings, advice(settings, model, data)
    found = compare(settings, model, data)
    anchors = tuple(tuple(map(tuple, level)) for level in found.anchors.tolist())
    before, after = found.before, found.after
    note = (
        f"anchors (auto, {found.num_boxes} boxes): best possible recall "
        f"{before.recall:.4f} -> {after.recall:.4f}, fitness {before.fitness:.4f} -> "
        f"{after.fitness:.4f}, mean IoU {before.mean_iou:.4f} -> {after.mean_iou:.4f}"
    )
    if not found.improved:
        note += "; none fit better than the model's own"
    model_settings = with_anchors(settings["model"], anchors)
    return {**settings, "model": model_settings}, (note,)


def advice(settings: Mapping[str, Any], model: Model, data: Data) -> tuple[str, ...]:
    """A line that says when anchors do not fit, and what to do; none when they do.

    Only heads that reach but so far from their anchors have such a limit.
    """
    if model.decoding.sizes != "square":
        return ()
    sides = sides_of(settings, data)
    if not len(sides):
        return (_none_large(settings),)
    ratio = settings["loss"]["anchor_ratio"]
    fit = fitting.measure(sides, np.asarray(model.anchors.reshape(-1, 2)), ratio)
    if fit.recall >= LEAST_RECALL:
        return ()
    return (
        f"the anchors do not fit: only {fit.recall:.1%} of {len(sides)} boxes have one "
        f"within a factor of {ratio:g} ({LEAST_RECALL:.0%} is enough). Set "
        "config.model.anchors='auto' in a new run, or see python -m yolojax.anchors",
    )


def _none_large(settings: Mapping[str, Any]) -> str:
    least, size = settings["augment"]["boxes"]["min_side"], image_size_of(settings)
    return (
        f"no box has both sides above config.augment.boxes.min_side={least:g} px in "
        f"pictures of {size[0]}x{size[1]}; raise config.image_size"
    )


def report(model: Model, found: Comparison, ratio: float) -> str:
    """A table of before and after, and the line for the config."""
    rows = (
        ("best possible recall", found.before.recall, found.after.recall),
        ("anchors per target", found.before.per_target, found.after.per_target),
        ("fitness", found.before.fitness, found.after.fitness),
        ("mean IoU", found.before.mean_iou, found.after.mean_iou),
    )
    lines = [
        f"{found.num_boxes} boxes, {found.anchors.size // 2} anchors of {model.name}, "
        f"in reach within a factor of {ratio:g}",
        f"{'':<22}{'before':>8}{'after':>8}",
        *(f"{name:<22}{before:>8.4f}{after:>8.4f}" for name, before, after in rows),
        "",
    ]
    if not found.improved:
        lines.append("none were found that fit better than those there are:")
    return "\n".join([*lines, fitting.config_line(found.anchors)])
