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

from yolojax.data import heic
from yolojax.data.formats import (
    HEAD_BYTES,
    ImageError,
    UnreadFormat,
    is_raw_suffix,
    unread_format,
)

Buffer: TypeAlias = bytes | mmap.mmap

ORIENTATION_TAG = 0x0112
# An EXIF block is at most 64 KiB and is stored as hexadecimal digits; more is a bomb.
MAX_PROFILE_BYTES = 1 << 20
# Of segments or chunks; a photo of 100 MB has some 10,000.
MAX_PARTS = 200_000

_PADDING = re.compile(rb"\xff+")


class Header(NamedTuple):
    """What a file's header says.

    Attributes:
        format: "jpeg", "png", "gif", "bmp", "webp", "tiff", "pnm", "avif" or "heic".
        size: (height, width) as stored, before the orientation is applied; None
            where only a decoder can tell.
        orientation: EXIF orientation, 1 to 8; values out of that range mean nothing
            and read as 1.
        max_value: the pixel value that is white, where the header says so (PNM, TIFF).
        bits: significant bits of a sample, where the header says so (PNG). Writers
            either leave the samples as they are or scale them to 16 bits.
        pixel_bytes: memory for a pixel while it is decoded: the result and all of the
            decoder's copies of it.
        held_bytes: memory for a pixel that decoding at a smaller scale does not save.
        extra_bytes: further memory.
    """

    format: str
    size: tuple[int, int] | None
    orientation: int = 1
    max_value: int | None = None
    bits: int = 0
    pixel_bytes: float = 3.0
    held_bytes: float = 0.0
    extra_bytes: int = 0

    def decoding_bytes(self, scale: int = 1) -> int:
        """Memory that decoding takes at 1/scale of the size."""
        if self.size is None:
            return self.extra_bytes
        height, width = self.size
        # To turn or mirror the image takes a copy.
        turned = 3 if self.orientation != 1 else 0
        scaled = -(-height // scale) * -(-width // scale) * (self.pixel_bytes + turned)
        return int(scaled + height * width * self.held_bytes) + self.extra_bytes

    @property
    def shown_size(self) -> tuple[int, int] | None:
        """(height, width) after the orientation is applied."""
        if self.size is None or self.orientation < 5:
            return self.size
        return self.size[1], self.size[0]


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
        return _read_jpeg(data)
    if start.startswith(b"\x89PNG\r\n\x1a\n"):
        return _read_png(data)
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
            return Header("heic", heic.read_size(bytes(data)), pixel_bytes=18.0)
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


def _jpeg_segments(data: Buffer) -> Iterator[tuple[int, int, int]]:
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


def _read_jpeg(data: Buffer) -> Header:
    size, orientation, shares, progressive = None, None, [1.0], False
    for marker, start, end in _jpeg_segments(data):
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
        pixel_bytes=7.0 if len(shares) == 4 else 3.0,
        # All coefficients, two bytes each, until the last scan.
        held_bytes=2 * sum(shares) if progressive else 0.0,
    )


def _component_shares(components: bytes) -> list[float]:
    """Samples of each colour for one pixel: 1, or less where it is subsampled."""
    factors = [(byte >> 4) * (byte & 15) or 1 for byte in components[1::3]]
    most = max(factors, default=1)
    return [factor / most for factor in factors] or [1.0]


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


def _png_chunks(data: Buffer) -> Iterator[tuple[bytes, int, int]]:
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


def _read_png(data: Buffer) -> Header:
    if data[12:16] != b"IHDR":
        raise ImageError("PNG without its header chunk")
    width, height, depth = struct.unpack_from(">IIB", data, 16)
    orientation, bits, profiles = 1, 0, 0
    for name, start, end in _png_chunks(data):
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
        pixel_bytes=9.0 if depth == 16 else 3.0,
    )


# What the pixels need; the others are texts, profiles and animation.
_PNG_NEEDED = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")


def without_png_extras(data: bytes) -> bytes:
    """The PNG with only the chunks that its pixels need.

    The decoder would unpack all of the texts and profiles, of which a small file may
    hold gigabytes. Of an animation the first image stays.
    """
    if all(name in _PNG_NEEDED for name, _, _ in _png_chunks(data)):
        return data
    parts = [
        data[start:end]
        for name, start, end in _png_chunks(data)
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
    return Header(
        "tiff",
        (height, width),
        _legal(tags.get(ORIENTATION_TAG)),
        largest if bits == 16 and 255 < largest < 65535 else None,
        pixel_bytes=9.0 if sample == 2 else 3.0,
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
        pixel_bytes=9.0 if largest > 255 else 3.0,
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
    return Header("avif", largest, pixel_bytes=18.0)


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
        tag, kind, many = struct.unpack_from(order + "HHI", data, entry)
        if kind in (3, 4):
            form, place = order + ("H" if kind == 3 else "I"), entry + 8
            if many * (2 if kind == 3 else 4) > 4:
                (place,) = struct.unpack_from(order + "I", data, place)
            if place + 4 <= len(data):
                tags.setdefault(tag, struct.unpack_from(form, data, place)[0])
    return tags


def _legal(orientation: int | None) -> int:
    return orientation if orientation is not None and 1 <= orientation <= 8 else 1
