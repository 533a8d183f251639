"""Where the partners of a mosaic come from, and what it does to accuracy, by seeds.

    python benchmarks/partners.py --data ../shared/data --work /tmp/partners \
        [--sets crowded sparse bccd] [--arms batch whole] [--seeds 0 1 2 3 4] \
        [--old CHECKOUT]

Trains YOLOv5-n with the published recipe from scratch, batch 16, and compares the best
checkpoint's mAP on val. Arms: `batch`, partners from the batch (cache `encoded`);
`whole`, partners from the whole set (cache `device`); `old_batch` and `old_whole`, the
same in `--old`, a checkout of before the change of the rows for boxes: twice the
fullest image's boxes have a row, and the others are background.

Two sets are made: `crowded`, 200 images of 10 to 30 digits, and `sparse`, 350 images of
one digit, both on photographs. Finished runs are not repeated. Figures go to
benchmarks/results/partners.json.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import measure
import numpy as np
from sklearn.datasets import load_digits

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "partners.json"
SIDE = 128
# Images of train and val, objects of an image, their sides in pixels.
MADE: dict[str, tuple[int, int, tuple[int, int], tuple[int, int]]] = {
    "crowded": (200, 60, (10, 30), (9, 22)),
    "sparse": (350, 100, (1, 1), (14, 48)),
}
EPOCHS = {"crowded": 60, "sparse": 40, "bccd": 60}
ARMS = {"batch": "encoded", "whole": "device"}


def make_set(folder: Path, photographs: list[Path], name: str) -> None:
    """A YOLO data set of digits on photographs, always the same."""
    *counts, objects, sides = MADE[name]
    rng = np.random.default_rng(len(name))
    digits = load_digits()
    for part, count in zip(("train", "val"), counts, strict=True):
        for number in range(count):
            photograph = photographs[rng.integers(len(photographs))]
            image = cv2.imread(str(photograph))
            assert image is not None, photograph
            image = cv2.resize(image, (SIDE, SIDE))
            lines = draw_digits(rng, image, digits, objects, sides)
            for kind, suffix in (("images", "png"), ("labels", "txt")):
                path = folder / kind / part / f"{number:04d}.{suffix}"
                path.parent.mkdir(parents=True, exist_ok=True)
                if kind == "images":
                    cv2.imwrite(str(path), image)
                else:
                    path.write_text("".join(f"{line}\n" for line in lines))
    names = ", ".join(f"'{i}'" for i in range(10))
    text = f"path: .\ntrain: images/train\nval: images/val\nnames: [{names}]\n"
    (folder / "data.yaml").write_text(text)


def draw_digits(
    rng: np.random.Generator,
    image: np.ndarray,
    digits: Any,
    objects: tuple[int, int],
    sides: tuple[int, int],
) -> list[str]:
    """Draw digits that do not overlap into an image; their lines of a label file."""
    taken = np.zeros(image.shape[:2], bool)
    lines: list[str] = []
    wanted = rng.integers(objects[0], objects[1] + 1)
    for _ in range(100 * wanted):
        if len(lines) == wanted:
            break
        side = int(rng.integers(sides[0], sides[1] + 1))
        top, left = rng.integers(0, SIDE - side, 2)
        place = np.s_[top : top + side, left : left + side]
        if taken[place].any():
            continue
        index = rng.integers(len(digits.images))
        ink = cv2.resize(digits.images[index] / 16, (side, side))[..., None]
        colour = rng.integers(0, 256, 3)
        image[place] = np.clip(image[place] * (1 - ink) + colour * ink, 0, 255)
        taken[place] = True
        numbers = (left + side / 2, top + side / 2, side, side)
        words = " ".join(f"{number / SIDE:.6f}" for number in numbers)
        lines.append(f"{digits.target[index]} {words}")
    return lines


def train(args: argparse.Namespace, name: str, arm: str, seed: int) -> dict[str, float]:
    """The numbers of one run, which goes on where it stopped."""
    workdir = args.work / f"{name}_{arm}_{seed}"
    config = "bccd" if name == "bccd" else "coco128"
    root = args.data / "bccd_voc" if name == "bccd" else args.work / name
    given = {
        "data.root": root,
        "data.cache": ARMS[arm.removeprefix("old_")],
        "model.num_classes": 3 if name == "bccd" else 10,
        "image_size": (SIDE, SIDE),
        "batch_size": 16,
        "epochs": EPOCHS[name],
        "seed": seed,
        "devices": 1,
        "evaluate.every_epochs": 5,
        "log.pictures": 0,
        "log.tensorboard": False,
    }
    package = args.old if arm.startswith("old_") else HERE.parent
    flags = [f"--config.{key}={value}" for key, value in given.items()]
    path = workdir / "evaluation.json"
    if not path.exists():
        subprocess.run(
            [sys.executable, "-m", "yolojax.train", f"--workdir={workdir}"]
            + [f"--config={package / 'configs' / config}.py", *flags],
            check=True,
            cwd=package,
            env=os.environ | {"PYTHONPATH": str(package)},
            stdout=subprocess.DEVNULL,
        )
    found = json.loads(path.read_text())
    return {key: found[key] for key in ("mAP50", "mAP50_95")}


def summary(runs: dict[str, dict[int, dict[str, float]]]) -> dict[str, Any]:
    """Means and standard deviations of the arms, and paired differences by seed."""
    table: dict[str, Any] = {}
    for arm, seeds in runs.items():
        for key in ("mAP50", "mAP50_95"):
            values = [seeds[seed][key] for seed in sorted(seeds)]
            spread = statistics.stdev(values) if len(values) > 1 else None
            table[f"{arm} {key}"] = {
                "mean": statistics.mean(values),
                "stdev": spread,
                "values": values,
            }
    for one, other in itertools.combinations(runs, 2):
        shared = sorted(runs[one].keys() & runs[other].keys())
        gaps = [runs[other][s]["mAP50"] - runs[one][s]["mAP50"] for s in shared]
        if len(gaps) > 1 and (spread := statistics.stdev(gaps)) > 0:
            mean = statistics.mean(gaps)
            t = mean / (spread / len(gaps) ** 0.5)
            # Student's t with n - 1 degrees of freedom.
            table[f"{other} - {one} mAP50"] = {"mean": mean, "t": t, "n": len(gaps)}
    return table


def main() -> None:
    """Run all arms, seed after seed, and write the figures after each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--old", type=Path)
    parser.add_argument("--sets", nargs="+", default=list(EPOCHS))
    parser.add_argument("--arms", nargs="+", default=list(ARMS))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(range(5)))
    args = parser.parse_args()
    args.data, args.work = args.data.resolve(), args.work.resolve()
    photographs = sorted((args.data / "flowers_imagefolder" / "train").rglob("*.jpg"))
    for name in args.sets:
        if name in MADE and not (args.work / name / "data.yaml").exists():
            make_set(args.work / name, photographs, name)
    found: dict[str, dict[str, dict[int, dict[str, float]]]] = {}
    for seed, name, arm in itertools.product(args.seeds, args.sets, args.arms):
        numbers = train(args, name, arm, seed)
        found.setdefault(name, {}).setdefault(arm, {})[seed] = numbers
        print(name, arm, seed, numbers, flush=True)
        tables = {name: summary(runs) for name, runs in found.items()}
        measure.write_results(RESULTS, tables)


if __name__ == "__main__":
    main()
