"""Which files are images or videos, by suffix and first bytes; what a header says.

Images of a format that is not read count as images, so that each is reported and none
is passed over.
"""

from __future__ import annotations

import codecs
import mmap
import os
import re
from pathlib import Path
from typing import NamedTuple, TypeAlias

from yolojax.files import FileError, open_file

# What `decode_image` reads.
READ_SUFFIXES = frozenset(
    ".avif .bmp .dib .gif .jfif .jpe .jpeg .jpg .mpo .pbm .pgm .png .pnm .ppm .tif "
    ".tiff .webp".split()
)
# HEIC is read where pillow-heif is installed.
HEIC_SUFFIXES = frozenset(".heic .heif .heics .heifs .hif".split())
_RAW = (
    ".3fr .arw .cr2 .cr3 .crw .dcr .dng .erf .fff .iiq .kdc .mef .mrw "
    ".nef .nrw .orf .pef .raf .raw .rw2 .rwl .sr2 .srf .srw .x3f"
)
# Suffix -> what the format is called.
_UNREAD = {
    **{suffix: "HEIC" for suffix in HEIC_SUFFIXES},
    **dict.fromkeys(".jp2 .j2k .j2c .jpc .jpf .jpx .jpm .jph".split(), "JPEG 2000"),
    ".jxl": "JPEG XL",
    **dict.fromkeys(".jxr .hdp .wdp".split(), "JPEG XR"),
    ".jls": "JPEG-LS",
    **{suffix: f"camera raw ({suffix[1:].upper()})" for suffix in _RAW.split()},
    **dict.fromkeys(".psd .psb".split(), "Photoshop"),
    ".xcf": "GIMP",
    ".tga": "TGA",
    ".exr": "OpenEXR",
    ".hdr": "Radiance HDR",
    ".pfm": "PFM",
    ".pam": "PAM",
    ".pcx": "PCX",
    ".dds": "DDS",
    ".qoi": "QOI",
    ".bpg": "BPG",
    ".flif": "FLIF",
    ".sgi": "SGI",
    ".xbm": "XBM",
    ".xpm": "XPM",
    ".dcm": "DICOM",
    ".fits": "FITS",
}
# Mostly documents or decoration, so that one in a data set is only noted.
_DOCUMENTS = {
    ".pdf": "PDF",
    ".svg": "SVG",
    ".svgz": "SVG",
    ".eps": "EPS",
    ".ico": "ICO",
    ".cur": "ICO",
    ".icns": "ICNS",
}
# What is listed as an image of a data set, whether it can be read or not.
IMAGE_SUFFIXES = READ_SUFFIXES | frozenset(_UNREAD)
DOCUMENT_SUFFIXES = frozenset(_DOCUMENTS)
# What FFmpeg, and so OpenCV, opens.
VIDEO_SUFFIXES = frozenset(
    ".264 .265 .3g2 .3gp .3gp2 .3gpp .amv .asf .avi .divx .dv .f4v .flv .h264 .h265 "
    ".hevc .ivf .lrv .m1v .m2p .m2t .m2ts .m2v .m4v .mjpeg .mjpg .mkv .mod .mov .mp4 "
    ".mp4v .mpe .mpeg .mpg .mpv .mts .mxf .nut .ogm .ogv .qt .rm .rmvb .tod .tp .trp "
    ".ts .vob .webm .wmv .wtv .xvid .y4m".split()
)
# Suffixes that source text has, too: TypeScript, Go's modules.
_TEXT_SUFFIXES = frozenset(".ts .mts .mod".split())

