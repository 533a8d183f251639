"""Two processes with two devices each against one with four."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
WORKER = """
import json, sys
sys.path.insert(0, {root!r})
import jax
if {count} > 1:
    jax.distributed.initialize("localhost:{port}", {count}, {index})
from tests.tiny import tiny_config
from yolojax import experiment
from yolojax.engine.pictures import PictureLosses
losses, of_pictures, shown = [], [], []
for cache, by in (("none", "classes"), ("device", "loss")):
    sampling = dict(name="image_weighted", by=by)
    data = dict(data__cache=cache, data__val={{}}, data__sampling=sampling)
    run = experiment.build(tiny_config(devices=0, **data))
    state, feed = run.initial_state(), run.feed()
    feed.fill(None)
    pictures = PictureLosses(len(run.train.source))
    for number in range(1, 7):
        state, numbers = run.step(state, feed.put(next(feed.batches)))
        numbers = jax.device_get(numbers)
        shown += numbers["image_id"].tolist()
        # Later the differences of rounding have grown.
        if number <= 3:
            losses.append(float(numbers["loss"]))
            pictures.add(numbers["image_id"], numbers["per_picture"])
        if by == "loss":
            feed.batches.see_losses(number, pictures.last)
    # Each host knows the losses of all pictures, and goes by them.
    of_pictures += pictures.last.tolist()
print(json.dumps([losses, of_pictures, shown]))
"""


def worker(index, count, port):
    code = WORKER.format(root=str(ROOT), index=index, count=count, port=port)
    flags = f"--xla_force_host_platform_device_count={4 // count}"
    return subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def losses_of(process):
    output, errors = process.communicate(timeout=900)
    assert process.returncode == 0, errors
    return json.loads(output.splitlines()[-1])


@pytest.mark.slow
def test_the_number_of_hosts_does_not_change_the_losses():
    """Nor that each decodes or stores only its own part of the pictures."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    alone = losses_of(worker(0, 1, port))
    both = [worker(index, 2, port) for index in range(2)]
    for process in both:
        for found, expected in zip(losses_of(process), alone, strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-5)
