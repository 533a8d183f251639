"""The training step on an accelerator, in bfloat16 at 640 px.

    python benchmarks/gpu.py [--models yolov5n yolov5s] [--rounds 20]

For each model at batch 64 and at the largest batch that fits: the model's step alone
(forward, backward, SGD), the full step with augmentation on pictures that lie on the
device, and end to end with pictures put there from the host each time; images a second
and the five most expensive kernels of the full step. Figures go to
benchmarks/results/gpu.json.
"""

from __future__ import annotations

import argparse
import collections
import glob
import gzip
import json
import tempfile
from pathlib import Path
from typing import Any

import jax
import measure

from yolojax.engine import sharding

RESULTS = Path(__file__).parent / "results" / "gpu.json"


def five_kernels(case: measure.Case, steps: int = 3) -> list[dict[str, Any]]:
    """Name, milliseconds a step and share of the most expensive device operations."""
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(steps):
                measure.advance_full(case)
        files = glob.glob(f"{folder}/**/*.trace.json.gz", recursive=True)
        if not files:
            return []
        with gzip.open(files[0], "rt") as file:
            events = json.load(file)["traceEvents"]
    devices = {
        e["pid"]
        for e in events
        if e.get("name") == "process_name" and "/device:" in e["args"]["name"]
    }
    # Streams hold kernels; the other rows of a device repeat them by module and step.
    rows = {
        (e["pid"], e["tid"])
        for e in events
        if e.get("name") == "thread_name"
        and e["pid"] in devices
        and ("Stream" in e["args"]["name"] or "XLA Ops" in e["args"]["name"])
    }
    times: collections.Counter[str] = collections.Counter()
    for event in events:
        if event.get("ph") == "X" and (event["pid"], event.get("tid")) in rows:
            times[event["name"]] += event["dur"]
    total = sum(times.values())
    return [
        {"kernel": name, "ms": value / 1e3 / steps, "share": value / total}
        for name, value in times.most_common(5)
    ]


def time_case(model: str, batch_size: int, rounds: int) -> dict[str, Any]:
    """Model alone, full step, and end to end from the host, in turns."""
    case = measure.make_case(model, 640, batch_size, dtype="bfloat16")
    host = jax.device_get(case.batch)
    place = case.batch.image.sharding.mesh

    def end_to_end() -> None:
        case.batch = sharding.put_batch(host, place)
        measure.advance_full(case)

    times = measure.side_by_side(
        {
            "model_step": lambda: measure.advance_bare(case),
            "full_step": lambda: measure.advance_full(case),
            "end_to_end": end_to_end,
        },
        rounds,
    )
    for values in times.values():
        values["images_per_second"] = batch_size / values["median_s"]
    alone, whole = times["model_step"]["median_s"], times["end_to_end"]["median_s"]
    times["model_step_over_end_to_end"] = alone / whole
    times["kernels"] = five_kernels(case)
    print(f"{case.name}:", flush=True)
    for name in ("model_step", "full_step", "end_to_end"):
        row = times[name]
        print(
            f"  {name}: {row['median_s'] * 1e3:.1f} ms, "
            f"{row['images_per_second']:.0f} images/s",
            flush=True,
        )
    for row in times["kernels"]:
        print(f"  {row['ms']:8.2f} ms {row['share']:6.1%}  {row['kernel']}", flush=True)
    return times


def largest_batch(model: str, start: int = 64, most: int = 2048) -> int:
    """The largest doubling of `start` whose full step fits into the memory."""
    fits, batch_size = 0, start
    while batch_size <= most:
        try:
            case = measure.make_case(model, 640, batch_size, dtype="bfloat16")
            measure.advance_full(case)
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            break
        fits, batch_size = batch_size, 2 * batch_size
    return fits


def main() -> None:
    """Measure what the arguments ask for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="*", default=["yolov5n", "yolov5s"])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--most", type=int, default=2048, help="largest batch to try")
    parser.add_argument("--rounds", type=int, default=20)
    given = parser.parse_args()
    results: dict[str, Any] = {}
    RESULTS.parent.mkdir(exist_ok=True)
    for model in given.models:
        sizes = {given.batch}
        if given.most > given.batch:
            sizes.add(largest_batch(model, given.batch, given.most))
        for batch_size in sorted(sizes - {0}):
            key = f"{model} 640 px batch {batch_size}"
            results[key] = time_case(model, batch_size, given.rounds)
            measure.write_results(RESULTS, results)


if __name__ == "__main__":
    main()
