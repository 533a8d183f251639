import json
import os
import tracemalloc

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save

from tests.weights.pickles import write
from yolojax.weights.safetensors import read_safetensors, write_safetensors

ARRAYS = {
    "a.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "b": np.array(3.5),
    "c": np.array([1, -2], np.int64),
    "d": np.array([True, False]),
    "e": np.array([0.5, 65504], np.float16),
    "f": np.zeros((0, 3), np.uint8),
    "g": np.array([1.5, -3e38], jnp.bfloat16),
}


def test_arrays_come_back_bit_for_bit_with_what_is_said_about_them(tmp_path):
    path = tmp_path / "deep" / "a.safetensors"
    write_safetensors(path, ARRAYS, {"class_names": ["cat", "dog"], "depth": 0.5})
    contents = read_safetensors(path)
    assert set(contents.state) == set(ARRAYS)
    for name, array in ARRAYS.items():
        found = contents.state[name]
        assert (found.dtype, found.shape) == (array.dtype, array.shape)
        assert found.tobytes() == array.tobytes()
        assert not found.flags.writeable
    assert contents.class_names == ("cat", "dog")
    assert contents.description["depth"] == 0.5


def test_the_same_arrays_give_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        write_safetensors(tmp_path / name, ARRAYS, {"x": 1, "y": 2})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_written_file_is_readable_by_all(tmp_path):
    path = tmp_path / "a.safetensors"
    write_safetensors(path, {"w": np.ones(2)}, {})
    assert path.stat().st_mode & 0o777 == 0o644
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "metadata",
    [None, {"format": "pt"}, {"format": "yolojax"}],
    ids=["none", "another", "value"],
)
def test_files_of_others_say_nothing_about_classes(metadata, tmp_path):
    path = write(tmp_path / "a.safetensors", save({"w": np.ones(2)}, metadata))
    contents = read_safetensors(path)
    assert list(contents.state) == ["w"]
    assert contents.class_names is None
    assert contents.description == {}


def header(text):
    return len(text).to_bytes(8, "little") + text + bytes(16)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x08",
        save(ARRAYS)[:-1],
        save(ARRAYS)[:40],
        (2**62).to_bytes(8, "little") + b"{}",
        header(b"{"),
        header(b"[]"),
        header(b'{"a": {"dtype": "F32", "shape": [5], "data_offsets": [0, 16]}}'),
        header(b'{"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 64]}}'),
        header(b'{"a": {"dtype": "F32", "shape": [4], "data_offsets": [16, 0]}}'),
        header(
            b'{"a": {"dtype": "F32", "shape": [4611686018427387904, 4],'
            b' "data_offsets": [0, 16]}}'
        ),
        header(b'{"a": {"dtype": "X9", "shape": [4], "data_offsets": [0, 16]}}'),
        header(
            b'{"a": {"dtype": "F32", "shape": [4611686018427387904, 0],'
            b' "data_offsets": [0, 0]}}'
        )[:-16],
    ],
)
def test_a_broken_file_is_one_clear_error(content, tmp_path):
    path = write(tmp_path / "a.safetensors", content)
    with pytest.raises(ValueError, match="a.safetensors: "):
        read_safetensors(path)


def test_a_type_that_is_not_read_is_named(tmp_path):
    content = save({"w": np.zeros(16, np.uint8)}).replace(b'"U8"', b'"F8_E5M2"')
    length = int.from_bytes(content[:8], "little")
    text = content[8:].split(b"}}")[0] + b"}}"
    del length
    path = write(tmp_path / "a.safetensors", header(text))
    with pytest.raises(ValueError, match="'w' is of type F8_E5M2, which is not read"):
        read_safetensors(path)


DEEP = "[" * 100_000
# What stands under our own key, and what is wrong with it.
WRONG_METADATA = {
    "broken": ("{", "metadata 'yolojax' is no readable JSON"),
    "deep": (DEEP, "metadata 'yolojax' is no readable JSON"),
    "list": ("[1]", "metadata 'yolojax' is a list, not an object"),
    "constant": ('{"depth_multiple": NaN}', "NaN is no number of JSON"),
    "huge number": (
        '{"depth_multiple": 1e999}',
        "depth_multiple must be a number above",
    ),
    "digits": ('{"nc": ' + "9" * 5000 + "}", "is no readable JSON"),
    "truth": ('{"width_multiple": true}', "width_multiple must be a number above 0"),
    "twice": ('{"loss": "a", "loss": "b"}', "one name twice"),
    "model": ('{"model": "resnet18"}', 'model must be keys and values, not "resnet18"'),
    "one side": (
        '{"image_size": [640]}',
        r"image_size must be two numbers .* not \[640\]",
    ),
    "large side": ('{"image_size": [2147483648, 64]}', "two numbers from 1 to 8,192"),
    "no side": ('{"image_size": [0, 64]}', "two numbers from 1 to 8,192"),
    "true side": ('{"image_size": [true, 64]}', "two numbers from 1 to 8,192"),
    "loss": ('{"loss": ["yolov5"]}', 'loss must be a name, not \\["yolov5"\\]'),
    "letterbox": (
        '{"letterbox": "x\\u001b"}',
        r'letterbox must be one of .* not "x\\u001b"',
    ),
    "letterbox list": ('{"letterbox": []}', "letterbox must be one of"),
    "names": (
        '{"class_names": "abc"}',
        'class_names must be a list of names, not "abc"',
    ),
    "number": ('{"class_names": ["a", 1]}', "class_names must be a list of names"),
    "nested name": ('{"class_names": [["a"]]}', "class_names must be a list of names"),
    "empty name": ('{"class_names": [""]}', "class_names must be a list of names"),
    "nested sides": (
        '{"image_size": ' + "[" * 500 + "]" * 500 + "}",
        "image_size must be two numbers",
    ),
    "rows": ('{"backbone": {}}', "backbone must be a list of rows"),
}


