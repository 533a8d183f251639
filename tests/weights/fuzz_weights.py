"""Reads damaged files of weights; see `tests.fuzzing`.

    python -m tests.weights.fuzz_weights --seconds 300 --seed 0

Files are mutated from a published YOLOv5 and a Darknet pair (where the reference
material lies beside the checkout), from small files in both of PyTorch's formats, from
`.safetensors` with and without our metadata, and from pickles of random steps.
"""

from __future__ import annotations

import functools
import io
import json
import struct
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from tests import fuzzing
from tests.shared import ROOT
from tests.weights.pickles import File, Name, encode, module, nested, odict
from yolojax.models.classifiers import build_classifier
from yolojax.weights import own
from yolojax.weights.published import read_published, read_weights

NAME = "fuzzed"
# Bytes that mean something in a pickle.
OPCODES = b"(.0123FGIJKLMNPQRSTUVX]abcde}hijlopqrstu)\x80\x81\x82\x85\x86\x87\x88\x89"
OPCODES += b"\x8a\x8b\x8c\x8d\x8e\x8f\x90\x91\x92\x93\x94\x95\x96\x97\x98"
VALUES: list[Any] = [
    *(0, 1, -1, 2, 10**6, 2**31, 2**63, 10**30, 0.5, 1e308, True, False, None),
    *("", "x", "\x1b[31m\n", "resnet18", "yolo", [], {}, [[]], ["a"], [1, 2], {"a": 1}),
    *([[[1, 2]]] * 3, "9" * 5000, [0] * 100),
]


class Case:
    """An input: files by suffix; the first one is read."""

    def __init__(self, files: dict[str, bytes], *, whole: bool = True):
        self.files, self.whole = files, whole


@functools.cache
def published(name: str) -> bytes | None:
    """A file of the reference material, or None."""
    path = ROOT / "weights" / name
    return path.read_bytes() if path.is_file() else None


@functools.cache
def small(how: str) -> bytes:
    """A small file in one of PyTorch's formats, with all that such files hold."""
    file = File()
    numbers = np.arange(12, dtype=np.float32).reshape(3, 4)
    tree = {"0": {"conv": {"weight": file.tensor(numbers)}}, "1": {"w": file.tensor(1)}}
    state = {"names": ["a", "b"], "stride": file.tensor([8.0]), "yaml": {"nc": 2}}
    top = module("m.Model", state, modules={"model": nested(tree)})
    value = {"epoch": 3, "model": top, "ema": None, "opt": odict({"lr": 0.1})}
    return getattr(file, how)(value)


