"""Checkpoints: the whole state of a run, so that the same command goes on exactly.

A checkpoint holds plain nested dicts of arrays (never down-cast), the data
iterator's state and the loop's own bookkeeping. The latest few and the best one
are kept; writing is asynchronous, and a checkpoint that was cut off is never seen.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from yolojax.records import TrainState

FOLDER = "checkpoints"


class Restored(NamedTuple):
    """What `Checkpoints.restore` gives back."""

    state: TrainState
    data: dict[str, Any]
    progress: dict[str, Any]


class Checkpoints:
    """The checkpoints of one working directory.

    Args:
        workdir: the run's directory; checkpoints lie in `checkpoints/<step>/`.
        keep: how many of the latest to keep, besides the best.
        asynchronous: write while training goes on.
    """

    def __init__(self, workdir: str | Path, *, keep: int, asynchronous: bool = True):
        policy = checkpoint_managers.AnyPreservationPolicy(
            [
                checkpoint_managers.LatestN(n=keep),
                checkpoint_managers.BestN(
                    get_metric_fn=_fitness,
                    n=1,
                    keep_checkpoints_without_metrics=False,
                ),
            ]
        )
        self._manager = ocp.CheckpointManager(
            Path(workdir).resolve() / FOLDER,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=policy,
                # Without it Orbax writes no metrics, and a resumed run, which cannot
                # tell the best checkpoint, deletes it.
                best_fn=_fitness,
                enable_async_checkpointing=asynchronous,
            ),
            item_handlers=_handlers(),
        )

    def latest_step(self) -> int | None:
        """The newest complete checkpoint's step, or None."""
        return self._manager.latest_step()

    def save(
        self,
        state: TrainState,
        *,
        data: dict[str, Any],
        progress: dict[str, Any],
        fitness: float,
    ) -> None:
        """Start writing a checkpoint of `state`; it is named by `state.step`.

        Args:
            state: the run's state on the devices.
            data: state of the data iterator, of JSON values.
            progress: the loop's bookkeeping, of JSON values.
            fitness: what the best checkpoint has most of; -1 where nothing was
                evaluated yet.
        """
        step = int(state.step)
        if step == self.latest_step():
            return
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(_to_dicts(state)),
                data=ocp.args.JsonSave(data),
                progress=ocp.args.JsonSave(progress),
            ),
            metrics={"fitness": float(fitness)},
        )

    def restore(self, like: TrainState) -> Restored | None:
        """The newest checkpoint, or None if there is none.

        Args:
            like: a state with the wanted structure, types and sharding.

        Raises:
            ValueError: the checkpoint's arrays differ from those of `like`, as when
                the model or the optimiser in the config was changed.
        """
        step = self.latest_step()
        if step is None:
            return None
        target = jax.tree.map(_abstract, _to_dicts(like))
        with _reading(step, self._manager):
            saved = dict(self._manager.item_metadata(step)["state"])
        _check_same_arrays(saved, target, step)
        with _reading(step, self._manager):
            found = self._manager.restore(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardRestore(target),
                    data=ocp.args.JsonRestore(),
                    progress=ocp.args.JsonRestore(),
                ),
            )
        state = _from_dicts(found["state"], like)
        return Restored(state, found["data"], found["progress"])

    def wait(self) -> None:
        """Return when everything is on disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Wait, and release the writer's threads."""
        self._manager.close()


def load_weights(path: str | Path) -> tuple[dict[str, Any], dict[str, Any], int]:
    """The averaged weights of a run, for prediction and evaluation.

    The moving average, or the mean of the last epochs (SWA) where that was better.

    Args:
        path: a working directory (its best checkpoint is taken, else its latest) or
            one checkpoint, `workdir/checkpoints/<step>`.

    Returns:
        The run's config as nested dicts, `{"params", "batch_stats"}` as NumPy arrays,
        and the step.

    Raises:
        ValueError: there is no checkpoint; the message says what is there.
    """
    path = Path(path).resolve()
    if not path.exists():
        raise ValueError(f"no weights at {path}: there is no such file or folder")
    workdir = workdir_of(path)
    wanted = int(path.name) if workdir != path else None
    folder, config_file = workdir / FOLDER, workdir / "config.json"
    if not folder.is_dir() or not config_file.is_file():
        raise ValueError(
            f"no weights at {path}: expected a working directory with config.json and "
            f"{FOLDER}/, or one checkpoint {FOLDER}/<step>"
        )
    options = ocp.CheckpointManagerOptions(
        read_only=True, save_interval_steps=0, create=False
    )
    with ocp.CheckpointManager(
        folder, options=options, item_handlers=_handlers()
    ) as manager:
        steps = sorted(manager.all_steps())
        if not steps or (wanted is not None and wanted not in steps):
            there = f"steps there: {steps}" if steps else "let the run save one first"
            raise ValueError(
                f"no finished checkpoint {wanted or ''} in {folder}; {there}"
            )
        step = steps[-1] if wanted is None else wanted
        if wanted is None:
            best = _progress(manager, step).get("best_step")
            step = best if isinstance(best, int) and best in steps else step
        progress = _progress(manager, step)
        device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        with _reading(step, manager):
            target = jax.tree.map(
                lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device),
                dict(manager.item_metadata(step)["state"]),
            )
            restore = ocp.args.Composite(state=ocp.args.StandardRestore(target))
            state = manager.restore(step, args=restore)["state"]
    # A mean of the last epochs is one only at the end, where it was judged.
    which = progress.get("best_weights", "ema")
    which = which if progress.get("best_step") == step else "ema"
    variables = jax.tree.map(np.asarray, state[which])
    return json.loads(config_file.read_text()), variables, step


