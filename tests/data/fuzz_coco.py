"""COCO files made from real ones by damage to their values and to their bytes.

python -m tests.data.fuzz_coco --seconds 600 --seed 0
"""

from __future__ import annotations

import copy
import json
import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from tests.fuzzing import main
from tests.shared import ROOT
from yolojax.data.sources.coco import CocoSource

NAME = "fuzzed.json"
FILES = ("coco128/annotations/instances_train2017.json",)
FILES += ("masks_coco/annotations/custom_val.json",)
SIZE = (64, 48)  # height and width of the images, which the records say as well
MOST = 12  # images of a file

# In place of any value.
VALUES: list[Any] = [None, True, False, 0, 1, -1, 2, 0.5, 1e308, -1e-308, 10**25]
VALUES += [float("nan"), float("inf"), float("-inf"), 10**400, 2**63, -(2**63), 2**31]
VALUES += ["", "0", "1", "-1", "1.0", "nan", "a", "\0", "\x1b[2J", "\ud800", "a/../b"]
VALUES += ["/etc/passwd", "../" * 50, "C:\\x.jpg", "%00%ff%", "x" * 70_000, "1" * 5000]
VALUES += [[], {}, [[]], [0], [0, 0, 0, 0], [1, 2, 3], [[1, 2], 3], {"id": 1}, [None]]
VALUES += [["1", "2", "3", "4"], {"size": [48, 64], "counts": "0"}, "0" * 3000]
VALUES += [
    {"size": [64, 48], "counts": c} for c in ("", "o", "0oooooooo", [3, 4], [-1])
]
VALUES += [{"size": [64, 48], "counts": c} for c in ("52203", [9**30], [0, 3072], None)]
KEYS = ("id", "image_id", "category_id", "bbox", "segmentation", "iscrowd", "area")
KEYS += ("file_name", "width", "height", "name", "coco_url", "images", "annotations")


class Fuzzer:
    """Makes and reads damaged files in a folder.

    Args:
        folder: gets the images and the file.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file = folder / NAME
        self._sets = [self._small(ROOT / "data" / file) for file in FILES]

    def _small(self, file: Path) -> dict[str, Any]:
        """Some images of a real file with their boxes, made to fit small images."""
        content = json.loads(file.read_text())
        images = content["images"][:MOST]
        encoded = cv2.imencode(".png", np.zeros((*SIZE, 3), np.uint8))[1].tobytes()
        for image in images:
            path = self._folder / "images" / image["file_name"]
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(encoded)
            scale = np.array([SIZE[1] / image["width"], SIZE[0] / image["height"]] * 2)
            for box in content["annotations"]:
                if box["image_id"] == image["id"]:
                    box["bbox"] = (box["bbox"] * scale).tolist()
                    box["area"] *= scale[0] * scale[1]
            image["height"], image["width"] = SIZE
        ids = {image["id"] for image in images}
        boxes = [a for a in content["annotations"] if a["image_id"] in ids]
        crowds = [a for a in content["annotations"] if a["iscrowd"]][:2]
        for index, crowd in enumerate(crowds):
            box = {"id": -index, "bbox": [1, 2, 3 + index, 4], "area": 12}
            box["image_id"] = images[0]["id"]
            boxes.append({**crowd, **box})
        for index, box in enumerate(boxes):
            if index % 5 == 0:  # runs, for want of a box
                box["bbox"] = []
                counts = f"{chr(49 + index % 15)}5"  # runs of 1 to 15 and of 5
                box["segmentation"] = {"size": list(SIZE), "counts": counts}
        categories = content["categories"]
        return {"images": images, "annotations": boxes, "categories": categories}

    def make(self, rng: np.random.Generator, number: int) -> bytes:
        """The bytes of a damaged file."""
        draw = random.Random(int(rng.integers(2**62)))
        content = json.loads(json.dumps(draw.choice(self._sets)))
        for _ in range(draw.choice((0, 1, 1, 1, 2, 4, 16))):
            content = draw.choice(DAMAGES)(content, draw)
        encoded = json.dumps(content).encode(draw.choice(("utf-8",) * 9 + ("utf-16",)))
        return encoded if draw.random() < 0.7 else _damaged_bytes(encoded, draw)

    def run(self, content: bytes) -> str:
        """Read the file as a data set, and each of its images' labels."""
        self._file.write_bytes(content)
        source = CocoSource(
            images=str(self._folder / "images"),
            annotations=str(self._file),
            polygons=content[-1:] != b" ",
        )
        for example in source:
            height, width = example.size
            low, high = example.boxes[:, :2], example.boxes[:, 2:]
            assert np.isfinite(example.boxes).all() and np.isfinite(example.areas).all()
            assert (low >= 0).all() and (low < high).all()
            assert (high <= [width, height]).all()
            assert (example.labels < len(source.class_names)).all()
        text = source.report.render()
        assert len(text) < 200_000
        return "report" if source.report.counts else "read"


