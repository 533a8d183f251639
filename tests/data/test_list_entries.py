"""Lists for `predict`, as people and programs of all systems write them."""

import os

import pytest

from yolojax.data.list_entries import list_entries


@pytest.fixture
def home(tmp_path):
    (tmp_path / "day 1").mkdir()
    for name in ("a.png", "day 1/b.png"):
        (tmp_path / name).write_bytes(b"x")
    return tmp_path


def found(home, content):
    (home / "list.txt").write_bytes(content)
    return [
        (number, None if path is None else os.path.relpath(path, home))
        for number, _, path in list_entries(home / "list.txt")
    ]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be"])
@pytest.mark.parametrize(
    "lines",
    [
        "a.png\n\nday 1/b.png\n",
        "'a.png'\r\n# b\r\n\"day 1\\b.png\"\r\n",
        ".\\a.png\r\rday 1\\b.png",
    ],
    ids=["plain", "quotes and comments", "backslashes"],
)
def test_entries_have_their_line_and_file(home, lines, encoding):
    assert found(home, lines.encode(encoding)) == [(1, "a.png"), (3, "day 1/b.png")]


def test_what_is_no_regular_file_has_none(home):
    os.mkfifo(home / "pipe.png")
    (home / "device.png").symlink_to("/dev/zero")
    names = ["pipe.png", "device.png", "day 1", "gone.png", "x" * 9000, "a\0.png"]
    expected = [(number, None) for number in range(1, 7)]
    assert found(home, "\n".join(names).encode()) == expected


def test_a_list_that_is_a_pipe_or_too_large_is_refused(home):
    os.mkfifo(home / "pipe.txt")
    with pytest.raises(ValueError, match="source .*pipe.txt': not a regular file but"):
        list(list_entries(home / "pipe.txt"))
    with (home / "large.txt").open("wb") as file:
        file.truncate(50_000_000)
    with pytest.raises(ValueError, match="source .*large.txt': 50,000,000 bytes; at"):
        list(list_entries(home / "large.txt"))
