"""The file of encoded pictures: what was put in comes back, or nothing does."""

import contextlib
import hashlib
import os
import random
import signal
import subprocess
import sys
import time
import zlib
from pathlib import Path

import pytest

from yolojax.data import picture_file
from yolojax.data.picture_file import CacheError, PictureFile

ROOT = Path(__file__).resolve().parents[2]
PLENTY = 2**30


def key_of(number):
    return hashlib.blake2b(
        bytes([number % 256, number // 256]), digest_size=16
    ).digest()


def content_of(number):
    """Bytes that only this number has, of 1 to 40 kB."""
    length = 1000 + 39_000 * (number * 7919 % 101) // 101
    return hashlib.shake_128(key_of(number)).digest(length)


def size_of(numbers):
    return sum(len(content_of(n)) for n in numbers)


def fill(file, numbers):
    return [n for n in numbers if file.put(key_of(n), content_of(n))]


def served(file, numbers):
    """The numbers whose bytes come back; each must be the right ones."""
    found = []
    for n in numbers:
        content = file.get(key_of(n))
        if content is not None:
            assert content == content_of(n)
            found.append(n)
    return found


@pytest.fixture(params=["memory", "disk"])
def folder(request, tmp_path):
    return None if request.param == "memory" else tmp_path / "cache"


def data_file(folder):
    (path,) = folder.glob("pictures-*.jpegs")
    return path


def test_what_was_put_comes_back_and_is_counted_once(folder):
    file = PictureFile(folder, budget=PLENTY)
    assert file.get(key_of(0)) is None
    assert fill(file, [3, 1, 2, 3, 1]) == [3, 1, 2, 3, 1]
    assert served(file, range(5)) == [1, 2, 3]
    assert file.num_bytes == size_of([1, 2, 3])
    assert key_of(1) in file and key_of(4) not in file
    assert (file.length(key_of(1)), file.length(key_of(4))) == (size_of([1]), 0)


def test_pictures_beyond_the_budget_stay_out_and_the_others_in(folder):
    budget = size_of(range(5)) + 900
    file = PictureFile(folder, budget=budget)
    assert fill(file, range(5)) == [0, 1, 2, 3, 4]
    assert fill(file, range(5, 40)) == []
    assert served(file, range(40)) == [0, 1, 2, 3, 4]
    assert file.num_bytes <= budget


def test_a_folder_keeps_its_pictures(tmp_path):
    fill(PictureFile(tmp_path, budget=PLENTY), range(20))
    file = PictureFile(tmp_path, budget=PLENTY)
    assert served(file, range(25)) == list(range(20))
    fill(file, range(20, 25))
    assert served(PictureFile(tmp_path, budget=PLENTY), range(25)) == list(range(25))


def test_two_that_have_it_open_see_each_others_pictures(tmp_path):
    one, other = (PictureFile(tmp_path, budget=PLENTY) for _ in range(2))
    fill(one, range(5))
    assert served(other, range(5)) == list(range(5))
    fill(other, range(3, 9))
    assert served(one, range(9)) == list(range(9))
    assert one.num_bytes == other.num_bytes == size_of(range(9))


@pytest.mark.parametrize("damage", ["flip", "zeros", "short", "removed"])
def test_damaged_pictures_count_as_not_there_and_are_put_in_again(tmp_path, damage):
    fill(PictureFile(tmp_path, budget=PLENTY), range(10))
    path = data_file(tmp_path)
    content = bytearray(path.read_bytes())
    start = size_of(range(4))
    if damage == "flip":
        content[start + 77] ^= 1
    elif damage == "zeros":
        content[start : start + 4096] = bytes(4096)
    elif damage == "short":
        del content[start + 500 :]
    path.write_bytes(content)
    if damage == "removed":
        path.unlink()
    file = PictureFile(tmp_path, budget=PLENTY)
    good = {"short": range(4), "removed": []}.get(damage, [*range(4), *range(5, 10)])
    assert served(file, range(10)) == list(good)
    assert fill(file, range(10)) == list(range(10))
    assert served(file, range(10)) == list(range(10))
    assert served(PictureFile(tmp_path, budget=PLENTY), range(10)) == list(range(10))


def test_damaged_entries_of_the_index_are_passed_over(tmp_path):
    fill(PictureFile(tmp_path, budget=PLENTY), range(10))
    index = tmp_path / "index"
    content = bytearray(index.read_bytes())
    content[64 * 4 + 20] ^= 1  # the offset of number 3
    index.write_bytes(content[:-10])  # number 9 is cut short
    file = PictureFile(tmp_path, budget=PLENTY)
    assert served(file, range(10)) == [0, 1, 2, 4, 5, 6, 7, 8]
    fill(file, range(10))
    assert served(PictureFile(tmp_path, budget=PLENTY), range(10)) == list(range(10))


def test_an_entry_never_stands_for_another_picture(tmp_path):
    """Even one with a right checksum of its own, over the place of another."""
    fill(PictureFile(tmp_path, budget=PLENTY), [0, 1])
    index = tmp_path / "index"
    content = bytearray(index.read_bytes())
    content[64 + 16 : 64 + 36], content[128 + 16 : 128 + 36] = (
        content[128 + 16 : 128 + 36],
        content[64 + 16 : 64 + 36],
    )
    for start in (64, 128):
        crc = zlib.crc32(content[start : start + 60])
        content[start + 60 : start + 64] = crc.to_bytes(4, "little")
    index.write_bytes(content)
    assert served(PictureFile(tmp_path, budget=PLENTY), [0, 1]) == []


def test_room_is_made_of_the_oldest_that_are_not_wanted(tmp_path):
    file = PictureFile(tmp_path, budget=size_of(range(12)))
    fill(file, range(12))
    wanted = {key_of(n) for n in (0, 1, 7, 8, 9, 10, 11)}
    assert file.make_room(wanted, 0) == 0
    # Of 2 to 6, which may go, as many as are needed for 20, from the first on.
    needed = size_of([20])
    count = next(k for k in range(1, 6) if size_of(range(2, 2 + k)) >= needed)
    gone = list(range(2, 2 + count))
    assert file.make_room(wanted, needed) == size_of(gone)
    rest = [n for n in range(12) if n not in gone]
    assert served(file, range(12)) == rest
    assert fill(file, [20]) == [20]
    assert file.num_bytes <= file.budget
    assert data_file(tmp_path).stat().st_size == file.num_bytes
    assert served(PictureFile(tmp_path, budget=PLENTY), [*range(12), 20]) == [*rest, 20]


def test_nothing_is_thrown_out_of_a_file_that_another_has_open(tmp_path):
    file = PictureFile(tmp_path, budget=size_of(range(5)))
    fill(file, range(5))
    other = PictureFile(tmp_path, budget=PLENTY)
    assert file.make_room(set(), 1000) == 0
    other.close()
    assert file.make_room(set(), 1000) > 0


def test_pictures_handed_out_outlive_the_file(folder):
    file = PictureFile(folder, budget=PLENTY)
    fill(file, [0])
    content = file.get(key_of(0))
    file.close()
    assert content == content_of(0)


def test_a_file_of_someone_else_is_refused_and_left_alone(tmp_path):
    (tmp_path / "index").write_text("a list of my photographs\n" * 10)
    with pytest.raises(CacheError, match="not an index of yolojax's pictures; choose"):
        PictureFile(tmp_path, budget=PLENTY)
    assert (tmp_path / "index").read_text().startswith("a list")


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CacheError, match="cannot be used.*config.data.cache_dir"):
        PictureFile(tmp_path / "file" / "cache", budget=PLENTY)


# A worker: puts numbers in the order of a seed, again and again or once, and checks
# everything that it gets.
WORKER = """
import random, resource, sys
from pathlib import Path
sys.path.insert(0, {root!r})
from tests.data.test_picture_file import *
folder, seed, count, size_limit = Path({folder!r}), {seed}, {count}, {limit}
if size_limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_limit, size_limit))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
file = PictureFile(folder, budget=PLENTY)
numbers = random.Random(seed).sample(range(count), count)
print("ready", flush=True)
for n in numbers:
    served(file, [n, numbers[0]])
    fill(file, [n])
    assert served(file, [n]) == [n]
print("done", flush=True)
"""


def worker(folder, seed, count=300, limit=0):
    code = WORKER.format(
        root=str(ROOT), folder=str(folder), seed=seed, count=count, limit=limit
    )
    return subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )


