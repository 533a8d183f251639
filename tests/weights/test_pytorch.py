import sys

import numpy as np
import pytest

from tests.shared import shared
from tests.weights.pickles import (
    KINDS,
    Called,
    File,
    Made,
    Name,
    Raw,
    Stored,
    module,
    nested,
    odict,
    parameter,
    write,
)
from yolojax.weights.pytorch import read_pytorch

VALUES = np.arange(12).reshape(3, 4)


@pytest.fixture(params=["zip", "legacy"])
def save(request, tmp_path):
    """A function that writes a file of either format and reads it."""

    def save(file, value):
        content = getattr(file, request.param)(value)
        return read_pytorch(write(tmp_path / "weights.pt", content))

    return save


def test_published_file_equals_the_originals_own_reading_bit_for_bit():
    contents = read_pytorch(shared("weights", "yolov5n.pt"))
    with np.load(shared("golden", "state_n_real.npz")) as file:
        expected = dict(file)
    assert set(contents.state) == set(expected)
    for name, array in contents.state.items():
        assert array.dtype in (np.float16, np.int64)
        np.testing.assert_array_equal(array, expected[name], err_msg=name)
    assert contents.place == "model"
    assert contents.strides == (8, 16, 32)
    assert contents.class_names is not None
    assert contents.class_names[:2] == ("person", "bicycle")
    assert len(contents.class_names) == 80
    assert contents.description["depth_multiple"] == 0.33
    assert {"Model", "C3", "SPPF", "Detect"} <= set(contents.kinds)
    assert "torch" not in sys.modules


@pytest.mark.parametrize("dtype", KINDS)
def test_every_type_comes_back_as_it_was(save, dtype):
    file, array = File(), VALUES.astype(dtype)
    (found,) = save(file, odict({"a": file.tensor(array)})).state.values()
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, array)


def test_bfloat16_is_the_upper_half_of_float32(save):
    file = File()
    numbers = np.array([1.5, -2.0, 3e38], np.float32)
    bits = (numbers.view(np.uint32) >> 16).astype(np.uint16)
    found = save(file, {"a": file.tensor(bits, "BFloat16Storage")}).state["a"]
    expected = (bits.astype(np.uint32) << 16).view(np.float32)
    np.testing.assert_array_equal(found.astype(np.float32), expected)


def test_views_of_one_storage_have_their_own_offsets_and_strides(save):
    file = File()
    flat = np.arange(24, dtype=np.float32)
    identity = file.storage(flat)
    state = {
        "whole": file.view(identity, 0, (4, 6), (6, 1)),
        "turned": file.view(identity, 0, (6, 4), (1, 6)),
        "part": file.view(identity, 7, (2, 3), (6, 2)),
        "one": file.view(identity, 23, (), ()),
        "none": file.view(identity, 24, (0, 3), (3, 1)),
    }
    found = save(file, odict(state)).state
    whole = flat.reshape(4, 6)
    expected = {
        "whole": whole,
        "turned": whole.T,
        "part": whole[1:3, 1:6:2],
        "one": np.float32(23),
        "none": np.zeros((0, 3), np.float32),
    }
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)
    assert np.shares_memory(found["whole"], found["part"])


def test_a_view_of_a_storage_in_the_older_format(tmp_path):
    file = File()
    identity = file.storage(np.arange(10, dtype=np.float32))
    tensor = file.view((*identity, ("view", 4, 3)), 1, (2,), (1,))
    path = write(tmp_path / "a.pth", file.legacy({"a": tensor}))
    np.testing.assert_array_equal(read_pytorch(path).state["a"], [5, 6])
    for view, shape in ((("view", 8, 3), (2,)), (("view", 4, 3), (4,))):
        tensor = file.view((*identity, view), 0, shape, (1,))
        path = write(tmp_path / "b.pth", file.legacy({"a": tensor}))
        with pytest.raises(ValueError, match="leaves its (storage|view)"):
            read_pytorch(path)


def test_an_untyped_storage_takes_the_tensors_type(tmp_path):
    file = File()
    numbers = np.arange(6, dtype=np.float32)
    identity = file.storage(numbers.view(np.uint8))
    identity = (identity[0], Name("torch.storage", "UntypedStorage"), *identity[2:])
    arguments = (Stored(identity), 2, (2, 2), (2, 1), False, odict())
    tensor = Called(
        Name("torch._utils", "_rebuild_tensor_v3"),
        (*arguments, Name("torch", "float32"), {}),
    )
    path = write(tmp_path / "a.pt", file.zip({"a": tensor}))
    np.testing.assert_array_equal(read_pytorch(path).state["a"], [[2, 3], [4, 5]])


def test_modules_are_walked_as_a_state_dict_names_them(save):
    file = File()
    tree = {"model": {"0": {"conv": {"weight": file.tensor(VALUES)}}}}
    inner = nested(tree["model"])
    buffers = {"mean": file.tensor(VALUES[0]), "scratch": file.tensor(VALUES[1])}
    state = {
        "names": {1: "cat", 0: "dog"},
        "stride": file.tensor(np.array([8.0, 16.0])),
        "yaml": {"nc": 2},
        "_non_persistent_buffers_set": Called(
            Name("__builtin__", "set"), (["scratch"],)
        ),
    }
    top = module("models.yolo.Model", state, buffers=buffers, modules={"model": inner})
    contents = save(file, {"epoch": 3, "ema": None, "model": top})
    assert list(contents.state) == ["mean", "model.0.conv.weight"]
    assert contents.class_names == ("dog", "cat")
    assert contents.strides == (8, 16)
    assert contents.description == {"nc": 2}
    assert contents.kinds == ("Model", "Module")


