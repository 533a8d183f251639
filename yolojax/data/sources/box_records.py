"""The records of COCO's `annotations`: a box on an image each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from yolojax.data.json_fields import (
    read_id,
    read_number,
    read_truth,
    repeated_key,
    shown,
)
from yolojax.data.masks import Corners, is_too_long, mask_corners
from yolojax.data.polygons import read_polygon
from yolojax.data.report import Report
from yolojax.data.sources.base import Annotations
from yolojax.data.sources.box_forms import check_sides, in_pixels
from yolojax.data.sources.image_records import Images, check_id, check_record
from yolojax.records import Id

_USED = ("image_id", "category_id", "bbox", "segmentation", "iscrowd")
_LARGEST_AREA = 2.0**40  # square pixels; what claims more is not believed


class _Fault(Exception):
    """Why a record is dropped: the kind of the report's entry, and a message."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def read_annotations(
    records: Sequence[Any],
    images: Images,
    labels: Mapping[Id, int],
    file: Path,
    report: Report,
    *,
    polygons: bool,
) -> tuple[Annotations, list[int]]:
    """The boxes of images that can be used; the rest is reported.

    Args:
        records: the file's `annotations`.
        images: the images.
        labels: the label of each category id.
        file: the JSON file.
        report: takes what was found.
        polygons: whether to read the segmentations.

    Returns:
        The boxes, and for each the index of its record.

    Raises:
        ValueError: a record is no object; no annotation can be used; the boxes are of
            another form than `x y width height`.
    """
    index = {image_id: row for row, image_id in enumerate(images.ids)}
    rows, outlines, used, of_mask = [], [], [], []
    seen: set[Id | None] = {None}
    faults: list[str] = []
    for number, record in enumerate(records):
        _check(record, number, file)
        own = read_id(record.get("id"))
        if own in seen and own is not None:
            message = f"{name_of(record, number)}: the id is taken; the box is kept"
            report.add("annotation id given twice", file, None, message)
        seen.add(own)
        try:
            picture = _image_of(record, index, images)
            if picture is None:
                continue
            label = _label_of(record, labels)
            crowd = _crowd_of(record)
            corners, masked = _corners_of(record, images.sizes[picture])
        except _Fault as fault:
            message = f"{name_of(record, number)}: {fault}; dropped"
            report.add(fault.kind, file, None, message)
            faults = faults or [message]
            continue
        rows.append((picture, label, crowd, _area_of(record), corners))
        used.append(number)
        of_mask.append(masked)
        if polygons:
            outlines.append(_polygons(record))
    if faults and not rows:
        raise ValueError(
            f"{file}: none of the {len(records)} annotations can be used; the first "
            f"that is wrong: {faults[0]}"
        )
    report.note("box of a mask, where there is no bbox", sum(of_mask))
    found = Annotations.from_rows(rows, outlines if polygons else None)

    def name(row: int) -> str:
        return name_of(records[used[row]], used[row])

    masks = np.array(of_mask, bool)
    keep, found = in_pixels(found, masks, images.sizes, name, file, report)
    check_sides(found, images.sizes, file)
    return found.take(keep), [used[row] for row in np.flatnonzero(keep)]


def name_of(record: Mapping[str, Any], number: int) -> str:
    """What a report calls an annotation: by its id, or its place in the list."""
    own = record.get("id")
    return f"annotations[{number}]" if own is None else f"annotation {shown(own)}"


def _check(record: Any, number: int, file: Path) -> None:
    place = f"annotations[{number}]"
    check_record(record, place, "with image_id, category_id and bbox", file)
    for key in ("image_id", "category_id"):
        check_id(record, key, place, file)


def _image_of(
    record: Mapping[str, Any], index: Mapping[Id, int], images: Images
) -> int | None:
    """Row of the image; None where the image is left out."""
    if key := repeated_key(record, _USED):
        raise _Fault("key given twice", f"{key} stands twice, with different values")
    image_id = read_id(record.get("image_id"))
    row = None if image_id is None else index.get(image_id)
    if row is None and image_id not in images.listed:
        came = shown(record.get("image_id"))
        message = f"image id {came} is not among the images"
        raise _Fault("label without a picture", message)
    return row


def _label_of(record: Mapping[str, Any], labels: Mapping[Id, int]) -> int:
    category = read_id(record.get("category_id"))
    if category is None or category not in labels:
        came = shown(record.get("category_id"))
        message = f"category id {came} is not among the categories"
        raise _Fault("class out of range", message)
    return labels[category]


def _crowd_of(record: Mapping[str, Any]) -> bool:
    crowd = read_truth(record.get("iscrowd"))
    if crowd is None:
        came = shown(record.get("iscrowd"))
        raise _Fault("iscrowd that is not 0 or 1", f"expected 0 or 1, came {came}")
    return crowd


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _area_of(record: Mapping[str, Any]) -> float:
    """The area; NaN where it is none."""
    area = read_number(record.get("area"))
    return area if area is not None and 0 <= area <= _LARGEST_AREA else float("nan")


def _corners_of(
    record: Mapping[str, Any], size: tuple[int, int]
) -> tuple[Corners, bool]:
    """x1 y1 x2 y2 of the bbox, or of the mask where there is none; and which."""
    bbox, mask = record.get("bbox"), record.get("segmentation")
    values = [read_number(v) for v in _as_list(bbox)]
    empty = bbox in (None, "", []) or values == [0, 0, 0, 0]
    if empty and mask:
        try:
            return mask_corners(mask, size), True
        except ValueError as error:
            message = f"no bbox, and {error}"
            raise _Fault("mask that cannot be read", message) from error
    if len(values) != 4 or None in values:
        message = f"expected bbox [x, y, width, height], came {shown(bbox)}"
        raise _Fault("box with the wrong number of fields", message)
    x, y, width, height = (value or 0.0 for value in values)  # none is None
    return (x, y, x + width, y + height), False


def _polygons(record: Mapping[str, Any]) -> list[np.ndarray]:
    """The parts of the segmentation that are polygons; [] if one of them is not."""
    parts = _as_list(record.get("segmentation"))
    if is_too_long(parts) or not all(isinstance(part, list) for part in parts):
        return []
    try:
        with np.errstate(over="ignore"):
            found = [read_polygon(part) for part in parts]
    except (TypeError, ValueError, OverflowError):
        return []
    return found if all(np.isfinite(part).all() for part in found) else []
