"""Weights from elsewhere into a working directory, and ours out into a file."""

from __future__ import annotations

from pathlib import Path

from yolojax import inference, settings
from yolojax.engine import checkpoint
from yolojax.trees import flatten
from yolojax.weights.mapping import yolov5_names
from yolojax.weights.published import (
    Published,
    count_parameters,
    read_published,
    write_published,
)


def convert(weights: str | Path, output: str | Path) -> str:
    """Write the detector of a file as a working directory.

    Args:
        weights: a PyTorch or `.safetensors` file.
        output: gets config.json, classes.json and checkpoints/0.

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
            f"--to FILE.safetensors writes its weights under the original's names"
        )
    found = read_published(weights)
    if (output / "config.json").exists() or checkpoint.has_checkpoint(output):
        raise ValueError(f"{output} holds a run already; give another --output")
    settings.write_config(settings.complete(found.settings), output)
    numbers = range(len(found.class_names))
    settings.write_classes(found.class_names, numbers, output)
    checkpoint.save_weights(output, found.variables)
    return describe(weights, found)


def export(weights: str | Path, path: str | Path) -> str:
    """Write weights as a `.safetensors` state dict under the original's names.

    Args:
        weights: a working directory, a checkpoint, or a file.
        path: the file to write; reading it gives the same bits.

    Returns:
        A sentence that says what was written.

    Raises:
        ValueError: the weights cannot be read, or `path` has another ending.
    """
    change = inference.settings_changes({"devices": 1, "dtype": "float32"})
    loaded = inference.load(weights, change)
    write_published(path, loaded.model, loaded.variables, loaded.class_names)
    numbers, arrays = count_parameters(loaded.variables)
    return f"{numbers:,} parameters in {arrays} arrays of {weights} written to {path}"


def describe(weights: Path, found: Published) -> str:
    """What a file holds, as a table; the network's arrays have all been found."""
    numbers, arrays = count_parameters(found.variables)
    taken = set(yolov5_names(found.model).values())
    spec, state = found.model.spec, found.contents.state
    besides = {
        name.rpartition(".")[2] for name in state if not name.endswith(tuple(taken))
    }
    names = ", ".join(found.class_names[:6])
    more = ", ..." if len(found.class_names) > 6 else ""
    precision = sorted({str(array.dtype) for array in state.values()})
    statistics = len(flatten(found.variables["batch_stats"]))
    rows = {
        "file": f"{weights}{f', {found.contents.place}' * bool(found.contents.place)}",
        "model": f"{found.model.name} (width {spec.width:g}, depth {spec.depth:g})",
        "parameters": f"{numbers:,} in {arrays} arrays, {statistics} of statistics",
        "precision": ", ".join(precision),
        "missing": "0",
        "unused": f"0, besides {', '.join(sorted(besides))}" if besides else "0",
        "mis-shaped": "0",
        "strides": ", ".join(map(str, found.model.strides)),
        "classes": f"{len(found.class_names)}: {names}{more}",
    }
    return "\n".join(f"{key:<12}{value}" for key, value in rows.items())
