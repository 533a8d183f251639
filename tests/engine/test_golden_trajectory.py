"""Twenty steps on real pictures against the original's, through the whole engine.

Largest relative differences on a 2-core AVX2 CPU: from the published weights, over
20 steps, 4e-7 in the total, 1.2e-6 in its parts, 5e-6 in the gradient's norm, 8e-7 in
final parameters and averages; without weight decay the last would be 8e-5.
"""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.shared import shared
from yolojax.engine.step import init_state, make_train_step
from yolojax.losses.detection import yolov5_loss
from yolojax.models.detector import build_model
from yolojax.optim.build import build_optimizer
from yolojax.records import Batch
from yolojax.weights.mapping import from_state_dict, to_state_dict

BATCH, SIZE, MAX_BOXES = 8, 160, 112
NAMES = {"total": "loss"} | {
    theirs: f"loss/{ours}"
    for theirs, ours in (("box", "box"), ("obj", "objectness"), ("cls", "class"))
}


def golden_batch(number):
    """Batch `number` of the reference, RGB, boxes as corners in pixels."""
    stored = np.load(shared("golden", "train_batches.npz"))
    images = stored["images_u8_bgr_hwc"][number * BATCH : (number + 1) * BATCH]
    targets = stored[f"targets{number:02d}"].astype(np.float64)
    boxes = np.zeros((BATCH, MAX_BOXES, 4), np.float32)
    labels = np.zeros((BATCH, MAX_BOXES), np.int32)
    valid = np.zeros((BATCH, MAX_BOXES), bool)
    for i in range(BATCH):
        rows = targets[targets[:, 0] == i]
        centre, half = rows[:, 2:4] * SIZE, rows[:, 4:6] * SIZE / 2
        n = len(rows)
        boxes[i, :n] = np.concatenate([centre - half, centre + half], axis=1)
        labels[i, :n] = rows[:, 1]
        valid[i, :n] = True
    return Batch(
        image=np.ascontiguousarray(images[..., ::-1]),
        size=np.full((BATCH, 2), SIZE, np.int32),
        boxes=boxes,
        labels=labels,
        valid=valid,
        image_id=np.arange(BATCH, dtype=np.int32),
        origin=np.tile(np.float32([1, 1, 0, 0]), (BATCH, 1)),
    )


def to_float(key, batch, **_):
    """What stands in for the augmentation: none."""
    del key
    return batch._replace(image=batch.image.astype(jnp.float32) / 255.0), jnp.int32(0)


def run(golden, steps, init, recipe):
    """The state after `steps`, and the numbers of each step."""
    settings = json.loads(str(golden["settings"]))
    assert settings["batch"] == BATCH and settings["imgsz"] == SIZE
    model = build_model("yolov5n", num_classes=80)
    variables = from_state_dict(model, np.load(shared("golden", init)))
    hyp = settings["hyp"]
    optimizer = build_optimizer(
        variables["params"],
        learning_rate=hyp["lr0"],
        final_ratio=hyp["lrf"],
        momentum=hyp["momentum"],
        weight_decay=hyp["weight_decay"],
        clip_norm=settings["clip_grad_norm"],
        batch_size=BATCH,
        # The reference counts all 20 steps as epoch 0.
        steps_per_epoch=1000,
        epochs=300,
        **recipe,
    )
    loss = functools.partial(
        yolov5_loss,
        anchors=model.anchors,
        strides=model.strides,
        box_gain=hyp["box"],
        objectness_gain=hyp["obj"],
        class_gain=hyp["cls"],
        anchor_ratio=hyp["anchor_t"],
    )
    step = jax.jit(
        make_train_step(
            apply=model.apply,
            loss=loss,
            optimizer=optimizer,
            augment=to_float,
            ema_decay=0.9999,
            ema_ramp=2000,
            mosaic_steps=0,
            total_steps=0,
            seed=0,
        ),
        donate_argnums=0,
    )
    state = init_state(variables, optimizer)
    rows = []
    for number in range(steps):
        state, numbers = step(state, golden_batch(number % 16))
        rows.append({name: float(value) for name, value in numbers.items()})
    return state, {name: np.array([row[name] for row in rows]) for name in rows[0]}


