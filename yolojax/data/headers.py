"""What the first bytes of a picture file say: format, size, EXIF orientation.

Nothing here decodes pixels, so a size costs a few small reads and a file that claims
billions of pixels costs nothing. Of the extension only a camera's raw files take heed.
"""

from __future__ import annotations

import re
import struct

from yolojax.data import heic
from yolojax.data.formats import (
    HEAD_BYTES,
    OPENCV_BYTES,
    Buffer,
    Header,
    ImageError,
    UnreadFormat,
    is_raw_suffix,
    unread_format,
)
from yolojax.data.jpeg import read_jpeg
from yolojax.data.png import read_png
from yolojax.data.tags import (
    MAX_PARTS,
    ORIENTATION_TAG,
    legal_orientation,
    read_orientation,
    read_tags,
)


def read_header(data: Buffer, suffix: str = "") -> Header:
    """The header of an encoded picture.

    Args:
        data: the encoded bytes.
        suffix: of the file, if it has one. It decides only what many formats share:
            a camera's raw file looks like a TIFF that holds a small preview.

    Raises:
        UnreadFormat: a known format that is not read.
        ImageError: empty, of no known format, cut inside the header, or without
            area; the message has no file name, the caller adds it.
    """
    if len(data) == 0:
        raise ImageError("the file is empty")
    start = bytes(data[:HEAD_BYTES])
    try:
        header = _read_known(data, start, suffix)
    except (struct.error, IndexError, OverflowError) as error:
        raise ImageError("the header is cut short") from error
    if header.size is not None and min(header.size) < 1:
        height, width = header.size
        raise ImageError(f"the header gives a size of {width} x {height} pixels")
    return header


def _read_known(data: Buffer, start: bytes, suffix: str) -> Header:
    if start.startswith(b"\xff\xd8"):
        return read_jpeg(data)
    if start.startswith(b"\x89PNG\r\n\x1a\n"):
        return read_png(data)
    if start.startswith((b"GIF87a", b"GIF89a")):
        width, height = struct.unpack_from("<HH", data, 6)
        # The canvas is kept as RGBA.
        return Header("gif", (height, width), pixel_bytes=9.0)
    if start.startswith(b"RIFF") and start[8:12] == b"WEBP":
        return _read_webp(data)
    if start.startswith((b"II*\0", b"MM\0*")) and start[8:10] != b"CR":
        if is_raw_suffix(suffix):
            raise UnreadFormat(unread_format(b"", suffix))
        return _read_tiff(data)
    if re.match(rb"P[1-6][\s#]", start):
        return _read_pnm(data)
    if start.startswith(b"BM"):
        return _read_bmp(data)
    if brand := _heif_brand(data, start):
        if brand == "avif":
            return _read_avif(data)
        if heic.is_available():
            return Header("heic", heic.read_size(bytes(data)), pixel_bytes=9.1)
        raise UnreadFormat("HEIC")
    if name := unread_format(start, suffix):
        raise UnreadFormat(name)
    shown = start[:16].decode("ascii", "replace").replace("\ufffd", "?")
    raise ImageError(f"not a picture of a known format; it starts with {shown!r}")


