"""Files of the images that a label file names, also where it spells them otherwise."""

from __future__ import annotations

import collections
import os
import posixpath
import unicodedata
import urllib.parse
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from yolojax.data.formats import is_read_name
from yolojax.data.json_fields import shown
from yolojax.data.report import Report
from yolojax.data.sources.base import PICTURE_SUFFIXES, list_pictures

# Suffixes that the name of an image may have, though its file has another.
_SUFFIXES = PICTURE_SUFFIXES | frozenset(
    ".heic .heif .hif .jp2 .j2k .jxl .dng .cr2 .nef .tga .psd".split()
)
_DEEPEST = 8  # folders of a name that are compared
_LONGEST = 4096  # characters; no system takes longer paths


class Located(NamedTuple):
    """Where the image of a name is.

    Attributes:
        path: the file; empty: there is none, or it is not clear which.
        reason: why the path is empty, or what is different in its name; empty: the
            path is the one that the name says.
    """

    path: str
    reason: str = ""


class NamedImages:
    """Finds the files of some names in a folder.

    A name is a path that starts from the folder, or, with the folder's own name before
    it, beside the folder. Where no file has this path, the file is taken whose name
    differs in case, Unicode's form, `%20` or slashes; then one with another image
    suffix; then, for a name with a folder, one in another folder. In each of these
    steps exactly one file and exactly one name must fit: the labels of a `1.jpg` of
    another camera are never put on this one.

    Args:
        folder: where the images are.
        names: all names of the label file, each of its images once.
    """

    def __init__(self, folder: Path, names: Iterable[str]) -> None:
        self._folder = folder
        self._names = list(names)
        # Deepest first: "b/images" before "images".
        parts = Path(os.path.abspath(folder)).parts[1:]
        self._own = ["/".join(parts[n:]) + "/" for n in range(len(parts))]
        self._files: dict[str, list[str]] | None = None
        self._counts: collections.Counter[str] = collections.Counter()

    def find(self, name: str) -> Located:
        """The file of one of the names."""
        if len(name) > _LONGEST:
            return Located("", f"a name of {len(name):,} characters")
        tidy = _tidy(name)
        for candidate in (tidy, name, self._from_folder(tidy)):
            path = os.path.join(self._folder, candidate)
            if os.path.isfile(path):
                return Located(path)
        return self._find_similar(name)

    def _from_folder(self, tidy: str) -> str:
        """A name without the folder's own name before it."""
        own = next((own for own in self._own if tidy.startswith(own)), "")
        return tidy[len(own) :]

    def _find_similar(self, name: str) -> Located:
        if self._files is None:
            self._index()
        assert self._files is not None
        for key, difference in self._keys(name):
            if difference == "folder" and "/" not in self._from_folder(_tidy(name)):
                break
            files = self._files.get(key, [])
            if not files:
                continue
            readable = [file for file in files if is_read_name(file)]
            if len(readable) == 1:  # a phone's HEIC beside the JPEG made of it
                files = readable
            if len(files) > 1:
                first, second = (os.path.relpath(f, self._folder) for f in files[:2])
                found = f"{len(files)} files could be it: {shown(first)}"
                return Located("", f"{found}, {shown(second)}")
            if self._counts[key] > 1:
                found = os.path.relpath(files[0], self._folder)
                others = f"{self._counts[key]} images of the file are called so"
                return Located("", f"it could be {shown(found)}, but {others}")
            return Located(files[0], difference)
        return Located("", "")

    def _index(self) -> None:
        """Files by all keys, and how many names have each key."""
        files = collections.defaultdict(list)
        for path in list_pictures(self._folder, Report()):
            relative = os.path.relpath(path, self._folder).replace(os.sep, "/")
            for key, _ in _keys_of(relative):
                files[key].append(path)
        self._files = dict(files)
        for name in self._names:
            if len(name) <= _LONGEST:
                self._counts.update(key for key, _ in self._keys(name))

    def _keys(self, name: str) -> Iterator[tuple[str, str]]:
        return _keys_of(self._from_folder(_tidy(name)))


def _keys_of(path: str) -> Iterator[tuple[str, str]]:
    """What a path is compared by, strictest first, and what then may be different."""
    parts = plain_name(path).casefold().split("/")
    parts = [part for part in parts if part not in ("", ".", "..")]
    whole = "/".join(parts)
    # No name has a null character.
    yield f"\0{whole}", "spelling"
    yield f"\0{_stem(whole)}", "suffix"
    for depth in range(min(len(parts), _DEEPEST), 0, -1):
        tail = "/".join(parts[-depth:])
        yield tail, "folder"
        yield _stem(tail), "folder"


def _stem(name: str) -> str:
    """A name without its suffix, where that is an image's; marked as such."""
    stem, suffix = os.path.splitext(name)
    return f"{stem if suffix in _SUFFIXES else name}\0"


def plain_name(name: str) -> str:
    """A path in one of its spellings: of slashes, `%20` and Unicode's forms."""
    return unicodedata.normalize("NFC", urllib.parse.unquote(_tidy(name)))


def _tidy(name: str) -> str:
    """A path with slashes forward and without detours, as `./a//b.jpg`."""
    return posixpath.normpath(name.replace("\\", "/")) if name else ""
