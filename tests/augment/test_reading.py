import jax
import numpy as np
import pytest

from tests.painting import make_batch
from yolojax.augment.policy import AUGMENTATIONS, make_augment
from yolojax.augment.presets import PRESETS
from yolojax.augment.reading import expand, read_policy, swapped_classes

FLIPS = (dict(name="flip_left_right"), dict(name="flip_up_down"))


def applied(policy, num=10_000, progress=0.0):
    """Which entries change which of `num` samples, by name."""
    plan = read_policy(policy, AUGMENTATIONS, PRESETS)
    draws = jax.random.uniform(jax.random.key(0), (num, plan.num_draws))
    result = jax.jit(plan.applied)(draws, progress)
    names = [entry.name for entry in plan.entries]
    return {n: np.asarray(a) for n, (a, _) in zip(names, result, strict=True)}


def test_entries_come_in_the_order_of_the_table():
    policy = (dict(name="hsv"), "yolov5_medium", dict(name="quarter_turn"))
    names = [e.name for e in read_policy(policy[1:], AUGMENTATIONS, PRESETS).entries]
    assert names == sorted(names, key=list(AUGMENTATIONS).index)
    assert {"mosaic", "mixup", "quarter_turn"} <= set(names)
    with pytest.raises(ValueError, match="entry 4: 'hsv' is there twice"):
        read_policy(policy, AUGMENTATIONS, PRESETS)


def test_an_entry_replaces_that_of_a_preset_before_it():
    policy = (dict(name="yolov5_high", degrees=10), dict(name="hsv", hue=0.5))
    entries = expand(policy, PRESETS)
    assert [e for e in entries if e["name"] == "hsv"] == [dict(name="hsv", hue=0.5)]
    (affine,) = (e for e in entries if e["name"] == "affine")
    assert affine["degrees"] == 10


def test_a_probability_goes_from_its_start_to_its_end():
    policy = (dict(name="flip_left_right", probability=(0.8, 0.2)),)
    for progress, share in ((0.0, 0.8), (0.5, 0.5), (1.0, 0.2)):
        flipped = applied(policy, progress=progress)["flip_left_right"]
        assert abs(flipped.mean() - share) < 0.02


def test_a_schedule_works_in_the_whole():
    policy = (dict(name="flip_left_right", probability=(0.0, 1.0)),)
    augment = jax.jit(make_augment(policy, image_size=(2, 2), max_boxes=1))
    image = np.zeros((4, 2, 2, 3), np.uint8)
    image[:, :, 0] = 255
    batch = make_batch(image, np.full((4, 2), 2), np.zeros((4, 0, 4)))
    for progress in (0.0, 1.0):
        out, _ = augment(
            jax.random.key(0), batch, mosaic_on=True, progress=np.float32(progress)
        )
        np.testing.assert_array_equal(out.image[:, 0, 1, 0], progress)


def test_a_choice_takes_so_many_of_its_entries_each_equally_often():
    of = ("identity", *FLIPS, dict(name="rotate"), dict(name="hsv"))
    policy = (dict(name="choice", count=2, of=of), dict(name="affine", probability=0.3))
    taken = applied(policy)
    assert abs(taken.pop("affine").mean() - 0.3) < 0.02
    rows = np.stack(list(taken.values()))
    np.testing.assert_array_equal(rows.sum(0), 2)
    np.testing.assert_allclose(rows.mean(1), 0.4, atol=0.02)
    together = rows.astype(float) @ rows.T / rows.shape[1]
    np.testing.assert_allclose(together[~np.eye(5, dtype=bool)], 0.1, atol=0.015)


def test_a_choice_has_a_probability():
    policy = (
        dict(name="choice", of=FLIPS, probability=(0.5, 0.0)),
        dict(name="choice", of=("hsv", "rotate")),
    )
    taken = applied(policy)
    flipped = taken["flip_left_right"].astype(int) + taken["flip_up_down"]
    assert flipped.max() == 1
    assert abs(flipped.mean() - 0.5) < 0.02
    assert (taken["hsv"] ^ taken["rotate"]).all()
    # The choices do not know of each other.
    assert abs(np.corrcoef(flipped, taken["hsv"])[0, 1]) < 0.04


def test_classes_of_mirrors_are_found():
    swap = dict(name="flip_left_right", swap=((0, 1), (5, 2)))
    assert swapped_classes((dict(name="hsv"), swap)) == [(0, 1), (5, 2)]
    assert swapped_classes((dict(name="choice", of=(swap, "hsv")),)) == [(0, 1), (5, 2)]
    assert swapped_classes("yolov5_low") == []


@pytest.mark.parametrize(
    "policy, message",
    [
        ("yolo5_low", "named 'yolo5_low'. Did you mean 'yolov5_low'"),
        (
            (dict(name="yolov5_low", hue=1),),
            "'yolov5_low' has no argument 'hue'",
        ),
        ((dict(name="yolov5_low", scale=2),), "affine: scale is 2, expected 0 to 0.99"),
        ((dict(name="hsv", probability=(0.1, 2)),), "'hsv' is .*for the start and the"),
        ((dict(name="hsv", probability=(0, 1, 0)),), r"'hsv' is \(0, 1, 0\), expected"),
        ((dict(name="hsv", probability="1"),), "'hsv' is 1, expected 0 to 1"),
        (
            ("yolov5_low", "random_resized_crop"),
            "'random_resized_crop' changes how a picture that is shown alone is cut, "
            "but 'mosaic' with probability 1 shows none alone",
        ),
        ((dict(name="choice", of=FLIPS, count=3),), "a choice of 3 out of 2 entries"),
        ((dict(name="choice"),), "a choice of 1 out of 0 entries"),
        ((dict(name="choice", of=FLIPS, counts=1),), "choice has no argument 'counts'"),
        (
            (dict(name="choice", of=(dict(name="hsv", probability=0.5),)),),
            "an entry of a choice is an augmentation without a probability of its own",
        ),
        ((dict(name="choice", of=("hsv",)), "hsv"), "entry 1: 'hsv' is there twice"),
        ((dict(name="choice", of=("yolov5_low",)),), "no augmentation named 'yolov5"),
    ],
)
def test_what_cannot_be_composed_says_why(policy, message):
    with pytest.raises(ValueError, match=message):
        read_policy(policy, AUGMENTATIONS, PRESETS)
