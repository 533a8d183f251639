"""Train a detector; the same command again goes on where the run stands.

    python -m yolojax.train --config configs/quickstart.py --workdir runs/quickstart
    python -m yolojax.train --config configs/coco.py:s --workdir runs/coco_s \\
        --config.data.root=/data/coco --config.batch_size=64
    python -m yolojax.train --workdir runs/coco_s
    python -m yolojax.train --workdir runs/coco_s --config.epochs=400
    python -m yolojax.train --workdir runs/coco_s --config.data.root=/mnt/coco

Without --config a run goes on by its own config.json, which holds everything: the text
of a model's description and the values of a hyper-parameter file as well. Some keys may
change on the way: those that say where things lie, and those of the run's end.
Exit code 0 only when the run has finished; 2 when the config or the data are wrong.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from absl import flags

from yolojax import command

flags.DEFINE_string(
    "workdir", None, "Directory of the run: checkpoints, metrics, plots."
)


def main(changes: Mapping[str, Any]) -> int:
    """Train as the flags say; `changes` are those of a run that goes on."""
    from yolojax import settings, training

    workdir, given = Path(command.FLAGS.workdir), command.FLAGS.config
    begun = workdir / "config.json"
    if given is None and not begun.is_file():
        raise ValueError(f"give --config: {workdir} holds no run to go on with")
    if given is None:
        chosen = settings.with_changes(settings.read_config(workdir), changes)
    else:
        chosen = settings.complete(given.to_dict())
    return training.train(chosen, workdir)


if __name__ == "__main__":
    command.define_config(required=False)
    flags.mark_flag_as_required("workdir")
    command.run(main, usage=__doc__, changes=True)
