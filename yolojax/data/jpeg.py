"""The segments of a JPEG, up to its pixels."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

from yolojax.data.formats import Buffer, Header, ImageError
from yolojax.data.tags import MAX_PARTS, read_orientation

_PADDING = re.compile(rb"\xff+")


def _segments(data: Buffer) -> Iterator[tuple[int, int, int]]:
    """(marker, start, end) of each segment before the pixels, the scan's included.

    Junk between segments is passed over, as decoders do.
    """
    position = 2
    for _ in range(MAX_PARTS):
        position = data.find(b"\xff", position)
        if position < 0:
            return
        marker = data[position + 1]
        if marker == 0xFF:  # padding
            position = _end_of_padding(data, position) - 1
        elif marker in (0x00, 0x01) or 0xD0 <= marker <= 0xD8:  # no length
            position += 2
        elif marker == 0xD9:  # end of image
            return
        else:
            (length,) = struct.unpack_from(">H", data, position + 2)
            yield marker, position, position + 2 + length
            if marker == 0xDA:  # start of scan
                return
            position += 2 + length
    raise ImageError(f"JPEG of more than {MAX_PARTS:,} segments")


def _end_of_padding(data: Buffer, position: int) -> int:
    match = _PADDING.match(data, position)
    return match.end() if match else position + 1


def read_jpeg(data: Buffer) -> Header:
    """The header of a JPEG."""
    size, orientation, shares, progressive = None, None, [1.0], False
    for marker, start, end in _segments(data):
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width, count = struct.unpack_from(">HHB", data, start + 5)
            size = (height, width)
            shares = _component_shares(bytes(data[start + 10 : start + 10 + 3 * count]))
            progressive = marker & 3 == 2
        elif marker == 0xE1 and orientation is None:
            if data[start + 4 : start + 9] == b"Exif\0":
                orientation = read_orientation(bytes(data[start + 10 : end]))
        elif marker == 0xDA:
            # Components that come one after the other wait for each other, too.
            progressive |= data[start + 4 : start + 5] < bytes([len(shares)])
    if size is None:
        raise ImageError("cut short: no frame header before the pixels")
    return Header(
        "jpeg",
        size,
        orientation or 1,
        # CMYK goes through four channels.
        pixel_bytes=8.0 if len(shares) == 4 else 3.0,
        # All coefficients, two bytes each, until the last scan.
        held_bytes=2 * sum(shares) if progressive else 0.0,
    )


def _component_shares(components: bytes) -> list[float]:
    """Samples of each colour for one pixel: 1, or less where it is subsampled."""
    factors = [(byte >> 4) * (byte & 15) or 1 for byte in components[1::3]]
    most = max(factors, default=1)
    return [factor / most for factor in factors] or [1.0]


def without_junk(data: bytes) -> bytes:
    """The JPEG with only the segments that its pixels need.

    Stray bytes between segments and broken EXIF or colour profiles go, so that what a
    decoder still complains of lies in the pixels.
    """
    parts, end = [b"\xff\xd8"], 2
    for marker, start, end in _segments(data):
        # Of the APPn and comments only APP0 and APP14 say how colours are stored.
        if not (0xE1 <= marker <= 0xED or marker in (0xEF, 0xFE)):
            parts.append(data[start:end])
    return b"".join([*parts, data[end:]])


def has_end(data: bytes) -> bool:
    """Whether an end marker follows the start of the pixels.

    A thumbnail inside the EXIF block has an end marker of its own, which lies before
    the pixels and does not count.
    """
    start = data.rfind(b"\xff\xda")
    return start >= 0 and data.find(b"\xff\xd9", start) >= 0
