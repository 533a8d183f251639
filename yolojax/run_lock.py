"""One process a run folder: a lock that ends with its process.

The lock is an `flock` on the file `.lock` in the folder, which the system frees when
the process dies, however it dies. The file says who holds it, for the message of the
process that comes second. Where a file system has no such locks, the file alone counts:
whoever wrote it last has the folder.

A network file system may keep locks to each machine. So the holder touches the file
every few seconds, and a file that another machine touched a moment ago counts as held.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from yolojax.files import replace_text

NAME = ".lock"
# Seconds between two touches of the file.
BEAT = 10.0
# Seconds after which a file that nobody touched has no living holder.
STALE = 60.0
# Seconds in which a second process that wrote the file has written it, without flock.
SETTLING = 1.0
# Errors of `flock` on file systems that have no locks.
_NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL)


class Locked(ValueError):
    """Another process works in the folder; the message says which one."""


class _Holder(NamedTuple):
    """The process that the file names.

    Attributes:
        pid: its id.
        host: name of its machine.
        boot: changes with each start of the machine; empty where it is not known.
        space: of process ids, which containers of one machine have their own of.
        started: when the process started, in the system's own ticks.
        since: date and time of the lock, for messages.
        token: of this one lock.
    """

    pid: int
    host: str
    boot: str
    space: str
    started: str
    since: str
    token: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since}"


@contextlib.contextmanager
def held(
    folder: Path, *, tell: Callable[[str], None] = print, locks: bool = True
) -> Iterator[None]:
    """Hold the lock of a folder, which is made where it is missing.

    Args:
        folder: of the run. If it holds nothing else at the end, and was made here, it
            is removed.
        tell: takes a line where a dead process has left its lock.
        locks: whether to try the file system's locks at all.

    Raises:
        Locked: another process holds it.
        OSError: the folder cannot be written to.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    path, me = folder / NAME, _this_process()
    descriptor = _lock_file(path) if locks else None
    if descriptor is None:
        _write_alone(path, me, tell)
    else:
        _write_locked(path, descriptor, me, tell)
    done = threading.Event()
    beat = threading.Thread(target=_beat, args=(path, me, done), daemon=True)
    beat.start()
    try:
        yield
    finally:
        done.set()
        beat.join()
        _release(path, me, descriptor)
        for empty in made:
            with contextlib.suppress(OSError):
                empty.rmdir()


def _lock_file(path: Path) -> int | None:
    """The locked file, opened; None where the file system has no locks.

    Raises:
        Locked: another process has it.
    """
    while True:
        # The holder before may have made the folder, and removed it.
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # It may have removed the file in between, too.
            if _same_file(path, descriptor):
                return descriptor
            os.close(descriptor)
        except BlockingIOError:
            os.close(descriptor)
            raise Locked(_refusal(path, _named(path))) from None
        except OSError as error:
            os.close(descriptor)
            if error.errno not in _NO_LOCKS:
                raise
            return None


def _write_locked(
    path: Path, descriptor: int, me: _Holder, tell: Callable[[str], None]
) -> None:
    """Put our name into the file that we have locked.

    Raises:
        Locked: another machine touched it a moment ago.
    """
    before = _read(path)
    # On this machine the lock itself tells that the process is dead.
    if before is not None and not _same_machine(before, me) and _fresh(path):
        os.close(descriptor)
        raise Locked(_refusal(path, before))
    _tell_stale(path, before, tell)
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(me._asdict()).encode(), 0)
    except OSError as error:
        os.close(descriptor)
        # The system names no file here.
        raise OSError(error.errno, error.strerror, str(path)) from error


