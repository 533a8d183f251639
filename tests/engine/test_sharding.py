import pytest

from yolojax.engine import sharding


@pytest.mark.parametrize(
    "wanted, batch_size, expected",
    [(0, 8, 4), (64, 8, 4), (2, 8, 2), (0, 6, 3), (4, 6, 3), (0, 1, 1)],
)
def test_devices_that_are_here_and_divide_the_batch(wanted, batch_size, expected):
    assert sharding.fitting_devices(wanted, batch_size) == expected
