"""Text of files on its way to a terminal: without characters that command it.

An escape sequence in the name of a class, a tensor or a file can change the title of a
terminal, hide lines, or turn text round. Such characters are printed as escapes, as
`\\x1b`.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable
from typing import Any, TextIO

# Joiners belong to the spelling of Persian and Hindi words, and to emoji.
_JOINERS = "\u200c\u200d"


def printable(text: object, limit: int | None = None) -> str:
    """Text in one line in which control characters are escapes.

    Escaped are control characters with line breaks and tabs, marks that change the
    direction of text, invisible characters, and halves of surrogate pairs.

    Args:
        text: anything whose `str` is short; a path or a name.
        limit: number of characters after which the text is cut; None: no limit.
    """
    text = str(text)
    if limit is not None and len(text) > limit:
        text = f"{text[:limit]}..."
    return _escaped(text, "")


class PrintableStream:
    """A text stream that writes `printable` text; line breaks and tabs stay.

    Everything except writing is left to the stream within.

    Args:
        stream: the stream that is written to.
    """

    def __init__(self, stream: TextIO):
        self.within = stream

    def write(self, text: str) -> int:
        """Write text; the number of its characters.

        Where the reader has gone, as behind `| head`, the text is dropped: the command
        still writes its files.
        """
        try:
            self.within.write(_escaped(text, "\n\t"))
        except BrokenPipeError:
            self._drop()
        return len(text)

    def flush(self) -> None:
        """Flush the stream; see `write`."""
        try:
            self.within.flush()
        except BrokenPipeError:
            self._drop()

    def _drop(self) -> None:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.within.fileno())
        os.close(nowhere)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write several texts."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.within, name)


def unguarded(stream: Any) -> Any:
    """The stream within a `PrintableStream`, for what draws with escape sequences."""
    return stream.within if isinstance(stream, PrintableStream) else stream


def printable_lines(text: str) -> str:
    """`printable` text of several lines; line breaks and tabs stay."""
    return _escaped(text, "\n\t")


def _escaped(text: str, kept: str) -> str:
    if text.isprintable():
        return text
    return "".join(
        c
        if c.isprintable()
        or c in kept
        or c in _JOINERS
        or unicodedata.category(c) == "Zs"
        else c.encode("unicode_escape").decode("ascii")
        for c in text
    )
