"""Encoded picture to RGB uint8, the same for every format.

One policy, whatever the decoder: EXIF orientation is applied; gray and palette become
RGB; 16 bit becomes 8, see `decode_image`; CMYK becomes RGB; alpha is dropped, as the
usual trainers do; of an animation the first frame counts. A JPEG that is cut short is
an error, since half a picture with all of its boxes spoils training silently.

What decoding takes is computed from the header, before anything is decoded.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import cv2
import numpy as np
import simplejpeg

from yolojax import files
from yolojax.data import heic, jpeg, png
from yolojax.data.formats import Header, ImageError, UnreadFormat
from yolojax.data.headers import read_header
from yolojax.records import DECODING, Decoding

__all__ = [
    "MAX_FILE_BYTES",
    "MAX_PIXELS",
    "Decoded",
    "ImageError",
    "Picture",
    "UnreadFormat",
    "decode",
    "decode_image",
    "image_size",
    "read_file",
]

Picture: TypeAlias = bytes | str | Path | np.ndarray
# Gives so many bytes to write into.
Memory: TypeAlias = Callable[[int], np.ndarray]

MAX_PIXELS = 2**28  # 16,384 x 16,384: 805 MB as RGB
MAX_FILE_BYTES = 2**30
# Images that take more than this are decoded one after the other.
_LARGE_BYTES = 100_000_000
_large = threading.Lock()
# Of a progressive JPEG each scan passes over all pixels: some 3 seconds.
MAX_SCANNED_PIXELS = 4_000_000_000
# What cameras and scanners put into 16 bits.
DEPTHS = (8, 10, 12, 14, 16)
_STRIP_BYTES = 2**20

# Our errors say what was wrong; OpenCV would print it once more.
_logging: Any = cv2 if hasattr(cv2, "setLogLevel") else cv2.utils.logging  # 4.x, 5.x
_logging.setLogLevel(0)
# FFmpeg's, too; read when the first video is opened.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

# Of libjpeg's complaints, those after which the pixels cannot be trusted.
FATAL_JPEG_WARNINGS = (
    "premature end",
    "bad huffman code",
    "bad arithmetic code",
    "found marker",
)


class Decoded(NamedTuple):
    """What a file shows.

    Attributes:
        pixels: RGB uint8 [h, w, 3], turned as it is to be shown.
        white: of 16 bits, the value that is white as far as this file tells, see
            `decode`; 0 for 8 bits, and where the header says it.
        size: (height, width) at full size, as shown.
    """

    pixels: np.ndarray
    white: int
    size: tuple[int, int]


def decode_image(picture: Picture, **options: Any) -> np.ndarray:
    """The pixels of `decode`, with the same arguments."""
    return decode(picture, **options).pixels


def decode(
    picture: Picture,
    *,
    min_size: tuple[int, int] | None = None,
    max_pixels: int = MAX_PIXELS,
    memory: Memory | None = None,
    decoding: Decoding = DECODING,
    may_shrink: bool = False,
    name: str = "",
) -> Decoded:
    """The picture as RGB uint8 [h, w, 3], turned as it is to be shown.

    16 bits become 8 such that `decoding.white` becomes 255. A file with less than 16
    bits would be nearly black otherwise. What its header says of white comes first
    (PNM, TIFF). Without either, white is the largest value that 8, 10, 12, 14 or 16
    bits can hold, the least of these that holds the file's largest value.

    Args:
        picture: encoded bytes, the path of a file, or pixels that are RGB uint8
            [h, w, 3] already, which come back as they are.
        min_size: (height, width) that is enough for the caller, as shown. A JPEG is
            decoded at 1/2, 1/4 or 1/8 where both sides stay at least this long;
            other formats come at full size. A JPEG that takes too much memory is
            decoded smaller.
        max_pixels: refuse pictures that claim more, before memory is set aside.
        memory: where the pixels may be put, for JPEGs only. Memory that was used before
            saves a third of the time, which the system takes to hand out new pages.
        decoding: what is the same for all images of a data set.
        may_shrink: whether a JPEG that takes too much memory may come at 1/2, 1/4 or
            1/8 of its size, also without `min_size`.
        name: the file that encoded bytes are from.

    Raises:
        UnreadFormat: a known format that is not read.
        ImageError: the file is missing, empty, damaged, too large, or of a format
            that OpenCV does not read.
    """
    if isinstance(picture, np.ndarray):
        return Decoded(_checked_pixels(picture), 0, picture.shape[:2])
    data, title, suffix = _read_bytes(picture, name)
    try:
        header = read_header(data, suffix)
        _check_pixels(header, max_pixels)
        least, shrinks = None, header.format == "jpeg"
        if shrinks and min_size is not None:
            height, width = min_size
            turned = header.orientation >= 5
            least = _scale_for(header.size, (width, height) if turned else min_size)
        most = decoding.max_bytes
        scale = _affordable(header, least or 1, most, shrinks and (may_shrink or least))
        with _one_at_a_time(header.decoding_bytes(scale)):
            if header.format == "jpeg":
                pixels, own = _decode_jpeg(data, header, scale, memory), 0
            elif header.format == "heic":
                pixels, own = heic.decode(data), 0
            else:
                pixels, own = _decode_other(data, header, decoding.white)
            pixels = _orient(pixels, header)
        full = header.shown_size if header.format == "jpeg" else pixels.shape[:2]
        return Decoded(pixels, own, full or pixels.shape[:2])
    except UnreadFormat as error:
        error.args = (f"{title}: {error}",)
        raise
    except ImageError as error:
        raise ImageError(f"{title}: {error}") from error


def image_size(picture: Picture, *, name: str = "") -> tuple[int, int]:
    """(height, width) of the picture as it is shown, read from its header.

    Args:
        picture: see `decode`.
        name: the file that encoded bytes are from.

    Raises:
        ImageError: as for `decode_image`; damaged pixels are not noticed.
    """
    if isinstance(picture, np.ndarray):
        return _checked_pixels(picture).shape[:2]
    if isinstance(picture, bytes):
        return _shown_size(picture, name or "picture", os.path.splitext(name)[1])
    suffix = os.path.splitext(picture)[1]
    try:
        with (
            files.open_file(picture) as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
        ):
            return _shown_size(data, str(picture), suffix)
    except files.FileError as error:
        raise ImageError(str(error)) from error
    except ImageError:
        raise
    except ValueError:  # an empty file cannot be mapped
        raise ImageError(f"{picture}: the file is empty") from None
    except OSError as error:
        raise ImageError(f"{picture}: {error.strerror or error}") from error


def _shown_size(data: bytes | mmap.mmap, name: str, suffix: str) -> tuple[int, int]:
    try:
        header = read_header(data, suffix)
    except UnreadFormat as error:
        error.args = (f"{name}: {error}",)
        raise
    except ImageError as error:
        raise ImageError(f"{name}: {error}") from error
    if header.format == "avif":
        return decode_image(bytes(data), name=name).shape[:2]
    assert header.shown_size is not None
    return header.shown_size


def _read_bytes(picture: bytes | str | Path, name: str) -> tuple[bytes, str, str]:
    """The bytes, what errors call them, and the file's suffix."""
    if isinstance(picture, bytes):
        return picture, name or "picture", os.path.splitext(name)[1]
    return read_file(picture), str(picture), os.path.splitext(picture)[1]


