"""YOLOv5's hyper-parameter files."""

import copy
import json

import numpy as np
import pytest
import yaml

from tests.tiny import tiny_config
from yolojax import experiment, hyperparameters, settings

# The published numbers for training from scratch at low augmentation, as of v6.0.
LOW = {
    "lr0": 0.01,
    "lrf": 0.01,
    "momentum": 0.937,
    "weight_decay": 0.0005,
    "warmup_epochs": 3.0,
    "warmup_momentum": 0.8,
    "warmup_bias_lr": 0.1,
    "box": 0.05,
    "cls": 0.5,
    "cls_pw": 1.0,
    "obj": 1.0,
    "obj_pw": 1.0,
    "iou_t": 0.20,
    "anchor_t": 4.0,
    "fl_gamma": 0.0,
    "hsv_h": 0.015,
    "hsv_s": 0.7,
    "hsv_v": 0.4,
    "degrees": 0.0,
    "translate": 0.1,
    "scale": 0.5,
    "shear": 0.0,
    "perspective": 0.0,
    "flipud": 0.0,
    "fliplr": 0.5,
    "mosaic": 1.0,
    "mixup": 0.0,
    "copy_paste": 0.0,
}


@pytest.fixture
def file(tmp_path):
    def write(content):
        path = tmp_path / "hyp.yaml"
        text = (
            content
            if isinstance(content, str)
            else yaml.safe_dump(content, sort_keys=False)
        )
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write


def complete(path, **given):
    return settings.complete({"hyp": path, **given})


def test_the_published_file_gives_the_defaults_and_the_published_policy(file):
    chosen = complete(file(LOW))
    expected = copy.deepcopy(settings.DEFAULTS)
    affine = {"degrees": 0.0, "translate": 0.1, "scale": 0.5, "shear": 0.0}
    expected["augment"]["policy"] = (
        {"name": "hsv", "hue": 0.015, "saturation": 0.7, "value": 0.4},
        {"name": "affine", **affine, "perspective": 0.0},
        {"name": "flip_left_right", "probability": 0.5},
        {"name": "mosaic", "probability": 1.0},
    )
    assert chosen == expected
    assert chosen["hyp"] == ""
    experiment.make_augmentation(chosen, 4)


def test_every_key_sets_what_it_names(file):
    values = {key: 0.0 for key in LOW if key in ("mixup", "copy_paste")}
    values |= {
        "lr0": 0.02,
        "lrf": 0.2,
        "momentum": 0.9,
        "weight_decay": 1e-4,
        "warmup_epochs": 2,
        "warmup_momentum": 0.5,
        "warmup_bias_lr": 0.05,
        "box": 0.07,
        "cls": 0.3,
        "cls_pw": 1.2,
        "obj": 0.7,
        "obj_pw": 0.9,
        "iou_t": 0.3,
        "anchor_t": 3.0,
        "fl_gamma": 1.5,
        "label_smoothing": 0.1,
        "flipud": 0.25,
        "degrees": 10,
        "perspective": 0.001,
    }
    chosen = complete(file(values))
    assert chosen["optim"] == settings.DEFAULTS["optim"] | {
        "learning_rate": 0.02,
        "final_ratio": 0.2,
        "momentum": 0.9,
        "weight_decay": 1e-4,
        "warmup_epochs": 2.0,
        "warmup_momentum": 0.5,
        "warmup_bias_rate": 0.05,
    }
    assert chosen["loss"] == settings.DEFAULTS["loss"] | {
        "box": 0.07,
        "classes": 0.3,
        "objectness": 0.7,
        "anchor_ratio": 3.0,
        "focal_gamma": 1.5,
        "label_smoothing": 0.1,
        "arguments": {
            "class_positive_weight": 1.2,
            "objectness_positive_weight": 0.9,
        },
    }
    assert chosen["augment"]["policy"] == (
        {"name": "flip_up_down", "probability": 0.25},
        {
            "name": "affine",
            "scale": 0.0,
            "translate": 0.0,
            "degrees": 10.0,
            "perspective": 0.001,
        },
    )
    model = experiment.make_model(chosen | {"model": dict(name="yolov5n")}, ("a",))
    loss = experiment.make_loss(chosen, model)
    assert loss.keywords["class_positive_weight"] == 1.2
    assert loss.keywords["anchor_ratio"] == 3.0
    assert settings.from_json(json.dumps(chosen)) == chosen


def test_the_file_has_the_last_word_on_what_it_says_only(file):
    policy = (
        {"name": "mosaic", "probability": 0.2},
        {"name": "affine", "probability": 0.3, "scale": 0.9, "shear": 2.0},
        {"name": "hsv"},
        {"name": "flip_left_right", "probability": 0.4},
    )
    given = {
        "optim": {"learning_rate": 0.5, "momentum": 0.1},
        "loss": {"arguments": {"class_positive_weight": 3.0, "balance": (1.0,)}},
        "augment": {"policy": policy},
    }
    values = {"lr0": 0.1, "scale": 0.25, "mosaic": 0, "fliplr": 0.0, "cls_pw": 1}
    chosen = complete(file(values), **given)
    assert chosen["optim"]["learning_rate"] == 0.1
    assert chosen["optim"]["momentum"] == 0.1
    assert chosen["loss"]["arguments"] == {"balance": (1.0,)}
    assert chosen["augment"]["policy"] == (
        {"name": "affine", "probability": 1.0, "scale": 0.25, "shear": 2.0},
        {"name": "hsv"},
    )
    # What was given is not changed.
    assert given["optim"]["learning_rate"] == 0.5
    assert policy[0]["probability"] == 0.2


