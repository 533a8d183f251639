"""Pictures of what the network is shown in training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from yolojax import experiment
from yolojax.engine.device_cache import on_each_device
from yolojax.settings import mosaic_steps
from yolojax.vis import draw
from yolojax.vis.cells import draw_cell


def draw_batch(settings: Mapping[str, Any], path: Path, *, step: int) -> int:
    """Draw the augmented batch of a training step with its boxes.

    Args:
        settings: a complete config.
        path: the picture to write.
        step: which step's batch; just what training sees there.

    Returns:
        How many pictures are drawn, at most 16.

    Raises:
        ValueError: anything wrong with config or data.
    """
    run = experiment.build(settings)
    feed = run.feed()
    feed.fill(None)
    feed.batches.set_state({"next_index": step})
    batch = feed.put(next(feed.batches))
    feed.batches.close()
    augment = experiment.make_augmentation(settings, run.max_boxes)
    augment = on_each_device(augment, run.mesh)
    mosaic_on = step < mosaic_steps(settings, run.steps_per_epoch)
    key = jax.random.fold_in(jax.random.key(settings["seed"]), step)
    shown, cut = jax.jit(augment)(key, batch, mosaic_on=mosaic_on)
    shown = jax.device_get(shown)
    if int(cut):
        print(f"{int(cut)} boxes did not fit: raise config.augment.max_boxes")
    cells = []
    for i in range(min(16, len(shown.image))):
        valid = shown.valid[i]
        cells.append(
            draw_cell(
                np.round(shown.image[i] * 255).astype(np.uint8),
                shown.boxes[i][valid],
                shown.labels[i][valid],
                None,
                run.train.source.class_names,
            )
        )
    draw.save_image(path, draw.contact_sheet(cells, 4))
    return len(cells)
