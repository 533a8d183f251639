"""What the first bytes of a picture file say: format, size, EXIF orientation.

Nothing here decodes pixels, so a size costs a few small reads and a file that claims
billions of pixels costs nothing. Extensions are never looked at.
"""

from __future__ import annotations

import mmap
import re
import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple, TypeAlias

Buffer: TypeAlias = bytes | mmap.mmap

ORIENTATION_TAG = 0x0112
# An EXIF block is at most 64 KiB and is stored as hexadecimal digits; more is a bomb.
MAX_PROFILE_BYTES = 1 << 20


class ImageError(ValueError):
    """A picture that cannot be read; the message names the file and the reason."""


class Header(NamedTuple):
    """What a file's header says.

    Attributes:
        format: "jpeg", "png", "gif", "bmp", "webp", "tiff", "pnm" or "avif".
        size: (height, width) as stored, before the orientation is applied; None
            where only a decoder can tell.
        orientation: EXIF orientation, 1 to 8; values out of that range mean nothing
            and read as 1.
        max_value: the pixel value that is white, where the header says so (PNM).
    """

    format: str
    size: tuple[int, int] | None
    orientation: int = 1
    max_value: int | None = None

    @property
    def shown_size(self) -> tuple[int, int] | None:
        """(height, width) after the orientation is applied."""
        if self.size is None or self.orientation < 5:
            return self.size
        return self.size[1], self.size[0]


def read_header(data: Buffer) -> Header:
    """The header of an encoded picture.

    Raises:
        ImageError: empty, of no known format, cut inside the header, or without
            area; the message has no file name, the caller adds it.
    """
    if len(data) == 0:
        raise ImageError("the file is empty")
    start = bytes(data[:16])
    try:
        header = _read_known(data, start)
    except (struct.error, IndexError, OverflowError) as error:
        raise ImageError("the header is cut short") from error
    if header.size is not None and min(header.size) < 1:
        height, width = header.size
        raise ImageError(f"the header gives a size of {width} x {height} pixels")
    return header


def _read_known(data: Buffer, start: bytes) -> Header:
    if start.startswith(b"\xff\xd8"):
        return _read_jpeg(data)
    if start.startswith(b"\x89PNG\r\n\x1a\n"):
        return _read_png(data)
    if start.startswith((b"GIF87a", b"GIF89a")):
        width, height = struct.unpack_from("<HH", data, 6)
        return Header("gif", (height, width))
    if start.startswith(b"RIFF") and start[8:12] == b"WEBP":
        return _read_webp(data)
    if start.startswith((b"II*\0", b"MM\0*")):
        return _read_tiff(data)
    if re.match(rb"P[1-6][\s#]", start):
        return _read_pnm(data)
    if start.startswith(b"BM"):
        return _read_bmp(data)
    if start[4:8] == b"ftyp" and start[8:12] in (b"avif", b"avis", b"mif1"):
        return _read_avif(data)
    shown = start.decode("ascii", "replace").replace("\ufffd", "?")
    raise ImageError(f"not a picture of a known format; it starts with {shown!r}")


def _jpeg_segments(data: Buffer) -> Iterator[tuple[int, int, int]]:
    """(marker, start, end) of each segment before the pixels, the scan's included.

    Junk between segments is passed over, as decoders do.
    """
    position = 2
    while (position := data.find(b"\xff", position)) >= 0:
        marker = data[position + 1]
        if marker == 0xFF:  # padding
            position += 1
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


def _read_jpeg(data: Buffer) -> Header:
    size, orientation = None, None
    for marker, start, end in _jpeg_segments(data):
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", data, start + 5)
            size = (height, width)
        elif marker == 0xE1 and orientation is None:
            if data[start + 4 : start + 9] == b"Exif\0":
                orientation = read_orientation(bytes(data[start + 10 : end]))
    if size is None:
        raise ImageError("cut short: no frame header before the pixels")
    return Header("jpeg", size, orientation or 1)


def without_jpeg_junk(data: bytes) -> bytes:
    """The JPEG with only the segments that its pixels need.

    Stray bytes between segments and broken EXIF or colour profiles go, so that what a
    decoder still complains of lies in the pixels.
    """
    parts, end = [b"\xff\xd8"], 2
    for marker, start, end in _jpeg_segments(data):
        # Of the APPn and comments only APP0 and APP14 say how colours are stored.
        if not (0xE1 <= marker <= 0xED or marker in (0xEF, 0xFE)):
            parts.append(data[start:end])
    return b"".join([*parts, data[end:]])


def jpeg_has_end(data: bytes) -> bool:
    """Whether an end marker follows the start of the pixels.

    A thumbnail inside the EXIF block has an end marker of its own, which lies before
    the pixels and does not count.
    """
    start = data.rfind(b"\xff\xda")
    return start >= 0 and data.find(b"\xff\xd9", start) >= 0


