"""Objects without a row are neither taught nor background, in every detector's loss."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from yolojax.losses.darknet import yolov3_loss, yolov4_loss
from yolojax.losses.detection import OBJECTNESS, yolov5_loss

# One level of 8 x 8 cells of 8 px, one anchor of 16 px.
HEAD = {"anchors": np.full((1, 1, 2), 16, np.float32), "strides": (8,)}
DARKNET = HEAD | {"scales": (1.0,), "priors": np.array([[16, 16], [32, 32]])}
V5 = functools.partial(yolov5_loss, **HEAD)
V3 = functools.partial(yolov3_loss, **DARKNET, ignore_threshold=0.99)
V4 = functools.partial(yolov4_loss, **DARKNET, ignore_threshold=0.99)
# Centre at 26 30 px: a quarter right of the low corner of column 3, a quarter before
# the end of row 3.
OBJECT = (18, 22, 34, 38)


def objectness_gradient(loss, rows=(), left_out=None):
    """Gradient by the raw objectness, [8, 8], of maps of zeros."""
    boxes = np.zeros((1, 4, 4), np.float32)
    for place, row in enumerate(rows):
        boxes[0, place] = row
    valid = np.arange(4)[None] < len(rows)
    labels = np.zeros((1, 4), np.int32)
    given = [jnp.asarray(x) for x in (boxes, labels, valid)]
    if left_out is not None:
        # A row of zeros is padding.
        given.append(jnp.asarray([[*left_out, (0, 0, 0, 0)]], jnp.float32))
    maps = (jnp.zeros((1, 8, 8, 1, 7)),)
    found = jax.jit(jax.grad(lambda m: loss(m, *given)[0]))(maps)
    return np.asarray(found[0][0, :, :, 0, OBJECTNESS])


def places(mask):
    return {(int(row), int(column)) for row, column in np.argwhere(mask)}


@pytest.mark.parametrize(
    "loss, cells",
    [(V5, {(3, 3), (3, 2), (4, 3)}), (V3, {(3, 3)}), (V4, {(3, 3)})],
    ids=["yolov5", "yolov3", "yolov4"],
)
def test_the_cells_of_an_object_without_a_row_have_no_objectness_loss(loss, cells):
    background = objectness_gradient(loss)
    assert (background > 0).all()
    taught = objectness_gradient(loss, rows=[OBJECT])
    found = objectness_gradient(loss, left_out=[OBJECT])
    # The target is neither 1 (the gradient of a row) nor 0 (that of background).
    assert places(found == 0) == cells
    assert places(taught != background) == cells
    others = found != 0
    np.testing.assert_array_equal(found[others], background[others])


def test_a_cell_that_another_box_has_taken_stays_that_boxs():
    # Centre at 28 36 px, the middle of row 4, column 3: that cell alone.
    kept = (20, 28, 36, 44)
    alone = objectness_gradient(V5, rows=[kept])
    both = objectness_gradient(V5, rows=[kept], left_out=[OBJECT])
    assert alone[4, 3] != 0
    assert both[4, 3] == alone[4, 3]
    assert places(both == 0) == {(3, 3), (3, 2)}


@pytest.mark.parametrize("loss", [yolov3_loss, yolov4_loss])
def test_predictions_that_fit_an_object_without_a_row_are_ignored(loss):
    # Maps of zeros predict 16 px around the middle of each cell. With the object these
    # have an IoU of 196 / 316 at row 3, column 3, and of 140 / 372 at the next two;
    # all others have 100 / 412 or less.
    loss = functools.partial(loss, **DARKNET, ignore_threshold=0.3)
    found = objectness_gradient(loss, left_out=[OBJECT])
    assert places(found == 0) == {(3, 3), (3, 2), (4, 3)}


@pytest.mark.parametrize("loss", [V5, V3, V4], ids=["yolov5", "yolov3", "yolov4"])
def test_no_object_without_a_row_changes_nothing(loss):
    plain = objectness_gradient(loss, rows=[OBJECT])
    padded = objectness_gradient(loss, rows=[OBJECT], left_out=[(0, 0, 0, 0)])
    np.testing.assert_array_equal(plain, padded)