def _places(value: Any, depth: int = 0) -> list[tuple[Any, Any]]:
    """(holder, key or index) of a value's parts, a few of long lists."""
    if depth > 4 or not isinstance(value, list | dict):
        return []
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))[:60]
    found = [(value, key) for key in keys]
    return found + [p for key in keys for p in _places(value[key], depth + 1)]


def _value(draw: random.Random) -> Any:
    """One of `VALUES`, of which no input may change what the next one gets."""
    return copy.deepcopy(draw.choice(VALUES))


def _replace(content: Any, draw: random.Random) -> Any:
    places = _places(content)
    if not places or draw.random() < 0.01:
        return _value(draw)
    holder, key = draw.choice(places)
    holder[key] = _value(draw)
    return content


def _replace_field(content: Any, draw: random.Random) -> Any:
    """Give one field of the records another value: of all, or of some."""
    key, value, share = (
        draw.choice(KEYS),
        _value(draw),
        draw.choice((0.1, 0.5, 1)),
    )
    for holder, name in _places(content):
        if name == key and isinstance(holder, dict) and draw.random() < share:
            holder[name] = copy.deepcopy(value)
    return content


def _quote(content: Any, draw: random.Random) -> Any:
    """Numbers become texts, or texts in other spellings."""
    key = draw.choice(KEYS)
    for holder, name in _places(content):
        if name == key and isinstance(holder, dict):
            value = holder[name]
            if isinstance(value, str) and draw.random() < 0.5:
                change: Callable[[str], str] = draw.choice(
                    (str.upper, str.lower, "./{}".format, "x\\{}".format)
                )
                holder[name] = change(value)
            elif isinstance(value, int | float):
                holder[name] = str(value)
    return content


def _remove(content: Any, draw: random.Random) -> Any:
    places = _places(content)
    if places:
        holder, key = draw.choice(places)
        holder.pop(key, None) if isinstance(holder, dict) else holder.pop(key)
    return content


def _double(content: Any, draw: random.Random) -> Any:
    lists = [(h, k) for h, k in _places(content) if isinstance(h, list)]
    if lists:
        holder, key = draw.choice(lists)
        holder.insert(draw.randrange(len(holder) + 1), copy.deepcopy(holder[key]))
    return content


def _swap(content: Any, draw: random.Random) -> Any:
    places = _places(content)
    if places:
        (first, one), (second, two) = draw.choice(places), draw.choice(places)
        value = json.loads(json.dumps(second[two]))
        if one in first or isinstance(first, list):
            first[one] = value
    return content


def _scale_boxes(content: Any, draw: random.Random) -> Any:
    factor = draw.choice((1 / 64, 1 / 1000, -1, 1e6, 1e-9))
    for holder, name in _places(content):
        if name == "bbox" and isinstance(holder, dict):
            box = holder[name]
            numbers = isinstance(box, list) and all(
                type(v) in (int, float) for v in box
            )
            if numbers and max(map(abs, box), default=0) < 1e9:
                holder[name] = [v * factor for v in box]
    return content


def _nest(content: Any, draw: random.Random) -> Any:
    places = _places(content)
    value: Any = 1
    for _ in range(draw.choice((5, 50, 400))):
        value = [value] if draw.random() < 0.5 else {"segmentation": value}
    if places:
        holder, key = draw.choice(places)
        holder[key] = value
    return content


DAMAGES = (_replace, _replace, _replace_field, _replace_field, _quote, _remove)
DAMAGES += (_double, _swap, _scale_boxes, _nest)


def _damaged_bytes(encoded: bytes, draw: random.Random) -> bytes:
    kind, place = draw.randrange(7), draw.randrange(len(encoded))
    if kind == 0:
        return encoded[:place]
    if kind == 1:
        return encoded[:place] + bytes([draw.randrange(256)]) + encoded[place + 1 :]
    if kind == 2:
        return encoded[:place] + encoded[place + draw.randrange(200) :]
    if kind == 3:
        other = draw.randrange(len(encoded))
        return encoded[:place] + encoded[other : other + 300] + encoded[place:]
    if kind == 4:
        mark = draw.choice((b"[", b'{"a":', b'"', b"0", b"-", b"\\", b",", b"\xff"))
        return encoded[:place] + mark * draw.choice((1, 3, 100_000)) + encoded[place:]
    if kind == 5:
        # A part of the file twice as keys of one object.
        return encoded[:-1] + b", " + encoded[1:] if len(encoded) > 2 else encoded
    return draw.choice((b"\xef\xbb\xbf", b"\xff\xfe", b"\x00", b" ")) + encoded


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        fuzzer = Fuzzer(Path(folder))
        raise SystemExit(main(fuzzer.make, fuzzer.run, names=NAME))