def _progress(manager: ocp.CheckpointManager, step: int) -> dict[str, Any]:
    """The loop's bookkeeping of one checkpoint."""
    restore = ocp.args.Composite(progress=ocp.args.JsonRestore())
    with _reading(step, manager):
        return manager.restore(step, args=restore)["progress"]


@contextlib.contextmanager
def _reading(step: int, manager: ocp.CheckpointManager) -> Iterator[None]:
    """Turns what Orbax and its storage raise for damaged files into one message."""
    try:
        yield
    except Exception as error:
        others = [other for other in sorted(manager.all_steps()) if other != step]
        raise ValueError(
            f"checkpoint {step} in {manager.directory} cannot be read: its files are "
            f"damaged or missing ({type(error).__name__}). Remove its folder to go on "
            f"from another one; the others are {others or 'none'}"
        ) from error


def has_checkpoint(workdir: str | Path) -> bool:
    """Whether a finished checkpoint lies in the working directory."""
    folder = Path(workdir) / FOLDER
    # What is being written, or was cut off, has a longer name.
    return folder.is_dir() and any(path.name.isdigit() for path in folder.iterdir())


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
    checkpoints.save(state, data={}, progress={"best_step": 0}, fitness=-1.0)
    checkpoints.close()


def workdir_of(path: str | Path) -> Path:
    """The working directory that a path to weights is, or lies in."""
    path = Path(path).resolve()
    is_step = path.parent.name == FOLDER and path.name.isdigit()
    return path.parent.parent if is_step else path


def _fitness(metrics: Mapping[str, float]) -> float:
    return metrics["fitness"]


def _handlers() -> dict[str, Any]:
    """What reads and writes each item; named, so that a reader knows before it asks."""
    return {
        "state": ocp.StandardCheckpointHandler(),
        "data": ocp.JsonCheckpointHandler(),
        "progress": ocp.JsonCheckpointHandler(),
    }


def _to_dicts(state: TrainState) -> dict[str, Any]:
    """The state as nested dicts; the optimiser's leaves are keyed by their path.

    What only some runs have is left out where it is empty, so that a checkpoint that
    is older than the field can be read.
    """
    optional = TrainState._field_defaults
    tree = {
        k: v
        for k, v in state._asdict().items()
        if k not in optional or jax.tree.leaves(v)
    }
    leaves, _ = jax.tree_util.tree_flatten_with_path(state.opt_state)
    tree["opt_state"] = {jax.tree_util.keystr(path): leaf for path, leaf in leaves}
    return tree


def _from_dicts(tree: dict[str, Any], like: TrainState) -> TrainState:
    """The inverse of `_to_dicts`."""
    leaves, structure = jax.tree_util.tree_flatten_with_path(like.opt_state)
    values = [tree["opt_state"][jax.tree_util.keystr(path)] for path, _ in leaves]
    opt_state = jax.tree_util.tree_unflatten(structure, values)
    return like._replace(**{**tree, "opt_state": opt_state})


def _abstract(leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)


def _check_same_arrays(saved: Any, target: Any, step: int) -> None:
    def shapes(tree: Any) -> dict[str, tuple[int, ...]]:
        leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
        return {jax.tree_util.keystr(path): tuple(x.shape) for path, x in leaves}

    before, now = shapes(saved), shapes(target)
    if before == now:
        return
    differing = sorted(
        k for k in before.keys() | now.keys() if before.get(k) != now.get(k)
    )
    shown = "; ".join(
        f"{k}: saved {before.get(k, 'nothing')}, config {now.get(k, 'nothing')}"
        for k in differing[:5]
    )
    raise ValueError(
        f"checkpoint {step} does not fit the config: {len(differing)} arrays differ "
        f"({shown}). Use another --workdir, or the config that the run was started with"
    )
