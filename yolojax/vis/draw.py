"""Boxes on pictures, sheets of pictures, picture files."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from yolojax.files import replace_file
from yolojax.outputs import marked
from yolojax.vis import text as text_of
from yolojax.vis.palette import class_colour, text_colour

PAPER = (255, 255, 255)
INK = (40, 40, 40)
LONGEST_TAG = 40  # characters, score included


def check_picture(image: np.ndarray, where: str) -> None:
    """Checks that `image` is uint8 RGB with at least one pixel.

    Raises:
        ValueError: it is not.
    """
    if (
        image.dtype != np.uint8
        or image.ndim != 3
        or image.shape[2] != 3
        or image.size == 0
    ):
        raise ValueError(
            f"{where}: expected a uint8 RGB picture [h, w, 3], "
            f"got {image.dtype} {list(image.shape)}"
        )


def draw_boxes(
    image: np.ndarray,
    boxes: np.ndarray,
    labels: np.ndarray,
    scores: np.ndarray | None,
    class_names: Sequence[str],
) -> np.ndarray:
    """A copy of the picture with its boxes, class names and scores drawn in.

    Lines and letters grow with the picture. The best scores lie on top, and their
    tags choose their places first: above the box, below it or inside it, wherever
    they are whole and hide the least. In pictures too small for letters only the
    boxes are drawn.

    Args:
        image: uint8 RGB [h, w, 3].
        boxes: [n, 4], corners x1 y1 x2 y2 in pixels of `image`; clipped to it. Boxes
            outside of it, inside out or not finite are left out; one without area is
            drawn one pixel wide.
        labels: [n], index into `class_names`.
        scores: [n], in [0, 1], or None to show names alone.
        class_names: names by label; a label beyond them is shown as `class N`.

    Returns:
        uint8 RGB [h, w, 3].

    Raises:
        ValueError: `image` is no such picture, or the lengths disagree.
    """
    check_picture(image, "draw_boxes")
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    labels = np.asarray(labels, np.int64).reshape(-1)
    if scores is not None:
        scores = np.asarray(scores, np.float64).reshape(-1)
    if len(labels) != len(boxes) or (scores is not None and len(scores) != len(boxes)):
        counts = f"{len(boxes)} boxes, {len(labels)} labels"
        if scores is not None:
            counts += f", {len(scores)} scores"
        raise ValueError(f"draw_boxes: the lengths disagree: {counts}")

    drawn = np.ascontiguousarray(image).copy()
    height, width = image.shape[:2]
    mean_side = math.sqrt(height * width)
    line = max(1, round(mean_side / 320))
    scale = text_of.scale_for_height(max(10.0, 0.024 * mean_side))

    order = np.arange(len(boxes))
    if scores is not None:
        order = np.argsort(-scores, kind="stable")
    shown = [
        (index, corners)
        for index in order.tolist()
        if (corners := _pixel_corners(boxes[index], height, width, line)) is not None
    ]
    for index, (left, top, right, bottom) in reversed(shown):
        colour = class_colour(int(labels[index]))
        cv2.rectangle(drawn, (left, top), (right, bottom), colour, line)

    taken = np.zeros((0, 4))
    tags = []
    for index, corners in shown:
        label = int(labels[index])
        ending = "" if scores is None else f" {scores[index]:.2f}"
        tag = _fit_tag(
            text_of.class_title(class_names, label), ending, scale, height, width
        )
        if tag:
            place = _place_tag(corners, tag[1], taken, height, width, line)
            taken = np.concatenate([taken, np.array([place], np.float64)])
            tags.append((label, tag, place))
    for label, (title, _, pad), place in reversed(tags):
        _draw_tag(drawn, label, title, pad, place, scale)
    return drawn


def _pixel_corners(
    box: np.ndarray, height: int, width: int, line: int
) -> tuple[int, int, int, int] | None:
    """First and last pixel of the box, inside the picture; None if nothing shows."""
    x1, y1, x2, y2 = box.tolist()
    if not all(map(math.isfinite, (x1, y1, x2, y2))) or x2 < x1 or y2 < y1:
        return None
    if x1 >= width or y1 >= height or x2 <= 0 or y2 <= 0:
        return None
    # Half of the line lies outside of the box; at the border it would not show.
    inset = line // 2

    def ends(low: float, high: float, size: int) -> tuple[int, int]:
        lowest = min(inset, (size - 1) // 2)
        highest = max(size - 1 - inset, lowest)
        first = round(min(max(low, lowest), highest))
        last = round(min(max(high - 1, lowest), highest))
        return first, max(first, last)

    left, right = ends(x1, x2, width)
    top, bottom = ends(y1, y2, height)
    return left, top, right, bottom


def _fit_tag(
    name: str, ending: str, scale: float, height: int, width: int
) -> tuple[str, tuple[int, int], int] | None:
    """Text, (height, width) and padding of a tag that the picture has room for.

    A long name is shortened, then left out for the score alone; None where not even
    that fits, or where the tag would cover over a fifth of the picture's height.
    """
    _, above, below = text_of.measure("Ag0", scale)
    pad = max(2, round(above * 0.2))
    tag_height = above + below + pad

    def fits(title: str) -> bool:
        room = text_of.measure(title, scale)[0] + 2 * pad <= width
        return room and len(title) <= LONGEST_TAG

    if tag_height * 5 > height:
        return None
    title = text_of.shorten(name, fits, ending)
    if not title and ending and fits(ending.strip()):
        title = ending.strip()
    if not title:
        return None
    return title, (tag_height, text_of.measure(title, scale)[0] + 2 * pad), pad


def _place_tag(
    corners: tuple[int, int, int, int],
    size: tuple[int, int],
    taken: np.ndarray,
    height: int,
    width: int,
    line: int,
) -> tuple[int, int, int, int]:
    """Corners of the tag: whole in the picture, over as little of others as can be."""
    left, top, right, bottom = corners
    tag_height, tag_width = size
    half = line // 2
    starts = (left - half, right + half + 1 - tag_width)
    rows = [top - half - tag_height, bottom + half + 1, top - half]
    if bottom - top >= 3 * tag_height:
        # A large box spares the room inside, and the tag is plainly its own there.
        rows[1:] = [top - half, bottom + half + 1]
    candidates = [(x, y) for y in rows for x in starts if 0 <= y <= height - tag_height]
    # A box as high as the picture leaves room only inside, kept in by the clamp.
    candidates = candidates or [(left - half, top - half)]
    best, least = (0, 0, tag_width, tag_height), math.inf
    for x, y in candidates:
        x = min(max(x, 0), width - tag_width)
        y = min(max(y, 0), height - tag_height)
        sides_x = np.minimum(taken[:, 2], x + tag_width) - np.maximum(taken[:, 0], x)
        sides_y = np.minimum(taken[:, 3], y + tag_height) - np.maximum(taken[:, 1], y)
        hidden = float((sides_x.clip(min=0) * sides_y.clip(min=0)).sum())
        if hidden < least:
            best, least = (x, y, x + tag_width, y + tag_height), hidden
    return best


def _draw_tag(
    image: np.ndarray,
    label: int,
    title: str,
    pad: int,
    place: tuple[int, int, int, int],
    scale: float,
) -> None:
    left, top, right, bottom = place
    colour = class_colour(label)
    image[top:bottom, left:right] = colour
    below = text_of.measure("Ag0", scale)[2]
    base = bottom - below - pad // 2
    text_of.put_text(image, title, left + pad, base, scale, text_colour(colour))


def contact_sheet(
    images: Sequence[np.ndarray],
    columns: int,
    *,
    cell_size: tuple[int, int] = (320, 320),
    captions: Sequence[str] | None = None,
    gap: int = 6,
) -> np.ndarray:
    """One picture that shows all of `images` in rows, each fitted into a cell.

    Args:
        images: uint8 RGB [h, w, 3] of any sizes; at least one.
        columns: cells in a row; fewer where there are fewer pictures.
        cell_size: (height, width) of a cell in pixels.
        captions: a line under each picture, shortened to the cell's width.
        gap: pixels between cells and around them.

    Returns:
        uint8 RGB [h, w, 3].

    Raises:
        ValueError: no picture, no column, or another number of captions.
    """
    if not images or columns < 1 or min(cell_size) < 1:
        raise ValueError(
            "contact_sheet needs a picture, a column and a cell of a pixel; got "
            f"{len(images)} pictures, {columns} columns, cells of {cell_size}"
        )
    if captions is not None and len(captions) != len(images):
        raise ValueError(
            f"contact_sheet: {len(images)} pictures, but {len(captions)} captions"
        )
    cell_height, cell_width = cell_size
    scale = text_of.scale_for_height(max(11.0, 0.045 * cell_width))
    _, above, below = text_of.measure("Ag0", scale)
    strip = above + below + 4 if captions is not None else 0

    columns = min(columns, len(images))
    rows = math.ceil(len(images) / columns)
    sheet_height = rows * (cell_height + strip + gap) + gap
    sheet_width = columns * (cell_width + gap) + gap
    sheet = np.empty((sheet_height, sheet_width, 3), np.uint8)
    sheet[:] = PAPER
    for index, image in enumerate(images):
        check_picture(image, f"contact_sheet, picture {index}")
        fitted = fit_into(image, cell_size)
        row, column = divmod(index, columns)
        top = gap + row * (cell_height + strip + gap)
        left = gap + column * (cell_width + gap)
        y = top + (cell_height - fitted.shape[0]) // 2
        x = left + (cell_width - fitted.shape[1]) // 2
        sheet[y : y + fitted.shape[0], x : x + fitted.shape[1]] = fitted
        if captions is not None:
            caption = text_of.shorten(
                text_of.drawable_name(captions[index], index),
                lambda candidate: text_of.measure(candidate, scale)[0] <= cell_width,
            )
            base = top + cell_height + strip - below
            text_of.put_text(sheet, caption, left, base, scale, INK)
    return sheet


def fit_into(image: np.ndarray, cell_size: tuple[int, int]) -> np.ndarray:
    """The picture resized, its shape kept, to touch two sides of the cell."""
    height, width = image.shape[:2]
    ratio = min(cell_size[0] / height, cell_size[1] / width)
    if ratio == 1:
        return image
    size = (max(1, round(width * ratio)), max(1, round(height * ratio)))
    method = cv2.INTER_AREA if ratio < 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, size, interpolation=method))


def save_image(path: str | os.PathLike[str], image: np.ndarray) -> Path:
    """Writes the picture as PNG or JPEG, by suffix; readers never see half a file.

    Args:
        path: ends in .png, .jpg or .jpeg; its folder is made where it is missing.
        image: uint8 RGB [h, w, 3].

    Returns:
        The path.

    Raises:
        ValueError: another suffix, or `image` is no such picture.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in (".png", ".jpg", ".jpeg"):
        raise ValueError(f"{path}: pictures are written as .png, .jpg or .jpeg")
    check_picture(image, f"save_image {path}")
    options = [] if suffix == ".png" else [cv2.IMWRITE_JPEG_QUALITY, 95]
    done, encoded = cv2.imencode(
        suffix, cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2BGR), options
    )
    if not done:
        raise ValueError(
            f"{path}: OpenCV cannot encode {list(image.shape)} as {suffix}"
        )
    replace_file(path, marked(encoded.tobytes()))
    return path
