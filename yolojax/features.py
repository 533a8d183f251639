"""What a layer makes of the pictures: t-SNE and PCA, coloured by class.

    python -m yolojax.features --weights runs/x --output runs/x/features
    python -m yolojax.features --weights runs/x --output F --layer backbone/block3
    python -m yolojax.features --weights runs/x --output F --split val --split test
    python -m yolojax.features --weights yolov5n.pt --config configs/x.py --output F

Without --layer it is what the head's last layer sees; a wrong name gives a list of
names. Of a detector a picture has the class of its largest box,
of several labels the first. Writes tsne.png,
pca.png and features.npz (features, labels, split, name, class_names, tsne, pca).
"""

from pathlib import Path

from absl import flags

from yolojax import command

flags.DEFINE_string("weights", None, "A workdir, one of its checkpoints, or a file.")
flags.DEFINE_string("output", None, "Where the files go.")
flags.DEFINE_string("layer", "", "Path of a layer; with :input what it is given.")
flags.DEFINE_multi_string(
    "split", ["train", "val"], "A split of the data; may be given several times."
)
flags.DEFINE_enum("method", None, ["tsne", "pca"], "Only this one; by default both.")
flags.DEFINE_integer("pictures", 1000, "Of each split at most so many.", 5)
flags.DEFINE_string("data_root", None, "Another place of the data: data.root.")
command.define_overwrite()


def main() -> int:
    """Draw the features as the flags say."""
    from yolojax import embedding, inference, settings
    from yolojax.engine.progress import counter

    given = command.FLAGS
    changes = {"data.root": given.data_root}
    if given.config:
        chosen = settings.complete(given.config.to_dict())
        keys = ("data", "evaluate", "image_size", "devices", "dtype", "seed")
        changes = {key: chosen[key] for key in keys} | changes
    loaded = inference.load(given.weights, inference.settings_changes(changes))
    methods = [given.method] if given.method else list(embedding.TITLES)
    embedding.claim_output(given, changes, methods)
    print(f"{loaded.model.name}, step {loaded.step} of {given.weights}", flush=True)
    with counter("pictures") as progress:
        lines = embedding.write_features(
            loaded,
            Path(given.output),
            splits=given.split,
            layer=given.layer,
            methods=methods,
            most=given.pictures,
            progress=progress,
        )
    print("\n".join([f"written to {given.output}:", *(f"  {line}" for line in lines)]))
    return 0


if __name__ == "__main__":
    command.define_config(required=False)
    flags.mark_flags_as_required(["weights", "output"])
    command.run(main, usage=__doc__)
