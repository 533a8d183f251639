"""The numbers of trained networks, as the flags of `evaluate` ask for them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from yolojax import (
    class_report,
    classifying,
    ensembling,
    inference,
    network,
    outputs,
    predicting,
    settings,
)
from yolojax.automatic import memory_share
from yolojax.control import has_val
from yolojax.data.sources.base import PATHS
from yolojax.engine import checkpoint
from yolojax.engine.predictions import NAME as PREDICTIONS
from yolojax.engine.progress import counter
from yolojax.inference import Loaded

# Flags that decide the numbers besides those that change settings.
DECIDING = (
    *("augment", "scales", "merge", "merge_iou", "views", "plain_weight", "seed"),
)


def measure(given: Any) -> int:
    """Evaluate networks, one or several together.

    Args:
        given: the flags of `evaluate`.

    Returns:
        The exit code.

    Raises:
        ValueError: flags, networks or data that do not go together.
    """
    all_weights: list[str] = given.weights or [given.workdir]
    if not all_weights[0]:
        raise ValueError("give --workdir or --weights")
    predicting.check_flags(given)
    how = ensembling.asked_for(
        len(all_weights),
        augment=given.augment,
        scales=given.scales,
        merge=given["merge"].value,
        merge_iou=given.merge_iou,
    )
    output = output_of(given, all_weights)
    changes = _changes(given)
    change = _change_of(given, changes)
    members = [inference.load(weights, change) for weights in all_weights]
    for member in members:
        print(f"{member.model.name}, step {member.step} of {member.origin}", flush=True)
    classifies = network.is_classifier(members[0].settings)
    predicting.check_kind(given, classifies)
    output = _claim(given, all_weights, output, changes, members)
    if note := ensembling.fold_note(members):
        print(note, flush=True)
    lines = ["evaluation.json", "predictions.json"]
    with counter("pictures") as progress:
        if classifies:
            views = classifying.Views(given.views, given.plain_weight, given.seed)
            if note := classifying.views_note(members, views):
                print(note, flush=True)
            _, lines = classifying.evaluate_classifiers(
                members, views, output, progress
            )
        elif how is None:
            inference.evaluate_detector(members[0], output, progress)
        else:
            ensembling.evaluate_detectors(members, how, output, progress)
    print(f"written into {output}:")
    for line in lines:
        print(f"  {line}")
    return 0


def output_of(given: Any, all_weights: Sequence[str]) -> Path:
    """Where the results go: what a run's end wrote is only renewed by a plain call.

    Args:
        given: the flags of `evaluate`.
        all_weights: runs, checkpoints or files.

    Raises:
        ValueError: the first is a file, which says nothing about data, and there is no
            config.
    """
    return Path(given.output or _own_place(given, all_weights))


def _own_place(given: Any, all_weights: Sequence[str]) -> Path:
    """The place of results without `--output`; a plain call's is the run's folder."""
    weights = all_weights[0]
    merged = [given["merge"].value, "augment" if given.augment else ""]
    merged += ["views" if given.views else "", "ensemble" * (len(all_weights) > 1)]
    data_root = getattr(given, "data_root", None)
    folder = checkpoint.workdir_of(weights)
    if folder.is_file():
        if not given.config:
            raise ValueError(f"{weights} says nothing about data: give --config")
        folder, name = Path("runs", "evaluate"), Path(weights).stem
        parts = [name, given.split]
    else:
        changed = given.config or given.letterbox or data_root
        changed = changed or folder != Path(weights).resolve()
        name = f"evaluation_{Path(weights).resolve().name}" if changed else ""
        parts = [given.split or name]
    parts.append(Path(data_root).name if data_root else "")
    return folder / "_".join(filter(None, (*parts, given.letterbox, *merged)))


def _claim(
    given: Any,
    all_weights: Sequence[str],
    output: Path,
    changes: Mapping[str, Any],
    members: Sequence[Loaded],
) -> Path:
    """The output folder, checked before the data are read; see `outputs.claim`.

    A folder that is not asked for by name gets a number where another command, such as
    one with another config, has written there.
    """
    classifies = network.is_classifier(members[0].settings)
    names = class_report.FILES if classifies else ("evaluation.json", PREDICTIONS)
    asked = {
        "command": "evaluate",
        "weights": [os.path.abspath(path) for path in all_weights],
        "settings": {key: value for key, value in changes.items() if value is not None},
        **{name: given[name].value for name in DECIDING},
    }
    own = _own_place(given, all_weights)
    if not given.output and not _is_plain(own, all_weights):
        output = outputs.free_folder(output, asked, names)
    # What the run itself wrote there is of the same weights and images.
    renewed = _is_plain(own, all_weights) and output.resolve() == own.resolve()
    outputs.claim(
        output,
        asked,
        names,
        inputs=[*map(Path, all_weights), *_data_files(members[0].settings)],
        overwrite=given.overwrite,
        assumed=names if renewed else (),
    )
    return output


def _is_plain(place: Path, all_weights: Sequence[str]) -> bool:
    return place == checkpoint.workdir_of(all_weights[0])


def _data_files(chosen: Mapping[str, Any]) -> list[Path]:
    """The files of a data set that a config names."""
    data = chosen["data"]
    values = [data[part].get(key) for part in ("train", "val") for key in PATHS]
    texts = [value for value in values if isinstance(value, str)]
    return [Path(data["root"], text) for text in texts]


def _change_of(
    given: Any, changes: Mapping[str, Any]
) -> Callable[[dict[str, Any]], None]:
    """What the flags, and `_changes` of them, do to the settings of a run or a file."""
    change = inference.settings_changes(changes)

    def changed(chosen: dict[str, Any]) -> None:
        folds = chosen["data"]["folds"]["count"]
        change(chosen)
        if given.data_root and not (given.split or given.config or has_val(chosen)):
            # The data moved, and what is held out of them is all there is.
            chosen["data"]["folds"]["count"] = folds

    return changed


def _changes(given: Any) -> dict[str, Any]:
    """What the flags change in the settings of a run or a file, by dotted key."""
    changes = {
        "data.val.split": given.split,
        "data.root": given.data_root,
        "evaluate.letterbox": given.letterbox,
        # Other pictures than those that a fold was held out of.
        "data.folds.count": 0 if given.split or given.data_root else None,
    }
    if not given.config:
        return changes
    chosen = settings.complete(given.config.to_dict())
    keys = ["data", "evaluate", "image_size", "batch_size", "devices", "dtype"]
    if memory_share(chosen["batch_size"]) is not None:
        # What fits in training is not known here, nor needed.
        keys.remove("batch_size")
    return {key: chosen[key] for key in keys} | changes
