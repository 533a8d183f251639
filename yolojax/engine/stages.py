"""Training in stages: which step belongs to which, and what crosses their borders.

A run without stages is one stage. Each has its own frozen parameters, share of the
data and rate, and its schedule starts anew; parameters, averages and the count of
steps and epochs go on. At a border the optimiser keeps what it knows of parameters
that are trained on both sides.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from yolojax import lookup
from yolojax.optim import freeze
from yolojax.optim.build import Optimizer
from yolojax.optim.freeze import NOTHING, Frozen, find_frozen
from yolojax.optim.transforms import AccumulateState
from yolojax.optim.wrappers import PlateauState
from yolojax.records import TrainState
from yolojax.trees import flatten

KEYS = ("epochs", "freeze", "data_fraction", "lr_scale")
FREEZE_KEYS = ("match", "layers", "statistics")


@dataclasses.dataclass(frozen=True)
class Stage:
    """One part of a run.

    Attributes:
        epochs: passes over its part of the data.
        frozen: what it leaves as it is.
        data_fraction: share of the pictures, always the first of one random order.
        lr_scale: factor of the learning rates.
        steps_per_epoch: steps of one pass.
        first_step: steps done before it.
        first_epoch: epochs done before it.
    """

    epochs: int
    frozen: Frozen = NOTHING
    data_fraction: float = 1.0
    lr_scale: float = 1.0
    steps_per_epoch: int = 1
    first_step: int = 0
    first_epoch: int = 0

    @property
    def end(self) -> int:
        """Steps done after it."""
        return self.first_step + self.epochs * self.steps_per_epoch


def read_stages(
    settings: Mapping[str, Any],
    variables: Mapping[str, Any],
    numbers: Mapping[str, int],
) -> tuple[Stage, ...]:
    """The stages of a config; one where it lists none.

    Args:
        settings: `stages`, `epochs` and `freeze`, which is what a stage freezes that
            does not say anything else.
        variables: of the network, or their shapes.
        numbers: see `optim.freeze.find_frozen`.

    Raises:
        ValueError: an unknown key, a value out of range, or something frozen that is
            not there.
    """

    def frozen(chosen: Mapping[str, Any], where: str) -> Frozen:
        return find_frozen(variables, numbers, **chosen, where=where)

    default = frozen(settings["freeze"], "config.freeze")
    if not settings["stages"]:
        return (Stage(settings["epochs"], default),)
    stages = []
    for number, given in enumerate(settings["stages"]):
        where = f"config.stages[{number}]"
        _check_keys(given, KEYS, where)
        chosen = dict(given)
        if "epochs" not in chosen:
            raise ValueError(f"{where} needs epochs")
        _check_number(f"{where}.epochs", chosen["epochs"], int, 1, math.inf)
        for key, most in (("data_fraction", 1.0), ("lr_scale", math.inf)):
            value = chosen.get(key, 1.0)
            _check_number(f"{where}.{key}", value, (int, float), 0, most, above=True)
        part = chosen.pop("freeze", None)
        if part is None:
            stages.append(Stage(**chosen, frozen=default))
            continue
        _check_keys(part, FREEZE_KEYS, f"{where}.freeze")
        layers = part.get("layers", 0)
        _check_number(f"{where}.freeze.layers", layers, int, 0, math.inf)
        stages.append(Stage(**chosen, frozen=frozen(part, f"{where}.freeze")))
    return tuple(stages)


def _check_keys(given: Any, known: Sequence[str], where: str) -> None:
    if not isinstance(given, Mapping):
        raise ValueError(f"{where} must be a dict, not {given!r}")
    for key in given:
        if key not in known:
            raise ValueError(
                f"{where} has an unknown key {key!r}.{lookup.hint(key, known)} "
                f"Keys here: {', '.join(known)}"
            )


def _check_number(
    where: str,
    value: Any,
    kind: Any,
    least: float,
    most: float,
    *,
    above: bool = False,
) -> None:
    """Check a number, which may be `least` itself unless it must be `above` it."""
    fits = isinstance(value, kind) and not isinstance(value, bool)
    inside = fits and least <= value <= most and value != math.inf
    if not inside or (above and value == least):
        what = "a whole number" if kind is int else "a number"
        limits = f"{'above' if above else 'at least'} {least}"
        limits += "" if most == math.inf else f", at most {most:g}"
        raise ValueError(f"{where} must be {what}, {limits}, not {value!r}")


def timed(
    stages: Sequence[Stage], steps_of: Callable[[float], int]
) -> tuple[Stage, ...]:
    """The stages with their places in the run.

    Args:
        stages: from `read_stages`.
        steps_of: from a share of the data to the steps of an epoch.
    """
    placed, step, epoch = [], 0, 0
    for stage in stages:
        stage = dataclasses.replace(
            stage,
            steps_per_epoch=steps_of(stage.data_fraction),
            first_step=step,
            first_epoch=epoch,
        )
        placed.append(stage)
        step, epoch = stage.end, epoch + stage.epochs
    return tuple(placed)


def index_at(stages: Sequence[Stage], number: int) -> int:
    """The index of the stage whose step comes after `number` steps."""
    return max(i for i, stage in enumerate(stages) if stage.first_step <= number)


def epochs_before(stages: Sequence[Stage], number: int) -> tuple[int, int]:
    """Whole epochs within the first `number` steps, and the steps since."""
    stage = stages[index_at(stages, number)]
    epochs, rest = divmod(number - stage.first_step, stage.steps_per_epoch)
    return stage.first_epoch + epochs, rest


def step_of_epoch(stages: Sequence[Stage], epoch: int) -> int:
    """Steps of the first `epoch` epochs."""
    if epoch <= 0:
        return epoch * stages[0].steps_per_epoch
    stage = next((s for s in stages if epoch <= s.first_epoch + s.epochs), stages[-1])
    return stage.first_step + (epoch - stage.first_epoch) * stage.steps_per_epoch


def describe(stages: Sequence[Stage], params: Mapping[str, Any]) -> str:
    """The plan as a table, to be printed; empty for a run of one plain stage.

    Args:
        stages: timed; with 0 steps an epoch where their number is not known.
        params: of the network, or their shapes.
    """
    first = stages[0]
    plain = Stage(first.epochs, steps_per_epoch=first.steps_per_epoch)
    if tuple(stages) == (plain,):
        return ""
    sizes = {path: math.prod(leaf.shape) for path, leaf in flatten(params).items()}
    lines = ["stage  epochs  steps  data  rate  frozen"]
    for number, stage in enumerate(stages):
        paths, norms = stage.frozen
        text = "nothing"
        if paths:
            share = sum(sizes[path] for path in paths) / sum(sizes.values())
            text = (
                f"{len(paths)} of {len(sizes)} arrays ({share:.0%} of the parameters)"
            )
            text += f", statistics of {len(norms)} normalisations" if norms else ""
        steps = stage.end - stage.first_step or "-"
        lines.append(
            f"{number:>5}  {stage.epochs:>6}  {steps:>5}  "
            f"{stage.data_fraction:>4g}  {stage.lr_scale:>4g}  {text}"
        )
    return "\n".join(lines)


def cross(state: TrainState, optimizer: Optimizer) -> TrainState:
    """The state for the next stage, whose optimiser is given.

    What the optimiser keeps for a parameter goes on where it is trained before and
    after; gradients that are not used yet are dropped, and a rate that was reduced on
    a plateau starts anew, as every schedule. Where parameters come in again and the
    optimiser has numbers that all parameters share, as Adam its count, all of its
    state starts anew: the old count would be wrong for the new ones.

    Args:
        state: of the stage before.
        optimizer: of the next one.
    """
    trained, _ = freeze.split(state.params, optimizer.frozen.parameters)
    paths, _ = jax.tree_util.tree_flatten_with_path(trained)
    names = tuple(jax.tree_util.keystr(path) for path, _ in paths)
    fresh = optimizer.tx.init(trained)
    sam = optimizer.sam.init(trained) if optimizer.sam else ()
    return state._replace(
        opt_state=_without_sums(_carried(state.opt_state, fresh, names)),
        sam=_carried(state.sam, sam, names),
    )


def _carried(old: Any, fresh: Any, names: tuple[str, ...]) -> Any:
    """`fresh`, with the leaves that `old` has, too, by their paths."""
    there = {
        jax.tree_util.keystr(path): leaf
        for path, leaf in jax.tree_util.tree_flatten_with_path(old)[0]
    }
    leaves, structure = jax.tree_util.tree_flatten_with_path(fresh)
    rows = [
        (jax.tree_util.keystr(path), leaf, anew)
        for (path, leaf), anew in zip(leaves, _of_schedule(fresh), strict=True)
    ]
    keys = {key for key, _, anew in rows if not anew}
    shared = [key for key in keys if not key.endswith(names)]
    if shared and not keys <= there.keys():
        return fresh
    kept = [leaf if anew else there.get(key, leaf) for key, leaf, anew in rows]
    return jax.tree_util.tree_unflatten(structure, kept)


def _of_schedule(opt_state: Any) -> list[bool]:
    """For each leaf whether it is a number of reducing the rate on a plateau."""

    def is_plateau(node: Any) -> bool:
        return isinstance(node, PlateauState)

    def marked(node: Any) -> Any:
        if not is_plateau(node):
            return False
        own = dict.fromkeys(set(node._fields) - {"inner"}, True)
        return node._replace(**own, inner=jax.tree.map(lambda _: False, node.inner))

    return jax.tree.leaves(jax.tree.map(marked, opt_state, is_leaf=is_plateau))


def _without_sums(opt_state: Any) -> Any:
    def is_sum(node: Any) -> bool:
        return isinstance(node, AccumulateState)

    def cleared(node: Any) -> Any:
        if not is_sum(node):
            return node
        return node._replace(total=jax.tree.map(jnp.zeros_like, node.total))

    return jax.tree.map(cleared, opt_state, is_leaf=is_sum)
