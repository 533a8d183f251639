"""From settings to batches."""

import numpy as np
import pytest

from tests.tiny import tiny_config
from yolojax import datasets, experiment


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


def test_a_fraction_is_trained_on_and_the_steps_follow():
    run = experiment.build(tiny_config(data__sampling={"fraction": 0.5}))
    assert len(run.train.keep) == 12 and run.steps_per_epoch == 2
    whole = experiment.build(tiny_config())
    assert set(run.train.keep) < set(whole.train.keep)
    assert run.val is not None and len(run.val.keep) == 8


def test_a_sampler_decides_how_often_pictures_come():
    sampling = {"name": "repeat_factor", "threshold": 1.0}
    run = experiment.build(tiny_config(data__sampling=sampling))
    assert run.repeats is not None and run.repeats.min() >= 1
    length = round(run.repeats.sum())
    assert run.steps_per_epoch == -(-length // 8) > 3


@pytest.mark.parametrize(
    "sampling, message",
    [
        ({"name": "shufle"}, "no sampler named 'shufle'. Did you mean 'shuffle'"),
        ({"name": "shuffle", "threshold": 1.0}, "has no argument 'threshold'"),
        ({"name": "repeat_factor", "labels": 1}, "has no argument 'labels'"),
        ({"fraction": 0.0}, "data.sampling .*fraction is 0.0, expected above 0"),
        ({"fraction": "half"}, "fraction must be a number, not 'half'"),
        ({"name": "repeat_factor", "threshold": 2.0}, "threshold is 2.0, expected"),
    ],
)
def test_wrong_sampling_is_named(sampling, message):
    with pytest.raises(ValueError, match=message):
        experiment.build(tiny_config(data__sampling=sampling))
