"""Some seconds of the fuzzing of run folders, see `fuzz_runs`."""

import pytest

from tests import fuzzing
from tests.engine import fuzz_runs


@pytest.mark.slow
def test_damaged_files_of_a_run_are_one_message_each():
    tally = fuzzing.fuzz(
        fuzz_runs.make, fuzz_runs.run, seconds=20, seed=1, limit=60, names="run"
    )
    assert not tally.failures, str(tally)
    assert tally.inputs >= 10 and len(tally.outcomes) >= 3
