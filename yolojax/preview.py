"""The first augmented batch with its boxes, as one picture.

python -m yolojax.preview --config configs/quickstart.py --output preview.png
"""

from pathlib import Path

from absl import flags

from yolojax import command

flags.DEFINE_string("output", "preview.png", "The picture to write.")
flags.DEFINE_integer("step", 0, "The training step whose batch is drawn.", 0)


def main() -> int:
    """Draw as the flags say."""
    from yolojax import previewing, settings

    chosen = settings.complete(command.FLAGS.config.to_dict())
    path = Path(command.FLAGS.output)
    count = previewing.draw_batch(chosen, path, step=command.FLAGS.step)
    print(f"{count} pictures of step {command.FLAGS.step} in {path}")
    return 0


if __name__ == "__main__":
    command.define_config()
    command.run(main, usage=__doc__)
