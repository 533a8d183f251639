"""`~` and environment variables in every path of a config or flag."""

import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from absl import flags

from yolojax import command, settings
from yolojax.data.sources.base import PATHS
from yolojax.data.sources.yolo import YoloSource

# Flags with text that is no path.
TEXTS = {"split", "layer", "scales", "merge"}
DEFINED = re.compile(r"flags\.DEFINE_(?:multi_)?(?:string|list)\(\s*\"(\w+)\"")


def test_every_text_flag_is_known_as_a_path_or_as_no_path():
    package = Path(command.__file__).parent
    texts = [path.read_text() for path in package.glob("*.py")]
    names = {name for text in texts for name in DEFINED.findall(text)}
    assert {"workdir", "source", "schedule"} < names
    assert names == TEXTS | set(command.PATHS)


def test_paths_of_a_config_are_expanded(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("SETS", "/mnt/sets")
    monkeypatch.chdir(tmp_path)
    data = {
        "root": "$SETS",
        "cache_dir": "~/cache",
        "train": {"source": "x", **{name: f"~/{name}" for name in PATHS}},
        "val": {"source": "x", "yaml": "${SETS}/a.yaml", "split": "~"},
        "unlabelled": {"source": "tfds", "data_dir": "~/tfds", "name": "$SETS"},
    }
    chosen = settings.complete({"data": data, "init": {"weights": "~/net.pt"}})
    assert chosen["data"]["root"] == "/mnt/sets"
    assert chosen["data"]["cache_dir"] == "/home/me/cache"
    assert chosen["data"]["train"] == {
        "source": "x",
        **{name: f"/home/me/{name}" for name in PATHS},
    }
    assert chosen["data"]["val"]["yaml"] == "/mnt/sets/a.yaml"
    assert chosen["data"]["val"]["split"] == "~"
    assert chosen["data"]["unlabelled"]["data_dir"] == "/home/me/tfds"
    assert chosen["data"]["unlabelled"]["name"] == "$SETS"
    assert chosen["init"]["weights"] == "/home/me/net.pt"


def test_descriptions_and_hyperparameters_are_found_in_the_home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "net.cfg").write_text("# a description")
    (tmp_path / "hyp.yaml").write_text("box: 0.07\n")
    given = {"model": {"name": "yolov5n", "path": "~/net.cfg"}, "hyp": "~/hyp.yaml"}
    chosen = settings.complete(given)
    assert chosen["model"]["description"] == "# a description"
    assert chosen["loss"]["box"] == 0.07


def test_the_path_of_a_data_yaml_may_lie_in_the_home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    folder = tmp_path / "home" / "cars"
    for part in ("images", "labels"):
        (folder / part).mkdir(parents=True)
    cv2.imwrite(str(folder / "images" / "a.png"), np.zeros((20, 40, 3), np.uint8))
    (folder / "labels" / "a.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    text = "path: ~/cars\ntrain: images\nval: images\nnames: [car]\n"
    (tmp_path / "data.yaml").write_text(text)
    source = YoloSource(yaml=str(tmp_path / "data.yaml"))
    assert [example.name for example in source] == [str(folder / "images" / "a.png")]
    assert source[0].boxes.tolist() == [[10, 5, 30, 15]]
    assert source.report.render() == ""


@pytest.fixture
def own_flags(monkeypatch):
    """A command's flags of our own, unseen by other tests."""
    values = flags.FlagValues()
    flags.DEFINE_string("workdir", None, "", flag_values=values)
    flags.DEFINE_multi_string("source", None, "", flag_values=values)
    flags.DEFINE_string("split", None, "", flag_values=values)
    monkeypatch.setattr(command, "FLAGS", values)
    return values


def test_flags_are_expanded(own_flags, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.chdir(tmp_path)
    own_flags(["x", "--workdir=~/runs", "--source=~/a.jpg", "--split=~/x"])
    command._expand_paths()
    assert own_flags.workdir == "/home/me/runs"
    assert own_flags.source == ["/home/me/a.jpg"]
    assert own_flags.split == "~/x"


def test_a_folder_is_not_made_from_a_variable_that_is_not_set(own_flags, monkeypatch):
    monkeypatch.delenv("NOWHERE", raising=False)
    own_flags(["x", "--workdir=$NOWHERE/run"])
    with pytest.raises(ValueError, match=r"--workdir \$NOWHERE/run: the environment v"):
        command._expand_paths()


def test_the_config_file_itself_may_lie_in_the_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    text = "from ml_collections import ConfigDict\n"
    text += "def get_config(variant=''):\n    return ConfigDict({'seed': 'x'})\n"
    (tmp_path / "own.py").write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", "yolojax.info", "--config", "~/own.py", "--nocompile"],
        capture_output=True,
        text=True,
        cwd=Path(command.__file__).parents[1],
    )
    assert done.returncode == 2
    assert "config.seed must be a int" in done.stderr
