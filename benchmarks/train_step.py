"""The training step on this machine: full against bare, start-up, waiting for data.

    python benchmarks/train_step.py [--rounds 5] [--cases n320 n640 s320 s640]

Figures go to benchmarks/results/train_step.json. Full is everything that `train` does
in a step: augmentation, forward, loss, backward, clipping, SGD, moving average. Bare is
forward, backward and SGD of the same network. Both take turns in one run.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import jax
import jax.numpy as jnp
import measure
import numpy as np

from yolojax import experiment

CASES = {
    "n320": ("yolov5n", 320, 16),
    "n640": ("yolov5n", 640, 8),
    "s320": ("yolov5s", 320, 16),
    "s640": ("yolov5s", 640, 8),
}
RESULTS = Path(__file__).parent / "results" / "train_step.json"


def time_case(key: str, rounds: int) -> dict[str, Any]:
    """Bare and full step in turns, and the parts of the difference."""
    case = measure.make_case(*CASES[key])
    augment = jax.jit(experiment.make_augmentation(case.chosen, measure.MAX_BOXES))
    random_key = jax.random.key(0)
    shown, _ = augment(random_key, case.batch, mosaic_on=True)
    model = experiment.make_model(case.chosen)
    loss = experiment.make_loss(case.chosen, model)
    maps, _ = model.apply(model.init(0), shown.image, train=False)
    loss_and_gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))

    def run_augment() -> None:
        jax.block_until_ready(augment(random_key, case.batch, mosaic_on=True))

    def run_loss() -> None:
        jax.block_until_ready(
            loss_and_gradient(maps, shown.boxes, shown.labels, shown.valid)
        )

    times = measure.side_by_side(
        {
            "bare": lambda: measure.advance_bare(case),
            "full": lambda: measure.advance_full(case),
            "augmentation": run_augment,
            "loss": run_loss,
        },
        rounds,
    )
    pictures = CASES[key][2]
    full, bare = times["full"]["median_s"], times["bare"]["median_s"]
    times["full_over_bare"] = full / bare
    times["images_per_second"] = pictures / full
    print(
        f"{case.name}: bare {bare * 1e3:.0f} ms, full {full * 1e3:.0f} ms, ratio "
        f"{full / bare:.3f}, {pictures / full:.1f} images/s; augmentation alone "
        f"{times['augmentation']['median_s'] * 1e3:.0f} ms, loss alone "
        f"{times['loss']['median_s'] * 1e3:.0f} ms",
        flush=True,
    )
    return times


def make_data(folder: Path, count: int) -> None:
    """JPEG photographs of 640 x 480 with YOLO labels."""
    rng = np.random.default_rng(0)
    for name in ("images", "labels"):
        (folder / name).mkdir()
    for i in range(count):
        coarse = rng.integers(0, 256, (30, 40, 3), np.uint8)
        picture = cv2.resize(coarse, (640, 480), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(folder / "images" / f"{i}.jpg"), picture)
        lines = [
            f"{rng.integers(80)} {x:.4f} {y:.4f} 0.2 0.2"
            for x, y in rng.uniform(0.2, 0.8, (8, 2))
        ]
        (folder / "labels" / f"{i}.txt").write_text("\n".join(lines))
    names = ", ".join(f"c{i}" for i in range(80))
    (folder / "data.yaml").write_text(f"train: images\nval: images\nnames: [{names}]\n")


def time_training(steps: int) -> dict[str, Any]:
    """Cold and warm start to the first step, and the share of waiting in an epoch.

    Each start is a new process, from the command line on; cold has an empty
    compilation cache.
    """
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        data.mkdir()
        make_data(data, 16 * steps)
        for kind in ("cold", "warm"):
            workdir = Path(folder) / kind
            command = [
                *(sys.executable, "-m", "yolojax.train"),
                *("--config", "configs/coco128.py", "--workdir", str(workdir)),
                f"--config.data.root={data}",
                "--config.image_size=(320, 320)",
                "--config.data.cache=none",
                "--config.epochs=1",
                "--config.optim.warmup_epochs=1.0",
                "--config.log.every_steps=1",
                "--config.log.pictures=0",
                "--config.log.tensorboard=False",
            ]
            environment = {**os.environ, "XDG_CACHE_HOME": str(Path(folder) / "cache")}
            start = time.perf_counter()
            process = subprocess.Popen(
                command, env=environment, stdout=subprocess.PIPE, text=True
            )
            metrics = workdir / "metrics.csv"
            while process.poll() is None:
                if metrics.exists() and len(metrics.read_text().splitlines()) > 1:
                    results[f"{kind}_start_to_first_step_s"] = (
                        time.perf_counter() - start
                    )
                    break
                time.sleep(0.02)
            process.communicate()
            if process.returncode:
                raise SystemExit("the training run failed")
        from yolojax.engine.log import read_metrics

        rows = read_metrics(Path(folder) / "warm")
        # The first step's wait fills the pipeline.
        shares = [r["time/wait_share"] for r in rows if "time/wait_share" in r][1:]
        results["share_waiting_for_data"] = float(np.mean(shares))
    for name, value in results.items():
        print(f"{re.sub('_', ' ', name)}: {value:.3f}", flush=True)
    return results


def main() -> None:
    """Measure what the arguments ask for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cases", nargs="*", choices=CASES, default=list(CASES))
    parser.add_argument("--steps", type=int, default=20, help="of the short training")
    given = parser.parse_args()
    jnp.zeros(()).block_until_ready()
    results: dict[str, Any] = {k: time_case(k, given.rounds) for k in given.cases}
    if given.steps:
        results["training"] = time_training(given.steps)
    RESULTS.parent.mkdir(exist_ok=True)
    measure.write_results(RESULTS, results)


if __name__ == "__main__":
    main()
