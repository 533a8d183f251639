"""Anchors for the boxes of a data set: k-means, then evolution; before and after.

    python -m yolojax.anchors --config configs/bccd.py --config.data.root=/data/bccd
    python -m yolojax.anchors --config C --output anchors.json --kmeans ratio

Prints how well those of the config and the new ones fit, and the line for the config.
Reads labels, not pictures. `c.model.anchors = "auto"` does the same before training.
"""

from pathlib import Path

from absl import flags

from yolojax import command

flags.DEFINE_enum(
    "kmeans", "iou", ["iou", "ratio"], "The distance of boxes for the clustering."
)
flags.DEFINE_string("output", None, "A JSON file for anchors and measures.")


def main() -> int:
    """Print what the flags ask for."""
    import numpy as np

    from yolojax import (
        anchoring,
        datasets,
        experiment,
        files,
        folding,
        outputs,
        settings,
    )
    from yolojax.engine.log import write_json

    chosen = settings.complete(command.FLAGS.config.to_dict())
    if command.FLAGS.output:
        path = Path(command.FLAGS.output)
        files.check_file_place(path, "--output")
        outputs.check_file(path, "--output", marks=(b'"anchors": [', b'"before": {'))
    source = datasets.open_source(chosen, "train")
    model = experiment.make_model(chosen, source.class_names)
    everything = datasets.Data(source, np.arange(len(source)), source.report)
    training = folding.training_part(folding.fold_of(chosen, source), everything)
    data, _ = datasets.sampled(chosen, training)
    distance = command.FLAGS.kmeans
    found = anchoring.compare(chosen, model, data, distance=distance)
    print(anchoring.report(model, found, chosen["loss"]["anchor_ratio"]))
    if command.FLAGS.output:
        content = {
            "anchors": found.anchors.tolist(),
            "before": found.before._asdict(),
            "after": found.after._asdict(),
            "boxes": found.num_boxes,
            "image_size": datasets.image_size_of(chosen),
        }
        write_json(Path(command.FLAGS.output), content)
        print(f"written: {command.FLAGS.output}")
    return 0


if __name__ == "__main__":
    command.define_config()
    command.run(main, usage=__doc__)
