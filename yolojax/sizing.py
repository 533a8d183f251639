"""How large a config's network and training step are, before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from yolojax import datasets, experiment, memory, recipe, trees
from yolojax.engine import stages
from yolojax.models.network import Network

# Room for boxes of a picture where only the data would say; it hardly counts.
_MAX_BOXES = 100

# Options of a Darknet [yolo] section: our key, and what Darknet takes where there is
# no such option. Without a default there is nothing to set.
_HINTS = {
    "iou_normalizer": ("c.loss.box", "0.75"),
    "obj_normalizer": ("c.loss.objectness", "1"),
    "cls_normalizer": ("c.loss.classes", "1"),
    "label_smooth_eps": ("c.loss.label_smoothing", ""),
    "ignore_thresh": ("ignore_threshold", "0.5"),
    "iou_thresh": ("match_threshold", "1"),
    "objectness_smooth": ("objectness_smooth", ""),
}


def describe_model(settings: Mapping[str, Any]) -> str:
    """Layers, parameters and floating-point operations, as a text table.

    A multiplication and an addition count as two operations.

    Raises:
        ValueError: the config does not say how many classes there are.
    """
    model = _model(settings)
    shapes = model.shapes()["params"]
    rows: dict[str, int] = {}
    for path, leaf in trees.flatten(shapes).items():
        layer = "/".join(path.split("/")[:2])
        rows[layer] = rows.get(layer, 0) + int(np.prod(leaf.shape))
    total = sum(rows.values())
    height, width = datasets.image_size_of(settings)
    lines = [f"{'layer':<28}{'parameters':>12}"]
    lines += [f"{layer:<28}{count:>12,}" for layer, count in rows.items()]
    lines += [
        f"{'total':<28}{total:>12,}",
        "",
        f"{model.name}: {len(jax.tree.leaves(shapes))} arrays, strides "
        f"{', '.join(map(str, _strides(model)))}, {model.num_classes} classes",
        f"{_operations(model, height, width) / 1e9:.2f} GFLOP for a picture of "
        f"{height} x {width} px",
    ]
    plan = recipe.make_stages(settings, model, lambda _: 0)
    if text := stages.describe(plan, shapes):
        lines += ["", text]
    return "\n".join([*lines, *describe_training(model)])


def _strides(model: Network) -> tuple[int, ...]:
    """Of a detector those of its heads, of a classifier those of its stages."""
    stages = tuple(dict.fromkeys(stride for _, stride in model.feature_info))
    return getattr(model, "strides", stages)


def describe_training(model: Network) -> list[str]:
    """How a Darknet description says that its network was trained, as config lines.

    Returns:
        Lines of text; none for other models, and where it says nothing.
    """
    hints: Mapping[str, str] = getattr(model.spec, "training_hints", {})
    if not hints:
        return []
    boxes = hints.get("iou_loss", "mse")
    known = dict(_HINTS)
    if boxes == "mse":
        # The first YOLOv3 has no gain of boxes, so it counts as 1.
        hints = {"iou_normalizer": "1", **hints}
        del known["objectness_smooth"]
    lines = [f'c.loss.name = "{"yolov3" if boxes == "mse" else "yolov4"}"']
    arguments = []
    for option, (key, default) in known.items():
        value = hints.get(option, default)
        if not value or "," in value:
            continue
        if key.startswith("c."):
            lines.append(f"{key} = {value}")
        else:
            arguments.append(f"{key}={value}")
    lines.append(f"c.loss.arguments = dict({', '.join(arguments)})")
    # One value for each level, and losses that there are none of here.
    rest = [
        f"{option}={value}"
        for option, value in hints.items()
        if option not in (*known, "iou_loss")
        or (option in known and "," in value)
        or (option == "iou_loss" and value not in ("mse", "ciou"))
    ]
    if rest:
        lines.append(f"# without a key here: {'; '.join(rest)}")
    title = "its description was made for training with:"
    return ["", title, *(f"  {line}" for line in lines)]


def describe_memory(settings: dict[str, Any]) -> str:
    """The memory of a training step at the configured batch, by the compiler's word.

    Raises:
        ValueError: the config does not say how many classes there are, or, where the
            batch is `auto`, not a picture fits.
    """
    model = _model(settings)
    mesh = experiment.make_mesh(settings)
    max_boxes = settings["data"]["max_boxes"] or _MAX_BOXES
    # The data are not read here, so that they set no limit.
    settings, notes = memory.resolve_batch(
        settings,
        model,
        mesh,
        max_boxes=max_boxes,
        num_edges=0,
        epoch_length=None,
        num_kept=0,
    )
    found = memory.step_memory(settings, model, mesh, max_boxes=max_boxes)
    free, known = memory.room(mesh)
    return "\n".join(
        [
            *notes,
            f"a training step with {settings['batch_size']} pictures on "
            f"{mesh.devices.size} device(s) needs of each:",
            str(found),
            f"there are {free / 2**20:,.0f} MiB {known}",
        ]
    )


def _model(settings: Mapping[str, Any]) -> Network:
    """The network; only where the data give the number of classes they are read."""
    if settings["model"].get("num_classes"):
        return experiment.make_model(settings)
    try:
        names = datasets.open_source(settings, "train").class_names
    except ValueError as error:
        raise ValueError(
            f"{error}\nconfig.model.num_classes is 0, so that the data are asked; a "
            "number there needs none"
        ) from error
    return experiment.make_model(settings, names)


def _operations(model: Network, height: int, width: int) -> float:
    images = jax.ShapeDtypeStruct((1, height, width, 3), jnp.float32)

    def forward(variables: Any, x: jax.Array) -> Any:
        return model.apply(variables, x, train=False)[0]

    lowered = jax.jit(forward).lower(model.shapes(), images)
    cost = lowered.cost_analysis()
    return float(cost["flops"]) if cost else float("nan")
