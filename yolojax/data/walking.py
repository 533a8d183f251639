"""Lists the files below a folder, through links to folders as well."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Collection, Iterator

from yolojax.data.report import Report


def walk(
    folder: str | os.PathLike[str],
    report: Report | None = None,
    *,
    suffixes: Collection[str] | None = (),
) -> Iterator[tuple[str, list[str]]]:
    """Each folder at and below one, with the sorted names of its files.

    Links to folders are followed. A folder that several paths lead to comes once: under
    its own name where that lies below `folder`, else under the first link in the order
    of names. A link to a folder that holds the link itself is not followed, so that a
    circle of links ends. Hidden folders are left out.

    Args:
        folder: where to start; it may be a link itself.
        report: gets a line for each link that is not followed or leads nowhere, and
            for each folder that cannot be listed.
        suffixes: in lower case. A file with one of them is listed even where its link
            leads nowhere, for the caller to report; None: every file.
    """
    report = Report() if report is None else report
    start = os.fspath(folder)
    places: dict[str, str] = {}  # where each folder really lies, and its path here
    pending, links = deque([(start, os.path.realpath(start))]), deque()
    while pending or links:
        # Links last: a folder below `folder` comes under its own name.
        parent, home = (pending or links).popleft()
        if home in places:
            message = f"the same folder as {places[home]}, which is listed already"
            report.note("folder reached twice", file=parent, message=message)
            continue
        places[home] = parent
        folders, found, files = _entries(parent, report, suffixes)
        yield parent, files
        for name in folders:
            pending.append((os.path.join(parent, name), os.path.join(home, name)))
        for name in found:
            path = os.path.join(parent, name)
            place = os.path.realpath(path)
            if place == home or home.startswith(os.path.join(place, "")):
                message = f"a link to {place}, which holds the link; not followed"
                report.note("link in a circle", file=path, message=message)
            else:
                links.append((path, place))


def _entries(
    folder: str, report: Report, suffixes: Collection[str] | None
) -> tuple[list[str], list[str], list[str]]:
    """Names of the folders, the links to folders, and the files in a folder, sorted."""
    folders, links, files = [], [], []
    try:
        with os.scandir(folder) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        message = f"{error.strerror or error}; all that is in it is left out"
        report.add("folder that cannot be listed", folder, None, message)
        return folders, links, files
    for entry in found:
        hidden = entry.name.startswith(".")
        if is_folder(entry):
            if not hidden:
                (links if entry.is_symlink() else folders).append(entry.name)
        elif (
            suffixes is not None
            and os.path.splitext(entry.name)[1].lower() not in suffixes
            and leads_nowhere(entry.path)
        ):
            if not hidden:
                report_link(entry.path, report)
        else:
            files.append(entry.name)
    return folders, links, files


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder or a link to one; a link to itself is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def leads_nowhere(path: str | os.PathLike[str]) -> bool:
    """Whether a path is a link to nothing, or to itself."""
    return os.path.islink(path) and not os.path.exists(path)


def report_link(path: str | os.PathLike[str], report: Report) -> None:
    """Report a link that leads nowhere."""
    message = f"a link to {os.readlink(path)}, which does not exist; left out"
    report.add("link that leads nowhere", path, None, message)
