import json

import numpy as np
import pytest

from tests.tiny import tiny_config
from yolojax import datasets
from yolojax.data import pipeline
from yolojax.data.sampling import Stream, epoch_order
from yolojax.data.sources.digits import DigitsSource
from yolojax.data.stored import StoredRows, make_shards
from yolojax.data.weighing import (
    WeighedBatches,
    array_from_text,
    array_to_text,
    weights_of_losses,
)

NUM, BATCH = 24, 8
# The first eight are hard, the next unknown, the others easy.
HARD = np.array([4.0] * 8 + [np.nan] * 8 + [1.0] * 8, np.float32)


def weigh(losses):
    return weights_of_losses(losses, power=1.0)


def test_weights_by_hand():
    # NaN counts as 2; the mean is 2.
    losses = np.array([1.0, 3.0, np.nan, 2.0])
    np.testing.assert_allclose(
        weights_of_losses(losses, power=1.0, least=0.2),
        [
            0.2 + 0.8 * 0.5,
            0.2 + 0.8 * 1.5,
            1.0,
            1.0,
        ],
    )
    squared = weights_of_losses(np.array([1.0, 3.0]), power=2.0, least=0.5)
    np.testing.assert_allclose(squared, [0.5 + 0.5 * 0.2, 0.5 + 0.5 * 1.8])
    np.testing.assert_array_equal(weights_of_losses(losses, power=0.0), 1.0)
    for none in (np.full(3, np.nan), np.zeros(3)):
        np.testing.assert_array_equal(weights_of_losses(none, power=1.0), 1.0)
    huge = weights_of_losses(np.array([1e30, 1e-30, 0.0]), power=10.0)
    np.testing.assert_allclose(huge, [0.1 + 0.9 * 3, 0.1, 0.1])


def test_text_gives_every_bit_back():
    values = np.float32([1.5, np.nan, -0.0, 1e-40])
    assert array_from_text(array_to_text(values)).tobytes() == values.tobytes()


def from_host(shard=(0, 1)):
    """A stream of every second picture of a source."""
    batches = pipeline.make_train_batches(
        DigitsSource(length=2 * NUM, size=32),
        np.arange(0, 2 * NUM, 2),
        image_size=(32, 32),
        batch_size=BATCH,
        max_boxes=4,
        seed=5,
        num_threads=1,
        shard=shard,
    )
    return WeighedBatches(batches, weigh, np.arange(0, 2 * NUM, 2))


def from_devices(num_shards=1, hosts=1, host=0):
    shards = make_shards(
        seed=5,
        num_pictures=NUM,
        num_shards=num_shards,
        batch_size=BATCH,
        steps_per_epoch=NUM // BATCH,
        repeats=np.ones(NUM),
    )
    own = np.split(np.arange(num_shards), hosts)[host]
    rows = StoredRows([shards.streams[k] for k in own])
    wrapped = WeighedBatches(rows, weigh, np.arange(0, 2 * NUM, 2))
    return wrapped, [shards.pictures[k] for k in own]


def of_source(losses):
    """The losses of all pictures of the source; those that are not used are wild."""
    return np.stack([losses, np.full(NUM, 99, np.float32)], axis=1).ravel()