def read_file(path: str | Path) -> bytes:
    """The bytes of an image file.

    Raises:
        ImageError: the file is missing, not regular, or larger than any image.
    """
    try:
        return files.read_file(path, limit=MAX_FILE_BYTES)
    except files.FileError as error:
        raise ImageError(str(error)) from error


def _affordable(header: Header, scale: int, most: int, shrinks: object) -> int:
    """The scale, larger where decoding would take too much memory.

    Raises:
        ImageError: it takes too much at every scale.
    """
    while (need := header.decoding_bytes(scale)) > most:
        if not shrinks or scale == 8:
            height, width = header.size or (0, 0)
            raise ImageError(
                f"{width} x {height} pixels: decoding needs {need / 1e6:,.0f} MB, more "
                f"than {most / 1e6:,.0f} MB (config.data.decode_megabytes); make it "
                "smaller"
            )
        scale *= 2
    return scale


@contextlib.contextmanager
def _one_at_a_time(num_bytes: int) -> Iterator[None]:
    """Lets threads decode large images only one after the other."""
    if num_bytes <= _LARGE_BYTES:
        yield
        return
    with _large:
        yield


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
    data: bytes, header: Header, scale: int, memory: Memory | None
) -> np.ndarray:
    assert header.size is not None
    height, width = least = _scaled(header.size, scale)
    _check_scans(data, header)
    buffer = None if memory is None else memory(height * width * 3)
    try:
        return _call_simplejpeg(data, least, strict=True, buffer=buffer)
    except ValueError as error:
        reason = str(error)
    if any(word in reason.lower() for word in FATAL_JPEG_WARNINGS):
        raise ImageError(f"damaged JPEG: {reason}")
    # Harmless junk, such as bytes before a marker. Only the first complaint is
    # known, so the end of the file is looked for ourselves.
    if not jpeg.has_end(data):
        raise ImageError(f"damaged JPEG, cut short: {reason}")
    try:
        return _call_simplejpeg(jpeg.without_junk(data), least, strict=False)
    except ValueError as error:
        raise ImageError(f"damaged JPEG: {error}") from error


