"""What networks say of pictures and videos: drawn, and written down."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from yolojax import class_predictions, ensembling, inference, lookup, outputs
from yolojax.classifying import ClassPredictor, Views, views_note
from yolojax.data import media, numbering
from yolojax.data.decode import Decoded
from yolojax.data.report import Report
from yolojax.decoding import decoding_of
from yolojax.engine.merging import MERGES
from yolojax.engine.predictions import NAME as PREDICTIONS
from yolojax.engine.predictions import write_predictions
from yolojax.engine.progress import counter
from yolojax.inference import Found, Loaded
from yolojax.vis import draw, video
from yolojax.weights.published import missing_names

# Flags that only one kind of network has, and what says the same for the
# other kind.
DETECTOR_FLAGS = {
    "augment": "--views",
    "scales": "--views",
    "merge": "",
    "merge_iou": "",
    "conf": "",
    "iou": "",
}
CLASSIFIER_FLAGS = {
    "views": "--augment",
    "plain_weight": "",
    "seed": "",
    "submission": "",
    "draw": "",
}


# Flags that decide what is found; others only which files are written, or how fast.
DECIDING = (
    *("recursive", "conf", "iou", "augment", "scales", "merge", "merge_iou"),
    *("views", "plain_weight", "seed"),
)


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
            COCO results format, see `write_predictions`; for `image_id` see
            `image_ids`.
        progress: `progress(done, total)` in files.

    Returns:
        The rows, and a report of what could not be read.
    """
    report, found_rows = Report(), []
    decoding = decoding_of(loaded.settings)
    ids = image_ids(items)
    waiting: list[tuple[int, media.MediaItem, Decoded]] = []

    def finish() -> None:
        pictures = [decoded.pixels for _, _, decoded in waiting]
        for (image_id, item, decoded), found in zip(
            waiting, predictor(pictures) if pictures else [], strict=True
        ):
            found_rows.extend(_rows(_at_full_size(found, decoded), loaded, image_id))
            drawn = _drawn(decoded.pixels, found, loaded)
            draw.save_image(output / _drawn_name(item), drawn)
        waiting.clear()

    for done, (image_id, item) in enumerate(zip(ids, items, strict=True), start=1):
        if item.kind == "video":
            finish()
            found_rows.extend(
                _predict_video(predictor, loaded, item, image_id, output, report)
            )
        else:
            decoded = media.decode_item(item, report, decoding)
            if decoded is not None:
                waiting.append((image_id, item, decoded))
            if len(waiting) == predictor.batch_size:
                finish()
        if progress is not None:
            progress(done, len(items))
    finish()
    rows = write_predictions(
        output,
        found_rows,
        file_names={i: str(item.path) for i, item in zip(ids, items, strict=True)},
        class_names=dict(zip(loaded.category_ids, loaded.class_names, strict=True)),
    )
    return rows, report


def image_ids(items: Sequence[media.MediaItem]) -> list[int]:
    """A number for each file; see `numbering.image_ids`."""
    return numbering.image_ids([item.path for item in items])


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
                found_here = _rows(found, loaded, image_id)
                rows.extend(row | extra for row in found_here)
                number += 1
                yield _drawn(frame, found, loaded)

    try:
        with media.Video(item.path) as film:
            frames = drawn_frames(film.frames(report))
            video.write_video(output / _drawn_name(item), frames, film.fps)
    except ValueError as error:
        message = str(error).removeprefix(f"{item.path}: ")
        report.add("unreadable video", item.path, None, f"{message}; left out")
    return rows


def _at_full_size(found: Found, decoded: Decoded) -> Found:
    """The boxes in pixels of the file's own size, where the decoder made it smaller."""
    boxes, labels, scores = found
    (height, width), (rows, columns) = decoded.size, decoded.pixels.shape[:2]
    if (height, width) == (rows, columns):
        return found
    scale = np.array([width / columns, height / rows] * 2, boxes.dtype)
    return boxes * scale, labels, scores


def _drawn(picture: np.ndarray, found: Found, loaded: Loaded) -> np.ndarray:
    boxes, labels, scores = found
    return draw.draw_boxes(picture, boxes, labels, scores, loaded.class_names)


def _rows(found: Found, loaded: Loaded, image_id: int) -> list[dict[str, Any]]:
    return [
        {
            "image_id": image_id,
            "category_id": loaded.category_ids[label],
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "score": score,
        }
        for (x1, y1, x2, y2), label, score in zip(
            found[0].astype(np.float64).tolist(),
            found[1].tolist(),
            found[2].tolist(),
            strict=True,
        )
    ]


def check_flags(given: Any) -> None:
    """Check the flags of a command as far as that needs no network.

    Raises:
        ValueError: a wrong value, or one that nothing uses.
    """
    if given["merge"].value is not None:
        lookup.pick(MERGES, given["merge"].value, "merge")
    if not given.views and _was_given(given, ("plain_weight", "seed")):
        raise ValueError("--plain_weight and --seed are those of --views: give it, too")


