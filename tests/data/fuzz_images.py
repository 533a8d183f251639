"""Damaged image files through headers, decoder and media, in a process of its own.

    python -m tests.data.fuzz_images --seconds 600 --seed 0

A crash of a library ends the process that decodes, is counted as a failure, and the
next input goes to a new process.
"""

from __future__ import annotations

import functools
import io
import multiprocessing
import os
import struct
import tempfile
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from tests import fuzzing
from tests.peaks import peak_kb
from tests.shared import ROOT

LARGEST_SEED = 60_000  # bytes of a real file that is damaged
NAME = "fuzzed"
SUFFIXES = (".jpg", ".png", ".gif", ".tif", ".heic", ".dng", ".bmp", "")
NUMBERS = (0, 1, 2, 127, 128, 255, 256, 32767, 32768, 65535, 65536, 2**31 - 1, 2**31)
NUMBERS += (2**32 - 1, 3000, 5000, 20000)


@functools.cache
def seeds() -> tuple[bytes, ...]:
    """Real files, and small ones of every format that is read."""
    made = [*_by_pillow(), *_by_opencv()]
    hostile = ROOT / "data" / "hostile"
    found = sorted(path for path in hostile.rglob("*") if path.is_file())
    real = [path.read_bytes() for path in found if path.stat().st_size < LARGEST_SEED]
    return (*made, *real)


def _photo() -> np.ndarray:
    y, x = np.mgrid[0:48, 0:64]
    planes = [255 * x / 64, 255 * y / 48, 120 + 100 * np.sin(x / 9 + y / 17)]
    return np.stack(planes, -1).astype(np.uint8)


def _by_pillow():
    image = Image.fromarray(_photo())
    for form, modes in {
        "JPEG": ("RGB", "L", "CMYK"),
        "PNG": ("RGB", "L", "P", "1", "LA", "RGBA"),
        "GIF": ("P", "L"),
        "BMP": ("RGB", "P", "1"),
        "WEBP": ("RGB", "RGBA"),
        "TIFF": ("RGB", "P", "1", "CMYK", "RGBA"),
        "PPM": ("RGB", "L", "1"),
        "AVIF": ("RGB",),
        "ICO": ("RGB",),
    }.items():
        for mode in modes:
            choices: list[dict[str, Any]] = [{}]
            if form == "JPEG":
                choices += [{"progressive": True}, {"subsampling": 0}]
            elif form == "TIFF":
                names = ("tiff_lzw", "tiff_deflate", "packbits")
                choices += [{"compression": name} for name in names]
            elif form in ("GIF", "WEBP", "PNG"):
                choices += [{"save_all": True, "append_images": [image.convert(mode)]}]
            for options in choices:
                stream = io.BytesIO()
                try:
                    image.convert(mode).save(stream, form, **options)
                except (OSError, KeyError):  # a build of Pillow without it
                    continue
                yield stream.getvalue()


def _by_opencv():
    deep = _photo().astype(np.uint16) * 16
    for suffix in (".png", ".tiff", ".ppm", ".pgm", ".avif"):
        pixels = deep[..., 0] if suffix == ".pgm" else deep
        options = [cv2.IMWRITE_AVIF_DEPTH, 12] if suffix == ".avif" else []
        try:
            done, data = cv2.imencode(suffix, pixels, options)
        except cv2.error:
            continue
        if done:
            yield data.tobytes()


def make(rng: np.random.Generator, number: int) -> tuple[str, bytes]:
    """A damaged file, and the suffix that it gets."""
    files = seeds()
    data = bytearray(files[rng.integers(len(files))])
    for _ in range(rng.integers(1, 6)):
        data = _damaged(data, files, rng) or data
    if data[:4] == b"\x89PNG" and rng.random() < 0.7:
        data = _with_checksums(data)
    return SUFFIXES[rng.integers(len(SUFFIXES))], bytes(data)


