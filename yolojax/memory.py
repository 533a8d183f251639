"""The memory of a training step, by the compiler's word, and the batch that fits."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from yolojax import recipe
from yolojax.automatic import memory_share
from yolojax.data import pipeline
from yolojax.data.cache import NoCache
from yolojax.datasets import image_size_of
from yolojax.engine import device_cache, sharding
from yolojax.engine.step import init_state
from yolojax.models.network import Network
from yolojax.optim.schedules import pictures_of_step

_MIB = 2**20
# Pictures a device of the two small steps that the slope is read from. With fewer, what
# does not depend on the batch is the larger part and the slope comes out too small.
_FIRST, _SECOND = 4, 8
# Pictures a device, at most, where it is not known how many there are.
_MOST = 1024
# Without accelerators: the libraries that compute on a CPU take memory that no compiler
# counts, 14 to 28 % more in steps of a yolov5n.
_HOST_SHARE = 0.8


@dataclasses.dataclass(frozen=True)
class StepMemory:
    """Bytes that each device needs for a training step.

    Attributes:
        parameters: with batch statistics.
        averages: the moving averages of both.
        optimizer: its state, with summed gradients and what scaling and SAM keep.
        pictures: the batch.
        temporaries: activations, gradients and what operations need to work in.
    """

    parameters: int
    averages: int
    optimizer: int
    pictures: int
    temporaries: int

    @property
    def total(self) -> int:
        """The sum."""
        return sum(dataclasses.astuple(self))

    def __str__(self) -> str:
        names = ("parameters", "averages", "optimiser", "pictures", "activations")
        parts = zip(names, dataclasses.astuple(self), strict=True)
        rows = [(f"{name}", size) for name, size in parts] + [("in all", self.total)]
        return "\n".join(f"{name:<28}{size / _MIB:>8,.1f} MiB" for name, size in rows)


@dataclasses.dataclass(frozen=True)
class Choice:
    """A batch that fits.

    Attributes:
        batch_size: pictures over all devices.
        num_bytes: what a device will need, measured or interpolated.
        measured: batches whose step was compiled, in that order.
    """

    batch_size: int
    num_bytes: float
    measured: tuple[int, ...]


def step_memory(
    settings: Mapping[str, Any],
    model: Network,
    mesh: Mesh,
    *,
    max_boxes: int,
    num_edges: int = 0,
    steps_per_epoch: int = 1000,
) -> StepMemory:
    """What a training step of the config needs, at the largest size it trains at.

    Of several stages it is that of the one that freezes least. Compiles the step;
    nothing is run and no array is made.

    Args:
        settings: a complete config, `batch_size` a number.
        model: the network.
        mesh: the devices.
        max_boxes: room for boxes of a picture before augmentation.
        num_edges: rows for the edges of each outline.
        steps_per_epoch: steps of one pass over the data.
    """
    plan = recipe.make_stages(settings, model, lambda _: steps_per_epoch)
    frozen = [len(stage.frozen.parameters) for stage in plan]
    step, optimizer = recipe.make_step(
        settings,
        model,
        mesh,
        max_boxes=max_boxes,
        steps_per_epoch=steps_per_epoch,
        image_size=max(recipe.training_sizes(settings, model)),
        plan=plan,
        index=frozen.index(min(frozen)),
    )

    def first_state() -> Any:
        variables = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), model.shapes())
        state = init_state(variables, optimizer)
        # The mean of the last weights lies beside the state, not in it.
        return state, state.ema if settings["swa"]["epochs"] else ()

    state, mean = jax.eval_shape(first_state)
    size = image_size_of(settings)
    one = pipeline.training_layout(size, max_boxes, NoCache(), num_edges).empty(1)
    count = settings["batch_size"]
    batch = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((count, *x.shape[1:]), x.dtype), one
    )
    memory = (
        step.lower(
            _placed(state, sharding.replicated(mesh)),
            _placed(batch, sharding.split(mesh)),
        )
        .compile()
        .memory_analysis()
    )
    kept = state.opt_state, state.loss_scale, state.sam
    used = 0
    if memory is not None:
        # The new state takes the place of the old one.
        fresh = memory.output_size_in_bytes - memory.alias_size_in_bytes
        used = int(memory.temp_size_in_bytes + max(0, fresh))
    return StepMemory(
        parameters=_num_bytes((state.params, state.batch_stats)),
        averages=_num_bytes((state.ema, mean)),
        optimizer=_num_bytes(kept),
        pictures=_num_bytes(batch) // mesh.devices.size,
        temporaries=used,
    )


def room(mesh: Mesh) -> tuple[int, str]:
    """Bytes that a step may take of each device, and how that is known.

    Of a CPU these are less than are free.
    """
    devices = list(mesh.local_devices)
    free = device_cache.free_bytes(devices)
    if device_cache.has_own_memory(mesh):
        return free, "free on the device"
    return int(_HOST_SHARE * free), (
        f"a device, assumed: {_HOST_SHARE:.0%} of this machine's free memory"
        + f" over its {len(devices)} devices" * (len(devices) > 1)
    )


def choose_batch(
    measure: Callable[[int], float],
    *,
    budget: float,
    devices: int = 1,
    most: int | None = None,
) -> Choice:
    """The largest batch whose step fits, from at most three measurements.

    What a step needs is the largest of several phases, and so convex in the batch. A
    line through two small batches may rise too slowly; so the batch that it gives is
    measured, and where that one is too large the answer lies on the line to it, which
    cannot be too low.

    Args:
        measure: from a batch over all devices to the bytes that a device needs.
        budget: bytes that a device may give.
        devices: the batch is a multiple of it.
        most: pictures that there are; None: that is not known.

    Raises:
        ValueError: one picture a device does not fit.
    """
    limit = max(1, most // devices) if most is not None else _MOST
    needs: dict[int, float] = {}

    def need(each: int) -> float:
        if each not in needs:
            needs[each] = float(measure(each * devices))
        return needs[each]

    def choice(each: int, num_bytes: float) -> Choice:
        return Choice(each * devices, num_bytes, tuple(n * devices for n in needs))

    def on_line(low: int, high: int) -> Choice:
        slope = (need(high) - need(low)) / (high - low)
        each = min(high - 1, low + math.floor((budget - need(low)) / slope))
        return choice(each, need(low) + slope * (each - low))

    first = min(_FIRST, limit)
    if need(first) > budget:
        if need(1) > budget:
            raise ValueError(
                f"config.batch_size is 'auto', but a step with {devices} picture(s), "
                f"one a device, needs {needs[1] / _MIB:,.0f} MiB of each, and "
                f"{budget / _MIB:,.0f} MiB may be taken. Lower config.image_size, take "
                "a smaller model, or config.dtype='bfloat16'"
            )
        return on_line(1, first)
    second = min(_SECOND, limit)
    if second == first:
        return choice(first, need(first))
    if need(second) > budget:
        return on_line(first, second)
    # A step that needs no more for more pictures would ask for endlessly many.
    slope = max((need(second) - need(first)) / (second - first), 1.0)
    third = min(limit, second + math.floor((budget - need(second)) / slope))
    if third == second or need(third) <= budget:
        return choice(third, need(third))
    return on_line(second, third)


def resolve_batch(
    settings: dict[str, Any],
    model: Network,
    mesh: Mesh,
    *,
    max_boxes: int,
    num_edges: int,
    epoch_length: int | None,
    num_kept: int,
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The config with a number for `batch_size`, and what to say about it.

    Args:
        settings: a complete config.
        model: the network.
        mesh: the devices.
        max_boxes: see `step_memory`.
        num_edges: see `step_memory`.
        epoch_length: pictures that an epoch shows, the most that a batch may have;
            None: not known.
        num_kept: pictures that `data.cache = "device"` keeps.

    Raises:
        ValueError: one picture a device does not fit, or there are fewer pictures
            than devices.
    """
    share = memory_share(settings["batch_size"])
    if share is None:
        return settings, ()
    devices = int(mesh.devices.size)
    if epoch_length is not None and epoch_length < devices:
        raise ValueError(
            f"config.batch_size is 'auto', but {epoch_length} picture(s) are fewer "
            f"than {devices} devices. Use fewer: --config.devices=1"
        )
    free, known = room(mesh)
    stored = _stored_bytes(settings, max_boxes, num_edges, num_kept) / devices

    def measure(batch_size: int) -> float:
        # Compiling may take a minute, and nothing else would show.
        print(f"config.batch_size is auto: compiling {batch_size} pictures", flush=True)
        trial = {**settings, "batch_size": batch_size}
        rooms = {"max_boxes": max_boxes, "num_edges": num_edges}
        return step_memory(trial, model, mesh, **rooms).total

    budget = share * free - stored
    chosen = choose_batch(measure, budget=budget, devices=devices, most=epoch_length)
    size = _smallest_of_hosts(chosen.batch_size)
    settings = {**settings, "batch_size": size}
    whole = epoch_length is not None and size + devices > epoch_length
    why = ", all pictures of an epoch" * whole
    if epoch_length is None and size == _MOST * devices:
        why = ", the most that is tried where the data are not read"
    lines = [
        f"config.batch_size = {size} (auto{why}): a step needs about "
        f"{chosen.num_bytes / _MIB:,.0f} MiB"
        + f" beside {stored / _MIB:,.0f} MiB of stored pictures"
        * (stored > 0)
        + f" of {free / _MIB:,.0f} MiB {known}; {share:.0%} may be used. Compiled at "
        f"{', '.join(map(str, chosen.measured))}"
    ]
    return settings, (*lines, consequences(settings))


