"""What SAM, look-SAM and a frozen backbone cost a training step, side by side.

    python benchmarks/sam_freeze.py [--rounds 10] [--cases n320 s320]

Figures go to benchmarks/results/sam_freeze.json: medians of the full step of `train`
(augmentation, forward, loss, backward, clipping, SGD, moving average), taken in turns,
and each over that of the plain step. Look-SAM's is the mean over its k steps, one of
which takes the second gradient.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import measure
from train_step import CASES

from yolojax import network, recipe
from yolojax.engine import sharding
from yolojax.engine.step import LookStep, init_state

RESULTS = Path(__file__).parent / "results" / "sam_freeze.json"
LOOK = 5
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "sam": {"sam": {"name": "sam"}},
    "asam": {"sam": {"name": "asam"}},
    "gsam": {"sam": {"name": "gsam"}},
    "looksam": {"sam": {"name": "looksam", "k": LOOK}},
    "frozen": {"freeze": {"match": (), "layers": 10, "statistics": True}},
    "frozen_moving": {"freeze": {"match": (), "layers": 10, "statistics": False}},
}


class Runner:
    """The jitted step of one kind, and the state that it moves."""

    def __init__(self, case: measure.Case, changes: dict[str, Any]):
        chosen = dict(case.chosen)
        chosen["freeze"] = changes.get("freeze", chosen["freeze"])
        chosen["optim"] = {**chosen["optim"], "sam": changes.get("sam", {})}
        mesh, model = network.make_mesh(chosen), network.make_model(chosen)
        self._step, optimizer = recipe.make_step(
            chosen, model, mesh, max_boxes=measure.MAX_BOXES, steps_per_epoch=100
        )
        state = init_state(model.init(0), optimizer)
        self._state = sharding.put_replicated(state, mesh)
        self._batch, self._number = case.batch, 0
        leaves = jax.tree.leaves(state.opt_state)
        self.optimizer_bytes = sum(leaf.nbytes for leaf in leaves)

    def __call__(self) -> None:
        """One step, waited for."""
        step = self._step
        if isinstance(step, LookStep):
            step = step.at(self._number)
        self._number += 1
        self._state, numbers = step(self._state, self._batch)
        jax.block_until_ready(numbers)


def time_case(key: str, rounds: int, kinds: list[str]) -> dict[str, Any]:
    """Medians of all kinds in turns; `rounds` is rounded up to a multiple of k."""
    case = measure.make_case(*CASES[key])
    runners = {kind: Runner(case, KINDS[kind]) for kind in kinds}
    rounds = -(-rounds // LOOK) * LOOK
    times = measure.side_by_side(dict(runners), rounds)
    for kind, found in times.items():
        found["optimizer_bytes"] = runners[kind].optimizer_bytes
    if "looksam" in times:
        # Step 0, the first look, was the round to warm up; step 1 compiles its form.
        seconds = times["looksam"]["all_s"]
        looks = statistics.median(seconds[LOOK - 1 :: LOOK])
        others = [s for i, s in enumerate(seconds) if i and i % LOOK != LOOK - 1]
        between = statistics.median(others)
        times["looksam"] |= {"look_s": looks, "between_s": between}
        times["looksam"]["median_s"] = (looks + (LOOK - 1) * between) / LOOK
    plain = times["plain"]["median_s"]
    for kind, found in times.items():
        found["over_plain"] = found["median_s"] / plain
        print(
            f"{case.name}: {kind} {found['median_s'] * 1e3:.0f} ms, "
            f"{found['over_plain']:.3f} of plain, optimiser "
            f"{found['optimizer_bytes'] / 2**20:.1f} MiB",
            flush=True,
        )
    return times


def main() -> None:
    """Measure what the arguments ask for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--cases", nargs="*", choices=CASES, default=["n320"])
    parser.add_argument("--kinds", nargs="*", choices=KINDS, default=list(KINDS))
    given = parser.parse_args()
    kinds = list(dict.fromkeys(["plain", *given.kinds]))
    jnp.zeros(()).block_until_ready()
    results = {key: time_case(key, given.rounds, kinds) for key in given.cases}
    RESULTS.parent.mkdir(exist_ok=True)
    measure.write_results(RESULTS, results)


if __name__ == "__main__":
    main()
