"""Video files from frames."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np

from yolojax.files import replacing
from yolojax.utf8_names import utf8_path
from yolojax.vis.draw import check_picture

# By suffix; the codecs that every build of OpenCV carries.
CODECS = {".mp4": "mp4v", ".mov": "mp4v", ".mkv": "mp4v", ".avi": "MJPG"}


def write_video(
    path: str | os.PathLike[str], frames: Iterable[np.ndarray], fps: float
) -> int:
    """Writes the frames as a video and gives their number.

    The file appears under its name only once it is whole. A frame is taken when the
    one before it is written, so that a generator needs the memory of one frame.

    Args:
        path: ends in .mp4, .mov, .mkv or .avi; its folder is made where missing.
        frames: uint8 RGB [h, w, 3], all of the first one's size; at least one.
        fps: frames a second, above 0.

    Raises:
        ValueError: another suffix, no frame, a frame of another size, a rate that is
            not above 0, or OpenCV cannot write such a file here.
        OSError: the disk is full.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in CODECS:
        raise ValueError(f"{path}: videos are written as {', '.join(sorted(CODECS))}")
    if not 0 < fps < float("inf"):
        raise ValueError(f"{path}: expected frames a second above 0, got {fps}")
    with replacing(path, suffix) as unfinished:
        with utf8_path(unfinished) as name:
            count = _write(path, Path(name), frames, fps)
            _check_whole(path, Path(name), count)
    return count


def _write(path: Path, file: Path, frames: Iterable[np.ndarray], fps: float) -> int:
    """Write the frames into `file`; messages name `path`."""
    writer = None
    size = (0, 0)
    count = 0
    try:
        for frame in frames:
            check_picture(frame, f"{path}, frame {count}")
            if writer is None:
                size = frame.shape[:2]
                code = cv2.VideoWriter.fourcc(*CODECS[file.suffix])
                writer = cv2.VideoWriter(
                    str(file), code, float(fps), (size[1], size[0])
                )
                if not writer.isOpened():
                    raise ValueError(
                        f"{path}: OpenCV cannot write {CODECS[file.suffix]} video of "
                        f"{size[0]} x {size[1]} pixels here; try .avi"
                    )
            if frame.shape[:2] != size:
                raise ValueError(
                    f"{path}: frame {count} has {frame.shape[:2]} pixels, "
                    f"the first one {size}"
                )
            writer.write(cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2BGR))
            count += 1
    finally:
        if writer is not None:
            writer.release()
    if writer is None:
        raise ValueError(f"{path}: no frame to write")
    return count


def _check_whole(path: Path, file: Path, count: int) -> None:
    """OpenCV does not report frames that found no room: count those of the file.

    Raises:
        OSError: far fewer than were written; names `path`.
    """
    capture = cv2.VideoCapture(str(file))
    found = capture.get(cv2.CAP_PROP_FRAME_COUNT) if capture.isOpened() else 0
    capture.release()
    # Matroska's number comes from the rounded duration.
    if found < count / 2:
        full = os.statvfs(file.parent).f_bavail == 0
        code = errno.ENOSPC if full else errno.EIO
        raise OSError(code, os.strerror(code), str(path))
