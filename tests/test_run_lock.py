"""The lock of a run folder: held by one process, free as soon as that has ended."""

import errno
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from yolojax import run_lock

ROOT = Path(__file__).resolve().parents[1]
# Takes the lock, says so, and waits for its end.
HOLD = """
import sys
from pathlib import Path
from yolojax import run_lock
try:
    with run_lock.held(Path(sys.argv[1]), locks=sys.argv[2] == "flock"):
        print("held", flush=True)
        sys.stdin.read()
except run_lock.Locked as error:
    print("refused", error, flush=True)
"""
WAYS = pytest.mark.parametrize("way", ["flock", "file"])


def start(folder, way):
    return subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder), way],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def said(process):
    """The first line that does not tell of a dead process."""
    lines = iter(process.stdout.readline, "")
    return next((line for line in lines if "is ignored" not in line), "")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(run_lock, "SETTLING", 0.05)


@WAYS
def test_the_second_process_is_refused_and_the_first_one_named(tmp_path, way):
    first = start(tmp_path / "run", way)
    assert said(first) == "held\n"
    locks = way == "flock"
    where = rf"process {first.pid} on {re.escape(socket.gethostname())}, since 20\d\d-"
    with pytest.raises(run_lock.Locked, match=where):
        with run_lock.held(tmp_path / "run", locks=locks):
            pass
    first.communicate("", timeout=60)
    lines = []
    with run_lock.held(tmp_path / "run", tell=lines.append, locks=locks):
        pass
    assert not lines


@WAYS
def test_a_killed_process_is_no_obstacle(tmp_path, way):
    first = start(tmp_path, way)
    assert said(first) == "held\n"
    first.send_signal(signal.SIGKILL)
    first.communicate(timeout=60)
    lines = []
    with run_lock.held(tmp_path, tell=lines.append, locks=way == "flock"):
        pass
    assert len(lines) == 1
    assert f"process {first.pid} on" in lines[0] and "is ignored" in lines[0]


@WAYS
def test_of_several_at_the_same_moment_exactly_one_wins(tmp_path, way):
    processes = [start(tmp_path, way) for _ in range(4)]
    answers = [said(process).split()[0] for process in processes]
    assert sorted(answers) == ["held", "refused", "refused", "refused"]
    for process in processes:
        process.communicate("", timeout=60)


def stale(folder, **changes):
    """A lock file as a process left it that is not there any more."""
    with run_lock.held(folder):
        content = json.loads((folder / run_lock.NAME).read_text())
    (folder / run_lock.NAME).write_text(json.dumps(content | changes))
    return folder / run_lock.NAME


@pytest.mark.parametrize("locks", [True, False])
def test_another_machine_counts_as_long_as_it_touches_the_file(tmp_path, locks):
    path = stale(tmp_path, boot="another", host="far", pid=12)
    message = "process 12 on far.*machine is gone, try again in 60 seconds, or remove"
    with pytest.raises(run_lock.Locked, match=message):
        with run_lock.held(tmp_path, locks=locks):
            pass
    old = time.time() - 2 * run_lock.STALE
    os.utime(path, (old, old))
    lines = []
    with run_lock.held(tmp_path, tell=lines.append, locks=locks):
        pass
    assert "process 12 on far" in lines[0]


def test_a_process_id_that_is_used_again_is_another_process(tmp_path):
    # The process that runs this test is alive, but started at another time.
    stale(tmp_path, started="1", token="")
    lines = []
    with run_lock.held(tmp_path, tell=lines.append, locks=False):
        pass
    assert f"process {os.getpid()} on" in lines[0]
    stale(tmp_path, token="")
    with pytest.raises(run_lock.Locked, match=f"process {os.getpid()} on"):
        with run_lock.held(tmp_path, locks=False):
            pass


@pytest.mark.parametrize(
    "content",
    ["", "{", "null", "[]", '{"pid": "x"}', "\x00\xff", "[" * 5000],
    ids=["empty", "torn", "null", "list", "text", "bytes", "deep"],
)
@pytest.mark.parametrize("locks", [True, False])
def test_a_torn_lock_file_is_no_obstacle(tmp_path, content, locks):
    (tmp_path / run_lock.NAME).write_text(content)
    with run_lock.held(tmp_path, locks=locks):
        assert json.loads((tmp_path / run_lock.NAME).read_text())["pid"] == os.getpid()
    assert not list(tmp_path.iterdir())


def test_the_holder_touches_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(run_lock, "BEAT", 0.01)
    with run_lock.held(tmp_path):
        os.utime(tmp_path / run_lock.NAME, (1, 1))
        end = time.monotonic() + 60
        while (tmp_path / run_lock.NAME).stat().st_mtime < 2:
            assert time.monotonic() < end
            time.sleep(0.01)


def test_folders_that_were_made_for_the_lock_alone_go_with_it(tmp_path):
    with run_lock.held(tmp_path / "a" / "b"):
        pass
    assert not list(tmp_path.iterdir())
    with run_lock.held(tmp_path / "a" / "b"):
        (tmp_path / "a" / "b" / "config.json").touch()
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["config.json"]


def test_a_full_disk_names_the_file_and_keeps_no_lock(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("os.pwrite", full)
        with pytest.raises(OSError, match=re.escape(str(tmp_path / ".lock"))):
            with run_lock.held(tmp_path):
                pass
    with run_lock.held(tmp_path):
        pass