def relative(got, expected):
    return np.abs(got - expected) / np.abs(expected)


def largest_difference(golden, prefix, variables):
    """Over all tensors: the norm of the difference over the norm, and its tensor."""
    model = build_model("yolov5n", num_classes=80)
    differences = {}
    for name, value in to_state_dict(model, variables).items():
        expected = golden[f"{prefix}/{name}"].astype(np.float64)
        norm = np.linalg.norm(expected)
        differences[name] = np.linalg.norm(value - expected) / norm
    worst = max(differences, key=differences.__getitem__)
    return differences[worst], worst


@pytest.mark.slow
def test_twenty_steps_from_the_published_weights_are_the_original_s():
    golden = np.load(shared("golden", "train20_real.npz"))
    recipe = {"schedule": "constant", "nominal_batch": BATCH}
    state, numbers = run(golden, 20, "state_n_real.npz", recipe)
    # A target of step 15 lies on the edge of half a cell: rounding decides.
    limits = np.where(np.arange(20) < 15, 1e-5, 1e-4)
    limits[15] = 1e-3
    for theirs, ours in NAMES.items():
        scale = BATCH if theirs == "total" else 1
        error = relative(numbers[ours] * scale, golden[theirs])
        assert (error < limits).all(), (theirs, error)
    error = relative(numbers["gradient_norm"], golden["gradnorm"])
    assert (error < 10 * limits).all(), error
    np.testing.assert_allclose(numbers["learning_rate"], golden["lr"][:, 1], rtol=1e-6)
    assert int(state.ema_updates) == golden["ema_updates"] == 20
    final = {"params": state.params, "batch_stats": state.batch_stats}
    for prefix, variables in (("final", final), ("ema", state.ema)):
        difference, name = largest_difference(golden, prefix, variables)
        assert difference < 2e-5, (prefix, name)


@pytest.mark.slow
def test_first_steps_of_the_published_warm_up_are_the_original_s():
    golden = np.load(shared("golden", "train20_warmup_f64.npz"))
    recipe = {"warmup_steps": 100, "nominal_batch": 64}
    state, numbers = run(golden, 11, "state_n_seed0.npz", recipe)
    for theirs, ours in NAMES.items():
        scale = BATCH if theirs == "total" else 1
        # Three steps: from random parameters rounding grows tenfold every other step.
        error = relative(numbers[ours][:3] * scale, golden[theirs][:3])
        assert (error < 5e-5).all(), (theirs, error)
    error = relative(numbers["gradient_norm"][:3], golden["gradnorm"][:3])
    assert (error < 1e-4).all(), error
    lr = golden["lr"][:11]
    np.testing.assert_allclose(numbers["learning_rate_bias"], lr[:, 0], rtol=1e-6)
    np.testing.assert_allclose(numbers["learning_rate"], lr[:, 1], rtol=1e-6)
    momentum = golden["momentum"][:11]
    np.testing.assert_allclose(numbers["momentum"], momentum, rtol=1e-6)
    np.testing.assert_array_equal(numbers["accumulation"], golden["accumulate"][:11])
    assert int(state.ema_updates) == golden["stepped"][:11].sum() == 9


@pytest.mark.slow
def test_first_steps_from_random_parameters_are_the_original_s():
    golden = np.load(shared("golden", "train20_plain_1thread.npz"))
    recipe = {"schedule": "constant", "nominal_batch": BATCH}
    _, numbers = run(golden, 3, "state_n_seed0.npz", recipe)
    # The original disagrees with itself by 1e-3 at step 2.
    limits = np.array([1e-5, 1e-4, 5e-3])
    for theirs, ours in NAMES.items():
        scale = BATCH if theirs == "total" else 1
        error = relative(numbers[ours] * scale, golden[theirs][:3])
        assert (error < limits).all(), (theirs, error)
