"""From the settings of a config to the parts of a run, all checked before any compile.

Order of the checks: keys, sizes, devices, data sets, classes; then the parts.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from yolojax import control, datasets, lookup
from yolojax.data import check, pipeline
from yolojax.data.room import CACHES, Room
from yolojax.data.sampling import epoch_length
from yolojax.data.stored import make_shards
from yolojax.datasets import Data
from yolojax.engine import device_cache, evaluate, scales, sharding
from yolojax.engine.feed import Feed, from_devices, from_host
from yolojax.engine.step import Step, init_state
from yolojax.engine.warm_start import Start, first_variables
from yolojax.models.detector import MODELS, build_model
from yolojax.models.model import Model
from yolojax.optim.build import Optimizer
from yolojax.recipe import (
    make_attack,
    make_augmentation,
    make_loss,
    make_optimizer,
    make_steps,
    training_sizes,
)
from yolojax.records import TrainState

DTYPES = ("float32", "bfloat16", "float16")


@dataclasses.dataclass(frozen=True)
class Experiment:
    """What a run is made of; see `build`."""

    settings: dict[str, Any]
    image_size: tuple[int, int]
    model: Model
    mesh: Mesh
    train: Data
    val: Data | None
    max_boxes: int
    num_edges: int
    repeats: np.ndarray | None
    steps_per_epoch: int
    total_steps: int
    optimizer: Optimizer
    steps: dict[scales.Size, Step]
    start: Start

    @property
    def step(self) -> Step:
        """The step of the largest size."""
        return self.steps[max(self.steps)]

    def size_at(self, number: int) -> scales.Size:
        """The (height, width) of the step that comes after so many steps."""
        sizes = sorted(self.steps)
        return scales.size_of_step(sizes, self.settings["seed"], number)

    def step_at(self, number: int) -> Step:
        """The step that comes after so many steps."""
        return self.steps[self.size_at(number)]

    def initial_state(self) -> TrainState:
        """The state before the first step, on all devices."""
        state = init_state(self.start.variables, self.optimizer)
        return sharding.put_replicated(state, self.mesh)

    def train_batches(self) -> Any:
        """The endless stream of this process's training batches."""
        data = self.settings["data"]
        return pipeline.make_train_batches(
            self.train.source,
            self.train.keep,
            image_size=self.image_size,
            batch_size=self.settings["batch_size"],
            max_boxes=self.max_boxes,
            seed=self.settings["seed"],
            steps_per_epoch=self.steps_per_epoch,
            num_threads=datasets.num_threads(self.settings),
            cache=data["cache"],
            room=Room(data["cache_bytes"], data["cache_dir"]),
            repeats=self.repeats,
            num_edges=self.num_edges,
            shard=(jax.process_index(), jax.process_count()),
        )

    def feed(self, state: TrainState | None = None) -> Feed:
        """The training batches, from where `data.cache` has the pictures.

        Args:
            state: with it, the memory of a step is reckoned in, where devices say how
                much they have.

        Raises:
            ValueError: there is no room for the cache.
        """
        if self.settings["data"]["cache"] != "device":
            return from_host(self.train_batches(), self.mesh)
        shards = make_shards(
            seed=self.settings["seed"],
            num_pictures=len(self.train.keep),
            num_shards=self.mesh.devices.size,
            batch_size=self.settings["batch_size"],
            steps_per_epoch=self.steps_per_epoch,
            repeats=self.repeats,
        )
        need = 0
        if state is not None and device_cache.has_own_memory(self.mesh):
            like = device_cache.abstract_stored(
                shards, self.mesh, self.image_size, self.max_boxes, self.num_edges
            )
            need = device_cache.step_bytes(self.step, state, like)
        cache = device_cache.DeviceCache(
            self.train.source,
            self.train.keep,
            shards,
            self.mesh,
            image_size=self.image_size,
            max_boxes=self.max_boxes,
            num_threads=datasets.num_threads(self.settings),
            num_edges=self.num_edges,
            budget=self.settings["data"]["cache_bytes"],
            step_bytes=need,
        )
        return from_devices(cache)


