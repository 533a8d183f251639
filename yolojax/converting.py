"""Weights from elsewhere into a working directory, and ours out into a file."""

from __future__ import annotations

from pathlib import Path

from yolojax import inference, outputs, run_lock, settings, sizing
from yolojax.class_file import write_classes
from yolojax.engine import checkpoint
from yolojax.printable import printable
from yolojax.trees import flatten
from yolojax.weights import own
from yolojax.weights.mapping import published_names
from yolojax.weights.published import (
    Published,
    count_parameters,
    missing_names,
    placeholder_names,
    read_published,
    write_published,
)


def convert(weights: str | Path, output: str | Path, *, cfg: str = "") -> str:
    """Write the network of a file as a working directory.

    Args:
        weights: a PyTorch, `.safetensors` or Darknet `.weights` file.
        output: gets config.json, classes.json and checkpoints/0.
        cfg: the description of a `.weights` file; by default that beside it.

    Returns:
        A table of what was found.

    Raises:
        ValueError: the file cannot be read or holds another network, or `output` is
            in use.
    """
    weights, output = Path(weights), Path(output)
    if weights.is_dir():
        raise ValueError(
            f"{weights} is a run already: predict and evaluate take it as it is, and "
            f"--to FILE.safetensors or FILE.weights writes its weights in the "
            f"original's form"
        )
    found = read_published(weights, cfg)
    with run_lock.held(output):
        if (output / "config.json").exists() or checkpoint.has_checkpoint(output):
            raise ValueError(f"{output} holds a run already; give another --output")
        settings.write_config(settings.complete(found.settings), output)
        numbers = range(len(found.class_names))
        write_classes(found.class_names, numbers, output)
        checkpoint.save_weights(output, found.variables)
    return describe(weights, found)


def export(weights: str | Path, path: str | Path, *, cfg: str = "") -> str:
    """Write weights in the original's form; see `write_published`.

    Args:
        weights: a working directory, a checkpoint, or a file.
        path: the file to write; reading it gives the same bits.
        cfg: the description, if `weights` is a Darknet `.weights` file; by default
            that beside it.

    Returns:
        Lines that say what was written.

    Raises:
        ValueError: the weights cannot be read, or `path` has another ending.
    """
    outputs.check_inputs([Path(path)], [Path(weights), *[Path(cfg)] * bool(cfg)])
    outputs.check_file(Path(path), "--to")
    change = inference.settings_changes({"devices": 1, "dtype": "float32"})
    loaded = inference.load(weights, change, cfg=cfg)
    written = write_published(
        path, loaded.model, loaded.variables, loaded.class_names, loaded.settings
    )
    numbers, arrays = count_parameters(loaded.variables)
    lines = [
        f"{numbers:,} parameters in {arrays} arrays of {weights} written to {path}"
    ]
    if loaded.model.family == "darknet":
        lines += _beside(Path(path), written, loaded.class_names)
    return "\n".join(lines)


def _beside(
    path: Path, written: tuple[Path, ...], class_names: tuple[str, ...]
) -> list[str]:
    """What became of the files beside a `.weights` file, and of its header."""
    cfg, names = path.with_suffix(".cfg"), path.with_suffix(".names")
    lines = [
        f"{'written' if file in written else 'there already'}: {file}"
        for file in (cfg, names)
        if file == cfg or class_names != placeholder_names(len(class_names))
    ]
    if len(lines) < 2:
        lines.append(
            f"not written: {names}, as the classes have no names; put them there, one "
            f"a line ({len(class_names)} lines)"
        )
    return [*lines, "the header counts pictures seen from 0 again"]


def describe(weights: Path, found: Published) -> str:
    """What a file holds, as a table; the network's arrays have all been found."""
    numbers, arrays = count_parameters(found.variables)
    state = found.contents.state
    besides: set[str] = set()
    if found.model.family != "darknet" and not own.has_own_paths(state):
        taken = tuple(published_names(found.model).values())
        left = (name for name in state if not name.endswith(taken))
        besides = {name.rpartition(".")[2] for name in left}
    names = ", ".join(found.class_names[:6])
    more = ", ..." if len(found.class_names) > 6 else ""
    precision = sorted({str(array.dtype) for array in state.values()})
    statistics = len(flatten(found.variables["batch_stats"]))
    rows = {
        "file": f"{weights}{f', {found.contents.place}' * bool(found.contents.place)}",
        "model": _network(found),
        "parameters": f"{numbers:,} in {arrays} arrays, {statistics} of statistics",
        "precision": ", ".join(precision),
        "missing": "0",
        "unused": f"0, besides {', '.join(sorted(besides))}" if besides else "0",
        "mis-shaped": "0",
        **_strides(found),
        "classes": f"{len(found.class_names)}: {names}{more}",
    } | _darknet_rows(found)
    lines = [f"{key:<12}{printable(value)}" for key, value in rows.items()]
    if names := missing_names(weights, found.model, found.class_names):
        lines.append(names)
    return "\n".join([*lines, *sizing.describe_training(found.model)])


def _strides(found: Published) -> dict[str, str]:
    """The strides of a detector."""
    strides = getattr(found.model, "strides", ())
    return {"strides": ", ".join(map(str, strides))} if strides else {}


def _network(found: Published) -> str:
    """The model and what it was built from."""
    spec, name = found.model.spec, found.model.name
    if found.model.family == "darknet":
        described = found.contents.description["described"]
        return f"{name} ({described}, {len(spec.sections) - 1} layers)"
    if found.model.family == "backbone":
        name = f"{name} on {spec.backbone}"
    known = [key for key in ("width", "depth") if hasattr(spec, key)]
    sizes = ", ".join(f"{key} {getattr(spec, key):g}" for key in known)
    return f"{name} ({sizes})" if sizes else name


def _darknet_rows(found: Published) -> dict[str, str]:
    """What the header of a `.weights` file says, and what is wrong with its numbers."""
    about = found.contents.description
    if "header" not in about:
        return {}
    header = about["header"]
    version = ".".join(map(str, header.version))
    rows = {"darknet": f"version {version}, trained on {header.seen:,} pictures"}
    if about["not_finite"]:
        rows["not finite"] = f"{about['not_finite']:,} numbers"
    return rows
