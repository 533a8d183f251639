"""The data sets of a config: opened, looked at, and cut into batches."""

from __future__ import annotations

import collections
import dataclasses
import functools
import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from yolojax import decoding, lookup
from yolojax.augment.mirrored import mirror_note
from yolojax.data import check, pipeline
from yolojax.data.report import Report
from yolojax.data.sampling import SAMPLERS, fraction_of
from yolojax.data.sources import SOURCES
from yolojax.data.sources.base import PATHS
from yolojax.data.sources.folder import FOLDER_NAMES, find_deeper
from yolojax.data.sources.matched import MatchedSource
from yolojax.data.weighing import WeighedBatches, weights_of_losses
from yolojax.ops.letterbox import crop_shape

Sampler = Callable[..., np.ndarray | None]


@dataclasses.dataclass(frozen=True)
class Data:
    """One part of a data set, read and checked.

    Attributes:
        source: an entry of `SOURCES`.
        keep: int64 indices of the pictures that can be read.
        report: what is wrong with it.
        white: of its 16-bit images, the value that is white as far as they tell; 0
            where there are none.
    """

    source: Any
    keep: np.ndarray
    report: Report
    white: int = 0


def num_threads(settings: Mapping[str, Any]) -> int:
    """The number of threads that decode; 0 in the config takes one a core."""
    return settings["data"]["num_threads"] or (os.cpu_count() or 2)


def image_size_of(settings: Mapping[str, Any]) -> tuple[int, int]:
    """The (height, width) that the network sees.

    Raises:
        ValueError: not one or two positive numbers.
    """
    size = settings["image_size"]
    fine = all(isinstance(side, int) and side > 0 for side in size)
    if len(size) not in (1, 2) or not fine:
        raise ValueError(
            f"config.image_size must be one or two positive integers (height, width), "
            f"not {size}"
        )
    return int(size[0]), int(size[-1])


def open_source(settings: Mapping[str, Any], part: str) -> Any:
    """Read the labels of `data.train`, `data.val` or `data.unlabelled`.

    Raises:
        ValueError: a wrong name, argument or path, or a data set that is empty or, but
            for `data.unlabelled`, has no class.
    """
    arguments = dict(settings["data"][part])
    where = f"config.data.{part}"
    if "source" not in arguments:
        raise ValueError(
            f"{where} needs source=...; choices: {', '.join(sorted(SOURCES))}"
        )
    name = arguments.pop("source")
    source_class = lookup.pick(SOURCES, name, "source")
    lookup.check_arguments(source_class, arguments, f"{where} (source {name!r})")
    if name == "csv":
        arguments = _whole_tables(settings, part, arguments)
    if part == "unlabelled" and arguments.get("split", "train") == "train":
        # There is nothing to keep a part for.
        arguments = _whole(source_class) | arguments
    root = settings["data"]["root"]
    for key in PATHS:
        if root and isinstance(arguments.get(key), str):
            arguments[key] = os.path.join(root, arguments[key])
    try:
        source = source_class(**arguments)
    except ValueError as error:
        if part != "val" or arguments.get("split", "val") != "val":
            raise
        none = "Where there is no val set: c.data.val = ConfigDict()"
        deeper = _deeper_classes(settings, name, arguments, part)
        raise ValueError("\n".join(filter(None, (str(error), deeper, none)))) from error
    if part != "unlabelled" and not source.class_names:
        advice = _other_layout(name, arguments, part) or (
            "Pictures without labels are for config.data.unlabelled, or to predict on."
        )
        raise ValueError(
            f"{where} (source {name!r}): {len(source)} pictures, but none has a label. "
            f"{advice}\n{source.report.render()}"
        )
    alone = len(source.class_names) == 1 and not getattr(source, "multi_label", True)
    if part != "unlabelled":
        _check_depth(settings, name, arguments, part, source.class_names)
    if part == "train" and alone:
        source.report.note(
            "only one class",
            file=arguments.get("root", ""),
            message=f"{source.class_names[0]!r}; there is nothing to tell apart. Is "
            "data.root one folder too deep?",
        )
    if part == "train":
        try:
            note = mirror_note(settings["augment"]["policy"], source.class_names)
        except (ValueError, TypeError):
            note = ""  # the policy's own check says what is wrong with it
        if note:
            source.report.note("class that a mirror changes", message=note)
    return source


