"""Cross-validation: a run for each fold, their numbers with mean and spread.

    python -m yolojax.crossval --config configs/x.py --workdir runs/cv --folds 5
    python -m yolojax.crossval --config configs/x.py --workdir runs/cv --folds 5 \\
        --kind group --config.data.folds.groups='(patient[0-9]+)'
    python -m yolojax.evaluate --workdir runs/cv/fold2

The pictures of config.data.train are parted; config.data.val is not read. Each fold is
a run in runs/cv/fold0, fold1, ...; the same command goes on where the last one stopped.
Writes crossval.json and the predictions of all held-out pictures: predictions.json of
a detector (COCO results format), out_of_fold.csv of a classifier.
Exit code 0 only when all folds have finished; 2 when config or data are wrong.
"""

from pathlib import Path

from absl import flags

from yolojax import command

flags.DEFINE_string("workdir", None, "Directory of all folds' runs.")
flags.DEFINE_integer("folds", 0, "How many; by default config.data.folds.count.", 0)
flags.DEFINE_enum(
    "kind",
    None,
    ["plain", "stratified", "group"],
    "How pictures are parted: at random, with the classes evenly in each fold, or with "
    "groups kept together; by default config.data.folds.kind.",
)


def main() -> int:
    """Train and evaluate fold by fold as the flags say."""
    from yolojax import crossvalidating, settings

    given = command.FLAGS
    return crossvalidating.cross_validate(
        settings.complete(given.config.to_dict()),
        Path(given.workdir),
        count=given.folds,
        kind=given.kind or "",
    )


if __name__ == "__main__":
    command.define_config()
    flags.mark_flag_as_required("workdir")
    command.run(main, usage=__doc__)
