"""The chunks of a PNG."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

from yolojax.data.formats import OPENCV_BYTES, Buffer, Header, ImageError
from yolojax.data.tags import MAX_PARTS, read_orientation

# An EXIF block is at most 64 KiB and is stored as hexadecimal digits; more is a bomb.
MAX_PROFILE_BYTES = 1 << 20


def _chunks(data: Buffer) -> Iterator[tuple[bytes, int, int]]:
    """(name, start, end) of each chunk up to IEND.

    Raises:
        ImageError: the file ends before.
    """
    position = 8
    for _ in range(MAX_PARTS):
        if position + 8 > len(data):
            raise ImageError("cut short: PNG without its end chunk")
        (length,) = struct.unpack_from(">I", data, position)
        name = bytes(data[position + 4 : position + 8])
        end = position + 12 + length
        if end > len(data):
            # Libpng would set aside what the chunk claims, up to 2 GiB.
            shown = name.decode() if name.isalpha() else repr(name)
            raise ImageError(f"cut short: chunk {shown} claims {length} bytes")
        yield name, position, end
        if name == b"IEND":
            return
        position = end
    raise ImageError(f"PNG of more than {MAX_PARTS:,} chunks")


def read_png(data: Buffer) -> Header:
    """The header of a PNG."""
    if data[12:16] != b"IHDR":
        raise ImageError("PNG without its header chunk")
    width, height, depth = struct.unpack_from(">IIB", data, 16)
    orientation, bits, profiles = 1, 0, 0
    for name, start, end in _chunks(data):
        if name == b"sBIT" and depth == 16:
            bits = max(data[start + 8 : end - 4], default=0)
        elif name == b"eXIf" or (name in (b"zTXt", b"tEXt") and not profiles):
            body = bytes(data[start + 8 : end - 4])
            found = _png_orientation(name, body)
            profiles += found is not None
            orientation = found if found and found > 1 else orientation
    return Header(
        "png",
        (height, width),
        orientation,
        bits=bits if 8 < bits < 16 else 0,
        pixel_bytes=OPENCV_BYTES * (2 if depth == 16 else 1),
    )


# What the pixels need; the others are texts, profiles and animation.
_PNG_NEEDED = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")


def without_extras(data: bytes) -> bytes:
    """The PNG with only the chunks that its pixels need.

    The decoder would unpack all of the texts and profiles, of which a small file may
    hold gigabytes. Of an animation the first image stays.
    """
    if all(name in _PNG_NEEDED for name, _, _ in _chunks(data)):
        return data
    parts = [
        data[start:end]
        for name, start, end in _chunks(data)
        # An unknown chunk that is critical is left for the decoder to refuse.
        if name in _PNG_NEEDED or name[:1].isupper()
    ]
    return b"".join([data[:8], *parts])


def _png_orientation(name: bytes, body: bytes) -> int | None:
    """Orientation in an eXIf chunk or in ImageMagick's hexadecimal text form.

    None where it is another text; 1 where the block is damaged.
    """
    if name == b"eXIf":
        return read_orientation(body.removeprefix(b"Exif\0\0"))
    keyword, _, text = body.partition(b"\0")
    if keyword not in (b"Raw profile type exif", b"Raw profile type APP1"):
        return None
    try:
        if name == b"zTXt":
            text = zlib.decompressobj().decompress(text[1:], MAX_PROFILE_BYTES)
        digits = b"".join(text.split()[2:])
        block = bytes.fromhex(digits.decode("ascii"))
    except (zlib.error, ValueError):
        return 1
    return read_orientation(block.removeprefix(b"Exif\0\0"))