def test_processes_that_build_it_at_once_write_each_picture_once(tmp_path):
    workers = [worker(tmp_path, seed) for seed in range(3)]
    for process in workers:
        output, errors = process.communicate(timeout=60)
        assert output.endswith("done\n"), errors
    file = PictureFile(tmp_path, budget=PLENTY)
    assert served(file, range(300)) == list(range(300))
    assert file.num_bytes == size_of(range(300)) == data_file(tmp_path).stat().st_size
    assert (tmp_path / "index").stat().st_size == 64 * 301


def test_a_process_killed_anywhere_leaves_no_wrong_picture(tmp_path):
    chance = random.Random(3)
    counts = []
    for seed in range(6):
        process = worker(tmp_path, seed, count=2000)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(chance.random() * 0.1)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        file = PictureFile(tmp_path, budget=PLENTY)
        counts.append(len(served(file, range(2000))))
        file.close()
    assert 0 < counts[0] < counts[-1]
    assert counts == sorted(counts)
    process = worker(tmp_path, 9, count=300)
    output, errors = process.communicate(timeout=60)
    assert output.endswith("done\n"), errors


@pytest.mark.parametrize("last", [1, 2], ids=["in the picture", "in the entry"])
def test_a_kill_half_way_through_a_write_leaves_no_wrong_picture(
    tmp_path, monkeypatch, last
):
    file = PictureFile(tmp_path, budget=PLENTY)
    fill(file, range(3))
    writes = []

    def killed(descriptor, content, offset):
        writes.append(offset)
        half = len(content) // 2 if len(writes) == last else len(content)
        os.pwrite(descriptor, content[:half], offset)
        if len(writes) == last:
            raise SystemExit

    with monkeypatch.context() as patched:
        patched.setattr(picture_file, "_write", killed)
        with pytest.raises(SystemExit):
            fill(file, [3])
    other = PictureFile(tmp_path, budget=PLENTY)
    for reader in (file, other):
        assert served(reader, range(6)) == [0, 1, 2]
    assert fill(other, [4, 3]) == [4, 3]
    for reader in (file, other, PictureFile(tmp_path, budget=PLENTY)):
        assert served(reader, range(6)) == [0, 1, 2, 3, 4]


