"""Every config file is complete, and its smoke run finishes."""

import json
import runpy
from pathlib import Path

import pytest

from tests.shared import shared
from yolojax import settings, training

CONFIGS = sorted((Path(__file__).resolve().parents[1] / "configs").glob("*.py"))
DATA = {
    "bccd": "bccd_voc",
    "course_cnn": "fruits_filename",
    "coco": "coco128",
    "coco128": "coco128",
    "masks": "masks_coco",
    "resnet50_masks": "masks_coco",
}


@pytest.fixture(autouse=True)
def from_the_repository(monkeypatch):
    """Paths in configs are taken from where their commands are meant to run."""
    monkeypatch.chdir(CONFIGS[0].parents[1])


def load(path, variant=""):
    return runpy.run_path(str(path))["get_config"](variant).to_dict()


def keys_of(tree, prefix=""):
    for key, value in tree.items():
        path = f"{prefix}{key}"
        if isinstance(value, dict) and path not in settings.OPEN:
            yield from keys_of(value, f"{path}.")
        else:
            yield path


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_a_config_lists_every_key_so_that_each_can_be_overridden(path):
    given = load(path)
    settings.complete(given)
    assert set(keys_of(given)) >= set(keys_of(settings.DEFAULTS))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_an_unknown_variant_is_named(path):
    with pytest.raises(ValueError, match="no variant 'nothing'; choices: .*smoke"):
        load(path, "nothing")


@pytest.mark.parametrize("size", "nsmlx")
def test_coco_has_every_size(size):
    path = next(p for p in CONFIGS if p.stem == "coco")
    assert load(path, size)["model"]["name"] == f"yolov5{size}"


@pytest.mark.slow
@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_the_smoke_variant_runs_to_its_end(path, tmp_path):
    chosen = load(path, "smoke")
    if path.stem in DATA:
        chosen["data"]["root"] = str(shared("data", DATA[path.stem]))
    if path.stem == "coco":
        # The reference material holds the first pictures of the training set only.
        chosen["data"]["val"] = chosen["data"]["train"]
    chosen["devices"] = 1
    assert training.train(settings.complete(chosen), tmp_path / "run") == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["finished"]
