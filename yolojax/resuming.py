"""A run that goes on: its data must be the same, and a longer one has its schedule."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from yolojax import changes, recipe
from yolojax.data import identity
from yolojax.data.check import known_digests
from yolojax.data.identity import Part
from yolojax.engine.book import Bookkeeping
from yolojax.engine.stages import Stage
from yolojax.experiment import Experiment
from yolojax.models.network import Network
from yolojax.optim.schedules import PLATEAU

# What a run that has ended says, by the reason of its end.
_ENDED = {
    "steps": "for more",
    "patience": "it stopped early, by config.early_stopping; for more",
    "max_hours": "its time was used up; for more, raise config.max_hours",
}
# What of the stream's state belongs to the images, by their places.
_OF_IMAGES = ("losses", "pseudo_labels")


def parts_of(run: Experiment, workdir: Path) -> dict[str, Part]:
    """The images of each part of the data, as the run uses them.

    Args:
        run: what is trained.
        workdir: its directory, with what the scans found.
    """
    source = run.train.source
    labelled = getattr(source, "num_labelled", len(source))
    digests = {}
    for name in ("train", "val", "unlabelled"):
        digests |= known_digests(workdir / f"scan_{name}.json")
    uses = {"train": run.train.keep}
    own_val = run.val is not None and not run.settings["data"]["folds"]["count"]
    if run.val is not None and not own_val:
        uses["val"] = run.val.keep
    found = {
        "train": identity.describe_part(source, range(labelled), uses, digests),
    }
    if labelled < len(source):
        rows = range(labelled, len(source))
        found["unlabelled"] = identity.describe_part(source, rows, uses, digests)
    if run.val is not None and own_val:
        val, used = run.val.source, {"val": run.val.keep}
        found["val"] = identity.describe_part(val, range(len(val)), used, digests)
    return found


def check_data(
    parts: Mapping[str, Part],
    workdir: Path,
    book: Bookkeeping,
    step: int,
    *,
    allowed: bool,
) -> str:
    """Check that a run goes on with the data that it was begun with.

    Args:
        parts: the data now.
        workdir: of the run.
        book: from its checkpoint; notes the change that is allowed.
        step: of the checkpoint.
        allowed: `data.allow_changes`.

    Returns:
        A line to print; empty where all is the same.

    Raises:
        ValueError: the data are not the same, and that is not allowed; names what
            changed.
    """
    if not book.data:
        return (
            "the checkpoint is older than the digests of the data: whether they are "
            "the same is not checked"
        )
    before = identity.read_parts(workdir, book.data)
    found = []
    for name, part in parts.items():
        if part.digest == book.data.get(name):
            continue
        how = identity.difference(before[name], part) if name in before else ""
        unknown = f"{identity.FILE} does not tell what changed"
        found.append(f"config.data.{name}: {how or unknown}")
    if not found:
        return ""
    what = "; ".join(found)
    if not allowed:
        raise ValueError(
            f"{workdir} was trained for {step} steps on other data. {what}. Put the "
            "data back, or add --config.data.allow_changes=True: from here on it is a "
            "different run"
        )
    book.changes.append({"step": step, "what": what})
    if not _same_images(book.data, parts):
        # They are those of other images.
        book.pictures = ""
    return f"from step {step} on it is a different run (data.allow_changes). {what}"


def _same_images(saved: Mapping[str, str], parts: Mapping[str, Part]) -> bool:
    """Whether the images to train on are those of a checkpoint's digests."""
    return not saved or all(
        part.digest == saved.get(name) for name, part in parts.items() if name != "val"
    )


def stream_state(
    state: Mapping[str, Any], saved: Mapping[str, str], parts: Mapping[str, Part]
) -> dict[str, Any]:
    """The state of the training stream from a checkpoint, as far as it still fits.

    Args:
        state: of the stream.
        saved: the digests in the checkpoint.
        parts: the data now.
    """
    same = _same_images(saved, parts)
    return {key: value for key, value in state.items() if same or key not in _OF_IMAGES}


def note_course(
    before: Mapping[str, Any], run: Experiment, book: Bookkeeping, step: int
) -> str:
    """What becomes of a run whose end or whose evaluations are other ones now.

    Args:
        before: the config so far, complete.
        run: what is trained now.
        book: notes the change.
        step: steps done.

    Returns:
        Lines to print; empty where nothing changed.
    """
    found = changes.course(before, run.settings)
    if not found:
        return ""
    what = "; ".join(f"config.{key}{how}" for key, how in found.items())
    if step == 0:
        return f"changed: {what}"
    book.changes.append({"step": step, "what": what})
    lines = [f"changed from step {step} on: {what}"]
    if before["epochs"] != run.settings["epochs"]:
        lines += _schedule(before, run.settings, run.model, _steps_of(run), step)
    return "\n".join(lines)


