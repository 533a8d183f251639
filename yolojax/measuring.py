"""The numbers of trained networks, as the flags of `evaluate` ask for them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from yolojax import classifying, ensembling, inference, network, predicting, settings
from yolojax.automatic import memory_share
from yolojax.engine import checkpoint
from yolojax.engine.progress import counter


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
    change = inference.settings_changes(_changes(given))
    members = [inference.load(weights, change) for weights in all_weights]
    for member in members:
        print(f"{member.model.name}, step {member.step} of {member.origin}", flush=True)
    classifies = network.is_classifier(members[0].settings)
    predicting.check_kind(given, classifies)
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
    weights = all_weights[0]
    merged = [given["merge"].value, "augment" if given.augment else ""]
    merged += ["views" if given.views else "", "ensemble" * (len(all_weights) > 1)]
    folder = checkpoint.workdir_of(weights)
    if folder.is_file():
        if not given.config:
            raise ValueError(f"{weights} says nothing about data: give --config")
        folder, name = Path("runs", "evaluate"), Path(weights).stem
        parts = [name, given.split]
    else:
        changed = given.config or given.letterbox or folder != Path(weights).resolve()
        name = f"evaluation_{Path(weights).resolve().name}" if changed else ""
        parts = [given.split or name]
    name = "_".join(filter(None, (*parts, given.letterbox, *merged)))
    return Path(given.output or folder / name)


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
