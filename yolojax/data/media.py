"""Pictures and videos to look at: from files, folders, patterns and lists.

Nothing here is labelled, shuffled or resized; that is for `data/sources`.
"""

from __future__ import annotations

import dataclasses
import difflib
import glob
import math
import os
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal

import cv2
import numpy as np

from yolojax import lookup
from yolojax.data import formats
from yolojax.data.decode import (
    MAX_FILE_BYTES,
    Decoded,
    ImageError,
    UnreadFormat,
    decode,
    image_size,
)
from yolojax.data.headers import gif_moves
from yolojax.data.list_entries import list_entries
from yolojax.data.numbering import natural_key
from yolojax.data.report import Report
from yolojax.data.walking import leads_nowhere, report_link, walk
from yolojax.files import FileError, expand_path, open_file
from yolojax.records import DECODING, Decoding
from yolojax.utf8_names import utf8_path

Kind = Literal["image", "video"]
# For containers that do not say.
USUAL_FPS = 25.0


@dataclasses.dataclass(frozen=True)
class MediaItem:
    """A picture or video file.

    Attributes:
        path: where it lies.
        kind: "image" or "video".
        output_name: a file name without suffix that no other item of the same call
            has, not even where upper and lower case are one; the item's own where
            that is free.
    """

    path: Path
    kind: Kind
    output_name: str


def expand_sources(
    sources: Sequence[str | os.PathLike[str]],
    *,
    recursive: bool = False,
    report: Report | None = None,
) -> list[MediaItem]:
    """The pictures and videos that the sources name, each file once.

    A source is a file, a folder, a pattern (`*`, `?`, `[...]`, and `**` for any depth)
    or a `.txt` list with a path a line, relative to the list or to the working folder.
    Whatever exists under exactly that name is taken as it is, so that names with
    brackets need no quoting. In folders and patterns, hidden files and files that are
    neither picture nor video are passed over; a picture without a known suffix is
    known by its content. A GIF with more than one frame is a video. Pictures of formats
    that are not read, links to nothing and what is no regular file, but is called like
    a picture or video, are among the items, so that reading them reports them.

    Args:
        sources: at least one.
        recursive: also take folders inside of folders.
        report: gets a line for each entry of a list that is not there.

    Returns:
        Items in the order of the sources; those of a folder or pattern by name, with
        numbers in their natural order, those of a list as listed.

    Raises:
        ValueError: no source, one that does not exist, one that holds no picture or
            video, or a file that is neither; says what is there instead.
    """
    if isinstance(sources, str | os.PathLike):
        sources = [sources]
    if not sources:
        raise ValueError("no source: give a picture, video, folder, pattern or list")
    report = Report() if report is None else report
    found: dict[str, tuple[Path, Kind]] = {}
    for source in sources:
        for path, kind in _expand(os.fspath(source), recursive, report):
            # The folder's true name, but the file's own: a link to a picture is asked
            # for under the link's name.
            place = os.path.join(os.path.realpath(path.parent), path.name)
            found.setdefault(place, (path, kind))
    names = _output_names([path for path, _ in found.values()])
    return [
        MediaItem(path, kind, name)
        for (path, kind), name in zip(found.values(), names, strict=True)
    ]


def _expand(source: str, recursive: bool, report: Report) -> list[tuple[Path, Kind]]:
    source = expand_path(source)
    path = Path(source)
    if "://" in source:
        raise ValueError(f"source {source!r}: addresses are not read; download it")
    if path.is_file():
        if path.suffix.lower() == ".txt":
            return _read_list(path, report)
        kind = media_kind(path)
        if kind is None and formats.has_video_head(path):
            kind = "video"
        if kind is None:
            try:
                image_size(path)
                reason = "not a known format"
            except ImageError as error:
                reason = str(error).removeprefix(f"{path}: ")
            raise ValueError(
                f"source {source!r} is neither a picture nor a video: {reason}"
            )
        return [(path, kind)]
    if path.is_dir():
        paths = path.iterdir()
        if recursive:
            walked = walk(path, report, suffixes=None)
            paths = (Path(parent, name) for parent, names in walked for name in names)
        items = _sorted_media(paths, path, report)
        if not items:
            folders = sum(child.is_dir() for child in path.iterdir())
            more = f"; it has {folders} folders, try {source}/**/*" if folders else ""
            raise ValueError(
                f"source {source!r}: no picture or video in this folder{more}"
            )
        names = (child.name for child in path.iterdir() if child.is_dir())
        folders = sorted(name for name in names if not name.startswith("."))
        if folders and not recursive:
            some = lookup.listed(folders, 3)
            report.note(
                "folders not looked into",
                len(folders),
                file=str(path),
                message=f"{some}; --recursive takes them",
            )
        return items
    if path.exists():
        raise ValueError(f"source {source!r} is not a regular file")
    if glob.has_magic(source):
        return _expand_pattern(source, path, report)
    if os.path.exists(path):
        raise ValueError(f"source {source!r} is not a regular file")
    raise ValueError(f"source {source!r} does not exist; {_neighbours(path)}")


