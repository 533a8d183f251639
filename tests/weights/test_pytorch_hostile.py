"""Files that are broken or mean harm: one clear error each, and nothing runs."""

import io
import pickle
import struct
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tests.shared import shared
from tests.weights.pickles import (
    Called,
    File,
    Made,
    Name,
    Raw,
    Stored,
    encode,
    module,
    nested,
    odict,
    pickled,
    write,
)
from yolojax.weights import unpickle
from yolojax.weights.pytorch import read_pytorch

NUMBERS = np.arange(12, dtype=np.float32)


def good(**changes):
    file = File()
    return file, {"a": file.tensor(NUMBERS), **changes}


def viewed(offset, shape, strides):
    file = File()
    return file.zip({"a": file.view(file.storage(NUMBERS), offset, shape, strides)})


def of(value):
    file, state = good()
    return file.zip({**state, "bad": value})


def calling(module_name, name, *arguments):
    return of(Called(Name(module_name, name), arguments))


def storage(*identity):
    file = File()
    first = file.storage(NUMBERS)
    identity = tuple(
        b if a is Ellipsis else a for a, b in zip(identity, first, strict=False)
    )
    return file.zip({"a": file.view(identity, 0, (12,), (1,))})


def archive(change=None, compression=zipfile.ZIP_STORED, **entries):
    """A right archive, changed: `entries` by name, None leaves one out."""
    file, state = good()
    parts = {
        "data.pkl": pickled(state),
        "data/0": NUMBERS.tobytes(),
        "version": b"3\n",
        **entries,
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as target:
        for name, content in parts.items():
            if content is not None:
                target.writestr(f"archive/{name}", content)
    content = bytearray(buffer.getvalue())
    if change is not None:
        change(content)
    return bytes(content)


def patch_sizes(content):
    """State four gigabytes for data/0 in the archive's directory."""
    place = content.rindex(b"archive/data/0") - 46
    content[place + 20 : place + 28] = struct.pack("<II", 2**32 - 2, 2**32 - 2)


def patch_uncompressed(content):
    place = content.rindex(b"archive/data/0") - 46
    content[place + 24 : place + 28] = struct.pack("<I", 2**31)


def overlap(content):
    """Let the directory say that the version starts where data.pkl does."""
    place = content.rindex(b"archive/version") - 46
    content[place + 42 : place + 46] = struct.pack("<I", 0)


def flip_in_data(content):
    content[content.index(NUMBERS.tobytes()) + 5] ^= 1


def legacy(cut=None, change=None, **parts):
    file, state = good()
    content = file.legacy(state)
    if change is not None:
        content = change(content)
    return content[:cut]


def self_containing_module():
    file = File()
    inner = module("a.B", buffers={"w": file.tensor(NUMBERS)})
    loop = Raw(
        encode(inner) + b"q\x05" + encode({"_modules": {"again": Raw(b"h\x05")}}) + b"b"
    )
    return file.zip({"model": loop})


def shared_modules():
    """Thirty floors, each with the one below twice: a thousand million modules."""
    file = File()
    value = encode(module("a.B", buffers={"w": file.tensor(NUMBERS)}))
    for number in range(30):
        both = Raw(value + bytes((ord("q"), number)))
        again = Raw(bytes((ord("h"), number)))
        value = encode(Made(Name("a", "B"), (), {"_modules": {"x": both, "y": again}}))
    return file.zip({"model": Raw(value)})


def deep_modules():
    file = File()
    tree = {"w": file.tensor(NUMBERS)}
    for _ in range(100):
        tree = {"inner": tree}
    return file.zip({"model": nested(tree)})


BIG = 2**62
HOSTILE = {
    # Not what it says it is, or cut off.
    "empty": (b"", "starts with nothing"),
    "text": (b"hello, world", "no PyTorch file: it starts with the bytes 68 65"),
    "gzip": (b"\x1f\x8b\x08\0" + bytes(50), "starts with the bytes 1f 8b"),
    "only PK": (b"PK\x03\x04", "broken zip archive, perhaps cut off"),
    "zip cut in half": (archive()[:200], "broken zip archive, perhaps cut off"),
    "zip without its end": (archive()[:-10], "broken zip archive, perhaps cut off"),
    "zip without a pickle": (archive(**{"data.pkl": None}), "0 entries named data.pkl"),
    "zip with two pickles": (
        archive(**{"x/data.pkl": b"\x80\x02N."}),
        "2 entries named data.pkl",
    ),
    "zip with a missing storage": (archive(**{"data/0": None}), "data/0' is missing"),
    "zip with a short storage": (
        archive(**{"data/0": b"1234"}),
        "has 4 bytes, where the pickle states 48",
    ),
    "zip with an empty pickle": (
        archive(**{"data.pkl": b""}),
        "pickle is broken or cut off",
    ),
    "zip with half a pickle": (
        archive(**{"data.pkl": pickled(good()[1])[:60]}),
        "pickle is broken or cut off",
    ),
    "bit flipped in a storage": (archive(flip_in_data), "Bad CRC-32"),
    "TorchScript": (archive(**{"constants.pkl": b"\x80\x02)."}), "TorchScript"),
    "big-endian": (archive(byteorder=b"big"), "big-endian"),
    # Bombs.
    "compressed": (archive(compression=zipfile.ZIP_DEFLATED), "is compressed"),
    "compressed zeros": (
        archive(compression=zipfile.ZIP_DEFLATED, **{"data/1": bytes(10_000_000)}),
        "is compressed",
    ),
    "sizes of four gigabytes": (archive(patch_sizes), "states 4294967294 bytes"),
    "two sizes": (
        archive(patch_uncompressed),
        "states 2147483648 bytes, stored are 48",
    ),
    "overlapping entries": (
        archive(overlap, version=bytes(900)),
        "'archive/.*' overlaps another one",
    ),
    "endless operations": (of(Raw(b"N0" * 110_000 + b"N")), "larger than 200,000"),
    "copies of one list": (
        of(
            Raw(
                encode([0] * 10_000)
                + b"q\x00"
                + b"".join(
                    b"0" + encode(Called(Name("builtins", "list"), (Raw(b"h\x00"),)))
                    for _ in range(250)
                )
            )
        ),
        "copies the same values again and again",
    ),
    "huge place in the memo": (of(Raw(b"Nr\xff\xff\xff\x7f")), None),
    "bytes longer than the file": (
        of(Raw(b"\x8e" + struct.pack("<Q", 2**40))),
        "expected 1099511627776 bytes",
    ),
    "integer of a megabyte": (
        of(Raw(b"\x8b" + struct.pack("<i", 2**20) + b"\x01" * 2**20)),
        "an integer of 8388601 bits",
    ),
    "expanded tensor": (viewed(0, (2**20, 2**20), (0, 0)), "more elements than"),
    "shared modules": (shared_modules(), "more than 20000 tensors and modules"),
    # Sizes and strides.
    "tensor behind its storage": (viewed(1, (12,), (1,)), "leaves its storage"),
    "strides leave the storage": (viewed(0, (3, 4), (5, 1)), "leaves its storage"),
    "negative stride": (viewed(11, (12,), (-1,)), "strides of a tensor has an entry"),
    "negative size": (viewed(0, (-3,), (1,)), "shape of a tensor has an entry"),
    "negative offset": (viewed(-1, (3,), (1,)), "offset of a tensor has an entry"),
    "sizes that overflow": (viewed(0, (BIG, BIG), (1, 1)), "shape of a tensor"),
    "product that overflows": (viewed(0, (2**31,) * 3, (0,) * 3), "is too large"),
    "stride that overflows": (viewed(0, (2, 2), (BIG, 1)), "strides of a tensor"),
    "offset that overflows": (viewed(BIG, (2,), (1,)), "offset of a tensor"),
    "fewer strides than sizes": (viewed(0, (3, 4), (1,)), "with strides"),
    "forty sizes": (viewed(0, (1,) * 40, (1,) * 40), "no short list of integers"),
    "sizes that are text": (viewed(0, ("3",), (1,)), "is no size of an array"),
    "sizes that are true": (viewed(0, (True,), (1,)), "is no size of an array"),
    "sizes that are no list": (viewed(0, 12, 1), "no short list"),
    # Storages.
    "storage of an unknown type": (
        storage(..., Name("torch", "QInt8Storage"), ..., ..., ...),
        "is a torch.QInt8Storage, which is not read",
    ),
    "storage of negative size": (storage(..., ..., ..., ..., -12), "size of a storage"),
    "storage that overflows": (storage(..., ..., ..., ..., BIG), "size of a storage"),
    "storage larger than stored": (
        storage(..., ..., ..., ..., 13),
        "has 48 bytes, where the pickle states 52",
    ),
    "storage out of the archive": (
        storage(..., ..., "../../../etc/passwd", ..., ...),
        "is missing",
    ),
    "storage without a name": (storage(..., ..., 0, ..., ...), "no storage's"),
    "id that is no storage": (of(Stored(("module", 1))), "no storage's"),
    "id that is text": (of(Raw(b"Pabc\n")), "no storage's"),
    "tensor without a storage": (
        calling("torch._utils", "_rebuild_tensor_v2", 1, 0, (1,), (1,)),
        "a tensor without a storage",
    ),
    "tensor of no arguments": (calling("torch._utils", "_rebuild_tensor_v2"), None),
    "quantised tensor": (
        calling("torch._utils", "_rebuild_qtensor", 1),
        "call torch._utils._rebuild_qtensor",
    ),
    # The pickle itself.
    "stack that is empty": (of(Raw(b"00000000")), "empty stack"),
    "group that was never opened": (archive(**{"data.pkl": b"\x80\x02t."}), "never"),
    "unknown opcode": (of(Raw(b"\xfe")), "unknown"),
    "memo that is empty": (of(Raw(b"h\xf7")), "contradicts itself"),
    "extension registry": (of(Raw(b"\x82\x01")), "uses EXT1"),
    "out-of-band buffer": (of(Raw(b"\x97")), "uses NEXT_BUFFER"),
    "odd number of items": (of(Raw(b"}(NNNu")), "sets 3 keys and values"),
    "items of a number": (of(Raw(b"K\x01NNs")), "keys and values of a int"),
    "append to a dict": (of(Raw(b"}Na")), "appends to a dict"),
    "list as a key": (of(Raw(b"}]Ns")), "a list as a key"),
    "nested key": (of(Raw(b"})" + b"\x85" * 100_000 + b"Ns")), "too deep"),
    "set that contains a dict": (of(Raw(b"\x8f(}\x90")), "a dict as a key"),
    "state of a number": (of(Raw(b"K\x01}b")), "sets the state of a int"),
    "state of a function": (of(Raw(b"cos\nsystem\n}b")), "sets the state of a Global"),
    "states without end": (of(Raw(b"ca\nB\n)\x81" + b"}b" * 9)), "too often"),
    "class that is a number": (of(Raw(b"K\x01)\x81")), "makes an object of a int"),
    "call with a list": (of(Raw(b"ca\nB\n]R")), "calls with a list"),
    "call of a value": (of(Raw(b"K\x01)R")), "call an object of type int"),
    "numpy objects": (
        of(
            Called(
                Name("numpy.core.multiarray", "scalar"),
                (Called(Name("numpy", "dtype"), ("O8", False, True)), b"12345678"),
            )
        ),
        "type 'O8': not read",
    ),
    "numpy array larger than its bytes": (
        of(
            Called(
                Name("numpy.core.multiarray", "_reconstruct"),
                (1, (0,), b"b"),
                (
                    1,
                    (2**20, 2**20),
                    Called(Name("numpy", "dtype"), ("f4", False, True)),
                    False,
                    b"1234",
                ),
            )
        ),
        "shape .1048576, 1048576. in 4 bytes",
    ),
    # Modules.
    "module in itself": (self_containing_module(), "contains itself"),
    "modules without end": (deep_modules(), "nested deeper than 64"),
    "nothing of use": (File().zip({"epoch": 3}), "no weights in it: it holds a dict"),
    "a number": (File().zip(3), "no weights in it: it holds a int"),
    # The older format.
    "another pickle": (pickle.dumps([1, 2]), "a pickle, but none that PyTorch wrote"),
    "older format: cut in its magic": (legacy(5), "pickle is broken or cut off"),
    "older format: cut in its pickle": (legacy(150), "pickle is broken or cut off"),
    "older format: cut in its storage": (legacy(-1), "cut off in its storage '0'"),
    "older format: cut before it": (legacy(-50), "cut off in its storage '0'"),
    "older format: another size": (
        legacy(
            change=lambda c: c.replace(struct.pack("<q", 12), struct.pack("<q", 13))
        ),
        "has 13 elements, where the pickle states 12",
    ),
    "older format: negative size": (
        legacy(
            change=lambda c: c.replace(struct.pack("<q", 12), struct.pack("<q", -1))
        ),
        "has -1 elements",
    ),
    "older format: no keys": (
        legacy(change=lambda c: c.replace(pickled(["0"]), pickled([]))),
        "storage '0' is missing",
    ),
    "older format: keys without end": (
        legacy(change=lambda c: c.replace(pickled(["0"]), pickled(["0", "0"]))),
        "list of storages is broken",
    ),
    "older format: a key of nothing": (
        legacy(change=lambda c: c.replace(pickled(["0"]), pickled(["0", "7"]))),
        "'7' belongs to no tensor",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_one_clear_error(name, tmp_path, monkeypatch):
    monkeypatch.setattr(unpickle, "MAX_OPERATIONS", 200_000)
    content, message = HOSTILE[name]
    path = write(tmp_path / "weights.pt", content)
    tracemalloc.start()
    try:
        if message is None and name == "huge place in the memo":
            assert list(read_pytorch(path).state) == ["a"]
        else:
            with pytest.raises(ValueError, match=message) as caught:
                read_pytorch(path)
            assert str(caught.value).startswith(str(path))
            assert len(str(caught.value)) < 600
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # The interpreter's own share: objects and places of 200,000 operations.
    assert peak < 2 * len(content) + 24 * 2**20


CALLS = [
    ("os", "system"),
    ("posix", "system"),
    ("nt", "system"),
    ("subprocess", "Popen"),
    ("subprocess", "check_output"),
    ("builtins", "eval"),
    ("__builtin__", "eval"),
    ("builtins", "exec"),
    ("builtins", "getattr"),
    ("builtins", "__import__"),
    ("builtins", "open"),
    ("importlib", "import_module"),
    ("runpy", "run_path"),
    ("webbrowser", "open"),
    ("socket", "socket"),
    ("pickle", "loads"),
    ("torch", "load"),
    ("torch.hub", "load"),
    ("torch.storage", "_load_from_bytes"),
    ("numpy", "load"),
    ("pip._internal", "main"),
    ("operator", "attrgetter"),
    ("functools", "partial"),
    ("ctypes", "CDLL"),
    ("multiprocessing.process", "Process"),
    ("os", "system\x1b[31m"),
]


@pytest.mark.parametrize(("where", "name"), CALLS, ids=map(".".join, CALLS))
@pytest.mark.parametrize("how", ["reduce", "instance", "object", "stack", "subclass"])
def test_a_call_is_refused_and_named_and_not_made(where, name, how, tmp_path):
    canary = tmp_path / "canary"
    command = f"touch {canary}"
    function = Name(where, name)
    arguments = encode(command)
    calls = {
        "reduce": Called(function, (command,)),
        "instance": Raw(b"(" + arguments + f"i{where}\n{name}\n".encode()),
        "object": Raw(b"(" + encode(function) + arguments + b"o"),
        "stack": Raw(
            encode(where) + encode(name) + b"\x93" + encode((command,)) + b"R"
        ),
        "subclass": Called(
            Name("torch._tensor", "_rebuild_from_type_v2"),
            (function, Name("a", "B"), (command,), {}),
        ),
    }
    for content in (of(calls[how]), legacy_of(calls[how])):
        path = write(tmp_path / "weights.pt", content)
        with pytest.raises(ValueError, match="tries to call") as caught:
            read_pytorch(path)
        assert f"{where}.{name}".replace("\x1b", r"\x1b") in str(caught.value)
        assert not canary.exists()


def legacy_of(value):
    file, state = good()
    return file.legacy({**state, "bad": value})


def test_hooks_of_objects_are_not_run(tmp_path, monkeypatch):
    """State, keywords and class names of our own modules: nothing is looked up."""
    canary = tmp_path / "canary"

    class Trap:
        def __setstate__(self, state):
            canary.touch()

        def __init__(self, *arguments):
            canary.touch()

        def __hash__(self):
            canary.touch()
            return 0

    monkeypatch.setitem(globals(), "Trap", Trap)
    kind = Name(__name__, "Trap")
    for trap in (
        Made(kind, (), {"a": 1}),
        Called(kind, (1,), {"a": 1}),
        Raw(
            encode(kind)
            + b")}\x92"
            + encode({"__setstate__": Name("os", "system")})
            + b"b"
        ),
        Raw(b"}" + encode(Made(kind)) + b"Ns"),
        Made(Name("os", "system"), ("touch " + str(canary),)),
    ):
        path = write(tmp_path / "weights.pt", of(trap))
        assert list(read_pytorch(path).state) == ["a"]
    assert not canary.exists()


@pytest.mark.parametrize("how", ["zip", "legacy"])
def test_every_truncation_is_an_error(how, tmp_path):
    file, state = good(b=odict({"c": 1}))
    content = getattr(file, how)(state)
    for length in range(0, len(content), 3):
        path = write(tmp_path / "weights.pt", content[:length])
        with pytest.raises(ValueError, match="weights.pt: "):
            read_pytorch(path)


def test_the_published_file_cut_anywhere_is_an_error(tmp_path):
    content = shared("weights", "yolov5n.pt").read_bytes()
    for share in (0.0001, 0.01, 0.02, 0.3, 0.9, 0.99, 0.9999):
        path = write(tmp_path / "weights.pt", content[: int(len(content) * share)])
        with pytest.raises(ValueError, match="weights.pt: "):
            read_pytorch(path)


def test_reading_takes_no_more_memory_than_twice_the_tensors(tmp_path):
    for how in ("zip", "legacy"):
        file = File()
        array = np.zeros((4, 2**20), np.float32)
        state = {"a": file.tensor(array), "b": file.tensor(array.T)}
        path = write(tmp_path / "weights.pt", getattr(file, how)(state))
        size = path.stat().st_size
        del file, state
        tracemalloc.start()
        contents = read_pytorch(path)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert contents.state["b"].shape == (2**20, 4)
        assert peak < 2 * size


def test_a_missing_file_says_so():
    with pytest.raises(FileNotFoundError):
        read_pytorch(Path("nowhere.pt"))
