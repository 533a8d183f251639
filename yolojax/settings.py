"""Every key that a config may have, with its default; and the check of a config.

A config file lists all of these with its own values; what it leaves out is taken
from here, so that a config written for an older version goes on working.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from yolojax import changes, config_paths, hyperparameters
from yolojax.automatic import as_begun, read_batch_size, with_anchors
from yolojax.files import read_description, replace_text
from yolojax.json_files import read_json
from yolojax.lookup import hint
from yolojax.ops.letterbox import LETTERBOXES
from yolojax.yaml_text import shown

# Sections whose keys are the arguments of a component, and are checked there.
OPEN = (
    *("model", "data.train", "data.val", "data.unlabelled", "data.sampling"),
    *("augment.adversarial", "loss.arguments", "loss.parts"),
    *("optim.arguments", "optim.schedule_arguments", "optim.lookahead", "optim.sam"),
)

DEFAULTS: dict[str, Any] = {
    "seed": 0,
    "image_size": (640, 640),
    "batch_size": 16,
    "epochs": 300,
    "max_steps": 0,
    "max_hours": 0.0,
    "devices": 0,
    "dtype": "float32",
    "loss_scale": {"initial": 32768.0, "growth_steps": 2000},
    "model": {},
    "hyp": "",
    "init": {"weights": "", "skip": (), "kernels": "", "statistics": ""},
    "freeze": {"match": (), "layers": 0, "statistics": True},
    "stages": (),
    "data": {
        "root": "",
        "train": {},
        "val": {},
        "unlabelled": {},
        "pseudo_labels": {"threshold": 0.95, "every_epochs": 1},
        "folds": {"count": 0, "index": 0, "kind": "stratified", "groups": ""},
        "max_boxes": 0,
        "num_threads": 0,
        "white": 0,
        "decode_megabytes": 300.0,
        "cache": "none",
        "cache_bytes": 0,
        "cache_dir": "",
        "sampling": {"name": "shuffle", "fraction": 1.0},
        "strict": False,
        "allow_changes": False,
    },
    "augment": {
        "policy": (),
        "max_boxes": 0,
        "pool": 0,
        "close_mosaic_epochs": 0,
        "multi_scale": (),
        "boxes": {"min_side": 2.0, "min_share": 0.1, "max_aspect": 100.0},
        "adversarial": {},
    },
    "loss": {
        "name": "yolov5",
        "box": 0.05,
        "objectness": 1.0,
        "classes": 0.5,
        "anchor_ratio": 4.0,
        "label_smoothing": 0.0,
        "focal_gamma": 0.0,
        "scale_gains": True,
        "class_weights": (),
        "parts": {},
        "arguments": {},
    },
    "optim": {
        "name": "sgd",
        "learning_rate": 0.01,
        "final_ratio": 0.01,
        "schedule": "linear",
        "schedule_arguments": {},
        "momentum": 0.937,
        "weight_decay": 0.0005,
        "warmup_epochs": 3.0,
        "warmup_min_steps": 100,
        "warmup_bias_rate": 0.1,
        "warmup_momentum": 0.8,
        "clip_norm": 10.0,
        "nominal_batch": 64,
        "layer_decay": 1.0,
        "groups": (),
        "transforms": (),
        "lookahead": {},
        "sam": {},
        "arguments": {},
    },
    "ema": {"name": "ramp", "decay": 0.9999, "ramp": 2000.0},
    "swa": {"epochs": 0, "learning_rate": 0.0},
    "evaluate": {
        "every_epochs": 1,
        "batch_size": 0,
        "letterbox": "square",
        "score_threshold": 0.001,
        "iou_threshold": 0.6,
        "max_detections": 300,
        "max_candidates": 0,
        "multi_label": True,
    },
    "checkpoint": {"every_epochs": 1, "every_steps": 0, "keep": 2, "best": "fitness"},
    "early_stopping": {"patience": 0, "metric": "fitness", "min_change": 0.0},
    "log": {"every_steps": 10, "tensorboard": True, "pictures": 16, "worst": 50},
    "message": "",
}


# Smallest and largest sensible value of numbers; None: no limit on that side.
RANGES: dict[str, tuple[float | None, float | None]] = {
    "seed": (0, None),
    "batch_size": (1, None),
    "epochs": (1, None),
    "max_steps": (0, None),
    "max_hours": (0, None),
    "devices": (0, None),
    "loss_scale.initial": (1, None),
    "loss_scale.growth_steps": (1, None),
    "freeze.layers": (0, None),
    "data.pseudo_labels.threshold": (0, 1),
    "data.pseudo_labels.every_epochs": (1, None),
    "data.folds.count": (0, None),
    "data.folds.index": (0, None),
    "data.max_boxes": (0, None),
    "data.num_threads": (0, None),
    "data.white": (0, 65535),
    "data.decode_megabytes": (1, None),
    "data.cache_bytes": (0, None),
    "augment.max_boxes": (0, None),
    "augment.pool": (0, None),
    "augment.close_mosaic_epochs": (0, None),
    "augment.boxes.min_side": (0, None),
    "augment.boxes.min_share": (0, 1),
    "augment.boxes.max_aspect": (1, None),
    "loss.box": (0, None),
    "loss.objectness": (0, None),
    "loss.classes": (0, None),
    "loss.anchor_ratio": (1, None),
    "loss.label_smoothing": (0, 1),
    "loss.focal_gamma": (0, None),
    "optim.learning_rate": (0, None),
    "optim.final_ratio": (0, None),
    "optim.momentum": (0, 1),
    "optim.weight_decay": (0, None),
    "optim.warmup_epochs": (0, None),
    "optim.warmup_min_steps": (0, None),
    "optim.warmup_bias_rate": (0, None),
    "optim.warmup_momentum": (0, 1),
    "optim.clip_norm": (0, None),
    "optim.nominal_batch": (1, None),
    "optim.layer_decay": (0, 1),
    "ema.decay": (0, 1),
    "ema.ramp": (0, None),
    "swa.epochs": (0, None),
    "swa.learning_rate": (0, None),
    "evaluate.every_epochs": (0, None),
    "evaluate.batch_size": (0, None),
    "evaluate.score_threshold": (0, 1),
    "evaluate.iou_threshold": (0, 1),
    "evaluate.max_detections": (1, None),
    "evaluate.max_candidates": (0, None),
    "checkpoint.every_epochs": (0, None),
    "checkpoint.every_steps": (0, None),
    "checkpoint.keep": (1, None),
    "early_stopping.patience": (0, None),
    "early_stopping.min_change": (0, None),
    "log.every_steps": (1, None),
    "log.pictures": (0, None),
    "log.worst": (0, None),
}


# Files that a run writes after its config, and that others may call the same.
WRITTEN = (
    *("classes.json", "metrics.csv", "summary.json", "evaluation.json"),
    *("predictions.json", "mistakes.json", "worst.json"),
)

# Names that are not entries of a table, which checks its own.
CHOICES: dict[str, tuple[str, ...]] = {
    "evaluate.letterbox": LETTERBOXES,
    "data.folds.kind": ("plain", "stratified", "group"),
}


def complete(given: Mapping[str, Any]) -> dict[str, Any]:
    """The config as nested dicts, with defaults for what it leaves out.

    Raises:
        ValueError: an unknown key, a value of another kind than the default's, or a
            description that cannot be read.
    """
    settings = copy.deepcopy(DEFAULTS)
    _merge(settings, given, "")
    config_paths.expand(settings)
    _read_description(settings["model"])
    if path := settings["hyp"]:
        hyperparameters.apply(settings, path)
        # A run keeps the values and not the file's name.
        settings["hyp"] = ""
    lengths = [_get(stage, "epochs") for stage in settings["stages"]]
    if lengths and all(type(length) is int for length in lengths):
        settings["epochs"] = sum(lengths)
    return settings


def _get(value: Any, key: str) -> Any:
    return value.get(key) if isinstance(value, Mapping) else None


def from_json(text: str) -> dict[str, Any]:
    """The settings that a run wrote into its `config.json`."""
    return complete(_tuples(json.loads(text)))


def with_changes(
    settings: Mapping[str, Any], given: Mapping[str, Any]
) -> dict[str, Any]:
    """A complete config with other values by dotted key; see `changes.put`.

    Raises:
        ValueError: an unknown key, or a value of another kind than the default's.
    """
    return complete(changes.put(settings, given))


def read_config(workdir: Path) -> dict[str, Any]:
    """The settings in a run's `config.json`.

    Raises:
        ValueError: it is missing, damaged, or has keys or values that no config has.
    """
    path = workdir / "config.json"
    advice = (
        "Put it back from a copy; or move it away, and train with --config as at first"
    )
    content = read_json(path, advice=f"{advice}.")
    try:
        return complete(_tuples(content))
    except ValueError as error:
        raise ValueError(f"{path}: {error}. {advice}") from error


def _read_description(model: dict[str, Any]) -> None:
    """Take the text of `model.path` in, so that a run does not hang on the file."""
    path = model.get("path")
    if not path or model.get("description"):
        return
    try:
        model["description"] = read_description(path)
    except ValueError as error:
        raise ValueError(f"config.model.path {error}") from error


def _tuples(value: Any) -> Any:
    """JSON has no tuples: lists become tuples again."""
    if isinstance(value, list):
        return tuple(_tuples(v) for v in value)
    if isinstance(value, dict):
        return {k: _tuples(v) for k, v in value.items()}
    return value


def _merge(target: dict[str, Any], given: Mapping[str, Any], prefix: str) -> None:
    for key, value in given.items():
        path = f"{prefix}{key}"
        if key not in target:
            raise ValueError(
                f"the config has an unknown key {path!r}.{hint(key, target)} "
                f"Keys here: {', '.join(sorted(target))}"
            )
        default = target[key]
        if isinstance(default, dict):
            if not isinstance(value, Mapping):
                none = f"; for none: c.{path} = ConfigDict()" if path in OPEN else ""
                raise ValueError(
                    f"config.{path} must be a dict, not {shown(value)}{none}"
                )
            if path in OPEN:
                target[key] = _plain(value)
            else:
                _merge(default, value, f"{path}.")
        else:
            target[key] = _same_kind(path, value, default)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    return value


def _same_kind(path: str, value: Any, default: Any) -> Any:
    if path == "batch_size" and isinstance(value, str):
        value = read_batch_size(value)
        if isinstance(value, str):
            return value
    if isinstance(default, bool) or isinstance(value, bool):
        fits = isinstance(default, bool) and isinstance(value, bool)
    elif isinstance(default, float):
        fits = isinstance(value, (int, float))
        value = float(value) if fits else value
    elif isinstance(default, tuple):
        # One size for both sides; one preset is a policy, one rule gives all weights.
        kinds = {"image_size": int, "augment.policy": str, "loss.class_weights": str}
        one = kinds.get(path)
        if one is not None and isinstance(value, one):
            value = (value,)
        fits = isinstance(value, (tuple, list))
        value = tuple(_plain(v) for v in value) if fits else value
    else:
        fits = isinstance(value, type(default))
    if not fits:
        raise ValueError(
            f"config.{path} must be a {type(default).__name__} (as {default!r}), "
            f"not {shown(value)}"
        )
    if value not in CHOICES.get(path, (value,)):
        choices = CHOICES[path]
        raise ValueError(
            f"config.{path} must be one of {', '.join(choices)}, not {shown(value)}."
            f"{hint(str(value), choices)}"
        )
    low, high = RANGES.get(path, (None, None))
    if (low is not None and not value >= low) or (
        high is not None and not value <= high
    ):
        limits = f"at least {low}" if high is None else f"from {low} to {high}"
        raise ValueError(f"config.{path} must be {limits}, not {value}")
    return value


def check_folder(workdir: Path) -> None:
    """Check that the directory of a run is one, or may become one.

    Raises:
        ValueError: it is a file.
    """
    if workdir.exists() and not workdir.is_dir():
        raise ValueError(f"--workdir {workdir} is a file; give a directory")


def read_begun(workdir: Path) -> dict[str, Any] | None:
    """The config of the run in a directory; None where it holds none."""
    path = workdir / "config.json"
    return read_config(workdir) if path.exists() else None


def check_config(settings: Mapping[str, Any], workdir: Path) -> None:
    """Check that a run with these settings may start or go on in the directory.

    Raises:
        ValueError: the directory belongs to a run with another config, or has files
            from elsewhere that the run would write over.
    """
    check_folder(workdir)
    begun = read_begun(workdir)
    if begun is None:
        _check_strangers(workdir)
        return
    # What was found out for `auto` stands in the run's config.
    settings = as_begun(settings, begun)
    anchors = begun["model"].get("anchors")
    settings = {**settings, "model": with_anchors(settings["model"], anchors)}
    if differing := changes.refusal(begun, settings):
        raise ValueError(
            f"{workdir} holds a run with another config: {differing}. Use another "
            f"--workdir (--config.init.weights={workdir} starts from its weights), or "
            f"go on without the change: python -m yolojax.train --workdir {workdir}"
        )


def _check_strangers(workdir: Path) -> None:
    """Check a directory without `config.json`, the first file that a run writes."""
    there = [name for name in WRITTEN if (workdir / name).exists()]
    if there:
        raise ValueError(
            f"{workdir} holds no run, but {', '.join(there)}, which a run writes: "
            "use another --workdir, or move these away"
        )


def write_config(settings: Mapping[str, Any], workdir: Path) -> None:
    """Write `config.json`, after `check_config`.

    Raises:
        ValueError: the directory belongs to a run with another config.
    """
    check_config(settings, workdir)
    # Said for the one command: the next change is asked about again.
    data = {**settings["data"], "allow_changes": False}
    settings = {**settings, "data": data}
    # In one step: a run that is killed here must be able to read it again.
    text = json.dumps(settings, indent=1, sort_keys=True)
    replace_text(workdir / "config.json", text)
