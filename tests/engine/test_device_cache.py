"""Pictures in the devices' memory: the right ones, on their own device, and resumed."""

import functools
import re

import jax
import numpy as np
import pytest

from tests.tiny import tiny_config
from yolojax import experiment
from yolojax.augment.policy import AUGMENTATIONS, make_augment
from yolojax.data.stored import make_shards
from yolojax.engine import device_cache, sharding
from yolojax.engine.device_cache import DeviceCache, on_each_device
from yolojax.records import Batch, Stored

ALONE = ({"name": "flip_left_right", "probability": 0.5}, {"name": "hsv"})


@functools.cache
def built(devices=1, cache="device", policy="alone"):
    changes = {"augment__policy": ALONE} if policy == "alone" else {}
    return experiment.build(tiny_config(devices=devices, data__cache=cache, **changes))


def filled(devices=1, **more):
    feed = built(devices, **more).feed()
    feed.fill(None)
    return feed


def host_batches(run, count):
    batches = run.train_batches()
    taken = [next(batches) for _ in range(count)]
    batches.close()
    return taken


@pytest.mark.parametrize("devices", [1, 4])
def test_the_store_holds_what_the_host_would_decode(devices):
    run, feed = built(devices), filled(devices)
    decoded = {}
    for batch in host_batches(built(1, "none"), run.steps_per_epoch):
        for row, image_id in enumerate(batch.image_id.tolist()):
            decoded[image_id] = [x[row] for x in jax.tree.leaves(batch)]
    assert len(decoded) == len(run.train.keep) == 24
    seen = []
    for _ in range(run.steps_per_epoch):
        stored = feed.put(next(feed.batches))
        rows = np.asarray(stored.rows).reshape(devices, -1)
        ids = np.asarray(stored.pictures.image_id).reshape(devices, -1)
        for device, row in np.ndindex(rows.shape):
            at = device * ids.shape[1] + rows[device, row]
            one = [np.asarray(x)[at] for x in jax.tree.leaves(stored.pictures)]
            seen.append(int(ids[device, rows[device, row]]))
            for array, expected in zip(one, decoded[seen[-1]], strict=True):
                np.testing.assert_array_equal(array, expected)
    assert sorted(seen) == list(range(24))