@pytest.mark.parametrize("name", WRONG_METADATA)
def test_wrong_metadata_of_ours_is_one_clear_error(name, tmp_path):
    text, message = WRONG_METADATA[name]
    content = save({"w": np.ones(2)}, {"yolojax": text})
    path = write(tmp_path / "a.safetensors", content)
    with pytest.raises(ValueError, match=message) as caught:
        read_safetensors(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500


def test_names_with_control_characters_are_cleaned(tmp_path):
    path = tmp_path / "a.safetensors"
    write_safetensors(path, ARRAYS, {"class_names": ["\x1b[31m", "b\u202e\n"]})
    assert read_safetensors(path).class_names == ("?[31m", "b??")


def described(**about):
    text = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]} | about
    return json.dumps(text).encode()


A = described()
B = described(data_offsets=[16, 32])
WRONG_HEADERS = {
    "no length": (b"1234567", "7 bytes, of which the header should have"),
    "longer than the file": (
        (2**62).to_bytes(8, "little") + b"{}",
        "10 bytes, of which the header should have 4,611,686,018,427,387,904",
    ),
    "long": ((5 * 2**20).to_bytes(8, "little") + bytes(5 * 2**20), "at most 4,194,304"),
    "no text": (header(b"{\xff}"), "header is no readable JSON .invalid start byte"),
    "deep": (header(b'{"a":' + b"[" * 100_000), "header is no readable JSON"),
    "list": (header(b"[]"), "its header is a list"),
    "infinity": (header(b'{"a": Infinity}'), "Infinity is no number"),
    "one name twice": (header(b'{"a": %b, "a": %b}' % (A, A)), "one name twice"),
    "one key twice": (header(b'{"a": {"dtype": "F32", "dtype": "U8"}}'), "twice"),
    "a number": (header(b'{"a": 1}'), "'a' is described without dtype, shape"),
    "further keys": (header(b'{"a": %b}' % described(x=1)), "described without dtype"),
    "metadata": (header(b'{"__metadata__": 3}'), "__metadata__ is no object"),
    "our metadata": (
        header(b'{"__metadata__": {"yolojax": {}}}'),
        "metadata 'yolojax' is no text",
    ),
    "type": (header(b'{"a": %b}' % described(dtype=["F32"])), "is of type list, which"),
    "escape": (
        header(b'{"\\u001b[31m": %b}' % described(dtype="\x1b]0;x\x07")),
        r"'\\x1b\[31m' is of type \\x1b\]0;x\\x07, which is not read",
    ),
    "shape": (header(b'{"a": %b}' % described(shape=[2.0, 2])), "no size of an array"),
    "infinite": (
        header(b'{"a": {"dtype": "F32", "shape": [1e999], "data_offsets": [0, 16]}}'),
        "no size of an array",
    ),
    "negative": (header(b'{"a": %b}' % described(shape=[-4])), "no size of an array"),
    "many sizes": (header(b'{"a": %b}' % described(shape=[1] * 17)), "no short list"),
    "large": (header(b'{"a": %b}' % described(shape=[2**47, 2])), "is too large"),
    "offsets": (header(b'{"a": %b}' % described(data_offsets=[0])), "not two numbers"),
    "one offset": (header(b'{"a": %b}' % described(data_offsets=16)), "two numbers"),
    "backwards": (header(b'{"a": %b}' % described(data_offsets=[16, 0])), "has -16"),
    "other size": (header(b'{"a": %b}' % described(shape=[5])), "has 16 bytes"),
    "hole": (header(b'{"a": %b}' % B), "starts at byte 16, where .* ends at 0"),
    "overlap": (
        header(b'{"a": %b, "b": %b}' % (A, described(data_offsets=[8, 24]))),
        "'b' starts at byte 8, where the one before ends at 16",
    ),
    "too short": (
        header(b'{"a": %b, "b": %b}' % (A, B)),
        "have 32 bytes, and 16 follow",
    ),
    "left over": (header(b"{}"), "have 0 bytes, and 16 follow"),
    "long name": (header(b'{"%b": %b}' % (b"a" * 501, A)), "has a name too long"),
    "many": (
        header(b"{" + b",".join(b'"%d":0' % n for n in range(20_001)) + b"}"),
        "more than 20,000 tensors",
    ),
}


@pytest.mark.parametrize("name", WRONG_HEADERS)
def test_a_hostile_header_is_one_clear_error(name, tmp_path):
    content, message = WRONG_HEADERS[name]
    path = write(tmp_path / "a.safetensors", content)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=message) as caught:
            read_safetensors(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert str(caught.value).startswith(f"{path}: ")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500
    assert peak < 3 * len(content) + 16 * 2**20


def test_a_file_of_gigabytes_without_a_header_is_refused_unread(tmp_path):
    path = tmp_path / "a.safetensors"
    with path.open("wb") as file:
        file.write((2**33).to_bytes(8, "little") + b"{}")
        file.truncate(2**34)  # a file with a hole
    tracemalloc.start()
    with pytest.raises(ValueError, match="its header has 8,589,934,592 bytes"):
        read_safetensors(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20


def test_a_named_pipe_is_no_regular_file(tmp_path):
    path = tmp_path / "a.safetensors"
    os.mkfifo(path)
    with pytest.raises(ValueError, match="not a regular file but a named pipe"):
        read_safetensors(path)
