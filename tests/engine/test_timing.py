import re

import jax.numpy as jnp
import pytest

from tests.engine.test_progress import Hands
from yolojax.engine.timing import StepClock, Times, advice


def test_the_clock_gives_pictures_a_second_and_the_share_of_waiting():
    now = Hands()
    clock = StepClock(now=now)
    for _ in range(4):
        with clock.waiting():
            now.move(0.5)
        now.move(1.5)
        clock.count(16)
    times = clock.read()
    assert times.images_per_second == 8.0
    assert times.wait_share == 0.25
    assert (times.seconds, times.steps, times.images) == (8.0, 4, 64)


def test_time_outside_of_training_is_left_out():
    now = Hands()
    clock = StepClock(now=now)
    now.move(2.0)
    clock.count(10)
    with clock.excluding():
        now.move(50.0)
    assert clock.read().images_per_second == 5.0


def test_waiting_that_ends_in_an_error_counts():
    now = Hands()
    clock = StepClock(now=now)
    with pytest.raises(StopIteration), clock.waiting():
        now.move(1.0)
        raise StopIteration
    assert clock.read().wait_share == 1.0


def test_a_window_without_time_has_no_speed_and_each_window_has_its_own():
    now = Hands()
    clock = StepClock(now=now)
    clock.count(8)
    first = clock.read()
    assert first.images_per_second == first.wait_share == 0.0
    assert set(first.columns().values()) == {0.0}
    now.move(2.0)
    clock.count(8)
    assert clock.read().since(first).images_per_second == 4.0
    assert clock.read().since(Times()).images == 16


def test_a_transfer_is_measured_where_the_devices_do_nothing_else():
    now = Hands()
    clock = StepClock(now=now)

    def put(batch):
        now.move(0.25)
        return jnp.asarray(batch)

    for _ in range(3):
        assert int(clock.moved(put, 7)) == 7
    assert clock.read()[2:4] == (0.25, 1)
    clock.moved(put, 7)
    assert clock.read()[2:4] == (0.5, 2)


def test_the_account_says_what_a_step_and_a_picture_take():
    now = Hands()
    sums = {"decode_seconds": 3.0, "pictures": 100}
    clock = StepClock(lambda: sums, now)
    before = clock.read()
    sums.update(decode_seconds=3.5, pictures=132)
    for _ in range(4):
        with clock.waiting():
            now.move(0.125)
        clock.moved(lambda batch: now.move(0.25), None)
        now.move(1.0)
        clock.count(8)
    columns = clock.read().since(before).columns()
    assert columns == {
        "data_wait": 0.125,
        "decode": 0.5 / 32,
        "transfer": 0.25,
        # Three transfers were not looked at: they run beside the steps.
        "step": (4 * 1.375 - 4 * 0.125 - 0.25) / 4,
    }


@pytest.mark.parametrize(
    "cache, threads, filled, message",
    [
        ("none", 2, True, "config.data.cache='device', 'encoded' or 'disk'"),
        ("encoded", 1, False, "the cache is being filled"),
        ("disk", 1, True, r"raise config.data.num_threads \(1 of 2 cores\)"),
        ("encoded", 2, True, "config.data.cache='device' ends it"),
        ("device", 2, True, "other work on this host"),
    ],
)
def test_advice_names_the_key_to_change(cache, threads, filled, message):
    tip = advice(cache, num_threads=threads, num_cores=2, filled=filled)
    assert re.search(message, tip)
