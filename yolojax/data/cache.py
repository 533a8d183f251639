"""Pictures at training size, read anew each time or kept as JPEG bytes in memory.

A picture is the same in the first epoch and in every later one, whichever cache: with
`encoded` the first use too goes through the bytes that are kept, so that a run that was
interrupted, whose memory starts empty, sees the pixels that an uninterrupted one sees.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import simplejpeg

from yolojax.data.decode import ImageError, decode_image
from yolojax.data.sources.base import Source
from yolojax.ops.letterbox import letterbox_shape
from yolojax.records import Example

_QUALITY = 95
# Enough pictures for the mean to be within a few per cent, in a tenth of a second.
_SAMPLES = 32


class Cache(Protocol):
    """Gives pictures at the size that training wants."""

    @property
    def num_bytes(self) -> int:
        """Bytes held in memory now."""
        ...

    def read(self, index: int, example: Example, size: tuple[int, int]) -> np.ndarray:
        """The picture as uint8 RGB [*size, 3].

        Args:
            index: the picture's index in its source.
            example: what the source yields for it.
            size: (height, width) wanted, always the same for the same index.

        Raises:
            ImageError: the picture cannot be read; the message names it.
        """
        ...


def resize(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The picture at (height, width) `size`.

    Averages over areas when shrinking, so that nothing aliases, and interpolates
    linearly when enlarging.
    """
    height, width = picture.shape[:2]
    if (height, width) == size:
        return picture
    smaller = size[0] <= height and size[1] <= width
    method = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
    return cv2.resize(picture, (size[1], size[0]), interpolation=method)


def read_picture(
    example: Example, size: tuple[int, int], *, scaled: bool = True
) -> np.ndarray:
    """The example's picture, decoded and resized.

    Args:
        example: from a source.
        size: (height, width) wanted.
        scaled: whether the decoder may shrink the picture on the way, which is quicker
            and differs by a grey level or two.

    Returns:
        uint8 RGB [*size, 3].

    Raises:
        ImageError: the picture cannot be read, or is not of the size that the source
            says, in which case its boxes would be in the wrong place.
    """
    with _named(example):
        picture = decode_image(example.image, min_size=size if scaled else None)
        _check_shape(picture, example.size)
    return resize(picture, size)


class NoCache:
    """Reads and decodes each time."""

    num_bytes = 0

    def read(self, index: int, example: Example, size: tuple[int, int]) -> np.ndarray:
        """The picture, decoded and shrunk; see `Cache.read`."""
        return read_picture(example, size)


class EncodedCache:
    """Keeps JPEG bytes at training size, from each picture's first use on.

    A file that is a JPEG and needs no shrinking is kept as it is; any other picture is
    encoded at quality 95. Threads may read at the same time.
    """

    def __init__(self) -> None:
        self._pictures: dict[int, bytes] = {}
        self._lock = threading.Lock()
        self._num_bytes = 0

    @property
    def num_bytes(self) -> int:
        """Bytes of JPEG held in memory now."""
        return self._num_bytes

    def read(self, index: int, example: Example, size: tuple[int, int]) -> np.ndarray:
        """The picture, decoded from the bytes that are kept; see `Cache.read`."""
        encoded = self._pictures.get(index)
        if encoded is None:
            encoded = encode(example, size)
            with self._lock:
                if index not in self._pictures:
                    self._pictures[index] = encoded
                    self._num_bytes += len(encoded)
        with _named(example):
            picture = decode_image(encoded)
            _check_shape(picture, size)
        return picture


def encode(example: Example, size: tuple[int, int]) -> bytes:
    """The example's picture at `size` (height, width) as JPEG bytes.

    Raises:
        ImageError: the picture cannot be read.
    """
    if example.size == size and not isinstance(example.image, np.ndarray):
        with _named(example):
            image = example.image
            encoded = image if isinstance(image, bytes) else Path(image).read_bytes()
        if encoded.startswith(b"\xff\xd8\xff"):
            return encoded
    picture = np.ascontiguousarray(read_picture(example, size))
    return simplejpeg.encode_jpeg(picture, quality=_QUALITY, colorspace="RGB")


def encoded_bytes_estimate(
    source: Source, keep: Sequence[int] | np.ndarray, image_size: tuple[int, int]
) -> int:
    """About how many bytes the encoded cache will take when it is full.

    Encodes up to 32 pictures, evenly spaced, and multiplies.

    Args:
        source: the data set.
        keep: indices of the pictures that are used.
        image_size: (height, width) that the pictures are shrunk to fit.
    """
    if len(keep) == 0:
        return 0
    count = min(len(keep), _SAMPLES)
    chosen = np.asarray(keep)[np.arange(count) * len(keep) // count]
    total = 0
    for index in chosen.tolist():
        example = source[index]
        place = letterbox_shape(example.size, image_size, scale_up=False)
        total += len(encode(example, place.size))
    return round(total / count * len(keep))


def available_bytes() -> int:
    """Bytes of memory that this process may still take, as far as the system tells."""
    page = os.sysconf("SC_PAGE_SIZE")
    try:
        fields = dict(
            line.split(":", 1)
            for line in Path("/proc/meminfo").read_text().splitlines()
        )
        free = int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):
        free = os.sysconf("SC_PHYS_PAGES") * page
    group = Path("/sys/fs/cgroup")
    try:
        limit = int((group / "memory.max").read_text())
        used = int((group / "memory.current").read_text())
    except (OSError, ValueError):  # no such group, or no limit ("max")
        return free
    return max(0, min(free, limit - used))


def _no_cache(
    source: Source, keep: Sequence[int] | np.ndarray, image_size: tuple[int, int]
) -> tuple[Cache, int]:
    return NoCache(), 0


def _encoded_cache(
    source: Source, keep: Sequence[int] | np.ndarray, image_size: tuple[int, int]
) -> tuple[Cache, int]:
    need = encoded_bytes_estimate(source, keep, image_size)
    free = available_bytes()
    if need > free:
        raise ValueError(
            f"cache 'encoded' would take about {need / 2**30:.1f} GiB for {len(keep)} "
            f"pictures at {image_size[0]}x{image_size[1]}, but {free / 2**30:.1f} GiB "
            "of memory are free; use cache 'none' or a smaller image size"
        )
    return EncodedCache(), need


# Each makes an empty cache, and says how many bytes it will come to take.
CACHES: dict[
    str,
    Callable[[Source, Sequence[int] | np.ndarray, tuple[int, int]], tuple[Cache, int]],
] = {"none": _no_cache, "encoded": _encoded_cache}


@contextlib.contextmanager
def _named(example: Example) -> Iterator[None]:
    """Turns errors of reading a picture into one that names it."""
    try:
        yield
    except (ImageError, OSError) as error:
        reason = str(error).removeprefix(f"{example.name}: ")
        raise ImageError(
            f"{example.name}: cannot be read any more ({reason}); it could be when "
            "the data set was scanned. Has it been moved or changed since?"
        ) from error


def _check_shape(picture: np.ndarray, size: tuple[int, int]) -> None:
    """Raise unless the picture is of that size, or was scaled evenly from it."""
    height, width = picture.shape[:2]
    if (height, width) == size:
        return
    # The decoder's scaled sides are rounded up.
    if height > size[0] or abs(width - size[1] * height / size[0]) > 2 * max(
        1.0, size[1] / size[0]
    ):
        raise ImageError(
            f"it is {height}x{width} pixels, but {size[0]}x{size[1]} are expected"
        )
