"""COCO's instances JSON: one file of boxes, one folder of pictures."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from yolojax.data.polygons import read_polygon
from yolojax.data.report import Report
from yolojax.data.sources.base import (
    SET_ROOT,
    Annotations,
    LabelledPictures,
    describe,
    read_sizes,
)


class CocoSource(LabelledPictures):
    """Pictures and boxes of a COCO JSON.

    Classes come in the order of their category ids, which may have gaps. Crowds are
    kept and marked, areas are the JSON's (the masks', where it has masks), the order
    of a picture's annotations stays. Pictures without an annotation are background.
    Sizes are the JSON's; `check.scan` compares them with the files.

    Args:
        images: folder that `file_name` starts from.
        annotations: the JSON file.
        polygons: whether to read the segmentations, see `Example.polygons`. A mask
            that is given by run lengths, as crowds are, counts as none.

    Raises:
        ValueError: a path that does not exist, JSON that is broken or lacks a list,
            no picture.
    """

    def __init__(
        self, *, images: str, annotations: str, polygons: bool = False
    ) -> None:
        report = Report()
        folder, file = Path(images), Path(annotations)
        if not folder.is_dir():
            raise ValueError(
                f"no folder {folder} for the pictures of {file}; {describe(folder)}; "
                f"{SET_ROOT}"
            )
        content = _load(file)
        categories = _categories(content["categories"], file)
        paths, ids, sizes = _pictures(content["images"], folder, file, report)
        found, places = _annotations(
            content["annotations"],
            {image_id: index for index, image_id in enumerate(ids)},
            {record.get("id") for record in content["images"]},
            {category: label for label, category in enumerate(categories)},
            file,
            report,
            polygons=polygons,
        )
        super().__init__(
            paths=paths,
            ids=ids,
            sizes=sizes,
            annotations=found,
            where=lambda row: (str(file), None, f"annotation {places[row]}: "),
            class_names=list(categories.values()),
            category_ids=list(categories),
            report=report,
        )
        empty = int((self._starts[1:] == self._starts[:-1]).sum())
        report.note("picture without a box (background)", empty)


def _load(file: Path) -> dict[str, Any]:
    """The JSON, with the three lists that are needed."""
    if not file.is_file():
        raise ValueError(f"no annotation file {file}; {describe(file)}; {SET_ROOT}")
    try:
        content = json.loads(file.read_bytes())
    except ValueError as error:  # broken JSON, or bytes that are no text
        raise ValueError(f"{file} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(
            f"{file} holds a {type(content).__name__}; expected COCO's object with "
            "images, annotations and categories"
        )
    for key in ("images", "annotations", "categories"):
        if not isinstance(content.get(key), list):
            raise ValueError(
                f"{file} has no list {key!r}, which a COCO instances file needs; "
                f"it has {', '.join(content) or 'nothing'}"
            )
    return content


def _categories(records: list[dict[str, Any]], file: Path) -> dict[int, str]:
    """Name of each category id, ids rising."""
    names: dict[int, str] = {}
    for record in records:
        if not {"id", "name"} <= record.keys():
            raise ValueError(f"{file}: category without id or name: {record}")
        if record["id"] in names:
            raise ValueError(
                f"{file}: category id {record['id']} stands for both "
                f"{names[record['id']]!r} and {record['name']!r}"
            )
        names[record["id"]] = str(record["name"])
    if not names:
        raise ValueError(f"{file} has no categories")
    return dict(sorted(names.items()))


def _pictures(
    records: list[dict[str, Any]], folder: Path, file: Path, report: Report
) -> tuple[list[str], list[int], list[tuple[int, int]]]:
    """Paths, ids and sizes of the pictures that exist."""
    known: dict[int, tuple[str, tuple[int, int] | None]] = {}
    for record in records:
        name, image_id = record.get("file_name"), record.get("id")
        if not isinstance(name, str) or not isinstance(image_id, int):
            report.add(
                "image record without id or file_name",
                file,
                None,
                f"came id {image_id!r} and file_name {name!r}; left out",
            )
            continue
        if image_id in known:
            report.add(
                "image id given twice",
                file,
                None,
                f"id {image_id} of {name} is taken by "
                f"{os.path.basename(known[image_id][0])}; the second is left out",
            )
            continue
        path = _find(folder, name)
        if path is None:
            report.add(
                "missing picture",
                os.path.join(folder, name),
                None,
                f"named by {file}, image id {image_id}; left out with its boxes",
            )
            continue
        size = (record.get("height"), record.get("width"))
        good = all(isinstance(side, int) and side > 0 for side in size)
        known[image_id] = (path, size if good else None)  # type: ignore[assignment]
    if not known:
        raise ValueError(
            f"none of the {len(records)} pictures of {file} is in {folder}; "
            f"{describe(folder)}. The first is called "
            f"{records[0].get('file_name') if records else 'nothing'!r}"
        )
    unsized = [image_id for image_id, (_, size) in known.items() if size is None]
    report.note("picture whose size the JSON lacks, read from the file", len(unsized))
    headers = read_sizes([known[image_id][0] for image_id in unsized], report)
    for image_id, size in zip(unsized, headers, strict=True):
        known[image_id] = (known[image_id][0], size)
    usable = [(path, i, size) for i, (path, size) in known.items() if size is not None]
    paths, ids, sizes = zip(*usable, strict=True) if usable else ((), (), ())
    return list(paths), list(ids), list(sizes)


def _find(folder: Path, name: str) -> str | None:
    """Path of a picture; also by its bare name, where the JSON has other folders."""
    name = name.replace("\\", "/")
    for candidate in (name, os.path.basename(name)):
        path = os.path.join(folder, candidate)
        if os.path.isfile(path):
            return path
    return None


def _annotations(
    records: list[dict[str, Any]],
    index: dict[int, int],
    listed: set[int],
    labels: dict[int, int],
    file: Path,
    report: Report,
    *,
    polygons: bool,
) -> tuple[Annotations, list[Any]]:
    """The boxes of the pictures in `index`, and the annotation id of each row."""
    rows, places, outlines, ids = [], [], [], set()
    for record in records:
        place = record.get("id")

        def tell(kind: str, message: str, place: Any = place) -> None:
            report.add(kind, file, None, f"annotation {place}: {message}")

        if place in ids:
            tell("annotation id given twice", "the id is taken; the box is kept")
        ids.add(place)
        image_id, category = record.get("image_id"), record.get("category_id")
        if image_id not in index:
            if image_id not in listed:
                message = f"image id {image_id} is not among the images; dropped"
                tell("label without a picture", message)
            continue
        if category not in labels:
            message = f"category id {category} is not among the categories; dropped"
            tell("class out of range", message)
            continue
        corners = _corners(record)
        if corners is None:
            message = f"expected bbox [x, y, width, height], came {record.get('bbox')}"
            tell("box with the wrong number of fields", f"{message}; dropped")
            continue
        area = record.get("area")
        area = float(area) if isinstance(area, int | float) else float("nan")
        crowd = bool(record.get("iscrowd", 0))
        rows.append((index[image_id], labels[category], crowd, area, corners))
        places.append(place)
        if polygons:
            outlines.append(_polygons(record))
    return Annotations.from_rows(rows, outlines if polygons else None), places


def _polygons(record: dict[str, Any]) -> list[np.ndarray]:
    """The parts of the segmentation that are polygons; [] if one of them is not."""
    parts = record.get("segmentation")
    try:
        found = [read_polygon(part) for part in parts] if type(parts) is list else []
    except (TypeError, ValueError):
        return []
    return found if all(np.isfinite(part).all() for part in found) else []


def _corners(record: dict[str, Any]) -> Sequence[float] | None:
    """x1 y1 x2 y2 of the bbox, or of the polygons where there is none."""
    try:
        if "bbox" in record:
            x, y, width, height = (float(value) for value in record["bbox"])
            return x, y, x + width, y + height
        points = [float(value) for part in record["segmentation"] for value in part]
        return min(points[::2]), min(points[1::2]), max(points[::2]), max(points[1::2])
    except (TypeError, ValueError, KeyError):
        return None
