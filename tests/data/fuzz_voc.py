"""Damaged Pascal VOC sets: XML files of real sets, changed, and changed lists.

By hand, with counts and peak memory at the end:

    python -m tests.data.fuzz_voc --seconds 600 --seed 0
"""

from __future__ import annotations

import re
import sys
import tempfile
import unicodedata
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from tests import fuzzing
from tests.shared import ROOT
from yolojax.data.sources.voc import VocSource

SIZE = (480, 640)
GOOD = (
    "<annotation><filename>good.jpg</filename><object><name>good</name><bndbox>"
    "<xmin>10</xmin><ymin>20</ymin><xmax>110</xmax><ymax>220</ymax></bndbox></object>"
    "</annotation>"
)
ENCODINGS = (
    "utf-8 utf-8-sig utf-16 utf-16-le utf-32 gbk gb18030 big5 shift_jis euc_kr latin-1 "
    "cp1252 koi8-r iso2022_jp"
).split()
DECLARED = (
    "UTF-8 UTF-16 GBK GB2312 Big5 Shift_JIS EUC-KR ISO-8859-1 ISO-2022-JP rot13 zip "
    "hex idna punycode undefined unicode_escape utf-7 mbcs .. a/b none 8859"
).split()
NUMBERS = (
    "", "nan", "inf", "-inf", "1e999", "-1", "0", "1_0", "12,5", "0x10", "٣", "1e-320",
    "9" * 400, "639.99", "641", "1e9", " 5 ", "true", "５",
)  # fmt: skip
PIECES = (
    "<part><name>p</name><bndbox><xmin>1</xmin></bndbox></part>",
    "<!-- - -->",
    "<![CDATA[<object>]]>",
    "<?php echo 1 ?>",
    "&amp;",
    "&nope;",
    "&#0;",
    "&#x10ffff;",
    "<object>",
    "</object>",
    "<object/>",
    "<bndbox/>",
    "<robndbox><cx>9</cx><cy>9</cy><w>4</w><h>4</h><angle>1</angle></robndbox>",
    "<name/>",
    "<name>汽车</name>",
    "<size><width>0</width><height>0</height></size>",
    "<size><width>320</width><height>240</height></size>",
    "<difficult>maybe</difficult>",
    '<x:y xmlns:x="z"/>',
    "\0",
    "\ufffe",
    "<a " + " ".join(f'b{n}="{n}"' for n in range(3000)) + "/>",
    "<a>" * 200,
    "<object><name>" + "n" * 5000 + "</name></object>",
    "<segmentation>" + "<pt>1</pt>" * 20000 + "</segmentation>",
    "<object/>" * 20000,
)
HEADS = (
    '<!DOCTYPE annotation [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]>',
    '<!DOCTYPE annotation SYSTEM "file:///etc/passwd">',
    '<!DOCTYPE annotation [<!ENTITY % p SYSTEM "file:///etc/passwd">%p;]>',
    "\n\n ",
    "<?xml version='1.1' standalone='no'?>",
)
LINES = (
    "one", "two", "good", "one 1", "two  -1", "good.jpg", "Annotations/two.xml", "ONE",
    "a\\b\\one.JPG", '"two"', "", " ", "../one", "\0", "汽车", "x" * 5000, "1",
    "images/one.jpg Annotations/one.xml", "sub/one", "sub2/two", ".", "..", "/", "-1",
    "\x1b[2J",
)  # fmt: skip


class Input(NamedTuple):
    """XML files by name, the list of the split, and whether class names are given."""

    files: dict[str, bytes]
    names: bytes | None
    class_names: tuple[str, ...] | None


def originals() -> list[bytes]:
    """XML files of real data sets, where they are here; always one of our own."""
    folders = (ROOT / "data/bccd_voc/Annotations", ROOT / "data/hostile/kangaroo_voc")
    found = [file for folder in folders for file in sorted(folder.rglob("*.xml"))[:60]]
    return [GOOD.encode(), *(file.read_bytes() for file in found)]


ORIGINALS = originals()


def pick(rng: np.random.Generator, choices):
    return choices[int(rng.integers(len(choices)))]


