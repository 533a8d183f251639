import json

import numpy as np
import pytest

from yolojax.data.sampling import Stream
from yolojax.data.stored import StoredRows, make_shards


def shards_of(num_pictures, num_shards, batch_size=8, seed=5, **more):
    return make_shards(
        seed=seed,
        num_pictures=num_pictures,
        num_shards=num_shards,
        batch_size=batch_size,
        steps_per_epoch=-(-num_pictures // batch_size),
        **more,
    )


@pytest.mark.parametrize("num_shards", [1, 2, 4, 8])
@pytest.mark.parametrize("num_pictures", [8, 23, 24, 25, 100])
def test_an_epoch_of_each_shard_is_a_permutation_of_it(num_pictures, num_shards):
    shards = shards_of(num_pictures, num_shards)
    rows = StoredRows(shards.streams)
    for _ in range(3):
        taken = np.stack([next(rows) for _ in range(rows.steps_per_epoch)])
        taken = taken.reshape(len(taken), num_shards, -1)
        pictures = []
        for shard, own in enumerate(shards.pictures):
            order = taken[:, shard].ravel()
            assert len(own) <= shards.rows
            # Each once; then it is filled up from the same epoch's start.
            assert sorted(order[: len(own)].tolist()) == list(range(len(own)))
            rest = order[len(own) :]
            np.testing.assert_array_equal(rest, np.resize(order[: len(own)], len(rest)))
            pictures.append(own[order[: len(own)]])
        everything = np.concatenate(pictures)
        assert sorted(everything.tolist()) == list(range(num_pictures))


def test_one_shard_takes_the_pictures_that_the_host_would():
    rows = StoredRows(shards_of(23, 1).streams)
    stream = Stream(seed=5, num_pictures=23, batch_size=8)
    for step in range(7):
        np.testing.assert_array_equal(next(rows), stream.places(step))


def test_shards_go_their_own_ways():
    taken = next(StoredRows(shards_of(64, 4, batch_size=32).streams)).reshape(4, 8)
    assert len({tuple(own) for own in taken.tolist()}) == 4


def test_a_stream_restored_through_json_goes_on_as_if_never_stopped():
    whole = StoredRows(shards_of(23, 2).streams)
    expected = [next(whole) for _ in range(12)]
    stopped = StoredRows(shards_of(23, 2).streams)
    for _ in range(5):
        next(stopped)
    state = json.loads(json.dumps(stopped.get_state()))
    resumed = StoredRows(shards_of(23, 2).streams)
    resumed.set_state(state)
    np.testing.assert_array_equal([next(resumed) for _ in range(7)], expected[5:])
    started = StoredRows(shards_of(23, 2).streams, start_step=5)
    np.testing.assert_array_equal(next(started), expected[5])
    assert expected[0].dtype == np.int32


def test_hosts_take_the_rows_of_their_own_devices():
    shards = shards_of(40, 4)
    whole = StoredRows(shards.streams)
    parts = [StoredRows(shards.streams[k : k + 2]) for k in (0, 2)]
    for _ in range(6):
        joined = np.concatenate([next(part) for part in parts])
        np.testing.assert_array_equal(joined, next(whole))


def test_weights_count_within_each_shard():
    repeats = np.where(np.arange(40) % 4 == 0, 3.0, 0.5)
    shards = shards_of(40, 2, repeats=repeats)
    rows = StoredRows(shards.streams)
    counts = np.zeros(40)
    for _ in range(1000 * rows.steps_per_epoch):
        for own, taken in zip(shards.pictures, next(rows).reshape(2, -1), strict=True):
            np.add.at(counts, own[taken], 1)
    for own in shards.pictures:
        share = counts[own] / counts[own].sum()
        expected = repeats[own] / repeats[own].sum()
        np.testing.assert_allclose(share, expected, rtol=0.15)


def test_what_cannot_be_divided_is_named():
    with pytest.raises(ValueError, match="3 pictures cannot be stored on 4 devices"):
        shards_of(3, 4)
    with pytest.raises(ValueError, match="batch of 8 cannot be divided among 3 dev"):
        shards_of(30, 3)
    repeats = np.zeros(4)
    repeats[0] = 1.0
    with pytest.raises(ValueError, match="no picture that config.data.sampling"):
        shards_of(4, 4, repeats=repeats)
