"""COCO's instances JSON: one file of boxes, one folder of images."""

from __future__ import annotations

import collections
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from yolojax.data.json_fields import (
    load_object,
    read_id,
    read_number,
    repeated_key,
    shown,
)
from yolojax.data.report import Report
from yolojax.data.sources.base import SET_ROOT, LabelledPictures, describe
from yolojax.data.sources.box_records import name_of, read_annotations
from yolojax.data.sources.image_records import check_id, check_record, read_images
from yolojax.lookup import listed
from yolojax.records import Id

_LISTS = ("images", "annotations", "categories")


class CocoSource(LabelledPictures):
    """Images and boxes of a COCO JSON.

    Classes come in the order of their category ids, which may have gaps; where an id is
    a text that is no number, in the order of the file. Crowds are kept and marked,
    areas are the JSON's (the masks', where it has masks), the order of an image's
    annotations stays. Images without an annotation are background. Sizes are the
    JSON's; `check.scan` compares them with the files.

    Args:
        images: folder that `file_name` starts from.
        annotations: the JSON file.
        polygons: whether to read the segmentations, see `Example.polygons`. A mask
            that is given by run lengths, as crowds are, counts as none.

    Raises:
        ValueError: a path that does not exist, JSON that is broken or lacks a list, a
            record that is no object, no image, no annotation that can be used.
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
        records = content["annotations"]
        categories = _categories(content["categories"], file, report)
        number_of: collections.Counter[Id | None] = collections.Counter(
            read_id(record.get("image_id"))
            for record in records
            if isinstance(record, dict)
        )
        found = read_images(
            content["images"], folder, file, report, num_boxes=number_of.__getitem__
        )
        boxes, rows = read_annotations(
            records,
            found,
            {category: label for label, category in enumerate(categories)},
            file,
            report,
            polygons=polygons,
        )
        _note_unused(content, file, report)
        super().__init__(
            paths=found.paths,
            ids=found.ids,
            sizes=found.sizes,
            annotations=boxes,
            where=lambda row: (
                str(file),
                None,
                f"{name_of(records[rows[row]], rows[row])}: ",
            ),
            class_names=list(categories.values()),
            category_ids=list(categories),
            report=report,
        )
        empty = int((self._starts[1:] == self._starts[:-1]).sum())
        report.note("picture without a box (background)", empty)


def _load(file: Path) -> dict[str, Any]:
    """The JSON, with the three lists that are needed."""
    if not file.exists():
        raise ValueError(f"no annotation file {file}; {describe(file)}; {SET_ROOT}")
    expected = "COCO's object with images, annotations and categories"
    content = load_object(file, expected)
    if key := repeated_key(content, _LISTS):
        raise ValueError(
            f"{file} has {key!r} twice, with different contents; put both into one list"
        )
    for key in _LISTS:
        if not isinstance(content.get(key), list):
            keys = [shown(name)[1:-1] for name in itertools.islice(content, 8)]
            more = f", ... ({len(content)} in all)" if len(content) > 8 else ""
            raise ValueError(
                f"{file} has no list {key!r}, which a COCO instances file needs; "
                f"it has {', '.join(keys) or 'nothing'}{more}{_other_kind(content)}"
            )
    return content


def _other_kind(content: Mapping[str, Any]) -> str:
    """What else the file is, for the message; empty where that is not known."""
    records = content.get("annotations")
    first = records[0] if isinstance(records, list) and records else None
    if isinstance(first, dict):
        for key, kind in (("caption", "captions"), ("segments_info", "panoptic masks")):
            if key in first:
                return f". This is a file of {kind}; take that of the instances"
    return ""


def _categories(records: Sequence[Any], file: Path, report: Report) -> dict[Id, str]:
    """Name of each category id; ids rising, where all are numbers."""
    names: dict[Id, str] = {}
    for index, record in enumerate(records):
        place = f"categories[{index}]"
        check_record(record, place, "with id and name", file)
        check_id(record, "id", place, file)
        category, name = read_id(record.get("id")), record.get("name")
        if read_number(name) is not None:
            name = str(name)
        if category is None or not isinstance(name, str) or not name.strip():
            raise ValueError(
                f"{file}: category without id or name: {place} is {shown(record)}"
            )
        if key := repeated_key(record, ("id", "name")):
            raise ValueError(f"{file}: {key} of {place} stands twice: {shown(record)}")
        if names.setdefault(category, name) != name:
            raise ValueError(
                f"{file}: category id {shown(category)} stands for both "
                f"{shown(names[category])} and {shown(name)}"
            )
    if not names:
        raise ValueError(f"{file} has no categories")
    if len(names) < len(records):
        double = len(records) - len(names)
        report.note("category given twice, with the same id and name", double)
    ids = collections.defaultdict(list)
    for category, name in names.items():
        ids[name].append(shown(category))
    for name, same in ids.items():
        if len(same) > 1:
            message = f"the category ids {listed(same)} are all called {shown(name)}; "
            message += "each is a class of its own"
            report.note("class name given twice", file=file, message=message)
    if all(isinstance(category, int) for category in names):
        return {key: names[key] for key in sorted(names, key=int)}
    return names


def _note_unused(content: Mapping[str, Any], file: Path, report: Report) -> None:
    """Notes on what a file holds and yolojax does not use."""
    records = content["annotations"]
    points = sum("keypoints" in record for record in records)
    report.note("annotation with key points, which are not used", points)
    used = {read_id(record.get("category_id")) for record in records}
    above = {
        shown(record.get("supercategory"))
        for record in content["categories"]
        if record.get("supercategory") != record["name"]
    }
    for record in content["categories"]:
        if read_id(record["id"]) not in used and shown(record["name"]) in above:
            message = f"category id {shown(record['id'])}, {shown(record['name'])}, "
            message += "has no box and is the supercategory of others, as Roboflow "
            message += "writes it; it stays a class"
            report.note("class that is a supercategory", file=file, message=message)
