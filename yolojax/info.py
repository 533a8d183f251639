"""What a config's network is made of and what a training step needs.

    python -m yolojax.info --config configs/coco.py:s
    python -m yolojax.info --config configs/quickstart.py --schedule schedule.png

Prints layers, parameters, floating-point operations of a picture, and, unless
--nocompile, the memory of a training step at the configured batch, as the compiler
states it. Needs no data, but for the classes where config.model.num_classes is 0.
--schedule draws learning rates, momentum and weight decay over the run instead, and
counts the steps of an epoch from the data unless told.
"""

from pathlib import Path

from absl import flags

from yolojax import command

flags.DEFINE_bool("compile", True, "Also compile a step, to state its memory.")
flags.DEFINE_string("schedule", "", "The picture of the schedule to write.")
flags.DEFINE_integer("steps_per_epoch", 0, "For --schedule; 0: from the data.", 0)


def main() -> int:
    """Print what the flags ask for."""
    from yolojax import outputs, scheduling, settings, sizing

    chosen = settings.complete(command.FLAGS.config.to_dict())
    if path := command.FLAGS.schedule:
        outputs.check_file(Path(path), "--schedule")
        count = command.FLAGS.steps_per_epoch
        lines = scheduling.draw_schedule(chosen, Path(path), steps_per_epoch=count)
        print(*lines, f"schedule in {path}", sep="\n")
        return 0
    print(sizing.describe_model(chosen))
    if command.FLAGS.compile:
        print(sizing.describe_memory(chosen), flush=True)
    return 0


if __name__ == "__main__":
    command.define_config()
    command.run(main, usage=__doc__)
