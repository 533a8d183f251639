"""The variables that training starts from: fresh ones, or trained ones that fit."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from yolojax.engine import checkpoint
from yolojax.models.classifier import Classifier
from yolojax.models.detector import MODELS, build_model
from yolojax.models.network import Network
from yolojax.trees import flatten, match_mask, unflatten, unflatten_variables
from yolojax.weights.darknet import find_pair, read_darknet
from yolojax.weights.mapping import listed, renamed
from yolojax.weights.published import read_published

_HEAD = "params/head/"
# Where classes are told apart; such a part of a classifier may hold statistics, too.
_HEADS = (
    *(_HEAD, "params/auxiliary/"),
    *("batch_stats/head/", "batch_stats/auxiliary/"),
)
_BACKBONE = ("params/backbone/", "batch_stats/backbone/")
# Below this share of fitting arrays the weights are of another network.
_ANOTHER = 0.1


class Start(NamedTuple):
    """Variables to start from, and what is worth saying about them."""

    variables: dict[str, Any]
    notes: tuple[str, ...]


class _Trained(NamedTuple):
    name: str
    variables: dict[str, Any]
    anchors: np.ndarray | None
    ends: str = ""


def first_variables(
    model: Network,
    *,
    seed: int,
    kernels: str = "",
    weights: str = "",
    skip: Sequence[str] = (),
    workdir: Path | None = None,
) -> Start:
    """What training starts from.

    Args:
        model: the network to train.
        seed: of the fresh values.
        kernels: how kernels are drawn; see `models.initial.draw_variables`.
        weights: a working directory, a checkpoint, a PyTorch, `.safetensors` or
            Darknet `.weights` file; for a Darknet network also the first part of its
            `.weights`, such as `darknet53.conv.74`; empty: start from scratch.
        skip: regular expressions; parameters and statistics whose path one of them is
            found in, as in `head/level3/kernel`, keep their fresh values.
        workdir: of the run; where a checkpoint lies in it, the run goes on from that,
            and `weights` is not read.

    Returns:
        Variables, float32. A head that tells another number of classes apart stays
        fresh as a whole, and the notes say so.

    Raises:
        ValueError: unknown `kernels`, `weights` cannot be read, a pattern matches
            nothing, or the weights do not fit otherwise; the misfits are counted, and
            the first are named.
    """
    fresh = model.init(seed, kernels=kernels)
    if workdir is not None and checkpoint.has_checkpoint(workdir):
        return Start(fresh, ())
    if not weights:
        if skip:
            raise ValueError("config.init.skip is given without config.init.weights")
        return Start(fresh, ())
    trained = _read(weights, model)
    wanted, given = flatten(fresh), flatten(trained.variables)
    skipped = _skipped(fresh, skip)
    notes = []
    if trained.ends:
        skipped |= wanted.keys() - given.keys()
        notes.append(f"{weights} ends after {trained.ends}; later layers are fresh")
    head, note = _other_classes(model, wanted, given, skipped)
    if note:
        skipped |= head
        notes.append(note)
    unused = [
        path
        for path in given
        if path not in wanted
        and not any(re.search(pattern, path.partition("/")[2]) for pattern in skip)
    ]
    if model.family == "backbone" and not any("/neck/" in path for path in given):
        skipped |= {path for path in wanted if not path.startswith(_BACKBONE)}
        unused = [path for path in unused if not path.startswith(_HEADS)]
        notes.append("neck and head are fresh: the weights are those of a classifier")
    _check_fit(model, trained, wanted, given, skipped, unused, weights)
    taken = {
        path: fresh if path in skipped else np.asarray(given[path], np.float32)
        for path, fresh in wanted.items()
    }
    count = len(wanted) - len(skipped)
    notes.insert(
        0,
        f"starting from {weights} ({trained.name}): {count} of {len(wanted)} arrays "
        f"taken, {len(skipped)} fresh",
    )
    if trained.anchors is not None and not _same_anchors(trained.anchors, model):
        notes.append(
            "the weights were trained with other anchors: set config.model.anchors to "
            f"{trained.anchors.tolist()} to keep them"
        )
    return Start(unflatten_variables(taken), tuple(notes))


def _read(weights: str, model: Any) -> _Trained:
    path = Path(weights)
    if path.is_file() and model.family == "darknet" and _is_alone(path):
        part = read_darknet(path, model, partial=True)
        return _Trained(model.name, part.variables, None, part.ends)
    if path.exists() and not path.is_dir():
        found = read_published(weights)
        return _from_model(found.model, found.variables, model)
    config, variables, _ = checkpoint.load_weights(weights)
    arguments = {**config["model"], "num_classes": 1}
    if arguments.get("name") in MODELS:
        return _from_model(build_model(**arguments), variables, model)
    return _Trained(arguments.get("name", "?"), variables, None)


def _from_model(source: Any, variables: dict[str, Any], model: Any) -> _Trained:
    """Variables of `source`; a YOLOv5's fit its description, too, and the reverse."""
    if {source.family, model.family} == {"yolov5", "yaml"}:
        variables = renamed(variables, source, model)
    return _Trained(source.name, variables, getattr(source, "anchors", None))