@functools.cache
def ours() -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Metadata and arrays of a small classifier of ours."""
    model = build_classifier("cnn11", num_classes=2)
    settings = {"model": {"name": "cnn11"}, "image_size": (32, 32)}
    about = own.description_of(model, settings) | {"class_names": ["a", "b"]}
    return about, own.to_own(model, model.init(0))


def flipped(rng: np.random.Generator, content: bytes, *, most: int = 8) -> bytes:
    """Bytes changed, left out, doubled, or cut off."""
    out = bytearray(content)
    for _ in range(int(rng.integers(1, most + 1))):
        place = int(rng.integers(0, max(1, len(out))))
        match int(rng.integers(0, 7)):
            case 0 | 1:
                out[place : place + 1] = bytes((int(rng.integers(0, 256)),))
            case 2:
                out[place : place + 1] = bytes((OPCODES[rng.integers(len(OPCODES))],))
            case 3:
                del out[place : place + int(rng.integers(1, 20))]
            case 4:
                end = place + int(rng.integers(1, 40))
                out[place:place] = out[place:end]
            case 5:
                big = (0xFF, 0x7F, 0x80, 0)[rng.integers(4)]
                out[place : place + 4] = bytes((big,)) * 4
            case _:
                if rng.random() < 0.1:
                    del out[place:]
    return bytes(out)


def rezipped(content: bytes, rng: np.random.Generator) -> bytes:
    """An archive with a changed pickle, and right sums."""
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(content)) as source,
        zipfile.ZipFile(buffer, "w") as target,
    ):
        for entry in source.infolist():
            part = source.read(entry)
            if entry.filename.endswith("data.pkl"):
                part = flipped(rng, part)
            target.writestr(entry.filename, part)
    return buffer.getvalue()


def random_pickle(rng: np.random.Generator) -> bytes:
    """A pickle of steps that hold, name, call and build at random."""
    pieces = [encode(v) for v in VALUES if not isinstance(v, str) or len(v) < 99]
    pieces += [
        bytes((op,)) for op in b"(0]})abeust12N\x81\x85\x86\x87\x8f\x90\x91\x92R"
    ]
    calls = ("_rebuild_tensor_v2", "_rebuild_tensor_v3", "_rebuild_parameter")
    pieces += [encode(Name("torch._utils", call)) for call in calls]
    pieces += [encode(Name("torch", "FloatStorage")), b"Q", b"R", b"b", b"\x94"]
    pieces += [bytes((ord("h"), n)) for n in range(5)]
    pieces += [bytes((ord("q"), n)) for n in range(5)]
    for name in ("OrderedDict", "defaultdict", "deque"):
        pieces.append(encode(Name("collections", name)))
    for name in ("dict", "list", "tuple", "set", "frozenset", "complex", "object"):
        pieces.append(encode(Name("builtins", name)))
    for name in ("_reconstruct", "scalar"):
        pieces.append(encode(Name("numpy.core.multiarray", name)))
    pieces.append(encode(Name("numpy", "dtype")))
    count = int(rng.integers(3, 200))
    steps = [pieces[rng.integers(len(pieces))] for _ in range(count)]
    return b"\x80\x02N)]}" + b"".join(steps) + b"."


def changed(rng: np.random.Generator, value: Any) -> Any:
    """A copy of a JSON value in which one value is another, or has another key."""
    if isinstance(value, dict) and value and rng.random() < 0.85:
        key = list(value)[rng.integers(len(value))]
        if rng.random() < 0.1:
            return {**value, ("x", "name", "\x1b[2J", "depth")[rng.integers(4)]: 3}
        return {**value, key: changed(rng, value[key])}
    if isinstance(value, list) and value and rng.random() < 0.7:
        place = int(rng.integers(len(value)))
        return [changed(rng, v) if n == place else v for n, v in enumerate(value)]
    return VALUES[rng.integers(len(VALUES))]


def safetensors(rng: np.random.Generator) -> bytes:
    """A file with changed metadata, a changed header, or changed bytes."""
    about, arrays = ours()
    kind = rng.integers(3)
    if kind == 0:
        for _ in range(int(rng.integers(1, 4))):
            about = changed(rng, about)
            if not isinstance(about, dict):
                break
        return save(arrays, {"yolojax": json.dumps(about)})
    content = save(arrays, {"yolojax": json.dumps(about)})
    if kind == 1:
        return flipped(rng, content[:3000]) + content[3000:]
    length = int.from_bytes(content[:8], "little")
    header = changed(rng, json.loads(content[8 : 8 + length]))
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + content[8 + length :]


def darknet(rng: np.random.Generator) -> Case | None:
    """A pair with a changed description or header."""
    cfg, weights = map(published, ("yolo-fastest-1.1.cfg", "yolo-fastest-1.1.weights"))
    if cfg is None or weights is None:
        return None
    if rng.random() < 0.3:
        head = flipped(rng, weights[:40])
        return Case({".weights": head + weights[40:], ".cfg": cfg})
    lines = cfg.decode().splitlines()
    for _ in range(int(rng.integers(1, 5))):
        place = int(rng.integers(len(lines)))
        key, equals, _ = lines[place].partition("=")
        values = (
            "-1",
            "0",
            "65536",
            "9" * 30,
            "1e9",
            "nan",
            "\x1b[31m",
            "a,b",
            "",
            "7",
        )
        if equals and rng.random() < 0.8:
            lines[place] = f"{key}={values[rng.integers(len(values))]}"
        else:
            end = place + int(rng.integers(1, 12))
            lines[place:end] = lines[place:end] * int(rng.integers(0, 4))
    return Case({".weights": weights, ".cfg": "\n".join(lines).encode()})


def make(rng: np.random.Generator, number: int) -> Case:
    """One input of its number's kind."""
    real = published("yolov5n.pt")
    match number % 8:
        case 0 if real is not None:
            place = int(rng.integers(0, len(real)))
            return Case({".pt": flipped(rng, real[:place]) + real[place:]}, whole=False)
        case 1 if real is not None:
            return Case({".pt": rezipped(real, rng)}, whole=False)
        case 2:
            return Case({".pt": flipped(rng, small("legacy"))})
        case 3:
            return Case({".pt": rezipped(small("zip"), rng)})
        case 4:
            file = File()
            content = random_pickle(rng)
            if rng.random() < 0.5:
                magic = encode(0x1950A86A20F9469CFC6C)
                return Case({".pt": b"\x80\x02" + magic + b"." + content * 4})
            return Case({".pt": with_pickle(file, content)})
        case 5 | 6:
            return Case({".safetensors": safetensors(rng)})
        case 7:
            return darknet(rng) or Case({".pt": flipped(rng, small("zip"))})
    return Case({".pt": flipped(rng, small("zip"))})


def with_pickle(file: File, content: bytes) -> bytes:
    """An archive with a pickle as it is."""
    file.storage(np.zeros(4, np.float32))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as target:
        target.writestr("archive/data.pkl", content)
        target.writestr("archive/data/0", struct.pack("<4f", 0, 0, 0, 0))
    return buffer.getvalue()


def run(case: Case) -> str:
    """Reads the input; checks the form of an error, and that nothing is written."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{NAME}{suffix}" for suffix in case.files]
        for path, content in zip(paths, case.files.values(), strict=True):
            path.write_bytes(content)
        try:
            if case.whole:
                read_published(paths[0])
            else:
                read_weights(paths[0])
        except ValueError as error:
            assert str(error).isprintable(), f"several lines: {error!s:.200}"
            raise
        finally:
            assert sorted(Path(folder).iterdir()) == sorted(paths)
    return "read"


if __name__ == "__main__":
    sys.exit(fuzzing.main(make, run, names=NAME, limit=20.0))
