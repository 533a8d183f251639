"""Runs that go on with moved data, with other data, with more epochs, one at a time."""

import json
import shutil
import signal
import subprocess
import time

import cv2
import numpy as np
import pytest

from tests.test_training import (
    CONFIG,
    command,
    environment,
    final_arrays,
    run,
    without_clock,
)
from tests.tiny import DESCRIPTION, tiny_config
from yolojax.engine.log import read_metrics


def make_data(root, count=12):
    """Noise with a bright rectangle an image, in folders as `data.yaml` names them."""
    rng = np.random.default_rng(0)
    for part, number in (("train", count), ("val", 4)):
        for folder in ("images", "labels"):
            (root / folder / part).mkdir(parents=True)
        for index in range(number):
            image = rng.integers(0, 80, (64, 64, 3), np.uint8)
            x, y = rng.integers(4, 30, 2)
            image[y : y + 20, x : x + 24] = 200
            encoded = cv2.imencode(".png", image)[1]
            (root / "images" / part / f"{index:02}.png").write_bytes(encoded)
            box = ((x + 12) / 64, (y + 10) / 64, 24 / 64, 20 / 64)
            text = " ".join(map(str, (index % 2, *box)))
            (root / "labels" / part / f"{index:02}.txt").write_text(text)
    (root / "data.yaml").write_text(
        "train: images/train\nval: images/val\nnames: [car, bus]"
    )
    return root


def write_config(tmp_path, root, **changes):
    given = {
        "model": {"name": "yaml", "description": DESCRIPTION.replace("10", "2")},
        "batch_size": 4,
        "optim__nominal_batch": 4,
        "data__root": str(root),
        "data__train": {"source": "yolo", "yaml": "data.yaml"},
        "data__val": {"source": "yolo", "yaml": "data.yaml", "split": "val"},
        "data__cache": "encoded",
        "log__pictures": 0,
        "log__worst": 0,
        "log__every_steps": 1,
    }
    path = tmp_path / "config.py"
    settings = tiny_config(**given | changes)
    settings["model"] = given["model"]
    path.write_text(CONFIG.format(settings=settings))
    return path


