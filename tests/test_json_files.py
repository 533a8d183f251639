"""JSON files of a run, whole and damaged."""

import os

import pytest

from yolojax.json_files import load_json, read_json

DAMAGED = {
    "empty": (b"", "the file is empty"),
    "zeros": (bytes(4096), "the file is empty"),
    "cut": (b'{"a": [1, 2', "not JSON"),
    "two": (b"{} {}", "not JSON"),
    "no text": (b'{"a": "\xff\xfe"}', "not JSON"),
    "long number": (b'{"a": ' + b"9" * 5000 + b"}", "not JSON"),
    "null": (b"null", "expected an object, got None"),
    "list": (b"[]", r"expected an object, got \[\]"),
    "text": (b'"' + b"x" * 1000 + b'"', "expected an object, got 'xx.{,40}'"),
    "deep list": (b"[" * 10**5 + b"]" * 10**5, "nested too deeply"),
    "rather deep": (b"[" * 60 + b"]" * 60, "nested too deeply"),
    "deep object": (b'{"a":' * 10**5, "nested too deeply"),
    "many": (b"[" + b"[]," * 10**6 + b"[]]", "more than 1,000,000 values"),
}


@pytest.mark.parametrize("content, reason", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_file_is_named_with_the_reason_and_the_way_out(
    tmp_path, content, reason
):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    message = rf"a\.json cannot be read: {reason}.*\. Do this\.$"
    with pytest.raises(ValueError, match=message):
        read_json(path, advice="Do this.")


def test_what_is_no_file_is_said(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="^No such file"):
        load_json(tmp_path / "nothing")
    with pytest.raises(ValueError, match="^not a regular file but a named pipe"):
        load_json(tmp_path / "pipe")
    with pytest.raises(ValueError, match="^not a regular file but a folder"):
        load_json(tmp_path)


def test_values_come_back(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"a": [1, 2.5, null, "\u00e9"]}', encoding="utf-8")
    assert load_json(path) == {"a": [1, 2.5, None, "\u00e9"]}
    assert load_json(path, (dict, list)) == {"a": [1, 2.5, None, "\u00e9"]}
    path.write_text("[" * 50 + "]" * 50)
    load_json(path, list)
    path.write_text("[3]")
    assert load_json(path, list) == [3]
