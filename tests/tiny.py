"""A complete config so small that a test can train with it."""

from typing import Any

from yolojax import settings

# A network that learns digits of 64 px and compiles in a few seconds.
DESCRIPTION = """
nc: 10
depth_multiple: 1.0
width_multiple: 1.0
anchors: [[9, 15, 12, 20, 15, 26, 20, 34]]
backbone:
  - [-1, 1, Conv, [16, 3, 2]]
  - [-1, 1, Conv, [32, 3, 2]]
  - [-1, 1, C3, [32]]
  - [-1, 1, Conv, [64, 3, 2]]
head:
  - [[3], 1, Detect, [nc, anchors]]
"""


def tiny_config(**changes: Any) -> dict[str, Any]:
    """Settings for a tiny YOLOv5 on digits, 64 px; `changes` by dotted key."""
    given: dict[str, Any] = {
        "image_size": (64, 64),
        "batch_size": 8,
        "epochs": 2,
        "devices": 1,
        "model": {"name": "yolov5n", "num_classes": 10, "width": 0.125, "depth": 0.33},
        "data": {
            "train": {"source": "digits", "split": "train", "size": 64, "length": 24},
            "val": {"source": "digits", "split": "val", "size": 64, "length": 8},
            "num_threads": 1,
        },
        "augment": {
            "policy": (
                {"name": "mosaic", "probability": 0.5},
                {"name": "affine", "scale": 0.3, "translate": 0.1},
                {"name": "flip_left_right", "probability": 0.5},
                {"name": "hsv"},
            )
        },
        "optim": {"warmup_epochs": 1.0, "warmup_min_steps": 2, "nominal_batch": 8},
        "ema": {"decay": 0.9, "ramp": 4.0},
        "evaluate": {"max_detections": 20, "max_candidates": 128},
        "checkpoint": {"every_steps": 2},
        "log": {"every_steps": 2, "tensorboard": False, "pictures": 4},
    }
    for key, value in changes.items():
        *parents, last = key.split("__")
        node = given
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value
    return settings.complete(given)
