"""The reference inputs of the loss, in the form of ours."""

import json

import jax.numpy as jnp
import numpy as np

from tests.shared import shared

STRIDES = (8, 16, 32)
SIZE = 256, 320
CASES = ("base", "smooth", "focal", "pw", "notargets", "anchor_t2")


def padded_targets(rows, batch_size, num_boxes):
    """Corners in pixels, labels and validity from rows of image, class, x y w h."""
    boxes = np.zeros((batch_size, num_boxes, 4))
    labels = np.zeros((batch_size, num_boxes), np.int32)
    valid = np.zeros((batch_size, num_boxes), bool)
    height, width = SIZE
    for image, label, x, y, w, h in rows.astype(np.float64):
        slot = int(image), int(valid[int(image)].sum())
        corners = (x - w / 2, y - h / 2, x + w / 2, y + h / 2)
        boxes[slot] = np.multiply(corners, (width, height, width, height))
        labels[slot], valid[slot] = int(label), True
    return boxes.astype(np.float32), labels, valid


class Golden:
    """One file of raw maps, targets and what the original makes of them."""

    def __init__(self, num_classes):
        self.arrays = np.load(shared("golden", f"loss_rawp_nc{num_classes}.npz"))
        self.anchors = self.arrays["anchors_grid"] * np.reshape(STRIDES, (3, 1, 1))
        self.maps = tuple(
            jnp.asarray(self.arrays[f"p{level}"].transpose(0, 2, 3, 1, 4))
            for level in range(3)
        )

    def targets(self, case, num_boxes=30):
        rows = self.arrays["targets"][: 0 if case == "notargets" else None]
        return padded_targets(rows, len(self.maps[0]), num_boxes)

    def settings(self, case):
        published = json.loads(str(self.arrays[f"{case}_hyp"]))
        return {
            "box_gain": published["box"],
            "objectness_gain": published["obj"],
            "class_gain": published["cls"],
            "anchor_ratio": published["anchor_t"],
            "label_smoothing": published["label_smoothing"],
            "focal_gamma": published["fl_gamma"],
            "class_positive_weight": published["cls_pw"],
            "objectness_positive_weight": published["obj_pw"],
        }

    def pairs(self, case, level):
        """Rows of image, row, column, anchor, class and local x y w h."""
        found = [self.arrays[f"{case}_bt{level}_{name}"] for name in PAIR_ARRAYS]
        image, anchor, row, column = found[0].T
        return np.column_stack([image, row, column, anchor, found[1], found[2]])


PAIR_ARRAYS = "b_a_gj_gi", "tcls", "tbox"
