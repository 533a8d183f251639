"""Pictures a second that the host prepares, against the usual pipeline on the CPU.

    python benchmarks/input_pipeline.py [--pictures path/to/coco128/images] [--rounds 7]

Pictures are JPEGs of 640 x 480: made up with the spectrum of photographs, or those of
that size in a folder, as they are. All variants take turns in one run:

- none, encoded, disk, device: what the host does for a batch here, with each
  `config.data.cache` and two threads: read, decode, shrink, batch. The rest is the
  device's work, whose share of a training step is measured too.
- cpu: all of it on the CPU, see `cpu_pipeline.py`, in two worker processes.

Figures go to benchmarks/results/input_pipeline.json.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cpu_pipeline
import cv2
import jax
import measure
import numpy as np
import simplejpeg

from yolojax import recipe
from yolojax.data import pipeline
from yolojax.data.report import Report
from yolojax.data.room import CACHES, Room
from yolojax.data.stored import StoredRows, make_shards
from yolojax.records import Example

RESULTS = Path(__file__).parent / "results" / "input_pipeline.json"
HEIGHT, WIDTH = 480, 640
BATCH = 16
BOXES = 8
THREADS = 2


class Pictures:
    """A source of files of one size with made-up boxes."""

    class_names: tuple[str, ...] = ("thing",)
    category_ids: tuple[int, ...] = (0,)

    def __init__(self, paths: list[str]):
        rng = np.random.default_rng(0)
        low = rng.uniform(0, 0.7, (len(paths), BOXES, 2)) * (WIDTH, HEIGHT)
        sides = rng.uniform(0.05, 0.3, (len(paths), BOXES, 2)) * (WIDTH, HEIGHT)
        self.boxes = np.concatenate([low, low + sides], axis=-1).astype(np.float32)
        self.paths = paths
        self.report = Report()

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int, /) -> Example:
        return Example(
            image=self.paths[index],
            boxes=self.boxes[index],
            labels=np.zeros(BOXES, np.int32),
            crowd=np.zeros(BOXES, bool),
            areas=np.ones(BOXES, np.float32),
            image_id=index,
            size=(HEIGHT, WIDTH),
            name=self.paths[index],
        )


def photograph(rng: np.random.Generator) -> np.ndarray:
    """RGB with the falling spectrum of natural pictures, and some edges."""
    down = np.fft.fftfreq(HEIGHT)[:, None]
    right = np.fft.rfftfreq(WIDTH)[None]
    frequency = np.maximum(np.hypot(down, right), 1 / WIDTH)

    def field(falling: float) -> np.ndarray:
        noise = rng.standard_normal((2, *frequency.shape))
        values = np.fft.irfft2(
            (noise[0] + 1j * noise[1]) / frequency**falling, (HEIGHT, WIDTH)
        )
        return values / values.std()

    planes = [128 + 55 * field(1.2), 128 + 14 * field(1.6), 128 + 14 * field(1.6)]
    picture = np.clip(np.stack(planes, axis=-1), 0, 255).astype(np.uint8)
    picture = cv2.cvtColor(picture, cv2.COLOR_YCrCb2RGB)
    for _ in range(12):
        points = (rng.random((4, 2)) * (WIDTH, HEIGHT)).astype(np.int32)
        colour = rng.integers(0, 256, 3).tolist()
        painted = cv2.fillConvexPoly(picture.copy(), cv2.convexHull(points), colour)
        picture = cv2.addWeighted(picture, 0.65, painted, 0.35, 0)
    return picture


def make_pictures(folder: Path, given: str, count: int) -> tuple[list[str], str]:
    """Paths of `count` files of their own, and what they are."""
    if given:
        found = sorted(p for p in Path(given).rglob("*.jp*g"))
        found = [p for p in found if _size(p) == (HEIGHT, WIDTH)]
        if not found:
            raise SystemExit(f"no JPEG of {WIDTH} x {HEIGHT} in {given}")
        contents = [p.read_bytes() for p in found]
        what = f"{len(found)} photographs of {Path(given).name}, as they are, in copies"
    else:
        rng = np.random.default_rng(0)
        contents = [
            simplejpeg.encode_jpeg(photograph(rng), quality=88, colorsubsampling="420")
            for _ in range(64)
        ]
        what = "64 made up with the spectrum of photographs, quality 88, in copies"
    paths = []
    for k in range(count):
        path = folder / f"{k}.jpg"
        path.write_bytes(contents[k % len(contents)])
        paths.append(str(path))
    return paths, what


def _size(path: Path) -> tuple[int, int]:
    height, width, _, _ = simplejpeg.decode_jpeg_header(path.read_bytes())
    return int(height), int(width)


def take(batches: Any, count: int) -> None:
    """The next batches, as the loop would take them."""
    for _ in range(count):
        next(batches)


def time_host(
    source: Pictures, folder: Path, size: int, rounds: int, num_batches: int
) -> dict[str, Any]:
    """Pictures a second of each variant, in turns."""
    keep = np.arange(len(source))
    actions: dict[str, Callable[[], None]] = {}
    counts = dict.fromkeys(("none", "encoded", "disk"), num_batches)
    streams = {}
    for name in counts:
        streams[name] = batches = pipeline.make_train_batches(
            source,
            keep,
            image_size=(size, size),
            batch_size=BATCH,
            max_boxes=BOXES,
            seed=0,
            num_threads=THREADS,
            cache=name,
            room=Room(folder=str(folder / f"cache{size}")),
        )
        # A first epoch fills the cache.
        take(batches, batches.steps_per_epoch)
        actions[name] = lambda batches=batches: take(batches, num_batches)
    shards = make_shards(
        seed=0,
        num_pictures=len(source),
        num_shards=1,
        batch_size=BATCH,
        steps_per_epoch=-(-len(source) // BATCH),
    )
    rows = StoredRows(shards.streams)
    counts |= {"device": 100 * num_batches, "cpu": max(4, num_batches // 4)}
    actions["device"] = lambda: take(rows, counts["device"])
    with cpu_pipeline.CpuPipeline(
        source.paths, source.boxes, size=size, batch_size=BATCH, num_workers=THREADS
    ) as cpu:
        actions["cpu"] = lambda: cpu.run(counts["cpu"])
        times = measure.side_by_side(actions, rounds)
    for batches in streams.values():
        batches.close()
    for name, values in times.items():
        values["images_per_second"] = counts[name] * BATCH / values["median_s"]
    ratios = {}
    for name in ("none", "encoded", "disk"):
        # Of each round, so that what slows a round down slows both.
        ratios[name] = statistics.median(
            (counts[name] / own) / (counts["cpu"] / other)
            for own, other in zip(
                times[name]["all_s"], times["cpu"]["all_s"], strict=True
            )
        )
    for name, values in times.items():
        shown = f"{values['images_per_second']:12,.0f} images/s"
        if name in ratios:
            shown += f", {ratios[name]:.1f} times the CPU pipeline"
        print(f"{size} px  {name:8}{shown}", flush=True)
    return {"times": times, "over_cpu_pipeline": ratios}


def weigh(source: Pictures, size: int) -> dict[str, float]:
    """Bytes of the pictures: raw, in the encoded cache, and as files."""
    keep = np.arange(len(source))
    cache, _ = CACHES["encoded"](source, keep, (size, size), Room())
    raw = 0
    for index in keep.tolist():
        scale = min(1.0, size / WIDTH)
        shape = (round(HEIGHT * scale), round(WIDTH * scale))
        raw += cache.read(index, source[index], shape).nbytes
    files = sum(os.path.getsize(path) for path in source.paths)
    weights = {
        "raw": raw,
        "raw_in_square_arrays": size * size * 3 * len(source),
        "encoded": cache.num_bytes,
        "files": files,
        "encoded_over_raw": cache.num_bytes / raw,
    }
    print(
        f"{size} px  memory for {len(source)}: raw {raw / 2**20:.1f} MiB, encoded "
        f"{cache.num_bytes / 2**20:.1f} MiB (1/{raw / cache.num_bytes:.1f}), files "
        f"{files / 2**20:.1f} MiB",
        flush=True,
    )
    return weights


def time_step(rounds: int) -> dict[str, Any]:
    """The augmentation's share of a training step of yolov5n at 640 px."""
    case = measure.make_case("yolov5n", 640, BATCH)
    augment = jax.jit(recipe.make_augmentation(case.chosen, measure.MAX_BOXES))
    key = jax.random.key(0)
    times = measure.side_by_side(
        {
            "step": lambda: measure.advance_full(case),
            "augmentation": lambda: jax.block_until_ready(
                augment(key, case.batch, mosaic_on=True)
            ),
        },
        rounds,
    )
    share = times["augmentation"]["median_s"] / times["step"]["median_s"]
    print(
        f"{case.name}: step {times['step']['median_s']:.3f} s, augmentation "
        f"{times['augmentation']['median_s']:.3f} s, {share:.1%}",
        flush=True,
    )
    return {"case": case.name, "times": times, "augmentation_share": share}


