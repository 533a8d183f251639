import numpy as np
import pytest

from yolojax.engine.pictures import PictureLosses


def test_the_last_finite_loss_of_each_picture_is_kept():
    losses = PictureLosses(5)
    assert losses.quantiles() == {} and losses.to_text() == ""
    losses.add(np.array([3, 0, -1]), np.array([1.0, 2.0, 9.0]))
    losses.add(np.array([3, 1, 0]), np.array([5.0, 4.0, np.inf]))
    np.testing.assert_array_equal(losses.last, [2.0, 4.0, np.nan, 5.0, np.nan])
    assert losses.worst(2, range(5)) == [3, 1]
    assert losses.worst(9, [0, 1, 2]) == [1, 0]


def test_quantiles_are_those_of_the_pictures_seen():
    losses = PictureLosses(20)
    losses.add(np.arange(11), np.arange(11.0))
    assert losses.quantiles() == {
        "loss/picture_q10": 1.0,
        "loss/picture_q50": 5.0,
        "loss/picture_q90": 9.0,
        "loss/picture_max": 10.0,
    }


def test_the_text_gives_every_bit_back_and_is_small():
    losses = PictureLosses(1000)
    losses.add(np.arange(500), np.random.default_rng(0).random(500, np.float32))
    again = PictureLosses(1000, losses.to_text())
    assert again.last.tobytes() == losses.last.tobytes()
    assert len(losses.to_text()) < 4000
    again.add([0], [1.0])


def test_other_data_than_those_of_the_run_are_refused():
    losses = PictureLosses(3)
    losses.add([0], [1.0])
    with pytest.raises(ValueError, match="begun with 3 training pictures, now .* 4"):
        PictureLosses(4, losses.to_text())
