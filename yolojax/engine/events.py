"""TensorBoard's event files, written in the calling thread.

The library's own `SummaryWriter` writes in a thread of its own, which dies on a full
disk with a traceback; the queue in front of it fills up, and the run hangs.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from yolojax.files import naming

# Seconds after which events are handed to the file, for those who watch a run.
_FLUSH_EVERY = 120.0


class Events:
    """An event file in a folder.

    Args:
        folder: is made where it is missing.
        purge_step: TensorBoard drops events of this and later steps that earlier files
            in the folder have.

    Raises:
        OSError: the disk is full or failed, here and in every method; names the folder.
    """

    def __init__(self, folder: Path, *, purge_step: int):
        # Imported here: a second that only runs with events should pay.
        from tensorboardX import summary
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto import event_pb2

        # What protobuf makes is unknown to checkers of types.
        messages: Any = event_pb2
        log = messages.SessionLog
        self._folder, self._event, self._summary = folder, messages.Event, summary
        self._flushed = time.monotonic()
        folder.mkdir(parents=True, exist_ok=True)
        with naming(folder):
            # Two runs may begin in one second: the name needs more than that.
            self._file = EventsWriter(str(folder / "events"), f".{os.getpid()}")
        start = log(status=log.START)
        self._add(purge_step, file_version="brain.Event:2")
        self._add(purge_step, session_log=start)

    def add_scalar(self, name: str, value: float, step: int) -> None:
        """Adds a number."""
        self._add(step, summary=self._summary.scalar(name, value))

    def add_image(self, name: str, image: np.ndarray, step: int) -> None:
        """Adds a uint8 RGB picture [h, w, 3]."""
        self._add(step, summary=self._summary.image(name, image, dataformats="HWC"))

    def flush(self) -> None:
        """Hands all events to the disk."""
        self._flushed = time.monotonic()
        with naming(self._folder):
            self._file.flush()

    def close(self) -> None:
        """Ends the file."""
        with naming(self._folder):
            self._file.close()

    def _add(self, step: int, **content: Any) -> None:
        with naming(self._folder):
            event = self._event(wall_time=time.time(), step=step, **content)
            self._file.write_event(event)
        if time.monotonic() - self._flushed > _FLUSH_EVERY:
            self.flush()