def _expand_pattern(source: str, path: Path, report: Report) -> list[tuple[Path, Kind]]:
    """The files that match; leading folders that exist as written are no pattern."""
    fixed = Path(path.anchor)
    rest = list(path.parts[1 if path.anchor else 0 :])
    while rest and (fixed / rest[0]).exists():
        fixed = fixed / rest.pop(0)
    matches = _matches(str(fixed), rest, report)
    if not matches:
        # Perhaps the brackets belong to the names, and only the stars are a pattern.
        literal = [part.replace("[", "[[]") for part in rest]
        matches = _matches(str(fixed), literal, report)
    items = _sorted_media(map(Path, matches), fixed, report)
    if not items:
        what = f"{len(matches)} matches, but no picture or video" if matches else ""
        raise ValueError(
            f"source {source!r}: {what or 'nothing matches'}; {_neighbours(path)}"
        )
    return items


def _matches(folder: str, parts: Sequence[str], report: Report) -> list[str]:
    """What matches a pattern, given by its parts, in a folder; each path once.

    `glob` alone would run round a circle of links.
    """
    depth = parts.index("**") if "**" in parts else len(parts)
    starts = [folder]
    if depth:
        starts = glob.glob(os.path.join(glob.escape(folder), *parts[:depth]))
    if depth == len(parts):
        return starts
    rest = list(parts[depth + 1 :]) or ["*"]
    found: dict[str, None] = {}
    for start in filter(os.path.isdir, starts):
        for parent, _ in walk(start, report, suffixes=None):
            found |= dict.fromkeys(_matches(parent, rest, Report()))
    return list(found)


def _read_list(path: Path, report: Report) -> list[tuple[Path, Kind]]:
    items, count = [], 0
    for count, entry, listed in list_entries(path):
        kind = media_kind(listed) if listed else None
        if listed is None or kind is None:
            what = "neither picture nor video" if listed else "no such file"
            message = f"{entry[:200]}: {what}, left out"
            report.add("unreadable entry", path, count, message)
        else:
            items.append((listed, kind))
    if not items:
        raise ValueError(
            f"source '{path}': none of its {count} lines names a picture or "
            "video; paths are relative to the list or to the working folder"
        )
    return items


def _sorted_media(
    paths: Iterable[Path], root: Path, report: Report
) -> list[tuple[Path, Kind]]:
    """Those of the paths that are pictures or videos, in natural order."""
    items = []
    for path in paths:
        inside = path.relative_to(root).parts if path.is_relative_to(root) else ()
        if any(part.startswith(".") for part in inside):
            continue
        if leads_nowhere(path):
            report_link(path, report)
            continue
        kind = media_kind(path)
        if kind is not None:
            items.append((path, kind))
    return sorted(items, key=lambda item: natural_key(str(item[0])))


def media_kind(path: Path) -> Kind | None:
    """What the file is, by its suffix, else by its content; None if neither.

    A file called like a picture counts as one even if it turns out to be unreadable,
    so that it is reported and not passed over; so does one of a format that is not
    read.
    """
    if formats.is_video(path):
        return "video"
    if path.suffix.lower() == ".gif":
        return "video" if _has_two_frames(path) else "image"
    if formats.is_image_name(path):
        return "image"
    try:
        image_size(path)
    except UnreadFormat as error:
        return None if error.is_document else "image"
    except ImageError:
        return None
    return "image"


def _has_two_frames(path: Path) -> bool:
    try:
        with open_file(path) as file:
            return gif_moves(file.read(MAX_FILE_BYTES))
    except (FileError, OSError):
        return False


