"""Files that are broken or mean harm: one clear error each, and nothing runs."""

import io
import os
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
from yolojax.weights import budget
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
    first = (*file.storage(NUMBERS), None)
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


def laughs(depth=40):
    """A list that holds the one before twice, `depth` deep: 2**40 lists to walk."""
    out = b"]q\x00"
    for number in range(depth):
        again = bytes((ord("h"), number))
        out += b"0](" + again + again + b"e" + bytes((ord("q"), number + 1))
    return Raw(out)


def wide(levels=4, width=2_000):
    """A tuple that holds the one before `width` times, `levels` deep."""
    out = encode((1,)) + b"q\x00"
    for number in range(levels):
        again = bytes((ord("h"), number))
        out += b"0(" + again * width + b"t" + bytes((ord("q"), number + 1))
    return Raw(out)


def deep(opcode=b"\x85", depth=100_000):
    return Raw(b")" + opcode * depth)


def keyed(key):
    return of(Raw(b"}" + encode(key) + b"Ns"))


def typed(kind):
    """A tensor of `_rebuild_tensor_v3`, with its type."""
    file = File()
    identity = file.storage(NUMBERS)
    arguments = (Stored(identity), 0, (6,), (1,), False, {}, kind)
    call = Called(Name("torch._utils", "_rebuild_tensor_v3"), arguments)
    return file.zip({"a": call})


def older(version=None, system=None, magic=None, keys=None):
    """The older format with other values before and after the object."""
    file, state = good()
    parts = [
        0x1950A86A20F9469CFC6C if magic is None else magic,
        1001 if version is None else version,
        {"little_endian": True} if system is None else system,
        state,
        ["0"] if keys is None else keys,
    ]
    return b"".join(map(pickled, parts)) + struct.pack("<q", 12) + NUMBERS.tobytes()


def copies_of_arguments():
    """A class with 2,000 arguments, again and again, each time with a keyword."""
    made = b"ca\nB\n" + b"h\x00" + b"}(K\x01Nu" + b"\x92" + b"0"
    return of(Raw(encode((0,) * 2_000) + b"q\x000" + made * 2_000 + b"N"))


def reconstructions():
    name = encode(Name("copyreg", "__newobj__"))
    start = b"(" + encode(Name("a", "B")) + b"K\x00" * 2_000 + b"tq\x000"
    return of(Raw(start + (name + b"h\x00R0") * 2_000 + b"N"))


def many_entries():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as target:
        target.writestr("archive/data.pkl", pickled({}))
        for number in range(75):
            target.writestr(str(number).zfill(60_000), b"")
    return buffer.getvalue()


def one_dict_at_many_places():
    """Each place of a checkpoint holds the same dict, again and again."""
    places = ("ema", "model", "state_dict", "model_state_dict", "module")
    # Texts take the first place in the memo.
    out = encode({f"k{n}": n for n in range(30_000)}) + b"q\x64"
    for number in range(100, 104):
        again = Raw(bytes((ord("h"), number)))
        out += b"0" + encode(dict.fromkeys(places, again))
        out += bytes((ord("q"), number + 1))
    return File().zip(Raw(out))


def one_tensor_with_many_names(names):
    file = File()
    tensor = Raw(encode(file.tensor(NUMBERS)) + b"q\x64")
    again = Raw(b"h\x64")
    state = {name: again for name in names}
    return file.zip({"first": tensor, **state})


def long_names_of_modules():
    """Parts of names that add up: a million letters for each of many tensors."""
    file = File()
    tree = {"w": file.tensor(NUMBERS)}
    for _ in range(10):
        tree = {"m" * 200: tree}
    return file.zip({"model": nested(tree)})


