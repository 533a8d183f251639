"""Checkpoints: the whole state of a run, so that the same command goes on exactly.

A checkpoint holds plain nested dicts of arrays (never down-cast), the data
iterator's state, the loop's own bookkeeping and digests of all of these. The latest
few and the best one are kept; writing is asynchronous, a checkpoint that was cut off
is never seen, and one that is damaged is never taken for a whole one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from yolojax.engine import digests, state_tree, step_folder
from yolojax.engine.array_files import ArrayFiles, Damaged
from yolojax.engine.book import misfit
from yolojax.engine.step_folder import steps_in
from yolojax.files import check_space, translating
from yolojax.json_files import read_json
from yolojax.records import TrainState

FOLDER = "checkpoints"
CONFIG = "config.json"
# What a killed run leaves: a checkpoint that was being written or removed.
_CUT_OFF = re.compile(r"[0-9]+\.(orbax-checkpoint-tmp.*|removed)")


class Restored(NamedTuple):
    """What `Checkpoints.restore` gives back.

    Attributes:
        state: on the devices.
        data: state of the data iterator.
        progress: the loop's bookkeeping.
        notes: what the user should know of it, such as damage of newer checkpoints.
    """

    state: TrainState
    data: dict[str, Any]
    progress: dict[str, Any]
    notes: tuple[str, ...]


class Checkpoints:
    """The checkpoints of one working directory, for the run that writes them.

    Other files and folders beside the checkpoints are left alone; what stands where a
    checkpoint must be written is renamed.

    Args:
        workdir: the run's directory; checkpoints lie in `checkpoints/<step>/`.
        keep: how many of the latest to keep, besides the best.
        asynchronous: write while training goes on.

    Raises:
        ValueError: `checkpoints` in it is not a folder.
    """

    def __init__(self, workdir: str | Path, *, keep: int, asynchronous: bool = True):
        self._folder = Path(workdir).resolve() / FOLDER
        self._keep, self._asynchronous = keep, asynchronous
        if self._folder.exists() and not self._folder.is_dir():
            raise ValueError(f"{self._folder} is not a folder; move it away")
        self._writer = ocp.AsyncCheckpointer(
            ocp.CompositeCheckpointHandler(
                state=ocp.StandardCheckpointHandler(),
                data=ocp.JsonCheckpointHandler(),
                progress=ocp.JsonCheckpointHandler(),
                digest=digests.DigestHandler(),
            )
        )
        # Step and best step of what is being written.
        self._pending: tuple[int, Any] | None = None
        if jax.process_index() == 0:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._clear()
        _synchronise("cleared")
        self._steps = steps_in(self._folder)

    def latest_step(self) -> int | None:
        """The newest complete checkpoint's step, or None."""
        self.wait()
        return self._steps[-1] if self._steps else None

    def save(
        self, state: TrainState, *, data: dict[str, Any], progress: dict[str, Any]
    ) -> None:
        """Start writing a checkpoint of `state`; it is named by `state.step`.

        Args:
            state: the run's state on the devices.
            data: state of the data iterator, of JSON values.
            progress: the loop's bookkeeping, of JSON values; the checkpoint of its
                `best_step` is kept.
        """
        step = int(state.step)
        if step == self.latest_step():
            return
        path = self._folder / str(step)
        if jax.process_index() == 0 and path.exists():
            path.rename(_free(path, "old"))
        _synchronise(f"place {step}")
        tree = state_tree.to_dicts(state)
        documents = {"data": data, "progress": progress}
        arguments = ocp.args.Composite(
            state=ocp.args.StandardSave(tree),
            digest=digests.DigestSave(digests.host_copies(tree), documents),
            **{name: ocp.args.JsonSave(value) for name, value in documents.items()},
        )
        if jax.process_index() == 0:
            # Full disks confuse the writer's threads.
            check_space(path, sum(leaf.nbytes for leaf in jax.tree.leaves(tree)))
        with translating(path):
            self._writer.save(path, args=arguments)
        self._pending = step, progress.get("best_step")
        if not self._asynchronous:
            self.wait()

    def restore(self, like: Callable[[int], TrainState]) -> Restored | None:
        """The newest checkpoint that is whole, or None where there is none at all.

        Newer ones, which are damaged, are renamed, so that their steps can be saved
        again.

        Args:
            like: from a step to a state with the structure, types and sharding that
                its checkpoint must have.

        Raises:
            ValueError: the checkpoint's arrays differ from those of `like`, as when
                the model or the optimiser in the config was changed; or all checkpoints
                are damaged.
        """
        notes: list[str] = []
        for step in reversed(self._steps):
            try:
                found = self._read(step, like(step))
            except Damaged as error:
                notes.append(f"checkpoint {step} is damaged: {error}")
                continue
            notes = [self._set_aside(note, before=step) for note in notes]
            self._steps = [known for known in self._steps if known <= step]
            return found._replace(notes=(*notes, *found.notes))
        if notes:
            raise ValueError(
                f"{self._folder}: no checkpoint can be read. {notes[0]}. Put it back "
                f"from a copy, or move {self._folder} away to begin anew"
            )
        return None

    def wait(self) -> None:
        """Return when everything is on disk and what need not be kept is removed."""
        step, _ = self._pending or ("", None)
        with translating(self._folder / str(step)):
            self._writer.wait_until_finished()
        if self._pending is None:
            return
        (step, best), self._pending = self._pending, None
        self._steps.append(step)
        kept = {best, *self._steps[-self._keep :]}
        for old in [known for known in self._steps if known not in kept]:
            self._steps.remove(old)
            if jax.process_index() == 0:
                _remove(self._folder / str(old))

    def close(self) -> None:
        """Wait, and release the writer's threads."""
        self.wait()
        self._writer.close()

    def _read(self, step: int, like: TrainState) -> Restored:
        folder = self._folder / str(step)
        table = step_folder.read_table(folder)
        documents = step_folder.read_documents(folder, table)
        if problem := misfit(documents["progress"]):
            raise Damaged(f"progress/metadata: {problem}")
        arrays = step_folder.open_arrays(folder)
        target = state_tree.to_dicts(like)
        saved = arrays.shapes()
        step_folder.check_shapes(saved, table)
        state_tree.check_same(saved, target, step)
        shapes = state_tree.shapes_of(target)
        found = step_folder.read_arrays(arrays, shapes, table)
        state = state_tree.from_dicts(found, like)
        notes = () if table else (_no_digests(folder),)
        return Restored(state, documents["data"], documents["progress"], notes)

    def _set_aside(self, note: str, *, before: int) -> str:
        """Rename the damaged checkpoint that a note is of, and say so in the note."""
        path = self._folder / note.split()[1]
        free = _free(path, "damaged")
        if jax.process_index() == 0:
            path.rename(free)
        _synchronise(f"aside {path.name}")
        return (
            f"{note}. It is kept as {FOLDER}/{free.name}, which may be removed; the "
            f"run goes on from the one before, step {before}"
        )

    def _clear(self) -> None:
        """Remove what a killed run was writing or removing."""
        for path in self._folder.iterdir():
            if _CUT_OFF.fullmatch(path.name) and path.is_dir():
                shutil.rmtree(path, ignore_errors=True)