def taken(stream, steps, pictures=None):
    """Which of the pictures used make each of the next batches."""
    found = []
    for _ in range(steps):
        batch = next(stream)
        if pictures is None:
            found.append(batch.image_id // 2)
        else:
            rows = np.split(batch, len(pictures))
            parts = [own[row] for own, row in zip(pictures, rows, strict=True)]
            found.append(np.concatenate(parts))
    return np.array(found)


@pytest.mark.parametrize("kind", ["host", "device"])
def test_an_epoch_goes_by_the_losses_at_its_start(kind):
    """Also where batches were prepared ahead with the old weights."""
    stream, pictures = (from_host(), None) if kind == "host" else from_devices()
    first = taken(stream, 3, pictures)
    assert sorted(first.ravel()) == list(range(NUM))
    stream.see_losses(2, of_source(HARD))  # in the midst of an epoch: not now
    stream.see_losses(3, of_source(HARD))
    second = taken(stream, 3, pictures).ravel()
    expected = epoch_order(5, 1, NUM, repeats=weigh(HARD))
    np.testing.assert_array_equal(second, expected)
    counts = np.bincount(second, minlength=NUM).reshape(3, 8).sum(1)
    # 0.1 + 0.9 * (4, 2.5, 1) / 2.5 each.
    np.testing.assert_allclose(counts, np.array([1.54, 1.0, 0.46]) * 8, atol=1.01)
    # The next epoch by the same losses until others are told.
    third = taken(stream, 3, pictures).ravel()
    np.testing.assert_array_equal(third, epoch_order(5, 2, NUM, repeats=weigh(HARD)))
    stream.close()


@pytest.mark.parametrize("kind", ["host", "device"])
@pytest.mark.parametrize("stop", [3, 4, 5])
def test_a_stream_goes_on_with_the_losses_that_its_epoch_went_by(kind, stop):
    def new():
        return (from_host(), None) if kind == "host" else from_devices(4)

    stream, pictures = new()
    taken(stream, 3, pictures)
    stream.see_losses(3, of_source(HARD))
    taken(stream, stop - 3, pictures)
    state = json.loads(json.dumps(stream.get_state()))
    rest = taken(stream, 6 - stop, pictures)
    again, _ = new()
    again.set_state(state)
    np.testing.assert_array_equal(taken(again, 6 - stop, pictures), rest)
    stream.see_losses(6, of_source(HARD[::-1]))
    again.see_losses(6, of_source(HARD[::-1]))
    later = taken(stream, 3, pictures)
    np.testing.assert_array_equal(taken(again, 3, pictures), later)
    for one in (stream, again):
        one.close()


def test_a_state_without_losses_weighs_equally_and_that_of_others_is_refused():
    stream, pictures = from_devices()
    stream.see_losses(0, of_source(HARD))
    stream.set_state({"next_index": 3})
    expected = epoch_order(5, 1, NUM, repeats=np.ones(NUM))
    np.testing.assert_array_equal(taken(stream, 3, pictures).ravel(), expected)
    assert stream.get_state()["losses"] == ""
    with pytest.raises(ValueError, match="losses of 5 training pictures, but .* 24"):
        stream.set_state({"next_index": 3, "losses": array_to_text(HARD[:5])})


def test_hosts_together_take_what_one_takes():
    whole, halves = from_host(), [from_host((k, 2)) for k in range(2)]
    for stream in (whole, *halves):
        stream.see_losses(0, of_source(HARD))
    parts = np.concatenate([taken(half, 3) for half in halves], axis=1)
    np.testing.assert_array_equal(parts, taken(whole, 3))
    for stream in (whole, *halves):
        stream.close()
    whole, pictures = from_devices(4)
    halves = [from_devices(4, 2, host) for host in range(2)]
    for stream, _ in ((whole, None), *halves):
        stream.see_losses(0, of_source(HARD))
    parts = np.concatenate([taken(half, 3, own) for half, own in halves], axis=1)
    np.testing.assert_array_equal(parts, taken(whole, 3, pictures))


def test_each_device_shows_its_own_hard_pictures_more_often():
    stream, pictures = from_devices(4)
    stream.see_losses(0, of_source(HARD))
    found = taken(stream, 60, pictures)
    own = np.split(found, 4, axis=1)
    for shard, shown in zip(pictures, own, strict=True):
        counts = np.bincount(shown.ravel(), minlength=NUM)[shard]
        expected = weigh(HARD)[shard]
        expected = counts.sum() * expected / expected.sum()
        np.testing.assert_allclose(counts, expected, rtol=0.25, atol=4)


def test_an_order_that_a_thread_was_still_at_is_not_taken():
    stream = Stream(seed=0, num_pictures=NUM, batch_size=BATCH)
    old = stream.places(3)
    stream.reweigh(weigh(HARD))
    assert (stream.places(3) != old).any()
    stream.reweigh(np.ones(NUM))
    expected = epoch_order(0, 1, NUM, repeats=np.ones(NUM))[:BATCH]
    np.testing.assert_array_equal(stream.places(3), expected)


def test_the_config_asks_for_it():
    chosen = tiny_config(
        data__sampling=dict(name="image_weighted", by="loss", least=0.5)
    )
    sampler, _ = datasets.sampler_of(chosen)
    np.testing.assert_array_equal(sampler([np.zeros(0, np.int64)] * 4), 1.0)
    stream, pictures = from_devices()
    weighed = datasets.weighed(chosen, stream._batches, np.arange(NUM))
    weighed.see_losses(0, HARD)
    expected = weights_of_losses(HARD, power=1.0, least=0.5)
    order = epoch_order(5, 0, NUM, repeats=expected)
    np.testing.assert_array_equal(taken(weighed, 3, pictures).ravel(), order)
    assert datasets.weighed(tiny_config(), stream, np.arange(NUM)) is stream


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(by="size"), "by is 'size', expected 'classes' or 'loss'"),
        (dict(by=1), "by must be text, not 1"),
        (dict(by="loss", least=0.0), "least is 0.0, expected above 0"),
        (dict(by="loss", power=-1.0), "power is -1.0, expected at least 0"),
        (dict(by="loss", power="x"), "power must be a number, not 'x'"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    chosen = tiny_config(data__sampling=dict(name="image_weighted", **arguments))
    with pytest.raises(ValueError, match=message):
        datasets.sampler_of(chosen)


def test_stages_that_see_a_part_of_the_data_are_refused():
    chosen = tiny_config(
        data__sampling=dict(name="image_weighted", by="loss"),
        stages=(dict(epochs=1, data_fraction=0.5), dict(epochs=1)),
    )
    with pytest.raises(ValueError, match="by='loss' needs the same pictures in every"):
        datasets.sampler_of(chosen)