def _read_png(data: Buffer) -> Header:
    if data[12:16] != b"IHDR":
        raise ImageError("PNG without its header chunk")
    width, height = struct.unpack_from(">II", data, 16)
    orientation, position = 1, 8
    while position + 8 <= len(data):
        (length,) = struct.unpack_from(">I", data, position)
        name = bytes(data[position + 4 : position + 8])
        if position + 12 + length > len(data):
            # Libpng would set aside what the chunk claims, up to 2 GiB.
            shown = name.decode() if name.isalpha() else repr(name)
            raise ImageError(f"cut short: chunk {shown} claims {length} bytes")
        if name in (b"eXIf", b"zTXt", b"tEXt"):
            body = bytes(data[position + 8 : position + 8 + length])
            orientation = _png_orientation(name, body) or orientation
        elif name == b"IEND":
            return Header("png", (height, width), orientation)
        position += 12 + length
    raise ImageError("cut short: PNG without its end chunk")


def _png_orientation(name: bytes, body: bytes) -> int | None:
    """Orientation in an eXIf chunk or in ImageMagick's hexadecimal text form."""
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
        return None
    return read_orientation(block.removeprefix(b"Exif\0\0"))


def _read_webp(data: Buffer) -> Header:
    orientation, size, position = 1, None, 12
    while position + 8 <= len(data):
        name = bytes(data[position : position + 4])
        (length,) = struct.unpack_from("<I", data, position + 4)
        body = position + 8
        if name == b"VP8X":
            width = int.from_bytes(data[body + 4 : body + 7], "little") + 1
            height = int.from_bytes(data[body + 7 : body + 10], "little") + 1
            size = (height, width)
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
    return Header("webp", size, orientation)


def _read_bmp(data: Buffer) -> Header:
    offset, header_size = struct.unpack_from("<II", data, 10)
    if header_size == 12:
        width, height = struct.unpack_from("<HH", data, 18)
        return Header("bmp", (height, width))
    width, height, _, bits, coding = struct.unpack_from("<iiHHI", data, 18)
    (colours,) = struct.unpack_from("<I", data, 46)
    height = abs(height)  # negative: the top row comes first
    # OpenCV takes a palette for pixels, and fills what is missing with anything.
    if bits <= 8 and offset < 14 + header_size + 4 * colours:
        raise ImageError("BMP whose pixels start inside its palette")
    if coding == 0 and offset + height * ((width * bits + 31) // 32 * 4) > len(data):
        raise ImageError("cut short: BMP with fewer pixels than its header says")
    return Header("bmp", (height, width))


def _read_tiff(data: Buffer) -> Header:
    tags = _read_tags(data)
    if 256 not in tags or 257 not in tags:
        raise ImageError("TIFF without a size")
    # 5 is CMYK, which OpenCV converts; 8 to 10 are Lab, which it takes for RGB.
    if tags.get(262) in (8, 9, 10):
        raise ImageError("TIFF in Lab colours; save it as RGB")
    return Header("tiff", (tags[257], tags[256]), _legal(tags.get(ORIENTATION_TAG)))


def _read_pnm(data: Buffer) -> Header:
    text = re.sub(rb"#[^\n]*", b" ", bytes(data[2:4096]))
    count = 2 if data[1:2] in b"14" else 3
    match = re.match(rb"\s+" + rb"\s+".join([rb"(\d{1,9})"] * count) + rb"\s", text)
    if match is None:
        raise ImageError("PNM with a bad header")
    values = [int(value) for value in match.groups()]
    return Header(
        "pnm", (values[1], values[0]), max_value=values[2] if values[2:] else 1
    )


def _read_avif(data: Buffer) -> Header:
    """AVIF's size stands in boxes that only a decoder sorts out.

    The largest size that any of them claims serves to refuse bombs.
    """
    largest, position = None, data.find(b"ispe")
    while position >= 0 and position + 16 <= len(data):
        width, height = struct.unpack_from(">II", data, position + 8)
        largest = max(largest or (0, 0), (height, width), key=lambda s: s[0] * s[1])
        position = data.find(b"ispe", position + 4)
    if largest is None:
        raise ImageError("AVIF without a size")
    return Header("avif", largest)


def read_orientation(block: bytes) -> int:
    """EXIF orientation in a TIFF-like block, 1 where absent or meaningless."""
    try:
        return _legal(_read_tags(block).get(ORIENTATION_TAG))
    except (struct.error, IndexError, ImageError):
        return 1


def _read_tags(data: Buffer) -> dict[int, int]:
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
        tag, kind = struct.unpack_from(order + "HH", data, entry)
        if kind in (3, 4):
            form = order + ("H" if kind == 3 else "I")
            tags.setdefault(tag, struct.unpack_from(form, data, entry + 8)[0])
    return tags


def _legal(orientation: int | None) -> int:
    return orientation if orientation is not None and 1 <= orientation <= 8 else 1
