"""How large a config's network and training step are, before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from yolojax import datasets, experiment, recipe, trees
from yolojax.engine import sharding
from yolojax.engine.step import init_state
from yolojax.models.model import Model
from yolojax.records import Batch

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
        f"{', '.join(map(str, model.strides))}, {model.num_classes} classes",
        f"{_operations(model, height, width) / 1e9:.2f} GFLOP for a picture of "
        f"{height} x {width} px",
    ]
    return "\n".join([*lines, *describe_training(model)])


def describe_training(model: Model) -> list[str]:
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


def describe_memory(settings: Mapping[str, Any]) -> str:
    """The memory of a training step at the configured batch, by the compiler's word.

    Raises:
        ValueError: the config does not say how many classes there are.
    """
    model = _model(settings)
    mesh = experiment.make_mesh(settings)
    max_boxes = settings["data"]["max_boxes"] or 100
    step, optimizer = recipe.make_step(
        settings,
        model,
        mesh,
        max_boxes=max_boxes,
        steps_per_epoch=1,
        image_size=max(recipe.training_sizes(settings, model)),
    )
    state = jax.eval_shape(
        lambda: init_state(jax.tree.map(_zeros, model.shapes()), optimizer)
    )
    state = _placed(state, sharding.replicated(mesh))
    batch = _placed(_abstract_batch(settings, max_boxes), sharding.split(mesh))
    memory = step.lower(state, batch).compile().memory_analysis()
    held = memory.argument_size_in_bytes + memory.output_size_in_bytes
    held -= memory.alias_size_in_bytes
    return (
        f"a step with {settings['batch_size']} pictures on {mesh.devices.size} "
        f"device(s), each: {memory.temp_size_in_bytes / 2**20:,.0f} MiB while it runs, "
        f"{held / 2**20:,.0f} MiB held"
    )


def _model(settings: Mapping[str, Any]) -> Model:
    if not settings["model"].get("num_classes"):
        raise ValueError("config.model.num_classes is 0; info reads no data: set it")
    return experiment.make_model(settings)


def _zeros(leaf: Any) -> jax.Array:
    return jnp.zeros(leaf.shape, leaf.dtype)


def _placed(tree: Any, place: jax.sharding.NamedSharding) -> Any:
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), tree
    )


def _abstract_batch(settings: Mapping[str, Any], max_boxes: int) -> Batch:
    rows = settings["batch_size"]
    shapes = {
        "image": ((rows, *datasets.image_size_of(settings), 3), jnp.uint8),
        "size": ((rows, 2), jnp.int32),
        "boxes": ((rows, max_boxes, 4), jnp.float32),
        "labels": ((rows, max_boxes), jnp.int32),
        "valid": ((rows, max_boxes), jnp.bool_),
        "image_id": ((rows,), jnp.int32),
        "origin": ((rows, 4), jnp.float32),
    }
    return Batch(**{k: jax.ShapeDtypeStruct(*v) for k, v in shapes.items()})


def _operations(model: Model, height: int, width: int) -> float:
    images = jax.ShapeDtypeStruct((1, height, width, 3), jnp.float32)

    def forward(variables: Any, x: jax.Array) -> Any:
        return model.apply(variables, x, train=False)[0]

    lowered = jax.jit(forward).lower(model.shapes(), images)
    cost = lowered.cost_analysis()
    return float(cost["flops"]) if cost else float("nan")
