"""The mean of the last epochs' weights in a whole run, and what else goes by epochs."""

import os
import signal
import subprocess
import time

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from tests.test_training import assert_same_results, command, environment, write_config
from tests.tiny import DESCRIPTION
from yolojax.engine.log import read_metrics

# Epochs end at 2, 4; 7, 10, 13, 16: of the last two the weights are averaged.
ENDS = (2, 4, 7, 10, 13, 16)
CHANGES = dict(
    model={"name": "yaml", "description": DESCRIPTION},
    stages=(dict(epochs=2, data_fraction=0.5), dict(epochs=4, lr_scale=0.5)),
    swa__epochs=2,
    dtype="float16",
    loss_scale=dict(initial=2.0**8, growth_steps=5),
    devices=2,
    optim__schedule="reduce_on_plateau",
    # No evaluation after the first of a stage is so much better.
    optim__schedule_arguments=dict(patience=1, factor=0.5, min_change=10.0),
    optim__warmup_epochs=0.0,
    checkpoint=dict(keep=99, every_epochs=1),
    log=dict(every_steps=1, tensorboard=False, pictures=0, worst=1),
)


def start(tmp_path, config, workdir):
    two = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    return subprocess.Popen(
        command("train", "--config", config, "--workdir", workdir),
        env=environment(tmp_path) | two,
        stdout=subprocess.PIPE,
        text=True,
    )


def saved(workdir, step):
    folder = (workdir / "checkpoints" / str(step) / "state").resolve()
    with ocp.StandardCheckpointer() as reader:
        return reader.restore(folder)


@pytest.mark.slow
def test_stages_plateau_and_mean_in_float16_on_two_devices_also_when_killed(tmp_path):
    config = write_config(tmp_path, **CHANGES)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    process = start(tmp_path, config, whole)
    shown, _ = process.communicate(timeout=500)
    assert process.returncode == 0
    assert "float16, 2 cpu device(s)" in shown
    assert "SWA: the mean of 2 epochs has" in shown

    last = saved(whole, 16)
    # Before the state of the last step the mean is finished.
    ends = [saved(whole, step)["params"] for step in ENDS[-2:]]
    jax.tree.map(
        lambda mean, one, two: np.testing.assert_allclose(
            mean, (np.float64(one) + two) / 2, rtol=1e-5, atol=1e-7
        ),
        last["swa"]["params"],
        *ends,
    )
    for leaf in jax.tree.leaves(last["swa"]):
        assert leaf.dtype == np.float32 and np.isfinite(leaf).all()
    same = jax.tree.map(np.array_equal, last["swa"]["batch_stats"], last["batch_stats"])
    assert not any(jax.tree.leaves(same))
    before = saved(whole, 13)["swa"]["params"]
    jax.tree.map(np.testing.assert_array_equal, before, ends[0])

    # Each stage begins with its own rate; from its second evaluation on each halves it.
    rates = {row["step"]: row["learning_rate"] for row in read_metrics(whole)}
    expected = [0.01] * 4 + [0.005] * 6 + [0.0025] * 3 + [0.00125] * 3
    np.testing.assert_allclose([rates[n] for n in range(1, 17)], expected, rtol=1e-6)

    process = start(tmp_path, config, killed)
    while not any(row["step"] >= 12 for row in read_metrics(killed)):
        assert process.poll() is None
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (killed / "summary.json").exists()
    process = start(tmp_path, config, killed)
    shown, _ = process.communicate(timeout=500)
    assert process.returncode == 0 and "going on from step" in shown
    assert_same_results(whole, killed)
