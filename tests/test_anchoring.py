"""Anchors of a run: found out, written down, and read from there ever after."""

import json
import re

import numpy as np
import pytest

from tests.darknet import CFG
from tests.tiny import tiny_config
from yolojax import anchoring, experiment, inference, settings, training
from yolojax.data.anchors import LEAST_RECALL, measure
from yolojax.models.detector import build_model

DESCRIPTION = """
nc: 10
depth_multiple: 1.0
width_multiple: 1.0
anchors: 2
backbone: [[-1, 1, Conv, [8, 3, 4]], [-1, 1, Conv, [8, 3, 2]]]
head: [[[0, 1], 1, Detect, [nc, anchors]]]
"""
YAML = {"name": "yaml", "description": DESCRIPTION, "num_classes": 10}


@pytest.fixture(scope="module")
def auto():
    return experiment.build(tiny_config(model__anchors="auto"))


def test_auto_becomes_numbers_that_fit_better(auto):
    before = build_model("yolov5n", num_classes=10)
    sides = anchoring.sides_of(auto.settings, auto.train)
    fits = [measure(sides, m.anchors.reshape(-1, 2), 4.0) for m in (before, auto.model)]
    assert fits[1].fitness > fits[0].fitness
    stored = np.array(auto.settings["model"]["anchors"])
    np.testing.assert_allclose(auto.model.anchors, stored, rtol=1e-6)
    areas = stored.prod(axis=-1)
    # The finest level has the smallest.
    assert (np.diff(areas.reshape(-1)) >= 0).all() and areas.shape == (3, 3)
    assert re.search(
        rf"anchors \(auto, {len(sides)} boxes\): best possible recall "
        rf"{fits[0].recall:.4f} -> {fits[1].recall:.4f}, fitness "
        rf"{fits[0].fitness:.4f} -> {fits[1].fitness:.4f}, mean IoU",
        auto.notes[0],
    )


def test_the_same_run_again_has_the_same_anchors_and_its_directory_keeps_them(
    auto, tmp_path, monkeypatch
):
    again = experiment.build(tiny_config(model__anchors="auto"))
    assert again.settings == auto.settings
    other = experiment.build(tiny_config(model__anchors="auto", seed=5))
    assert other.settings["model"] != auto.settings["model"]

    settings.write_config(auto.settings, tmp_path)
    assert settings.from_json((tmp_path / "config.json").read_text()) == auto.settings

    def never(*arguments, **more):
        raise AssertionError("anchors were computed again")

    monkeypatch.setattr(anchoring, "compare", never)
    resumed = experiment.build(tiny_config(model__anchors="auto"), workdir=tmp_path)
    assert resumed.settings == auto.settings
    np.testing.assert_array_equal(resumed.model.anchors, auto.model.anchors)
    settings.check_config(resumed.settings, tmp_path)


@pytest.mark.parametrize(
    "model, loss",
    [
        ({**YAML, "anchors": "auto"}, "yolov5"),
        ({"name": "yolov3-tiny", "num_classes": 10, "anchors": "auto"}, "yolov3"),
        (
            {
                "name": "darknet",
                "description": CFG,
                "num_classes": 2,
                "anchors": "auto",
            },
            None,
        ),
    ],
    ids=lambda value: value["name"] if isinstance(value, dict) else "",
)
def test_every_family_takes_them(model, loss):
    chosen = tiny_config(model=model, loss__name=loss or "yolov4")
    # The network alone, whose classes are not those of the data.
    trial = experiment.make_model(chosen)
    data = experiment.datasets.open_source(chosen, "train")
    data = experiment.Data(data, np.arange(len(data)), data.report)
    found, notes = anchoring.resolve(chosen, trial, data)
    built = experiment.make_model(found)
    assert built.anchors.shape == trial.anchors.shape
    np.testing.assert_allclose(built.anchors, found["model"]["anchors"], rtol=1e-6)
    assert len(notes) == 1 and "auto" in notes[0]
    if trial.decoding.sizes == "exponential":
        # There boxes are compared by IoU.
        values = re.search(r"mean IoU ([\d.]+) -> ([\d.]+)", notes[0])
        assert values and float(values[2]) > float(values[1])


