import numpy as np
import pytest

from tests import fuzzing
from tests.data import fuzz_images


def test_the_same_number_makes_the_same_file():
    one, two = (fuzz_images.make(np.random.default_rng((0, 7)), 7) for _ in range(2))
    assert one == two and len(fuzz_images.seeds()) > 30


@pytest.mark.slow
def test_damaged_images_give_one_line_each(tmp_path):
    decoder = fuzz_images.Decoder(str(tmp_path))
    try:
        tally = fuzzing.fuzz(
            fuzz_images.make, decoder, seconds=10, seed=1, names=fuzz_images.NAME
        )
    finally:
        decoder.close()
    assert not tally.failures, str(tally)
    assert tally.outcomes["error"] and tally.outcomes["read"]
    assert decoder.peak_kb - decoder.start_kb < 400 * 1024
