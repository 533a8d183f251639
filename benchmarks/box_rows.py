"""What rows for boxes cost: a detector's loss and its gradient, by number of rows.

    python benchmarks/box_rows.py [--rounds 9]

16 images of 640 px, 20 boxes each, three classes; the other rows are padding. Figures
go to benchmarks/results/box_rows.json.
"""

from __future__ import annotations

import argparse
import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import measure
import numpy as np

from yolojax.losses.detection import yolov5_loss
from yolojax.models.detector import build_model

ROWS = (32, 128, 512, 1024)
BATCH, SIDE, BOXES, CLASSES = 16, 640, 20, 3
RESULTS = Path(__file__).parent / "results" / "box_rows.json"


def make_loss(model: Any, num_rows: int) -> Any:
    """A call of the loss and its gradient, compiled, with so many rows."""
    rng = np.random.default_rng(0)
    maps = tuple(
        jnp.asarray(rng.normal(size=(BATCH, SIDE // s, SIDE // s, 3, 5 + CLASSES)))
        for s in model.strides
    )
    maps = jax.tree.map(lambda x: x.astype(jnp.float32), maps)
    centres = rng.uniform(50, SIDE - 50, (BATCH, BOXES, 2))
    sides = rng.uniform(10, 100, centres.shape)
    boxes = np.zeros((BATCH, num_rows, 4), np.float32)
    boxes[:, :BOXES] = np.concatenate([centres - sides / 2, centres + sides / 2], -1)
    valid = np.arange(num_rows)[None].repeat(BATCH, 0) < BOXES
    labels = jnp.zeros((BATCH, num_rows), jnp.int32)
    loss = functools.partial(yolov5_loss, anchors=model.anchors, strides=model.strides)
    gradient = jax.jit(
        lambda maps, *rows: jax.value_and_grad(lambda m: loss(m, *rows)[0])(maps)
    )
    rows = jnp.asarray(boxes), labels, jnp.asarray(valid)
    return lambda: jax.block_until_ready(gradient(maps, *rows))


def main() -> None:
    """Time all numbers of rows in turns and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    model = build_model("yolov5n", num_classes=CLASSES)
    times = measure.side_by_side(
        {str(rows): make_loss(model, rows) for rows in ROWS}, rounds
    )
    measure.write_results(RESULTS, times)


if __name__ == "__main__":
    main()
