"""First values of parameters, drawn on the host.

Every parameter has a generator of its own, keyed by the seed and its path, so that
its values depend neither on the number of devices nor on which other parameters
there are; and nothing is compiled, where `jit(init)` takes a minute.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from yolojax.trees import flatten, unflatten_variables


def draw_variables(shapes: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Variables as NumPy float32 arrays for a tree of shapes.

    Kernels, and biases that stand beside a kernel, are uniform in
    +-1 / sqrt(inputs of one output); scales and variances are 1, the rest is 0.

    Args:
        shapes: nested dicts of whatever has a `shape`, with `params` and
            `batch_stats` at the top.
        seed: any integer.

    Source: the defaults of PyTorch 1.x convolutions, which published YOLOv5 training
    from scratch starts from.
    """
    leaves = flatten(shapes)
    values: dict[str, np.ndarray] = {}
    for path, leaf in leaves.items():
        parent, _, name = path.rpartition("/")
        beside = leaves.get(f"{parent}/kernel")
        if beside is not None and name in ("kernel", "bias"):
            bound = 1 / math.sqrt(math.prod(beside.shape[:-1]))
            draws = _generator(seed, path).random(leaf.shape, dtype=np.float32)
            values[path] = np.float32(bound) * (np.float32(2) * draws - np.float32(1))
        else:
            start = 1 if name in ("scale", "var") else 0
            values[path] = np.full(leaf.shape, start, np.float32)
    return unflatten_variables(values)


def anchor_prior(num_classes: int, stride: int, num_anchors: int) -> np.ndarray:
    """What the head's bias starts above its random value, float32 [a * (5 + c)].

    Objectness starts at 8 objects in a picture of 640 px, classes at
    0.6 / (c - 0.99999) each; box outputs at nothing.

    Source: Lin et al. 2017, arXiv:1708.02002, section 3.3, with YOLOv5's numbers.
    """
    prior = np.zeros((num_anchors, 5 + num_classes), np.float32)
    prior[:, 4] = math.log(8 / (640 / stride) ** 2)
    prior[:, 5:] = math.log(0.6 / (num_classes - 0.99999))
    return prior.reshape(-1)


def _generator(seed: int, path: str) -> np.random.Generator:
    digest = hashlib.blake2b(f"{seed}/{path}".encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))
