"""From the settings of a config to the parts of a run, all checked before any compile.

Order of the checks: keys, sizes, devices, data sets, classes; then the parts.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from yolojax import (
    anchoring,
    control,
    datasets,
    folding,
    lookup,
    memory,
    unlabelled,
)
from yolojax import settings as config
from yolojax.automatic import AUTO, as_begun, memory_share
from yolojax.data import check, pipeline
from yolojax.data.room import CACHES, Room
from yolojax.data.sampling import epoch_length
from yolojax.data.staged import Part, StagedStream, steps_of_part
from yolojax.data.stored import make_shards
from yolojax.datasets import Data
from yolojax.decoding import with_white
from yolojax.engine import classify, device_cache, evaluate, scales, sharding, stages
from yolojax.engine.feed import Feed, from_devices, from_host
from yolojax.engine.pool import pooled
from yolojax.engine.stages import Stage
from yolojax.engine.step import LookStep, Step, init_state
from yolojax.engine.warm_start import Start, first_variables
from yolojax.losses.weights import count_classes
from yolojax.models.classifier import Classifier
from yolojax.models.network import Network
from yolojax.network import make_mesh, make_model
from yolojax.objectives import check_kinds, is_multi_label, make_loss, noun_of
from yolojax.optim.build import Optimizer
from yolojax.recipe import (
    make_attack,
    make_augmentation,
    make_optimizer,
    make_stages,
    make_steps,
    pool_length,
    training_sizes,
)
from yolojax.records import TrainState
from yolojax.rows import row_notes, rows_before


@dataclasses.dataclass(frozen=True)
class Experiment:
    """What a run is made of; see `build`."""

    settings: dict[str, Any]
    image_size: tuple[int, int]
    model: Any
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
    stages: tuple[Stage, ...]
    later: tuple[tuple[dict[scales.Size, Step], Optimizer], ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def step(self) -> Step:
        """The step of the largest size."""
        return self.steps[max(self.steps)]

    def size_at(self, number: int) -> scales.Size:
        """The (height, width) of the step that comes after so many steps."""
        sizes = sorted(self.steps)
        return scales.size_of_step(sizes, self.settings["seed"], number)

    def step_at(self, number: int) -> Step:
        """The step that comes after so many steps; the first of a stage enters it."""
        index = stages.index_at(self.stages, number)
        steps, optimizer = self._stage(index)
        step = steps[self.size_at(number)]
        if isinstance(step, LookStep):
            step = step.at(number - self.stages[index].first_step)
        if not index or number != self.stages[index].first_step:
            return step
        place = sharding.replicated(self.mesh)
        enter = jax.jit(
            lambda state: stages.cross(state, optimizer), out_shardings=place
        )
        return lambda state, batch: step(enter(state), batch)

    def place_of(self, number: int) -> int:
        """The step, as if every epoch had as many steps as the longest."""
        epochs, rest = stages.epochs_before(self.stages, number)
        return epochs * self.steps_per_epoch + rest

    def initial_state(self, number: int = 0) -> TrainState:
        """The state before the first step, on all devices.

        Args:
            number: with the arrays of a state after so many steps.
        """
        _, optimizer = self._stage(self._index_before(number))
        state = init_state(self.start.variables, optimizer)
        return sharding.put_replicated(state, self.mesh)

    def _index_before(self, number: int) -> int:
        """The stage that a state after so many steps comes from."""
        return stages.index_at(self.stages, max(number - 1, 0))

    def _stage(self, index: int) -> tuple[dict[scales.Size, Step], Optimizer]:
        return ((self.steps, self.optimizer), *self.later)[index]

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
            stream=self._staged_stream(),
        )

    def _staged_stream(self) -> StagedStream | None:
        if all(stage.data_fraction == 1 for stage in self.stages):
            return None
        parts = [
            Part(stage.data_fraction, stage.first_step, stage.first_epoch)
            for stage in self.stages
        ]
        return StagedStream(
            parts,
            seed=self.settings["seed"],
            num_pictures=len(self.train.keep),
            batch_size=self.settings["batch_size"],
            repeats=self.repeats,
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
            batches = self.train_batches()
            if length := pool_length(self.settings, self.steps_per_epoch):
                return pooled(batches, self.mesh, length)
            return self._weighed(from_host(batches, self.mesh))
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
            steps, _ = self._stage(self._index_before(int(state.step)))
            need = device_cache.step_bytes(steps[max(steps)], state, like)
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
        return self._weighed(from_devices(cache))

    def _weighed(self, feed: Feed) -> Feed:
        batches = datasets.weighed(self.settings, feed.batches, self.train.keep)
        batches = unlabelled.pseudo_labelled(self.settings, batches, self.train)
        return feed._replace(batches=batches)


def _check_stages(settings: Mapping[str, Any], model: Network) -> None:
    """Check all stages, before the data are read.

    Raises:
        ValueError: something in `config.optim`, `.freeze` or `.stages` that cannot be.
    """
    plan = make_stages(settings, model, lambda _: 1)
    for stage in plan:
        make_optimizer(settings, model, 1, stage)
    partial = any(stage.data_fraction < 1 for stage in plan)
    if partial and settings["data"]["cache"] == "device":
        raise ValueError(
            "config.stages has a data_fraction below 1, which needs config.data.cache "
            "'encoded', 'disk' or 'none': a mosaic takes pictures from all that a "
            "device holds"
        )


def make_predict(
    settings: Mapping[str, Any], model: Any, mesh: Mesh, **options: Any
) -> Any:
    """The jitted function from variables and batch to what the network says.

    That is detections, see `evaluate.make_predict_step`, or probabilities of classes,
    see `classify.make_probability_step`.
    """
    if isinstance(model, Classifier):
        multi_label = is_multi_label(settings)
        return classify.make_probability_step(model, mesh, multi_label=multi_label)
    chosen = settings["evaluate"]
    keys = ("score_threshold", "iou_threshold", "max_detections", "multi_label")
    arguments = {key: chosen[key] for key in keys}
    if chosen["max_candidates"]:
        arguments["max_candidates"] = chosen["max_candidates"]
    return evaluate.make_predict_step(model, mesh, **arguments | options)


def build(
    settings: Mapping[str, Any], *, workdir: Path | None = None, progress: Any = None
) -> Experiment:
    """Everything that a training run needs.

    Args:
        settings: a complete config, see `settings.complete`.
        workdir: where to remember which pictures were found readable.
        progress: `progress(done, total)` while the data are read.

    Raises:
        ValueError: anything wrong with the config or the data, before any compile; or
            not a picture fits, with `batch_size = "auto"`.
    """
    settings = dict(settings)
    if workdir is not None and (workdir / "config.json").is_file():
        begun = config.read_config(workdir)
        settings = as_begun(settings, begun)
    size = datasets.image_size_of(settings)
    trial = make_model({**settings, "model": {**settings["model"], "num_classes": 1}})
    training_sizes(settings, trial)
    make_attack(settings)
    make_augmentation(settings, 1)
    control.check(settings)
    mesh = make_mesh(settings)
    batch_size = settings["batch_size"]
    if memory_share(batch_size) is not None:
        # What fits is known at the end; until then one picture a device.
        settings["batch_size"] = int(mesh.devices.size)
    pool_length(settings, 1)

    # Labels first, pictures last: what takes long comes after all checks.
    source = datasets.open_source(settings, "train")
    fold, val_source = folding.fold_of(settings, source), None
    if fold is None and settings["data"]["val"]:
        val_source = datasets.open_source(settings, "val")
    model = make_model(settings, source.class_names)
    check_kinds(settings, model, train=source, val=val_source)
    if val_source is not None:
        val_source = datasets.match_classes(val_source, source, part="val")
    make_loss(settings, model)
    _check_stages(settings, model)
    first = functools.partial(
        first_variables,
        seed=settings["seed"],
        workdir=workdir,
        kernels=settings["init"]["kernels"],
        weights=settings["init"]["weights"],
        skip=settings["init"]["skip"],
    )
    start = first(model)
    lookup.pick({**CACHES, "device": None}, settings["data"]["cache"], "cache")
    datasets.sampler_of(settings)
    unlabelled.check(settings, source)

    def look(part: str, source: Any) -> Data:
        path = workdir / f"scan_{part}.json" if workdir else None
        return datasets.look_at_pictures(
            settings, source, cache_path=path, progress=progress
        )

    train, val = folding.parts_of(fold, look("train", source))
    train = unlabelled.join(settings, train, workdir=workdir, progress=progress)
    train, repeats = datasets.sampled(settings, train)
    if not any(len(train.source[i].labels) for i in train.keep.tolist()):
        raise ValueError(
            f"config.data.train: no picture has a {noun_of(source)}, so there is "
            "nothing to learn. Look at what was read: python -m yolojax.check"
        )
    if val_source is not None:
        val = look("val", val_source)
    settings = with_white(settings, [train] if val is None else [train, val])
    asked, notes = settings["model"].get("anchors"), ()
    if not isinstance(model, Classifier):
        settings, notes = anchoring.resolve(settings, model, train)
    if asked == AUTO:
        model = make_model(settings, source.class_names)
        start = first(model)
    max_boxes = rows_before(settings, model, train)
    if taught := settings["data"]["max_boxes"]:
        check.note_cut_boxes(train.source, train.keep, taught, train.report)
    if not isinstance(model, Classifier):
        notes += row_notes(settings, max_boxes, train)
    num_edges = pipeline.num_edges_of(train.source, train.keep)
    settings, more = memory.resolve_batch(
        {**settings, "batch_size": batch_size},
        model,
        mesh,
        max_boxes=max_boxes,
        num_edges=num_edges,
        epoch_length=epoch_length(len(train.keep), repeats),
        num_kept=len(train.keep),
    )
    plan = make_stages(
        settings,
        model,
        lambda fraction: steps_of_part(
            settings["seed"],
            len(train.keep),
            repeats,
            batch_size=settings["batch_size"],
            fraction=fraction,
        ),
    )
    steps_per_epoch = max(stage.steps_per_epoch for stage in plan)
    total = plan[-1].end
    if settings["max_steps"]:
        total = min(total, settings["max_steps"])
    counts = count_classes(
        (train.source[i].labels for i in train.keep.tolist()), model.num_classes
    )
    (steps, optimizer), *later = (
        make_steps(
            settings,
            model,
            mesh,
            max_boxes=max_boxes,
            steps_per_epoch=steps_per_epoch,
            class_counts=counts,
            plan=plan,
            index=index,
        )
        for index in range(len(plan))
    )
    own = control.notes(settings)
    settling = control.settling(
        settings, model, steps_per_epoch=steps_per_epoch, total=plan[-1].end
    )
    if settings["augment"]["multi_scale"]:
        own += (scales.describe_sizes(sorted(steps), model.max_stride),)
    return Experiment(
        settings=settings,
        image_size=size,
        model=model,
        mesh=mesh,
        train=train,
        val=val,
        max_boxes=max_boxes,
        num_edges=num_edges,
        repeats=repeats,
        steps_per_epoch=steps_per_epoch,
        total_steps=total,
        optimizer=optimizer,
        steps=steps,
        start=start,
        notes=(*own, *((fold.note,) if fold else ()), *notes, *more, *settling),
        stages=plan,
        later=tuple(later),
    )