def test_a_process_killed_while_it_makes_room_leaves_the_old_file(
    tmp_path, monkeypatch
):
    file = PictureFile(tmp_path, budget=size_of(range(9)))
    fill(file, range(9))
    with monkeypatch.context() as patched:
        # What a kill before the last moment comes to.
        patched.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(SystemExit()))
        patched.setattr(Path, "unlink", lambda *_, **__: None)
        with pytest.raises(SystemExit):
            file.make_room(set(), 1000)
    file.close()
    assert len(list(tmp_path.glob("pictures-*.jpegs"))) == 2
    again = PictureFile(tmp_path, budget=PLENTY)
    assert served(again, range(9)) == list(range(9))
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"index", "lock", "in-use", data_file(tmp_path).name}


@contextlib.contextmanager
def small_disk(folder, size):
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True)
    except OSError as error:
        pytest.skip(f"no mount: {error}")
    if done.returncode:
        pytest.skip(f"no tmpfs may be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_is_an_error_and_what_is_there_stays_right(tmp_path):
    with small_disk(tmp_path / "disk", 400 * 1024) as disk:
        file = PictureFile(disk, budget=PLENTY)
        with pytest.raises(CacheError, match="No space left on device.*Free some"):
            fill(file, range(200))
        inside = served(file, range(200))
        assert len(inside) > 5
        # Smaller ones may still fit; nothing of the failed one shows.
        with contextlib.suppress(CacheError):
            fill(file, range(200, 230))
        again = PictureFile(disk, budget=PLENTY)
        assert served(again, range(230))[: len(inside)] == inside
        file.close(), again.close()


def test_a_disk_with_no_room_for_the_index_is_an_error(tmp_path):
    with small_disk(tmp_path / "disk", 64 * 1024) as disk:
        (disk / "other").write_bytes(bytes(64 * 1024))
        with pytest.raises(CacheError, match="No space left on device"):
            PictureFile(disk, budget=PLENTY)


def test_a_limit_on_the_size_of_files_is_an_error(tmp_path):
    process = worker(tmp_path, 0, limit=300_000)
    output, errors = process.communicate(timeout=60)
    assert output == "ready\n"
    assert "CacheError" in errors and "File too large" in errors
    file = PictureFile(tmp_path, budget=PLENTY)
    inside = served(file, range(300))
    assert len(inside) > 5 and size_of(inside) <= 300_000
    assert fill(file, range(300)) == list(range(300))
    assert served(file, range(300)) == list(range(300))
