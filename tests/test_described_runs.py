"""Runs of a network from a description, which need the file only to begin."""

import json

import numpy as np
import pytest

from tests.test_training import final_arrays, run, without_clock
from tests.tiny import tiny_config
from yolojax import converting, experiment, inference, settings, sizing, training
from yolojax.engine.log import read_metrics
from yolojax.trees import flatten

DESCRIPTION = """
nc: 10
depth_multiple: 0.33
width_multiple: 0.5
anchors: [[10, 14, 20, 28], [28, 34, 40, 50]]
backbone:
  - [-1, 1, Focus, [16, 3]]
  - [-1, 1, Conv, [16, 3, 2]]
  - [-1, 3, BottleneckCSP, [16]]
  - [-1, 1, GhostConv, [32, 3, 2]]
  - [-1, 1, C3TR, [32]]
head:
  - [-1, 1, nn.Upsample, [None, 2, nearest]]
  - [[-1, 2], 1, Concat, [1]]
  - [-1, 1, C3, [16, False]]
  - [[7, 4], 1, Detect, [nc, anchors]]
"""
CONFIG = """
from ml_collections import ConfigDict
def get_config():
    return ConfigDict({settings!r})
"""


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text(DESCRIPTION)
    return path


def config_of(path, **changes):
    model = {"name": "yaml", "path": str(path), "num_classes": 0}
    return tiny_config(model=model, image_size=(32, 32), **changes)


def test_the_settings_hold_the_description_and_not_only_its_name(path, tmp_path):
    chosen = config_of(path)
    settings.write_config(chosen, tmp_path / "run")
    path.unlink()
    again = settings.from_json((tmp_path / "run" / "config.json").read_text())
    assert again == chosen
    assert again["model"]["description"] == DESCRIPTION
    model = experiment.make_model(again, tuple("abcdefghij"))
    assert model.strides == (4, 8)
    assert experiment.make_loss(again, model).keywords["strides"] == (4, 8)
    changed = {**again, "model": {**again["model"], "description": "x" * 999}}
    message = (
        f"model.description differs in line 1: was .*, now {'x' * 80}[.]{{3}}[.] Use"
    )
    with pytest.raises(ValueError, match=message):
        settings.write_config(changed, tmp_path / "run")


def test_wrong_settings_name_the_file_before_anything_is_read(path):
    path.write_text(DESCRIPTION.replace("GhostConv", "GostConv"))
    with pytest.raises(ValueError, match=r"x.yaml: row 3 \(GostConv\): no module"):
        experiment.build(config_of(path))
    path.write_text(DESCRIPTION)
    chosen = config_of(path) | {"image_size": (36, 36)}
    with pytest.raises(ValueError, match="must be divisible by 8, the largest stride"):
        experiment.build(chosen)
    with pytest.raises(ValueError, match="config.model.path .*nothing.yaml: .*No such"):
        config_of(path.with_name("nothing.yaml"))
    chosen = config_of(path)
    chosen["model"]["with"] = 2
    with pytest.raises(ValueError, match="config.model has no argument 'with'"):
        experiment.build(chosen)


def test_info_lists_its_layers(path):
    chosen = config_of(path)
    chosen["model"]["num_classes"] = 10
    table = sizing.describe_model(chosen)
    assert "backbone/layer4" in table
    assert "head/level2" in table
    assert "strides 4, 8, 10 classes" in table


@pytest.mark.slow
def test_a_run_needs_its_description_only_to_begin(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    chosen = config_of(path, max_steps=2)
    assert training.train(chosen, tmp_path / "run") == 0
    path.unlink()
    loaded = inference.load(tmp_path / "run")
    assert loaded.model.strides == (4, 8)
    metrics = inference.evaluate_detector(loaded, tmp_path / "again")
    first = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert json.loads(json.dumps(metrics["mAP50"])) == first["mAP50"]
    find = inference.Predictor(
        loaded, score_threshold=0.01, iou_threshold=0.5, batch_size=1
    )
    boxes, _, scores = find([np.full((48, 40, 3), 90, np.uint8)])[0]
    assert boxes.shape == (len(scores), 4)
    converting.export(tmp_path / "run", tmp_path / "x.safetensors")
    again = inference.load(tmp_path / "x.safetensors")
    assert again.class_names == loaded.class_names
    ours, theirs = flatten(loaded.variables), flatten(again.variables)
    assert set(ours) == set(theirs)
    for name, array in ours.items():
        np.testing.assert_array_equal(array, theirs[name], err_msg=name)
    converting.convert(tmp_path / "x.safetensors", tmp_path / "two")
    assert inference.load(tmp_path / "two").model.strides == (4, 8)


@pytest.mark.slow
def test_a_stopped_run_goes_on_with_the_same_bits(path, tmp_path):
    given = config_of(path)
    # As in a config file: the path, and nothing of what it holds.
    del given["model"]["description"]
    config = tmp_path / "config.py"
    config.write_text(CONFIG.format(settings=given))
    for name, steps in (("whole", (6,)), ("parts", (2, 6))):
        for count in steps:
            done = run(
                tmp_path,
                "train",
                *("--config", config, "--workdir", name),
                f"--config.max_steps={count}",
            )
            assert done.returncode == 0, done.stderr
    # Without its files a run goes on by what it holds; another one cannot begin.
    path.unlink()
    done = run(tmp_path, "train", "--workdir", "parts")
    assert done.returncode == 0 and "parts is finished" in done.stdout
    done = run(tmp_path, "train", "--workdir", "new")
    assert done.returncode == 2
    assert "give --config: new holds no run to go on with" in done.stderr
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    one, other = final_arrays(whole), final_arrays(parts)
    assert one[0] == other[0] == 6
    one, other = (flatten(arrays) for _, arrays in (one, other))
    for name, array in one.items():
        np.testing.assert_array_equal(array, other[name], err_msg=name)
    rows = without_clock(read_metrics(whole))
    assert rows[-1]["step"] == without_clock(read_metrics(parts))[-1]["step"]
