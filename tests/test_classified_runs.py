"""Whole runs of classifiers: from a config to a report, on one device and on four."""

import json

import jax
import numpy as np
import pytest

from tests.tiny import tiny_config
from yolojax import experiment, settings, training
from yolojax.engine import sharding
from yolojax.engine.log import read_metrics
from yolojax.trees import flatten


def config(**changes):
    """A few steps on handwritten digits."""
    tiny = tiny_config(**{"max_steps": 3, **changes})
    tiny["model"] = {"name": "cnn5", "num_classes": 0, "dropout": 0.2}
    for part in ("train", "val"):
        tiny["data"][part] = {"source": "handwritten", "split": part, "size": 8}
    tiny |= {"image_size": (8, 8), "batch_size": 16}
    tiny["augment"] = {"policy": ({"name": "mixup", "probability": 0.5},)}
    tiny["loss"] = {"name": "cross_entropy", "label_smoothing": 0.1}
    tiny["optim"] |= {"name": "adam", "learning_rate": 1e-3, "nominal_batch": 32}
    return settings.complete(tiny)


def test_a_classifier_trains_and_leaves_its_report(tmp_path, capsys):
    assert training.train(config(), tmp_path) == 0
    said = capsys.readouterr().out
    assert "of them with a label" in said and "boxes" not in said
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["finished"] and 0 <= summary["accuracy"] <= 1
    report = json.loads((tmp_path / "evaluation.json").read_text())
    assert report["accuracy"] == summary["accuracy"]
    rows = read_metrics(tmp_path)
    last = [row for row in rows if "val/accuracy" in row][-1]
    assert last["val/accuracy"] == pytest.approx(summary["accuracy"])
    assert {"loss/class", "train/accuracy"} <= set().union(*rows)
    for name in ("confusion", "reliability", "classes", "worst", "results", "labels"):
        assert (tmp_path / "plots" / f"{name}.png").stat().st_size > 1000
    # The same command again does nothing.
    assert training.train(config(), tmp_path) == 0
    assert "is finished" in capsys.readouterr().out


@pytest.mark.slow
def test_four_devices_train_as_one_does():
    found = {}
    for devices in (1, 4):
        given = config(devices=devices)
        # Adam would blow up the rounding of biases whose gradient is 0.
        given["optim"] |= {"name": "sgd", "warmup_bias_rate": 0.0}
        run = experiment.build(given)
        feed, state = run.feed(), run.initial_state()
        losses = []
        for number in range(2):
            batch = feed.put(next(feed.batches))
            state, numbers = run.step_at(number)(state, batch)
            losses.append(float(numbers["loss"]))
        feed.batches.close()
        found[devices] = losses, flatten(jax.device_get(state.params))
    np.testing.assert_allclose(found[1][0], found[4][0], rtol=1e-5)
    for path, one in found[1][1].items():
        np.testing.assert_allclose(one, found[4][1][path], atol=2e-5, err_msg=path)


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"data": {"cache": "device"}},
        {"augment": {"adversarial": {"share": 0.5}}},
        {"optim": {"sam": {"name": "sam", "rho": 0.05}}, "dtype": "bfloat16"},
        {"dtype": "float16", "loss": {"name": "squared_error"}},
        {"freeze": {"layers": 2}, "optim": {"layer_decay": 0.8}},
    ],
    ids=lambda changes: "-".join(changes),
)
def test_the_engine_serves_classifiers_as_well(changes):
    given = config()
    for key, value in changes.items():
        given[key] = {**given[key], **value} if isinstance(value, dict) else value
    run = experiment.build(given)
    feed, state = run.feed(run.initial_state()), run.initial_state()
    feed.fill(None)
    losses = []
    for number in range(4):
        batch = feed.put(next(feed.batches))
        state, numbers = run.step_at(number)(state, batch)
        assert float(numbers["finite"]) or "loss_scale" in numbers
        losses.append(float(numbers["loss"]))
    feed.batches.close()
    assert np.isfinite(losses).all()
    first, last = (flatten(v["params"]) for v in (run.start.variables, state._asdict()))
    moved = {path for path in first if (np.asarray(last[path]) != first[path]).any()}
    frozen = {path for path in first if path.startswith(("backbone/block0/conv",))}
    assert bool(moved & frozen) == ("freeze" not in changes)
    assert any(path.startswith("head/linear") for path in moved)


def test_the_gradient_is_that_of_the_mean_over_the_nominal_batch():
    # Two batches of 16 make one step of 32: each counts by 1 / 32 a picture.
    from yolojax import recipe

    assert recipe.loss_weight(config()) == 1 / 32
    detector = settings.complete(tiny_config())
    assert recipe.loss_weight(detector) == 1


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"image_size": (4, 4)}, "too small for cnn5, which takes 8 px"),
        (
            {"evaluate": {"letterbox": "rectangular"}},
            "must be 'square' or 'centre_crop' for classif",
        ),
        ({"loss": {"name": "multi_label"}}, "one label a picture"),
        ({"checkpoint": {"best": "mAP50"}}, "no metric .* named 'mAP50'"),
        ({"model": {"name": "yolov5n"}}, "config.data.train has classes of whole"),
        ({"model": {"name": "cnn5", "num_classes": 3}}, "the data have 10 classes"),
        ({"model": {"name": "cnn5", "activation": "rellu"}}, "Did you mean 'relu'"),
    ],
)
def test_what_does_not_fit_is_refused_before_training(changes, message):
    given = config()
    for key, value in changes.items():
        given[key] = {**given[key], **value} if isinstance(value, dict) else value
    if given["model"]["name"] == "yolov5n":
        given["model"] = {"name": "yolov5n"}
        given["image_size"], given["loss"]["name"] = (32, 32), "yolov5"
    with pytest.raises(ValueError, match=message):
        experiment.build(given)


def test_the_loss_on_val_does_not_hang_on_how_full_a_batch_is():
    found = []
    for size in (100, 140, 180):
        given = config()
        given["evaluate"]["batch_size"] = size
        given["loss"]["label_smoothing"] = 0.0
        run = experiment.build(given)
        found.append(training.make_val_loss(run)(run.start.variables))
        evaluation = training.evaluation_of(run)
        assert evaluation is not None
        assert found[-1] == pytest.approx(evaluation(run.start.variables)["nll"])
    assert found == pytest.approx([found[0]] * 3)


def test_probabilities_of_a_run_sum_to_one(tmp_path):
    from yolojax import evaluating

    run = experiment.build(config())
    assert run.val is not None
    make = evaluating.make_probabilities
    found = make(run.settings, run.model, run.mesh, run.val)(run.start.variables)
    assert found.shape == (len(run.val.keep), 10)
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-5)
    assert isinstance(run.mesh, type(sharding.make_mesh(1)))