def _is_alone(path: Path) -> bool:
    """Whether a file holds Darknet's weights, with no description beside it."""
    if path.suffix in (".pt", ".pth", ".safetensors", ".cfg"):
        return False
    try:
        find_pair(path)
    except ValueError:
        return True
    return False


def _skipped(fresh: Mapping[str, Any], skip: Sequence[str]) -> set[str]:
    """Full paths of what the patterns name; they look at paths without `params/`."""
    names = {path.partition("/")[2]: path for path in flatten(fresh)}
    mask = flatten(match_mask(unflatten(names), skip))
    return {names[name] for name, matched in mask.items() if matched}


def _other_classes(
    model: Any,
    wanted: Mapping[str, np.ndarray],
    given: Mapping[str, np.ndarray],
    skipped: set[str],
) -> tuple[set[str], str]:
    """What is made anew where the heads differ in their outputs alone, and a note.

    Of a detector that is the head, of a classifier the layers that give logits.
    """
    if isinstance(model, Classifier):
        return _other_logits(model, wanted, given, skipped)
    head = [p for p in wanted if p.startswith(_HEAD) and p not in skipped]
    if not head or not all(path in given for path in head):
        return set(), ""
    shapes = [(np.shape(wanted[path]), np.shape(given[path])) for path in head]
    if any(len(a) != len(b) or a[:-1] != b[:-1] for a, b in shapes):
        return set(), ""
    ours, theirs = shapes[0][0][-1], shapes[0][1][-1]
    if ours == theirs:
        return set(), ""
    anchors = model.anchors.shape[1]
    classes, rest = divmod(theirs, anchors)
    there = f"{theirs} outputs" if rest or classes < 6 else f"{classes - 5} classes"
    note = (
        f"the head is made anew: {there} in the weights, {model.num_classes} classes "
        f"here"
    )
    return set(head), note


def _other_logits(
    model: Classifier,
    wanted: Mapping[str, np.ndarray],
    given: Mapping[str, np.ndarray],
    skipped: set[str],
) -> tuple[set[str], str]:
    """`_other_classes` of a classifier; its hidden layers are kept."""
    layers, theirs = set(), 0
    for path, array in wanted.items():
        if not path.startswith(_HEADS) or path in skipped or path not in given:
            continue
        ours, came = np.shape(array), np.shape(given[path])
        if ours == came or ours[:-1] != came[:-1] or ours[-1] != model.num_classes:
            continue
        layers.add(path.rpartition("/")[0])
        theirs = came[-1]
    note = (
        f"the last layer is made anew: {theirs} classes in the weights, "
        f"{model.num_classes} here"
    )
    paths = {p for p in wanted if p.rpartition("/")[0] in layers} - skipped
    return paths, note if layers else ""


def _check_fit(
    model: Network,
    trained: _Trained,
    wanted: Mapping[str, np.ndarray],
    given: Mapping[str, np.ndarray],
    skipped: set[str],
    unused: list[str],
    weights: str,
) -> None:
    missing = [p for p in wanted if p not in given and p not in skipped]
    misshaped = [
        f"{p}: expected {np.shape(wanted[p])}, came {np.shape(given[p])}"
        for p in wanted
        if p in given and p not in skipped and np.shape(wanted[p]) != np.shape(given[p])
    ]
    kinds = (("missing", missing), ("unused", unused), ("mis-shaped", misshaped))
    if not any(items for _, items in kinds):
        return
    needed = len(wanted.keys() - skipped)
    fitting = needed - len(missing) - len(misshaped)
    if fitting < _ANOTHER * needed:
        advice = (
            f"this is another network than config.model's {model.name}: set "
            f"config.model to that of the weights ({trained.name}), or take other "
            f"weights"
        )
    else:
        advice = "config.init.skip keeps parameters fresh"
    problems = [listed(kind, items, limit=3) for kind, items in kinds if items]
    raise ValueError(
        f"the weights in {weights} ({trained.name}) do not fit {model.name} with "
        f"{model.num_classes} classes, {fitting} of {needed} arrays do; {advice}: "
        + "; ".join(problems)
    )


def _same_anchors(anchors: np.ndarray, model: Any) -> bool:
    # Files in half precision have rounded them.
    same_shape = anchors.shape == model.anchors.shape
    return same_shape and np.allclose(anchors, model.anchors, rtol=2e-3)
