"""The records of COCO's `images`: an id, the file and the size of each."""

from __future__ import annotations

import os
import posixpath
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from yolojax.data.json_fields import (
    kind_of,
    read_id,
    read_number,
    repeated_key,
    shown,
)
from yolojax.data.report import Report
from yolojax.data.sources.base import describe, read_sizes
from yolojax.data.sources.located import NamedImages, plain_name
from yolojax.records import Id

# Where LVIS and others have no file_name.
_URLS = ("coco_url", "flickr_url", "url")
_USED = ("id", "file_name", "width", "height")
_LARGEST_SIDE = 2**20  # pixels; a record that claims more is not believed


class Images(NamedTuple):
    """The images that can be used.

    Attributes:
        paths: their files, each once.
        ids: their ids.
        sizes: (height, width) of each.
        listed: the ids of all records, also of those that are left out.
    """

    paths: list[str]
    ids: list[Id]
    sizes: list[tuple[int, int]]
    listed: set[Id | None]


class _Image(NamedTuple):
    image_id: Id
    name: str
    size: tuple[int, int] | None
    is_url: bool


def read_images(
    records: Sequence[Any],
    folder: Path,
    file: Path,
    report: Report,
    *,
    num_boxes: Callable[[Id], int],
) -> Images:
    """The images of a file whose id, name and place are clear; the rest is reported.

    An id of two different files is left out: its boxes may belong to either. Of two
    records that name one file, the one that has boxes is kept, or the first.

    Args:
        records: the file's `images`.
        folder: where the images are.
        file: the JSON file.
        report: takes what was found.
        num_boxes: number of annotations of an image id.

    Raises:
        ValueError: a record is no object, or no image is in the folder.
    """
    listed, images = _distinct(records, file, report)
    if records and not images:
        raise ValueError(
            f"{file}: none of the {len(records)} images can be used; the first that is "
            f"wrong: {_first_message(report)}"
        )
    found = _located(list(images.values()), folder, file, report)
    if not found:
        first = shown(next(iter(images.values())).name) if images else "nothing"
        raise ValueError(
            f"none of the {len(records)} pictures of {file} is in {folder}; "
            f"{describe(folder)}. The first is called {first}"
        )
    kept = _of_one_record(found, file, report, num_boxes)
    sizes = {image.image_id: image.size for image, _ in kept}
    unsized = [(image, path) for image, path in kept if image.size is None]
    report.note("picture whose size the JSON lacks, read from the file", len(unsized))
    headers = read_sizes([path for _, path in unsized], report)
    for (image, _), size in zip(unsized, headers, strict=True):
        sizes[image.image_id] = size
    usable = [
        (path, image.image_id, size)
        for image, path in kept
        if (size := sizes[image.image_id]) is not None
    ]
    paths, ids, shapes = zip(*usable, strict=True) if usable else ((), (), ())
    return Images(list(paths), list(ids), list(shapes), listed)


def _first_message(report: Report) -> str:
    kind = next(iter(report.counts))
    return report.entries(kind)[0].message


def _distinct(
    records: Sequence[Any], file: Path, report: Report
) -> tuple[set[Id | None], dict[Id, _Image]]:
    """The ids of all records; the images by id, without ids of different files."""
    images: dict[Id, _Image] = {}
    double: set[Id] = set()
    for index, record in enumerate(records):
        check_record(record, f"images[{index}]", "with id and file_name", file)
        check_id(record, "id", f"images[{index}]", file)
        image = _read(record)
        if image is None:
            key = repeated_key(record, _USED)
            report.add(
                "image record without id or file_name",
                file,
                None,
                f"images[{index}]: "
                + (f"{key} stands twice; " if key else "")
                + f"came id {shown(record.get('id'))} and file_name "
                f"{shown(record.get('file_name'))}; left out",
            )
            continue
        first = images.setdefault(image.image_id, image)
        if first is image:
            continue
        number, name = shown(image.image_id), shown(image.name)
        if plain_name(image.name) == plain_name(first.name):
            fate = f"stands for {name} twice; the second record is left out"
        else:
            double.add(image.image_id)
            fate = f"stands for {shown(first.name)} and for {name}; both are left out "
            fate += "with their boxes, which may belong to either"
        report.add("image id given twice", file, None, f"id {number} {fate}")
    listed = {read_id(record.get("id")) for record in records} - {None}
    return listed, {key: image for key, image in images.items() if key not in double}


