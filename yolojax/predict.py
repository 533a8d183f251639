"""Find objects on pictures and videos, or tell the classes of pictures.

    python -m yolojax.predict --weights runs/x --source photo.jpg --output out
    python -m yolojax.predict --weights runs/x --source photos/ --source 'a/*.png' \\
        --source film.mp4 --output out --conf 0.4
    python -m yolojax.predict --weights runs/x --weights runs/y --augment photos/
    python -m yolojax.predict --weights runs/classifier --submission --views 5 test/

Detectors: the drawn pictures and videos and predictions.json (COCO results format).
Classifiers: predictions.csv (class and probabilities of each file), predictions.png
and, with --submission, submission.csv (Id,Category: the numbers that the files' names
end with, or else their places from 1, all of one width).

Sources are never written over. The same command again renews its files; those of
another command, and files from elsewhere, only with --overwrite.
"""

from absl import flags

from yolojax import command

flags.DEFINE_multi_string(
    "weights",
    None,
    "A workdir, one of its checkpoints, or a .pt, .safetensors or .weights file; "
    "repeatable: an ensemble.",
)
flags.DEFINE_multi_string("source", None, "File, folder, pattern or list; repeatable")
flags.DEFINE_string(
    "output",
    "runs/predict",
    "Where pictures and tables go; by default runs/predict-2 and so on, where another "
    "command has written there.",
)
flags.DEFINE_integer("batch_size", 8, "Pictures at a time.", 1)
flags.DEFINE_bool("recursive", False, "Also take folders inside of folders.")
flags.DEFINE_float("conf", 0.25, "What is less sure is left out.", 0.0, 1.0)
flags.DEFINE_float("iou", 0.45, "Overlap above which a box gives way.", 0.0, 1.0)
command.define_overwrite()
command.define_merging()
command.define_views()
flags.DEFINE_bool("submission", False, "Classifiers: write submission.csv.")
flags.DEFINE_bool(
    "draw",
    None,
    "Classifiers: write each picture with its class; by default of up to 20 pictures.",
)


def main() -> int:
    """Predict as the flags say."""
    from yolojax import inference, network, predicting
    from yolojax.data import media
    from yolojax.data.report import Report

    given = command.FLAGS
    if not given.weights or not given.source:
        raise ValueError("give --weights and --source")
    predicting.check_flags(given)
    report = Report()
    items = media.expand_sources(given.source, recursive=given.recursive, report=report)
    change = inference.settings_changes({"devices": 1})
    members = [inference.load(weights, change) for weights in given.weights]
    classifies = network.is_classifier(members[0].settings)
    output = predicting.claim_output(given, items, classifies)
    predict = predicting.classify if classifies else predicting.detect
    return predict(members, items, output, given, report)


if __name__ == "__main__":
    command.run(main, usage=__doc__, rest="source")
