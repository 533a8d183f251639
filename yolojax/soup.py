"""A model soup: the weights of several checkpoints, averaged.

    python -m yolojax.soup --workdir runs/x --output runs/soup
    python -m yolojax.soup --workdir runs/x --checkpoints 1200,1400 --output runs/soup
    python -m yolojax.soup --workdir runs/a --checkpoints runs/a,runs/b --output both

Uniform: the mean of all. Greedy: from the best one on, each is taken in only where
that makes the soup no worse on val. Both are evaluated, --method says which is written.
Runs that are mixed should have begun from the same weights.
"""

from absl import flags

from yolojax import command

flags.DEFINE_string("workdir", None, "The run; its val set and settings judge.")
flags.DEFINE_list(
    "checkpoints", [], "Steps of the run, or paths of runs and checkpoints; all of it."
)
flags.DEFINE_string("output", None, "The working directory to write.")
flags.DEFINE_enum("method", "greedy", ["greedy", "uniform"], "Which soup to write.")
flags.DEFINE_bool(
    "recompute", False, "Batch statistics over the training pictures, not their mean."
)


def main() -> int:
    """Cook as the flags say."""
    from yolojax import souping

    given = command.FLAGS
    print(
        souping.make_soup(
            given.workdir,
            given.output,
            checkpoints=given.checkpoints,
            method=given.method,
            recompute=given.recompute,
        )
    )
    return 0


if __name__ == "__main__":
    flags.mark_flags_as_required(["workdir", "output"])
    command.run(main, usage=__doc__)
