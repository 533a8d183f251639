"""The picture of a config's schedule, and what is said with it."""

import jax
import numpy as np
import pytest

from tests.tiny import tiny_config
from yolojax import experiment, scheduling
from yolojax.vis import rates as drawing


@pytest.fixture
def drawn(monkeypatch):
    """What was drawn: epochs, panels and borders."""
    found = {}

    def note(epochs, panels, output, *, borders):
        found.update(epochs=epochs, panels=panels, borders=borders)
        return drawn_before(epochs, panels, output, borders=borders)

    drawn_before = drawing.plot_schedule
    monkeypatch.setattr(drawing, "plot_schedule", note)
    return found


def test_every_group_is_drawn_over_the_whole_run(drawn, tmp_path):
    settings = tiny_config(
        epochs=10,
        optim__schedule="one_cycle",
        optim__layer_decay=0.9,
        optim__groups=(
            dict(match="^backbone/", name="body", rate=0.1),
            dict(match="^(?!backbone/)", name="rest", weight_decay=0.02),
        ),
    )
    lines = scheduling.draw_schedule(settings, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    # 24 pictures, 8 a step.
    assert "sgd, one_cycle: 30 steps in 10 epochs" in lines[0]
    assert any("highest 0.01 at epoch 3.0" in line for line in lines)
    np.testing.assert_allclose(drawn["epochs"], np.arange(30) / 3)
    rates = drawn["panels"]["Learning rate"]
    assert {"body", "body_bias", "rest", "rest_bias"} < set(rates)
    np.testing.assert_allclose(rates["body"], 0.1 * rates["rest"], rtol=1e-5)
    decay = drawn["panels"]["Weight decay in a step: rate times decay"]
    np.testing.assert_allclose(decay["rest"], 0.02 * rates["rest"], rtol=1e-5)
    momentum = drawn["panels"]["Momentum"]["momentum"]
    assert momentum.argmin() in (0, 9)


def test_stages_follow_each_other(drawn, tmp_path):
    stages = (dict(epochs=2), dict(epochs=3, lr_scale=0.1))
    settings = tiny_config(stages=stages, optim__schedule="constant")
    scheduling.draw_schedule(settings, tmp_path / "a.png", steps_per_epoch=5)
    assert drawn["borders"] == (2.0,)
    rates = drawn["panels"]["Learning rate"]["learning_rate"]
    assert len(rates) == 25
    np.testing.assert_allclose(rates[[9, 24]], [0.01, 0.001], rtol=1e-5)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"optim__warmup_epochs": 3.0}, "warmup_epochs is 3.0, which is longer than"),
        (
            {
                "optim__schedule": "step",
                "optim__schedule_arguments": {"milestones": (1, 5)},
            },
            "step falls at epoch 5, but the run has 2 epochs",
        ),
        (
            {"optim__schedule": "reduce_on_plateau", "evaluate__every_epochs": 0},
            "goes by evaluations: it needs config.data.val",
        ),
        (
            {"optim__name": "adam", "optim__arguments": {"momentum": 0.8}},
            "takes no argument 'momentum' here; it is config.optim.momentum",
        ),
        ({"optim__groups": (dict(match="^head/"),)}, "parameters match no group"),
        (
            {"optim__groups": (dict(match=".", name="a"), dict(match="^head/"))},
            "parameters match more than one group",
        ),
        ({"optim__groups": (dict(match="("),)}, r"'\(' is no regular expression"),
        ({"data__val": {}, "early_stopping__patience": 1}, "patience needs config.da"),
        ({"optim__transforms": (dict(name="agx"),)}, "Did you mean 'agc'"),
    ],
)
def test_what_cannot_be_is_said_before_any_compile(changes, message, caplog):
    # What the training step is called.
    compiled = "Finished XLA compilation of jit(step)"

    def step(x):
        return x + len(message)

    with jax.log_compiles():
        with pytest.raises(ValueError, match=message):
            experiment.build(tiny_config(**changes))
        assert compiled not in caplog.text
        # So one would have been seen.
        jax.jit(step)(1.0)
        assert compiled in caplog.text
