"""Means of weights, and the batch statistics that belong to them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from yolojax import recipe
from yolojax.engine import device_cache, sharding, swa
from yolojax.engine.feed import Feed
from yolojax.engine.step import augmentation_of_step
from yolojax.experiment import Experiment
from yolojax.records import TrainState


def make_average(
    run: Experiment, state: TrainState, feed: Feed
) -> swa.WeightAverage | None:
    """The mean of the last epochs' weights, where the config asks for one.

    Args:
        run: what is trained.
        state: from the start or a checkpoint.
        feed: gives the batches for the statistics.
    """
    epochs = run.settings["swa"]["epochs"]
    if not epochs:
        return None
    # All of them lie in the last stage, whose epochs may be shorter than others.
    every = run.stages[-1].steps_per_epoch
    return swa.WeightAverage(
        state.swa or state.ema,
        start=run.stages[-1].end - epochs * every,
        every=every,
        recompute=make_recompute(run, feed),
    )


def make_recompute(
    run: Experiment, feed: Feed
) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """A function from variables to their batch statistics over an epoch's batches.

    The batches are those that come next, augmented as at the end of the training.

    Args:
        run: the network and the augmentation.
        feed: gives the batches.
    """
    move = _make_statistics(run)

    def recompute(variables: Mapping[str, Any]) -> dict[str, Any]:
        variables = sharding.put_replicated(dict(variables), run.mesh)

        def batches() -> Iterator[tuple[Any, Any]]:
            for number in range(run.stages[-1].steps_per_epoch):
                yield feed.put(next(feed.batches)), jnp.int32(number)

        # The training, if it goes on, takes the same batches again.
        before = feed.batches.get_state()
        found = swa.mean_statistics(
            lambda stats, batch: move(variables["params"], stats, *batch),
            variables["batch_stats"],
            batches(),
        )
        feed.batches.set_state(before)
        return found

    return recompute


def _make_statistics(run: Experiment) -> Callable[..., Any]:
    """The jitted function from parameters, statistics, batch and step to statistics."""
    augment = device_cache.on_each_device(
        recipe.make_augmentation(
            run.settings, run.max_boxes, num_classes=run.model.num_classes
        ),
        run.mesh,
    )
    total = run.stages[-1].end
    closing = recipe.closing_step(run.settings, run.stages)

    def move(params: Any, stats: Any, batch: Any, step: jax.Array) -> Any:
        key, options = augmentation_of_step(
            total + step,
            seed=run.settings["seed"],
            mosaic_steps=closing,
            total_steps=total,
        )
        pictures, _ = augment(key, batch, **options)
        variables = {"params": params, "batch_stats": stats}
        still = run.stages[-1].frozen.norms
        return run.model.apply(variables, pictures.image, train=True, frozen=still)[1]

    return jax.jit(move, out_shardings=sharding.replicated(run.mesh))
