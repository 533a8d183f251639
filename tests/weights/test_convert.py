"""Conversion from the command line and back, without PyTorch."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.tiny import tiny_config
from tests.weights.pickles import Called, File, Name, write
from yolojax import converting, inference
from yolojax.engine import checkpoint
from yolojax.models.detector import build_model
from yolojax.trees import flatten
from yolojax.weights.mapping import to_state_dict
from yolojax.weights.published import write_published

ROOT = Path(__file__).resolve().parents[2]
# Found before any installed one: whoever imports PyTorch fails.
ABSENT = "raise ImportError('no PyTorch here')"


@pytest.fixture(scope="module")
def model():
    return build_model("yolov5n", num_classes=3, width=0.125)


@pytest.fixture(scope="module")
def variables(model):
    return model.init(7)


@pytest.fixture(scope="module")
def weights(model, variables, tmp_path_factory):
    """A .pt file with a bare state dict."""
    file = File()
    state = {k: file.tensor(a) for k, a in to_state_dict(model, variables).items()}
    path = tmp_path_factory.mktemp("weights") / "w.pt"
    return write(path, file.zip({"model": state, "names": ["a", "b", "c"]}))


def same_bits(one, two):
    one, two = flatten(one), flatten(two)
    assert set(one) == set(two)
    for path, array in one.items():
        assert array.tobytes() == two[path].tobytes(), path


def run(tmp_path, module, *arguments):
    blocked = tmp_path / "blocked"
    for name in ("torch", "tensorflow"):
        (blocked / name).mkdir(parents=True, exist_ok=True)
        (blocked / name / "__init__.py").write_text(ABSENT)
    return subprocess.run(
        [sys.executable, "-m", f"yolojax.{module}", *map(str, arguments)],
        env={
            **os.environ,
            "PYTHONPATH": f"{blocked}:{ROOT}",
            "XDG_CACHE_HOME": str(tmp_path / "cache"),
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )


def test_a_converted_file_is_a_run_with_the_same_bits(weights, variables, tmp_path):
    table = converting.convert(weights, tmp_path / "run")
    loaded = inference.load(tmp_path / "run")
    same_bits(loaded.variables, variables)
    assert loaded.class_names == ("a", "b", "c")
    assert loaded.step == 0
    assert loaded.settings["image_size"] == (640, 640)
    rows = dict(line.split(maxsplit=1) for line in table.splitlines())
    assert rows["missing"] == rows["unused"] == rows["mis-shaped"] == "0"
    assert rows["classes"] == "3: a, b, c"
    assert rows["model"] == "yolov5n (width 0.125, depth 0.333333)"
    assert rows["precision"] == "float32"


@pytest.mark.slow
def test_run_to_state_dict_to_run_is_bit_identical(weights, variables, tmp_path):
    converting.convert(weights, tmp_path / "one")
    for start in (tmp_path / "one", tmp_path / "one" / "checkpoints" / "0"):
        sentence = converting.export(start, tmp_path / "out.safetensors")
        assert "written to" in sentence
        again = inference.load(tmp_path / "out.safetensors")
        same_bits(again.variables, variables)
    converting.convert(tmp_path / "out.safetensors", tmp_path / "two")
    config, found, _ = checkpoint.load_weights(tmp_path / "two")
    same_bits(found, variables)
    first = json.loads((tmp_path / "one" / "config.json").read_text())
    # The state dict says the anchors, which are the published ones.
    assert config["model"].pop("anchors")[0] == [[10, 13], [16, 30], [33, 23]]
    assert config == first


def test_a_file_is_loaded_as_the_run_made_from_it(weights, tmp_path):
    converting.convert(weights, tmp_path / "run")
    one, two = inference.load(weights), inference.load(tmp_path / "run")
    assert one.settings == two.settings
    assert one.class_names == two.class_names
    assert one.category_ids == two.category_ids
    same_bits(one.variables, two.variables)


@pytest.mark.slow
def test_weights_without_class_names_take_those_of_the_data(model, tmp_path):
    model = build_model("yolov5n", num_classes=10, width=0.125)
    path = tmp_path / "w.safetensors"
    names = [f"class{i}" for i in range(10)]
    write_published(path, model, model.init(0), names)
    data = tiny_config()
    change = inference.settings_changes({"image_size": (64, 64), "data": data["data"]})
    inference.evaluate_detector(inference.load(path, change), tmp_path / "out")
    rows = json.loads((tmp_path / "out" / "evaluation.json").read_text())["per_class"]
    assert "class0" not in json.dumps(rows)
    write_published(path, model, model.init(0), ["x", *names[1:]])
    with pytest.raises(ValueError, match="the network knows x, class1"):
        inference.evaluate_detector(inference.load(path, change), tmp_path / "out")


@pytest.mark.slow
def test_the_command_converts_both_ways_without_pytorch(weights, tmp_path):
    done = run(tmp_path, "convert", "--weights", weights, "--output", "run")
    assert done.returncode == 0, done.stderr
    assert "parameters  " in done.stdout
    assert "written: run, which --weights takes" in done.stdout
    done = run(tmp_path, "convert", "--weights", "run", "--to", "x.safetensors")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "x.safetensors").is_file()


@pytest.mark.slow
def test_predict_takes_a_file_without_pytorch(weights, tmp_path):
    from yolojax.vis.draw import save_image

    save_image(tmp_path / "a.png", np.full((64, 64, 3), 90, np.uint8))
    given = ("--weights", weights, "--source", "a.png", "--output", "out")
    done = run(tmp_path, "predict", *given)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "predictions.json").is_file()


def test_wrong_use_is_one_message(weights, tmp_path):
    bad = Called(Name("os", "system"), (f"touch {tmp_path / 'canary'}",))
    write(tmp_path / "evil.pt", File().zip({"model": bad}))
    for arguments, message in (
        (("--weights", weights), "give --output DIR or --to FILE.safetensors"),
        (("--weights", "evil.pt", "--output", "x"), "tries to call os.system('touch"),
    ):
        done = run(tmp_path, "convert", *arguments)
        assert done.returncode == 2
        assert message in done.stderr
        assert "Traceback" not in done.stderr
    assert not (tmp_path / "canary").exists()
    assert not (tmp_path / "x").exists()


def test_a_run_is_not_overwritten_and_not_converted(weights, tmp_path):
    converting.convert(weights, tmp_path / "run")
    with pytest.raises(ValueError, match="holds a run already; give another"):
        converting.convert(weights, tmp_path / "run")
    with pytest.raises(ValueError, match="is a run already: predict and evaluate"):
        converting.convert(tmp_path / "run", tmp_path / "two")
    with pytest.raises(ValueError, match="written as .safetensors only"):
        converting.export(tmp_path / "run", tmp_path / "two.pt")
