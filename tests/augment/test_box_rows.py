"""Every object that an output shows has a row, or is left out of the loss."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.tiny import tiny_config
from yolojax import rows
from yolojax.augment.boxes import cut_boxes
from yolojax.augment.mix import Mixed
from yolojax.augment.policy import make_augment, most_pictures
from yolojax.records import Batch

MOSAIC = (dict(name="mosaic", probability=1.0),)


def crowd(counts, num_rows, side=64):
    """Images of `side` px with such numbers of boxes of 4 px, spread over them."""
    boxes = np.zeros((len(counts), num_rows, 4), np.float32)
    for image, count in enumerate(counts):
        low = np.arange(count)[:, None] * (7, 13) % (60, 59)
        boxes[image, :count] = np.concatenate([low, low + 4], axis=1)
    return Batch(
        image=np.zeros((len(counts), side, side, 3), np.uint8),
        size=np.full((len(counts), 2), side, np.int32),
        boxes=boxes,
        labels=np.zeros((len(counts), num_rows), np.int32),
        valid=np.arange(num_rows)[None] < np.asarray(counts)[:, None],
        image_id=np.arange(len(counts), dtype=np.int32),
        origin=np.zeros((len(counts), 4), np.float32),
    )


def augmented(batch, **options):
    augment = jax.jit(make_augment(MOSAIC, image_size=(64, 64), **options))
    shown, cut = augment(jax.random.key(0), batch, mosaic_on=True)
    return jax.tree.map(np.asarray, shown), int(cut)


def detector(**changes):
    return tiny_config(augment__policy=MOSAIC, **changes)


def there(left_out):
    return (left_out[..., 2:] > left_out[..., :2]).all(axis=-1)


def test_by_default_a_mosaic_with_an_image_of_300_boxes_cuts_none():
    batch = crowd([300, 10, 10, 10], num_rows=304)
    chosen = rows.output_rows(detector(), 304)
    # Four tiles with 304 rows would be 1,216: the limit is 1,024.
    assert chosen[:3] == (1024, 4 * 304 - 1024, 304)
    shown, cut = augmented(batch, max_boxes=1024)
    assert cut == 0
    # The middle of the canvas has the area of one image: 60 boxes are seen of it.
    assert shown.valid.sum() > 60


def test_what_has_no_row_is_handed_on_by_its_box():
    batch = crowd([300, 10, 10, 10], num_rows=304)
    whole, _ = augmented(batch, max_boxes=1024)
    shown, cut = augmented(batch, max_boxes=8, max_left_out=4 * 304 - 8)
    count = whole.valid.sum(axis=1)
    assert (count > 8).all()
    assert shown.valid.sum() == 4 * 8
    assert cut == count.sum() - 4 * 8
    for image in range(4):
        boxes = whole.boxes[image][whole.valid[image]]
        np.testing.assert_array_equal(shown.boxes[image], boxes[:8])
        others = shown.left_out[image]
        np.testing.assert_array_equal(others[there(others)], boxes[8:])


def test_boxes_beyond_data_max_boxes_are_seen_but_not_taught():
    batch = crowd([10, 10, 10, 10], num_rows=16)
    whole, _ = augmented(batch, max_boxes=64)
    shown, cut = augmented(batch, max_boxes=64, taught_boxes=3, max_left_out=64)
    # Counted before training, by `check.note_cut_boxes`.
    assert cut == 0
    left_out = there(shown.left_out).sum(axis=1)
    assert (left_out + shown.valid.sum(axis=1) == whole.valid.sum(axis=1)).all()
    # Of each of the four images three boxes at most.
    assert shown.valid.sum(axis=1).max() <= 12
    assert left_out.sum() > 0


def test_rows_follow_from_policy_and_data():
    def of(max_boxes=8, **changes):
        return tuple(rows.output_rows(tiny_config(**changes), max_boxes))[:3]

    plain, mixed = (dict(name="affine"),), (*MOSAIC, dict(name="mixup"))
    assert of(augment__policy=plain) == (8, 0, 8)
    assert of(augment__policy=MOSAIC) == (32, 0, 8)
    # A mixed image has the boxes of two mosaics.
    assert of(augment__policy=mixed) == (64, 0, 8)
    assert of(augment__policy=(dict(name="mosaic9"),)) == (72, 0, 8)
    assert of(augment__policy=MOSAIC, augment__max_boxes=20) == (20, 12, 8)
    # 3 of 8 are taught: 4 x 3 rows, and 4 x 5 boxes that get none.
    assert of(augment__policy=MOSAIC, data__max_boxes=3) == (12, 20, 3)
    assert of(augment__policy=MOSAIC, data__max_boxes=30) == (32, 0, 8)


def test_steps_that_are_never_applied_need_no_rows():
    off = (dict(name="mosaic", probability=0.0), dict(name="mixup", probability=0.0))
    assert most_pictures(off) == 1
    # From none at the start to half at the end of the training.
    assert most_pictures((dict(name="mosaic", probability=(0.0, 0.5)),)) == 4


@pytest.mark.parametrize("count, max_left_out", [(0, 0), (2, 3), (5, 6)])
def test_rows_come_first_and_left_out_boxes_in_their_order(count, max_left_out):
    boxes = np.arange(1, 25, dtype=np.float32).reshape(1, 6, 4)
    # Rows 0, 2 and 4 are taught, 3 and 5 are seen, 1 is padding.
    labels = np.array([[4, 0, 3, -1, 2, -1]], np.int32)
    valid = np.array([[True, False, True, True, True, True]])
    sample = Mixed(jnp.zeros((1, 2, 2, 3)), *map(jnp.asarray, (boxes, labels, valid)))
    taught, left_out, cut = cut_boxes(sample, count, max_left_out)
    assert taught.labels[0].tolist() == [4, 3, 2, 0, 0][:count]
    assert taught.valid[0].tolist() == [True, True, True, False, False][:count]
    assert int(cut) == max(0, 3 - count)
    expected = {0: [], 2: [3, 4, 5], 5: [3, 5]}[count]
    there = np.asarray(left_out[0]).any(axis=1)
    np.testing.assert_array_equal(left_out[0][: len(expected)], boxes[0, expected])
    assert there.sum() == len(expected) and len(there) == max_left_out