def _read(record: Mapping[str, Any]) -> _Image | None:
    """What a record says; None where id or name are missing or given twice."""
    image_id, name = read_id(record.get("id")), record.get("file_name")
    is_url = False
    if name in (None, ""):
        name, is_url = _name_of_url(record), True
    named = isinstance(name, str) and name
    if image_id is None or not named or repeated_key(record, _USED[:2]):
        return None
    sides = [read_number(record.get(key)) for key in ("height", "width")]
    good = all(s and 0 < s <= _LARGEST_SIDE and s.is_integer() for s in sides)
    good = good and not repeated_key(record, _USED[2:])
    size = (int(sides[0] or 0), int(sides[1] or 0)) if good else None
    return _Image(image_id, name, size, is_url)


def _name_of_url(record: Mapping[str, Any]) -> str:
    """The path that an address ends in; empty where there is no address."""
    for key in _URLS:
        address = record.get(key)
        if isinstance(address, str) and address:
            try:
                path = urllib.parse.urlsplit(address).path
            except ValueError:  # brackets that are no address
                continue
            return posixpath.basename(urllib.parse.unquote(path))
    return ""


def _located(
    images: Sequence[_Image], folder: Path, file: Path, report: Report
) -> list[tuple[_Image, str]]:
    """The images whose file is clear, with it."""
    places = NamedImages(folder, [image.name for image in images])
    found = []
    for image in images:
        path, reason = places.find(image.name)
        if path and not reason:
            found.append((image, path))
            continue
        number, name = shown(image.image_id), image.name
        if not path:
            where = os.path.join(folder, name) if len(name) < 500 else file
            why = f": {reason}" if reason else ""
            report.add(
                "missing picture",
                where,
                None,
                f"named by {file}, image id {number}; left out with its boxes{why}",
            )
            continue
        report.note(
            f"image found under another {reason}",
            file=file,
            message=f"image id {number}: {shown(name)} is taken to be "
            f"{os.path.relpath(path, folder)}, the only file that fits",
        )
        found.append((image, path))
    report.note(
        "image without file_name, named by its URL",
        sum(image.is_url for image, _ in found),
    )
    return found


def _of_one_record(
    found: Sequence[tuple[_Image, str]],
    file: Path,
    report: Report,
    num_boxes: Callable[[Id], int],
) -> list[tuple[_Image, str]]:
    """Each file once, with one of the records that name it."""
    groups: dict[str, list[tuple[_Image, str]]] = {}
    for image, path in found:
        # Some systems find one file under names that differ in case.
        group = groups.setdefault(path.casefold(), [])
        group.append((image, path))
    dropped = set()
    for group in groups.values():
        if len(group) == 1:
            continue
        for file_group in _same_files(group):
            boxes = [num_boxes(image.image_id) for image, _ in file_group]
            kept = next((row for row, count in enumerate(boxes) if count), 0)
            for row, (image, path) in enumerate(file_group):
                if row == kept:
                    continue
                dropped.add(image.image_id)
                ids = (shown(file_group[n][0].image_id) for n in sorted((kept, row)))
                report.add(
                    "image file named by two records",
                    file,
                    None,
                    f"{path} is the file of the image ids {' and '.join(ids)}; id "
                    f"{shown(image.image_id)} is left out with its annotations "
                    f"({boxes[row]})",
                )
    return [item for item in found if item[0].image_id not in dropped]


def _same_files(
    group: Sequence[tuple[_Image, str]],
) -> list[list[tuple[_Image, str]]]:
    """The group in parts, each of one file."""
    parts: list[list[tuple[_Image, str]]] = []
    for item in group:
        for part in parts:
            if item[1] == part[0][1] or os.path.samefile(item[1], part[0][1]):
                part.append(item)
                break
        else:
            parts.append([item])
    return parts


def check_record(record: Any, place: str, fields: str, file: Path) -> None:
    """Check that a record is an object.

    Raises:
        ValueError: it is not.
    """
    if not isinstance(record, dict):
        raise ValueError(
            f"{file}: {place} is {kind_of(record)}, expected an object {fields}; came "
            f"{shown(record)}"
        )


def check_id(record: Mapping[str, Any], key: str, place: str, file: Path) -> None:
    """Check that an id is a single value.

    Raises:
        ValueError: it is a list or an object.
    """
    if isinstance(record.get(key), list | dict):
        raise ValueError(
            f"{file}: {key} of {place} is {kind_of(record[key])}, expected a whole "
            f"number or a text; came {shown(record[key])}"
        )