def consequences(settings: Mapping[str, Any]) -> str:
    """What the batch means for the optimiser, in a line."""
    size, chosen = settings["batch_size"], settings["optim"]
    nominal = chosen["nominal_batch"]
    seen = pictures_of_step(size, nominal)
    batches = seen // size
    summed = f"{batches} batches" if batches > 1 else "each batch"
    factor = seen / nominal
    text = f"{summed} make{'s' * (batches == 1)} an optimiser step of {seen} pictures"
    if factor == 1:
        return f"{text}, as config.optim.nominal_batch says"
    return (
        f"{text} (config.optim.nominal_batch {nominal}): weight decay counts "
        f"{factor:.2f} times, the learning rate stays {chosen['learning_rate']:g}"
        + (", which may be too low for so many" * (factor >= 2))
    )


def _stored_bytes(
    settings: Mapping[str, Any], max_boxes: int, num_edges: int, num_kept: int
) -> int:
    """Bytes of all pictures that the devices keep."""
    if settings["data"]["cache"] != "device":
        return 0
    size = image_size_of(settings)
    one = pipeline.training_layout(size, max_boxes, NoCache(), num_edges).empty(1)
    return num_kept * _num_bytes(one)


def _smallest_of_hosts(batch_size: int) -> int:
    """What all hosts can do; each may have another amount of memory free."""
    if jax.process_count() == 1:
        return batch_size
    return int(np.min(multihost_utils.process_allgather(np.int32(batch_size))))


def _placed(tree: Any, place: jax.sharding.NamedSharding) -> Any:
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), tree
    )


def _num_bytes(tree: Any) -> int:
    leaves = jax.tree.leaves(tree)
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in leaves)