def main() -> None:
    """Measure what the arguments ask for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", default="", help="folder with JPEGs of 640 x 480")
    parser.add_argument("--sizes", nargs="*", type=int, default=[640, 320])
    parser.add_argument("--count", type=int, default=512, help="files")
    parser.add_argument("--batches", type=int, default=64, help="of each round")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--no-step", action="store_true")
    given = parser.parse_args()
    before = os.getloadavg()
    results: dict[str, Any] = {}
    folder = Path(tempfile.mkdtemp(prefix="input_pipeline"))
    try:
        paths, what = make_pictures(folder, given.pictures, given.count)
        print(f"{given.count} JPEGs of {WIDTH} x {HEIGHT}: {what}", flush=True)
        source = Pictures(paths)
        results["pictures"] = what
        results["file_bytes"] = statistics.mean(map(os.path.getsize, paths))
        for size in given.sizes:
            results[f"{size} px"] = time_host(
                source, folder, size, given.rounds, given.batches
            ) | {"bytes": weigh(source, size)}
        if not given.no_step:
            results["step"] = time_step(given.rounds)
    finally:
        shutil.rmtree(folder)
    results["load_average"] = {"before": before, "after": os.getloadavg()}
    results["cores"] = os.cpu_count()
    RESULTS.parent.mkdir(exist_ok=True)
    measure.write_results(RESULTS, results)
    print(f"{time.strftime('%H:%M')}, load {before[0]:.1f} before", flush=True)


if __name__ == "__main__":
    main()
