"""YOLOv5 v6.0 as rows of a description, to tell it from other networks."""

from __future__ import annotations

import json
from typing import Any

from yolojax.models.described import DescribedSpec, build_described
from yolojax.models.model import Model
from yolojax.models.specs import CspSpec


def rows_of(spec: CspSpec) -> dict[str, Any]:
    """The description of a YOLOv5 v6.0, without its number of classes."""
    last, first = len(spec.channels), len(spec.channels) - len(spec.anchors) + 1
    rows: list[list[Any]] = [[-1, 1, "Conv", [spec.channels[0], 6, 2, 2]]]
    maps, laterals, mixed = {}, {}, {}
    stages = zip(spec.channels[1:], spec.blocks, strict=True)
    for level, (channels, blocks) in enumerate(stages, start=2):
        rows.append([-1, 1, "Conv", [channels, 3, 2]])
        rows.append([-1, blocks, "C3", [channels]])
        maps[level] = len(rows) - 1
    rows.append([-1, 1, "SPPF", [spec.channels[-1], 5]])
    backbone = len(rows)

    def mix(past: int, channels: int) -> int:
        rows.append([[-1, past], 1, "Concat", [1]])
        rows.append([-1, spec.neck_blocks, "C3", [channels, False]])
        return len(rows) - 1

    for level in range(last - 1, first - 1, -1):
        channels = spec.channels[level - 1]
        rows.append([-1, 1, "Conv", [channels, 1, 1]])
        laterals[level] = len(rows) - 1
        rows.append([-1, 1, "nn.Upsample", [None, 2, "nearest"]])
        mixed[level] = mix(maps[level], channels)
    for level in range(first + 1, last + 1):
        rows.append([-1, 1, "Conv", [spec.channels[level - 2], 3, 2]])
        mixed[level] = mix(laterals[level - 1], spec.channels[level - 1])
    detect = [mixed[level] for level in range(first, last + 1)]
    rows.append([detect, 1, "Detect", ["nc", "anchors"]])
    return {
        "depth_multiple": spec.depth,
        "width_multiple": spec.width,
        "anchors": [
            [side for pair in level for side in pair] for level in spec.anchors
        ],
        "backbone": rows[:backbone],
        "head": rows[backbone:],
    }


def is_yolov5(described: Model, model: Model) -> bool:
    """Whether a network from a description is a YOLOv5 v6.0, also by its names.

    Args:
        described: of the family `yaml`.
        model: of the family `yolov5`, with as many classes.
    """
    text = json.dumps(rows_of(model.spec))
    same = build_described(
        "yaml",
        num_classes=model.num_classes,
        description=text,
        anchors=described.anchors.tolist(),
    )
    return _layers(described.spec) == _layers(same.spec)


def _layers(spec: DescribedSpec) -> list[Any]:
    """All that decides what a network computes, and what its arrays are called."""
    nodes = [(node.kind, node.inputs, dict(node.arguments)) for node in spec.nodes]
    return [*nodes, dict(spec.prefixes)]
