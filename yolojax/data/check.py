"""Reads a whole data set before training: what cannot be used, and what is in it."""

from __future__ import annotations

import collections
import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from yolojax.data.decode import ImageError, image_size, read_file
from yolojax.data.decode import decode as decode_picture
from yolojax.data.report import Report
from yolojax.data.sources.base import Source
from yolojax.files import replace_text
from yolojax.json_files import load_json
from yolojax.printable import printable
from yolojax.records import Decoding

# Goes up when `decode_image` changes its mind about what can be read.
CACHE_FORMAT = "yolojax scan 2"
# COCO's borders between small, medium and large, in square pixels.
MEDIUM_AREA, LARGE_AREA = 32**2, 96**2
CHUNK = 16  # pictures that a thread takes at a time


class _Finding(NamedTuple):
    """What reading one file showed; kept in the cache as it stands.

    Attributes:
        num_bytes: length of the file.
        mtime_ns: when it was last changed; with `num_bytes` tells it is the same.
        decoded: whether its pixels were decoded, and not only its header.
        size: (height, width) as shown, None if unreadable.
        digest: of its bytes, empty if they were not read.
        error: why it is unreadable, empty if it is not.
        white: see `decode.Decoded`.
    """

    num_bytes: int
    mtime_ns: int
    decoded: bool
    size: tuple[int, int] | None
    digest: str
    error: str
    white: int = 0


class _Read(NamedTuple):
    """A picture as its source describes it, and what its file holds, if it has one."""

    name: str
    size: tuple[int, int]
    finding: _Finding | None


def scan(
    source: Source,
    *,
    decode: bool = True,
    num_threads: int = 2,
    cache_path: str | Path | None = None,
    digests: dict[str, str] | None = None,
    whites: collections.Counter[int] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Report, np.ndarray]:
    """Read every picture; say what is wrong and which ones can be used.

    Left out are pictures that cannot be read, and those whose size is not the one
    that their boxes were drawn on. Pictures with the same bytes are kept and counted.
    Pictures that the source makes itself (arrays) are taken as good.

    Args:
        source: the data set.
        decode: decode all pixels; otherwise only the headers are read, which does
            not find damaged or double pictures.
        num_threads: threads that read and decode.
        cache_path: a JSON file of ours with what earlier scans found; it is made if
            need be, and pictures that did not change are not read again.
        digests: names of the pictures of other parts by the digests of their bytes;
            those that come here again are reported, and those of this part are added.
        whites: counts the usable 16-bit pictures by their `Decoded.white`.
        progress: is called now and then with the number of pictures done and of all.

    Returns:
        The report of this scan, without the source's own, and the indices of the
        usable pictures, int64, rising.

    Raises:
        ValueError: no picture can be used, or `cache_path` is some other file.
    """
    known = _load_cache(cache_path)
    fresh: dict[str, _Finding] = {}

    def read(index: int) -> _Read:
        example = source[index]
        finding = None
        if isinstance(example.image, str):
            path = os.path.abspath(example.image)
            old = known.get(path)
            finding = _read(path, old, decode, example.decoding)
            if finding is not old:
                fresh[path] = finding
        elif isinstance(example.image, bytes):
            stamp = len(example.image), 0
            finding = _examine(example.image, stamp, decode, example.decoding)
        return _Read(example.name, example.size, finding)

    report, keep, seen = Report(), [], {}
    # Handing over a single picture costs more than finding it in the cache.
    parts = (
        range(n, min(n + CHUNK, len(source))) for n in range(0, len(source), CHUNK)
    )
    with ThreadPoolExecutor(num_threads) as pool:
        for part, results in pool.map(lambda part: (part, [*map(read, part)]), parts):
            for index, result in zip(part, results, strict=True):
                if _is_usable(result, report):
                    keep.append(index)
                    if whites is not None and result.finding and result.finding.white:
                        whites[result.finding.white] += 1
                    _note_copy(result, seen, digests or {}, report)
            if progress is not None:
                progress(part.stop, len(source))
    if cache_path is not None and fresh:
        _save_cache(cache_path, known | fresh)
    if digests is not None:
        digests.update(seen)
    if not keep:
        raise ValueError(
            f"none of the {len(source)} pictures can be used:\n{report.render()}"
        )
    return report, np.array(keep, np.int64)


def note_cut_boxes(
    source: Source, keep: Sequence[int] | np.ndarray, max_boxes: int, report: Report
) -> None:
    """Note in the report which pictures have more boxes than `max_boxes`."""
    for index in keep:
        example = source[int(index)]
        count = int(np.count_nonzero(~example.crowd))
        if count > max_boxes:
            report.note(
                "box without room",
                count - max_boxes,
                file=example.name,
                message=f"{count} boxes, but config.data.max_boxes is {max_boxes}; "
                "the last ones are left out of the loss",
            )


