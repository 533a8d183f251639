"""Video files from frames."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np

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
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in CODECS:
        raise ValueError(f"{path}: videos are written as {', '.join(sorted(CODECS))}")
    if not 0 < fps < float("inf"):
        raise ValueError(f"{path}: expected frames a second above 0, got {fps}")
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{os.getpid()}.part{suffix}")
    writer = None
    size = (0, 0)
    count = 0
    try:
        for frame in frames:
            check_picture(frame, f"{path}, frame {count}")
            if writer is None:
                size = frame.shape[:2]
                code = cv2.VideoWriter.fourcc(*CODECS[suffix])
                writer = cv2.VideoWriter(
                    str(unfinished), code, float(fps), (size[1], size[0])
                )
                if not writer.isOpened():
                    raise ValueError(
                        f"{path}: OpenCV cannot write {CODECS[suffix]} video of "
                        f"{size[0]} x {size[1]} pixels here; try .avi"
                    )
            if frame.shape[:2] != size:
                raise ValueError(
                    f"{path}: frame {count} has {frame.shape[:2]} pixels, "
                    f"the first one {size}"
                )
            writer.write(cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2BGR))
            count += 1
        if writer is None:
            raise ValueError(f"{path}: no frame to write")
        writer.release()
        os.replace(unfinished, path)
    finally:
        if writer is not None:
            writer.release()
        unfinished.unlink(missing_ok=True)
    return count