def _check_depth(
    settings: Mapping[str, Any],
    name: str,
    arguments: Mapping[str, Any],
    part: str,
    class_names: Sequence[str],
) -> None:
    """Check that the only class, or those called like splits, are no level too high.

    Raises:
        ValueError: the class folders lie deeper; says which root to give.
    """
    splits = {alias for aliases in FOLDER_NAMES.values() for alias in aliases}
    high = len(class_names) == 1 or splits.issuperset(n.lower() for n in class_names)
    if arguments.get("classes") or not high:
        return
    where = f"config.data.{part} (source {name!r}): found "
    where += f"the classes {lookup.listed(class_names, 4)}" * (len(class_names) > 1)
    where += f"one class, {class_names[0]!r}" * (len(class_names) == 1)
    keep = f"If not: --config.data.{part}.classes={tuple(class_names)}"
    # The classes are those of train, whichever the split.
    own = {**arguments, "split": "train"}
    if deeper := _deeper_classes(settings, name, own, part):
        raise ValueError(f"{where}. {deeper}. {keep}")
    if name == "filename" and (other := _other_layout(name, arguments, part)):
        raise ValueError(f"{where}. {other}. {keep}")


def _deeper_classes(
    settings: Mapping[str, Any], name: str, arguments: Mapping[str, Any], part: str
) -> str:
    """Which root to give where class folders lie deeper; else nothing."""
    if name != "folder":
        return ""
    try:
        found = find_deeper(arguments["root"], arguments.get("split", "train"))
    except ValueError:
        return ""
    if found is None:
        return ""
    text = f"{found.folder} holds {lookup.listed(found.names, 4)}. If these are the "
    if found.root:
        flag = "config.data.root"
        folder = str(found.folder)
        if settings["data"][part].get("root"):
            flag, folder = f"config.data.{part}.root", os.path.abspath(folder)
        return f"{text}classes, or splits: --{flag}={folder}"
    return (
        f"{text}classes, move them one folder up, or: "
        f"--config.data.{part}.root={os.path.abspath(found.folder)} "
        f"--config.data.{part}.split=train --config.data.{part}.fractions='(1.0,)'"
    )


def match_classes(source: Any, like: Any, *, part: str, of: str = "train") -> Any:
    """A source with the classes of another one, which are matched by their names.

    Args:
        source: labelled pictures.
        like: has `class_names` and `category_ids`, such as the source of train.
        part: what the source is, for messages.
        of: what the other is.

    Returns:
        The source itself where the classes are the same.

    Raises:
        ValueError: it has labels of other classes, or none of the same name.
    """
    if source.class_names == like.class_names:
        return source
    try:
        return MatchedSource(source, like.class_names, like.category_ids)
    except ValueError as error:
        raise ValueError(
            f"{of} has the classes {lookup.listed(like.class_names)}, {part} has "
            f"{lookup.listed(source.class_names)}; they must be the same, in any "
            f"order: {error}"
        ) from error


def _whole(source_class: Any) -> dict[str, Any]:
    """The argument by which a source that parts its pictures keeps all of them."""
    parts = "fractions" in inspect.signature(source_class).parameters
    return {"fractions": (1.0,)} if parts else {}


def _other_layout(name: str, arguments: Mapping[str, Any], part: str) -> str:
    """What to do where the pictures lie as another source takes them; else nothing."""
    other = {"filename": "folder", "folder": "filename"}.get(name)
    if other is None:
        return ""
    shared = ("root", "split", "fractions", "seed")
    try:
        found = SOURCES[other](**{k: arguments[k] for k in shared if k in arguments})
    except ValueError:
        return ""
    if len(found.class_names) < 2:
        return ""
    names = lookup.listed(found.class_names, 4)
    where = "folders are" if other == "folder" else "files are named after"
    return (
        f"Its {where} classes ({names}): take --config.data.{part}.source={other}, for "
        "train and val alike"
    )


def _whole_tables(
    settings: Mapping[str, Any], part: str, arguments: dict[str, Any]
) -> dict[str, Any]:
    """Train and val with a table each take all of it, and have train's classes."""
    train, val = (settings["data"][p] for p in ("train", "val"))
    apart = train.get("csv") and val.get("csv") and train["csv"] != val["csv"]
    if not apart:
        return arguments
    of_part = {"train": {"fractions": (1.0,)}, "val": {"classes_from": train["csv"]}}
    return of_part.get(part, {}) | arguments


def look_at_pictures(
    settings: Mapping[str, Any],
    source: Any,
    *,
    cache_path: Path | None = None,
    digests: dict[str, str] | None = None,
    progress: Any = None,
) -> Data:
    """Read every picture of a source; leave out what cannot be read.

    Args:
        settings: a complete config.
        source: from `open_source`.
        cache_path: where to remember what was read of which file.
        digests: pictures of other parts, see `check.scan`.
        progress: `progress(done, total)`, called now and then.

    Raises:
        ValueError: no picture can be read, or, with `data.strict`, there is anything
            to report.
    """
    report = Report()
    report.merge(source.report)
    chosen = settings["data"]
    if hasattr(source, "decoding"):
        source.decoding = decoding.decoding_of(settings)
    whites: collections.Counter[int] = collections.Counter()
    found, keep = check.scan(
        source,
        num_threads=num_threads(settings),
        cache_path=cache_path,
        digests=digests,
        whites=whites,
        progress=progress,
    )
    report.merge(found)
    white = max(whites, default=0)
    decoding.set_white([source], chosen["white"] or white)
    check.note_white(whites, chosen["white"], report)
    if settings["data"]["strict"]:
        report.raise_if_any()
    return Data(source, keep, report, white)


