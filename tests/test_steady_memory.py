"""Memory, open files and threads over many epochs: what is taken is given back."""

import json
import subprocess
import sys

import pytest

from tests.test_training import ROOT, environment
from tests.tiny import DESCRIPTION, tiny_config

EPOCHS = 30
# Trains, and notes after each epoch's save what the process has.
MEASURED = """
import gc, json, os, sys
from pathlib import Path
from yolojax import settings, training
from yolojax.engine import checkpoint

config, workdir, output = map(Path, sys.argv[1:])
rows, save = [], checkpoint.Checkpoints.save

def measured(self, *arguments, **options):
    save(self, *arguments, **options)
    self.wait()
    gc.collect()
    lines = Path("/proc/self/status").read_text().splitlines()
    status = dict(line.split(":", 1) for line in lines)
    files = len(os.listdir("/proc/self/fd"))
    memory = sum(int(status[name].split()[0]) for name in ("VmRSS", "VmSwap"))
    rows.append([memory, files, int(status["Threads"])])

checkpoint.Checkpoints.save = measured
code = training.train(settings.from_json(config.read_text()), workdir)
output.write_text(json.dumps(rows))
sys.exit(code)
"""


@pytest.mark.slow
def test_memory_files_and_threads_do_not_grow_over_the_epochs(tmp_path):
    chosen = tiny_config(
        model={"name": "yaml", "description": DESCRIPTION},
        epochs=EPOCHS,
        data__cache="disk",
        checkpoint={"every_epochs": 1},
        log={"every_steps": 1, "tensorboard": True, "pictures": 0, "worst": 0},
    )
    config, output = tmp_path / "config.json", tmp_path / "rows.json"
    config.write_text(json.dumps(chosen))
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, config, tmp_path / "run", output],
        env=environment(tmp_path) | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads(output.read_text())
    assert len(rows) == EPOCHS
    (early, files, threads), (late, files_late, threads_late) = rows[4], rows[-1]
    print(f"memory in kB, files, threads after each epoch: {rows}")
    assert late <= 1.03 * early, rows
    assert files == files_late, rows
    # Pools of libraries start a worker late, or end one; an epoch that left a thread
    # behind would show as 25.
    assert abs(threads_late - threads) <= 2, rows