def note_white(whites: Mapping[int, int], given: int, report: Report) -> None:
    """Note what becomes of 16-bit images that use fewer bits, or different ones.

    Args:
        whites: counts, see `scan`.
        given: the value that the config says is white; 0: none.
        report: takes the note.
    """
    if not whites:
        return
    low, high = min(whites), max(whites)
    white, key = given or high, "config.data.white"
    message = ""
    if high > white:
        message = f"the largest value has {high.bit_length()} bits, but {key} is "
        message += f"{white}: what is brighter becomes white"
    elif white < 65535:
        message = f"the largest value has {white.bit_length()} bits: {white} becomes "
        message += f"white in all of them ({key})"
    elif low < white:
        dark = sum(count for own, count in whites.items() if own < white)
        message = f"{dark} of {sum(whites.values())} images with 16 bits have no value "
        message += f"above {max(own for own in whites if own < white)} and stay dark, "
        message += f"since others have; {white} becomes white in all of them ({key})"
    if message:
        count = sum(whites.values())
        report.note("16-bit image that uses fewer bits", count, message=message)


def _read(
    path: str, old: _Finding | None, decode: bool, decoding: Decoding
) -> _Finding:
    """What a file holds; the old finding itself where that still stands."""
    try:
        status = os.stat(path)
    except OSError as error:
        return _Finding(0, 0, decode, None, "", error.strerror or str(error))
    stamp = status.st_size, status.st_mtime_ns
    # What was refused may be read now: a library was installed, a limit raised.
    usable = old is not None and old.decoded >= decode
    if old is not None and usable and old[:2] == stamp and not _may_pass(old):
        return old
    try:
        if not decode:
            return _examine(path, stamp, decode, decoding)
        return _examine(read_file(path), stamp, decode, decoding, name=path)
    except ImageError as error:
        reason = str(error).removeprefix(f"{path}: ")
        return _Finding(*stamp, decode, None, "", reason)


def _may_pass(finding: _Finding) -> bool:
    return finding.error.startswith("not read: ") or "decode_megabytes" in finding.error


def _examine(
    picture: bytes | str,
    stamp: tuple[int, int],
    decode: bool,
    decoding: Decoding,
    name: str = "picture",
) -> _Finding:
    """What encoded bytes, or the header of a file, hold."""
    digest, white = "", 0
    try:
        if decode and isinstance(picture, bytes):
            digest = hashlib.blake2b(picture, digest_size=16).hexdigest()
            _, white, size = decode_picture(
                picture, decoding=decoding, may_shrink=True, name=name
            )
        else:
            size = image_size(picture, name=name)
    except ImageError as error:
        name = picture if isinstance(picture, str) else name
        reason = str(error).removeprefix(f"{name}: ")
        return _Finding(*stamp, decode, None, digest, reason)
    return _Finding(*stamp, decode, size, digest, "", white)


def _is_usable(read: _Read, report: Report) -> bool:
    name, (height, width), finding = read
    if finding is None:
        return True
    if finding.size is None:
        report.add("unreadable picture", name, None, f"{finding.error}; left out")
        return False
    if finding.size == (height, width):
        return True
    turned = ": turned, as by an EXIF orientation" * (finding.size == (width, height))
    report.add(
        "size that differs from the labels'",
        name,
        None,
        f"the labels say {width} x {height}, the picture shows {finding.size[1]} x "
        f"{finding.size[0]}{turned}; left out, since its boxes do not fit",
    )
    return False


def _note_copy(
    read: _Read, seen: dict[str, str], others: Mapping[str, str], report: Report
) -> None:
    if read.finding is None or not read.finding.digest:
        return
    if read.finding.digest in others:
        elsewhere = others[read.finding.digest]
        message = f"has the same bytes as {elsewhere} of another part of the data"
        report.note("picture of another part", file=read.name, message=message)
    first = seen.setdefault(read.finding.digest, read.name)
    if first != read.name:
        message = f"has the same bytes as {first}; both are kept"
        report.note("picture given twice", file=read.name, message=message)


def known_digests(cache_path: Path) -> dict[str, str]:
    """The digests of the images' bytes by absolute path, as a scan has kept them."""
    return {path: found.digest for path, found in _load_cache(cache_path).items()}


def _load_cache(path: str | Path | None) -> dict[str, _Finding]:
    """What earlier scans found; nothing where a run's own `scan_*.json` is damaged."""
    if path is None or not os.path.exists(path):
        return {}
    try:
        content = load_json(path, limit=None, most_values=10**9)
        if not str(content.get("format")).startswith("yolojax scan "):
            raise ValueError("another format")
    except ValueError as error:
        if Path(path).name.startswith("scan_"):
            return {}
        raise ValueError(
            f"{path} is not a file that an earlier scan wrote; name another one"
        ) from error
    pictures = content.get("pictures")
    if content["format"] != CACHE_FORMAT or content.get("digest") != _digest(pictures):
        return {}
    return {
        name: _Finding(num_bytes, mtime, decoded, tuple(size) if size else None, *rest)
        for name, (num_bytes, mtime, decoded, size, *rest) in pictures.items()
    }


