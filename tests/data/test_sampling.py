import numpy as np
import pytest

from yolojax.data.sampling import (
    SAMPLERS,
    Stream,
    epoch_order,
    fraction_of,
    shard_pictures,
    shard_rows,
)


@pytest.mark.parametrize("n", [1, 2, 97])
def test_an_epochs_order_is_a_permutation(n):
    assert sorted(epoch_order(0, 0, n).tolist()) == list(range(n))


def test_order_depends_on_seed_and_epoch_alone():
    order = epoch_order(5, 3, 50)
    np.testing.assert_array_equal(order, epoch_order(5, 3, 50))
    assert (order != epoch_order(5, 4, 50)).any()
    assert (order != epoch_order(6, 3, 50)).any()
    assert (order != epoch_order(-1, 3, 50)).any()


def test_every_first_place_is_equally_likely():
    firsts = [epoch_order(0, epoch, 4)[0] for epoch in range(400)]
    # 100 each are expected, with a standard deviation of 9.
    assert (np.abs(np.bincount(firsts, minlength=4) - 100) < 40).all()


def test_an_epoch_holds_every_picture_once_and_is_filled_up_from_its_start():
    stream = Stream(seed=1, num_pictures=10, batch_size=4)
    assert stream.steps_per_epoch == 3
    for epoch in range(3):
        places = np.concatenate([stream.places(3 * epoch + k) for k in range(3)])
        order = epoch_order(1, epoch, 10)
        np.testing.assert_array_equal(places, [*order, *order[:2]])


def test_steps_can_be_asked_for_in_any_order():
    forward = Stream(seed=2, num_pictures=7, batch_size=3)
    wanted = {step: forward.places(step) for step in range(20)}
    backward = Stream(seed=2, num_pictures=7, batch_size=3)
    for step in reversed(range(20)):
        np.testing.assert_array_equal(backward.places(step), wanted[step])


def test_fewer_pictures_than_a_batch_are_repeated():
    stream = Stream(seed=0, num_pictures=3, batch_size=8)
    assert stream.steps_per_epoch == 1
    assert np.bincount(stream.places(0)).tolist() in (
        [3, 3, 2],
        [3, 2, 3],
        [2, 3, 3],
    )


def test_a_given_number_of_steps_makes_the_epoch():
    stream = Stream(seed=0, num_pictures=10, batch_size=4, steps_per_epoch=2)
    np.testing.assert_array_equal(stream.places(2), epoch_order(0, 1, 10)[:4])


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(num_pictures=0, batch_size=4), "1 pictures to train on, not 0"),
        (dict(num_pictures=4, batch_size=0), "1 pictures a batch, not 0"),
        (
            dict(num_pictures=4, batch_size=4, steps_per_epoch=0),
            "1 steps an epoch, not 0",
        ),
    ],
)
def test_numbers_must_be_positive(arguments, message):
    with pytest.raises(ValueError, match=message):
        Stream(seed=0, **arguments)


def test_rows_of_all_hosts_in_order_are_the_batch():
    rows = [range(12)[shard_rows(12, (index, 3))] for index in range(3)]
    assert [row for part in rows for row in part] == list(range(12))


def test_a_batch_that_hosts_do_not_divide_is_an_error():
    with pytest.raises(ValueError, match="batch of 10 cannot be divided among 4 hosts"):
        shard_rows(10, (0, 4))
    with pytest.raises(ValueError, match="shard 4 of 4 does not exist"):
        shard_rows(12, (4, 4))


def times(repeats, epochs=200, seed=0):
    """How often each picture came in each epoch, [epochs, pictures]."""
    n = len(repeats)
    orders = [epoch_order(seed, e, n, repeats=repeats) for e in range(epochs)]
    return np.stack([np.bincount(order, minlength=n) for order in orders])


def test_pictures_come_as_often_as_expected_rounded_up_or_down():
    repeats = np.array([1.0, 0.25, 2.5, 0.0, 1.0, 3.0, 0.75, 1.5])
    counts = times(repeats)
    assert (counts.sum(axis=1) == 10).all()
    assert (counts >= np.floor(repeats)).all() and (counts <= np.ceil(repeats)).all()
    # At most .5 a picture and epoch off, so .035 on the mean of 200.
    np.testing.assert_allclose(counts.mean(axis=0), repeats, atol=0.15)


def test_a_sum_that_is_no_whole_number_is_rounded_and_the_rest_scaled():
    counts = times(np.full(7, 0.9))
    assert (counts.sum(axis=1) == 6).all()
    np.testing.assert_allclose(counts.mean(axis=0), 6 / 7, atol=0.15)
    assert (times(np.array([0.0, 0.2])).sum(axis=1) == 1).all()


def test_expecting_each_once_is_a_permutation_in_random_order():
    orders = [epoch_order(0, e, 9, repeats=np.ones(9)) for e in range(300)]
    assert all(sorted(order.tolist()) == list(range(9)) for order in orders)
    firsts = np.bincount([order[0] for order in orders], minlength=9)
    assert (np.abs(firsts - 300 / 9) < 25).all()


def test_pictures_that_come_often_do_not_come_in_a_row():
    order = epoch_order(0, 0, 40, repeats=np.full(40, 5.0))
    assert (order[1:] == order[:-1]).sum() < 20


