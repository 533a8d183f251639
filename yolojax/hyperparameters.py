"""YOLOv5's hyper-parameter files, read into a config.

A file sets what it lists and leaves the rest. Where it and the config differ, the file
has the last word. An augmentation whose values have no effect is left out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from yolojax.augment.policy import AUGMENTATIONS
from yolojax.augment.presets import PRESETS
from yolojax.augment.reading import expand
from yolojax.automatic import with_anchors
from yolojax.files import FileError, read_text
from yolojax.lookup import hint
from yolojax.models.detector import build_model
from yolojax.yaml_text import MAX_CHARACTERS, number_in, read_yaml, shown


class Value(NamedTuple):
    """What a published key sets, and its smallest and largest sensible value.

    `target` is a dotted key of the config, `augment.<name>.<argument>` for an entry of
    the policy, or empty where nothing here corresponds.
    """

    target: str
    low: float = 0.0
    high: float = math.inf


VALUES: dict[str, Value] = {
    "lr0": Value("optim.learning_rate"),
    "lrf": Value("optim.final_ratio"),
    "momentum": Value("optim.momentum", high=1),
    "weight_decay": Value("optim.weight_decay"),
    "warmup_epochs": Value("optim.warmup_epochs"),
    "warmup_momentum": Value("optim.warmup_momentum", high=1),
    "warmup_bias_lr": Value("optim.warmup_bias_rate"),
    "box": Value("loss.box"),
    "cls": Value("loss.classes"),
    "cls_pw": Value("loss.arguments.class_positive_weight"),
    "obj": Value("loss.objectness"),
    "obj_pw": Value("loss.arguments.objectness_positive_weight"),
    # Published, and without effect there, too.
    "iou_t": Value("", high=1),
    "anchor_t": Value("loss.anchor_ratio", low=1),
    "anchors": Value("", high=64),
    "fl_gamma": Value("loss.focal_gamma"),
    "label_smoothing": Value("loss.label_smoothing", high=1),
    "hsv_h": Value("augment.hsv.hue", high=1),
    "hsv_s": Value("augment.hsv.saturation", high=1),
    "hsv_v": Value("augment.hsv.value", high=1),
    "degrees": Value("augment.affine.degrees", high=180),
    "translate": Value("augment.affine.translate", high=1),
    "scale": Value("augment.affine.scale", high=0.99),
    "shear": Value("augment.affine.shear", high=80),
    "perspective": Value("augment.affine.perspective", high=0.01),
    "flipud": Value("augment.flip_up_down.probability", high=1),
    "fliplr": Value("augment.flip_left_right.probability", high=1),
    "mosaic": Value("augment.mosaic.probability", high=1),
    "mixup": Value("augment.mixup.probability", high=1),
    # The published share of a picture's objects is here that of another picture's.
    "copy_paste": Value("augment.copy_paste.share", high=1),
}


# Arguments of an augmentation whose defaults have an effect.
_ARGUMENTS = {
    "affine": ("scale", "translate"),
    "hsv": ("hue", "saturation", "value"),
}


def read_hyperparameters(path: str | Path) -> dict[str, float]:
    """The numbers of a file by their published keys.

    Raises:
        ValueError: it cannot be read, has unknown keys (all are named), a value that
            is no number or out of range, or one above 0 for what there is not here.
    """
    where = f"config.hyp {path}"
    try:
        text = read_text(path, limit=MAX_CHARACTERS, errors="replace")
    except FileError as error:
        raise ValueError(f"{where}: {error.reason}") from error
    content = read_yaml(text, where)
    if not isinstance(content, dict):
        raise ValueError(
            f"{where}: expected keys and numbers (lr0: 0.01), got {shown(content)}"
        )
    unknown = [
        f"{shown(key)}.{hint(str(key)[:60], VALUES)}"
        for key in content
        if key not in VALUES
    ]
    if unknown:
        raise ValueError(
            f"{where}: {len(unknown)} unknown keys: {' '.join(unknown[:20])} "
            f"Known: {', '.join(VALUES)}"
        )
    return {key: _checked(key, content[key], where) for key in content}


def apply(settings: dict[str, Any], path: str | Path) -> None:
    """Set in a complete config what a file says.

    Args:
        settings: changed in place.
        path: the file.

    Raises:
        ValueError: as `read_hyperparameters`, or the file counts other anchors than
            the model has.
    """
    values = read_hyperparameters(path)
    augmentations: dict[str, dict[str, float]] = {}
    for key, number in values.items():
        target = VALUES[key].target
        if target.startswith("augment."):
            _, name, argument = target.split(".")
            augmentations.setdefault(name, {})[argument] = number
        elif target:
            _set(settings, target, number)
    policy = settings["augment"]["policy"]
    settings["augment"]["policy"] = _policy(policy, augmentations)
    if values.get("anchors"):
        _check_anchors(settings["model"], round(values["anchors"]), path)


def _checked(key: str, given: Any, where: str) -> float:
    """A key's number, in its range."""
    number, (target, low, high) = number_in(given), VALUES[key]
    if number is None or not low <= number <= high or not math.isfinite(number):
        limits = f"at least {low:g}" if high == math.inf else f"{low:g} to {high:g}"
        raise ValueError(
            f"{where}: {key} must be a number, {limits}, not {shown(given)}"
        )
    parts = target.split(".")
    if parts[0] == "augment" and number and parts[1] not in AUGMENTATIONS:
        raise ValueError(
            f"{where}: {key} is {number:g}, but there is no {parts[1]} here yet; set "
            f"{key} to 0"
        )
    return float(number)


