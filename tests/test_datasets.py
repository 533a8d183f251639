"""From settings to batches."""

import numpy as np
import pytest

from tests.tiny import tiny_config
from yolojax import datasets


@pytest.mark.parametrize(
    "letterbox, shape",
    # 64 px and half a stride of 32, rounded up to a multiple of the stride
    [("square", (64, 64)), ("rectangular", (96, 96))],
)
def test_the_letterbox_of_the_config_decides_the_canvas(letterbox, shape):
    settings = tiny_config(evaluate__letterbox=letterbox, evaluate__batch_size=6)
    source = datasets.open_source(settings, "val")
    data = datasets.look_at_pictures(settings, source)
    batches = datasets.make_eval_batches(settings, data, stride=32)
    assert batches.shapes == (shape,)
    served = list(batches)
    assert [batch.image.shape for batch in served] == [(6, *shape, 3)] * 2
    ids = np.concatenate([batch.image_id for batch in served])
    assert sorted(ids) == [-1] * 4 + list(range(8))