def test_anchors_that_do_not_fit_are_said_with_the_way_out(auto):
    large = (((300, 300), (310, 310)), ((320, 320), (330, 330)))
    chosen = tiny_config(model={**YAML, "anchors": large})
    model = experiment.make_model(chosen)
    (line,) = anchoring.advice(chosen, model, auto.train)
    assert re.match(r"the anchors do not fit: only 0.0% of \d+ boxes have one", line)
    assert "config.model.anchors='auto'" in line and "\n" not in line
    # Those that were found do, and so there is nothing to say.
    sides = anchoring.sides_of(auto.settings, auto.train)
    found = measure(sides, auto.model.anchors.reshape(-1, 2), 4.0)
    assert found.recall >= LEAST_RECALL
    assert anchoring.advice(auto.settings, auto.model, auto.train) == ()
    # A head without such a limit has nothing to fit.
    other = build_model("yolov3-tiny", num_classes=10)
    assert anchoring.advice(chosen, other, auto.train) == ()


def test_anchors_that_fit_best_stay(auto):
    found = anchoring.compare(auto.settings, auto.model, auto.train)
    kept = auto.settings["model"]["anchors"]
    if not found.improved:
        np.testing.assert_allclose(found.anchors, kept)
        assert "none were found that fit better" in anchoring.report(
            auto.model, found, 4.0
        )
    assert found.after.fitness >= found.before.fitness


def test_the_report_is_a_table_and_the_line_for_the_config(auto):
    model = build_model("yolov5n", num_classes=10)
    found = anchoring.compare(auto.settings, model, auto.train, distance="ratio")
    lines = anchoring.report(model, found, 4.0).splitlines()
    assert re.match(r"\d+ boxes, 9 anchors of yolov5n, in reach within a", lines[0])
    names = ["best possible recall", "anchors per target", "fitness", "mean IoU"]
    for name, line, key in zip(names, lines[2:], found.before._fields, strict=False):
        row = re.fullmatch(rf"{name} +([\d.]+) +([\d.]+)", line)
        assert row and row[1] == f"{getattr(found.before, key):.4f}"
        assert row[2] == f"{getattr(found.after, key):.4f}"
    value = eval(lines[-1].removeprefix("c.model.anchors = "))
    np.testing.assert_allclose(np.array(value), found.anchors)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"model__anchors": "atuo"}, "anchors must be 'auto'.*'atuo'.*mean 'auto'"),
        (
            {"model__anchors": "auto", "augment__boxes": {"min_side": 60.0}},
            "config.data.train: no box has both sides above .*=60 px .* 64x64",
        ),
        (
            {
                "model__anchors": "auto",
                "data__train": {"source": "digits", "size": 64, "length": 1},
            },
            r"no anchors from config.data.train: \d boxes are fewer than the 9 anchors",
        ),
    ],
    ids=["word", "small", "few"],
)
def test_what_cannot_be_found_is_an_error(changes, message):
    with pytest.raises(ValueError, match=message):
        experiment.build(tiny_config(**changes))


@pytest.mark.slow
def test_a_run_trains_goes_on_and_is_evaluated_by_what_it_found(tmp_path, monkeypatch):
    fixed = 200 * 2**20
    monkeypatch.setattr("yolojax.memory.room", lambda mesh: (fixed, "free, in a test"))
    chosen = tiny_config(
        model={**YAML, "anchors": "auto"}, batch_size="auto", epochs=1, data__val={}
    )
    assert training.train(chosen, tmp_path) == 0
    stored = json.loads((tmp_path / "config.json").read_text())
    assert stored["batch_size"] == 24
    loaded = inference.load(tmp_path)
    np.testing.assert_allclose(
        loaded.model.anchors, stored["model"]["anchors"], rtol=1e-6
    )
    monkeypatch.setattr(anchoring, "compare", None)
    # Longer, by the same config.
    assert training.train({**chosen, "epochs": 2}, tmp_path) == 0
    again = settings.from_json((tmp_path / "config.json").read_text())
    assert again["model"] == loaded.settings["model"] and again["batch_size"] == 24


def test_classifiers_have_none():
    chosen = tiny_config(model={"name": "cnn5", "num_classes": 3})
    model = experiment.make_model(chosen)
    data = experiment.datasets.open_source(tiny_config(), "train")
    data = experiment.Data(data, np.arange(len(data)), data.report)
    with pytest.raises(ValueError, match="anchors are for detectors; .* 'cnn5' is a"):
        anchoring.compare(chosen, model, data)