def change_text(rng: np.random.Generator, text: str) -> str:
    """One change that knows of tags and numbers."""
    tags = [match.span() for match in re.finditer(r"<[^>]*>", text)]
    numbers = [match.span() for match in re.finditer(r"(?<=>)[\d.]+(?=<)", text)]
    kind = int(rng.integers(8))
    if kind <= 1 and numbers:
        start, end = pick(rng, numbers)
        return text[:start] + pick(rng, NUMBERS) + text[end:]
    if kind == 2 and tags:
        start, end = pick(rng, tags)
        return text[:start] + text[end:]
    if kind == 3 and tags:
        (a, b), (c, d) = pick(rng, tags), pick(rng, tags)
        return text[:a] + text[c:d] + text[b:]
    if kind == 4 and tags:
        (a, _), (_, d) = sorted((pick(rng, tags), pick(rng, tags)))
        return text[:d] + text[a:d] * int(rng.integers(1, 4)) + text[d:]
    if kind == 5:
        return pick(rng, HEADS) + text
    if kind == 6:
        return f'<?xml version="1.0" encoding="{pick(rng, DECLARED)}"?>' + text
    place = pick(rng, tags)[int(rng.integers(2))] if tags else 0
    return text[:place] + pick(rng, PIECES) + text[place:]


def change_bytes(rng: np.random.Generator, data: bytes) -> bytes:
    """One change that knows of nothing."""
    if not data:
        return bytes(rng.integers(0, 256, 20, np.uint8))
    kind, place = int(rng.integers(5)), int(rng.integers(len(data)))
    if kind == 0:
        flipped = data[place] ^ (1 << int(rng.integers(8)))
        return data[:place] + bytes([flipped]) + data[place + 1 :]
    if kind == 1:
        return data[:place]
    if kind == 2:
        return data[:place] + data[place + int(rng.integers(1, 50)) :]
    if kind == 3:
        other = pick(rng, ORIGINALS)
        return data[:place] + other[int(rng.integers(len(other))) :]
    noise = bytes(rng.integers(0, 256, int(rng.integers(1, 30)), np.uint8))
    return data[:place] + noise + data[place:]


def change(rng: np.random.Generator) -> bytes:
    """A changed XML file."""
    text = pick(rng, ORIGINALS).decode("utf-8", "replace")
    for _ in range(int(rng.integers(0, 5))):
        text = change_text(rng, text)
    plain = rng.random() < 0.7
    data = text.encode("utf-8" if plain else pick(rng, ENCODINGS), "replace")
    if rng.random() < 0.35:
        for _ in range(int(rng.integers(1, 4))):
            data = change_bytes(rng, data)
    return data


def make(rng: np.random.Generator, number: int) -> Input:
    files = {"one.xml": change(rng), "two.xml": change(rng)}
    if rng.random() < 0.2:
        files["sub/one.XML"] = change(rng)
    if rng.random() < 0.8:
        files["good.xml"] = GOOD.encode()
    names = None
    if rng.random() < 0.6:
        lines = [pick(rng, LINES) for _ in range(int(rng.integers(1, 8)))]
        names = "\n".join(lines).encode(pick(rng, ENCODINGS), "replace")
        if rng.random() < 0.3:
            names = change_bytes(rng, names)
    given = ("good", "RBC", "kangaroo") if rng.random() < 0.3 else None
    return Input(files, names, given)


class Reader:
    """Writes an input as a data set in a folder, and reads it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        image = cv2.imencode(".jpg", np.zeros((*SIZE, 3), np.uint8))[1].tobytes()
        for name in ("one", "two", "good", "sub/one"):
            file = folder / "JPEGImages" / f"{name}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(image)

    def __call__(self, value: Input) -> str:
        for file in (self.folder / "Annotations").rglob("*.[xX]*"):
            file.unlink()
        for name, data in value.files.items():
            file = self.folder / "Annotations" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
        names = self.folder / "ImageSets/Main/train.txt"
        if value.names is None:
            names.unlink(missing_ok=True)
            if names.parent.is_dir():
                names.parent.rmdir()
        else:
            names.parent.mkdir(parents=True, exist_ok=True)
            names.write_bytes(value.names)
        source = VocSource(root=str(self.folder), class_names=value.class_names)
        text = source.report.render()
        assert len(text) < 40_000, "the report is too long"
        kinds = {unicodedata.category(letter) for letter in set(text) - {"\n"}}
        assert not kinds & {"Cc", "Cf", "Cs"}, "the report has control characters"
        for example in source:
            boxes = example.boxes
            assert np.isfinite(boxes).all() and boxes.shape == (len(boxes), 4)
            assert (boxes >= 0).all() and (boxes <= [*SIZE[::-1]] * 2).all()
            assert (example.labels < len(source.class_names)).all()
            if example.name.endswith("good.jpg") and "good" in source.class_names:
                np.testing.assert_array_equal(boxes, [[10, 20, 110, 220]])
                assert source.class_names[example.labels[0]] == "good"
        return "report" if source.report.counts else "read"


def main() -> int:
    """Run as the command line says."""
    with tempfile.TemporaryDirectory() as folder:
        return fuzzing.main(make, Reader(Path(folder)), names=folder)


if __name__ == "__main__":
    sys.exit(main())
