"""Damaged YOLO sets are read, reported or refused: no other exception, no hang."""

import pytest

from tests.data import fuzz_yolo


@pytest.mark.slow
def test_damaged_yolo_sets_are_read_reported_or_refused():
    tally = fuzz_yolo.fuzz(seconds=20, seed=0)
    assert tally.failures == {}
    # All outcomes come up, so that the changes are neither too mild nor too wild.
    assert set(tally.outcomes) == {"clean", "report", "error"}
    assert tally.inputs > 100
    assert tally.peak_mb - tally.start_mb < 300


def test_a_few_damaged_yolo_sets():
    assert fuzz_yolo.fuzz(seconds=1, seed=7).failures == {}
