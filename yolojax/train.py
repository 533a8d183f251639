"""Train a detector; the same command again goes on where the run stands.

    python -m yolojax.train --config configs/quickstart.py --workdir runs/quickstart
    python -m yolojax.train --config configs/coco.py:s --workdir runs/coco_s \\
        --config.data.root=/data/coco --config.batch_size=64

Exit code 0 only when the run has finished; 2 when the config or the data are wrong.
"""

from pathlib import Path

from absl import flags

from yolojax import command

flags.DEFINE_string(
    "workdir", None, "Directory of the run: checkpoints, metrics, plots."
)


def main() -> int:
    """Train as the flags say."""
    from yolojax import settings, training

    chosen = settings.complete(command.FLAGS.config.to_dict())
    return training.train(chosen, Path(command.FLAGS.workdir))


if __name__ == "__main__":
    command.define_config()
    flags.mark_flag_as_required("workdir")
    command.run(main, usage=__doc__)
