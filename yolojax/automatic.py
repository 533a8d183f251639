"""The values of a config that are found out: `"auto"` for the batch and the anchors.

What is found is written into the run's config.json, and read from there ever after.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from yolojax.lookup import hint

AUTO = "auto"
KEYS = ("batch_size", "model.anchors")
# Of a device's memory, where `auto` does not say.
SHARE = 0.9
_WITH_SHARE = re.compile(r"auto:(0?\.\d+|1(\.0*)?)")


def read_batch_size(value: str) -> int | str:
    """A batch size that is text: a number, as a command line has it, or `auto`.

    Raises:
        ValueError: neither.
    """
    if value.isdecimal():
        return int(value)
    memory_share(value)
    return value


def memory_share(batch_size: int | str) -> float | None:
    """The share of a device's memory that a step may take; None: the batch is given.

    Args:
        batch_size: a number, `auto`, or `auto:0.8` for that share.

    Raises:
        ValueError: some other text.
    """
    if not isinstance(batch_size, str):
        return None
    if batch_size == AUTO:
        return SHARE
    found = _WITH_SHARE.fullmatch(batch_size)
    if found is None or float(found[1]) == 0:
        raise ValueError(
            f"config.batch_size must be a number, 'auto', or 'auto:0.8' to take that "
            f"share of the memory, not {batch_size!r}.{hint(batch_size, [AUTO])}"
        )
    return float(found[1])


def with_anchors(model: Mapping[str, Any], anchors: Any) -> dict[str, Any]:
    """`config.model` with these anchors instead of `auto`; None: its own.

    Raises:
        ValueError: anchors that are some other text.
    """
    given = model.get("anchors")
    if not isinstance(given, str):
        return dict(model)
    if given != AUTO:
        raise ValueError(
            f"config.model.anchors must be 'auto' or (width, height) pairs, not "
            f"{given!r}.{hint(given, [AUTO])}"
        )
    rest = {key: value for key, value in model.items() if key != "anchors"}
    return rest if anchors is None else rest | {"anchors": anchors}


def as_begun(settings: Mapping[str, Any], begun: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a run that goes on: what is `auto` is as it was found before.

    Args:
        settings: a complete config.
        begun: that of the run, from its config.json.
    """
    changed = dict(settings)
    data, before = settings.get("data", {}), begun.get("data", {})
    if before.get("white") and not data.get("white"):
        changed["data"] = {**data, "white": before["white"]}
    if memory_share(settings["batch_size"]) is not None:
        changed["batch_size"] = begun["batch_size"]
    if begun["model"].get("anchors") is not None:
        changed["model"] = with_anchors(settings["model"], begun["model"]["anchors"])
    return changed
