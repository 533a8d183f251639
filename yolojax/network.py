"""From the settings of a config to its network and the devices that it runs on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jax.sharding import Mesh

from yolojax import datasets, lookup
from yolojax.automatic import memory_share, with_anchors
from yolojax.engine import sharding
from yolojax.models.classifiers import CLASSIFIERS, build_classifier
from yolojax.models.detector import MODELS, build_model

DTYPES = ("float32", "bfloat16", "float16")


def is_classifier(settings: Mapping[str, Any]) -> bool:
    """Whether the config's model tells classes of whole pictures."""
    return settings["model"].get("name") in CLASSIFIERS


def make_model(
    settings: Mapping[str, Any], class_names: tuple[str, ...] | None = None
) -> Any:
    """The `Model` or `Classifier`, with as many classes as config or data say.

    The data do where the config says 0.

    Raises:
        ValueError: config and data disagree on the classes, an unknown model or
            argument, or an image size that the strides do not divide.
    """
    arguments = dict(settings["model"])
    name = arguments.pop("name", "")
    normalise = arguments.pop("normalise", "unit")
    lookup.check_arguments(
        lookup.pick({**MODELS, **CLASSIFIERS}, name, "model"),
        {"num_classes": 0} | arguments,
        "config.model",
    )
    # Which ones is known when the data are; how many there are is known now.
    arguments = with_anchors(arguments, None)
    num_classes = arguments.pop("num_classes", 0)
    found = len(class_names) if class_names else 0
    if class_names and num_classes not in (0, found):
        raise ValueError(
            f"config.model.num_classes is {num_classes}, but the data have {found} "
            f"classes ({', '.join(class_names[:8])}{', ...' if found > 8 else ''}). "
            f"Set --config.model.num_classes={found}, or 0 to take it from the data"
        )
    if settings["dtype"] not in DTYPES:
        raise ValueError(
            f"config.dtype must be one of {', '.join(DTYPES)}, "
            f"not {settings['dtype']!r}"
        )
    size = datasets.image_size_of(settings)
    common = {
        "normalise": normalise,
        "num_classes": num_classes or found,
        "dtype": settings["dtype"],
    }
    if name in CLASSIFIERS:
        classifier = build_classifier(name, **common, **arguments)
        classifier.check_size(size)
        if settings["evaluate"]["letterbox"] == "rectangular":
            raise ValueError(
                "config.evaluate.letterbox must be 'square' or 'centre_crop' for "
                "classifiers, whose pictures all have config.image_size"
            )
        return classifier
    if settings["evaluate"]["letterbox"] == "centre_crop":
        raise ValueError(
            "config.evaluate.letterbox must be 'square' or 'rectangular' for "
            "detectors, which look at whole pictures"
        )
    model = build_model(name, **common, **arguments)
    stride = model.max_stride
    if any(side % stride for side in size):
        near = tuple(max(stride, round(side / stride) * stride) for side in size)
        raise ValueError(
            f"config.image_size {size} must be divisible by {stride}, the largest "
            f"stride of {name}. Nearest: {near}"
        )
    return model


def make_mesh(settings: Mapping[str, Any]) -> Mesh:
    """All devices that the config asks for.

    Raises:
        ValueError: the batch cannot be split evenly over them.
    """
    mesh = sharding.make_mesh(settings["devices"])
    count = mesh.devices.size
    for key, size in (
        ("batch_size", settings["batch_size"]),
        ("evaluate.batch_size", settings["evaluate"]["batch_size"]),
    ):
        if memory_share(size) is not None:
            continue
        if size < (key == "batch_size") or size % count:
            near = max(count, round(size / count) * count)
            raise ValueError(
                f"config.{key} {size} cannot be split over {count} devices. "
                f"Nearest: {near}; or use fewer: --config.devices=1"
            )
    return mesh