_MAGIC: tuple[tuple[bytes, str], ...] = (
    (rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51", "JPEG 2000"),
    (rb"\0\0\0\x0cJXL \r\n\x87\n|\xff\x0a", "JPEG XL"),
    (rb"....ftyp(heic|heix|heim|heis|hevc|hevx|hevm|hevs)", "HEIC"),
    (rb"....ftypcrx ", "camera raw (CR3)"),
    (rb"(II\*\0|MM\0\*)....CR\x02", "camera raw (CR2)"),
    (rb"II(RO|RS|U\0)|MMOR|FUJIFILMCCD-RAW|FOVb|\0MRM", "camera raw"),
    (rb"II\xbc[\0\x01]", "JPEG XR"),
    (rb"8BPS", "Photoshop"),
    (rb"gimp xcf", "GIMP"),
    (rb"\x76\x2f\x31\x01", "OpenEXR"),
    (rb"#\?(RADIANCE|RGBE)", "Radiance HDR"),
    (rb"P[fF]\n", "PFM"),
    (rb"P7\n", "PAM"),
    (rb"DDS ", "DDS"),
    (rb"qoif", "QOI"),
    (rb"BPG\xfb", "BPG"),
    (rb"FLIF", "FLIF"),
    (rb"(II\+\0|MM\0\+)", "BigTIFF"),
    (rb"%PDF-", "PDF"),
    (rb"%!PS", "EPS"),
    (rb"\0\0[\x01\x02]\0[^\0]\0", "ICO"),
    (rb"icns", "ICNS"),
    (
        rb"\s*(<\?xml[^>]*>\s*(<!--.*?-->\s*)*(<!DOCTYPE svg[^>]*>\s*)?)?<svg[\s>]",
        "SVG",
    ),
)
_VIDEO = re.compile(
    rb"....ftyp(isom|iso[2-9]|mp4[12]|avc1|M4V|qt  |3g|dash|MSNV|f4v)"
    rb"|....moov|RIFF....AVI |\x1a\x45\xdf\xa3|FLV\x01|\0\0\x01[\xba\xb3]"
    rb"|\x30\x26\xb2\x75\x8e\x66\xcf\x11|\x47.{187}\x47|.{4}\x47.{191}\x47",
    re.DOTALL,
)
HEAD_BYTES = 512
Buffer: TypeAlias = bytes | mmap.mmap


class ImageError(ValueError):
    """An image that cannot be read; the message names the file and the reason."""


class UnreadFormat(ImageError):
    """An image of a format that is not read.

    Attributes:
        format: what it is called.
    """

    def __init__(self, name: str):
        more = " or install pillow-heif (pip install 'yolojax[heif]')"
        what = f"not read: {name}; convert it to JPEG{more * (name == 'HEIC')}"
        super().__init__(what)
        self.format = name

    @property
    def is_document(self) -> bool:
        """Whether it is rather a document or an icon than a photo."""
        return self.format in _DOCUMENTS.values()


# OpenCV decodes into three channels, and copies them at the end.
OPENCV_BYTES = 6.1


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


def unread_format(head: bytes, suffix: str = "") -> str:
    """What a format that is not read is called; "" where nothing is known of it.

    Args:
        head: the first bytes of a file.
        suffix: the file's, which decides where the bytes say nothing.
    """
    for pattern, name in _MAGIC:
        if re.match(pattern, head, re.DOTALL):
            return name
    suffix = suffix.lower()
    return _UNREAD.get(suffix) or _DOCUMENTS.get(suffix, "")


def is_raw_suffix(suffix: str) -> bool:
    """Whether it is that of a camera's raw format; many of these look like TIFF."""
    return _UNREAD.get(suffix.lower(), "").startswith("camera raw")


def is_image_name(name: str | os.PathLike[str]) -> bool:
    """Whether the file is called like an image, of a format that is read or not."""
    suffix = os.path.splitext(name)[1].lower()
    return suffix in IMAGE_SUFFIXES or suffix in DOCUMENT_SUFFIXES


def is_read_name(name: str | os.PathLike[str]) -> bool:
    """Whether the file is called like an image of a format that is always read."""
    return os.path.splitext(name)[1].lower() in READ_SUFFIXES


def is_video(path: Path) -> bool:
    """Whether the file is a video: by its suffix, or without one by its first bytes.

    Of source text that has a suffix of videos (`.ts`) it is not.
    """
    suffix = path.suffix.lower()
    if suffix in _TEXT_SUFFIXES:
        return not _is_text(_head(path))
    return suffix in VIDEO_SUFFIXES or (not suffix and has_video_head(path))


def has_video_head(path: Path) -> bool:
    """Whether the file starts as videos do."""
    return _VIDEO.match(_head(path)) is not None


def is_text(path: Path) -> bool:
    """Whether the file starts as text does."""
    return _is_text(_head(path))


def _head(path: Path) -> bytes:
    try:
        with open_file(path) as file:
            return file.read(HEAD_BYTES)
    except (FileError, OSError):
        return b""


def _is_text(head: bytes) -> bool:
    if not head or b"\0" in head:
        return False
    try:
        # Incremental: the last letter may be cut.
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return True
