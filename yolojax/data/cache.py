"""Pictures at training size, read anew each time or kept as JPEG bytes.

A picture is the same in the first epoch and in every later one, whichever cache: with
`encoded` and `disk` each use goes through the bytes that are kept, or would be if there
were room. So a run that was interrupted, whose memory starts empty, sees the pixels
that an uninterrupted one sees, and a cache of a part shows the same as a full one.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import simplejpeg

from yolojax.data.decode import ImageError, decode_image
from yolojax.data.picture_file import KEY_BYTES, PictureFile
from yolojax.records import DECODING, Example

_QUALITY = 92
# A file's own bytes are kept as they are up to this share of its pixels' bytes.
_OWN_SHARE = 1 / 6
# Another decoder or encoder may give other pixels: then nothing kept is used.
_FORMAT = f"1 {_QUALITY} {simplejpeg.__version__} {cv2.__version__}"


class Cache(Protocol):
    """Gives pictures at the size that training wants."""

    @property
    def num_bytes(self) -> int:
        """Bytes held now."""
        ...

    def read(
        self,
        index: int,
        example: Example,
        size: tuple[int, int],
        out: np.ndarray | None = None,
    ) -> np.ndarray:
        """The picture as uint8 RGB [*size, 3].

        Args:
            index: the picture's index in its source.
            example: what the source yields for it.
            size: (height, width) wanted, always the same for the same index.
            out: where to put it; None: in new memory.

        Raises:
            ImageError: the picture cannot be read; the message names it.
        """
        ...


class _Scratch(threading.local):
    """Memory of a thread for pictures that are copied on at once."""

    # Larger pictures are rare, and their pages soon given back.
    most = 2**24
    memory = np.empty(0, np.uint8)

    def __call__(self, num_bytes: int) -> np.ndarray:
        if num_bytes > self.most:
            return np.empty(num_bytes, np.uint8)
        if len(self.memory) < num_bytes:
            self.memory = np.empty(num_bytes, np.uint8)
        return self.memory


_scratch = _Scratch()


def resize(
    picture: np.ndarray, size: tuple[int, int], out: np.ndarray | None = None
) -> np.ndarray:
    """The picture at (height, width) `size`, in `out` or in new memory.

    Averages over areas when shrinking, so that nothing aliases, and interpolates
    linearly when enlarging.
    """
    if out is None:
        out = np.empty((*size, 3), np.uint8)
    height, width = picture.shape[:2]
    if (height, width) == size:
        out[...] = picture
        return out
    smaller = size[0] <= height and size[1] <= width
    method = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
    cv2.resize(picture, (size[1], size[0]), dst=out, interpolation=method)
    return out


def read_picture(
    example: Example,
    size: tuple[int, int],
    *,
    scaled: bool = True,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """The example's picture, decoded and resized.

    Args:
        example: from a source.
        size: (height, width) wanted.
        scaled: whether the decoder may shrink the picture on the way, which is quicker
            and differs by a grey level or two.
        out: where to put it, uint8 [*size, 3]; None: in new memory.

    Returns:
        uint8 RGB [*size, 3].

    Raises:
        ImageError: the picture cannot be read, or is not of the size that the source
            says, in which case its boxes would be in the wrong place.
    """
    with named(example):
        least = size if scaled else None
        picture = decode_image(
            example.image,
            min_size=least,
            memory=_scratch,
            decoding=example.decoding,
            may_shrink=True,
            name=example.name,
        )
        _check_shape(picture, example.size)
    return resize(picture, size, out)


class NoCache:
    """Reads and decodes each time."""

    num_bytes = 0

    def read(
        self,
        index: int,
        example: Example,
        size: tuple[int, int],
        out: np.ndarray | None = None,
    ) -> np.ndarray:
        """The picture, decoded and shrunk; see `Cache.read`."""
        return read_picture(example, size, out=out)


class EncodedCache:
    """Keeps JPEG bytes at training size, from each picture's first use on.

    Threads may read at the same time.

    Args:
        file: where; None: in memory without a limit.
        keys: what pictures are kept under, by index, where that is known already.
    """

    def __init__(
        self, file: PictureFile | None = None, keys: dict[int, bytes] | None = None
    ) -> None:
        self.file = file or PictureFile(None, budget=2**62)
        self._keys = {} if keys is None else dict(keys)

    @property
    def num_bytes(self) -> int:
        """Bytes of JPEG held now."""
        return self.file.num_bytes

    def read(
        self,
        index: int,
        example: Example,
        size: tuple[int, int],
        out: np.ndarray | None = None,
    ) -> np.ndarray:
        """The picture, decoded from the bytes that are kept; see `Cache.read`.

        Raises:
            CacheError: the disk is full or failed.
        """
        key = self._keys.get(index)
        if key is None:
            with named(example):
                key = self._keys[index] = picture_key(example, size)
        encoded = self.file.get(key)
        if encoded is None:
            encoded = encode(example, size)
            self.file.put(key, encoded)
        with named(example):
            picture = decode_image(encoded, memory=_scratch)
            _check_shape(picture, size)
        return resize(picture, size, out)


def picture_key(example: Example, size: tuple[int, int]) -> bytes:
    """What the picture's bytes at `size` (height, width) are kept under.

    Of a file its path, length and time of the last change count; of a picture without
    one all of its bytes.

    Raises:
        OSError: the file is not there.
    """
    what = f"{_FORMAT} {example.size} {size} "
    if example.decoding != DECODING:
        what += f"{tuple(example.decoding)} "
    image = example.image
    if isinstance(image, str):
        status = os.stat(image)
        what += f"{status.st_size} {status.st_mtime_ns} {os.path.abspath(image)}"
        content = b""
    elif isinstance(image, bytes):
        content = image
    else:
        content = np.ascontiguousarray(image).tobytes()
    digest = hashlib.blake2b(digest_size=KEY_BYTES)
    digest.update(what.encode("utf-8", "surrogateescape"))
    digest.update(content)
    return digest.digest()


def encode(example: Example, size: tuple[int, int]) -> bytes:
    """The example's picture at `size` (height, width) as JPEG bytes.

    A file that is a JPEG, needs no shrinking and takes no more than a sixth of its
    pixels' bytes is kept as it is; any other picture is encoded at quality 92 with half
    the chroma's height and width, as cameras do.

    Raises:
        ImageError: the picture cannot be read.
    """
    own = None
    if example.size == size and not isinstance(example.image, np.ndarray):
        with named(example):
            image = example.image
            own = image if isinstance(image, bytes) else Path(image).read_bytes()
        if not own.startswith(b"\xff\xd8\xff"):
            own = None
        elif len(own) <= _OWN_SHARE * size[0] * size[1] * 3:
            return own
    picture = read_picture(example, size)
    encoded = simplejpeg.encode_jpeg(
        picture, quality=_QUALITY, colorspace="RGB", colorsubsampling="420"
    )
    return encoded if own is None or len(encoded) < len(own) else own


@contextlib.contextmanager
def named(example: Example) -> Iterator[None]:
    """Turns errors of reading a picture into one that names it."""
    try:
        yield
    except (ImageError, OSError) as error:
        reason = str(error).removeprefix(f"{example.name}: ")
        raise ImageError(
            f"{example.name}: cannot be read any more ({reason}); it could be when "
            "the data set was scanned. Has it been moved or changed since?"
        ) from error


def _check_shape(picture: np.ndarray, size: tuple[int, int]) -> None:
    """Raise unless the picture is of that size, or was scaled evenly from it."""
    height, width = picture.shape[:2]
    if (height, width) == size:
        return
    # The decoder's scaled sides are rounded up.
    if height > size[0] or abs(width - size[1] * height / size[0]) > 2 * max(
        1.0, size[1] / size[0]
    ):
        raise ImageError(
            f"it is {height}x{width} pixels, but {size[0]}x{size[1]} are expected"
        )