ESC = "\x1b[31m\x1b]0;title\x07\u202e\n"
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
    "nested key": (keyed(deep()), "too deep"),
    "wide key": (keyed(wide()), "a tuple as a key that is too deep or too long"),
    "wide key of a set": (of(Raw(b"\x8f(" + wide().content + b"\x90")), "too deep"),
    "wide key of a frozenset": (of(Raw(b"(" + wide().content + b"\x91")), "too deep"),
    "wide key of a dict from pairs": (
        calling("collections", "OrderedDict", [(wide(), 1)]),
        "too deep or too long",
    ),
    "key of 65 parts": (keyed((1,) * 65), "too deep or too long"),
    "key of five floors": (keyed((((((1,),),),),)), "too deep or too long"),
    "many tuples as keys": (
        of({(1, n): None for n in range(3_000)}),
        "copies the same values again and again",
    ),
    "frozenset as a key": (keyed(Raw(b"(K\x01\x91")), "a frozenset as a key"),
    "complex number as a key": (
        keyed(Called(Name("builtins", "complex"), (1.0, 2.0))),
        "a complex as a key",
    ),
    "byte array as a key": (
        keyed(Raw(b"\x96" + struct.pack("<Q", 1) + b"a")),
        "a bytearray as a key",
    ),
    "number of 100 bits as a key": (keyed(2**100), "a key of more than 64 bits"),
    "list in a key": (keyed((1, [2])), "a list as a key"),
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
    # What has no end when it is shown, compared or hashed.
    "laughs as a type": (typed(laughs()), "a tensor of list: not read"),
    "laughs as NumPy's type": (
        calling("numpy", "dtype", laughs(), False, True),
        None,
    ),
    "laughs as a function": (
        calling("torch._tensor", "_rebuild_from_type_v2", laughs(), 1, (1,), 1),
        "tries to call list",
    ),
    "laughs as an argument": (
        calling("os", "system", laughs()),
        r"tries to call os.system\(list\)",
    ),
    "laughs as an id": (of(Stored((laughs(),))), "no storage's"),
    "laughs in an id": (storage(laughs(), ..., ..., ..., ...), "no storage's"),
    "laughs as a storage's name": (storage(..., ..., laughs(), ..., ...), "no storage"),
    "laughs as a storage's type": (storage(..., laughs(), ..., ..., ...), "no storage"),
    "laughs as a size": (storage(..., ..., ..., ..., laughs()), "no size of an array"),
    "laughs as a view": (
        storage(..., ..., ..., ..., ..., laughs()),
        "is no key, offset and size",
    ),
    "laughs as sizes": (viewed(0, laughs(), (1,)), "no size of an array"),
    "laughs as an offset": (viewed(laughs(), (1,), (1,)), "no size of an array"),
    "laughs as a class": (of(Raw(laughs().content + b")\x81")), "an object of a list"),
    "laughs as a class's name": (
        of(Raw(laughs().content + encode("a") + b"\x93")),
        "names a class by something that is no text",
    ),
    "laughs as a whole": (File().zip(laughs()), "it holds a list"),
    "laughs as keys' values": (File().zip({"epoch": laughs()}), "a dict with epoch"),
    "laughs as a description": (
        File().zip({"yaml": laughs(), "model": laughs()}),
        "a dict with yaml, model",
    ),
    "wide tuple as a type": (typed(wide()), "a tensor of tuple: not read"),
    "deep tuple as a whole": (File().zip(deep()), "it holds a tuple"),
    "older format: laughs as version": (older(version=laughs()), "protocol is list"),
    "older format: deep version": (older(version=deep()), "protocol is tuple"),
    "older format: large version": (older(version=2**1000), "protocol is 1071"),
    "older format: true version": (older(version=True), "protocol is True"),
    "older format: laughs as magic": (older(magic=laughs()), "none that PyTorch wrote"),
    "older format: laughs as system": (older(system=laughs()), "protocol is 1001;"),
    "older format: laughs as keys": (older(keys=[laughs()]), "storage list belongs"),
    "older format: laughs for keys": (older(keys=laughs()), "storage list belongs"),
    # What costs more than it seems.
    "arguments copied": (copies_of_arguments(), "copies the same values again"),
    "arguments cut off": (reconstructions(), "copies the same values again"),
    "sets": (of(Raw(b"\x8f0" * 90_000 + b"N")), None),
    "text of 20 megabytes": (
        lambda: of(Raw(b"\x8d" + struct.pack("<Q", 20 * 2**20) + bytes(20 * 2**20))),
        "a value of 20,971,520 bytes, at most 16,777,216",
    ),
    "line of two megabytes": (
        of(Raw(b"c" + b"a" * 2**21 + b"\nb\n")),
        "a line of more than 1,048,576 bytes",
    ),
    "class name of a megabyte": (
        of(Raw(encode("a" * 2**20) + encode("B") + b"\x93")),
        "names a class by more than 1,000 letters",
    ),
    "digits": (of(Raw(b"I" + b"9" * 10_000 + b"\n")), "pickle is broken or cut off"),
    "no number": (of(Raw(b"Fabc\x1b[31m\n")), r"could not convert .*x1b\[31m"),
    "list of entries": (many_entries, "list of entries has more than 4,194,304"),
    "one dict at many places": (one_dict_at_many_places, "no weights in it"),
    "one tensor with many names": (
        one_tensor_with_many_names(f"t{n}" for n in range(20_001)),
        "more than 20000 tensors",
    ),
    "long name of a tensor": (
        one_tensor_with_many_names(["n" * 501]),
        "has a name too long",
    ),
    "long names of modules": (long_names_of_modules(), "has a name too long"),
    "expanded view of 10^9": (viewed(0, (10**9,), (0,)), "more elements than"),
    # Text that commands a terminal.
    "class with escapes": (
        File().zip(Made(Name("a\x1b[31m", "B"), ())),
        r"it holds a a\\x1b\[31m.B",
    ),
    "call with escapes": (calling("os", "system", ESC), r"x1b\]0;title"),
    "storage with escapes": (storage(..., ..., ESC, ..., ...), r"data/\\x1b\[31m"),
    "storage's type with escapes": (
        storage(..., Name("torch", "Q\x1b[2J"), ..., ..., ...),
        r"is a torch.Q\\x1b\[2J, which",
    ),
    "keys with escapes": (File().zip({ESC: 1, "b": 2}), r"a dict with \\x1b\[31m"),
    "NumPy's type with escapes": (
        of(
            Called(
                Name("numpy.core.multiarray", "scalar"),
                (Called(Name("numpy", "dtype"), (ESC, False, True)), b"1"),
            )
        ),
        r"type '\\x1b\[31m",
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

HARMLESS = {"huge place in the memo", "laughs as NumPy's type", "sets"}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_one_clear_error(name, tmp_path, monkeypatch):
    monkeypatch.setattr(budget, "MAX_OPERATIONS", 200_000)
    content, message = HOSTILE[name]
    content = content() if callable(content) else content
    path = write(tmp_path / "weights.pt", content)
    tracemalloc.start()
    try:
        if name in HARMLESS:
            assert list(read_pytorch(path).state) == ["a"]
        else:
            with pytest.raises(ValueError, match=message) as caught:
                read_pytorch(path)
            assert str(caught.value).startswith(str(path))
            assert len(str(caught.value)) < 600
            assert str(caught.value).isprintable()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # The interpreter's own share: objects and places of 200,000 operations.
    assert peak < 2 * len(content) + 24 * 2**20


def test_texts_of_wide_letters_are_counted_with_what_they_take(tmp_path, monkeypatch):
    """A letter of four bytes makes all of a text's letters so: 3 MB become 12."""
    monkeypatch.setattr(budget, "MAX_MEMORY", 20_000_000)
    text = encode("\U0001f600" + "a" * 3_000_000)
    path = write(tmp_path / "weights.pt", of(Raw(text + b"0" + text)))
    assert path.stat().st_size < 7_000_000
    with pytest.raises(ValueError, match="or 20,000,000 bytes of values"):
        read_pytorch(path)


def test_empty_sets_are_counted_with_what_they_take(tmp_path, monkeypatch):
    monkeypatch.setattr(budget, "MAX_MEMORY", 20_000_000)
    path = write(tmp_path / "weights.pt", of(Raw(b"\x8f" * 100_000)))
    tracemalloc.start()
    with pytest.raises(ValueError, match="or 20,000,000 bytes of values"):
        read_pytorch(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 25e6


def test_a_tensor_of_another_type_than_its_storage_stays_in_it(tmp_path):
    """Three floats are one double: its bytes, and nothing behind them."""
    file = File()
    identity = file.storage(np.array([1.5, -2.0, 3.0], np.float32))
    arguments = (Stored(identity), 0, (1,), (1,), False, {}, Name("torch", "float64"))
    call = Called(Name("torch._utils", "_rebuild_tensor_v3"), arguments)
    path = write(tmp_path / "weights.pt", file.zip({"a": call}))
    expected = struct.unpack("<d", struct.pack("<ff", 1.5, -2.0))
    assert read_pytorch(path).state["a"].tolist() == list(expected)


@pytest.mark.parametrize("kind", ["pipe", "folder", "device"])
def test_only_regular_files_are_opened(kind, tmp_path):
    path = tmp_path / "weights.pt"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path = Path("/dev/zero")
    with pytest.raises(ValueError, match="not a regular file but a"):
        read_pytorch(path)


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
    with pytest.raises(ValueError, match="^nowhere.pt: No such file"):
        read_pytorch(Path("nowhere.pt"))
