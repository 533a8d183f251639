"""Small pictures enlarged and drawn, so that lines and tags do not hide them."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from yolojax.vis.draw import draw_boxes


def draw_cell(
    image: np.ndarray,
    boxes: np.ndarray,
    labels: np.ndarray,
    scores: np.ndarray | None,
    class_names: Sequence[str],
    *,
    at_least: int = 480,
) -> np.ndarray:
    """The picture with its boxes drawn, enlarged to `at_least` pixels on a side.

    Args:
        image: uint8 RGB [h, w, 3].
        boxes: float [n, 4], corners in pixels of `image`.
        labels: int [n].
        scores: float [n], or None.
        class_names: names by label.
        at_least: the longer side of the result; larger pictures stay as they are.
    """
    factor = max(1.0, at_least / max(image.shape[:2]))
    if factor > 1:
        height, width = (round(side * factor) for side in image.shape[:2])
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
        boxes = np.asarray(boxes, np.float64) * factor
    return draw_boxes(image, boxes, labels, scores, class_names)
