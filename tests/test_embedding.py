"""Features of a run's pictures: which pictures, which numbers, which files."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.tiny import tiny_config
from yolojax import embedding, inference
from yolojax.engine import sharding
from yolojax.models.classifier import BackboneAndHead, Classifier, LinearHead
from yolojax.models.cnn import Blocks

ROOT = Path(__file__).resolve().parents[1]
DIGITS = {"source": "handwritten", "size": 8}
DATA = {
    "train": DIGITS | {"split": "train"},
    "val": DIGITS | {"split": "val"},
    "num_threads": 1,
}


@pytest.fixture(scope="module")
def loaded():
    """A classifier of digits that has learnt nothing."""
    backbone = Blocks((4,))
    model = Classifier(
        name="one-block",
        family="cnn",
        num_classes=10,
        max_stride=1,
        feature_info=((4, 2),),
        dtype="float32",
        spec=None,
        module=BackboneAndHead(backbone, LinearHead(10)),
        backbone=backbone,
        smallest=2,
    )
    return inference.Loaded(
        settings=tiny_config(image_size=(8, 8), data=DATA),
        model=model,
        variables=model.init(0),
        class_names=tuple("0123456789"),
        category_ids=tuple(range(10)),
        mesh=sharding.make_mesh(1),
        step=0,
    )


def test_features_and_their_pictures_are_written(loaded, tmp_path):
    lines = embedding.write_features(
        loaded, tmp_path, splits=("train", "val", "test"), most=9
    )
    names = [line.split(":")[0] for line in lines]
    assert names == ["features.npz", "tsne.png", "pca.png"]
    assert all((tmp_path / name).stat().st_size for name in names)
    found = np.load(tmp_path / "features.npz")
    assert found["features"].shape == (27, 4) and found["features"].dtype == np.float32
    assert found["tsne"].shape == found["pca"].shape == (27, 2)
    assert found["layer"] == "head/linear:input"
    assert found["split"].tolist() == ["train"] * 9 + ["val"] * 9 + ["test"] * 9
    # Each row is of the picture that it names.
    source = embedding.Sample(loaded.settings, "val", 9)
    examples = [source[i] for i in range(9)]
    rows = found["split"] == "val"
    assert found["name"][rows].tolist() == [e.name for e in examples]
    assert found["labels"][rows].tolist() == [e.labels[0] for e in examples]
    images = np.stack([e.image for e in examples]).astype(np.float32) / 255
    (maps,) = loaded.model.backbone.apply(
        {k: loaded.variables[k]["backbone"] for k in ("params", "batch_stats")},
        images,
        train=False,
    )
    np.testing.assert_allclose(
        found["features"][rows], np.mean(maps, axis=(1, 2)), rtol=1e-4, atol=1e-6
    )


def test_a_sample_is_drawn_by_the_seed_and_in_order(loaded):
    drawn = [embedding.Sample(loaded.settings, "train", n) for n in (20, 20, 10**6)]
    names = [[part[i].name for i in range(len(part))] for part in drawn]
    assert names[0] == names[1] and len(names[0]) == 20
    assert len(names[2]) > 1000 and set(names[0]) < set(names[2])
    other = embedding.Sample(loaded.settings | {"seed": 7}, "train", 20)
    assert [other[i].name for i in range(20)] != names[0]


def test_a_fold_is_parted_as_in_its_run(loaded):
    folds = {"count": 3, "index": 1, "kind": "plain", "groups": ""}
    settings = loaded.settings | {"data": loaded.settings["data"] | {"folds": folds}}
    parts = [embedding.Sample(settings, split, 10**6) for split in ("train", "val")]
    names = [{part[i].name for i in range(len(part))} for part in parts]
    assert not names[0] & names[1]
    everything = embedding.Sample(loaded.settings, "train", 10**6)
    assert len(names[0]) + len(names[1]) == len(everything)
    assert len(names[1]) == pytest.approx(len(everything) / 3, abs=1)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"layer": "head/linar"}, "no layer named.*Did you mean 'head/linear'"),
        ({"most": 2}, "2 pictures are too few"),
        ({"splits": ("val", "val")}, "names, each once, not 'val, val'"),
        ({"splits": ()}, "names, each once"),
        ({"splits": ("tset",)}, "no split named 'tset'.*Did you mean 'test'"),
    ],
)
def test_wrong_options_are_refused_before_any_work(loaded, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        embedding.write_features(loaded, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_weights_that_give_no_numbers_are_refused(loaded, tmp_path):
    broken = dict(loaded.variables)
    params = dict(broken["params"])
    stem = params["backbone"]["block0"]
    conv = {name: np.full_like(x, np.nan) for name, x in stem["conv"].items()}
    params["backbone"] = {"block0": {**stem, "conv": conv}}
    worse = dataclasses.replace(loaded, variables=broken | {"params": params})
    with pytest.raises(ValueError, match="head/linear:input of one-block gives no fin"):
        embedding.write_features(worse, tmp_path, splits=("val",), most=5)


@pytest.mark.slow
def test_the_command_draws_a_runs_features(tmp_path):
    def run(module, *options):
        command = [sys.executable, "-m", f"yolojax.{module}", *options]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    config, workdir = "configs/digits_classifier.py:smoke", str(tmp_path / "run")
    trained = run("train", "--config", config, "--workdir", workdir)
    assert trained.returncode == 0, trained.stderr
    options = ("--weights", workdir, "--output", str(tmp_path / "out"))
    drawn = run("features", *options, "--pictures", "20", "--layer", "backbone/block1")
    assert drawn.returncode == 0, drawn.stderr
    assert "features of backbone/block1, pictures: 20 of train" in drawn.stdout
    assert (tmp_path / "out" / "tsne.png").is_file()
    refused = run("features", *options, "--layer", "backbone/blok1")
    assert refused.returncode == 2
    assert "Did you mean 'backbone/block1'" in refused.stderr.splitlines()[0]
