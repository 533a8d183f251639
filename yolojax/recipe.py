"""From the settings of a config to its training step: loss, optimiser, augmentation."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from jax.sharding import Mesh

from yolojax import datasets, lookup
from yolojax.augment import adversarial
from yolojax.augment.adversarial import Attack
from yolojax.augment.boxes import BoxRule
from yolojax.augment.policy import (
    make_augment,
    make_label_augment,
    most_pictures,
)
from yolojax.augment.reading import swapped_classes
from yolojax.control import has_val, make_decay, num_epochs
from yolojax.engine import device_cache, scales, sharding, stages
from yolojax.engine.stages import Stage
from yolojax.engine.step import Augment, LookStep, Step, make_train_step
from yolojax.models.network import Network
from yolojax.network import is_classifier
from yolojax.objectives import make_loss
from yolojax.optim import freeze
from yolojax.optim.build import Optimizer, build_optimizer
from yolojax.optim.loss_scale import LossScaling
from yolojax.optim.optimizers import make_optimizer as check_optimizer
from yolojax.optim.sam import make_sam
from yolojax.optim.schedules import PLATEAU, pictures_of_step
from yolojax.rows import output_rows
from yolojax.weights.mapping import layer_numbers


def make_augmentation(
    settings: Mapping[str, Any],
    max_boxes: int,
    *,
    image_size: scales.Size | None = None,
    num_classes: int = 0,
) -> Augment:
    """The augmentation of the config.

    Args:
        settings: a complete config.
        max_boxes: rows for boxes of a picture before augmentation; for those after it
            see `rows.output_rows`.
        image_size: (height, width) of what it gives; None: that of the config.
        num_classes: classes that a mirror may exchange; 0: any.

    Raises:
        ValueError: a policy that cannot be, or classes that there are not.
    """
    chosen = settings["augment"]
    for pair in swapped_classes(chosen["policy"]):
        if num_classes and max(pair) >= num_classes:
            raise ValueError(
                f"config.augment.policy: swap has the classes {pair}, but there are "
                f"{num_classes} classes (0 to {num_classes - 1})"
            )
    size = datasets.image_size_of(settings)
    try:
        if is_classifier(settings):
            return make_label_augment(
                chosen["policy"], image_size=image_size or size, source_size=size
            )
        rows = output_rows(settings, max_boxes)
        return make_augment(
            chosen["policy"],
            image_size=image_size or size,
            max_boxes=rows.boxes,
            source_size=size,
            rule=BoxRule(**chosen["boxes"]),
            taught_boxes=rows.taught if rows.taught < max_boxes else None,
            max_left_out=rows.left_out,
        )
    except TypeError as error:
        raise ValueError(
            f"config.augment.policy: a value is of the wrong kind: {error}"
        ) from error


def pool_length(settings: Mapping[str, Any], steps_per_epoch: int) -> int:
    """Batches of `augment.pool`, at least one and at most an epoch; 0: no pool.

    Args:
        settings: a complete config.
        steps_per_epoch: batches an epoch.

    Raises:
        ValueError: a pool where nothing takes partners from it, or where the batches
            do not follow from the step alone.
    """
    images = settings["augment"]["pool"]
    if not images:
        return 0
    where = f"config.augment.pool is {images}, but "
    if is_classifier(settings):
        raise ValueError(f"{where}only the mosaic of detectors takes images from it")
    if settings["data"]["cache"] == "device":
        raise ValueError(
            f"{where}config.data.cache 'device' takes partners from the whole set"
        )
    if settings["data"]["sampling"].get("by") == "loss":
        raise ValueError(
            f"{where}config.data.sampling goes by losses, which are not known when "
            "batches are decoded ahead; leave one of them out"
        )
    if most_pictures(settings["augment"]["policy"]) == 1:
        raise ValueError(
            f"{where}config.augment.policy has no mosaic that takes images from it"
        )
    return min(max(1, round(images / settings["batch_size"])), steps_per_epoch)


def make_attack(settings: Mapping[str, Any]) -> Attack | None:
    """The adversarial part of the config's training step, if it has one.

    Raises:
        ValueError: an unknown argument, or one out of range.
    """
    arguments = settings["augment"]["adversarial"]
    if not arguments:
        return None
    where = "config.augment.adversarial"
    lookup.check_arguments(adversarial.make_attack, arguments, where)
    try:
        return adversarial.make_attack(**arguments)
    except TypeError as error:
        raise ValueError(f"{where}: a value is of the wrong kind: {error}") from error


def make_step(
    settings: Mapping[str, Any],
    model: Network,
    mesh: Mesh,
    *,
    max_boxes: int,
    steps_per_epoch: int,
    image_size: scales.Size | None = None,
    class_counts: Sequence[int] | None = None,
    plan: Sequence[Stage] = (),
    index: int = 0,
) -> tuple[Step, Optimizer]:
    """The jitted training step of the config, and its optimiser.

    Args:
        settings: a complete config.
        model: the network.
        mesh: the devices.
        max_boxes: room for boxes of a picture before augmentation.
        steps_per_epoch: steps of one pass over the data.
        image_size: (height, width) that the network sees; None: that of the config.
        class_counts: see `make_loss`.
        plan: the stages of the run, see `make_stages`; () as of a config that has one.
        index: which of them the step is for.

    Raises:
        ValueError: something in the config that cannot be.
    """
    plan = plan or make_stages(settings, model, lambda _: steps_per_epoch)
    stage = plan[index]
    optimizer = make_optimizer(settings, model, stage.steps_per_epoch, stage)
    decay = make_decay(settings)
    make = functools.partial(
        make_train_step,
        apply=model.apply,
        loss=make_loss(settings, model, class_counts),
        optimizer=optimizer,
        augment=device_cache.on_each_device(
            make_augmentation(
                settings,
                max_boxes,
                image_size=image_size,
                num_classes=model.num_classes,
            ),
            mesh,
        ),
        ema_decay=decay.decay,
        ema_ramp=decay.ramp,
        mosaic_steps=closing_step(settings, plan),
        total_steps=plan[-1].end,
        seed=settings["seed"],
        attack=make_attack(settings),
        first_step=stage.first_step,
        levels=getattr(model, "levels", ()),
        per_picture=True,
        weight=loss_weight(settings),
        momenta=first_momenta(settings, model),
    )
    compiled = functools.partial(
        jax.jit, donate_argnums=0, out_shardings=sharding.replicated(mesh)
    )
    if optimizer.sam is None or optimizer.sam.period == 1:
        return compiled(make()), optimizer
    step = LookStep(
        look=compiled(make(look=True)),
        between=compiled(make(look=False)),
        period=optimizer.sam.period,
    )
    return step, optimizer


def first_momenta(settings: Mapping[str, Any], model: Network) -> dict[str, float]:
    """Of the normalisations whose running statistics begin with the first batches.

    Those of given weights are those of data already.
    """
    init = settings["init"]
    fresh = init["statistics"] == "batches" and not init["weights"]
    return model.norm_momenta() if fresh else {}


def loss_weight(settings: Mapping[str, Any]) -> float:
    """What the sum of a batch's losses counts in the gradient.

    Published detectors are trained by the sum over the nominal batch, classifiers by
    the mean.
    """
    if not is_classifier(settings):
        return 1.0
    nominal = settings["optim"]["nominal_batch"]
    return 1.0 / pictures_of_step(settings["batch_size"], nominal)


def make_steps(
    settings: Mapping[str, Any], model: Network, mesh: Mesh, **arguments: Any
) -> tuple[dict[scales.Size, Step], Optimizer]:
    """The jitted training step of every size, and their optimiser; see `make_step`."""
    sizes = training_sizes(settings, model)
    made = [make_step(settings, model, mesh, **arguments, image_size=s) for s in sizes]
    steps = {size: step for size, (step, _) in zip(sizes, made, strict=True)}
    return steps, made[0][1]


def make_stages(
    settings: Mapping[str, Any],
    model: Network,
    steps_of: Callable[[float], int],
) -> tuple[Stage, ...]:
    """The stages of the config, with their places in the run.

    Args:
        settings: a complete config.
        model: the network.
        steps_of: from a share of the data to the steps of an epoch.

    Raises:
        ValueError: see `stages.read_stages`.
    """
    found = stages.read_stages(settings, model.shapes(), layer_numbers(model))
    return stages.timed(found, steps_of)


def closing_step(settings: Mapping[str, Any], plan: Sequence[Stage]) -> int:
    """The step from which mosaic and mixing are off, until the end of the run.

    The last epochs are those of the whole run, not of each stage.
    """
    epochs = plan[-1].first_epoch + plan[-1].epochs
    closed = settings["augment"]["close_mosaic_epochs"]
    return stages.step_of_epoch(plan, epochs - closed)


def training_sizes(
    settings: Mapping[str, Any], model: Network
) -> tuple[scales.Size, ...]:
    """The sizes that the config trains at; see `scales.training_sizes`."""
    return scales.training_sizes(
        datasets.image_size_of(settings),
        settings["augment"]["multi_scale"],
        model.max_stride,
    )


def make_optimizer(
    settings: Mapping[str, Any],
    model: Network,
    steps_per_epoch: int,
    stage: Stage | None = None,
) -> Optimizer:
    """The optimiser of the config; warm-up lasts at least `warmup_min_steps`.

    Args:
        settings: a complete config.
        model: the network.
        steps_per_epoch: steps of one pass over the data.
        stage: the part of the run that it is for; None: the first.

    Raises:
        ValueError: see `build_optimizer`; or warm-up is longer than the run, or the
            schedule needs evaluations and there are none.
    """
    stage = stage or make_stages(settings, model, lambda _: steps_per_epoch)[0]
    averaged = settings["swa"]
    is_last = stage.first_epoch + stage.epochs == num_epochs(settings)
    held = averaged["epochs"] and is_last and averaged["learning_rate"]
    settings = {**settings, "epochs": stage.epochs}
    chosen = dict(settings["optim"])
    for name in ("learning_rate", "warmup_bias_rate"):
        chosen[name] *= stage.lr_scale
    sam = make_sam(chosen.pop("sam"), peak=chosen["learning_rate"] or 1.0)
    half = settings["dtype"] == "float16"
    scaling = LossScaling(**settings["loss_scale"]) if half else None
    network = model.shapes()["params"]
    trained, _ = freeze.split(network, stage.frozen.parameters)
    arguments = chosen.pop("arguments")
    epochs = chosen.pop("warmup_epochs")
    at_least = chosen.pop("warmup_min_steps")
    check_optimizer(chosen["name"], arguments)
    _check_schedule(settings)
    warmup = max(round(epochs * steps_per_epoch), at_least) if epochs > 0 else 0
    made = build_optimizer(
        trained,
        network=network,
        warmup_steps=warmup,
        batch_size=settings["batch_size"],
        steps_per_epoch=steps_per_epoch,
        epochs=settings["epochs"],
        seed=settings["seed"],
        hold_from=(stage.epochs - averaged["epochs"]) * steps_per_epoch,
        hold_rate=held or 0.0,
        **chosen,
        **arguments,
    )
    return made._replace(frozen=stage.frozen, sam=sam, loss_scaling=scaling)


def _check_schedule(settings: Mapping[str, Any]) -> None:
    chosen, epochs = settings["optim"], settings["epochs"]
    if chosen["warmup_epochs"] > epochs:
        raise ValueError(
            f"config.optim.warmup_epochs is {chosen['warmup_epochs']}, which is longer "
            f"than the run, or its stage, of {epochs} epochs. Shorten it, or train on"
        )
    evaluated = has_val(settings) and settings["evaluate"]["every_epochs"]
    if chosen["schedule"] == PLATEAU and not evaluated:
        raise ValueError(
            f"config.optim.schedule {PLATEAU!r} goes by evaluations: it needs "
            "config.data.val and config.evaluate.every_epochs"
        )
