"""First values of parameters, drawn on the host.

Every parameter has a generator of its own, keyed by the seed and its path, so that
its values depend neither on the number of devices nor on which other parameters
there are; and nothing is compiled, where `jit(init)` takes a minute.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from yolojax.lookup import pick
from yolojax.trees import flatten, unflatten_variables

# One output's inputs and one input's outputs, windows included.
Fans = tuple[int, int]
Draw = Callable[[np.random.Generator, tuple[int, ...], Fans], np.ndarray]


def _normal(variance: Callable[[Fans], float]) -> Draw:
    return lambda generator, shape, fans: (
        generator.standard_normal(shape) * math.sqrt(variance(fans))
    )


def _uniform(variance: Callable[[Fans], float]) -> Draw:
    # Uniform numbers in +-a have the variance a^2 / 3.
    return lambda generator, shape, fans: (
        generator.uniform(-1, 1, shape) * math.sqrt(3 * variance(fans))
    )


def _orthogonal(
    generator: np.random.Generator, shape: tuple[int, ...], fans: Fans
) -> np.ndarray:
    """All inputs of an output as a column; columns, or else rows, are orthonormal."""
    del fans
    rows, columns = math.prod(shape[:-1]), shape[-1]
    size = max(rows, columns), min(rows, columns)
    matrix, triangle = np.linalg.qr(generator.standard_normal(size))
    # With these signs every orthogonal matrix is as likely as any other.
    matrix = matrix * np.sign(np.diag(triangle))
    return (matrix if rows >= columns else matrix.T).reshape(shape)


def _he(fans: Fans) -> float:
    return 2 / fans[0]


def _xavier(fans: Fans) -> float:
    return 2 / sum(fans)


def _lecun(fans: Fans) -> float:
    return 1 / fans[0]


# He et al. 2015, arXiv:1502.01852, section 2.2; Glorot and Bengio 2010, section 4.2.1;
# LeCun et al. 1998, "Efficient BackProp", section 4.6; Saxe et al. 2013,
# arXiv:1312.6120, section 3.
KERNELS: dict[str, Draw] = {
    "he_normal": _normal(_he),
    "he_uniform": _uniform(_he),
    "xavier_normal": _normal(_xavier),
    "xavier_uniform": _uniform(_xavier),
    "lecun_normal": _normal(_lecun),
    "orthogonal": _orthogonal,
}


def draw_variables(
    shapes: Mapping[str, Any],
    seed: int,
    *,
    kernels: str = "",
    starts: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """Variables as NumPy float32 arrays for a tree of shapes.

    Kernels, and biases that stand beside a kernel, are uniform in
    +-1 / sqrt(inputs of one output); scales and variances are 1, the rest is 0.

    Args:
        shapes: nested dicts of whatever has a `shape`, with `params` and
            `batch_stats` at the top.
        seed: any integer.
        kernels: an entry of `KERNELS` to draw kernels by instead; all biases are 0
            then.
        starts: first values of parameters that start from another constant than
            these, by the ends of their paths, as `layer_scale/scale`.

    Raises:
        ValueError: `kernels` is no entry of the table.

    Source: the defaults of PyTorch 1.x convolutions, which published YOLOv5 training
    from scratch starts from.
    """
    draw = pick(KERNELS, kernels, "initialiser of kernels") if kernels else None
    leaves = flatten(shapes)
    values: dict[str, np.ndarray] = {}
    for path, leaf in leaves.items():
        parent, _, name = path.rpartition("/")
        beside = leaves.get(f"{parent}/kernel")
        if draw is not None and name == "kernel":
            window = math.prod(leaf.shape[:-2])
            fans = window * leaf.shape[-2], window * leaf.shape[-1]
            drawn = draw(_generator(seed, path), leaf.shape, fans)
            values[path] = drawn.astype(np.float32)
        elif draw is None and beside is not None and name in ("kernel", "bias"):
            bound = 1 / math.sqrt(math.prod(beside.shape[:-1]))
            draws = _generator(seed, path).random(leaf.shape, dtype=np.float32)
            values[path] = np.float32(bound) * (np.float32(2) * draws - np.float32(1))
        else:
            start = 1 if name in ("scale", "var") else 0
            for end, value in (starts or {}).items():
                start = value if f"/{path}".endswith(f"/{end}") else start
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
