"""A few damaged files of weights; by hand for longer, see `fuzz_weights`."""

import pytest

from tests import fuzzing
from tests.weights import fuzz_weights


@pytest.mark.parametrize(
    "seconds", [3.0, pytest.param(60.0, marks=pytest.mark.slow)], ids=["short", "long"]
)
def test_damaged_files_of_weights_are_read_or_one_error_line(seconds):
    tally = fuzzing.fuzz(
        fuzz_weights.make,
        fuzz_weights.run,
        seconds=seconds,
        seed=0,
        limit=60.0,
        names=fuzz_weights.NAME,
    )
    assert not tally.failures
    assert tally.outcomes["error"] >= 1
