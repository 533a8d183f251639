"""Runs that are killed at random file operations end with the bits of one that is not.

By hand, with 20 kills of each kind, or of some: python -m tests.engine.test_kills 20
"""

import os
import random
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.test_training import CONFIG, ROOT, assert_same_results
from tests.tiny import DESCRIPTION, tiny_config

CASES = ("none", "disk", "classifier")


def settings_of(case, folder):
    """A run of three epochs that is evaluated and saved often."""
    changes = {"epochs": 3, "log__every_steps": 1, "log__pictures": 2, "log__worst": 2}
    changes |= {"log__tensorboard": True, "checkpoint__every_steps": 1}
    if case == "disk":
        changes |= {"data__cache": "disk", "data__cache_dir": str(folder / "kept")}
    if case != "classifier":
        model = {"name": "yaml", "description": DESCRIPTION}
        return tiny_config(model=model, **changes)
    changes |= {"swa__epochs": 2, "augment__policy": ({"name": "flip_left_right"},)}
    tiny = tiny_config(**changes)
    tiny["model"] = {"name": "cnn5", "num_classes": 0}
    tiny["data"]["train"] = {"source": "handwritten", "split": "train", "size": 8}
    tiny["data"]["val"] = {"source": "handwritten", "split": "val", "size": 8}
    tiny["data"]["sampling"] = {"name": "shuffle", "fraction": 0.1}
    tiny |= {"image_size": (8, 8), "batch_size": 64}
    tiny["loss"] = {"name": "cross_entropy"}
    return tiny


def train(folder, workdir, number=0):
    """The number of operations; None for a run that was killed at one of them."""
    module = ("-m", "tests.engine.killed")
    paths = (folder / "config.py", workdir, number, folder / "kept")
    done = subprocess.run(
        [sys.executable, *module, *map(str, paths)],
        # One compilation cache for all runs, which must survive kills as well.
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": "",
            "XDG_CACHE_HOME": str(folder / "cache"),
        },
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=900,
    )
    if done.returncode == -signal.SIGKILL:
        return None
    assert done.returncode == 0, done.stdout + done.stderr
    return int(re.findall(r"operations: (\d+)", done.stdout)[-1])


def check(folder, case, kills, seed=0):
    """Compare runs that were killed, as often as asked for, with one that was not.

    Returns:
        At which operations, of how many, the runs were killed.
    """
    config = CONFIG.format(settings=settings_of(case, folder))
    (folder / "config.py").write_text(config)
    total = train(folder, folder / "whole")
    rng = random.Random(f"{case} {seed}")
    killed = []
    runs = 0
    while len(killed) < kills:
        # One run, killed again and again until it comes to its end.
        workdir = folder / f"killed{runs}"
        runs += 1
        if case == "disk" and runs % 2:
            # With and without the pictures that another run has kept.
            for path in sorted((folder / "kept").rglob("*"), reverse=True):
                path.rmdir() if path.is_dir() else path.unlink()
        while True:
            number = rng.randint(1, total) if len(killed) < kills else 0
            if train(folder, workdir, number) is not None:
                break
            killed.append(number)
        assert_same_results(folder / "whole", workdir)
    return killed, total


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_a_run_killed_at_file_operations_ends_with_the_same_bits(tmp_path, case):
    killed, total = check(tmp_path, case, kills=3)
    assert len(killed) >= 3 and total > 50


if __name__ == "__main__":
    for case in sys.argv[2:] or CASES:
        with tempfile.TemporaryDirectory() as place:
            killed, total = check(Path(place), case, int(sys.argv[1]))
        text = f"{case}: {len(killed)} kills at operations {killed} of {total}: same"
        print(text, flush=True)
