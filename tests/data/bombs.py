"""Small image files that would take much memory or time to decode."""

import io
import struct
import zlib

import cv2
import numpy as np
from PIL import Image


def chunk(name: bytes, body: bytes) -> bytes:
    """A chunk of a PNG."""
    check = zlib.crc32(name + body)
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", check)


def png(width, height, *, depth=8, colour=0, interlaced=0, extras=(), rows=None):
    """A PNG of zeros, whose data are compressed as they are made."""
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    row = bytes(1 + (width * channels * depth + 7) // 8)
    packer = zlib.compressobj(9)
    packed = []
    for _ in range(height if rows is None else rows):
        packed.append(packer.compress(row))
    data = b"".join([*packed, packer.flush()])
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    palette = [chunk(b"PLTE", bytes(768))] if colour == 3 else []
    parts = [chunk(b"IHDR", head), *palette, *extras, chunk(b"IDAT", data)]
    return b"\x89PNG\r\n\x1a\n" + b"".join([*parts, chunk(b"IEND", b"")])


def jpeg(width, height, mode="RGB", **options) -> bytes:
    """A flat JPEG."""
    stream = io.BytesIO()
    Image.new(mode, (width, height), 100).save(stream, "JPEG", **options)
    return stream.getvalue()


def many_scans(width, height, count) -> bytes:
    """A progressive JPEG whose last scan comes `count` times."""
    data = jpeg(width, height, progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:-2] + data[last:-2] * count + data[-2:]


def gif(width, height, frames=1) -> bytes:
    """A GIF of a large canvas and frames of one pixel."""
    head = b"GIF89a" + struct.pack("<HH", width, height)
    head += bytes([0x80, 0, 0, 255, 0, 0, 0, 0, 255])
    frame = b"\x2c" + bytes([0, 0, 0, 0, 1, 0, 1, 0, 0]) + b"\x02\x02\x44\x01\0"
    return head + frame * frames + b";"


def tiff(*entries, body=bytes(64)) -> bytes:
    """A gray TIFF from (tag, type, count, value)."""
    head = b"II*\0" + struct.pack("<IH", 8, len(entries))
    tags = b"".join(struct.pack("<HHII", *entry) for entry in sorted(entries))
    return head + tags + bytes(4) + body


def tiff_of(width, height, **changed) -> bytes:
    """A gray TIFF that claims a size; tags may be changed, as `t278=4`."""
    tags = {256: width, 257: height, 258: 8, 259: 1, 262: 1, 273: 200, 277: 1}
    tags |= {278: height, 279: 64}
    tags |= {int(name[1:]): value for name, value in changed.items()}
    entries = []
    for tag, value in tags.items():
        many, value = value if isinstance(value, tuple) else (1, value)
        entries.append((tag, 4, many, value))
    return tiff(*entries)


def webp(width, height) -> bytes:
    """A lossless WebP of one colour."""
    stream = io.BytesIO()
    Image.new("RGB", (width, height)).save(stream, "WEBP", lossless=True, method=0)
    return stream.getvalue()


def animated_webp(width, height) -> bytes:
    """A WebP animation of two images."""
    stream = io.BytesIO()
    images = [Image.new("RGB", (width, height), colour) for colour in ("red", "blue")]
    images[0].save(
        stream, "WEBP", save_all=True, append_images=images[1:], lossless=True, method=0
    )
    return stream.getvalue()


def avif(width, height) -> bytes:
    """A flat AVIF."""
    pixels = np.full((height, width, 3), 9, np.uint8)
    options = [cv2.IMWRITE_AVIF_QUALITY, 10, cv2.IMWRITE_AVIF_SPEED, 10]
    return cv2.imencode(".avif", pixels, options)[1].tobytes()


def texts(name: bytes, size: int, count: int):
    """Chunks that each unpack to `size` bytes."""
    packed = zlib.compress(bytes(size), 9)
    bodies = {
        b"zTXt": b"Comment\0\0" + packed,
        b"iTXt": b"Comment\0\1\0\0\0" + packed,
        b"iCCP": b"profile\0\0" + packed,
        b"tEXt": b"Comment\0" + bytes(50),
        b"eXIf": b"II*\0" + bytes(40),
    }
    raw = b"Raw profile type exif\0\0"
    body = raw + packed if name == b"raw " else bodies[name]
    return [chunk(b"zTXt" if name == b"raw " else name, body)] * count


def bombs():
    """(name, bytes) of each."""
    yield "gray_30000.png", png(30000, 30000)
    yield "rgb_claims.png", png(16000, 16000, colour=2, rows=1)
    yield "gray_9000.png", png(9000, 9000)
    yield "gray_7000.png", png(7000, 7000)
    yield "rgba16_5000.png", png(5000, 5000, depth=16, colour=6)
    yield "rgba16_4900.png", png(4900, 4900, depth=16, colour=6)
    yield "interlaced_7000.png", png(7000, 7000, colour=3, interlaced=1, rows=2000)
    for name in (b"zTXt", b"iTXt", b"iCCP"):
        extras = texts(name, 7_900_000, 400)
        yield f"{name.decode()}.png", png(8, 8, extras=extras)
    yield "raw_profiles.png", png(8, 8, extras=texts(b"raw ", 1_000_000, 5000))
    yield "tEXt.png", png(8, 8, extras=texts(b"tEXt", 0, 50_000))
    yield "eXIf.png", png(8, 8, extras=texts(b"eXIf", 0, 50_000))
    yield "empty_chunks.png", png(8, 8, extras=[chunk(b"aaAa", b"")] * 300_000)
    yield "baseline_16000.jpg", jpeg(16000, 16000)
    yield "cmyk_9000.jpg", jpeg(9000, 9000, "CMYK")
    yield "progressive_9000.jpg", jpeg(9000, 9000, progressive=True, subsampling=0)
    yield "progressive_15000.jpg", jpeg(15000, 15000, progressive=True)
    yield "cmyk_progressive.jpg", jpeg(6000, 6000, "CMYK", progressive=True)
    yield "scans.jpg", many_scans(6000, 6000, 3000)
    yield "scans_small.jpg", many_scans(64, 64, 50_000)
    yield "padding.jpg", b"\xff\xd8" + b"\xff" * 20_000_000
    yield "segments.jpg", b"\xff\xd8" + b"\xff\xe2\0\2" * 3_000_000
    yield "junk.jpg", b"\xff\xd8" + b"\xff\0" * 5_000_000
    yield "canvas.gif", gif(65535, 65535)
    yield "canvas_8000.gif", gif(8000, 8000)
    yield "canvas_5500.gif", gif(5500, 5500)
    yield "frames.gif", gif(3000, 3000, 100_000)
    yield (
        "claims.bmp",
        b"BM"
        + struct.pack(
            "<IIIIiiHHIIIIII", 0, 0, 1078, 40, 16000, 16000, 1, 8, 1, 0, 0, 0, 256, 0
        )
        + bytes(1024 + 64),
    )
    yield "claims.ppm", b"P6 16000 16000 255\n" + bytes(99)
    yield "claims16.pgm", b"P5 16000 16000 65535\n" + bytes(99)
    yield "claims.pbm", b"P1 16000 16000\n" + b"1 " * 99
    yield "size.tif", tiff_of(16000, 16000)
    yield "tiles.tif", tiff_of(64, 64, t322=65520, t323=65520, t324=200, t325=64)
    yield "samples.tif", tiff_of(6000, 6000, t277=60000)
    yield "rows.tif", tiff_of(64, 64, t278=0xFFFFFFFF)
    yield "counts.tif", tiff_of(64, 64, t273=(0x3FFFFFFF, 200), t279=(0x3FFFFFFF, 200))
    yield "counts_rows.tif", tiff_of(64, 2**31 - 1, t278=1)
    yield "bits.tif", tiff_of(6000, 6000, t258=64, t339=3)
    yield "deflate.tif", tiff_of(6000, 6000, t259=8)
    yield "lossless_16000.webp", webp(16000, 16000)
    yield "lossless_6000.webp", webp(6000, 6000)
    yield "animation_4900.webp", animated_webp(4900, 4900)
    yield "animation_9000.webp", animated_webp(9000, 9000)
    yield "flat_4000.avif", avif(4000, 4000)
    yield "flat_9000.avif", avif(9000, 9000)
