"""Whether there is room for a cache of pictures, told before it is filled."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from yolojax.data.cache import (
    Cache,
    EncodedCache,
    NoCache,
    encode,
    named,
    picture_key,
)
from yolojax.data.picture_file import PictureFile
from yolojax.data.sources.base import Source
from yolojax.files import cache_home
from yolojax.ops.letterbox import letterbox_shape
from yolojax.records import Example

# Enough pictures for the mean to be within a few per cent, in a tenth of a second.
_SAMPLES = 32
# Of what is free, without a word from the user; the rest is for checkpoints and others.
_SHARE = 0.9
_MIB = 2**20

Indices = Sequence[int] | np.ndarray


class Room(NamedTuple):
    """What a cache may take.

    Attributes:
        num_bytes: most bytes of pictures; 0: nine tenths of what is free.
        folder: of the `disk` cache; empty: the user's cache folder.
    """

    num_bytes: int = 0
    folder: str = ""


NO_LIMIT = Room()


def mean_encoded_bytes(
    source: Source, keep: Indices, image_size: tuple[int, int]
) -> float:
    """About how many bytes a picture takes in the encoded cache.

    Encodes up to 32 pictures, evenly spaced.

    Args:
        source: the data set.
        keep: indices of the pictures that are used.
        image_size: (height, width) that the pictures are shrunk to fit.
    """
    if len(keep) == 0:
        return 0.0
    count = min(len(keep), _SAMPLES)
    chosen = np.asarray(keep)[np.arange(count) * len(keep) // count]
    total = 0
    for index in chosen.tolist():
        example = source[index]
        total += len(encode(example, training_size(example, image_size)))
    return total / count


def training_size(example: Example, image_size: tuple[int, int]) -> tuple[int, int]:
    """The (height, width) at which training reads a picture: shrunk to fit."""
    return letterbox_shape(example.size, image_size, scale_up=False).size


def available_bytes() -> int:
    """Bytes of memory that this process may still take, as far as the system tells."""
    page = os.sysconf("SC_PAGE_SIZE")
    try:
        free = _fields(Path("/proc/meminfo"))["MemAvailable:"] * 1024
    except (OSError, KeyError):
        free = os.sysconf("SC_PHYS_PAGES") * page
    group = Path("/sys/fs/cgroup")
    try:
        limit = int((group / "memory.max").read_text())
        used = int((group / "memory.current").read_text())
        # Files that were read count as used, but make way.
        kept = _fields(group / "memory.stat")
        used -= kept["inactive_file"] + kept["active_file"]
    except (OSError, ValueError, KeyError):  # no such group, or no limit ("max")
        return free
    return max(0, min(free, limit - used))


def _fields(path: Path) -> dict[str, int]:
    """The numbers of a file with lines such as `MemFree: 12 kB`."""
    words = [line.split() for line in path.read_text().splitlines()]
    return {word[0]: int(word[1]) for word in words if len(word) > 1}


def _no_cache(
    source: Source, keep: Indices, image_size: tuple[int, int], room: Room
) -> tuple[Cache, str]:
    return NoCache(), ""


def _encoded_cache(
    source: Source, keep: Indices, image_size: tuple[int, int], room: Room
) -> tuple[Cache, str]:
    need = round(mean_encoded_bytes(source, keep, image_size) * len(keep))
    free = available_bytes()
    note = _check_room(
        f"cache 'encoded' for {len(keep)} pictures at {image_size[0]}x{image_size[1]}",
        need,
        free,
        room.num_bytes or None,
        "use config.data.cache='disk' or 'none', a smaller image size, or keep a part "
        "of the pictures: config.data.cache_bytes",
    )
    budget = room.num_bytes or int(_SHARE * free)
    return EncodedCache(PictureFile(None, budget=budget)), note


def _disk_cache(
    source: Source, keep: Indices, image_size: tuple[int, int], room: Room
) -> tuple[Cache, str]:
    # Never beside the data: these belong to the user.
    folder = Path(room.folder or cache_home()) / "pictures"
    file = PictureFile(folder, budget=room.num_bytes)
    free = shutil.disk_usage(folder).free
    if not room.num_bytes:
        file.budget = file.num_bytes + int(_SHARE * free)
    try:
        keys: dict[int, bytes] = {}
        missing = []
        for index in np.asarray(keep).tolist():
            example = source[index]
            # Others are made by the source, and known when they are used.
            if isinstance(example.image, str):
                with named(example):
                    keys[index] = picture_key(
                        example, training_size(example, image_size)
                    )
            if keys.get(index, b"") not in file:
                missing.append(index)
        need = round(mean_encoded_bytes(source, missing, image_size) * len(missing))
        gone = file.make_room(set(keys.values()), need)
        note = _check_room(
            f"cache 'disk' in {folder} has {len(keep) - len(missing)} of {len(keep)} "
            f"pictures at {image_size[0]}x{image_size[1]}"
            + f" (others of {readable(gone)} went)"
            * (gone > 0),
            need,
            shutil.disk_usage(folder).free,
            max(0, file.budget - file.num_bytes) if room.num_bytes else None,
            "free some, choose another folder (config.data.cache_dir), keep a part of "
            "the pictures (config.data.cache_bytes), or do without: config.data."
            "cache='none'",
        )
    except BaseException:
        file.close()
        raise
    return EncodedCache(file, keys), note


def _check_room(
    name: str, need: int, free: int, allowed: int | None, way_out: str
) -> str:
    """The note on what a cache will take.

    Args:
        name: of the cache, and what it has.
        need: bytes for all pictures.
        free: bytes that are free.
        allowed: bytes that the user allows; None: he said nothing.
        way_out: what to do.

    Raises:
        ValueError: there is not that much.
    """
    take = need if allowed is None else min(need, allowed)
    most = _SHARE * free if allowed is None else free
    text = f"{name} will take about {readable(take)}; {readable(free)} are free"
    if allowed is None:
        text += ", of which a tenth is left"
    if take > most:
        raise ValueError(f"{text}: {way_out}")
    if take < need:
        text += (
            f". Of the pictures that it lacks there is room for {take / need:.0%}; the "
            "others are read anew each time"
        )
    return text


def readable(num_bytes: float) -> str:
    """A size for a message: MiB or, where these would read as nothing, bytes."""
    if 0 < num_bytes < 0.1 * _MIB:
        return f"{num_bytes:,.0f} bytes"
    return f"{num_bytes / _MIB:,.1f} MiB"


# Each makes a cache, and says what it will come to take.
CACHES: dict[
    str, Callable[[Source, Indices, tuple[int, int], Room], tuple[Cache, str]]
] = {"none": _no_cache, "encoded": _encoded_cache, "disk": _disk_cache}
