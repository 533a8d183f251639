import numpy as np
import pytest

from yolojax.data.box_rows import expected_cut


@pytest.mark.parametrize("rows, share", [(40, 0.0), (30, 0.25), (0, 1.0)])
def test_the_share_is_exact_where_all_images_have_as_many_boxes(rows, share):
    assert expected_cut(np.full(7, 10), 4, rows, seed=0) == pytest.approx(share)


def test_the_share_is_that_of_the_boxes_not_of_the_images():
    # One of four pairs shows 20 boxes, two show 10, one shows none: of 40 boxes in
    # four pairs 10 have no row.
    found = expected_cut(np.array([10, 0]), 2, 10, seed=0)
    assert found == pytest.approx(10 / 40, abs=0.01)


def test_no_boxes_and_no_images_lose_nothing():
    assert expected_cut(np.zeros(3, int), 4, 1, seed=0) == 0.0
    assert expected_cut(np.zeros(0, int), 4, 1, seed=0) == 0.0
