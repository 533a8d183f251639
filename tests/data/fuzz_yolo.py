"""Damaged YOLO sets: the `data.yaml`, lists and labels of real sets, changed at random.

python -m tests.data.fuzz_yolo --seconds 600 --seed 0
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from tests import fuzzing
from tests.shared import ROOT
from yolojax.data.sources.yolo import YoloSource

HEIGHT, WIDTH = 120, 160
NAMES = ["a", "b", "c", "sub/d"]
A = "0.1875 0.291667 0.25 0.416667"
B = "0.75 0.625 0.375 0.583333"
Files = dict[str, bytes | str]
Generator = np.random.Generator

# A file that is no regular one: what it is instead.
PIPE, FOLDER, NOWHERE, ITSELF, DEVICE = "pipe", "folder", "nowhere", "itself", "device"
WORDS = (
    "yes no null ~ 012 12:30 1_000 0x1F 1e3 .inf -.inf .nan on 2020-01-01 2020-02-31 "
    "= << *a &a !!str ! | > ? - : # % @ ` ' \" [] {} [ ] { } , [[[[ {{{{ &x [*x] nan "
    "inf -1 -0 1e999 1e-999 0.5 1 2 3 17 99999999999999999999 0,5 0.5.5 ../.. /dev "
    "data/ C:\\x\\ images\\train train.txt a.txt \x00 \x1b[31m \ufeff \u2028 é 猫"
).split(" ")
ENCODINGS = ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-8-sig", "gbk", "cp1252")


def real_labels() -> list[str]:
    """Label texts of the sets in ../shared, and some of our own."""
    found = []
    for folder in ("coco128/labels", "hostile/aquarium_yolo"):
        files = sorted((ROOT / "data" / folder).rglob("*.txt"))[:40]
        found += [file.read_text() for file in files if "labels" in file.parts]
    points = " ".join(f"0.{n} 0.{n} {n % 3}" for n in range(1, 8))
    outline = "0.1 0.1 0.3 0.12 0.4 0.3 0.2 0.5"
    return [
        *(text for text in found if text),
        f"0 {A}\n1 {B}\n",
        f"0 {A} 0.91 1\n1 {B} 0.8 2\n",
        f"0 {A} 0.91\n1 {B} 0.8\n",
        f"0 {A} {points}\n1 {B} {points}\n",
        f"0 {outline}\n1 {outline} 0.15 0.3\n",
        f"0,{A.replace(' ', ',')}\r\n1;{B.replace(' ', ';')}\r\n",
    ]


LABELS = real_labels()
CLASSES = max(
    (int(float(line.split()[0])) for text in LABELS for line in text.splitlines()
     if line and line[0].isdigit() and "," not in line and ";" not in line),
    default=1,
) + 1  # fmt: skip
FLOW = ", ".join(f"class {n}" for n in range(CLASSES))
BLOCK = "".join(f"  {n}: class {n}\n" for n in range(CLASSES))
YAMLS = (
    f"train: images/train\nval: images/train\nnc: {CLASSES}\nnames: [{FLOW}]\n",
    f"path: .\ntrain: images/train\ntest:\nnames:\n{BLOCK}# the end\n",
    f"path: /home/me/set\ntrain: ../images/train\nnames: [{FLOW}]\n",
    f"train: [images/train, train.txt]\nkpt_shape: [7, 3]\nnames: [{FLOW}]\n",
    f"train: images\\train\ntask: segment\nnames: [{FLOW}]\n",
    f"train: train.txt\nnames: [{FLOW}]\n",
    f"classes = {CLASSES}\ntrain = data/train.txt\nvalid = data/train.txt\n"
    "names = data/obj.names\nbackup = backup/\n",
)
LISTS = (
    "".join(f"images/train/{name}.png\n" for name in NAMES),
    "".join(f"./images\\train\\{name}.png\r\n" for name in NAMES),
    "".join(f'"C:\\sets\\x\\images\\train\\{name}.png"\n' for name in NAMES),
    "".join(f"data/images/train/{name}.PNG\n" for name in NAMES),
    "# a list\n" + "".join(f"/root/x/images/train/{name}.png\n" for name in NAMES),
)


def make(rng: Generator, number: int) -> Files:
    """The files of a set by their path, one to five of them changed."""
    files: Files = {
        "data.yaml": pick(rng, YAMLS).encode(),
        "train.txt": pick(rng, LISTS).encode(),
        "obj.names": "".join(f"class {n}\n" for n in range(CLASSES)).encode(),
    }
    alike = rng.random() < 0.5
    text = pick(rng, LABELS)
    for name in NAMES:
        text = text if alike else pick(rng, LABELS)
        files[f"labels/train/{name}.txt"] = text.encode()
    for _ in range(rng.integers(1, 6)):
        path = pick(rng, list(files))
        if rng.random() < 0.1:
            change_place(rng, files, path)
        elif isinstance(content := files[path], bytes):
            files[path] = changed(rng, content, path)
    return files


def pick(rng: Generator, choices):
    return choices[rng.integers(len(choices))]


def changed(rng: Generator, content: bytes, path: str) -> bytes:
    """The content, damaged in one of the ways that suit the file."""
    text = content.decode("utf-8", "replace")
    kind = rng.random()
    if kind < 0.15:
        return damaged_bytes(rng, content)
    if kind < 0.22:
        return text.encode(pick(rng, ENCODINGS), "replace")
    if kind < 0.24:
        return inflated(rng, content)
    if kind < 0.5 and path.startswith("labels"):
        return in_columns(rng, text).encode("utf-8", "surrogatepass")
    return pick(rng, TEXT_CHANGES)(rng, text).encode("utf-8", "surrogatepass")


def damaged_bytes(rng: Generator, content: bytes) -> bytes:
    data = bytearray(content)
    for _ in range(rng.integers(1, 8)):
        place = int(rng.integers(len(data) + 1))
        kind = rng.integers(4)
        if kind == 0:
            data[place:] = b""
        elif kind == 1:
            data[place:place] = bytes(rng.integers(0, 256, rng.integers(1, 4)).tolist())
        elif kind == 2 and place < len(data):
            data[place] = int(rng.integers(256))
        else:
            del data[place : place + int(rng.integers(1, 10))]
    return bytes(data)


def inflated(rng: Generator, content: bytes) -> bytes:
    """Up to some megabytes, in long lines or in many."""
    size = int(10 ** rng.uniform(4, 6.8))
    unit = pick(rng, [b"0.5 ", b"1,", b"\n", b"[", b"a: ", b"- ", b"0", b" ", content])
    return (content + unit * (size // max(len(unit), 1)))[:size]


def swapped_word(rng: Generator, text: str) -> str:
    words = text.split(" ")
    words[rng.integers(len(words))] = pick(rng, WORDS)
    return " ".join(words)


def added_word(rng: Generator, text: str) -> str:
    place = int(rng.integers(len(text) + 1))
    return text[:place] + pick(rng, WORDS) + text[place:]


def moved_line(rng: Generator, text: str) -> str:
    lines = text.splitlines(keepends=True)
    if lines:
        line = lines[rng.integers(len(lines))]
        if rng.random() < 0.5:
            lines.remove(line)
        lines.insert(int(rng.integers(len(lines) + 1)), line * int(rng.integers(4)))
    return "".join(lines)


def other_marks(rng: Generator, text: str) -> str:
    old = pick(rng, [" ", "\n", "/", "0.", ":", ",", "="])
    new = pick(
        rng, ["\t", ",", ";", "\r\n", "\r", "\\", "", "  ", "\0", "//", "-", "="]
    )
    return text.replace(old, new, int(rng.integers(1, 2000)))


TEXT_CHANGES: tuple[Callable[[Generator, str], str], ...] = (
    swapped_word,
    swapped_word,
    added_word,
    moved_line,
    other_marks,
)


def in_columns(rng: Generator, text: str) -> str:
    """Labels with a column more or less in every line, or in some."""
    kind, place = rng.integers(5), int(rng.integers(1, 12))
    share = pick(rng, [1.0, 1.0, 0.5])
    lines = []
    for number, line in enumerate(text.splitlines()):
        fields = line.split(" ")
        if rng.random() < share:
            if kind == 0:
                del fields[place : place + 1]
            elif kind == 1:
                fields.append(f"{rng.random():.3f}")
            elif kind == 2:
                fields += [f"{rng.random():.3f}", str(number)]
            elif kind == 3:
                fields.insert(place, str(number))
            else:
                fields += [f"{value:.3f}" for value in rng.random(place)]
        lines.append(" ".join(fields))
    return "\n".join(lines)


def change_place(rng: Generator, files: Files, path: str) -> None:
    """Give a file another name, or put something else in its place."""
    stem, suffix = os.path.splitext(path)
    kind = rng.integers(4)
    if path == "data.yaml" and kind != 0:
        return
    if kind == 0:
        files[path] = pick(rng, [PIPE, FOLDER, NOWHERE, ITSELF, DEVICE])
    elif kind == 1:
        files[stem + pick(rng, [".TXT", ".Txt", "", ".txt.txt"])] = files.pop(path)
    elif kind == 2:
        files[stem.upper() + suffix] = files.pop(path)
    else:
        name = pick(rng, ["classes", "readme", "train", ".hidden", "x" * 200])
        files[os.path.join(os.path.dirname(path), name + suffix)] = files.pop(path)


class Reader:
    """Writes sets into a folder of its own, and reads them.

    Args:
        home: the folder.
    """

    def __init__(self, home: Path) -> None:
        self.root = home / "yolo_fuzz"
        self.images = home / "image.png"
        pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        self.images.write_bytes(cv2.imencode(".png", pixels)[1].tobytes())

    def __call__(self, files: Files) -> str:
        """The outcome: "clean" or "report"."""
        self.write(files)
        source = YoloSource(
            yaml=str(self.root / "data.yaml"),
            polygons=len(files.get("data.yaml", "")) % 2 == 0,
        )
        for example in source:
            boxes = example.boxes
            assert np.isfinite(boxes).all() and (boxes[:, 2:] > boxes[:, :2]).all()
            assert (boxes >= 0).all() and (boxes <= [WIDTH, HEIGHT] * 2).all()
            assert (example.labels >= 0).all()
            assert (example.labels < len(source.class_names)).all()
        text = source.report.render()
        assert len(text) < 60_000 and all(len(t) < 1500 for t in text.splitlines())
        return "report" if text else "clean"

    def write(self, files: Files) -> None:
        """Put the files and the images into the empty folder."""
        shutil.rmtree(self.root, ignore_errors=True)
        for name in NAMES:
            path = self.root / f"images/train/{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            os.link(self.images, path)
        for name, content in files.items():
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, bytes):
                path.write_bytes(content)
            elif content == PIPE:
                os.mkfifo(path)
            elif content == FOLDER:
                path.mkdir()
            else:
                target = {NOWHERE: "nowhere", ITSELF: path.name, DEVICE: "/dev/zero"}
                path.symlink_to(target[content])


def fuzz(**settings) -> fuzzing.Tally:
    """`fuzzing.fuzz` of this reader, in a temporary folder."""
    with tempfile.TemporaryDirectory() as home:
        return fuzzing.fuzz(make, Reader(Path(home)), names="yolo_fuzz", **settings)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        sys.exit(fuzzing.main(make, Reader(Path(folder)), names="yolo_fuzz"))