def _damaged(
    data: bytearray, files: tuple[bytes, ...], rng: np.random.Generator
) -> bytearray:
    size = len(data)
    if not size:
        return data
    # Headers decide most, so half of the damage is near the start.
    reach = min(size, 200) if rng.random() < 0.5 else size
    place = int(rng.integers(reach))
    kind = rng.integers(9)
    if kind == 0:
        data[place] ^= 1 << int(rng.integers(8))
    elif kind == 1:
        data[place] = int(rng.integers(256))
    elif kind == 2:
        form = "<>"[rng.integers(2)] + "HI"[rng.integers(2)]
        limit = 2 ** (8 * struct.calcsize(form)) - 1
        value = min(NUMBERS[rng.integers(len(NUMBERS))], limit)
        data[place : place + struct.calcsize(form)] = struct.pack(form, value)
    elif kind == 3:
        del data[place:]
    elif kind == 4:
        del data[place : place + int(rng.integers(1, 40))]
    elif kind == 5:
        data[place:place] = rng.bytes(int(rng.integers(1, 40)))
    elif kind == 6:  # a part once more
        part = data[place : place + int(rng.integers(1, 400))]
        data[place:place] = part * int(rng.integers(1, 20))
    elif kind == 7:  # a part of another file
        other = files[rng.integers(len(files))]
        start = int(rng.integers(len(other) + 1))
        data[place:] = other[start:]
    else:
        other = int(rng.integers(size))
        data[place], data[other] = data[other], data[place]
    return data


def _with_checksums(data: bytearray) -> bytearray:
    """The PNG with right checksums, so that the damage comes further."""
    position = 8
    while position + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, position)
        end = position + 8 + length
        if end + 4 > len(data):
            break
        struct.pack_into(">I", data, end, zlib.crc32(data[position + 4 : end]))
        position = end + 4
    return data


def look(path: str) -> str:
    """What became of a file: an outcome; runs where a crash does no harm."""
    from yolojax.data import media
    from yolojax.data.decode import decode, image_size

    media.media_kind(Path(path))
    size = image_size(path)
    decoded = decode(path, may_shrink=True)
    decode(path, min_size=(8, 8))
    return "read" if decoded.size == size else "read, of another size"


def _work(pipe: Any, folder: str) -> None:
    """Answers (kind, text) for each file, with the peak memory in KiB."""
    import resource

    # Anything that wants more is a failure, not the end of the machine.
    resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 2)
    while True:
        suffix, data = pipe.recv()
        path = os.path.join(folder, NAME + suffix)
        Path(path).write_bytes(data)
        try:
            answer = ("outcome", look(path))
        except ValueError as error:
            answer = ("error", str(error))
        except BaseException as error:
            trace = error.__traceback__
            while trace is not None and trace.tb_next is not None:
                trace = trace.tb_next
            code = trace.tb_frame.f_code if trace else None
            place = f"{code.co_filename}:{trace.tb_lineno}" if code and trace else ""
            answer = ("failure", f"{type(error).__name__} at {place}: {error}")
        peak = peak_kb()
        pipe.send((*answer, peak))


class Decoder:
    """The process that decodes; made anew after a crash.

    Attributes:
        start_kb: memory before the first file.
        peak_kb: most memory.
        crashes: how often it ended by itself.
    """

    def __init__(self, folder: str):
        self.folder = folder
        self.start_kb = self.peak_kb = self.crashes = 0
        self._process = None

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(
            target=_work, args=(other, self.folder), daemon=True
        )
        self._process.start()
        other.close()
        self._ask(("", b""))  # imports everything

    def _ask(self, value: tuple[str, bytes]) -> tuple[str, str]:
        self._pipe.send(value)
        kind, text, peak = self._pipe.recv()
        self.start_kb = self.start_kb or peak
        self.peak_kb = max(self.peak_kb, peak)
        return kind, text

    def __call__(self, value: tuple[str, bytes]) -> str:
        if self._process is None:
            self._start()
        try:
            kind, text = self._ask(value)
        except fuzzing.Hang:
            self.close()
            raise
        except (EOFError, OSError):
            self.crashes += 1
            self.close()
            raise RuntimeError("a library crashed") from None
        if kind == "error":
            raise ValueError(text)
        if kind == "failure":
            # A type of its own for each place, so that none hides another.
            raise type(text.partition(": ")[0], (Exception,), {})(text)
        return text

    def close(self) -> None:
        """Ends the process."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process = None


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        decoder = Decoder(folder)
        try:
            code = fuzzing.main(make, decoder, names=NAME)
        finally:
            decoder.close()
        peak, more = decoder.peak_kb, decoder.peak_kb - decoder.start_kb
        print(
            f"decoder: {decoder.crashes} crashes; peak {peak / 1024:.0f} MB, "
            f"{more / 1024:.0f} MB more than at first"
        )
    raise SystemExit(code)
