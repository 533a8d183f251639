import functools

import jax
import pytest

from tests.painting import noisy
from yolojax.augment.policy import AUGMENTATIONS, make_augment
from yolojax.augment.presets import PRESETS, randaugment, yolov5
from yolojax.augment.reading import expand


@pytest.mark.parametrize(
    "name, scale, mixup, copy_paste",
    [
        ("yolov5_low", 0.5, None, None),
        ("yolov5_medium", 0.9, 0.1, None),
        ("yolov5_high", 0.9, 0.1, 0.1),
    ],
)
def test_published_hyper_parameters(name, scale, mixup, copy_paste):
    entries = {entry.pop("name"): entry for entry in expand(name, PRESETS)}
    assert entries.pop("hsv") == dict(hue=0.015, saturation=0.7, value=0.4)
    assert entries.pop("affine") == dict(
        scale=scale, translate=0.1, degrees=0.0, shear=0.0, perspective=0.0
    )
    assert entries.pop("mosaic") == dict(probability=1.0)
    assert entries.pop("flip_left_right") == dict(probability=0.5)
    assert entries.pop("mixup", {}).get("probability") == mixup
    assert entries.pop("copy_paste", {}).get("share") == copy_paste
    assert not entries


def test_published_names_reach_every_augmentation():
    entries = yolov5(degrees=1, flipud=0.2, fliplr=0, hsv_h=0.1, mosaic=0, mixup=0.3)
    names = {entry["name"]: entry for entry in entries}
    assert set(names) == {"affine", "flip_up_down", "hsv", "mixup"}
    assert names["affine"]["degrees"] == 1
    assert names["hsv"]["hue"] == 0.1
    assert names["flip_up_down"]["probability"] == 0.2
    still = dict(scale=0, translate=0, hsv_h=0, hsv_s=0, hsv_v=0, mosaic=0, fliplr=0)
    assert yolov5(**still) == ()


@pytest.mark.parametrize("name", ["randaugment", "trivialaugment"])
def test_fourteen_changes_to_choose_from(name):
    *_, choice = expand(name, PRESETS)
    assert choice["name"] == "choice"
    assert len({entry["name"] for entry in choice["of"]}) == 14
    assert choice["count"] == (2 if name == "randaugment" else 1)


def test_the_largest_magnitude_of_randaugment():
    *_, choice = randaugment(num=3, magnitude=10)
    entries = {entry["name"]: entry for entry in choice["of"]}
    assert choice["count"] == 3
    assert entries["rotate"]["degrees"] == 30
    assert entries["solarise"]["threshold"] == (0, 256)
    assert entries["posterise"]["bits"] == (4, 8)
    assert entries["contrast"]["factor"] == pytest.approx((0.1, 1.9))
    with pytest.raises(ValueError, match="magnitude is 30, expected 0 to 20"):
        randaugment(magnitude=30)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_a_policy(name):
    augment = make_augment(name, image_size=(32, 32), max_boxes=4)
    out, _ = jax.eval_shape(
        functools.partial(augment, mosaic_on=True), jax.random.key(0), noisy()
    )
    assert out.image.shape == (8, 32, 32, 3)
    assert all(
        e["name"] in {**AUGMENTATIONS, "choice": 0} for e in expand(name, PRESETS)
    )