def _write_alone(path: Path, me: _Holder, tell: Callable[[str], None]) -> None:
    """Put our name into the file, without the system's locks.

    Raises:
        Locked: the file has the name of a living process, or gets that of another one.
    """
    before = _read(path)
    if before is not None and _lives(before, me, path):
        raise Locked(_refusal(path, before))
    _tell_stale(path, before, tell)
    replace_text(path, json.dumps(me._asdict()))
    # Of several that come at once each has written by now, and all read the same.
    time.sleep(SETTLING)
    now = _read(path)
    if now is None or now.token != me.token:
        raise Locked(_refusal(path, now))


def _lives(holder: _Holder, me: _Holder, path: Path) -> bool:
    """Whether the process that the file names is at work, as far as can be known."""
    if not _same_machine(holder, me) or holder.space != me.space:
        return _fresh(path)
    return _start_of(holder.pid) == holder.started


def _same_machine(one: _Holder, other: _Holder) -> bool:
    if one.boot or other.boot:
        return one.boot == other.boot
    return one.host == other.host


def _fresh(path: Path) -> bool:
    """Whether the file was touched a moment ago, by the file system's own clock."""
    try:
        touched = path.stat().st_mtime
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".lock-") as now:
            return os.fstat(now.fileno()).st_mtime - touched < STALE
    except OSError:
        return True


def _beat(path: Path, me: _Holder, done: threading.Event) -> None:
    while not done.wait(BEAT):
        found = _read(path)
        if found is not None and found.token == me.token:
            with contextlib.suppress(OSError):
                os.utime(path)


def _release(path: Path, me: _Holder, descriptor: int | None) -> None:
    """Remove the file, while it is still locked, and let go of it."""
    found = _read(path)
    with contextlib.suppress(OSError):
        if found is not None and found.token == me.token:
            path.unlink()
    if descriptor is not None:
        os.close(descriptor)


def _tell_stale(
    path: Path, before: _Holder | None, tell: Callable[[str], None]
) -> None:
    if before is not None:
        tell(f"{path.parent}: the lock of {before}, is ignored: it has ended")


def _refusal(path: Path, holder: _Holder | None) -> str:
    who = str(holder) if holder else "another process"
    return (
        f"{path.parent} is in use by {who}: two runs in one folder would overwrite "
        "each other. Wait for its end or stop it, or use another folder"
        + _other_machine(holder, path)
    )


def _other_machine(holder: _Holder | None, path: Path) -> str:
    if holder is None or _same_machine(holder, _this_process()):
        return ""
    return (
        f". If that machine is gone, try again in {STALE:.0f} seconds, or remove {path}"
    )


def _named(path: Path) -> _Holder | None:
    """Who holds the file; one that was locked just now may not have its name yet."""
    for _ in range(20):
        found = _read(path)
        if found is not None:
            return found
        time.sleep(0.02)
    return None


def _read(path: Path) -> _Holder | None:
    """Who the file names; None where it is missing, empty or torn."""
    try:
        content = json.loads(path.read_bytes()[:10_000])
        known = {name: content[name] for name in _Holder._fields}
        pid = int(known.pop("pid"))
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None
    # The text of a file goes to the terminal.
    texts = {name: ascii(str(text)[:200])[1:-1] for name, text in known.items()}
    return _Holder(pid=pid, **texts)


def _same_file(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _this_process() -> _Holder:
    pid = os.getpid()
    return _Holder(
        pid=pid,
        host=ascii(socket.gethostname())[1:-1],
        boot=_boot(),
        space=_space(),
        started=_start_of(pid),
        since=datetime.now().strftime("%Y-%m-%d %H:%M:%S"),
        token=uuid.uuid4().hex,
    )


def _boot() -> str:
    """A word that is another after each start of the machine; empty: not known."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _space() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _start_of(pid: int) -> str:
    """When a process started, in ticks; empty where it has ended.

    `-` for a living process of which the system does not tell.
    """
    try:
        # The name in brackets may hold anything; the rest are numbers.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "" if fields[0] in "ZX" else fields[19]
    except (OSError, IndexError):
        pass
    if Path("/proc/self/stat").exists():
        return ""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return "-"
    except OSError:
        return ""
    return "-"
