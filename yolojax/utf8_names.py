"""Names of files that are no UTF-8, for libraries that cannot take them."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator


@contextlib.contextmanager
def utf8_path(path: str | os.PathLike[str]) -> Iterator[str]:
    """The path, or a link to it for libraries that cannot take a name that is no UTF-8.

    The link is there while the block lasts.
    """
    text = os.fspath(path)
    if text.isascii() or _is_utf8(text):
        yield text
        return
    suffix = os.path.splitext(text)[1]
    with tempfile.TemporaryDirectory() as folder:
        link = os.path.join(folder, "file" + (suffix if _is_utf8(suffix) else ""))
        os.symlink(os.path.abspath(text), link)
        yield link


def _is_utf8(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