def test_shards_have_draws_of_their_own_and_the_first_those_of_one_host():
    one = epoch_order(3, 2, 30)
    np.testing.assert_array_equal(epoch_order(3, 2, 30, shard=0), one)
    assert (epoch_order(3, 2, 30, shard=1) != one).any()


# Four pictures: two boxes of class 0, one of class 0, classes 0 and 1, none.
LABELS = [np.array(own, np.int32) for own in ([0, 0], [0], [0, 1], [])]


def test_samplers_by_hand():
    assert SAMPLERS["shuffle"](LABELS) is None
    # Shares of pictures: 3/4 and 1/4. At 1: sqrt(4/3) and 2; at 1/4: both 1.
    root = np.sqrt(4 / 3)
    np.testing.assert_allclose(
        SAMPLERS["repeat_factor"](LABELS, threshold=1.0), [root, root, 2.0, 1.0]
    )
    np.testing.assert_array_equal(
        SAMPLERS["repeat_factor"](LABELS, threshold=0.25), 1.0
    )
    # Through class 0 a third each, the third picture through class 1 once more; their
    # mean is 2/3.
    np.testing.assert_allclose(SAMPLERS["class_balanced"](LABELS), [0.5, 0.5, 2.0, 1.0])
    np.testing.assert_allclose(
        SAMPLERS["class_balanced"](LABELS, background=0.25)[3], 0.25
    )
    # Boxes: 4 of class 0, 1 of class 1. Weights 2/4, 1/4, 1/4 + 1; their mean is 2/3.
    np.testing.assert_allclose(
        SAMPLERS["image_weighted"](LABELS), [0.75, 0.375, 1.875, 1.0]
    )
    # By boxes alone: 2, 1, 2, with a mean of 5/3.
    np.testing.assert_allclose(
        SAMPLERS["image_weighted"](LABELS, power=0.0), [1.2, 0.6, 1.2, 1.0]
    )


def test_balanced_classes_come_equally_often():
    rng = np.random.default_rng(0)
    chances = [0.5, 0.3, 0.15, 0.05]
    labels = [rng.choice(4, 1, p=chances) for _ in range(400)]
    order = [
        epoch_order(0, e, 400, repeats=SAMPLERS["class_balanced"](labels))
        for e in range(4)
    ]
    shown = np.bincount([labels[i][0] for i in np.concatenate(order)], minlength=4)
    np.testing.assert_allclose(shown, 400, atol=8)


@pytest.mark.parametrize("name", SAMPLERS)
def test_samplers_take_a_class_that_no_picture_shows_and_pictures_without_boxes(name):
    labels = [np.array([5], np.int32), np.array([], np.int32), np.array([2], np.int32)]
    repeats = SAMPLERS[name](labels)
    if repeats is not None:
        assert repeats.shape == (3,) and np.isfinite(repeats).all()
        assert (repeats >= 0).all() and repeats[0] == repeats[2]


@pytest.mark.parametrize(
    "name, arguments, message",
    [
        ("repeat_factor", dict(threshold=0.0), "threshold is 0.0, expected above 0"),
        ("class_balanced", dict(background=-1.0), "background is -1.0, expected at"),
        ("image_weighted", dict(power=-1.0), "power is -1.0, expected at least 0"),
    ],
)
def test_wrong_arguments_of_samplers_are_named(name, arguments, message):
    with pytest.raises(ValueError, match=message):
        SAMPLERS[name](LABELS, **arguments)


def test_nothing_to_balance_is_an_error():
    with pytest.raises(ValueError, match="no picture has a box"):
        SAMPLERS["class_balanced"]([np.zeros(0, np.int32)])


def test_a_fraction_is_the_same_part_each_time_and_grows_by_adding():
    half = fraction_of(0, 40, 0.5)
    np.testing.assert_array_equal(half, fraction_of(0, 40, 0.5))
    assert len(half) == 20 and (np.diff(half) > 0).all()
    assert set(fraction_of(0, 40, 0.25)) < set(half) < set(fraction_of(0, 40, 1.0))
    assert (fraction_of(1, 40, 0.5) != half).any()
    assert len(fraction_of(0, 40, 0.001)) == 1
    for wrong in (0.0, 1.5, float("nan")):
        with pytest.raises(ValueError, match="expected above 0 and at most 1"):
            fraction_of(0, 40, wrong)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_shards_hold_each_picture_once_and_are_equally_large(count):
    shards = shard_pictures(0, 23, count)
    assert sorted(np.concatenate(shards).tolist()) == list(range(23))
    assert max(map(len, shards)) - min(map(len, shards)) <= 1
    assert all((np.diff(own) > 0).all() for own in shards)
    if count > 1:
        # Not a fixed stride, with which sorted or periodic data would go badly.
        assert len(set(np.diff(shards[0]))) > 1


def test_an_epoch_of_a_sampler_has_as_many_steps_as_it_expects_pictures():
    stream = Stream(seed=0, num_pictures=10, batch_size=4, repeats=np.full(10, 1.5))
    assert stream.steps_per_epoch == 4
    places = np.concatenate([stream.places(k) for k in range(4)])
    counts = np.bincount(places[:15], minlength=10)
    assert counts.min() >= 1 and counts.max() <= 2
    np.testing.assert_array_equal(places[15], places[0])
