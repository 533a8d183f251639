"""What the network sees in training, as one picture: a batch, a sample, or each step.

python -m yolojax.preview --config configs/quickstart.py --output preview.png
python -m yolojax.preview --config configs/quickstart.py --step 1234 --index 7
python -m yolojax.preview --config configs/quickstart.py --each
"""

from pathlib import Path

from absl import flags

from yolojax import command

flags.DEFINE_string("output", "preview.png", "The picture to write.")
flags.DEFINE_integer("step", 0, "The training step whose batch is drawn.", 0)
flags.DEFINE_integer(
    "index", None, "The sample of the batch to draw before and after.", 0
)
flags.DEFINE_bool("each", False, "Draw every augmentation alone, one a row.")


def main() -> int:
    """Draw as the flags say."""
    from yolojax import outputs, previewing, settings
    from yolojax.engine.progress import counter

    chosen = settings.complete(command.FLAGS.config.to_dict())
    path, step = Path(command.FLAGS.output), command.FLAGS.step
    outputs.check_file(path, "--output")
    if command.FLAGS.each and command.FLAGS.index is not None:
        raise ValueError("--each draws no single sample: give it or --index, not both")
    if command.FLAGS.each:
        with counter("augmentations") as progress:
            count = previewing.draw_each(chosen, path, step=step, progress=progress)
        print(f"{count} augmentations in {path}")
    elif command.FLAGS.index is not None:
        index = command.FLAGS.index
        for line in previewing.draw_sample(chosen, path, step=step, index=index):
            print(line)
        print(f"before and after in {path}")
    else:
        count = previewing.draw_batch(chosen, path, step=step)
        print(f"{count} pictures of step {step} in {path}")
    return 0


if __name__ == "__main__":
    command.define_config()
    command.run(main, usage=__doc__)