def _neighbours(path: Path) -> str:
    """What lies where the path stops existing, for an error message."""
    parent = path.parent
    missing = path
    while not parent.is_dir() and parent != parent.parent:
        missing, parent = parent, parent.parent
    where = parent.resolve()
    try:
        names = [entry.name for entry in parent.iterdir() if entry.name[0] != "."]
        names.sort(key=natural_key)
    except OSError as error:
        return f"{where} cannot be listed: {error.strerror}"
    if not names:
        return f"{where} is empty"
    near = difflib.get_close_matches(missing.name, names, n=1)
    if near:
        return f"did you mean '{parent / near[0]}'?"
    shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    return f"{where} holds {len(names)} entries: {shown}"


def _output_names(paths: Sequence[Path]) -> list[str]:
    def folded(name: str) -> str:
        # As file systems do that ignore case or the form of accents.
        return unicodedata.normalize("NFC", name).casefold()

    taken: set[str] = set()
    names = []
    for path in paths:
        stem = path.stem or path.name
        candidates = [stem, f"{path.parent.name}_{stem}" if path.parent.name else stem]
        number = 2
        while folded(candidates[0]) in taken:
            candidates.pop(0)
            if not candidates:
                candidates.append(f"{stem}_{number}")
                number += 1
        taken.add(folded(candidates[0]))
        names.append(candidates[0])
    return names


def read_image(item: MediaItem, report: Report) -> np.ndarray | None:
    """The picture as uint8 RGB [h, w, 3], or None and a line in the report."""
    decoded = decode_item(item, report)
    return None if decoded is None else decoded.pixels


def decode_item(
    item: MediaItem, report: Report, decoding: Decoding = DECODING
) -> Decoded | None:
    """What the picture shows, or None and a line in the report.

    A JPEG that takes too much memory comes smaller, see `Decoded.size`.

    Args:
        item: a picture.
        report: also gets a note of 16-bit pictures that are brightened, since nothing
            says what is white in them.
        decoding: that of the data that the network was trained on.
    """
    try:
        decoded = decode(item.path, decoding=decoding, may_shrink=True)
        if 0 < decoded.white < 65535 and not decoding.white:
            message = f"its largest value has {decoded.white.bit_length()} bits: "
            message += f"{decoded.white} becomes white (config.data.white)"
            report.note(
                "16-bit image that uses fewer bits", file=item.path, message=message
            )
        return decoded
    except ImageError as error:
        message = str(error).removeprefix(f"{item.path}: ")
        report.add("unreadable image", item.path, None, f"{message}; left out")
        return None


class Video:
    """A video file, to be gone through once, frame by frame.

    Attributes:
        fps: frames a second; 25 where the file does not say.
        count: frames, as the file says, or None where it does not; may be a little
            off.

    Raises:
        ValueError: the file holds no video that OpenCV can read.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        open_file(self.path).close()
        # FFmpeg would follow a playlist, which is text, to other files.
        if formats.is_text(self.path):
            raise ValueError(f"{self.path}: not a video that OpenCV can read, but text")
        # An absolute path cannot be taken for an address such as `concat:...`.
        with utf8_path(os.path.abspath(self.path)) as name:
            self._capture = cv2.VideoCapture(name)
        if not self._capture.isOpened():
            raise ValueError(f"{self.path}: not a video that OpenCV can read")
        width, height = (
            self._capture.get(key)
            for key in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)
        )
        if not width * height >= 1:
            self.close()
            raise ValueError(f"{self.path}: not a video that OpenCV can read")
        most = DECODING.max_bytes
        if width * height * 3 > most:
            self.close()
            raise ValueError(
                f"{self.path}: frames of {width:.0f} x {height:.0f} pixels; more than "
                f"{most / 1e6:.0f} MB a frame are refused"
            )
        fps = self._capture.get(cv2.CAP_PROP_FPS)
        self.fps = fps if math.isfinite(fps) and 0 < fps <= 1000 else USUAL_FPS
        count = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.count = int(count) if math.isfinite(count) and count > 0 else None

    def frames(self, report: Report) -> Iterator[np.ndarray]:
        """The frames, uint8 RGB [h, w, 3], turned as the file says.

        Args:
            report: gets a line where the video ends much before its stated end.
        """
        read = 0
        while True:
            done, frame = self._capture.read()
            if not done:
                break
            read += 1
            yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
        # Containers round; a twentieth less is no reason to worry anybody.
        if read == 0 or (self.count and read < 0.95 * self.count):
            stated = self.count or "an unknown number of"
            message = f"{read} of {stated} frames could be read"
            report.add("video cut short", self.path, None, message)

    def close(self) -> None:
        """Closes the file."""
        self._capture.release()

    def __enter__(self) -> Video:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