def more_of(run: Experiment, workdir: Path, step: int, reason: str) -> str:
    """How a run that has ended goes on: the command, and what it does; lines.

    Args:
        run: what was trained.
        workdir: its directory.
        step: steps done.
        reason: why it ended, see `loop.Outcome`.
    """
    chosen, limit = run.settings, run.settings["max_steps"]
    key, value = "epochs", 2 * chosen["epochs"]
    if reason == "patience":
        key = "early_stopping.patience"
        value = 2 * chosen["early_stopping"]["patience"]
    elif reason == "max_hours":
        key, value = "max_hours", 2 * chosen["max_hours"]
    elif limit and limit < run.stages[-1].end:
        key, value = "max_steps", min(2 * limit, run.stages[-1].end)
    place = shlex.quote(str(workdir))
    command = f"python -m yolojax.train --workdir {place} --config.{key}={value}"
    if key != "epochs":
        return command
    longer = changes.with_epochs(chosen, value)
    steps_of = _steps_of(run)
    return "\n".join([command, *_schedule(chosen, longer, run.model, steps_of, step)])


def ended(run: Experiment, workdir: Path, step: int, reason: str) -> str:
    """What a run says that is asked to go on and has ended; see `more_of`."""
    command = more_of(run, workdir, step, reason)
    return f"{workdir} is finished; {_ENDED[reason]}: {command}"


def beyond(run: Experiment, workdir: Path, step: int) -> str:
    """What is wrong with a command for fewer steps than a run has made."""
    place = shlex.quote(str(workdir))
    return (
        f"{workdir} has made {step} steps, more than the {run.total_steps} of this "
        f"command (config.epochs={run.settings['epochs']}). To go on as the run is set "
        f"now: python -m yolojax.train --workdir {place}"
    )


def _steps_of(run: Experiment) -> Any:
    """From a stage's share of the data to the steps of its epoch."""
    known = {stage.data_fraction: stage.steps_per_epoch for stage in run.stages}
    return known.__getitem__


def _schedule(
    before: Mapping[str, Any],
    now: Mapping[str, Any],
    model: Network,
    steps_of: Any,
    step: int,
) -> list[str]:
    """What more or fewer epochs do to rate, mosaic and averages; a line each."""
    plans = [recipe.make_stages(chosen, model, steps_of) for chosen in (before, now)]
    old, new = (plan[-1] for plan in plans)
    lines = []
    if now["optim"]["schedule"] == PLATEAU:
        lines.append(f"the {PLATEAU} schedule goes by evaluations, and goes on")
    elif step > new.first_step:
        done = step - new.first_step
        was = _rate(before, model, old, done - 1)
        comes = _rate(now, model, new, done)
        end = _rate(now, model, new, new.end - new.first_step - 1)
        name = now["optim"]["schedule"]
        here = f"goes from {was:.3g} to {comes:.3g} here"
        if abs(comes - was) <= 0.01 * was:
            here = f"stays {comes:.3g} here"
        lines.append(
            f"the {name} schedule is laid over {new.epochs} epochs instead of "
            f"{old.epochs}: the learning rate {here} and ends at {end:.3g}"
        )
    closing = [
        recipe.closing_step(chosen, plan)
        for chosen, plan in zip((before, now), plans, strict=True)
    ]
    if now["augment"]["close_mosaic_epochs"] and closing[0] <= step < closing[1]:
        lines.append(
            f"mosaic and mixing, off since step {closing[0]}, are on again until step "
            f"{closing[1]}"
        )
    if count := now["swa"]["epochs"]:
        start = new.first_epoch + new.epochs - count
        lines.append(f"SWA takes the last {count} epochs, from epoch {start} on")
    if now["ema"]["name"] != "none":
        lines.append("the moving average of the weights and the optimiser go on")
    return lines


def _rate(
    settings: Mapping[str, Any], model: Network, stage: Stage, done: int
) -> float:
    """The learning rate of a stage's step after so many."""
    optimizer = recipe.make_optimizer(settings, model, stage.steps_per_epoch, stage)
    return float(optimizer.rates(done)["learning_rate"])
