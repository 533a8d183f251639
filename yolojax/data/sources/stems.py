"""Files below a folder by their names without suffix, and what a list's line means."""

from __future__ import annotations

import collections
import contextlib
import os
import re
import unicodedata
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from yolojax.data.report import Report
from yolojax.data.walking import walk

# In which names of files may stand in lists from other systems.
CODECS = ("gb18030", "big5", "cp932", "cp949", "cp1252")


class Stems:
    """Files of some suffixes below a folder, by their paths in it without suffix.

    Args:
        folder: where they lie.
        suffixes: theirs, in lower case.
        report: what `walk` reports.
        deep: whether folders below are gone through as well.
    """

    def __init__(
        self,
        folder: Path,
        suffixes: Collection[str],
        report: Report,
        *,
        deep: bool = True,
    ) -> None:
        self.folder = folder
        self.files: dict[str, list[str]] = {}
        start = len(os.path.join(folder, ""))
        for parent, names in walk(folder, report, suffixes=suffixes):
            for name in names:
                stem, suffix = os.path.splitext(os.path.join(parent, name)[start:])
                if suffix.lower() in suffixes and not name.startswith("."):
                    path = os.path.join(parent, name)
                    self.files.setdefault(stem.replace(os.sep, "/"), []).append(path)
            if not deep:
                break
        self.files = dict(sorted(self.files.items()))
        self._folded: dict[str, list[str]] = collections.defaultdict(list)
        self._bare: dict[str, list[str]] = collections.defaultdict(list)
        for stem in self.files:
            self._folded[_fold(stem)].append(stem)
            self._bare[_bare(_fold(stem))].append(stem)

    def find(self, name: str) -> str | None:
        """The stem of this name; in another case or form of accents if it is one."""
        return name if name in self.files else _only(self._folded.get(_fold(name)))

    def find_bare(self, name: str) -> str | None:
        """The only stem with this name in whatever folder."""
        return _only(self._bare.get(_bare(_fold(name))))

    def is_bare(self, stem: str) -> bool:
        """Whether no other stem has the same name in another folder."""
        return self.find_bare(stem) == stem


def _fold(name: str) -> str:
    # As file systems do that ignore case or the form of accents.
    return unicodedata.normalize("NFC", name).casefold()


def _bare(stem: str) -> str:
    return stem.rpartition("/")[2]


def _only(stems: Sequence[str] | None) -> str | None:
    return stems[0] if stems and len(stems) == 1 else None


class Match(NamedTuple):
    """What a line of a list means.

    Attributes:
        stem: of the file.
        exact: whether the line names it with its folder.
    """

    stem: str
    exact: bool


def match_line(
    line: str, stems: Stems, suffixes: Collection[str], homes: Collection[str]
) -> Match | None:
    """The file that a line of a list names, or None.

    The line as it stands comes first, then without a suffix, then without the mark
    1, 0 or -1 that lists of single classes have behind each name.

    Args:
        line: a name, perhaps with a path before it, a suffix or a mark.
        stems: the files.
        suffixes: what may be cut off a name, in lower case.
        homes: names of folders, in lower case, whose files these are: what comes
            before one of them in a path means nothing.
    """
    texts = list(_readings(line, suffixes))
    for text in texts:
        parts = text.split("/")
        starts = [n + 1 for n, part in enumerate(parts[:-1]) if part.lower() in homes]
        for start in (0, *starts):
            if stem := stems.find("/".join(parts[start:])):
                return Match(stem, True)
    for text in texts:
        if "/" in text and (stem := stems.find_bare(text)):
            return Match(stem, False)
    return None


def decodings(line: str) -> Iterator[str]:
    """A line as it stands, and where its bytes are no UTF-8 as other systems write it.

    Args:
        line: decoded by UTF-8 with the error handler `surrogateescape`.
    """
    yield line
    content = line.encode("utf-8", "surrogateescape")
    if content != line.encode("utf-8", "replace"):
        for codec in CODECS:
            with contextlib.suppress(UnicodeDecodeError):
                yield content.decode(codec)


def _readings(line: str, suffixes: Collection[str]) -> Iterator[str]:
    """What a line may say, the likeliest first."""
    line = line.strip().strip("\"'").replace("\\", "/")
    unmarked = re.sub(r"\s+(-1|0|1)$", "", line).strip("\"'")
    for text in dict.fromkeys((line, unmarked)):
        while text.startswith(("./", "/")):
            text = text.removeprefix(".").lstrip("/")
        yield text
        stem, suffix = os.path.splitext(text)
        if suffix.lower() in suffixes:
            yield stem
    # As some trainers' lists have it: the image, then its labels.
    if pair := re.fullmatch(r"(\S+)\s+(\S+)", line):
        (_, first), (stem, second) = map(os.path.splitext, pair.groups())
        if {first.lower(), second.lower()} <= set(suffixes):
            yield stem
