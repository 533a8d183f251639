"""Tags of TIFF, and of EXIF, which has the same form."""

from __future__ import annotations

import struct

from yolojax.data.formats import Buffer, ImageError

ORIENTATION_TAG = 0x0112
# Of segments or chunks of a file; a photo of 100 MB has some 10,000.
MAX_PARTS = 200_000


def read_orientation(block: bytes) -> int:
    """EXIF orientation in a TIFF-like block, 1 where absent or meaningless."""
    try:
        return legal_orientation(read_tags(block).get(ORIENTATION_TAG))
    except (struct.error, IndexError, ImageError):
        return 1


def read_tags(data: Buffer) -> dict[int, int]:
    """First value of each whole-number tag of the first directory."""
    order = {b"II": "<", b"MM": ">"}.get(bytes(data[:2]))
    if order is None:
        raise ImageError("neither little nor big endian")
    (offset,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, offset)
    tags = {}
    for entry in range(offset + 2, offset + 2 + 12 * count, 12):
        if entry + 12 > len(data):
            break
        tag, kind, many = struct.unpack_from(order + "HHI", data, entry)
        if kind in (3, 4):
            form, place = order + ("H" if kind == 3 else "I"), entry + 8
            if many * (2 if kind == 3 else 4) > 4:
                (place,) = struct.unpack_from(order + "I", data, place)
            if place + 4 <= len(data):
                tags.setdefault(tag, struct.unpack_from(form, data, place)[0])
    return tags


def legal_orientation(orientation: int | None) -> int:
    return orientation if orientation is not None and 1 <= orientation <= 8 else 1
