"""Whole runs from the command line: killed, resumed, interrupted, refused."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import orbax.checkpoint as ocp
import pytest

from tests.tiny import DESCRIPTION, tiny_config
from yolojax.engine.log import read_metrics

ROOT = Path(__file__).resolve().parents[1]
CONFIG = """
from ml_collections import ConfigDict
def get_config():
    return ConfigDict({settings!r})
"""


def command(module, *arguments):
    return [sys.executable, "-m", f"yolojax.{module}", *map(str, arguments)]


def environment(tmp_path):
    # One cache for all runs of a test, so that only the first one compiles.
    return {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "",
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }


def run(tmp_path, *arguments, **options):
    return subprocess.run(
        command(*arguments),
        env=environment(tmp_path),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=500,
        **options,
    )


def write_config(tmp_path, **changes):
    path = tmp_path / "config.py"
    path.write_text(CONFIG.format(settings=tiny_config(**changes)))
    return path


def final_arrays(workdir):
    steps = [int(p.name) for p in (workdir / "checkpoints").iterdir()]
    folder = (workdir / "checkpoints" / str(max(steps)) / "state").resolve()
    with ocp.StandardCheckpointer() as reader:
        return max(steps), reader.restore(folder)


def without_clock(rows):
    # As text: a NaN, as of a size that no box has, is not equal to itself.
    return [
        {k: repr(v) for k, v in row.items() if not k.startswith("time/")}
        for row in rows
    ]


def assert_same_results(one, other):
    step, arrays = final_arrays(one)
    other_step, other_arrays = final_arrays(other)
    assert step == other_step
    assert arrays.keys() == other_arrays.keys()
    import jax

    jax.tree.map(np.testing.assert_array_equal, arrays, other_arrays)
    rows, other_rows = read_metrics(one), read_metrics(other)
    assert without_clock(rows) == without_clock(other_rows)
    for name in ("evaluation.json", "worst.json"):
        texts = [(w / name).read_text() for w in (one, other)]
        assert texts[0] == texts[1]


@pytest.mark.slow
def test_a_killed_run_resumed_ends_with_the_same_bits(tmp_path):
    """SIGKILL at random steps, three times, then the same command to the end."""
    # The mean of the last epochs and the losses of pictures must go on as well.
    config = write_config(tmp_path, epochs=8, data__cache="encoded", swa__epochs=3)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    done = run(tmp_path, "train", "--config", config, "--workdir", whole)
    assert done.returncode == 0, done.stderr
    chance = random.Random(7)
    for last in (6, 13, 20):
        target = chance.randint(last - 4, last)
        process = subprocess.Popen(
            command("train", "--config", config, "--workdir", killed),
            env=environment(tmp_path),
            stdout=subprocess.DEVNULL,
        )
        while process.poll() is None:
            rows = read_metrics(killed)
            if rows and rows[-1]["step"] >= target:
                # Also in the midst of a save or of an evaluation.
                time.sleep(chance.random() * 0.2)
                process.send_signal(signal.SIGKILL)
                process.wait()
            time.sleep(0.005)
        assert process.returncode == -signal.SIGKILL
        assert not (killed / "summary.json").exists()
    done = run(tmp_path, "train", "--config", config, "--workdir", killed)
    assert done.returncode == 0, done.stderr
    assert "going on from step" in done.stdout
    assert_same_results(whole, killed)


@pytest.mark.slow
def test_sigterm_saves_and_the_same_command_goes_on(tmp_path):
    config = write_config(tmp_path, epochs=8, checkpoint__every_steps=1000)
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    done = run(tmp_path, "train", "--config", config, "--workdir", whole)
    assert done.returncode == 0, done.stderr
    process = subprocess.Popen(
        command("train", "--config", config, "--workdir", stopped),
        env=environment(tmp_path),
        stdout=subprocess.PIPE,
        text=True,
    )
    while not any(row["step"] >= 4 for row in read_metrics(stopped)):
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 128 + signal.SIGTERM
    assert "saved" in output
    done = run(tmp_path, "train", "--config", config, "--workdir", stopped)
    assert done.returncode == 0, done.stderr
    assert_same_results(whole, stopped)


@pytest.mark.slow
def test_a_run_out_of_hours_is_finished_and_more_of_them_go_on(tmp_path):
    model = {"name": "yaml", "description": DESCRIPTION}
    config = write_config(tmp_path, model=model, log__pictures=0, log__worst=1)
    arguments = ("train", "--config", config, "--workdir", "run")
    summary = tmp_path / "run" / "summary.json"
    short = "--config.max_hours=0.00001"
    done = run(tmp_path, *arguments, short)
    assert done.returncode == 0, done.stderr
    assert "stopped at step 1: config.max_hours=1e-05 is used up" in done.stdout
    found = json.loads(summary.read_text())
    assert found["finished"] and (found["reason"], found["steps"]) == ("max_hours", 1)
    # It was evaluated, and is not again.
    assert "mAP50" in found
    done = run(tmp_path, *arguments, short)
    assert "its time was used up; for more, raise config.max_hours" in done.stdout
    done = run(tmp_path, *arguments, "--config.max_hours=0")
    assert done.returncode == 0 and "going on from step 1 of 6" in done.stdout
    found = json.loads(summary.read_text())
    assert (found["reason"], found["steps"]) == ("steps", 6)


@pytest.mark.slow
def test_ten_steps_in_a_row_that_are_not_finite_stop_the_run(tmp_path):
    config = write_config(tmp_path, epochs=10, optim__learning_rate=1e30)
    workdir = tmp_path / "run"
    done = run(tmp_path, "train", "--config", config, "--workdir", workdir)
    assert done.returncode == 2
    assert "not finite 10 times in a row" in done.stderr
    assert "config.optim.learning_rate" in done.stderr
    assert not (workdir / "summary.json").exists()


@pytest.mark.slow
def test_a_finished_run_can_be_evaluated_and_used(tmp_path, monkeypatch):
    config = write_config(tmp_path)
    with monkeypatch.context() as patched:
        patched.setenv("JAX_LOG_COMPILES", "1")
        done = run(tmp_path, "train", "--config", config, "--workdir", "run")
    assert done.returncode == 0, done.stderr
    # Prediction once for all evaluations, and once with what the drawings need.
    for name, times in (("step", 1), ("predict_share", 2)):
        line = f"Finished XLA compilation of jit({name})"
        assert done.stderr.count(line) == times, name
    for name in ("summary.json", "evaluation.json", "metrics.csv", "classes.json"):
        assert (tmp_path / "run" / name).stat().st_size
    for name in ("results.png", "predictions.png", "labels.png"):
        assert (tmp_path / "run" / "plots" / name).stat().st_size
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["finished"] and summary["steps"] == 6
    done = run(tmp_path, "evaluate", "--workdir", "run", "--output", "again")
    assert done.returncode == 0, done.stderr
    first = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    again = json.loads((tmp_path / "again" / "evaluation.json").read_text())
    evaluated = again.pop("evaluated")
    assert (evaluated["weights"], evaluated["letterbox"]) == ("run", "square")
    assert again == first
    sheet = tmp_path / "run" / "plots" / "predictions.png"
    done = run(
        tmp_path, "predict", "--weights", "run", "--source", sheet, "--output", "out"
    )
    assert done.returncode == 0, done.stderr
    assert isinstance(
        json.loads((tmp_path / "out" / "predictions.json").read_text()), list
    )
    assert (tmp_path / "out" / "predictions.jpg").exists()
    # Nothing is trained again, and nothing written.
    before = (tmp_path / "run" / "summary.json").read_text()
    done = run(tmp_path, "train", "--config", config, "--workdir", "run")
    assert done.returncode == 0, done.stderr
    assert "is finished" in done.stdout
    assert (tmp_path / "run" / "summary.json").read_text() == before


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("--config.optm.lr=1",), "no key 'optm.lr'"),
        (("--config.optim.lr=1",), "Keys there: optim.arguments, optim.clip_norm"),
        (("--config.epochs=many",), "invalid literal"),
        (("--confg=1",), "Unknown command line flag 'confg'"),
        (("--config.image_size=(65, 64)",), "divisible by 32"),
        (("--config.batch_size=0",), "batch_size"),
        (("--config.model.num_classes=4",), "num_classes is 4"),
        (("--workdir", "file"), "--workdir file is a file; give a directory"),
    ],
    ids=["section", "key", "value", "flag", "size", "batch", "classes", "file"],
)
def test_wrong_command_lines_end_in_one_message(tmp_path, arguments, message):
    config = write_config(tmp_path)
    (tmp_path / "file").touch()
    done = run(tmp_path, "train", "--config", config, "--workdir", "run", *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_missing_config_and_help(tmp_path):
    done = run(tmp_path, "train", "--config", "nothing.py", "--workdir", "run")
    assert done.returncode == 2 and "no config file 'nothing.py'" in done.stderr
    config = ROOT / "configs" / "coco.py"
    done = run(tmp_path, "train", "--config", f"{config}:q", "--workdir", "run")
    assert done.returncode == 2 and "no variant 'q'" in done.stderr
    assert "Traceback" not in done.stderr
    for module in ("train", "evaluate", "predict", "check", "preview", "info"):
        done = run(tmp_path, module, "--help")
        assert done.returncode == 0
        assert f"python -m yolojax.{module}" in done.stdout
        assert ("--config:" in done.stdout) == (module not in ("predict", "convert"))
