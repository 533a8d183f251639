import pytest

from tests import fuzzing
from tests.data import fuzz_voc


@pytest.mark.slow
def test_damaged_voc_sets_are_read_or_named(tmp_path):
    reader = fuzz_voc.Reader(tmp_path)
    tally = fuzzing.fuzz(fuzz_voc.make, reader, seconds=10, seed=1, names=str(tmp_path))
    assert not tally.failures, str(tally)
    assert {"read", "report", "error"} <= tally.outcomes.keys()
