"""What becomes of the labels of whole pictures."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from yolojax.augment.policy import make_label_augment
from yolojax.records import Batch, Stored

SIZE = (16, 24)
NUM = 6


def batch(labels=1):
    """Pictures of one grey level each, which tells them apart, with their labels."""
    levels = (20 + 30 * np.arange(NUM)).astype(np.uint8)
    height, width = SIZE
    image = np.broadcast_to(levels[:, None, None, None], (NUM, height, width, 3))
    places = np.arange(NUM, dtype=np.int32)
    whole = np.array([0, 0, width, height], np.float32)
    return Batch(
        image=image.copy(),
        size=np.tile(np.array(SIZE, np.int32), (NUM, 1)),
        boxes=np.broadcast_to(whole, (NUM, labels, 4)).copy(),
        labels=(places[:, None] + np.arange(labels, dtype=np.int32)) % NUM,
        valid=np.ones((NUM, labels), bool),
        image_id=places,
        origin=np.tile(np.array([1, 1, 0, 0], np.float32), (NUM, 1)),
        polygons=np.zeros((NUM, labels, 0, 4), np.float32),
    )


def augmented(policy, given, seed=0, mosaic_on=True):
    augment = make_label_augment(policy, image_size=SIZE)
    out, cut = jax.jit(augment)(jax.random.key(seed), given, mosaic_on=mosaic_on)
    assert int(cut) == 0
    return out


def share_of_class(out, num_classes=NUM):
    kinds = jax.nn.one_hot(out.labels, num_classes)
    return np.asarray(jnp.sum(kinds * out.valid[..., None], axis=1))


def test_labels_outlast_what_would_drop_a_box():
    policy = (
        dict(name="random_resized_crop", smallest=0.01, largest=0.02),
        dict(name="translate_x"),
        dict(name="cutout", side=0.9),
    )
    out = augmented(policy, batch(labels=2))
    np.testing.assert_array_equal(out.labels, batch(labels=2).labels)
    np.testing.assert_array_equal(out.valid, np.ones((NUM, 2), np.float32))
    assert out.image.shape == (NUM, *SIZE, 3)


def test_mixup_gives_each_label_the_weight_of_its_picture():
    given = batch()
    out = augmented((dict(name="mixup", alpha=0.4),), given)
    shares = share_of_class(out)
    levels = (20 + 30 * np.arange(NUM)) / 255
    np.testing.assert_allclose(shares.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(out.image[:, 3, 4, 0], shares @ levels, atol=1e-5)
    assert ((shares > 0.02).sum(axis=1) == 2).any()


def test_cutmix_gives_each_label_the_share_of_pixels():
    given = batch()
    out = augmented((dict(name="cutmix", alpha=1.0),), given, seed=3)
    levels = np.round(np.asarray(out.image[..., 0]) * 255)
    own = 20 + 30 * np.arange(NUM)
    shown = (levels[..., None] == own).mean(axis=(1, 2))
    np.testing.assert_allclose(share_of_class(out), shown, atol=1e-6)
    assert (shown.max(axis=1) < 1).any()


def test_mixing_twice_keeps_the_sum_of_shares():
    policy = (dict(name="mixup"), dict(name="cutmix"))
    out = augmented(policy, batch())
    assert out.labels.shape == (NUM, 4)
    np.testing.assert_allclose(np.sum(out.valid, axis=1), 1, atol=1e-6)


def test_pictures_without_a_label_give_no_share():
    given = batch()
    given.valid[2] = False
    out = augmented((dict(name="mixup", alpha=0.4),), given)
    sums = np.sum(out.valid, axis=1)
    assert sums[2] < 1
    np.testing.assert_allclose(np.sum(sums), NUM - 1, atol=1)


def test_mixing_is_off_at_the_end_of_training():
    out = augmented((dict(name="mixup"),), batch(), mosaic_on=False)
    np.testing.assert_array_equal(np.sum(out.valid, axis=1), np.ones(NUM))
    np.testing.assert_allclose(share_of_class(out), np.eye(NUM))


def test_rows_of_stored_pictures_keep_their_labels():
    rows = np.array([4, 1], np.int32)
    out = augmented((), Stored(batch(), rows))
    np.testing.assert_array_equal(out.labels[:, 0], rows)
    np.testing.assert_array_equal(out.image_id, rows)


@pytest.mark.parametrize("name", ["mosaic", "copy_paste"])
def test_what_puts_boxes_together_is_refused(name):
    with pytest.raises(ValueError, match=f"{name} is for boxes"):
        make_label_augment((dict(name=name),), image_size=SIZE)


@pytest.mark.parametrize("stored", [False, True])
def test_a_mirror_exchanges_the_classes_of_its_swap(stored):
    policy = (dict(name="flip_left_right", swap=((0, 1), (3, 5))),)
    given = batch(labels=2)
    if stored:
        rows = jnp.asarray([5, 0, 3], jnp.int32)
        given = Stored(given, rows, jnp.zeros((), jnp.int32))
    labels = np.asarray(augmented(policy, given).labels)
    # Classes n and n + 1 of picture n, by hand.
    expected = np.array([[1, 0], [0, 2], [2, 5], [5, 4], [4, 3], [3, 1]])
    np.testing.assert_array_equal(labels, expected[[5, 0, 3]] if stored else expected)
