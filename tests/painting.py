"""Batches for the tests of augmentation: pictures with painted rectangles, noise."""

import numpy as np

from yolojax.records import Batch

# Colours that stay apart from each other, from black and from the grey fill.
PAINTS = np.uint8([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [1, 0, 1], [0, 1, 1]])


def make_batch(images, sizes, boxes, labels=None, valid=None):
    """A batch of NumPy arrays; labels are the pictures' numbers if not given."""
    num, room = boxes.shape[:2]
    numbers = np.tile(np.arange(num, dtype=np.int32)[:, None], (1, room))
    return Batch(
        image=np.asarray(images, np.uint8),
        size=np.asarray(sizes, np.int32),
        boxes=np.asarray(boxes, np.float32),
        labels=numbers if labels is None else np.asarray(labels, np.int32),
        valid=np.ones((num, room), bool) if valid is None else np.asarray(valid),
        image_id=np.arange(num, dtype=np.int32) + 100,
        origin=np.arange(4 * num, dtype=np.float32).reshape(num, 4),
    )


def painted(shape, seed):
    """Nine black pictures of random sizes, six of them with one painted rectangle."""
    generator = np.random.default_rng(seed)
    images = np.full((9, *shape, 3), 77, np.uint8)
    sizes = np.stack(
        [generator.integers(side * 2 // 3, side + 1, 9) for side in shape], axis=-1
    )
    boxes = np.zeros((9, 1, 4), np.float32)
    for i, (height, width) in enumerate(sizes):
        images[i, :height, :width] = 0
        if i < len(PAINTS):
            x1, y1 = generator.integers(2, [width // 2, height // 2])
            x2 = generator.integers(x1 + 8, width - 1)
            y2 = generator.integers(y1 + 8, height - 1)
            images[i, y1:y2, x1:x2] = 255 * PAINTS[i]
            boxes[i, 0] = x1, y1, x2, y2
    valid = np.arange(9)[:, None] < len(PAINTS)
    return make_batch(images, sizes, boxes, valid=valid)


def noisy(num=8, side=16, room=3, seed=0):
    generator = np.random.default_rng(seed)
    corner = generator.uniform(0, side / 2, (num, room, 2))
    boxes = np.concatenate(
        [corner, corner + generator.uniform(3, side / 2, (num, room, 2))], axis=-1
    )
    images = generator.integers(0, 256, (num, side, side, 3))
    return make_batch(images, np.full((num, 2), side), boxes)


def find_paint(image, label):
    """The upright box around what is painted in the colour of `label`, or None."""
    wanted = PAINTS[label].astype(bool)
    mask = np.where(wanted, image > 0.5, image < 0.3).all(-1)
    if not mask.any():
        return None
    rows, columns = np.nonzero(mask.any(1))[0], np.nonzero(mask.any(0))[0]
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
