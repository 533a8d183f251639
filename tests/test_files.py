"""Files that are read within limits, and places of files that are written later."""

import codecs
import os
import socket

import pytest

from yolojax import files


def test_a_file_needs_a_folder_that_is_there(tmp_path):
    files.check_file_place(tmp_path / "new.json", "--output")
    with pytest.raises(ValueError, match="--output .*: there is no folder .*missing$"):
        files.check_file_place(tmp_path / "missing" / "new.json", "--output")
    with pytest.raises(ValueError, match="--output .* is a folder; give a file in it"):
        files.check_file_place(tmp_path, "--output")
    assert not list(tmp_path.iterdir())


def test_a_regular_file_is_read_within_its_limit(tmp_path):
    file = tmp_path / "a.txt"
    file.write_bytes(b"1234")
    (tmp_path / "link.txt").symlink_to(file)
    assert files.read_file(file, limit=4) == b"1234"
    assert files.read_file(str(tmp_path / "link.txt")) == b"1234"
    with pytest.raises(files.FileError) as caught:
        files.read_file(file, limit=3)
    assert caught.value.reason == "4 bytes; at most 3 are read"
    assert str(caught.value) == f"{file}: 4 bytes; at most 3 are read"


def test_a_file_of_50_million_bytes_is_not_read_to_learn_that_it_is_too_large(tmp_path):
    with (tmp_path / "large.txt").open("wb") as file:
        file.truncate(50_000_000)
    with pytest.raises(files.FileError, match="50,000,000 bytes; at most 1,000 are"):
        files.read_file(tmp_path / "large.txt", limit=1000)


def test_what_is_no_regular_file_is_named_and_never_waited_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # paths of sockets are short
    os.mkfifo("pipe.txt")
    (tmp_path / "folder.txt").mkdir()
    (tmp_path / "device.txt").symlink_to("/dev/zero")
    (tmp_path / "gone.txt").symlink_to("nowhere")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.txt")
        expected = {
            "pipe.txt": "pipe.txt: not a regular file but a named pipe",
            "socket.txt": "socket.txt: not a regular file but a socket",
            "device.txt": "device.txt: not a regular file but a device",
            "folder.txt": "folder.txt: not a regular file but a folder",
            "gone.txt": "gone.txt: No such file or directory",
        }
        for name, message in expected.items():
            with pytest.raises(files.FileError) as caught:
                files.read_file(name, limit=100)
            assert str(caught.value) == message
    with pytest.raises(files.FileError, match="null byte"):
        files.read_file("a\0b")


def test_a_pipe_that_takes_the_files_place_is_not_waited_for(tmp_path, monkeypatch):
    regular = tmp_path / "regular.txt"
    regular.write_text("x")
    pipe = tmp_path / "pipe.txt"
    os.mkfifo(pipe)
    status = os.stat(regular)
    monkeypatch.setattr(os, "stat", lambda path: status)
    with pytest.raises(files.FileError, match="not a regular file but a named pipe"):
        files.open_file(pipe)


WORDS = "0 0.5 Katze\r\nä\n"


@pytest.mark.parametrize(
    "content",
    [
        WORDS.encode(),
        codecs.BOM_UTF8 + WORDS.encode(),
        codecs.BOM_UTF16_LE + WORDS.encode("utf-16-le"),
        codecs.BOM_UTF16_BE + WORDS.encode("utf-16-be"),
        codecs.BOM_UTF32_LE + WORDS.encode("utf-32-le"),
        WORDS.encode("utf-16-le"),
        WORDS.encode("utf-16-be"),
    ],
    ids=["8", "8 mark", "16 le", "16 be", "32 le", "16 le no mark", "16 be no mark"],
)
def test_text_is_read_in_the_encodings_that_editors_write(tmp_path, content):
    assert files.decode_text(content) == WORDS
    (tmp_path / "a.txt").write_bytes(content)
    assert files.read_text(tmp_path / "a.txt", limit=1000) == WORDS


def test_bytes_that_are_no_text_are_named_with_their_place(tmp_path):
    with pytest.raises(ValueError, match=r"^not UTF-8 text \(.*, byte 2\)$"):
        files.decode_text(b"ab\xffcd")
    with pytest.raises(ValueError, match="^not UTF-16 text"):
        files.decode_text(codecs.BOM_UTF16_LE + b"a")
    assert files.decode_text(b"ab\xff", errors="surrogateescape") == "ab\udcff"
    assert files.decode_text(bytes(8)) == "\0" * 8
    assert files.decode_text(b"") == ""
    (tmp_path / "a.txt").write_bytes(b"\xff\x00\x81")
    with pytest.raises(files.FileError, match="a.txt: not UTF-8 text"):
        files.read_text(tmp_path / "a.txt", limit=1000)
