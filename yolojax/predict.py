"""Find objects on pictures and videos, draw them, and write them down.

    python -m yolojax.predict --weights runs/x --source photo.jpg --output out
    python -m yolojax.predict --weights runs/x --source photos/ --source 'a/*.png' \\
        --source film.mp4 --output out --conf 0.4
    python -m yolojax.predict --weights runs/x --weights runs/y --augment photos/

Writes the drawn pictures and videos and predictions.json (COCO results format).
"""

from pathlib import Path

from absl import flags

from yolojax import command

flags.DEFINE_multi_string(
    "weights",
    None,
    "A workdir, one of its checkpoints, or a .pt, .safetensors or .weights file; "
    "repeatable: an ensemble.",
)
flags.DEFINE_multi_string("source", None, "File, folder, pattern or list; repeatable")
flags.DEFINE_string("output", "runs/predict", "Where pictures and JSON go.")
flags.DEFINE_float("conf", 0.25, "What is less sure is left out.", 0.0, 1.0)
flags.DEFINE_float("iou", 0.45, "Overlap above which a box gives way.", 0.0, 1.0)
flags.DEFINE_integer("batch_size", 8, "Pictures at a time.", 1)
flags.DEFINE_bool("recursive", False, "Also take folders inside of folders.")
command.define_merging()


def main() -> int:
    """Predict as the flags say."""
    from yolojax import ensembling, inference, predicting
    from yolojax.data import media
    from yolojax.data.report import Report
    from yolojax.engine.progress import counter
    from yolojax.weights.published import missing_names

    given = command.FLAGS
    if not given.weights or not given.source:
        raise ValueError("give --weights and --source")
    how = ensembling.asked_for(len(given.weights), **command.merging())
    report = Report()
    items = media.expand_sources(given.source, recursive=given.recursive, report=report)
    change = inference.settings_changes({"devices": 1})
    members = [inference.load(weights, change) for weights in given.weights]
    loaded = members[0]
    if names := missing_names(given.weights[0], loaded.model, loaded.class_names):
        print(names)
    chosen = {
        "score_threshold": given.conf,
        "iou_threshold": given.iou,
        "batch_size": min(given.batch_size, max(1, len(items))),
    }
    if how is None:
        predictor = inference.Predictor(loaded, **chosen)
    else:
        predictor = ensembling.MergedPredictor(members, how, **chosen)
    output = Path(given.output)
    with counter("files") as progress:
        rows, unread = predicting.predict_media(
            predictor, loaded, items, output, progress
        )
    report.merge(unread)
    if text := report.render():
        print(text)
    read = len(items) - sum(unread.counts.values())
    print(f"{len(rows)} objects on {read} of {len(items)} files, drawn in {output}")
    return 0 if read else 1


if __name__ == "__main__":
    command.run(main, usage=__doc__, rest="source")
