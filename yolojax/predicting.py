"""What a detector finds on pictures and videos: drawn, and written down."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from yolojax.data import media
from yolojax.data.report import Report
from yolojax.engine.log import write_json
from yolojax.inference import Found, Loaded
from yolojax.vis import draw, video


class Finder(Protocol):
    """Finds objects on a few pictures: `inference.Predictor`, or several merged."""

    @property
    def batch_size(self) -> int: ...

    def __call__(self, pictures: Sequence[np.ndarray]) -> list[Found]: ...


def grouped(pictures: Iterable[np.ndarray], size: int) -> Iterator[list[np.ndarray]]:
    """The pictures in lists of `size`, the last one perhaps shorter."""
    group: list[np.ndarray] = []
    for picture in pictures:
        group.append(picture)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def predict_media(
    predictor: Finder,
    loaded: Loaded,
    items: Sequence[media.MediaItem],
    output: Path,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[list[dict[str, Any]], Report]:
    """Find objects on pictures and videos; draw them and write them down.

    Args:
        predictor: finds them.
        loaded: gives the classes.
        items: pictures and videos.
        output: gets the drawn pictures and videos, and predictions.json: rows of the
            COCO results format with `file_name` and, for videos, `frame`, beside.
            For `image_id` see `image_ids`.
        progress: `progress(done, total)` in files.

    Returns:
        The rows, and a report of what could not be read.
    """
    report, rows = Report(), []
    waiting: list[tuple[int, media.MediaItem, np.ndarray]] = []

    def finish() -> None:
        pictures = [picture for _, _, picture in waiting]
        for (image_id, item, picture), found in zip(
            waiting, predictor(pictures) if pictures else [], strict=True
        ):
            rows.extend(_rows(found, loaded, item, image_id))
            drawn = _drawn(picture, found, loaded)
            draw.save_image(output / f"{item.output_name}.jpg", drawn)
        waiting.clear()

    for done, (image_id, item) in enumerate(
        zip(image_ids(items), items, strict=True), start=1
    ):
        if item.kind == "video":
            finish()
            rows.extend(
                _predict_video(predictor, loaded, item, image_id, output, report)
            )
        else:
            picture = media.read_image(item, report)
            if picture is not None:
                waiting.append((image_id, item, picture))
            if len(waiting) == predictor.batch_size:
                finish()
        if progress is not None:
            progress(done, len(items))
    finish()
    write_json(output / "predictions.json", rows)
    return rows, report


def image_ids(items: Sequence[media.MediaItem]) -> list[int]:
    """A number for each file, no two the same.

    Their names where all of these are different numbers, as in COCO, and otherwise
    their places in the list, from 1.
    """
    names = [item.path.stem for item in items]
    numbers = {int(name) for name in names if name.isascii() and name.isdigit()}
    if len(numbers) == len(names):
        return [int(name) for name in names]
    return list(range(1, len(names) + 1))


def _predict_video(
    predictor: Finder,
    loaded: Loaded,
    item: media.MediaItem,
    image_id: int,
    output: Path,
    report: Report,
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []

    def drawn_frames(frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        number = 0
        for group in grouped(frames, predictor.batch_size):
            for frame, found in zip(group, predictor(group), strict=True):
                extra = {"frame": number}
                found_here = _rows(found, loaded, item, image_id)
                rows.extend(row | extra for row in found_here)
                number += 1
                yield _drawn(frame, found, loaded)

    try:
        with media.Video(item.path) as film:
            frames = drawn_frames(film.frames(report))
            video.write_video(output / f"{item.output_name}.mp4", frames, film.fps)
    except ValueError as error:
        message = str(error).removeprefix(f"{item.path}: ")
        report.add("unreadable video", item.path, None, f"{message}; left out")
    return rows


def _drawn(picture: np.ndarray, found: Found, loaded: Loaded) -> np.ndarray:
    boxes, labels, scores = found
    return draw.draw_boxes(picture, boxes, labels, scores, loaded.class_names)


def _rows(
    found: Found, loaded: Loaded, item: media.MediaItem, image_id: int
) -> list[dict[str, Any]]:
    return [
        {
            "image_id": image_id,
            "category_id": loaded.category_ids[label],
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "score": score,
            "category_name": loaded.class_names[label],
            "file_name": str(item.path),
        }
        for (x1, y1, x2, y2), label, score in zip(
            found[0].astype(np.float64).tolist(),
            found[1].tolist(),
            found[2].tolist(),
            strict=True,
        )
    ]
