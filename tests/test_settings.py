import copy
import json
import re

import pytest

from tests.tiny import tiny_config
from yolojax import settings


def test_what_is_left_out_is_taken_from_the_defaults():
    complete = settings.complete({"epochs": 2, "optim": {"name": "adamw"}})
    assert complete["epochs"] == 2
    assert complete["optim"]["name"] == "adamw"
    assert complete["optim"]["momentum"] == settings.DEFAULTS["optim"]["momentum"]


@pytest.mark.parametrize(
    "given, message",
    [
        ({"epoch": 2}, "unknown key 'epoch'.*Did you mean 'epochs'"),
        ({"optim": {"lr": 1}}, "unknown key 'optim.lr'.*learning_rate"),
        ({"epochs": "2"}, "config.epochs must be a int"),
        ({"epochs": True}, "config.epochs must be a int"),
        ({"data": {"strict": 1}}, "config.data.strict must be a bool"),
        ({"ema": 3}, "config.ema must be a dict, not 3$"),
        (
            {"data": {"val": None}},
            r"data.val must be a dict, not None; for none: c.data.val = ConfigDict\(\)",
        ),
        ({"optim": {"learning_rate": -5.0}}, "learning_rate must be at least 0, not"),
        (
            {"evaluate": {"iou_threshold": 3}},
            "iou_threshold must be from 0 to 1, not 3",
        ),
        ({"optim": {"momentum": float("nan")}}, "momentum must be from 0 to 1"),
        ({"log": {"every_steps": 0}}, "every_steps must be at least 1"),
        ({"max_steps": -1}, "config.max_steps must be at least 0"),
        (
            {"evaluate": {"letterbox": "rect"}},
            "evaluate.letterbox must be one of square, rectangular, centre_crop, "
            "not 'rect'",
        ),
    ],
)
def test_wrong_keys_and_kinds_are_named(given, message):
    with pytest.raises(ValueError, match=message):
        settings.complete(given)


def test_defaults_are_not_changed():
    before = copy.deepcopy(settings.DEFAULTS)
    settings.complete({"model": {"name": "x"}, "data": {"train": {"source": "y"}}})
    assert before == settings.DEFAULTS


def test_json_gives_the_same_settings_back():
    given = settings.complete(
        {
            "image_size": 320,
            "augment": {"policy": (dict(name="mosaic", probability=1.0),)},
            "model": {"name": "yolov5n", "anchors": (((1, 2),),)},
        }
    )
    assert given["image_size"] == (320,)
    assert settings.from_json(json.dumps(given)) == given


def test_a_config_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    settings.write_config(tiny_config(), tmp_path)
    before = (tmp_path / "config.json").read_text()
    with monkeypatch.context() as patched:
        # What a kill before the last moment comes to.
        patched.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError()))
        with pytest.raises(OSError):
            settings.write_config(tiny_config(epochs=5), tmp_path)
    assert (tmp_path / "config.json").read_text() == before


def test_workdir_of_another_config_is_refused(tmp_path):
    settings.write_config(tiny_config(), tmp_path)
    settings.write_config(tiny_config(epochs=5), tmp_path)
    with pytest.raises(ValueError, match="another config: seed was 0, now 1"):
        settings.write_config(tiny_config(seed=1), tmp_path)


LINES = "".join(f"row {number} of a text\n" for number in range(30))