def test_each_device_has_its_own_shard_and_its_own_rows():
    stored = filled(4).put(next(filled(4).batches))
    assert isinstance(stored, Stored)
    for leaf in jax.tree.leaves(stored):
        assert len(leaf.addressable_shards) == 4
        assert leaf.sharding.spec[0] == sharding.AXIS
        sizes = {shard.data.shape[0] for shard in leaf.addressable_shards}
        assert sizes == {leaf.shape[0] // 4}
    np.testing.assert_array_equal(stored.count, [6, 6, 6, 6])


@pytest.mark.slow
def test_no_picture_travels_between_devices():
    run = built(4, policy="all")
    stored = filled(4, policy="all").put(next(filled(4, policy="all").batches))
    augment = on_each_device(
        experiment.make_augmentation(run.settings, run.max_boxes), run.mesh
    )
    key = jax.random.key(0)
    text = jax.jit(augment).lower(key, stored, mosaic_on=True).compile().as_text()
    found = re.findall(r"(all-gather|all-to-all|collective-permute|all-reduce)\(", text)
    # That of the number of boxes without room.
    assert found == ["all-reduce"]


def test_mosaic_shows_pictures_of_the_whole_shard_and_of_no_other():
    """Grey pictures whose level tells the shard, and in it the picture."""
    mesh = sharding.make_mesh(4)
    levels = (np.arange(4)[:, None] * 60 + np.arange(5) * 10).ravel() + 5
    # The last row of each shard holds no picture.
    valid = np.tile([True] * 4 + [False], 4)
    n = len(levels)
    image = np.where(valid, levels, 255).astype(np.uint8)[:, None, None, None]
    pictures = Batch(
        image=np.broadcast_to(image, (n, 32, 32, 3)).copy(),
        size=np.full((n, 2), 32, np.int32),
        boxes=np.zeros((n, 1, 4), np.float32),
        labels=np.zeros((n, 1), np.int32),
        valid=np.zeros((n, 1), bool),
        image_id=np.arange(n, dtype=np.int32),
        origin=np.ones((n, 4), np.float32),
    )
    rows = np.tile(np.arange(2, dtype=np.int32), 4)
    stored = sharding.put_batch(
        Stored(pictures, rows, first=None, count=np.full(4, 4, np.int32)), mesh
    )
    augment = make_augment(
        ({"name": "mosaic", "probability": 1.0},), image_size=(32, 32), max_boxes=4
    )
    augment = jax.jit(on_each_device(augment, mesh))
    shown = [set() for _ in range(4)]
    for step in range(12):
        batch, cut = augment(jax.random.key(step), stored, mosaic_on=True)
        assert int(cut) == 0
        for place, one in enumerate(np.round(np.asarray(batch.image) * 255)):
            colours, counts = np.unique(one[..., 0], return_counts=True)
            # Borders blend into grey; a tile is larger.
            shown[place // 2] |= set(colours[counts > 40].astype(int).tolist()) - {114}
    for shard in range(4):
        assert shown[shard] == set(levels[shard * 5 : shard * 5 + 4].tolist())


def test_on_one_device_a_step_is_that_of_the_host():
    """Same pictures, same random numbers, as long as no picture is mixed in."""
    run = built(1)
    feed, (batch,) = filled(1), host_batches(built(1, "none"), 1)
    stored = feed.put(next(feed.batches))
    augment = jax.jit(experiment.make_augmentation(run.settings, run.max_boxes))
    key = jax.random.key(3)
    one, _ = augment(key, batch, mosaic_on=True)
    each = jax.jit(on_each_device(augment, run.mesh))
    other, _ = each(key, stored, mosaic_on=True)
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_samples_have_random_numbers_of_their_own_on_all_devices():
    """The same picture in each place of the batch comes out differently."""
    mesh = sharding.make_mesh(4)
    picture = (
        np.zeros((1, 32, 32, 3), np.uint8) + np.arange(32, dtype=np.uint8)[:, None]
    )
    one = Batch(
        image=picture * 7,
        size=np.full((1, 2), 32, np.int32),
        boxes=np.zeros((1, 1, 4), np.float32),
        labels=np.zeros((1, 1), np.int32),
        valid=np.zeros((1, 1), bool),
        image_id=np.zeros(1, np.int32),
        origin=np.ones((1, 4), np.float32),
    )
    pictures = jax.tree.map(lambda x: np.repeat(x, 4, axis=0), one)
    stored = sharding.put_batch(
        Stored(pictures, np.zeros(8, np.int32), first=None, count=np.ones(4, np.int32)),
        mesh,
    )
    augment = make_augment(
        ({"name": "affine", "scale": 0.5},), image_size=(32, 32), max_boxes=4
    )
    batch, _ = jax.jit(on_each_device(augment, mesh))(
        jax.random.key(0), stored, mosaic_on=True
    )
    assert len({one.tobytes() for one in np.asarray(batch.image)}) == 8
    # And they are those of the same places of a batch on one device.
    same = jax.tree.map(lambda x: np.repeat(x, 8, axis=0), one)
    alone, _ = jax.jit(augment)(jax.random.key(0), same, mosaic_on=True)
    np.testing.assert_allclose(batch.image, alone.image, atol=1e-6)


def test_every_augmentation_can_be_split_over_devices():
    run = built(4)
    stored = filled(4).put(next(filled(4).batches))
    policy = tuple(dict(name=name, probability=0.5) for name in AUGMENTATIONS)
    augment = make_augment(policy, image_size=(32, 32), max_boxes=4)
    each = functools.partial(on_each_device(augment, run.mesh), mosaic_on=True)
    batch, cut = jax.eval_shape(each, jax.random.key(0), stored)
    assert batch.image.shape == (8, 32, 32, 3) and cut.shape == ()


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 4])
def test_training_from_the_store_resumes_with_the_same_bits(devices):
    run = built(devices, policy="all")
    feed = filled(devices, policy="all")
    state, kept, data = run.initial_state(), None, None
    for step in range(5):
        if step == 2:
            kept, data = jax.tree.map(np.array, state), feed.batches.get_state()
        state, numbers = run.step(state, feed.put(next(feed.batches)))
    assert float(numbers["finite"]) == 1
    resumed = filled(devices, policy="all")
    resumed.batches.set_state(data)
    again = sharding.put_replicated(kept, run.mesh)
    for _ in range(3):
        again, _ = run.step(again, resumed.put(next(resumed.batches)))
    jax.tree.map(np.testing.assert_array_equal, state, again)
    assert run.step._cache_size() == 1


