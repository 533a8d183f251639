"""The paths of a config: `~` and environment variables in them."""

from __future__ import annotations

from typing import Any

from yolojax.data.sources.base import PATHS
from yolojax.files import expand_path


def expand(settings: dict[str, Any]) -> None:
    """Expand `~` and environment variables in every path of a config, in place.

    Args:
        settings: nested dicts with all keys; see `files.expand_path`.
    """
    data = settings["data"]
    for section, key in (
        *((settings, "hyp"), (settings["model"], "path")),
        *((settings["init"], "weights"), (data, "root"), (data, "cache_dir")),
    ):
        _expand(section, key, "")
    for part in ("train", "val", "unlabelled"):
        for key in PATHS:
            _expand(data[part], key, data["root"])
        # Not below the root.
        _expand(data[part], "data_dir", "")


def _expand(section: dict[str, Any], key: str, folder: str) -> None:
    if isinstance(section.get(key), str):
        section[key] = expand_path(section[key], folder)