def _save_cache(path: str | Path, findings: dict[str, _Finding]) -> None:
    """In one step: a scan that is killed leaves the old file."""
    content = {"format": CACHE_FORMAT, "pictures": findings}
    text = json.dumps({**content, "digest": _digest(findings)})
    replace_text(Path(path), text)


def _digest(pictures: Any) -> str:
    """Of what a cache says of pictures: a damaged one is not believed."""
    text = json.dumps(pictures, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def summary(source: Source, keep: Sequence[int] | np.ndarray) -> str:
    """What a data set holds, as a text table.

    Args:
        source: the data set.
        keep: indices of the pictures to count, as `scan` gives them.

    Returns:
        Pictures, boxes (crowds apart), their sizes by COCO's borders, the pictures'
        sizes, and for each class its boxes and the pictures that show it. Of pictures
        with labels instead of boxes: pictures, sizes, and the pictures of each class.
    """
    if hasattr(source, "multi_label"):
        return _summary_of_classes(source, keep)
    num_classes = len(source.class_names)
    boxes = np.zeros(num_classes, np.int64)
    pictures = np.zeros(num_classes, np.int64)
    areas: list[np.ndarray] = []
    sizes: collections.Counter[tuple[int, int]] = collections.Counter()
    crowds, empty, most = 0, 0, 0
    for index in keep:
        example = source[int(index)]
        labels = example.labels[~example.crowd]
        count = np.bincount(labels, minlength=num_classes)
        boxes += count
        pictures += count > 0
        areas.append(example.areas[~example.crowd])
        sizes[(int(example.size[1]), int(example.size[0]))] += 1
        crowds += int(example.crowd.sum())
        empty += len(labels) == 0
        most = max(most, len(labels))
    area = np.concatenate([np.zeros(0, np.float32), *areas])
    small, large = int((area < MEDIUM_AREA).sum()), int((area >= LARGE_AREA).sum())
    rows = [
        ("pictures", f"{len(keep)}, {empty} of them without a box"),
        ("picture sizes", _common(sizes)),
        ("boxes", f"{len(area)}, at most {most} in a picture; {crowds} crowds apart"),
        (
            "box sizes",
            f"{small} small, {len(area) - small - large} medium, {large} large "
            "(areas below 32 x 32, below 96 x 96, above)",
        ),
    ]
    return _table(source, rows, {"boxes": boxes, "pictures": pictures})


def _summary_of_classes(source: Source, keep: Sequence[int] | np.ndarray) -> str:
    pictures = np.zeros(len(source.class_names), np.int64)
    sizes: collections.Counter[tuple[int, int]] = collections.Counter()
    labels: collections.Counter[int] = collections.Counter()
    for index in keep:
        example = source[int(index)]
        pictures[example.labels] += 1
        sizes[(int(example.size[1]), int(example.size[0]))] += 1
        labels[len(example.labels)] += 1
    rows = [
        ("pictures", f"{len(keep)}, {labels[0]} of them without a label"),
        ("picture sizes", _common(sizes)),
    ]
    if getattr(source, "multi_label", False):
        total = sum(count * number for number, count in labels.items())
        most = max(labels, default=0)
        rows.append(("labels", f"{total}, at most {most} of a picture"))
    return _table(source, rows, {"pictures": pictures})


def _common(sizes: collections.Counter[tuple[int, int]]) -> str:
    """The most frequent (width, height)."""
    common = ", ".join(f"{w} x {h} ({n})" for (w, h), n in sizes.most_common(3))
    if len(sizes) > 3:
        common += f" and {len(sizes) - 3} more sizes"
    return f"{common} (width x height)"


def _table(
    source: Source,
    rows: Sequence[tuple[str, str]],
    columns: dict[str, np.ndarray],
) -> str:
    """Lines of a title and a text, and below them numbers of each class."""
    names = [
        f"{label} {printable(name)}" for label, name in enumerate(source.class_names)
    ]
    width = max(map(len, [*names, "picture sizes"])) + 2
    lines = [f"{title:<{width}}{text}" for title, text in rows]
    if names:
        heads = "".join(f"{name:>{max(8, len(name) + 2)}}" for name in columns)
        lines += ["", f"{'class':<{width}}{heads}"]
    for label, name in enumerate(names):
        cells = "".join(
            f"{counts[label]:>{max(8, len(title) + 2)}}"
            for title, counts in columns.items()
        )
        lines.append(f"{name:<{width}}{cells}")
    return "\n".join(lines)