def check_kind(given: Any, classifies: bool) -> None:
    """Check that no flag is for the other kind of network.

    Args:
        given: the flags of a command.
        classifies: whether its network is a classifier.

    Raises:
        ValueError: one is.
    """
    others = DETECTOR_FLAGS if classifies else CLASSIFIER_FLAGS
    kinds = ("classifiers", "detectors")
    kind, other = kinds if classifies else kinds[::-1]
    for name in _was_given(given, others):
        more = f"; {kind} have {others[name]}" if others[name] else ""
        raise ValueError(f"--{name} is for {other}, not for {kind}{more}")


def _was_given(given: Any, names: Iterable[str]) -> list[str]:
    """Those of the flags that stand on the command line."""
    return [name for name in names if name in given and given[name].present]


def claim_output(
    given: Any, items: Sequence[media.MediaItem], classifies: bool
) -> Path:
    """The output folder, checked before any work; see `outputs.claim`.

    Args:
        given: the flags of `predict`.
        items: images and videos.
        classifies: whether the network is a classifier.

    Raises:
        ValueError: a source or a file of others would be written over.
    """
    names = (
        class_predictions.file_names(items, given.submission, given.draw)
        if classifies
        else file_names(items)
    )
    paths = [
        *(Path(weights) for weights in given.weights),
        *(file for folder in given.weights for file in Path(folder).glob("*")),
        *(Path(source) for source in given.source),
        *(item.path for item in items),
    ]
    asked = {
        "command": "predict",
        "weights": [os.path.abspath(path) for path in given.weights],
        "source": [os.path.abspath(path) for path in given.source],
        **{name: given[name].value for name in DECIDING},
    }
    folder = Path(given.output)
    if not given["output"].present:
        folder = outputs.free_folder(folder, asked, names)
    outputs.claim(folder, asked, names, inputs=paths, overwrite=given.overwrite)
    return folder


def file_names(items: Sequence[media.MediaItem]) -> list[str]:
    """The files that `predict_media` writes."""
    return [*map(_drawn_name, items), PREDICTIONS]


def _drawn_name(item: media.MediaItem) -> str:
    return f"{item.output_name}.{'mp4' if item.kind == 'video' else 'jpg'}"


def detect(
    members: Sequence[Loaded],
    items: Sequence[media.MediaItem],
    output: Path,
    given: Any,
    report: Report,
) -> int:
    """Predict with detectors, as the flags say; see `predict_media`.

    Args:
        members: the detectors.
        items: pictures and videos.
        output: the folder.
        given: the flags of `predict`.
        report: what is wrong with the sources.

    Returns:
        The exit code: 0 where a file could be read.

    Raises:
        ValueError: detectors or flags that do not go together.
    """
    check_kind(given, False)
    ensembling.check_members(members)
    keys = ("augment", "scales", "merge", "merge_iou")
    how = ensembling.asked_for(len(members), **{key: given[key].value for key in keys})
    loaded = members[0]
    if names := missing_names(loaded.origin, loaded.model, loaded.class_names):
        print(names)
    chosen: dict[str, Any] = {
        "score_threshold": given.conf,
        "iou_threshold": given.iou,
        "batch_size": min(given.batch_size, max(1, len(items))),
    }
    predictor: Finder
    if how is None:
        predictor = inference.Predictor(loaded, **chosen)
    else:
        predictor = ensembling.MergedPredictor(members, how, **chosen)
    with counter("files") as progress:
        rows, unread = predict_media(predictor, loaded, items, output, progress)
    report.merge(unread)
    if text := report.render():
        print(text)
    read = len(items) - sum(unread.counts.values())
    print(f"{len(rows)} objects on {read} of {len(items)} files, drawn in {output}")
    return 0 if read else 1


def classify(
    members: Sequence[Loaded],
    items: Sequence[media.MediaItem],
    output: Path,
    given: Any,
    report: Report,
) -> int:
    """Predict with classifiers, as the flags say; see `detect`."""
    check_kind(given, True)
    views = Views(given.views, given.plain_weight, given.seed)
    if note := views_note(members, views):
        print(note, flush=True)
    predictor = ClassPredictor(
        members, batch_size=min(given.batch_size, max(1, len(items))), views=views
    )
    with counter("files") as progress:
        found = class_predictions.predict_pictures(
            predictor,
            members[0],
            items,
            output,
            submission=given.submission,
            drawn=given.draw,
            progress=progress,
        )
    report.merge(found.report)
    if text := report.render():
        print(text)
    print(f"classes of {len(found.items)} of {len(items)} files in {output}:")
    for line in found.lines:
        print(f"  {line}")
    return 0 if found.items else 1