def make_model(
    settings: Mapping[str, Any], class_names: tuple[str, ...] | None = None
) -> Model:
    """The network, with as many classes as the config or, at 0, the data say.

    Raises:
        ValueError: config and data disagree on the classes, an unknown model or
            argument, or an image size that the strides do not divide.
    """
    arguments = dict(settings["model"])
    name = arguments.pop("name", "")
    lookup.check_arguments(
        lookup.pick(MODELS, name, "model"),
        {"num_classes": 0} | arguments,
        "config.model",
    )
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
    model = build_model(
        name, num_classes=num_classes or found, dtype=settings["dtype"], **arguments
    )
    stride = model.max_stride
    size = datasets.image_size_of(settings)
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
        if size < (key == "batch_size") or size % count:
            near = max(count, round(size / count) * count)
            raise ValueError(
                f"config.{key} {size} cannot be split over {count} devices. "
                f"Nearest: {near}; or use fewer: --config.devices=1"
            )
    return mesh


def make_predict(settings: Mapping[str, Any], model: Model, mesh: Mesh) -> Any:
    """The jitted function from variables and batch to detections; see `evaluate`."""
    chosen = settings["evaluate"]
    keys = ("score_threshold", "iou_threshold", "max_detections", "multi_label")
    arguments = {key: chosen[key] for key in keys}
    if chosen["max_candidates"]:
        arguments["max_candidates"] = chosen["max_candidates"]
    return evaluate.make_predict_step(model, mesh, **arguments)


def build(
    settings: Mapping[str, Any], *, workdir: Path | None = None, progress: Any = None
) -> Experiment:
    """Everything that a training run needs.

    Args:
        settings: a complete config, see `settings.complete`.
        workdir: where to remember which pictures were found readable.
        progress: `progress(done, total)` while the data are read.

    Raises:
        ValueError: anything wrong with the config or the data, before any compile.
    """
    settings = dict(settings)
    size = datasets.image_size_of(settings)
    trial = make_model({**settings, "model": {**settings["model"], "num_classes": 1}})
    training_sizes(settings, trial)
    make_attack(settings)
    make_augmentation(settings, 1)
    control.check(settings)
    mesh = make_mesh(settings)

    # Labels first, pictures last: what takes long comes after all checks.
    source = datasets.open_source(settings, "train")
    val_source = (
        datasets.open_source(settings, "val") if settings["data"]["val"] else None
    )
    model = make_model(settings, source.class_names)
    if val_source is not None and val_source.class_names != source.class_names:
        raise ValueError(
            f"train has the classes {', '.join(source.class_names)}, "
            f"val has {', '.join(val_source.class_names)}; they must be the same"
        )
    make_loss(settings, model)
    make_optimizer(settings, model, 1)
    start = first_variables(
        model,
        seed=settings["seed"],
        workdir=workdir,
        weights=settings["init"]["weights"],
        skip=settings["init"]["skip"],
    )
    lookup.pick({**CACHES, "device": None}, settings["data"]["cache"], "cache")
    datasets.sampler_of(settings)

    def look(part: str, source: Any) -> Data:
        path = workdir / f"scan_{part}.json" if workdir else None
        return datasets.look_at_pictures(
            settings, source, cache_path=path, progress=progress
        )

    train, repeats = datasets.sampled(settings, look("train", source))
    if not any(len(source[i].labels) for i in train.keep.tolist()):
        raise ValueError(
            "config.data.train: no picture has a box, so there is nothing to learn. "
            "Look at what was read: python -m yolojax.check"
        )
    val = look("val", val_source) if val_source is not None else None
    length = epoch_length(len(train.keep), repeats)
    steps_per_epoch = math.ceil(length / settings["batch_size"])
    total = settings["epochs"] * steps_per_epoch
    if settings["max_steps"]:
        total = min(total, settings["max_steps"])
    max_boxes = settings["data"]["max_boxes"]
    if not max_boxes:
        most = pipeline.max_boxes_of(train.source, train.keep)
        max_boxes = max(8, math.ceil(most / 8) * 8)
    check.note_cut_boxes(source, train.keep, max_boxes, train.report)
    steps, optimizer = make_steps(
        settings, model, mesh, max_boxes=max_boxes, steps_per_epoch=steps_per_epoch
    )
    return Experiment(
        settings=settings,
        image_size=size,
        model=model,
        mesh=mesh,
        train=train,
        val=val,
        max_boxes=max_boxes,
        num_edges=pipeline.num_edges_of(train.source, train.keep),
        repeats=repeats,
        steps_per_epoch=steps_per_epoch,
        total_steps=total,
        optimizer=optimizer,
        steps=steps,
        start=start,
    )
