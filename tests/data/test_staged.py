"""The stream of a staged run: which pictures come when."""

import numpy as np

from yolojax.data.sampling import Stream, fraction_of
from yolojax.data.staged import Part, StagedStream, steps_of_part

COMMON = dict(seed=3, num_pictures=20, batch_size=4)
# Ten of twenty pictures for two epochs of three steps, then all, five steps an epoch.
HALF = StagedStream([Part(0.5, 0, 0), Part(1.0, 6, 2)], **COMMON)


def epoch(stream, first, steps, pictures):
    places = np.concatenate(
        [stream.places(step) for step in range(first, first + steps)]
    )
    return places[:pictures]


def test_a_whole_part_is_the_plain_stream():
    plain = Stream(**COMMON)
    for stream, first in (
        (StagedStream([Part(1.0, 0, 0)], **COMMON), 0),
        (StagedStream([Part(1.0, 0, 0), Part(1.0, 5, 1)], **COMMON), 0),
    ):
        for step in range(first, 12):
            np.testing.assert_array_equal(stream.places(step), plain.places(step))


def test_half_of_the_pictures_come_once_an_epoch_and_then_all():
    half = fraction_of(3, 20, 0.5)
    orders = [epoch(HALF, first, 3, 10) for first in (0, 3)]
    for order in orders:
        np.testing.assert_array_equal(np.sort(order), half)
    assert not np.array_equal(*orders)
    np.testing.assert_array_equal(np.sort(epoch(HALF, 6, 5, 20)), np.arange(20))
    # Its third epoch is that of a run without stages.
    plain = Stream(**COMMON)
    np.testing.assert_array_equal(HALF.places(6), plain.places(2 * 5))


def test_repeats_are_those_of_the_part():
    repeats = np.zeros(20)
    half = fraction_of(3, 20, 0.5)
    repeats[half[:2]] = 4.0
    stream = StagedStream([Part(0.5, 0, 0)], **COMMON, repeats=repeats)
    assert set(epoch(stream, 0, 2, 8)) == set(half[:2])
    assert steps_of_part(3, 20, repeats, batch_size=4, fraction=0.5) == 2
    assert steps_of_part(3, 20, None, batch_size=4, fraction=0.5) == 3
