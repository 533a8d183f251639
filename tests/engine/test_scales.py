import numpy as np
import pytest

from yolojax.engine.scales import describe_sizes, size_of_step, training_sizes


def test_sizes_are_multiples_of_the_stride_and_different():
    sizes = training_sizes((640, 480), (0.5, 0.75, 1.0, 0.51, 1.4), 32)
    assert sizes == ((320, 256), (480, 352), (640, 480), (896, 672))


def test_what_factors_became_is_told():
    sizes = training_sizes((100, 64), (0.5, 1.0), 32)
    assert "one of 64x32, 96x64 px (height x width; mul" in describe_sizes(sizes, 32)


def test_without_factors_the_size_stays():
    assert training_sizes((640, 480), (), 32) == ((640, 480),)


def test_no_side_vanishes():
    assert training_sizes((64, 32), (0.1,), 32) == ((32, 32),)


def test_each_step_has_its_size_and_all_are_equally_likely():
    sizes = ((32, 32), (64, 64), (96, 96))
    drawn = [size_of_step(sizes, 3, step) for step in range(3000)]
    assert drawn == [size_of_step(sizes, 3, step) for step in range(3000)]
    counts = [drawn.count(size) / 3000 for size in sizes]
    np.testing.assert_allclose(counts, 1 / 3, atol=0.03)
    # No size follows from the one before.
    pairs = [(drawn[i], drawn[i + 1]) for i in range(2999)]
    counts = [pairs.count((a, b)) / 2999 for a in sizes for b in sizes]
    np.testing.assert_allclose(counts, 1 / 9, atol=0.02)
    assert drawn[:50] != [size_of_step(sizes, 4, step) for step in range(50)]


@pytest.mark.parametrize(
    "factor, message",
    [
        (0.0, "multi_scale has the factor 0.0, expected 0.1 to 4"),
        (5, "multi_scale has the factor 5, expected 0.1 to 4"),
        ("1", "multi_scale holds '1', no number"),
    ],
)
def test_factors_that_make_no_sense_are_refused(factor, message):
    with pytest.raises(ValueError, match=message):
        training_sizes((64, 64), (1.0, factor), 32)