def test_shards_that_are_not_equally_large_are_stored_whole():
    run = built(4)
    keep = run.train.keep[:10]
    shards = make_shards(
        seed=0, num_pictures=10, num_shards=4, batch_size=8, steps_per_epoch=2
    )
    cache = DeviceCache(
        run.train.source,
        keep,
        shards,
        run.mesh,
        image_size=(64, 64),
        max_boxes=8,
        num_threads=1,
    )
    told = []
    cache.fill(lambda done, total: told.append((done, total)))
    assert told[-1] == (10, 10)
    stored = cache.put(next(cache.rows))
    np.testing.assert_array_equal(stored.count, [3, 3, 2, 2])
    ids = np.asarray(stored.pictures.image_id).reshape(4, 3)
    for own, row in zip(shards.pictures, ids, strict=True):
        np.testing.assert_array_equal(row[: len(own)], keep[own])


def cache_of(run, **more):
    shards = make_shards(
        seed=0, num_pictures=24, num_shards=1, batch_size=8, steps_per_epoch=3
    )
    given = dict(image_size=(64, 64), max_boxes=8, num_threads=1)
    return DeviceCache(
        run.train.source, run.train.keep, shards, run.mesh, **given | more
    )


def test_the_need_is_told_and_refused_with_both_figures(monkeypatch):
    run = built(1)
    # A picture 64 * 64 * 3, size 8, eight boxes 16 + 4 + 1 each, id 4, origin 16.
    need = 24 * (12288 + 8 + 8 * 21 + 4 + 16) / 2**20
    note = cache_of(run).note
    assert f"24 pictures at 64x64 take {need:.1f} MiB on each of 1 device(s)" in note
    monkeypatch.setattr(device_cache, "available_bytes", lambda: 200_000)
    message = f"take {need:.1f} MiB on each .*; 0.2 MiB are free there: it does not fit"
    with pytest.raises(ValueError, match=re.escape(message).replace(r"\.\*", ".*")):
        cache_of(run)
    monkeypatch.setattr(device_cache, "available_bytes", lambda: 2**20)
    cache_of(run)
    with pytest.raises(ValueError, match="1.0 MiB are needed for a step: it does not"):
        cache_of(run, step_bytes=2**20)
    with pytest.raises(
        ValueError, match="_bytes allows 100,000 bytes: it does not fit"
    ):
        cache_of(run, budget=100_000)


def test_an_accelerators_own_figures_are_taken():
    class Device:
        def __init__(self, limit, used):
            self.stats = {"bytes_limit": limit, "bytes_in_use": used}

        def memory_stats(self):
            return self.stats

    assert device_cache.free_bytes([Device(100, 30), Device(100, 45)]) == 55


def test_what_a_step_needs_is_reckoned_without_a_store():
    run = built(1, policy="all")
    shards = make_shards(
        seed=0, num_pictures=24, num_shards=1, batch_size=8, steps_per_epoch=3
    )
    like = device_cache.abstract_stored(shards, run.mesh, (64, 64), run.max_boxes)
    stored = filled(1, policy="all").put(np.zeros(8, np.int32))
    told = [
        [(x.shape, x.dtype) for x in jax.tree.leaves(tree)] for tree in (like, stored)
    ]
    assert told[0] == told[1]
    # As floats the pictures need four times their bytes, beside the result.
    small = jax.jit(
        lambda state, stored: jax.numpy.sort(
            stored.pictures.image.astype(np.float32) + state, axis=None
        )[:2]
    )
    need = device_cache.step_bytes(small, np.float32(0), like)
    assert need >= 4 * stored.pictures.image.size
