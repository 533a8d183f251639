"""Files written in one step, their places, and paths as users write them."""

import errno
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from yolojax import files, utf8_names


def test_a_file_is_synced_before_and_after_it_takes_its_place(tmp_path, monkeypatch):
    seen = []

    def fsync(descriptor):
        kind = "folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file"
        seen.append(kind)

    def replace(source, target):
        seen.append("rename")
        os.rename(source, target)

    monkeypatch.setattr(files.os, "fsync", fsync)
    monkeypatch.setattr(files.os, "replace", replace)
    files.replace_file(tmp_path / "new" / "a.json", b"{}")
    assert seen == ["file", "rename", "folder"]
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.json"]
    assert (tmp_path / "new" / "a.json").read_bytes() == b"{}"


# Writes half of a file, then waits to be killed.
WRITER = """
import sys, time
from pathlib import Path
from yolojax import files, utf8_names
with files.replacing(Path(sys.argv[1]), ".mp4") as unfinished:
    unfinished.write_bytes(b"half")
    print("begun", flush=True)
    time.sleep(600)
"""


def test_unfinished_files_go_when_their_writer_was_killed_and_stay_while_it_lives(
    tmp_path,
):
    (tmp_path / ".film.part").write_text("of another program")
    (tmp_path / ".yolojax-notes.part").write_text("also")
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path / "a.mp4")], stdout=subprocess.PIPE
    ) as writer:
        try:
            assert writer.stdout is not None and writer.stdout.readline()
            theirs = {".film.part", ".yolojax-notes.part"}
            [ours] = {path.name for path in tmp_path.iterdir()} - theirs
            assert ours.endswith(".part.mp4")
            files.clear_unfinished(tmp_path)
            assert {path.name for path in tmp_path.iterdir()} == {ours, *theirs}
        finally:
            writer.kill()
        writer.wait()
    files.replace_file(tmp_path / "b.txt", b"b")
    assert {path.name for path in tmp_path.iterdir()} == {"b.txt", *theirs}


def test_an_error_leaves_the_old_file_and_no_other(tmp_path):
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(KeyError), files.replacing(tmp_path / "a.txt") as unfinished:
        unfinished.write_text("new")
        raise KeyError
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "old"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_reported_with_the_name_of_the_file(tmp_path):
    with (
        pytest.raises(OSError, match=r"No space left on device: .*a\.csv") as caught,
        files.naming(tmp_path / "a.csv"),
        open("/dev/full", "w") as full,
    ):
        full.write("x")
    assert caught.value.errno == errno.ENOSPC
    with (
        pytest.raises(FileNotFoundError, match=r"other\.csv"),
        files.naming(tmp_path / "a.csv"),
    ):
        (tmp_path / "other.csv").read_text()


def test_names_that_are_not_utf8_are_written_as_escapes(tmp_path):
    name = os.fsdecode(b"caf\xe9.jpg")
    files.replace_text(tmp_path / "a.json", json.dumps([name], ensure_ascii=False))
    content = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert content == '["caf\\udce9.jpg"]'
    assert os.fsencode(json.loads(content)[0]) == b"caf\xe9.jpg"


@pytest.mark.parametrize(
    "text, expected",
    [
        ("~/data", "/home/me/data"),
        ("$SETS/coco", "/mnt/sets/coco"),
        ("${SETS}/coco/*.jpg", "/mnt/sets/coco/*.jpg"),
        ("$SETS2/coco", "$SETS2/coco"),
        ("runs/$SETS", "runs//mnt/sets"),
        ("plain/~/x", "plain/~/x"),
        ("", ""),
        # Folders that are really called like that.
        ("$real/new", "$real/new"),
        ("~real", "~real"),
        ("$real/$SETS", "$real//mnt/sets"),
    ],
)
def test_paths_are_expanded_as_in_a_shell(text, expected, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("SETS", "/mnt/sets")
    monkeypatch.setenv("real", "/mnt/wrong")
    monkeypatch.delenv("SETS2", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "$real").mkdir()
    (tmp_path / "~real").touch()
    assert files.expand_path(text) == expected


def test_libraries_get_a_name_that_is_utf8(tmp_path):
    path = tmp_path / os.fsdecode(b"caf\xe9") / os.fsdecode(b"\xff.mp4")
    path.parent.mkdir()
    path.write_text("content")
    with utf8_names.utf8_path(path) as name:
        assert name.encode("utf-8").endswith(b".mp4")
        assert Path(name).read_text() == "content"
    assert not os.path.lexists(name)
    with utf8_names.utf8_path(tmp_path / "ä.mp4") as name:
        assert name == str(tmp_path / "ä.mp4")


def test_errors_of_libraries_about_disks_name_the_file():
    with (
        pytest.raises(OSError, match=r"No space left on device: 'run/checkpoints/3'"),
        files.translating("run/checkpoints/3"),
    ):
        raise ValueError("RESOURCE_EXHAUSTED: Failed to write: No space left on device")
    with pytest.raises(ValueError, match="another"), files.translating("a"):
        raise ValueError("another")


def test_a_file_larger_than_the_disk_is_refused_before_it_is_written(tmp_path):
    files.check_space(tmp_path / "a", 1)
    with pytest.raises(OSError, match=r"it takes 1,099,511,627,776\.0 MiB, ") as caught:
        files.check_space(tmp_path / "a", 2**60)
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.filename == str(tmp_path / "a")


def test_a_literal_name_may_lie_below_another_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("sub", "other")
    (tmp_path / "$sub").mkdir()
    assert files.expand_path("$sub/a.json", str(tmp_path)) == "$sub/a.json"
    assert files.expand_path("$sub/a.json") == "other/a.json"
