import functools
import json

import jax
import numpy as np
import pytest

from tests.tiny import tiny_config
from yolojax import experiment

POLICY = ({"name": "mosaic", "probability": 1.0},)


@functools.cache
def built(devices=1, pool=16, **changes):
    chosen = tiny_config(
        devices=devices, augment__pool=pool, augment__policy=POLICY, **changes
    )
    return experiment.build(chosen)


def take(feed, steps):
    """The rows of each step, and image ids of the ring by device."""
    devices = None
    for _ in range(steps):
        stored = feed.put(next(feed.batches))
        devices = len(stored.count)
        ids = np.asarray(stored.pictures.image_id).reshape(devices, -1)
        rows = np.asarray(stored.rows).reshape(devices, -1)
        yield rows, ids, np.asarray(stored.pictures.image)


def batches_of(run, count):
    """Image ids of the first batches of the stream."""
    stream = run.train_batches()
    found = [np.asarray(next(stream).image_id) for _ in range(count)]
    stream.close()
    return found


@pytest.mark.parametrize("devices", [1, 4])
def test_the_ring_holds_the_last_batches_and_at_first_those_to_come(devices):
    # 24 images in batches of 8; 16 in the ring are two batches.
    run = built(devices)
    expected, feed = batches_of(run, 5), run.feed()
    for step, (rows, ids, _) in enumerate(take(feed, 5)):
        held = expected[0:2] if step < 2 else expected[step - 1 : step + 1]
        assert sorted(ids.reshape(-1)) == sorted(np.concatenate(held))
        own = np.concatenate([i[r] for i, r in zip(ids, rows, strict=True)])
        np.testing.assert_array_equal(own, expected[step])
    feed.batches.close()


def test_every_image_is_decoded_once_an_epoch():
    feed = built().feed()
    for _ in take(feed, 6):
        pass
    assert feed.batches.stats["pictures"] == 6 * 8
    feed.batches.close()


@pytest.mark.parametrize("stopped", [0, 1, 2, 5])
def test_a_run_that_goes_on_has_the_same_ring(stopped):
    run = built()
    whole, feed = run.feed(), run.feed()
    expected = list(take(whole, 7))
    for _ in take(feed, stopped):
        pass
    # As a checkpoint holds it: no image.
    state = json.dumps(feed.batches.get_state())
    assert len(state) < 200
    feed.batches.close()
    again = run.feed()
    again.batches.set_state(json.loads(state))
    for found, other in zip(take(again, 7 - stopped), expected[stopped:], strict=True):
        jax.tree.map(np.testing.assert_array_equal, found, other)
    for each in (whole, again):
        each.batches.close()


def test_partners_come_from_the_whole_ring():
    run = built(pool=24, epochs=1)
    from yolojax.augment.policy import make_explain

    explain = jax.jit(make_explain(POLICY, image_size=(64, 64)))
    feed = run.feed()
    stored = feed.put(next(feed.batches))
    stored = stored._replace(first=0, count=stored.count[0])
    shown = [
        np.asarray(explain(jax.random.key(k), stored, mosaic_on=True).scene.sources)
        for k in range(20)
    ]
    rows = np.asarray(stored.rows)
    assert all((sources[:, 0] == rows).all() for sources in shown)
    # 480 draws from 23 others: none of the 24 is left out.
    partners = np.concatenate([sources[:, 1:].reshape(-1) for sources in shown])
    assert set(partners.tolist()) == set(range(24))
    feed.batches.close()


@pytest.mark.parametrize("pool, length", [(1, 1), (8, 1), (19, 2), (999, 3)])
def test_the_pool_is_of_whole_batches_and_no_longer_than_an_epoch(pool, length):
    feed = built(pool=pool).feed()
    (_, ids, _), *_ = take(feed, 1)
    assert ids.size == 8 * length
    feed.batches.close()


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"data__cache": "device"}, "'device' takes partners from the whole set"),
        (
            {"data__sampling": {"name": "image_weighted", "by": "loss"}},
            "goes by losses",
        ),
        ({"augment__policy": ({"name": "hsv"},)}, "policy has no mosaic"),
    ],
)
def test_a_pool_without_use_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        experiment.build(tiny_config(augment__pool=16, **changes))


def test_a_pool_goes_with_a_batch_that_is_found():
    # Checked before the batch is known; the next fault is the cache's.
    changes = {"batch_size": "auto", "data__cache": "nowhere"}
    with pytest.raises(ValueError, match="no cache named 'nowhere'"):
        experiment.build(tiny_config(augment__pool=16, **changes))


def test_a_training_step_takes_the_ring():
    run = built(4)
    feed = run.feed()
    state = run.initial_state()
    for number in range(3):
        state, numbers = run.step_at(number)(state, feed.put(next(feed.batches)))
    assert float(numbers["finite"]) == 1.0
    assert float(numbers["boxes_cut"]) == 0.0
    feed.batches.close()
