"""What a config's network is made of and what a training step needs.

    python -m yolojax.info --config configs/coco.py:s

Prints layers, parameters, floating-point operations of a picture, and, unless
--nocompile, the memory of a training step at the configured batch, as the compiler
states it. Needs no data.
"""

from absl import flags

from yolojax import command

flags.DEFINE_bool("compile", True, "Also compile a step, to state its memory.")


def main() -> int:
    """Print what the flags ask for."""
    from yolojax import settings, sizing

    chosen = settings.complete(command.FLAGS.config.to_dict())
    print(sizing.describe_model(chosen))
    if command.FLAGS.compile:
        print(sizing.describe_memory(chosen), flush=True)
    return 0


if __name__ == "__main__":
    command.define_config()
    command.run(main, usage=__doc__)