def _set(settings: dict[str, Any], target: str, number: float) -> None:
    *parents, last = target.split(".")
    node = settings
    for parent in parents:
        node = node[parent]
    if parents == ["loss", "arguments"] and number == 1:
        # Such a weight changes nothing, and not every loss takes one.
        node.pop(last, None)
    else:
        node[last] = number


def _policy(
    policy: Sequence[Mapping[str, Any]], changes: Mapping[str, Mapping[str, float]]
) -> tuple[Mapping[str, Any], ...]:
    """The policy with entries of a file; what a file says nothing of stays."""
    entries: list[Mapping[str, Any]] = []
    missing = dict(changes)
    for entry in expand(policy, PRESETS) if changes else policy:
        arguments = missing.pop(_name(entry), None)
        if arguments is not None:
            # Published, a file's values are for every picture.
            entry = {**entry, "probability": 1.0, **arguments}
        entries.append(entry)
    for name, arguments in missing.items():
        # Arguments that neither says have no effect, whatever their defaults.
        zeros = {key: 0.0 for key in _ARGUMENTS.get(name, ())}
        entries.append({"name": name, **zeros, **arguments})
    return tuple(e for e in entries if _name(e) not in changes or not _is_idle(e))


def _name(entry: Any) -> str:
    return entry.get("name", "") if isinstance(entry, Mapping) else ""


def _is_idle(entry: Mapping[str, Any]) -> bool:
    """Whether an augmentation has no effect."""
    rest = {k: v for k, v in entry.items() if k not in ("name", "probability")}
    return not entry.get("probability", 1.0) or (bool(rest) and not any(rest.values()))


def _check_anchors(model: Mapping[str, Any], count: int, path: str | Path) -> None:
    """Check how many anchors a level has, where the model can be built yet."""
    try:
        built = build_model(**{**with_anchors(model, None), "num_classes": 1})
    except (TypeError, ValueError):
        # Whatever is wrong with the model is said where it is built.
        return
    there = built.anchors.shape[1]
    if count != there:
        raise ValueError(
            f"config.hyp {path}: anchors is {count}, but {built.name} has {there} "
            f"anchors on each level; set config.model.anchors, and anchors to {there}"
        )
