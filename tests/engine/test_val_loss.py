"""The loss on val and that of each picture alone, with a loss that is done by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from yolojax.engine import evaluate, sharding
from yolojax.records import Batch


class Detector:
    """The map of a picture is its brightness times the only parameter."""

    def apply(self, variables, images, *, train):
        assert not train
        return (images.mean(axis=(1, 2, 3)) * variables["scale"],), None

    def decode(self, maps):
        raise NotImplementedError


def loss(maps, boxes, labels, valid):
    """As published: a mean over the boxes of the batch, times its pictures."""
    weight = valid.astype(jnp.float32)
    each = jnp.abs(maps[0][:, None] - boxes[:, :, 0]) * weight
    total = each.sum() / jnp.maximum(weight.sum(), 1.0) * jnp.float32(len(valid))
    return total, {}


def batches():
    """Brightness 0, 51, 102, 153 of 255; 1, 2, 0 and 1 boxes at x = 1; padding."""
    counts, rows = [1, 2, 0, 1, 0, 0], np.arange(6)
    levels = np.array([0, 51, 102, 153, 0, 0], np.uint8)
    whole = Batch(
        image=np.broadcast_to(levels[:, None, None, None], (6, 4, 4, 3)),
        size=np.full((6, 2), 4, np.int32),
        boxes=np.ones((6, 2, 4), np.float32),
        labels=np.zeros((6, 2), np.int32),
        valid=np.arange(2) < np.array(counts)[:, None],
        image_id=np.where(rows < 4, rows + 10, -1).astype(np.int32),
        origin=np.ones((6, 4), np.float32),
        polygons=np.zeros((6, 2, 0, 4), np.float32),
    )
    return [Batch(*(x[s] for x in whole)) for s in (slice(0, 2), slice(2, 4))] + [
        Batch(*(x[3:5] for x in whole))
    ]


@pytest.mark.parametrize("devices", [1, 2])
def test_the_mean_weighs_batches_by_their_pictures(devices):
    mesh = sharding.make_mesh(devices)
    value = evaluate.make_loss_step(Detector(), loss, mesh)
    found = evaluate.mean_loss(value, {"scale": jnp.float32(1)}, batches(), mesh=mesh)
    # Boxes at 1 from 0, 0.2, 0.2: mean 2.6 / 3. From 0.6: 0.4, in both other batches,
    # of which the last has one picture.
    assert found == pytest.approx((2 * 2.6 / 3 + 2 * 0.4 + 1 * 0.4) / 5)


def test_the_loss_of_a_picture_alone_does_not_grow_with_its_boxes():
    mesh = sharding.make_mesh(2)
    values = evaluate.make_own_loss_step(Detector(), loss, mesh)
    found = list(
        evaluate.own_losses(values, {"scale": jnp.float32(1)}, batches(), mesh=mesh)
    )
    assert [image_id.tolist() for image_id, _ in found] == [
        [10, 11],
        [12, 13],
        [13, -1],
    ]
    expected = [[1.0, 0.8], [0.0, 0.4], [0.4, 0.0]]
    np.testing.assert_allclose([losses for _, losses in found], expected, atol=1e-6)
