import numpy as np
import pytest

from yolojax.data.sampling import Stream, epoch_order, shard_rows


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
