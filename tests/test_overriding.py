"""Keys on the command line that a config file leaves out."""

import re
from typing import Any

import pytest
from ml_collections import ConfigDict

from yolojax import overriding

GIVEN = {
    "batch_size": 16,
    "own": 1,
    "model": {"name": "yolov5n"},
    "optim": {"name": "sgd", "sam": {}, "arguments": {"eps": 1e-8}},
    "augment": {"policy": ()},
}


def taken(*words):
    return overriding.take(["train", "--config=c.py", *words], GIVEN)


def test_keys_of_components_and_of_newer_versions_are_taken_and_others_left():
    left = ["--config.batch_size=8", "--config.optim.arguments.eps", "1", "--x=1"]
    rest, found = taken(
        "--config.loss.parts.box.name=siou",
        *left[:3],
        "-config.optim.sam.name=sam",
        "--config.optim.arguments.b1=0.9",
        "--config.optim.arguments.nesterov=true",
        "--config.data.sampling.fraction",
        "-1",
        "--config.stages=({'epochs': 2},)",
        left[3],
    )
    assert rest == ["train", "--config=c.py", *left]
    assert found == {
        "loss.parts.box.name": "siou",
        "optim.sam.name": "sam",
        "optim.arguments.b1": 0.9,
        "optim.arguments.nesterov": True,
        "data.sampling.fraction": -1,
        "stages": ({"epochs": 2},),
    }


def test_what_was_taken_is_set_in_a_locked_config():
    config: Any = ConfigDict(GIVEN).lock()
    overriding.put(config, {"loss.parts.box.name": "siou", "optim.sam.rho": 0.1})
    assert config.to_dict() == {
        **GIVEN,
        "loss": {"parts": {"box": {"name": "siou"}}},
        "optim": {**GIVEN["optim"], "sam": {"rho": 0.1}},
    }
    assert config.is_locked and config.optim.is_locked


@pytest.mark.parametrize(
    "word, message",
    [
        ("--config.optm.lr=1", "no key 'optm.lr'. Did you mean 'optim'? Keys there: "),
        ("--config.optim.lr=1", "Did you mean 'learning_rate'? Keys there: optim.arg"),
        ("--config.augment.polcy=()", "'policy'? Keys there: augment.adversarial, aug"),
        (
            "--config.ow=1",
            "no key 'ow'. Did you mean 'own'? Keys there: augment, batch",
        ),
        ("--config.seed.x=1", "no key 'seed.x'. Did you mean 'seed'?"),
        ("--config.optim.arguments=1", None),
        ("--config.max_hours", "--config.max_hours needs a value"),
    ],
)
def test_a_key_that_no_config_has_is_said_with_those_beside(word, message):
    if message is None:
        assert taken(word) == (["train", "--config=c.py", word], {})
        return
    with pytest.raises(ValueError, match=re.escape(message)):
        taken(word)


def test_of_a_key_that_is_set_twice_the_last_counts():
    # The flags of tuples would put both together.
    rest, found = taken(
        "--config.batch_size=8",
        "--config.optim.sam.rho=1",
        "--config.own=2",
        "-config.batch_size=4",
        "--config.optim.sam.rho=2",
    )
    assert rest == ["train", "--config=c.py", "--config.own=2", "-config.batch_size=4"]
    assert found == {"optim.sam.rho": 2}


def test_a_value_whose_default_is_a_text_stays_one():
    words = ["train", "--config.data.root=2024", "--config.epochs=20"]
    rest, found = overriding.take(words, {})
    assert rest == ["train"]
    assert found == {"data.root": "2024", "epochs": 20}
