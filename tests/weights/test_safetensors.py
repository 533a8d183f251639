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
    [None, {"format": "pt"}, {"yolojax": "{"}, {"yolojax": "[" * 100_000}],
    ids=["none", "another", "broken", "deep"],
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
