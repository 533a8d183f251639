"""Read a whole data set and say what is wrong with it; nothing is changed.

    python -m yolojax.check --config configs/bccd.py --config.data.root=/data/bccd

Exit code 0 when nothing is wrong (what is only noted does not count, but for pictures
of val that are in train), 1 when something is, 2 when the data cannot be used at all.
"""

from yolojax import command


def main() -> int:
    """Check as the flags say."""
    from yolojax import datasets, experiment, folding, settings, unlabelled
    from yolojax.data import check
    from yolojax.engine.progress import counter

    chosen = settings.complete(command.FLAGS.config.to_dict())
    # The report is what was asked for, not an error.
    chosen["data"]["strict"] = False
    parts = [p for p in ("train", "unlabelled", "val") if chosen["data"][p]]
    if chosen["data"]["folds"]["count"] and "val" in parts:
        parts.remove("val")
    sources = {part: datasets.open_source(chosen, part) for part in parts}
    problems, mismatch = 0, None
    if "train" in sources and "val" in sources:
        try:
            matched = datasets.match_classes(
                sources["val"], sources["train"], part="val"
            )
            sources["val"] = matched
        except ValueError as error:
            mismatch = error  # after the reports
    # Train and val that are one and the same are meant to be.
    same = chosen["data"]["train"] == chosen["data"]["val"]
    digests: dict[str, str] | None = None if same else {}
    for part, source in sources.items():
        with counter(f"pictures of {part}") as progress:
            data = datasets.look_at_pictures(
                chosen, source, digests=digests, progress=progress
            )
        problems += sum(data.report.counts.values())
        if part == "val":
            problems += data.report.notes.get("picture of another part", 0)
        print(f"== {part} ==\n{check.summary(data.source, data.keep)}\n")
        print(data.report.render() or "nothing is wrong", end="\n\n")
        if part != "unlabelled":
            experiment.make_model(chosen, source.class_names)
    if chosen["data"]["folds"]["count"]:
        fold = folding.fold_of(chosen, sources["train"])
        print(fold.note if fold else "", end="\n\n")
    unlabelled.check(chosen, sources.get("train"))
    if mismatch is not None:
        raise mismatch
    return 1 if problems else 0


if __name__ == "__main__":
    command.define_config()
    command.run(main, usage=__doc__)
