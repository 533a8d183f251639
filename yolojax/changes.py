"""Which keys of a config may be other ones when a run goes on, and what that does.

The one place where this is stated. A key belongs to the first of these groups that
names it by its path or by the start of it; the others may not change, since the run
would no longer be what its config says.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from typing import Any

from yolojax import trees
from yolojax.comparing import difference
from yolojax.data.sources.base import PATHS

# They decide no numbers: where things lie, how long, how often something is told or
# kept. What lies there is compared by its content, see `data.identity`.
FREE = (
    *("devices", "message", "log/", "checkpoint/every_epochs"),
    *("checkpoint/every_steps", "checkpoint/keep", "data/root", "data/strict"),
    *("data/num_threads", "data/cache_bytes", "data/cache_dir", "data/allow_changes"),
    *(
        f"data/{part}/{key}"
        for part in ("train", "val", "unlabelled")
        for key in (*PATHS, "data_dir")
    ),
    # The text in it is compared.
    "model/path",
)
# They may change, and what comes from then on is another run than the one that was
# begun: its end, its schedule, how often it is judged.
COURSE = (
    *(
        "epochs",
        "max_steps",
        "max_hours",
        "evaluate/every_epochs",
        "evaluate/batch_size",
    ),
    *("early_stopping/patience", "early_stopping/min_change"),
)
# Values that give the same numbers as another one.
_SAME = {("data/cache", "disk"): "encoded"}
# What to do instead, by the start of a path; the first that fits.
_WAYS = (
    ("batch_size", "to need less memory: config.evaluate.batch_size, config.devices"),
    ("data/cache", "'encoded' and 'disk' may stand for each other"),
    ("data/max_boxes", "it is the shape of every batch"),
    ("evaluate/", "python -m yolojax.evaluate judges its weights in other ways"),
    ("checkpoint/best", "the scores so far are those of the other metric"),
    ("early_stopping/metric", "the scores so far are those of the other metric"),
    ("stages", "only the last stage's epochs may change: --config.epochs=TOTAL"),
    ("swa/", "its epochs count from the end, and move with config.epochs"),
)


def may_change(path: str) -> bool:
    """Whether a key, by its path as `data/root`, may change when a run goes on."""
    return path.startswith((*FREE, *COURSE))


def changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, str]:
    """How two configs differ, by the keys' paths; a key that is new has its default.

    Args:
        before: of the run, complete.
        now: of the command, complete.

    Returns:
        From a path to words as ` was 0, now 1`.
    """
    flat = [
        {
            path: _equal(path, value)
            for path, value in trees.flatten(json.loads(json.dumps(tree))).items()
        }
        for tree in (_with_equal_ends(before, now), now)
    ]
    return {
        path: difference(flat[0].get(path), flat[1].get(path))
        for path in sorted(flat[0].keys() | flat[1].keys())
        if flat[0].get(path) != flat[1].get(path)
    }


def refusal(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What stands against going on with another config, in a line; empty: nothing."""
    lines = []
    for path, how in changed(before, now).items():
        if not may_change(path):
            way = next((f" ({way})" for s, way in _WAYS if path.startswith(s)), "")
            lines.append(f"{path.replace('/', '.')}{how}{way}")
    return "; ".join(lines)


def same_numbers(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether runs by two configs, on the same data, come to the same numbers."""
    return all(path.startswith(FREE) for path in changed(before, now))


def course(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, str]:
    """How the keys differ that change what comes, by their dotted path."""
    return {
        path.replace("/", "."): how
        for path, how in changed(before, now).items()
        if path.startswith(COURSE)
    }


def _equal(path: str, value: Any) -> Any:
    """A value that stands for all those which give the same numbers."""
    if path == "init/weights" and value:
        # Only the first step is made of them, but some things go by whether there are.
        return "given"
    return _SAME.get((path, value), value) if isinstance(value, str) else value


def _with_equal_ends(
    before: Mapping[str, Any], now: Mapping[str, Any]
) -> Mapping[str, Any]:
    """`before`, whose last stage has as many epochs as `now` says, where it has any."""
    old, new = list(before.get("stages", ())), list(now.get("stages", ()))
    ends = [stages[-1] for stages in (old, new) if stages]
    if len(old) != len(new) or not all(isinstance(end, Mapping) for end in ends):
        return before
    if old and "epochs" in old[-1] and "epochs" in new[-1]:
        old[-1] = {**old[-1], "epochs": new[-1]["epochs"]}
    return {**before, "stages": old}


def put(settings: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """A config with some other values.

    Args:
        settings: a complete config.
        given: the values by dotted key. Of a run in stages more or fewer `epochs` are
            those of the last stage.
    """
    settings = copy.deepcopy(dict(settings))
    for key, value in given.items():
        *parents, last = key.split(".")
        node = settings
        for name in parents:
            below = node.get(name)
            node[name] = below if isinstance(below, dict) else {}
            node = node[name]
        if key == "epochs" and "stages" not in given:
            settings = with_epochs(settings, value)
        else:
            node[last] = value
    return settings


def with_epochs(settings: Mapping[str, Any], epochs: Any) -> dict[str, Any]:
    """A config with another number of epochs; of stages the last one gets them.

    Raises:
        ValueError: no epoch would be left to the last stage.
    """
    stages = settings["stages"]
    if not stages or not isinstance(epochs, int):
        return {**settings, "epochs": epochs}
    last = epochs - settings["epochs"] + stages[-1]["epochs"]
    if last < 1:
        raise ValueError(
            f"config.epochs={epochs} leaves nothing to the last of config.stages: the "
            f"stages before have {settings['epochs'] - stages[-1]['epochs']} epochs"
        )
    longer = {**stages[-1], "epochs": last}
    return {**settings, "epochs": epochs, "stages": (*stages[:-1], longer)}