@pytest.mark.parametrize("place", ["ema", "model", "state_dict", ""])
def test_the_averaged_weights_are_preferred(save, place):
    file = File()
    order = ["ema", "model", "state_dict"]
    later = order[order.index(place) :] if place else []
    whole = {
        name: odict({"w": file.tensor(np.full(2, i))}) for i, name in enumerate(later)
    }
    whole = whole or {"w": file.tensor(np.zeros(2, np.int64)), "epoch": 3}
    contents = save(file, whole)
    assert contents.place == place
    np.testing.assert_array_equal(contents.state["w"], [0, 0])


def test_parameters_with_attributes_and_tied_ones_are_read(save):
    file = File()
    tensor = file.tensor(VALUES)
    with_state = Called(
        Name("torch._utils", "_rebuild_parameter_with_state"),
        (tensor, True, odict(), {"tag": 1}),
    )
    of_subclass = Called(
        Name("torch._tensor", "_rebuild_from_type_v2"),
        (tensor.function, Name("x", "Y"), tensor.arguments, {}),
    )
    found = save(file, {"a": with_state, "b": of_subclass, "c": parameter(tensor)})
    for array in found.state.values():
        np.testing.assert_array_equal(array, VALUES)


def test_numpy_arrays_and_training_options_are_data(save):
    file = File()
    kind = Called(
        Name("numpy", "dtype"),
        ("f4", False, True),
        (3, "<", None, None, None, -1, -1, 0),
    )
    array = np.arange(6, dtype=np.float32)
    core = "numpy.core.multiarray"
    content = Called(
        Name("_codecs", "encode"), (array.tobytes().decode("latin-1"), "latin1")
    )
    value = {
        "best_fitness": Called(Name(core, "scalar"), (kind, array[:1].tobytes())),
        "opt": Made(Name("argparse", "Namespace"), (), {"epochs": 3}),
        "save_dir": Called(Name("pathlib", "PosixPath"), ("runs", "train")),
        "date": Called(Name("datetime", "datetime"), (b"\x07\xe6" + bytes(8),)),
        "other": Called(Name("my.package", "Setting"), (1, 2)),
        "old": Called(
            Name("copy_reg", "_reconstructor"),
            (Name("a.b", "C"), Name("__builtin__", "object"), None),
        ),
        "a": Called(
            Name(core, "_reconstruct"),
            (Name("numpy", "ndarray"), (0,), b"b"),
            (1, (2, 3), kind, False, content),
        ),
        "fortran": Called(
            Name(core, "_reconstruct"),
            (Name("numpy", "ndarray"), (0,), b"b"),
            (1, (2, 3), kind, True, array.tobytes()),
        ),
    }
    state = save(file, value).state
    np.testing.assert_array_equal(state["a"], array.reshape(2, 3))
    np.testing.assert_array_equal(state["fortran"], array.reshape(3, 2).T)


def test_the_same_as_pythons_own_unpickler_on_plain_data():
    """Every protocol, every container: what the machine leaves is what Python does."""
    import collections
    import io
    import pickle

    from yolojax.weights.unpickle import Machine

    shared_list = [1, 2]
    value = {
        "numbers": [0, 255, 65536, -1, 2**31, -(2**70), 1.5, True, None],
        "text": ["", "a" * 300, "ä\n€", b"", b"x" * 300],
        "nested": ({"a": (1,)}, (), (1, 2), (1, 2, 3), (1, 2, 3, 4)),
        "sets": [{1, 2}, frozenset("ab"), set()],
        "same": [shared_list, shared_list],
        "ordered": collections.OrderedDict(a=1, b=[2]),
        "default": collections.defaultdict(list, a=[1]),
        "complex": complex(1, 2),
        (1, ("a", 2)): "key",
    }
    for protocol in range(6):
        content = pickle.dumps(value, protocol)
        found = Machine({}, print).run(io.BytesIO(content))
        assert found == value
        assert found["same"][0] is found["same"][1]


def test_class_names_that_are_none_are_left_out_and_odd_ones_cleaned(save):
    for names, expected in (
        (["a\n\x1b[31m", "b"], ("a??[31m", "b")),
        ({0: "a", 2: "b"}, None),
        ([[]], None),
        ("ab", None),
    ):
        file = File()
        state = {"names": names}
        top = module("m.M", state, buffers={"w": file.tensor(VALUES)})
        assert save(file, {"model": top}).class_names == expected


def test_deep_lists_that_hold_no_weights_do_not_matter(save):
    file = File()
    deep = Raw(b"]" * 100_000 + b"a" * 99_999)
    found = save(file, {"a": file.tensor(VALUES), "deep": deep}).state
    assert list(found) == ["a"]