def _heif_brand(data: Buffer, start: bytes) -> str:
    """ "avif" or "heic", the two formats that share a container; "" for others."""
    if start[4:8] != b"ftyp":
        return ""
    length = min(int.from_bytes(start[:4], "big"), HEAD_BYTES)
    brands = {start[8:12], *(start[n : n + 4] for n in range(16, length, 4))}
    if brands & {b"avif", b"avis"}:
        return "avif"
    if brands & {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm"}:
        return "heic"
    if not brands & {b"mif1", b"msf1"}:
        return ""
    # Only the general brands: the type of the items decides.
    return "heic" if bytes(data[: 1 << 16]).find(b"hvc1") >= 0 else "avif"


def gif_moves(data: bytes) -> bool:
    """Whether a GIF has more than one image."""

    def after_table(position: int, flags: int) -> int:
        return position + (3 << (flags & 7) + 1 if flags & 0x80 else 0)

    def after_blocks(position: int) -> int:
        while data[position]:
            position += data[position] + 1
        return position + 1

    images = 0
    try:
        position = after_table(13, data[10])
        while images < 2 and data[position] != 0x3B:  # trailer
            if data[position] == 0x2C:  # image
                images += 1
                position = after_table(position + 10, data[position + 9]) + 1
            elif data[position] == 0x21:  # extension
                position += 2
            else:
                break
            position = after_blocks(position)
    except IndexError:
        pass
    return images > 1


def _read_webp(data: Buffer) -> Header:
    orientation, size, position = 1, None, 12
    animated = False
    for _ in range(MAX_PARTS):
        if position + 8 > len(data):
            break
        name = bytes(data[position : position + 4])
        (length,) = struct.unpack_from("<I", data, position + 4)
        body = position + 8
        if name == b"VP8X":
            width = int.from_bytes(data[body + 4 : body + 7], "little") + 1
            height = int.from_bytes(data[body + 7 : body + 10], "little") + 1
            size = (height, width)
            animated = bool(data[body] & 2)
        elif name == b"VP8 " and size is None:
            width, height = struct.unpack_from("<HH", data, body + 6)
            size = (height & 0x3FFF, width & 0x3FFF)
        elif name == b"VP8L" and size is None:
            (bits,) = struct.unpack_from("<I", data, body + 1)
            size = ((bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1)
        elif name == b"EXIF":
            block = bytes(data[body : body + length])
            orientation = read_orientation(block.removeprefix(b"Exif\0\0"))
        position = body + length + length % 2
    if size is None:
        raise ImageError("WebP without a picture")
    # An animation has two canvases with alpha; else the decoder has one at most.
    return Header("webp", size, orientation, pixel_bytes=12.0 if animated else 7.0)


def _read_bmp(data: Buffer) -> Header:
    offset, header_size = struct.unpack_from("<II", data, 10)
    if header_size == 12:
        width, height = struct.unpack_from("<HH", data, 18)
        return Header("bmp", (height, width), pixel_bytes=OPENCV_BYTES)
    width, height, _, bits, coding = struct.unpack_from("<iiHHI", data, 18)
    (colours,) = struct.unpack_from("<I", data, 46)
    height = abs(height)  # negative: the top row comes first
    # OpenCV takes a palette for pixels, and fills what is missing with anything.
    if bits <= 8 and offset < 14 + header_size + 4 * colours:
        raise ImageError("BMP whose pixels start inside its palette")
    if coding == 0 and offset + height * ((width * bits + 31) // 32 * 4) > len(data):
        raise ImageError("cut short: BMP with fewer pixels than its header says")
    return Header("bmp", (height, width), pixel_bytes=OPENCV_BYTES)


def _read_tiff(data: Buffer) -> Header:
    tags = read_tags(data)
    # The first directory of these holds a preview: NewSubfileType with SubIFDs, or
    # the version of DNG.
    if 50706 in tags or (tags.get(254, 0) & 1 and 330 in tags):
        raise UnreadFormat("camera raw")
    if 256 not in tags or 257 not in tags:
        raise ImageError("TIFF without a size")
    # 5 is CMYK, which OpenCV converts; 8 to 10 are Lab, which it takes for RGB.
    if tags.get(262) in (8, 9, 10):
        raise ImageError("TIFF in Lab colours; save it as RGB")
    bits = tags.get(258, 1)
    if bits > 16:
        kind = {2: "int", 3: "float"}.get(tags.get(339, 1), "uint")
        raise ImageError(
            f"pixels of type {kind}{bits}; only 8 and 16 bit are read, so save it as "
            "16 bit"
        )
    height, width = tags[257], tags[256]
    # A strip or tile is decoded as a whole.
    rows = min(tags.get(323, tags.get(278, height)), max(height, tags.get(323, 0)))
    part = rows * tags.get(322, width)
    sample = 2 if bits > 8 else 1
    part_bytes = part * max(4, tags.get(277, 1) * sample)
    largest = tags.get(281, 0)  # MaxSampleValue
    if 8 < bits < 16:  # packed; OpenCV shifts them up
        bits, largest = 16, (1 << 16) - (1 << 16 - bits)
    return Header(
        "tiff",
        (height, width),
        legal_orientation(tags.get(ORIENTATION_TAG)),
        largest if bits == 16 and 255 < largest < 65535 else None,
        pixel_bytes=OPENCV_BYTES * sample,
        extra_bytes=part_bytes,
    )


def _read_pnm(data: Buffer) -> Header:
    text = re.sub(rb"#[^\n]*", b" ", bytes(data[2:4096]))
    count = 2 if data[1:2] in b"14" else 3
    match = re.match(rb"\s+" + rb"\s+".join([rb"(\d{1,9})"] * count) + rb"\s", text)
    if match is None:
        raise ImageError("PNM with a bad header")
    values = [int(value) for value in match.groups()]
    largest = values[2] if values[2:] else 1
    return Header(
        "pnm",
        (values[1], values[0]),
        max_value=largest,
        pixel_bytes=OPENCV_BYTES * (2 if largest > 255 else 1),
    )


def _read_avif(data: Buffer) -> Header:
    """AVIF's size stands in boxes that only a decoder sorts out.

    The largest size that any of them claims serves to refuse bombs.
    """
    largest, position = None, data.find(b"ispe")
    for _ in range(MAX_PARTS):
        if position < 0 or position + 16 > len(data):
            break
        width, height = struct.unpack_from(">II", data, position + 8)
        largest = max(largest or (0, 0), (height, width), key=lambda s: s[0] * s[1])
        position = data.find(b"ispe", position + 4)
    if largest is None:
        raise ImageError("AVIF without a size")
    deep = data.find(b"av1C")
    flags = data[deep + 6] if 0 <= deep < len(data) - 6 else 0
    if not flags & 0x40:
        return Header("avif", largest, pixel_bytes=18.0)
    # 10 or 12 bits, which OpenCV leaves as they are.
    white = 4095 if flags & 0x20 else 1023
    return Header("avif", largest, max_value=white, pixel_bytes=24.0)
