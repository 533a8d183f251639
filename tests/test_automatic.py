"""`auto` on the command line, where the config file has a number or nothing."""

import sys

import pytest
from absl import flags

from yolojax import automatic, command, settings

# That of the library which loads a config file.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module")

FILE = """
from ml_collections import ConfigDict

def get_config():
    c = ConfigDict()
    c.batch_size = {batch}
    c.model = ConfigDict(dict(name="yolov5n"))
    return c
"""


@pytest.fixture
def config_of(tmp_path, monkeypatch):
    """What a command line makes of a config file, as nested dicts."""

    def read(*arguments, batch="16", named=True):
        path = tmp_path / "c.py"
        path.write_text(FILE.format(batch=batch))
        values = flags.FlagValues()
        monkeypatch.setattr(command, "FLAGS", values)
        monkeypatch.setattr(
            sys, "argv", ["x", *[f"--config={path}"] * named, *arguments]
        )
        command.config_flags.DEFINE_config_file("config", flag_values=values)
        monkeypatch.setattr(command, "_set_up_jax", lambda: None)
        found = {}

        def main():
            found.update(values.config.to_dict())
            return 0

        with pytest.raises(SystemExit) as stopped:
            command.run(main, usage="")
        return found if stopped.value.code == 0 else stopped.value.code

    return read


def test_auto_takes_the_place_of_a_number_and_of_nothing(config_of):
    assert config_of()["batch_size"] == 16
    assert config_of("--config.batch_size=8")["batch_size"] == 8
    for words in (["--config.batch_size=auto"], ["--config.batch_size", "auto"]):
        assert config_of(*words, "--config.model.name=x") == {
            "batch_size": "auto",
            "model": {"name": "x"},
        }
    assert config_of("--config.batch_size=auto:0.5")["batch_size"] == "auto:0.5"
    assert config_of("-config.model.anchors=auto")["model"] == {
        "name": "yolov5n",
        "anchors": "auto",
    }
    # The number comes as text, which the settings read.
    assert config_of("--config.batch_size=8", batch="'auto'")["batch_size"] == "8"


def test_other_words_are_refused_by_the_settings(config_of):
    config = config_of("--config.batch_size=none")
    with pytest.raises(
        ValueError, match="batch_size must be a number, 'auto', or.*'no"
    ):
        settings.complete(config)


def test_auto_without_a_config_says_so(config_of, capsys):
    assert config_of("--config.batch_size=auto", named=False) == command.WRONG_USE
    assert "give --config, too" in capsys.readouterr().err


def test_a_share_of_the_memory():
    assert automatic.memory_share(16) is None
    assert automatic.memory_share("auto") == 0.9
    assert automatic.memory_share("auto:0.75") == 0.75
    assert automatic.memory_share("auto:1") == automatic.memory_share("auto:1.0") == 1


def test_a_run_that_goes_on_keeps_what_was_found():
    begun = {"batch_size": 24, "model": {"name": "a", "anchors": (((1, 2),),)}}
    auto = {"batch_size": "auto", "model": {"name": "a", "anchors": "auto"}}
    assert automatic.as_begun(auto, begun) == begun
    # Numbers that are given are compared, not replaced.
    given = {"batch_size": 8, "model": {"name": "a", "anchors": (((3, 4),),)}}
    assert automatic.as_begun(given, begun) == given
    assert automatic.as_begun(auto, {"batch_size": 8, "model": {}})["model"] == {
        "name": "a",
        "anchors": "auto",
    }


def test_a_command_that_goes_on_takes_changes_without_a_config(monkeypatch, capsys):
    def changes_of(*words):
        values, found = flags.FlagValues(), {}
        monkeypatch.setattr(command, "FLAGS", values)
        monkeypatch.setattr(sys, "argv", ["x", *words])
        command.config_flags.DEFINE_config_file("config", flag_values=values)
        flags.DEFINE_string("workdir", None, "", flag_values=values)
        monkeypatch.setattr(command, "_set_up_jax", lambda: None)

        def main(changes):
            found.update(changes, workdir=values.workdir)
            return 0

        with pytest.raises(SystemExit) as stopped:
            command.run(main, usage="", changes=True)
        return found if stopped.value.code == 0 else capsys.readouterr().err

    words = ("--config.epochs=20", "--workdir", "w", "--config.data.train.root=/a")
    expected = {"epochs": 20, "data.train.root": "/a", "workdir": "w"}
    assert changes_of(*words) == expected
    assert changes_of("--workdir=w") == {"workdir": "w"}
    assert "no key 'epoch'. Did you mean 'epochs'" in changes_of("--config.epoch=1")
