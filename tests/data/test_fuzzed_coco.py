"""Some seconds of `fuzz_coco`; by hand it runs for ten minutes."""

import pytest

from tests.data.fuzz_coco import FILES, NAME, Fuzzer
from tests.fuzzing import fuzz
from tests.shared import shared


@pytest.mark.parametrize(
    "seconds", [1.5, pytest.param(30.0, marks=pytest.mark.slow)], ids=["short", "long"]
)
def test_damaged_files_are_read_or_reported(tmp_path, seconds):
    for file in FILES:
        shared("data", file)
    fuzzer = Fuzzer(tmp_path)
    tally = fuzz(fuzzer.make, fuzzer.run, seconds=seconds, seed=1, names=NAME)
    assert not tally.failures, str(tally)
    assert tally.outcomes["report"] and tally.outcomes["error"]
