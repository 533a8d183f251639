"""What the benchmarks share: a step of a config on made-up pictures, and timing."""

from __future__ import annotations

import dataclasses
import json
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from yolojax import experiment, recipe, settings
from yolojax.engine import sharding
from yolojax.engine.step import init_state
from yolojax.records import Batch

POLICY = (
    {"name": "mosaic", "probability": 1.0},
    {"name": "affine", "scale": 0.5, "translate": 0.1},
    {"name": "flip_left_right", "probability": 0.5},
    {"name": "hsv", "hue": 0.015, "saturation": 0.7, "value": 0.4},
)
MAX_BOXES = 32


@dataclasses.dataclass
class Case:
    """A network at one size and batch, with its jitted steps and a batch of data."""

    name: str
    chosen: dict[str, Any]
    full: Callable[..., Any]
    bare: Callable[..., Any]
    state: Any
    bare_state: Any
    batch: Batch
    pictures: jax.Array


def make_case(
    model_name: str, size: int, batch_size: int, *, dtype: str = "float32"
) -> Case:
    """The full training step of a config, and the bare one beside it.

    The bare step is forward, backward (of the mean square of the raw maps) and SGD
    with momentum of the same network: no loss, clipping, averaging or augmentation.
    """
    chosen = settings.complete(
        {
            "image_size": (size, size),
            "batch_size": batch_size,
            "dtype": dtype,
            "devices": 1,
            "model": {"name": model_name, "num_classes": 80},
            "augment": {"policy": POLICY},
        }
    )
    mesh = experiment.make_mesh(chosen)
    model = experiment.make_model(chosen)
    full, optimizer = recipe.make_step(
        chosen, model, mesh, max_boxes=MAX_BOXES, steps_per_epoch=100
    )
    variables = model.init(0)
    state = sharding.put_replicated(init_state(variables, optimizer), mesh)
    sgd = optax.sgd(1e-6, momentum=0.937, nesterov=True)

    def bare(state: Any, pictures: jax.Array) -> Any:
        params, stats, opt_state = state

        def objective(params: Any) -> Any:
            tree = {"params": params, "batch_stats": stats}
            maps, new = model.apply(tree, pictures, train=True)
            return sum(jnp.mean(jnp.square(m)) for m in maps), new

        (value, new), grads = jax.value_and_grad(objective, has_aux=True)(params)
        updates, opt_state = sgd.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), new, opt_state), value

    params = jax.tree.map(jnp.asarray, variables["params"])
    stats = jax.tree.map(jnp.asarray, variables["batch_stats"])
    batch = sharding.put_batch(made_up_batch(size, batch_size), mesh)
    return Case(
        name=f"{model_name} {size} px batch {batch_size} {dtype}",
        chosen=chosen,
        full=full,
        bare=jax.jit(bare, donate_argnums=0, out_shardings=sharding.replicated(mesh)),
        state=state,
        # On the mesh from the start, or the second call would compile again.
        bare_state=sharding.put_replicated((params, stats, sgd.init(params)), mesh),
        batch=batch,
        pictures=batch.image.astype(jnp.float32) / 255,
    )


def made_up_batch(size: int, batch_size: int) -> Batch:
    """Smooth random pictures of 4:3 with eight boxes each."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (batch_size, size // 16, size // 16, 3), np.uint8)
    image = coarse.repeat(16, axis=1).repeat(16, axis=2)
    height = size * 3 // 4
    image[:, height:] = 0
    low = rng.uniform(0, 0.7, (batch_size, MAX_BOXES, 2)) * (size, height)
    sides = rng.uniform(0.05, 0.3, (batch_size, MAX_BOXES, 2)) * (size, height)
    valid = np.zeros((batch_size, MAX_BOXES), bool)
    valid[:, :8] = True
    boxes = np.concatenate([low, low + sides], axis=-1) * valid[..., None]
    return Batch(
        image=image,
        size=np.tile(np.array((height, size), np.int32), (batch_size, 1)),
        boxes=boxes.astype(np.float32),
        labels=rng.integers(0, 80, (batch_size, MAX_BOXES)).astype(np.int32),
        valid=valid,
        image_id=np.arange(batch_size, dtype=np.int32),
        origin=np.tile(np.array((1, 1, 0, 0), np.float32), (batch_size, 1)),
    )


def advance_full(case: Case) -> None:
    """One full step, waited for."""
    case.state, numbers = case.full(case.state, case.batch)
    jax.block_until_ready(numbers)


def advance_bare(case: Case) -> None:
    """One bare step, waited for."""
    case.bare_state, value = case.bare(case.bare_state, case.pictures)
    jax.block_until_ready(value)


def side_by_side(actions: dict[str, Callable[[], None]], rounds: int) -> dict[str, Any]:
    """Seconds of each action by name, taken in turns after one round to warm up."""
    times: dict[str, list[float]] = {name: [] for name in actions}
    for number in range(rounds + 1):
        for name, action in actions.items():
            start = time.perf_counter()
            action()
            if number:
                times[name].append(time.perf_counter() - start)
    return {
        name: {
            "median_s": statistics.median(values),
            "lowest_s": min(values),
            "highest_s": max(values),
            "rounds": rounds,
            "all_s": values,
        }
        for name, values in times.items()
    }


def write_results(path: Path, results: dict[str, Any]) -> None:
    """Write figures with the commit and the versions that gave them."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        cwd=path.parent,
        capture_output=True,
        text=True,
    ).stdout.strip()
    device = jax.devices()[0]
    head = {
        "commit": commit,
        "date": time.strftime("%Y-%m-%d"),
        "jax": jax.__version__,
        "device": f"{jax.device_count()} x {device.device_kind} ({device.platform})",
    }
    path.write_text(json.dumps({**head, **results}, indent=1) + "\n")
