"""Lists of images: a path a line, as people and programs of all systems write them."""

from __future__ import annotations

import collections
import os
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from yolojax.data.report import Report
from yolojax.data.sources.data_yaml import path_parts
from yolojax.files import LARGEST_LIST, numbered_lines, read_text, unquoted

MOST_LINES = 500_000
# Leading folders that a moved list may have.
_DEEPEST = 30
# Lines that decide which leading folders of a moved list are not here.
_SAMPLE = 200
_SHOWN = 200  # characters of a line in messages


class Listings:
    """What folders hold; each is listed once."""

    def __init__(self) -> None:
        self._names: dict[str, frozenset[str]] = {}
        self._folded: dict[str, dict[str, list[str]]] = {}

    def names(self, folder: str) -> frozenset[str]:
        """All names in a folder; none where it cannot be listed."""
        if folder not in self._names:
            try:
                self._names[folder] = frozenset(os.listdir(folder or "."))
            except (OSError, ValueError):
                self._names[folder] = frozenset()
        return self._names[folder]

    def has(self, path: str) -> bool:
        """Whether a path ends with a name that its folder holds."""
        folder, name = os.path.split(path)
        return name in self.names(folder)

    def similar(self, path: str) -> str | None:
        """The only path that differs from this one in case or form of accents."""
        folder, name = os.path.split(path)
        if folder not in self._folded:
            by_key = collections.defaultdict(list)
            for present in self.names(folder):
                by_key[fold(present)].append(present)
            self._folded[folder] = by_key
        found = self._folded[folder].get(fold(name), ())
        return os.path.join(folder, found[0]) if len(found) == 1 else None


def fold(name: str) -> str:
    """A name as file systems see it that ignore case and the form of accents."""
    return unicodedata.normalize("NFC", name).casefold()


def read_list(file: Path, homes: Sequence[Path], report: Report) -> list[str]:
    """The images of a list that exist, in its order; the others are reported.

    Relative paths start at the list or at one of the homes. Backslashes, quotes, and
    text in UTF-16 are read. Where a path begins with folders that are not here, as in
    lists of another machine, its end is looked for.

    Raises:
        ValueError: the list cannot be read or is too large.
    """
    text = read_text(file, limit=LARGEST_LIST, errors="surrogateescape")
    listings = Listings()
    starts = list(dict.fromkeys(map(str, (file.parent, *homes))))
    found: dict[int, str] = {}
    missing: list[tuple[int, str]] = []
    for number, line in numbered_lines(text):
        if number > MOST_LINES:
            raise ValueError(f"{file}: more than {MOST_LINES:,} lines; make two lists")
        name = unquoted(line)
        if not name:
            continue
        path = _exact(name, starts, listings)
        if path is not None:
            found[number] = path
        elif not name.startswith("#"):
            missing.append((number, name))
    moved = _find_moved(missing, starts, listings, file, report)
    for number, name in missing:
        if number not in moved:
            message = f"{name[:_SHOWN]} does not exist in {file.parent}; left out"
            report.add("missing picture", file, number, message)
    found.update(moved)
    return [found[number] for number in sorted(found)]


def _exact(name: str, starts: Sequence[str], listings: Listings) -> str | None:
    """The path that a line gives, also as other systems write it."""
    names = [name]
    if "\\" in name:
        names.append(name.replace("\\", "/"))
    if not name.isascii():
        # macOS writes accents in two parts, most others in one.
        names += [unicodedata.normalize(f, n) for n in names for f in ("NFC", "NFD")]
    for start in starts:
        for variant in names:
            path = os.path.join(start, variant)
            if "/." in path or "//" in path:
                path = str(Path(path))
            if listings.has(path):
                return path
    return None


def _find_moved(
    missing: Sequence[tuple[int, str]],
    starts: Sequence[str],
    listings: Listings,
    file: Path,
    report: Report,
) -> dict[int, str]:
    """Paths of lines without their leading folders, or in another case, where unique.

    The same number of folders is left out of all lines, and they start at the same
    home: taken one by one, lines could name the image of another folder.
    """
    if not missing:
        return {}
    sample = [path_parts(name) for _, name in missing[:: -(-len(missing) // _SAMPLE)]]
    folders = {name.replace("\\", "/").rpartition("/")[0] for _, name in missing}
    bare = len(folders) == 1
    best, start, skip = 0, starts[0], 0
    for tried_skip in range(min(max(map(len, sample)), _DEEPEST)):
        for tried in starts:
            paths = (_joined(tried, parts, tried_skip, bare) for parts in sample)
            hits = sum(path is not None and listings.has(path) for path in paths)
            if hits > best:
                best, start, skip = hits, tried, tried_skip
    moved, others = {}, 0
    for number, name in missing:
        path = _joined(start, path_parts(name), skip, bare)
        other = path and not listings.has(path) and listings.similar(path)
        if other:
            message = f"{name[:_SHOWN]} is {os.path.basename(other)} in its folder"
            report.note("list entry in another case", file=file, message=message)
            moved[number] = other
            others += 1
        elif path and other is False:
            moved[number] = path
    if skip and len(moved) > others:
        number, name = next(pair for pair in missing if pair[0] in moved)
        message = f"line {number}: {name[:_SHOWN]} means {moved[number]}"
        count = len(moved) - others
        kind = "list entry found in another place"
        report.note(kind, count, file=file, message=message)
    return moved


def _joined(start: str, parts: list[str], skip: int, one_folder: bool) -> str | None:
    """A path without its first folders; a bare name only where all have one folder."""
    rest = parts[skip:]
    if not rest or (skip and len(rest) == 1 and not one_folder):
        return None
    return os.path.join(start, *rest)
