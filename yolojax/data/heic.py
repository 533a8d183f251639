"""HEIC, which phones write, by pillow-heif where that is installed."""

from __future__ import annotations

import functools
import importlib
from types import ModuleType
from typing import Any

import numpy as np

from yolojax.data.formats import ImageError


@functools.cache
def _library() -> ModuleType | None:
    try:
        return importlib.import_module("pillow_heif")
    except ImportError:
        return None


def is_available() -> bool:
    """Whether HEIC can be read here."""
    return _library() is not None


def read_size(data: bytes) -> tuple[int, int]:
    """(height, width) as the image is shown; nothing is decoded.

    Raises:
        ImageError: the container is damaged.
    """
    width, height = _open(data).size
    return height, width


def decode(data: bytes) -> np.ndarray:
    """RGB uint8 [h, w, 3], turned as the container says.

    The library turns the image by itself. An EXIF orientation says the same once more
    and is not applied.

    Raises:
        ImageError: the file is damaged.
    """
    image = _open(data)
    try:
        pixels = np.asarray(image)
    except Exception as error:
        raise _damaged(error) from error
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[..., None], 3, axis=2)
    return np.array(pixels[..., :3])  # its own, to be written to


def _open(data: bytes) -> Any:
    library = _library()
    assert library is not None
    try:
        return library.open_heif(data, convert_hdr_to_8bit=True)
    except Exception as error:  # of several kinds, the library's documentation says
        raise _damaged(error) from error


def _damaged(error: Exception) -> ImageError:
    first = str(error).partition("\n")[0]
    return ImageError(f"HEIC that pillow-heif cannot read: {first}")
