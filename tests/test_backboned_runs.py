"""A detector with a classifier's backbone goes through every command."""

import json

import numpy as np
import pytest

from tests.tiny import tiny_config
from yolojax import converting, inference, settings, sizing, training
from yolojax.engine import checkpoint
from yolojax.trees import flatten

MODEL = {
    "name": "yolo",
    "num_classes": 10,
    "backbone": "resnet18",
    "backbone_arguments": {"width": 0.125, "drop_path": 0.1},
    "width": 0.125,
    "depth": 0.33,
    "normalise": {"name": "statistics"},
}


def test_info_counts_its_layers():
    text = sizing.describe_model(tiny_config(model=MODEL))
    rows = {line.split()[0] for line in text.splitlines() if "/" in line}
    assert {"backbone/stem", "backbone/stage5", "neck/lateral5", "head/level3"} <= rows
    assert "strides 8, 16, 32, 10 classes" in text


@pytest.mark.slow
def test_it_trains_is_evaluated_and_converted(tmp_path):
    chosen = tiny_config(
        model=MODEL,
        epochs=1,
        freeze__layers=2,
        optim__layer_decay=0.9,
    )
    run = tmp_path / "run"
    assert training.train(chosen, run) == 0
    assert json.loads((run / "summary.json").read_text())["finished"]
    loaded = inference.load(run)
    first, last = flatten(loaded.model.init(0)), flatten(loaded.variables)
    changed = {path for path in first if not np.array_equal(first[path], last[path])}
    # The stem and the first stage are the first two layers.
    still = ("backbone/stem/", "backbone/stage2/")
    assert not any(path.partition("/")[2].startswith(still) for path in changed)
    params = [p for p in first if p.startswith("params/") and p not in changed]
    assert all(path.partition("/")[2].startswith(still) for path in params)
    metrics = inference.evaluate_detector(loaded, tmp_path / "out")
    assert 0 <= metrics["mAP50"] <= 1
    converting.export(run, tmp_path / "w.safetensors")
    table = converting.convert(tmp_path / "w.safetensors", tmp_path / "again")
    assert "yolo on resnet18 (width 0.125, depth 0.33)" in table
    _, again, _ = checkpoint.load_weights(tmp_path / "again")
    again = flatten(again)
    assert all(np.array_equal(again[path], last[path]) for path in last)
    config = settings.from_json((tmp_path / "again" / "config.json").read_text())
    assert config["image_size"] == (64, 64)
