"""Collects what is wrong with a data set, to say it once and in few lines."""

from __future__ import annotations

from typing import NamedTuple

from yolojax.printable import printable

SHOWN = 5  # entries printed a kind; the rest is only counted


class Entry(NamedTuple):
    """One problem: the file, its line if it has one, and what happened to it."""

    file: str
    line: int | None
    message: str

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        return f"{place}: {self.message}" if place else self.message


class _Kind:
    """How often one kind came up, and its first entries."""

    def __init__(self) -> None:
        self.count = 0
        self.entries: list[Entry] = []

    def add(self, count: int, entries: list[Entry]) -> None:
        self.count += count
        self.entries.extend(entries[: SHOWN - len(self.entries)])


class Report:
    """Problems of a data set, by kind, in the order in which the kinds came up.

    A problem is something that the user may want to mend. A note is something worth
    a count that is no fault, such as pictures without an object; notes do not make
    `raise_if_any` raise. Only the first five entries a kind are kept, so that a
    million faults cost no memory.
    """

    def __init__(self) -> None:
        self._problems: dict[str, _Kind] = {}
        self._notes: dict[str, _Kind] = {}

    def add(self, kind: str, file: object, line: int | None, message: str) -> None:
        """Record a problem.

        Args:
            kind: what the problem is called and counted under.
            file: the file that holds it.
            line: its line, counted from 1; None where lines mean nothing.
            message: what was expected, what came, what happened to it.
        """
        entry = Entry(str(file), line, message)
        self._problems.setdefault(kind, _Kind()).add(1, [entry])

    def add_uncited(self, kind: str, count: int) -> None:
        """Count further problems of a kind without naming their places."""
        if count > 0:
            self._problems.setdefault(kind, _Kind()).add(count, [])

    def note(
        self, kind: str, count: int = 1, *, file: object = "", message: str = ""
    ) -> None:
        """Count something that is no fault; with a message it is also shown."""
        if count:
            entries = [Entry(str(file), None, message)] if message else []
            self._notes.setdefault(kind, _Kind()).add(count, entries)

    def merge(self, other: Report) -> None:
        """Take over the problems and notes of another report."""
        for mine, theirs in (
            (self._problems, other._problems),
            (self._notes, other._notes),
        ):
            for kind, found in theirs.items():
                mine.setdefault(kind, _Kind()).add(found.count, found.entries)

    @property
    def counts(self) -> dict[str, int]:
        """Number of problems by kind."""
        return {kind: found.count for kind, found in self._problems.items()}

    @property
    def notes(self) -> dict[str, int]:
        """Number of notes by kind."""
        return {kind: found.count for kind, found in self._notes.items()}

    def entries(self, kind: str) -> tuple[Entry, ...]:
        """The first five entries of a kind of problem or note; () if there are none."""
        found = self._problems.get(kind) or self._notes.get(kind)
        return tuple(found.entries) if found else ()

    def render(self) -> str:
        """The report as text: a line a kind, and under it its first five entries.

        Returns:
            The empty string when there is nothing to say. Line breaks and control
            characters in file names and messages are escaped; see `printable`.
        """
        lines = []
        for mark, kinds in (("", self._problems), ("note: ", self._notes)):
            for kind, found in kinds.items():
                lines.append(printable(f"{mark}{kind}: {found.count}"))
                lines += [f"  {printable(entry)}" for entry in found.entries]
                hidden = found.count - len(found.entries)
                if found.entries and hidden > 0:
                    lines.append(f"  ... and {hidden} more")
        return "\n".join(lines)

    def raise_if_any(self) -> None:
        """Turn the problems into an error; notes are let pass.

        Raises:
            ValueError: there is at least one problem; the message is the report.
        """
        if self._problems:
            total = sum(self.counts.values())
            raise ValueError(
                f"{total} problems in the data, and strict is on. Mend them, or "
                f"turn strict off to train without what is faulty.\n{self.render()}"
            )