def _check_scans(data: bytes, header: Header) -> None:
    """Raise where a JPEG has so many scans that decoding would take minutes."""
    if not header.held_bytes or header.size is None:
        return
    scans = data.count(b"\xff\xda")
    height, width = header.size
    if scans * height * width > MAX_SCANNED_PIXELS:
        raise ImageError(
            f"JPEG of {scans:,} scans of {width} x {height} pixels, which would take "
            "minutes to decode; save it anew"
        )


def _scaled(size: tuple[int, int], scale: int) -> tuple[int, int]:
    return -(-size[0] // scale), -(-size[1] // scale)


def _scale_for(size: tuple[int, int] | None, wanted: tuple[int, int]) -> int:
    """The largest of 1, 2, 4, 8 that leaves `wanted` or more on both sides.

    The decoder also knows 7/8 to 3/8, without vector code and thus no faster.
    """
    assert size is not None
    for scale in (8, 4, 2):
        scaled = _scaled(size, scale)
        if scaled[0] >= wanted[0] and scaled[1] >= wanted[1]:
            return scale
    return 1


def _call_simplejpeg(
    data: bytes,
    least: tuple[int, int],
    *,
    strict: bool,
    buffer: np.ndarray | None = None,
) -> np.ndarray:
    try:
        _, _, colours, _ = simplejpeg.decode_jpeg_header(data, strict=strict)
    except KeyError as error:  # the library's own table lacks it
        raise ValueError(f"colour space {error} is not known") from error
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
    rgb = np.empty((*pixels.shape[:2], 3), np.uint8)
    for rows in _strips(pixels):
        # Stored inverted, as Adobe does and all readers assume: 255 is no ink.
        inverse = pixels[rows].astype(np.uint16)
        rgb[rows] = (inverse[..., :3] * inverse[..., 3:] + 127) // 255
    return rgb


def _strips(pixels: np.ndarray) -> Iterator[slice]:
    """Rows that are converted together, so that a copy is small."""
    height, width = pixels.shape[:2]
    rows = max(1, _STRIP_BYTES // max(width, 1))
    for start in range(0, height, rows):
        yield slice(start, start + rows)


def _decode_other(data: bytes, header: Header, white: int) -> tuple[np.ndarray, int]:
    """RGB uint8, and `Decoded.white`."""
    if header.format == "png":
        data = png.without_extras(data)
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise ImageError(f"OpenCV: {error.err or error.code}") from error
    if pixels is None:
        reason = "damaged, or of a variant that this build does not know"
        if header.format in ("gif", "avif"):
            reason += "; these formats need OpenCV 4.12 or later"
        name = f"{header.format.upper()} that OpenCV {cv2.__version__} cannot read"
        raise ImageError(f"{name}: {reason}")
    if pixels.dtype == np.uint16:
        return _to_8_bit(pixels, header, white)
    if pixels.dtype != np.uint8:
        raise ImageError(f"pixels of type {pixels.dtype}; only 8 and 16 bit are read")
    for rows in _strips(pixels):
        pixels[rows] = cv2.cvtColor(pixels[rows], cv2.COLOR_BGR2RGB)
    return pixels, 0


def _to_8_bit(pixels: np.ndarray, header: Header, white: int) -> tuple[np.ndarray, int]:
    """16-bit BGR as RGB uint8, and the white of `Decoded.white`."""
    said = header.max_value or 0
    # Most writers say 65,535, whatever the samples are.
    own = 0 if 0 < said < 65535 else _white_of(pixels, header.bits)
    limit = white or own if own else said
    steps = np.arange(65536, dtype=np.uint32)
    table = np.minimum((steps * 255 + limit // 2) // limit, 255).astype(np.uint8)
    rgb = np.empty(pixels.shape, np.uint8)
    for rows in _strips(pixels):
        np.take(table, pixels[rows, :, ::-1], out=rgb[rows])
    return rgb, own


def _white_of(pixels: np.ndarray, bits: int) -> int:
    """The largest value of the depth that the samples seem to have.

    Args:
        pixels: uint16.
        bits: what the header says; samples above it are scaled to 16 bits already.
    """
    largest = int(pixels.max(initial=0))
    if bits:
        return 2**bits - 1 if largest < 2**bits else 65535
    return next(2**depth - 1 for depth in DEPTHS if largest < 2**depth)


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