def parts_by_name(train: Data, val: Data | None) -> dict[str, tuple[Any, np.ndarray]]:
    """Sources and pictures by what they are for: train, unlabelled and val."""
    labelled = getattr(train.source, "num_labelled", len(train.source))
    parts = {
        "train": (train.source, train.keep[train.keep < labelled]),
        "unlabelled": (train.source, train.keep[train.keep >= labelled]),
    }
    if val is not None:
        parts["val"] = (val.source, val.keep)
    return {name: part for name, part in parts.items() if len(part[1])}


def sampler_of(settings: Mapping[str, Any]) -> tuple[Sampler, float]:
    """How often pictures come in an epoch, from their classes; and the share used.

    Raises:
        ValueError: an unknown sampler or argument, or a fraction out of range.
    """
    arguments = dict(settings["data"]["sampling"])
    name = arguments.pop("name", "shuffle")
    fraction = arguments.pop("fraction", 1.0)
    sampler = lookup.pick(SAMPLERS, name, "sampler")
    settable = functools.partial(sampler, [])  # not its labels
    lookup.check_arguments(settable, arguments, f"config.data.sampling ({name!r})")
    chosen = functools.partial(sampler, **arguments)
    try:
        for key, value in {"fraction": fraction, **arguments}.items():
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number and key != "by":
                raise ValueError(f"{key} must be a number, not {value!r}")
        fraction_of(0, 1, fraction)
        chosen([np.zeros(1, np.int64)])
    except ValueError as error:
        raise ValueError(f"config.data.sampling ({name!r}): {error}") from error
    parts = [stage.get("data_fraction", 1) for stage in settings["stages"]]
    if arguments.get("by") == "loss" and min([1, *parts]) < 1:
        raise ValueError(
            f"config.data.sampling ({name!r}): by='loss' needs the same pictures in "
            "every epoch, but config.stages has a data_fraction below 1"
        )
    return chosen, fraction


def weighed(settings: Mapping[str, Any], batches: Any, keep: np.ndarray) -> Any:
    """The training stream, weighed by losses where `data.sampling` says so.

    Args:
        settings: a complete config, checked by `sampler_of`.
        batches: what the host or the devices give.
        keep: the pictures used, by their index in the source.
    """
    arguments = settings["data"]["sampling"]
    if arguments.get("by") != "loss":
        return batches
    given = {key: arguments[key] for key in ("power", "least") if key in arguments}
    weigh = functools.partial(weights_of_losses, **{"power": 1.0, **given})
    return WeighedBatches(batches, weigh, keep)


def sampled(settings: Mapping[str, Any], data: Data) -> tuple[Data, np.ndarray | None]:
    """The part of a data set to train on, and how often each of its pictures comes.

    Raises:
        ValueError: anything wrong with `data.sampling`.
    """
    sampler, fraction = sampler_of(settings)
    part = fraction_of(settings["seed"], len(data.keep), fraction)
    data = dataclasses.replace(data, keep=data.keep[part])
    examples = (data.source[index] for index in data.keep.tolist())
    return data, sampler([e.labels[~e.crowd] for e in examples])


def make_eval_batches(
    settings: Mapping[str, Any], data: Data, *, stride: int
) -> pipeline.EvalBatches:
    """The batches of one pass over a data set, its pictures as `letterbox` says.

    Args:
        settings: a complete config.
        data: the pictures.
        stride: the largest of the detector.
    """
    chosen = settings["evaluate"]
    arguments: dict[str, Any] = {
        "image_size": image_size_of(settings),
        "batch_size": chosen["batch_size"] or settings["batch_size"],
        "num_threads": num_threads(settings),
        "shard": (jax.process_index(), jax.process_count()),
    }
    if chosen["letterbox"] == "rectangular":
        return pipeline.make_rectangular_batches(
            data.source, data.keep, stride=stride, **arguments
        )
    return pipeline.make_eval_batches(
        data.source, data.keep, place=place_of(settings), **arguments
    )


def place_of(settings: Mapping[str, Any]) -> pipeline.Place:
    """How pictures lie on their canvas where all batches have the same.

    Args:
        settings: a complete config.
    """
    cropped = settings["evaluate"]["letterbox"] == "centre_crop"
    return crop_shape if cropped else pipeline.fitted_place


def of_one_shape(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The config, but that all batches of an evaluation have the same shape.

    Args:
        settings: a complete config.
    """
    chosen = settings["evaluate"]
    if chosen["letterbox"] != "rectangular":
        return dict(settings)
    return {**settings, "evaluate": {**chosen, "letterbox": "square"}}
