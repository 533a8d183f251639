"""`predictions.json`: detections in the COCO results format, with names beside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from yolojax.engine.log import write_json

NAME = "predictions.json"


def write_predictions(
    folder: Path,
    results: Sequence[Mapping[str, Any]],
    *,
    file_names: Mapping[Any, str],
    class_names: Mapping[Any, str],
) -> list[dict[str, Any]]:
    """Write predictions.json, and give its rows.

    Args:
        folder: gets the file.
        results: rows with `image_id`, `category_id`, `bbox` (x y width height, in
            pixels) and `score`; of videos also `frame`.
        file_names: the image's file, by image id; `file_name` in each row.
        class_names: the class's name, by category id; `category_name` in each row.
    """
    rows = [
        {
            **row,
            "category_name": class_names[row["category_id"]],
            "file_name": file_names[row["image_id"]],
        }
        for row in results
    ]
    write_json(folder / NAME, rows)
    return rows