@pytest.mark.parametrize(
    ("key", "before", "now", "message"),
    [
        (
            "description",
            LINES,
            LINES.replace("row 17 of", "row 17 in"),
            "model.description differs in line 18: was row 17 of a text, now row 17 in "
            "a text",
        ),
        (
            "description",
            LINES,
            f"{LINES}  more",
            "model.description differs in line 31: was '', now '  more'",
        ),
        (
            "description",
            LINES.rstrip(),
            LINES,
            "model.description differs in line 31: was nothing, now ''",
        ),
        (
            "description",
            "a" * 500 + "b" + "c" * 500,
            "a" * 501 + "c" * 500,
            f"model.description differs in line 1: was {'a' * 40}b{'c' * 39}..., now "
            f"{'a' * 41}{'c' * 39}...",
        ),
        ("activation", "", "relu", "model.activation was '', now relu"),
        ("anchors", ((1, 2), (3, 4)), ((1, 2), (3, 5)), "anchors[1][1] was 4, now 5"),
        ("anchors", (1,), (1, 2), "model.anchors[1] was nothing, now 2"),
        ("width", 1.0, None, "model.width was 1.0, now nothing"),
    ],
)
def test_what_differs_from_the_run_is_shown(key, before, now, message, tmp_path):
    settings.write_config(settings.complete({"model": {key: before}}), tmp_path)
    with pytest.raises(ValueError, match=re.escape(f"{message}. Use another")):
        settings.write_config(settings.complete({"model": {key: now}}), tmp_path)


def test_the_entry_of_a_policy_that_differs_is_shown(tmp_path):
    entries = [{"name": "flip", "p": 0.5}, {"name": "mosaic", "probability": 1.0}]
    settings.write_config(tiny_config(augment__policy=tuple(entries)), tmp_path)
    for entry, message in (
        ({"name": "mosaic", "probability": 0.5}, "[1].probability was 1.0, now 0.5"),
        ({"name": "mixup", "alpha": 8.0}, "[1].name was mosaic, now mixup"),
    ):
        other = tiny_config(augment__policy=(entries[0], entry))
        with pytest.raises(ValueError, match=re.escape(f"augment.policy{message}.")):
            settings.write_config(other, tmp_path)


def test_the_file_of_a_description_may_lie_elsewhere(tmp_path):
    def described(name, text="nc: 1\n"):
        (tmp_path / name).write_text(text)
        model = {"name": "yaml", "path": str(tmp_path / name)}
        return settings.complete({"model": model})

    settings.write_config(described("a.yaml"), tmp_path / "run")
    settings.write_config(described("b.yaml"), tmp_path / "run")
    with pytest.raises(ValueError, match="description was 'nc: 1.n', now 'nc: 2.n'"):
        settings.write_config(described("b.yaml", "nc: 2\n"), tmp_path / "run")


def test_ranges_are_of_keys_that_exist():
    def value(path):
        node = settings.DEFAULTS
        for key in path.split("."):
            node = node[key]
        return node

    for path in settings.RANGES:
        assert isinstance(value(path), int | float), path


DAMAGED = {
    "empty": ("", "the file is empty"),
    "null": ("null", "expected an object, got None"),
    "list": ("[]", r"expected an object, got \[\]"),
    "cut": ('{"seed": 1, "ep', "not JSON"),
    "deep": ('{"model": ' + '{"a": ' * 900 + "1" + "}" * 901, "nested too deeply"),
}


@pytest.mark.parametrize("text, reason", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_config_json_is_named(tmp_path, text, reason):
    (tmp_path / "config.json").write_text(text)
    message = rf"config\.json cannot be read: {reason}.*move it away"
    with pytest.raises(ValueError, match=message):
        settings.read_config(tmp_path)
    with pytest.raises(ValueError, match=message):
        settings.check_config(settings.complete({}), tmp_path)


@pytest.mark.parametrize(
    "content, message",
    [
        ({"sed": 1}, "config.json: the config has an unknown key 'sed'"),
        ({"epochs": "ten"}, "config.json: config.epochs must be a int"),
        ({"optim": {"learning_rate": float("nan")}}, "config.json: config.optim.lea"),
        ({"model": [1]}, "config.json: config.model must be a dict"),
    ],
    ids=["key", "kind", "nan", "list"],
)
def test_a_wrong_value_in_config_json_names_the_file(tmp_path, content, message):
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        settings.read_config(tmp_path)


@pytest.mark.parametrize("key", ["devices", "data"])
def test_a_long_value_is_cut_in_the_message(key):
    with pytest.raises(ValueError, match=f"config.{key} must be") as caught:
        settings.complete({key: ["a"] * 10_000})
    assert len(str(caught.value)) < 300
