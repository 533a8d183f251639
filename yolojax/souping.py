"""Model soups: the weights of several checkpoints, averaged.

Source: Wortsman et al. 2022, arXiv:2203.05482, uniform soup and Recipe 1, greedy soup.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from yolojax import (
    averaging,
    control,
    datasets,
    evaluating,
    experiment,
    folding,
    inference,
    run_lock,
    settings,
)
from yolojax.class_file import write_classes
from yolojax.engine import checkpoint, step_folder
from yolojax.engine.log import write_json
from yolojax.inference import Loaded

Score = Callable[[Any], float]


@dataclasses.dataclass(frozen=True)
class Soup:
    """A mean of weights.

    Attributes:
        variables: `params` and `batch_stats`.
        names: what it is made of.
        score: on val; None where it was not evaluated.
    """

    variables: dict[str, Any]
    names: tuple[str, ...]
    score: float | None


def mean_variables(several: Sequence[Any]) -> Any:
    """The mean of trees of arrays, computed in float64."""

    def mean(*leaves: Any) -> np.ndarray:
        total = np.sum([np.asarray(leaf, np.float64) for leaf in leaves], axis=0)
        return (total / len(leaves)).astype(np.asarray(leaves[0]).dtype)

    return jax.tree.map(mean, *several)


def greedy_soup(
    names: Sequence[str],
    several: Sequence[Any],
    scores: Sequence[float],
    *,
    mix: Callable[[Sequence[Any]], Any],
    score: Score,
) -> Soup:
    """The soup that takes an ingredient in where it makes it no worse.

    Args:
        names: of the ingredients.
        several: their variables.
        scores: on held-out data, more being better.
        mix: from ingredients to the variables of their soup.
        score: of variables, on the same data.

    Source: Wortsman et al. 2022, Recipe 1.
    """
    order = np.argsort(-np.asarray(scores), kind="stable").tolist()
    taken: list[int] = order[:1]
    best, variables = scores[taken[0]], several[taken[0]]
    for candidate in order[1:]:
        mixed = mix([several[i] for i in (*taken, candidate)])
        if (found := score(mixed)) >= best:
            taken, best, variables = [*taken, candidate], found, mixed
    return Soup(variables, tuple(str(names[i]) for i in taken), best)


def make_soup(
    workdir: str | Path,
    output: str | Path,
    *,
    checkpoints: Sequence[str] = (),
    method: str = "greedy",
    recompute: bool = False,
) -> str:
    """Average checkpoints of a run, or of runs that began from the same weights.

    Args:
        workdir: the run, whose val set and `checkpoint.best` judge.
        output: gets a working directory with the soup, and soup.json.
        checkpoints: steps of the run, or paths of runs and checkpoints; empty: all
            that the run kept.
        method: which one to write, `greedy` or `uniform`; both are evaluated.
        recompute: give soups batch statistics over the training pictures; else they
            have the mean of their ingredients', which does for those of one run.

    Returns:
        A table of the ingredients and soups.

    Raises:
        ValueError: fewer than two checkpoints, or they do not fit each other; nothing
            to evaluate a greedy soup on; `output` is in use.
    """
    workdir, output = Path(workdir), Path(output)
    if method not in ("greedy", "uniform"):
        raise ValueError(f"--method is greedy or uniform, not {method!r}")
    _check_free(output)
    paths = _paths(workdir, checkpoints)
    names = [str(path) for path in paths]
    loaded = [inference.load(path) for path in paths]
    first = loaded[0]
    for name, other in zip(names, loaded, strict=True):
        same = jax.tree.structure(other.variables) == jax.tree.structure(
            first.variables
        ) and jax.tree.map(np.shape, other.variables) == jax.tree.map(
            np.shape, first.variables
        )
        if not same or other.class_names != first.class_names:
            raise ValueError(f"{name} has another network or classes than {names[0]}")
    if not control.has_val(first.settings) and method == "greedy":
        raise ValueError(
            "a greedy soup needs config.data.val; or give --method uniform"
        )
    several = [one.variables for one in loaded]
    mix = _make_mix(workdir, first) if recompute else mean_variables
    uniform = Soup(mix(several), tuple(names), None)
    lines, soups = [], {"uniform": uniform}
    if control.has_val(first.settings):
        score, metric = make_score(first)
        scores = [score(variables) for variables in several]
        lines = [f"{s:10.4f}  {n}" for s, n in zip(scores, names, strict=True)]
        soups["uniform"] = dataclasses.replace(uniform, score=score(uniform.variables))
        soups["greedy"] = greedy_soup(names, several, scores, mix=mix, score=score)
        lines += [
            f"{soup.score:10.4f}  {kind} soup of {len(soup.names)}"
            for kind, soup in soups.items()
        ]
        lines.insert(0, f"{metric:>10}")
    chosen = soups[method]
    _write(output, first, chosen, method)
    return "\n".join([*lines, f"written: the {method} soup to {output}"])


def _paths(workdir: Path, checkpoints: Sequence[str]) -> list[Path]:
    folder = workdir / checkpoint.FOLDER
    if not folder.is_dir():
        raise ValueError(f"--workdir {workdir} is no run's directory: no {folder}")
    paths = [folder / str(step) for step in step_folder.steps_in(folder)]
    if checkpoints:
        kept = ", ".join(path.name for path in paths)
        paths = [folder / n if n.isdigit() else Path(n) for n in checkpoints]
        for path in paths:
            if not path.exists():
                raise ValueError(
                    f"--checkpoints: there is no {path}. {workdir} has the steps {kept}"
                )
    if len(paths) < 2:
        raise ValueError(
            f"a soup needs two checkpoints or more, found {len(paths)} in {folder}. "
            f"Keep more with config.checkpoint.keep, or name them: --checkpoints"
        )
    return paths


def make_score(loaded: Loaded) -> tuple[Score, str]:
    """A function from variables to their score on val, and the name of the metric.

    That of `checkpoint.best`; fitness where it is a loss.
    """
    chosen = control.make_judges(loaded.settings).best
    metric = chosen if chosen.higher else control.FITNESS
    source, fold = folding.open_evaluated(loaded.settings)
    data = datasets.look_at_pictures(loaded.settings, source)
    data = folding.held_out_part(fold, data)
    evaluation = evaluating.make_evaluation(
        loaded.settings, loaded.model, loaded.mesh, data
    )

    def score(variables: Any) -> float:
        return metric.score(evaluation(variables))

    return score, metric.name


def _make_mix(workdir: Path, loaded: Loaded) -> Callable[[Sequence[Any]], Any]:
    """Means with batch statistics over the training pictures."""
    run = experiment.build(loaded.settings, workdir=workdir)
    feed = run.feed()
    feed.fill(None)
    recompute = averaging.make_recompute(run, feed)

    def mix(several: Sequence[Any]) -> Any:
        mean = mean_variables(several)
        statistics = jax.tree.map(np.asarray, recompute(mean))
        return {**mean, "batch_stats": statistics}

    return mix


def _check_free(output: Path) -> None:
    if (output / "config.json").exists() or checkpoint.has_checkpoint(output):
        raise ValueError(f"{output} holds a run already; give another --output")


def _write(output: Path, loaded: Loaded, soup: Soup, method: str) -> None:
    with run_lock.held(output):
        _check_free(output)
        settings.write_config(loaded.settings, output)
        write_classes(loaded.class_names, loaded.category_ids, output)
        checkpoint.save_weights(output, soup.variables)
        content = {"method": method, "checkpoints": soup.names, "score": soup.score}
        write_json(output / "soup.json", content)
