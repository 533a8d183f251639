"""Data sets that a config can name: `dict(source="coco", images=..., ...)`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from yolojax.data.sources.base import Source
from yolojax.data.sources.coco import CocoSource
from yolojax.data.sources.csv import CsvSource
from yolojax.data.sources.digits import DigitsSource
from yolojax.data.sources.filename import FilenameSource
from yolojax.data.sources.folder import FolderSource
from yolojax.data.sources.handwritten import HandwrittenSource
from yolojax.data.sources.tfds import TfdsSource
from yolojax.data.sources.voc import VocSource
from yolojax.data.sources.yolo import YoloSource
from yolojax.lookup import check_arguments, pick

__all__ = ["CLASS_SOURCES", "SOURCES", "Source", "make_source"]

SOURCES: dict[str, Callable[..., Source]] = {
    "coco": CocoSource,
    "csv": CsvSource,
    "digits": DigitsSource,
    "filename": FilenameSource,
    "folder": FolderSource,
    "handwritten": HandwrittenSource,
    "tfds": TfdsSource,
    "voc": VocSource,
    "yolo": YoloSource,
}
# Those whose pictures have classes and no boxes; they have the attribute `multi_label`.
CLASS_SOURCES = frozenset(("csv", "filename", "folder", "handwritten", "tfds"))


def make_source(source: str, **arguments: Any) -> Source:
    """The data set that a config describes.

    Args:
        source: its name in `SOURCES`.
        arguments: the keyword arguments of its class.

    Raises:
        ValueError: an unknown name or argument, a path that does not exist, a data
            set that is empty or contradicts itself.
    """
    build = pick(SOURCES, source, "data source")
    check_arguments(build, arguments, f"data source {source!r}")
    return build(**arguments)
