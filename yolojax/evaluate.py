"""Numbers of a trained network: the COCO table of a detector and one row a class.

Below it the numbers by the rules of YOLOv5 and VOC-2007; precision, recall and F1. Of a
classifier accuracy, precision, recall, F1 and calibration, with plots.

    python -m yolojax.evaluate --workdir runs/x
    python -m yolojax.evaluate --workdir runs/bccd --split test
    python -m yolojax.evaluate --weights runs/x/checkpoints/1200 --config configs/x.py
    python -m yolojax.evaluate --weights yolov5n.pt --config configs/coco128.py
    python -m yolojax.evaluate --workdir runs/x --letterbox rectangular
    python -m yolojax.evaluate --workdir runs/x --augment
    python -m yolojax.evaluate --weights runs/x --weights runs/y --merge wbf

--augment looks at pictures in several sizes, also mirrored; what these and several
--weights find is merged by weighted box fusion or suppression. Classifiers: --views 5
looks at augmented pictures, too; the mean of all counts.

Without --config the run's own config is taken; a file has none. Writes
evaluation.json and predictions.json (COCO results format) into --output, by default
the (first) workdir; with --split, --config, --letterbox, --augment, --views, several
--weights or one checkpoint a folder in it; for a file runs/evaluate/<its name>.
"""

from pathlib import Path

from absl import flags

from yolojax import command

flags.DEFINE_string("workdir", None, "Directory of the run whose weights to evaluate.")
flags.DEFINE_multi_string(
    "weights",
    None,
    "A workdir, one of its checkpoints, or a .pt, .safetensors or .weights file; "
    "repeatable: an ensemble.",
)
flags.DEFINE_string("split", None, "Another split of the same source, as test.")
flags.DEFINE_string("data_root", None, "Another place of the data: data.root.")
flags.DEFINE_enum(
    "letterbox",
    None,
    ["square", "rectangular"],
    "How pictures lie in a batch: evaluate.letterbox.",
)
flags.DEFINE_string("output", None, "Where the JSON files go.")
command.define_merging()
command.define_views()


def main() -> int:
    """Evaluate as the flags say."""
    from yolojax import (
        classifying,
        ensembling,
        inference,
        network,
        predicting,
        settings,
    )
    from yolojax.automatic import memory_share
    from yolojax.engine import checkpoint
    from yolojax.engine.progress import counter

    given = command.FLAGS
    all_weights = given.weights or [given.workdir]
    weights = all_weights[0]
    if not weights:
        raise ValueError("give --workdir or --weights")
    predicting.check_flags(given)
    how = ensembling.asked_for(len(all_weights), **command.merging())
    merged = [given.merge] + ["augment"] * given.augment + ["views"] * (given.views > 0)
    merged += ["ensemble"] * (len(all_weights) > 1)
    folder = checkpoint.workdir_of(weights)
    if folder.is_file():
        if not given.config:
            raise ValueError(f"{weights} says nothing about data: give --config")
        folder, name = Path("runs", "evaluate"), Path(weights).stem
        name = "_".join(filter(None, (name, given.split, given.letterbox, *merged)))
    else:
        # The run's own results stay what its end wrote: only a plain call renews them.
        changed = given.config or given.letterbox or folder != Path(weights).resolve()
        name = f"evaluation_{Path(weights).resolve().name}" if changed else ""
        parts = (given.split or name, given.letterbox, *merged)
        name = "_".join(filter(None, parts))
    output = Path(given.output or folder / name)
    changes = {
        "data.val.split": given.split,
        "data.root": given.data_root,
        "evaluate.letterbox": given.letterbox,
        # Other pictures than those that a fold was held out of.
        "data.folds.count": 0 if given.split or given.data_root else None,
    }
    if given.config:
        chosen = settings.complete(given.config.to_dict())
        keys = ["data", "evaluate", "image_size", "batch_size", "devices", "dtype"]
        if memory_share(chosen["batch_size"]) is not None:
            # What fits in training is not known here, nor needed.
            keys.remove("batch_size")
        changes = {key: chosen[key] for key in keys} | changes
    change = inference.settings_changes(changes)
    members = [inference.load(each, change) for each in all_weights]
    for member in members:
        print(f"{member.model.name}, step {member.step} of {member.origin}", flush=True)
    classifies = network.is_classifier(members[0].settings)
    predicting.check_kind(given, classifies)
    lines = ["evaluation.json", "predictions.json"]
    with counter("pictures") as progress:
        if classifies:
            views = classifying.Views(given.views, given.plain_weight, given.seed)
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


if __name__ == "__main__":
    command.define_config(required=False)
    command.run(main, usage=__doc__)
