"""Damages the files of a run's folder and reads it as the commands do.

    python -m tests.engine.fuzz_runs --seconds 600 --seed 0

What is read from a checkpoint must be what was written, or there is an error.
"""

from __future__ import annotations

import copy
import functools
import json
import random
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from tests import fuzzing
from tests.engine.saving import make_state, save_all
from tests.tiny import DESCRIPTION, tiny_config
from yolojax import class_file, experiment, inference, settings
from yolojax.data import check
from yolojax.engine import checkpoint, sharding
from yolojax.engine.log import RunLog, read_metrics

ROWS = 100
HOSTILE: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2, 10**6, 10**12, 10**400, 1e308, 0.5, "", "x"),
    *(
        float("nan"),
        float("inf"),
        "\x1b[31m",
        "../../etc/passwd",
        "/dev/zero",
        "9" * 99,
    ),
    *([], {}, [[]], {"a": 1}, [1, 2, 3], ["a"], ["a"] * 1000, {"name": "cnn5"}),
    *([10**9, 10**9], [0, 0], [-64, 64], "auto", "none", "yolov5n", "~", "$HOME"),
)


class Case(NamedTuple):
    """One damaged file of the run.

    Attributes:
        name: of the file, below the run's folder.
        content: its bytes now; None: it is gone.
    """

    name: str
    content: bytes | None


class Base:
    """A run's folder, to be copied: a detector's files and checkpoints of small states.

    Attributes:
        folder: a folder of its own for each of both.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.mesh = sharding.make_mesh(1)
        chosen = tiny_config(model={"name": "yaml", "description": DESCRIPTION})
        names = [str(number) for number in range(10)]
        detector = folder / "detector"
        settings.write_config(chosen, detector)
        class_file.write_classes(names, range(10), detector)
        checkpoint.save_weights(detector, experiment.make_model(chosen, names).init(0))
        states = folder / "states"
        states.mkdir()
        save_all(states, self.mesh, [0.1, 0.5], ROWS).close()
        with RunLog(states, tensorboard=False) as log:
            for step in range(1, 30):
                log.write(step, {"loss": 1 / step, "val/mAP50": step / 30})
        found = {f"/data/{n}.jpg": [5, n, True, [4, 6], f"{n}", ""] for n in range(9)}
        findings = {name: check._Finding(*values) for name, values in found.items()}
        check._save_cache(states / "scan_train.json", findings)
        self.files = [
            path.relative_to(folder).as_posix()
            for path in sorted(folder.rglob("*"))
            if path.is_file() and not path.is_relative_to(detector / "checkpoints")
        ]
        self.states = {step: make_state(self.mesh, step, ROWS) for step in (0, 10)}


@functools.cache
def base() -> Base:
    return Base(Path(tempfile.mkdtemp(prefix="fuzz_runs_")))


def make(rng: np.random.Generator, number: int) -> Case:
    """A file, damaged as disks, editors and enemies do."""
    chance = random.Random(int(rng.integers(2**62)))
    small = [n for n in base().files if n.endswith((".json", ".csv", "/metadata"))]
    name = chance.choice(small if chance.random() < 0.6 else base().files)
    content = (base().folder / name).read_bytes()
    if chance.random() < 0.03:
        return Case(name, None)
    if name.endswith((".json", "metadata", "_METADATA")) and chance.random() < 0.6:
        return Case(
            name, json.dumps(_other_value(json.loads(content), chance)).encode()
        )
    return Case(name, _other_bytes(content, chance))


def _other_value(value: Any, chance: random.Random) -> Any:
    """The JSON value with one or a few parts of it replaced, removed or added."""
    for _ in range(chance.choice((1, 1, 1, 2, 5))):
        node, steps = value, chance.randint(1, 4)
        while steps and isinstance(node, dict | list) and node:
            key = chance.choice(
                list(node) if isinstance(node, dict) else range(len(node))
            )
            if steps == 1 or not isinstance(node[key], dict | list) or not node[key]:
                what = chance.random()
                if what < 0.7:
                    node[key] = copy.deepcopy(chance.choice(HOSTILE))
                elif what < 0.85:
                    del node[key]
                elif isinstance(node, dict):
                    node[chance.choice(("x", "", "seed", key + "x"))] = copy.deepcopy(
                        node[key]
                    )
                break
            node, steps = node[key], steps - 1
    return chance.choice(HOSTILE) if chance.random() < 0.05 else value


def _other_bytes(content: bytes, chance: random.Random) -> bytes:
    data = bytearray(content)
    place = chance.randrange(len(data) + 1)
    length = chance.choice((1, 2, 16, 512, 4096))
    kind = chance.randrange(9)
    if kind <= 2 and data:
        data[place % len(data)] ^= 1 << chance.randrange(8)
    elif kind == 3:
        del data[place:]
    elif kind == 4:
        data[place : place + length] = bytes(length)
    elif kind == 5:
        data[place : place + length] = chance.randbytes(length)
    elif kind == 6:
        data[place:place] = data[place : place + length]
    elif kind == 7:
        nest = chance.choice((b"[", b'{"a":', b"9", b'"', b",,", b"\n"))
        data[place:place] = nest * chance.choice((10, 1000, 200_000))
    else:
        data[:] = chance.choice((b"", bytes(len(data)), b"null", b"[]", b"{}", b"\xff"))
    return bytes(data)


def run(case: Case) -> str:
    """Read what the damaged file belongs to; "read" where that went well."""
    which, _, name = case.name.partition("/")
    with tempfile.TemporaryDirectory(prefix="run_") as place:
        workdir = Path(place) / "run"
        shutil.copytree(base().folder / which, workdir)
        path = workdir / name
        path.unlink()
        if case.content is not None:
            path.write_bytes(case.content)
        if which == "detector":
            return _load_detector(workdir)
        if name == "metrics.csv":
            rows = read_metrics(workdir)
            with RunLog(workdir, start_step=7, tensorboard=False) as log:
                log.write(8, {"loss": 1.0})
            return "read" if rows else "empty"
        if name == "scan_train.json":
            found = check._load_cache(path)
            return "read" if found else "made anew"
        if not name.startswith("checkpoints"):
            checkpoint.load_weights(workdir)
            return "read"
        return _read_checkpoints(workdir)


def _load_detector(workdir: Path) -> str:
    chosen = settings.read_config(workdir)
    settings.check_config(chosen, workdir)
    inference.load(workdir)
    return "read"


def _read_checkpoints(workdir: Path) -> str:
    outcome = "read"
    again = checkpoint.Checkpoints(workdir, keep=2)
    try:
        found = again.restore(lambda step: base().states[step])
    finally:
        again.close()
    step = int(found.state.step)
    _assert_equal(found.state, base().states[step])
    assert found.progress["best_step"] == step and found.data["position"] == step // 10
    if step == 0:
        return "went back"
    _, variables, step = checkpoint.load_weights(workdir)
    _assert_equal(variables, base().states[step].ema)
    return outcome


def _assert_equal(one: Any, other: Any) -> None:
    assert jax.tree.structure(one) == jax.tree.structure(other)
    jax.tree.map(np.testing.assert_array_equal, one, other)


if __name__ == "__main__":
    code = fuzzing.main(make, run, names="run")
    shutil.rmtree(base().folder)
    sys.exit(code)
