"""Trains as a command would, and is killed at one of its own file operations.

    python -m tests.engine.killed CONFIG WORKDIR NUMBER [FOLDER ...]

The operations of all threads on paths below WORKDIR and the FOLDERs are counted:
opening to write, renaming, removing, making folders. Before operation NUMBER the
process sends itself SIGKILL, as the kernel would when memory runs out. 0: never; then
the number of operations is printed at the end.
"""

import os
import runpy
import signal
import sys
import threading
from pathlib import Path

# Python's audit events that change files, and which of their arguments are paths.
EVENTS = {
    "os.rename": 2,
    "os.mkdir": 1,
    "os.remove": 1,
    "os.rmdir": 1,
    "os.truncate": 1,
    "os.link": 2,
    "os.symlink": 2,
    "shutil.rmtree": 1,
}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Killer:
    """An audit hook that counts operations on files, and kills at one of them."""

    def __init__(self, number: int, folders: list[str]):
        self.number = number
        self.count = 0
        self._folders = tuple(f"{Path(folder).resolve()}{os.sep}" for folder in folders)
        self._lock = threading.Lock()

    def __call__(self, event: str, arguments: tuple) -> None:
        if event == "open":
            paths = arguments[:1] if arguments[2] & WRITING else ()
        else:
            paths = arguments[: EVENTS.get(event, 0)]
        if not any(self._is_ours(path) for path in paths):
            return
        with self._lock:
            self.count += 1
            if self.count == self.number:
                os.kill(os.getpid(), signal.SIGKILL)

    def _is_ours(self, path: object) -> bool:
        if isinstance(path, bytes):
            path = os.fsdecode(path)
        if not isinstance(path, str):
            return False
        return f"{os.path.abspath(path)}{os.sep}".startswith(self._folders)


def main() -> None:
    config, workdir, number, *folders = sys.argv[1:]
    killer = Killer(int(number), [workdir, *folders])
    sys.addaudithook(killer)
    sys.argv = ["train", "--config", config, "--workdir", workdir]
    try:
        runpy.run_module("yolojax.train", run_name="__main__", alter_sys=True)
    finally:
        print(f"operations: {killer.count}")


if __name__ == "__main__":
    main()