def test_a_preset_in_the_policy_gives_way_like_its_entries(file):
    values = {"scale": 0.9, "mosaic": 0, "mixup": 0.1}
    for policy in ("yolov5_low", ("yolov5_low",)):
        chosen = complete(file(values), augment={"policy": policy})
        entries = {entry["name"]: entry for entry in chosen["augment"]["policy"]}
        assert "mosaic" not in entries
        assert entries["affine"]["scale"] == 0.9
        assert entries["affine"]["translate"] == 0.1
        assert entries["hsv"]["hue"] == 0.015
        assert entries["mixup"]["probability"] == 0.1
        experiment.make_augmentation(chosen, 4)
    unchanged = complete(file({"lr0": 0.1}), augment={"policy": ("yolov5_low",)})
    assert unchanged["augment"]["policy"] == ("yolov5_low",)


def test_the_run_keeps_values_and_no_file(file, tmp_path):
    path = file({"lr0": 0.03})
    chosen = tiny_config(hyp=path)
    settings.write_config(chosen, tmp_path / "run")
    (tmp_path / "hyp.yaml").unlink()
    again = settings.from_json((tmp_path / "run" / "config.json").read_text())
    assert again["optim"]["learning_rate"] == 0.03
    assert again["hyp"] == ""


def test_a_header_with_symbols_and_numbers_without_a_point_are_read(file):
    text = "# YOLOv5 \U0001f680 file\nlr0: 1e-3  # rate\nmomentum: .9\n"
    values = hyperparameters.read_hyperparameters(file(text))
    assert values == {"lr0": 0.001, "momentum": 0.9}


def test_anchors_must_be_as_many_as_the_model_has(file):
    model = {"name": "yolov5n", "num_classes": 2}
    for count in (3, 0, 3.412):
        complete(file({"anchors": count}), model=model)
    # Which model it is, is not known yet.
    complete(file({"anchors": 5}))
    with pytest.raises(ValueError, match="anchors is 5, but yolov5n has 3 anchors on"):
        complete(file({"anchors": 5}), model=model)
    anchors = (((1, 2), (3, 4)),) * 3
    complete(file({"anchors": 2}), model=model | {"anchors": anchors})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "expected keys and numbers .*, got None"),
        ("- 1", "expected keys and numbers"),
        ("lr0: [", "line 1: no readable YAML"),
        ("a: &a 1\nb: *a", "aliases .* are not read"),
        ({"lr": 1, "warmup_epoch": 3}, "2 unknown keys: 'lr'. Did you mean 'lrf'"),
        ({"lr": 1, "warmup_epoch": 3}, "'warmup_epoch'. Did you mean 'warmup_epochs'"),
        ({"lr0": "fast"}, "lr0 must be a number, at least 0, not 'fast'"),
        ({"lr0": True}, "lr0 must be a number, at least 0, not True"),
        ({"lr0": None}, "lr0 must be a number, at least 0, not None"),
        ({"lr0": [1, 2]}, r"lr0 must be a number, at least 0, not \[1, 2\]"),
        ({"lr0": -0.1}, "lr0 must be a number, at least 0, not -0.1"),
        ({"momentum": 1.5}, "momentum must be a number, 0 to 1, not 1.5"),
        ({"hsv_h": 2}, "hsv_h must be a number, 0 to 1, not 2"),
        ({"anchor_t": 0.5}, "anchor_t must be a number, at least 1, not 0.5"),
        ({"degrees": float("nan")}, "degrees must be a number, 0 to 180, not nan"),
        ({"box": float("inf")}, "box must be a number, at least 0, not inf"),
        ({"perspective": 0.1}, "perspective must be a number, 0 to 0.01, not 0.1"),
    ],
    ids=str,
)
def test_a_wrong_file_is_named_with_its_keys(content, message, file):
    path = file(content)
    with pytest.raises(ValueError, match=message) as caught:
        complete(path)
    assert str(caught.value).startswith(f"config.hyp {path}")


def test_a_missing_file_is_named():
    with pytest.raises(ValueError, match="config.hyp nowhere.yaml: .*No such file"):
        complete("nowhere.yaml")


@pytest.mark.parametrize("key", ["mixup", "copy_paste"])
def test_what_there_is_not_yet_must_be_zero(key, file, monkeypatch):
    table = {"mosaic": None}
    monkeypatch.setattr(hyperparameters, "AUGMENTATIONS", table)
    message = f"{key} is 0.1, but there is no {key} here yet; set {key} to 0"
    with pytest.raises(ValueError, match=message):
        complete(file({key: 0.1}))
    assert complete(file({key: 0.0}))["augment"]["policy"] == ()
    table[key] = None
    (entry,) = complete(file({key: 0.1}))["augment"]["policy"]
    assert entry["name"] == key
    assert np.isclose(entry.get("probability", entry.get("share")), 0.1)


def test_targets_are_keys_that_exist():
    for key, value in hyperparameters.VALUES.items():
        *parents, last = value.target.split(".")
        if not value.target or parents[0] == "augment":
            continue
        node = settings.DEFAULTS
        for parent in parents:
            node = node[parent]
        assert last in node or parents == ["loss", "arguments"], key
