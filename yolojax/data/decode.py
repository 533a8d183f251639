"""Encoded picture to RGB uint8, the same for every format.

One policy, whatever the decoder: EXIF orientation is applied; gray and palette become
RGB; 16 bit becomes 8 by division by 257; CMYK becomes RGB; alpha is dropped, as the
usual trainers do; of an animation the first frame counts. A JPEG that is cut short is
an error, since half a picture with all of its boxes spoils training silently.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import cv2
import numpy as np
import simplejpeg

from yolojax.data.headers import (
    Header,
    ImageError,
    jpeg_has_end,
    read_header,
    without_jpeg_junk,
)

__all__ = ["MAX_PIXELS", "ImageError", "Picture", "decode_image", "image_size"]

Picture: TypeAlias = bytes | str | Path | np.ndarray
# Gives so many bytes to write into.
Memory: TypeAlias = Callable[[int], np.ndarray]

MAX_PIXELS = 2**28  # 16,384 x 16,384: 805 MB as RGB

# Our errors say what was wrong; OpenCV would print it once more.
_logging: Any = cv2 if hasattr(cv2, "setLogLevel") else cv2.utils.logging  # 4.x, 5.x
_logging.setLogLevel(0)

# Of libjpeg's complaints, those after which the pixels cannot be trusted.
FATAL_JPEG_WARNINGS = (
    "premature end",
    "bad huffman code",
    "bad arithmetic code",
    "found marker",
)


def decode_image(
    picture: Picture,
    *,
    min_size: tuple[int, int] | None = None,
    max_pixels: int = MAX_PIXELS,
    memory: Memory | None = None,
) -> np.ndarray:
    """The picture as RGB uint8 [h, w, 3], turned as it is to be shown.

    Args:
        picture: encoded bytes, the path of a file, or pixels that are RGB uint8
            [h, w, 3] already, which come back as they are.
        min_size: (height, width) that is enough for the caller, as shown. A JPEG is
            decoded at 1/2, 1/4 or 1/8 where both sides stay at least this long;
            other formats come at full size.
        max_pixels: refuse pictures that claim more, before memory is set aside.
        memory: where the pixels may be put, for JPEGs only. Memory that was used before
            saves a third of the time, which the system takes to hand out new pages.

    Raises:
        ImageError: the file is missing, empty, damaged, too large, or of a format
            that OpenCV does not read.
    """
    if isinstance(picture, np.ndarray):
        return _checked_pixels(picture)
    data, name = _read_bytes(picture)
    try:
        header = read_header(data)
        _check_pixels(header, max_pixels)
        if header.format == "jpeg":
            pixels = _decode_jpeg(data, header, min_size, memory)
        else:
            pixels = _decode_other(data, header)
    except ImageError as error:
        raise ImageError(f"{name}: {error}") from error
    return _orient(pixels, header)


def image_size(picture: Picture) -> tuple[int, int]:
    """(height, width) of the picture as it is shown, read from its header.

    Raises:
        ImageError: as for `decode_image`; damaged pixels are not noticed.
    """
    if isinstance(picture, np.ndarray):
        return _checked_pixels(picture).shape[:2]
    if isinstance(picture, bytes):
        return _shown_size(picture, "picture")
    try:
        with (
            open(picture, "rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
        ):
            return _shown_size(data, str(picture))
    except ImageError:
        raise
    except ValueError:  # an empty file cannot be mapped
        raise ImageError(f"{picture}: the file is empty") from None
    except OSError as error:
        raise ImageError(f"{picture}: {error.strerror or error}") from error


def _shown_size(data: bytes | mmap.mmap, name: str) -> tuple[int, int]:
    try:
        header = read_header(data)
    except ImageError as error:
        raise ImageError(f"{name}: {error}") from error
    if header.format == "avif":
        return decode_image(bytes(data)).shape[:2]
    assert header.shown_size is not None
    return header.shown_size


def _read_bytes(picture: bytes | str | Path) -> tuple[bytes, str]:
    if isinstance(picture, bytes):
        return picture, "picture"
    try:
        return Path(picture).read_bytes(), str(picture)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ImageError(f"{picture}: {reason}") from error


def _checked_pixels(pixels: np.ndarray) -> np.ndarray:
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise ImageError(
            f"pixels must be uint8 [h, w, 3], not {pixels.dtype} {list(pixels.shape)}"
        )
    return pixels


def _check_pixels(header: Header, max_pixels: int) -> None:
    if header.size is not None and header.size[0] * header.size[1] > max_pixels:
        height, width = header.size
        raise ImageError(
            f"{width} x {height} pixels; more than {max_pixels:,} are refused"
        )


def _decode_jpeg(
    data: bytes,
    header: Header,
    min_size: tuple[int, int] | None,
    memory: Memory | None,
) -> np.ndarray:
    assert header.size is not None
    least = (0, 0)
    if min_size is not None:
        turned = header.orientation >= 5
        wanted = (min_size[1], min_size[0]) if turned else min_size
        least = _scaled_size(header.size, wanted)
    height, width = header.size if min_size is None else least
    buffer = None if memory is None else memory(height * width * 3)
    try:
        return _call_simplejpeg(data, least, strict=True, buffer=buffer)
    except ValueError as error:
        reason = str(error)
    if any(word in reason.lower() for word in FATAL_JPEG_WARNINGS):
        raise ImageError(f"damaged JPEG: {reason}")
    # Harmless junk, such as bytes before a marker. Only the first complaint is
    # known, so the end of the file is looked for ourselves.
    if not jpeg_has_end(data):
        raise ImageError(f"damaged JPEG, cut short: {reason}")
    try:
        return _call_simplejpeg(without_jpeg_junk(data), least, strict=False)
    except ValueError as error:
        raise ImageError(f"damaged JPEG: {error}") from error


def _scaled_size(size: tuple[int, int], wanted: tuple[int, int]) -> tuple[int, int]:
    """The smallest of size / 1, 2, 4, 8 that is `wanted` or more on both sides.

    The decoder also knows 7/8 to 3/8, without vector code and thus no faster.
    """
    for factor in (8, 4, 2):
        scaled = -(-size[0] // factor), -(-size[1] // factor)
        if scaled[0] >= wanted[0] and scaled[1] >= wanted[1]:
            return scaled
    return size


def _call_simplejpeg(
    data: bytes,
    least: tuple[int, int],
    *,
    strict: bool,
    buffer: np.ndarray | None = None,
) -> np.ndarray:
    _, _, colours, _ = simplejpeg.decode_jpeg_header(data, strict=strict)
    four = colours in ("CMYK", "YCCK")
    pixels = simplejpeg.decode_jpeg(
        data,
        colorspace="CMYK" if four else "RGB",
        min_height=least[0],
        min_width=least[1],
        buffer=None if four else buffer,
        strict=strict,
    )
    if not four:
        return pixels
    # Stored inverted, as Adobe does and all readers assume: 255 is no ink.
    inverse = pixels.astype(np.uint16)
    return ((inverse[..., :3] * inverse[..., 3:] + 127) // 255).astype(np.uint8)


def _decode_other(data: bytes, header: Header) -> np.ndarray:
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise ImageError(f"OpenCV: {error}") from error
    if pixels is None:
        reason = "damaged, or of a variant that this build does not know"
        if header.format in ("gif", "avif"):
            reason += "; these formats need OpenCV 4.12 or later"
        name = f"{header.format.upper()} that OpenCV {cv2.__version__} cannot read"
        raise ImageError(f"{name}: {reason}")
    if pixels.dtype == np.uint16:
        white = max(header.max_value or 65535, 1)
        scaled = pixels.astype(np.uint32) * 255 + white // 2
        pixels = np.minimum(scaled // white, 255).astype(np.uint8)
    if pixels.dtype != np.uint8:
        raise ImageError(f"pixels of type {pixels.dtype}; only 8 and 16 bit are read")
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)


def _orient(pixels: np.ndarray, header: Header) -> np.ndarray:
    """Turn and mirror as the EXIF orientation says."""
    # OpenCV's TIFF reader turns by itself, whatever its flags say.
    if header.orientation == 1 or header.format == "tiff":
        return pixels
    if header.orientation >= 5:
        pixels = cv2.transpose(pixels)
    # After the transposition: 6 is a quarter turn clockwise, 8 one back.
    flip = {2: 1, 3: -1, 4: 0, 6: 1, 7: -1, 8: 0}.get(header.orientation)
    return pixels if flip is None else cv2.flip(pixels, flip)
