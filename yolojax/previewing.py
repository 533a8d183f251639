"""Pictures of what the network is shown in training."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from yolojax import experiment, recipe
from yolojax.augment.policy import (
    AUGMENTATIONS,
    Explanation,
    make_augment,
    make_explain,
    make_label_augment,
    most_pictures,
)
from yolojax.augment.presets import PRESETS
from yolojax.augment.reading import expand
from yolojax.engine.device_cache import on_each_device
from yolojax.engine.step import augmentation_of_step
from yolojax.experiment import Experiment
from yolojax.records import Batch, Stored, num_pictures
from yolojax.vis import draw
from yolojax.vis.cells import draw_cell

# Pictures in a row of the sheet that has one augmentation a row, and in the batch
# that they are taken from.
EACH_SHOWN, EACH_BATCH = 4, 8


class _Step(NamedTuple):
    """A training step's input."""

    run: Experiment
    batch: Batch | Stored
    key: jax.Array
    options: dict[str, jax.Array]
    size: tuple[int, int]

    def evaluate(self, augment: Callable[..., Any]) -> Any:
        """What a function like `augment` gives for this step, on the host."""
        function = jax.jit(on_each_device(augment, self.run.mesh))
        return jax.device_get(function(self.key, self.batch, **self.options))

    def pictures(self, sample: int, sources: list[int]) -> Batch:
        """Pictures by what a sample's scene calls them, on the host."""
        batch, rows = self.batch, np.asarray(sources, np.int32)
        if isinstance(batch, Stored):
            devices = self.run.mesh.devices.size
            shard = sample // (num_pictures(batch) // devices)
            rows = rows + shard * (batch.pictures.size.shape[0] // devices)
            batch = batch.pictures
        return jax.device_get(jax.tree.map(lambda x: x[rows], batch))


def draw_batch(settings: Mapping[str, Any], path: Path, *, step: int) -> int:
    """Draw the augmented batch of a training step with its boxes or classes.

    Args:
        settings: a complete config.
        path: the picture to write.
        step: which step's batch; just what training sees there.

    Returns:
        How many pictures are drawn, at most 16.

    Raises:
        ValueError: anything wrong with config or data.
    """
    taken = _take(settings, step)
    shown = _augmented(taken)
    rows = range(min(16, len(shown.image)))
    cells = [_draw_row(taken.run, shown, i) for i in rows]
    captions = None
    if _is_classified(taken.run):
        captions = [_classes_text(taken.run, shown, i) for i in rows]
    draw.save_image(path, draw.contact_sheet(cells, 4, captions=captions))
    return len(cells)


def draw_sample(
    settings: Mapping[str, Any], path: Path, *, step: int, index: int
) -> list[str]:
    """Draw one sample of a training step, before and after augmentation.

    Args:
        settings: a complete config.
        path: the picture to write: the pictures that the sample shows, then the sample.
        step: which step's.
        index: its place in the batch.

    Returns:
        Lines of text: what changed it, its pictures and their matrices, its boxes or
        its classes.

    Raises:
        ValueError: anything wrong with config or data, or no such place.
    """
    taken = _take(settings, step)
    count = num_pictures(taken.batch)
    if not 0 <= index < count:
        raise ValueError(
            f"--index is {index}, but a step has {count} samples from 0 on"
        )
    shown = _augmented(taken)
    explain = make_explain(settings["augment"]["policy"], image_size=taken.size)
    found = _explained(taken, explain)
    names = [example_name(taken.run, i) for i in shown.image_id.tolist()]

    regions, sources = found.scene.regions[index], found.scene.sources[index]
    used = np.nonzero((regions[:, 2:] > regions[:, :2]).all(-1))[0]
    before = taken.pictures(index, sources[used].tolist())
    cells = [_draw_row(taken.run, before, i) for i in range(len(used))]
    captions = [Path(example_name(taken.run, i)).name for i in before.image_id.tolist()]
    lines = [
        f"sample {index} of step {step}, seed {settings['seed']}, "
        f"{taken.size[0]}x{taken.size[1]} px",
        f"changed by: {', '.join(n for n, on in found.applied.items() if on[index])}",
    ]
    for cell, tile in enumerate(used):
        height, width = before.size[cell]
        matrix = np.matmul(found.scene.view[index], found.scene.placements[index, tile])
        lines.append(f"{captions[cell]}, {height}x{width} px, into the sample by")
        lines += [f"  {row}" for row in _matrix_text(matrix)]
    for name, partners in found.partners.items():
        if found.applied[name][index]:
            own = int(partners[index])
            lines.append(f"{name}: with sample {own}, that of {names[own]}")
    class_names = taken.run.train.source.class_names
    last = f"sample {index} of step {step}"
    if _is_classified(taken.run):
        text = _classes_text(taken.run, shown, index)
        lines.append(f"classes: {text}")
        own = [_classes_text(taken.run, before, i) for i in range(len(used))]
        captions = [f"{a}: {b}" for a, b in zip(own, captions, strict=True)]
        last = f"{text}: {last}"
    else:
        for row in np.nonzero(shown.valid[index])[0]:
            corners = " ".join(f"{side:.1f}" for side in shown.boxes[index, row])
            lines.append(f"box {class_names[shown.labels[index, row]]}: {corners}")
    sheet = draw.contact_sheet(
        [*cells, _draw_row(taken.run, shown, index)],
        min(5, len(cells) + 1),
        captions=[*captions, last],
    )
    draw.save_image(path, sheet)
    return lines


def draw_each(
    settings: Mapping[str, Any],
    path: Path,
    *,
    step: int,
    progress: Callable[[int, int], None],
) -> int:
    """Draw every augmentation alone, one a row, each applied to all pictures.

    Those of the policy have its arguments, the others their defaults. Classifiers have
    none of those that put boxes of several pictures side by side.

    Args:
        settings: a complete config.
        path: the picture to write.
        step: which step's pictures.
        progress: `progress(done, total)`, called now and then.

    Returns:
        How many rows are drawn.

    Raises:
        ValueError: anything wrong with config or data.
    """
    taken = _take(settings, step)
    given: dict[str, dict[str, Any]] = {}
    for entry in expand(settings["augment"]["policy"], PRESETS):
        for member in (entry, *entry.get("of", ())):
            member = {"name": member} if isinstance(member, str) else dict(member)
            given[member["name"]] = {**member, "probability": 1.0}
    batch = taken.batch
    if isinstance(batch, Stored):
        rows = batch.rows[:EACH_BATCH]
        batch = jax.tree.map(lambda x: x[rows], batch.pictures)
    batch = jax.device_get(jax.tree.map(lambda x: x[:EACH_BATCH], batch))
    alone = {
        name: _augment_alone(taken, (given.get(name, {"name": name}),))
        for name in AUGMENTATIONS
    }
    alone = {name: augment for name, augment in alone.items() if augment is not None}
    cells, captions = [], []

    def augmented(augment: Callable[..., Any]) -> Batch:
        return _run_once(augment, taken.key, batch)

    # Nearly all of the time goes into compiling, which threads can do side by side.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = pool.map(augmented, alone.values())
        for number, (name, shown) in enumerate(zip(alone, found, strict=True)):
            progress(number + 1, len(alone))
            own = range(min(EACH_SHOWN, len(shown.image)))
            cells += [_draw_row(taken.run, shown, i) for i in own]
            captions += [name] * len(own)
    columns = len(cells) // len(alone)
    sheet = draw.contact_sheet(cells, columns, cell_size=(224, 224), captions=captions)
    draw.save_image(path, sheet)
    return len(alone)


def _run_once(augment: Callable[..., Any], key: jax.Array, batch: Batch) -> Batch:
    """What `augment` gives, on the host; compiled for a single run."""
    function = jax.jit(functools.partial(augment, mosaic_on=True)).lower(key, batch)
    on_cpu = jax.default_backend() == "cpu"
    # Fast code takes longer to compile than it saves here.
    options: dict[str, str | bool] | None = (
        {"xla_backend_optimization_level": "0"} if on_cpu else None
    )
    shown, _ = jax.device_get(function.compile(compiler_options=options)(key, batch))
    return shown


def _augment_alone(taken: _Step, policy: Any) -> Any:
    """The augmentation of one entry; None: it is not for classifiers."""
    if not _is_classified(taken.run):
        rows = most_pictures(policy) * taken.run.max_boxes
        return make_augment(policy, image_size=taken.size, max_boxes=rows)
    try:
        return make_label_augment(policy, image_size=taken.size)
    except ValueError:
        return None


def example_name(run: Experiment, image_id: int) -> str:
    """What the source calls a picture."""
    return run.train.source[image_id].name if image_id >= 0 else "nothing"


def _take(settings: Mapping[str, Any], step: int) -> _Step:
    run = experiment.build(settings)
    feed = run.feed()
    feed.fill(None)
    feed.batches.set_state({"next_index": step})
    batch = feed.put(next(feed.batches))
    feed.batches.close()
    key, options = augmentation_of_step(
        jnp.asarray(step, jnp.int32),
        seed=settings["seed"],
        mosaic_steps=recipe.closing_step(run.settings, run.stages),
        total_steps=run.stages[-1].end,
    )
    return _Step(run, batch, key, options, run.size_at(step))


def _augmented(taken: _Step) -> Batch:
    """The step's batch as the network sees it, on the host."""
    augment = recipe.make_augmentation(
        taken.run.settings, taken.run.max_boxes, image_size=taken.size
    )
    shown, cut = taken.evaluate(augment)
    if int(cut):
        print(f"{int(cut)} boxes have no row: raise config.augment.max_boxes")
    return shown


def _explained(taken: _Step, explain: Callable[..., Explanation]) -> Explanation:
    def with_count(*arguments: Any, **options: Any) -> tuple[Explanation, jax.Array]:
        found = explain(*arguments, **options)
        # What is left has the batch as its first axis.
        scene = found.scene._replace(partners=None, swaps=())
        return found._replace(scene=scene), jnp.zeros((), jnp.int32)

    found, _ = taken.evaluate(with_count)
    if isinstance(taken.batch, Stored):
        # Each device counts its own samples.
        each = num_pictures(taken.batch) // taken.run.mesh.devices.size
        first = np.arange(num_pictures(taken.batch)) // each * each
        partners = {name: own + first for name, own in found.partners.items()}
        found = found._replace(partners=partners)
    return found


def _is_classified(run: Experiment) -> bool:
    """Whether the pictures have classes instead of boxes."""
    return hasattr(run.train.source, "multi_label")


def _classes_text(run: Experiment, batch: Batch, row: int) -> str:
    """The classes of a picture, the largest share first; a share of 1 is not said."""
    shares: dict[int, float] = {}
    pairs = zip(batch.labels[row].tolist(), batch.valid[row].tolist(), strict=True)
    for label, share in pairs:
        shares[label] = shares.get(label, 0.0) + float(share)
    names = run.train.source.class_names
    found = sorted(shares.items(), key=lambda pair: -pair[1])
    text = [
        f"{share:.0%} {names[label]}" if share < 0.995 else names[label]
        for label, share in found
        if share > 0
    ]
    return " + ".join(text) or "no label"


def _draw_row(run: Experiment, batch: Batch, row: int) -> np.ndarray:
    """A picture of a batch on the host, augmented or not, with its boxes if any."""
    height, width = batch.size[row]
    image = batch.image[row, :height, :width]
    if image.dtype != np.uint8:
        image = np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)
    valid = batch.valid[row].astype(bool) & (not _is_classified(run))
    return draw_cell(
        image,
        batch.boxes[row][valid],
        batch.labels[row][valid],
        None,
        run.train.source.class_names,
    )


def _matrix_text(matrix: np.ndarray) -> list[str]:
    return [" ".join(f"{entry:10.5g}" for entry in row) for row in matrix]
