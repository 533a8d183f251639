"""How the images of a run are decoded: the limit of memory, and what is white."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from yolojax.records import Decoding


def decoding_of(settings: Mapping[str, Any]) -> Decoding:
    """How images are decoded, as far as the config says."""
    chosen = settings["data"]
    return Decoding(chosen["white"], round(chosen["decode_megabytes"] * 1e6))


def set_white(sources: Iterable[Any], white: int) -> None:
    """Let all 16-bit images of the sources have the same white; see `Decoding`."""
    for source in sources:
        # Sources that decode nothing have none.
        if hasattr(source, "decoding"):
            source.decoding = source.decoding._replace(white=white)


def with_white(settings: Mapping[str, Any], parts: Iterable[Any]) -> dict[str, Any]:
    """The settings with the value that is white in all 16-bit images, if there are any.

    A run keeps it, so that its evaluations and predictions see the same.

    Args:
        settings: a complete config.
        parts: `datasets.Data` of all that the run sees.
    """
    parts = list(parts)
    white = settings["data"]["white"] or max(part.white for part in parts)
    set_white((part.source for part in parts), white)
    return {**settings, "data": {**settings["data"], "white": white}}