def stop_at(tmp_path, step, number, *arguments):
    """Start a run, and send it a signal when it has done so many steps."""
    process = subprocess.Popen(
        command(*arguments),
        env=environment(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    workdir = tmp_path / "moved"
    while not any(row["step"] >= step for row in read_metrics(workdir)):
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.005)
    process.send_signal(number)
    output, _ = process.communicate(timeout=300)
    assert not (workdir / "summary.json").exists()
    return output


@pytest.mark.slow
def test_a_run_whose_data_move_twice_ends_with_the_same_bits(tmp_path):
    data = make_data(tmp_path / "data")
    config = write_config(tmp_path, data, epochs=8)
    whole, moved = tmp_path / "whole", tmp_path / "moved"
    done = run(tmp_path, "train", "--config", config, "--workdir", whole)
    assert done.returncode == 0, done.stderr
    # 3 steps an epoch.
    stop_at(
        tmp_path, 4, signal.SIGKILL, "train", "--config", config, "--workdir", moved
    )
    second = tmp_path / "other" / "images" / "place"
    second.parent.mkdir(parents=True)
    data.rename(second)
    done = run(tmp_path, "train", "--workdir", moved)
    assert done.returncode == 2 and "config.data.root" in done.stderr
    # The lock of the process that was killed is no obstacle.
    assert "is ignored" in done.stdout
    again = ("train", "--workdir", moved, f"--config.data.root={second}")
    output = stop_at(tmp_path, 11, signal.SIGTERM, *again)
    assert "going on from step" in output
    third = tmp_path / "third"
    second.rename(third)
    full = ("train", "--config", config, "--workdir", moved)
    done = run(tmp_path, *full, f"--config.data.root={third}")
    assert done.returncode == 0, done.stderr
    assert "going on from step" in done.stdout

    step, arrays = final_arrays(whole)
    other_step, other_arrays = final_arrays(moved)
    assert step == other_step == 24
    import jax

    jax.tree.map(np.testing.assert_array_equal, arrays, other_arrays)
    rows = [without_clock(read_metrics(workdir)) for workdir in (whole, moved)]
    assert rows[0] == rows[1]
    texts = [(workdir / "evaluation.json").read_text() for workdir in (whole, moved)]
    assert texts[0] == texts[1]
    assert json.loads((moved / "summary.json").read_text())["changes"] == []


@pytest.mark.slow
def test_changed_data_are_refused_with_their_names_and_more_epochs_go_on(tmp_path):
    data = make_data(tmp_path / "data")
    config = write_config(tmp_path, data, epochs=2)
    workdir = tmp_path / "run"
    done = run(tmp_path, "train", "--config", config, "--workdir", workdir)
    assert done.returncode == 0, done.stderr
    # Of a finished run the data are not looked at; it tells how to go on.
    longer = ("train", "--workdir", workdir, "--config.epochs=4")
    done = run(tmp_path, "train", "--workdir", workdir)
    assert f"is finished; for more: python -m yolojax.{longer[0]}" in done.stdout
    assert f"--workdir {workdir} --config.epochs=4" in done.stdout

    label = data / "labels" / "train" / "03.txt"
    before = label.read_text()
    label.write_text(before.replace("1 ", "0 ", 1))
    (data / "images" / "val" / "02.png").unlink()
    done = run(tmp_path, *longer)
    assert done.returncode == 2
    assert "config.data.train: 1 image with other labels: 03.png" in done.stderr
    assert "config.data.val: 1 image removed: 02.png" in done.stderr
    assert "--config.data.allow_changes=True" in done.stderr
    assert done.stderr.count("\n") == 1
    # Refused before the new end is written down.
    assert json.loads((workdir / "config.json").read_text())["epochs"] == 2

    done = run(tmp_path, *longer, "--config.data.allow_changes=True")
    assert done.returncode == 0, done.stderr
    assert "from step 6 on it is a different run" in done.stdout
    assert "changed from step 6 on: config.epochs was 2, now 4" in done.stdout
    assert "linear schedule is laid over 4 epochs instead of 2" in done.stdout
    assert "going on from step 6 of 12" in done.stdout
    summary = json.loads((workdir / "summary.json").read_text())
    assert summary["steps"] == 12
    assert [change["step"] for change in summary["changes"]] == [6, 6]
    saved = json.loads((workdir / "config.json").read_text())
    assert saved["epochs"] == 4 and saved["data"]["allow_changes"] is False

    # The same data again: nothing to allow. A key that may not change is named.
    done = run(tmp_path, *longer[:3], "--config.seed=3", "--config.epochs=5")
    assert done.returncode == 2
    assert "holds a run with another config: seed was 0, now 3" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_the_second_of_two_runs_in_a_folder_is_refused(tmp_path):
    config = write_config(tmp_path, make_data(tmp_path / "data"), epochs=300)
    arguments = ("train", "--config", config, "--workdir", tmp_path / "moved")
    processes = [
        subprocess.Popen(
            command(*arguments),
            env=environment(tmp_path),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    while all(process.poll() is None for process in processes):
        time.sleep(0.05)
    lost = next(p for p in processes if p.poll() is not None)
    won = next(p for p in processes if p is not lost)
    _, error = lost.communicate()
    assert lost.returncode == 2
    assert f"is in use by process {won.pid} on" in error
    assert "Traceback" not in error and error.count("\n") == 1
    won.kill()
    won.communicate(timeout=300)


@pytest.mark.slow
def test_a_cross_validation_whose_data_moved_goes_on(tmp_path):
    data = make_data(tmp_path / "data")
    config = write_config(tmp_path, data, epochs=1, data__val={})
    cv = ("crossval", "--config", config, "--workdir", "cv", "--folds", "2")
    kinds = ("--kind", "plain")
    done = run(tmp_path, *cv, *kinds)
    assert done.returncode == 0, done.stderr
    numbers = (tmp_path / "cv" / "crossval.json").read_text()
    # As if it had been killed before the second fold was predicted.
    (tmp_path / "cv" / "fold1" / "predictions.json").unlink()
    shutil.move(data, tmp_path / "elsewhere")
    root = f"--config.data.root={tmp_path / 'elsewhere'}"
    done = run(tmp_path, *cv, *kinds, root)
    assert done.returncode == 0, done.stderr
    assert "epoch" not in done.stdout
    assert (tmp_path / "cv" / "crossval.json").read_text() == numbers
    done = run(tmp_path, "train", "--workdir", "cv/fold0", root, "--config.epochs=2")
    assert done.returncode == 0, done.stderr
    assert "going on from step 2 of 4" in done.stdout
