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
the (first) workdir; with --split, --data_root, --config, --letterbox, --augment,
--views, several --weights or one checkpoint a folder in it, numbered where it has the
results of another command; for a file runs/evaluate/<its name>. The same command again
renews its files; into an --output with those of another one only with --overwrite.
"""

from absl import flags

from yolojax import command
from yolojax.ops.letterbox import LETTERBOXES

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
    LETTERBOXES,
    "How pictures lie in a batch: evaluate.letterbox; rectangular is for detectors, "
    "centre_crop for classifiers.",
)
flags.DEFINE_string("output", None, "Where the JSON files go.")
command.define_overwrite()
command.define_merging()
command.define_views()


def main() -> int:
    """Evaluate as the flags say."""
    from yolojax import measuring

    return measuring.measure(command.FLAGS)


if __name__ == "__main__":
    command.define_config(required=False)
    command.run(main, usage=__doc__)