@dataclasses.dataclass(frozen=True)
class SavedWeights:
    """The averaged weights of a run, described; the arrays are still on disk.

    Attributes:
        config: the run's config as nested dicts.
        step: of the checkpoint.
        shapes: `{"params", "batch_stats"}`: tree of shapes and types.
    """

    config: dict[str, Any]
    step: int
    shapes: dict[str, Any]
    _folder: Path
    _arrays: ArrayFiles
    _which: str
    _table: Mapping[str, Any] | None

    def read(self) -> dict[str, Any]:
        """`{"params", "batch_stats"}` as NumPy arrays.

        Raises:
            ValueError: the checkpoint is damaged; names the others.
        """
        with _naming_others(self._folder):
            wanted = {self._which: self.shapes}
            found = step_folder.read_arrays(self._arrays, wanted, self._table)
            return found[self._which]


def find_weights(path: str | Path) -> SavedWeights:
    """The averaged weights of a run, for prediction and evaluation.

    The moving average, or the mean of the last epochs (SWA) where that was better.

    Args:
        path: a working directory (its best checkpoint is taken, else its latest) or
            one checkpoint, `workdir/checkpoints/<step>`.

    Raises:
        ValueError: there is no checkpoint, or it is damaged; the message says what is
            there.
    """
    path = Path(path).resolve()
    if not path.exists():
        raise ValueError(f"no weights at {path}: there is no such file or folder")
    workdir = workdir_of(path)
    wanted = int(path.name) if workdir != path else None
    folder, config_file = workdir / FOLDER, workdir / CONFIG
    if not folder.is_dir() or not config_file.is_file():
        raise ValueError(
            f"no weights at {path}: expected a working directory with {CONFIG} and "
            f"{FOLDER}/, or one checkpoint {FOLDER}/<step>"
        )
    steps = steps_in(folder)
    if not steps or (wanted is not None and wanted not in steps):
        there = f"steps there: {steps}" if steps else "let the run save one first"
        raise ValueError(f"no finished checkpoint {wanted or ''} in {folder}; {there}")
    config = read_json(config_file, advice="Put it back from a copy.")
    step = steps[-1] if wanted is None else wanted
    table, progress = _progress(folder / str(step))
    best = progress.get("best_step")
    if wanted is None and isinstance(best, int) and best != step:
        if best in steps:
            step = best
            table, progress = _progress(folder / str(step))
        elif best > 0:
            print(f"{workdir}: the best checkpoint, {best}, is missing: taking {step}")
    # A mean of the last epochs is one only at the end, where it was judged.
    which = progress.get("best_weights", "ema")
    which = which if progress.get("best_step") == step else "ema"
    with _naming_others(folder / str(step)):
        arrays = step_folder.open_arrays(folder / str(step))
        shapes = arrays.shapes(which) if isinstance(which, str) else {}
        if not isinstance(shapes.get(which), dict):
            raise Damaged(f"it has no weights {which!r}")
    if table is None:
        print(_no_digests(folder / str(step)), flush=True)
    # Where a network has no batch statistics, there is nothing to be stored of them.
    variables = {"batch_stats": {}, **shapes[which]}
    return SavedWeights(
        config, step, variables, folder / str(step), arrays, which, table
    )


