"""How the loss answers to a learning rate that rises: which rate to train with.

    python -m yolojax.find_lr --config configs/quickstart.py --output rates.png

Trains for --steps steps from the config's first weights while the learning rate rises
from --low to --high by the same factor each step, and recommends the rate at which the
loss falls fastest, and a tenth of that at which it is lowest. Nothing is saved but the
picture.
"""

from pathlib import Path

from absl import flags

from yolojax import command

flags.DEFINE_string("output", "find_lr.png", "The picture to write.")
flags.DEFINE_integer("steps", 100, "Training steps.", 5)
flags.DEFINE_float("low", 1e-6, "The learning rate of the first step.")
flags.DEFINE_float("high", 1.0, "The learning rate of the last step.")


def main() -> int:
    """Run the test, draw its curve, print what it recommends."""
    from yolojax import finding_lr, outputs, settings
    from yolojax.engine.progress import counter
    from yolojax.vis import rates

    given = command.FLAGS
    chosen = settings.complete(given.config.to_dict())
    outputs.check_file(Path(given.output), "--output")
    with counter("steps") as progress:
        found = finding_lr.find(
            chosen, low=given.low, high=given.high, steps=given.steps, progress=progress
        )
    marks = {"a tenth of the lowest loss's": found.tenth}
    if found.steepest == found.steepest:
        marks = {"steepest descent": found.steepest, **marks}
    rates.plot_range_test(
        found.rates, found.losses, found.smoothed, marks, Path(given.output)
    )
    print(
        f"{len(found.rates)} steps, from {found.rates[0]:.2g} to {found.rates[-1]:.2g}"
    )
    for name, rate in marks.items():
        print(f"{name}: --config.optim.learning_rate={rate:.2g}")
    if len(found.rates) < 30:
        print("so few steps are mostly noise: take --steps 60 or more")
    if found.lowest == found.rates[-1]:
        print("the loss was still falling: a higher --high tells more")
    if len(marks) == 1:
        print("the loss never fell: more --steps, or another --low")
    print(f"curve in {given.output}")
    return 0


if __name__ == "__main__":
    command.define_config()
    command.run(main, usage=__doc__)