def set_aside(workdir: str | Path, step: int) -> str:
    """Rename a step's checkpoint where its weights are damaged; a line, or nothing."""
    path = Path(workdir).resolve() / FOLDER / str(step)
    if not path.is_dir():
        return ""
    try:
        load_weights(path)
    except ValueError as error:
        if not isinstance(error.__cause__, Damaged):
            raise
        moved = path.rename(_free(path, "damaged"))
        return f"checkpoint {step} is damaged: {error.__cause__}. It is now {moved}"
    return ""


def load_weights(path: str | Path) -> tuple[dict[str, Any], dict[str, Any], int]:
    """Config, weights and step of `find_weights`, read at once.

    Returns:
        The run's config as nested dicts, `{"params", "batch_stats"}` as NumPy arrays,
        and the step.

    Raises:
        ValueError: see `find_weights`.
    """
    found = find_weights(path)
    return found.config, found.read(), found.step


def _progress(folder: Path) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    """The digests and the loop's bookkeeping of one checkpoint."""
    with _naming_others(folder):
        table = step_folder.read_table(folder)
        return table, step_folder.read_documents(folder, table)["progress"]


@contextlib.contextmanager
def _naming_others(folder: Path) -> Iterator[None]:
    """Turns `Damaged` into a message that names the run's other checkpoints."""
    try:
        yield
    except Damaged as error:
        others = [step for step in steps_in(folder.parent) if str(step) != folder.name]
        example = folder.parent / str(others[-1]) if others else ""
        advice = f", as in --weights {example}" if others else ""
        raise ValueError(
            f"checkpoint {folder.name} in {folder.parent} is damaged: {error}. Put it "
            f"back from a copy, or use another one; the others are {others or 'none'}"
            f"{advice}"
        ) from error


def _no_digests(folder: Path) -> str:
    return (
        f"checkpoint {folder.name} has no digests, since an older yolojax wrote it: "
        "damage of its files may not be seen"
    )


def has_checkpoint(workdir: str | Path) -> bool:
    """Whether a finished checkpoint lies in the working directory."""
    return bool(steps_in(Path(workdir) / FOLDER))


def save_weights(workdir: str | Path, variables: dict[str, Any]) -> None:
    """Write weights that were not trained here as the checkpoint of step 0.

    `load_weights` reads it; there is no optimiser's state for a run to go on from.

    Args:
        workdir: the directory that gets `checkpoints/0/`.
        variables: `params` and `batch_stats`.
    """
    arrays = jax.tree.map(jnp.asarray, variables)
    zero = jnp.zeros((), jnp.int32)
    state = TrainState(
        step=zero,
        params=arrays["params"],
        batch_stats=arrays["batch_stats"],
        opt_state={},
        ema=arrays,
        ema_updates=zero,
        skipped=zero,
        skipped_in_a_row=zero,
    )
    checkpoints = Checkpoints(workdir, keep=1, asynchronous=False)
    checkpoints.save(state, data={}, progress={"best_step": 0})
    checkpoints.close()


def workdir_of(path: str | Path) -> Path:
    """The working directory that a path to weights is, or lies in."""
    path = Path(path).resolve()
    named = path.parent.name == FOLDER and step_folder.is_step(path)
    return path.parent.parent if named else path


def _free(path: Path, word: str) -> Path:
    """A name beside `path` that nothing has, such as `30.damaged`."""
    names = (f"{path.name}.{word}{n or ''}" for n in itertools.count())
    return next(p for p in map(path.with_name, names) if not os.path.lexists(p))


def _remove(path: Path) -> None:
    """Remove a checkpoint; a kill leaves a whole one, or one that `_clear` knows."""
    doomed = path.with_name(f"{path.name}.removed")
    shutil.rmtree(doomed, ignore_errors=True)
    with contextlib.suppress(OSError):
        path.rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)


def _synchronise(name: str) -> None:
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(f"checkpoints {name}")
