"""Class names that a mirror makes wrong."""

import runpy
from pathlib import Path

import pytest

from yolojax.augment.mirrored import mirror_note

FLIP = (dict(name="flip_left_right", probability=0.5),)
UPSIDE = (dict(name="flip_up_down", probability=0.5),)
DIGITS = tuple("0123456789")


@pytest.mark.parametrize(
    "names, swap",
    [
        (("car", "left arrow", "right arrow"), "((1, 2),)"),
        (("turn_right", "turn_left"), "((0, 1),)"),
        (("Left-Hand", "Right-Hand", "LEFT", "RIGHT"), "((0, 1), (2, 3))"),
        (("turnLeft", "turnRight"), "((0, 1),)"),
        (("turnleft", "turnright"), "((0, 1),)"),
        (("hand_l", "hand_r"), "((0, 1),)"),
        (("Pfeil rechts", "Pfeil links"), "((0, 1),)"),
        (("左转", "右转"), "((0, 1),)"),
    ],
)
def test_pairs_that_a_mirror_exchanges_are_named_with_their_swap(names, swap):
    note = mirror_note(FLIP, names)
    assert f"set swap={swap} in its entry, or leave flip_left_right out" in note
    assert "\n" not in note and note.startswith("config.augment.policy: ")
    assert mirror_note(UPSIDE, names) == ""


@pytest.mark.parametrize(
    "names",
    [
        ("cat", "dog"),
        ("linkslinks", "copyright", "bright", "cleft"),
        ("chain links", "golf links"),
        ("up", "pick up"),
        ("shirt l", "shirt m"),
        ("x",),
        tuple(map(str, range(12))),  # numbers, of which 0 to 9 are the first
        ("sad", "happy", "7 up"),
        (),
    ],
)
def test_other_names_give_no_note(names):
    assert mirror_note(FLIP + UPSIDE, names) == ""


def test_a_side_without_its_counterpart_can_only_go_without_the_mirror():
    note = mirror_note(FLIP, ("left arrow", "car"))
    assert "flip_left_right mirrors 'left arrow', which" in note
    assert "leave flip_left_right out (probability 0)" in note


def test_up_and_down_go_with_the_other_mirror():
    names = ("thumbs_up", "thumbs_down", "top", "bottom")
    assert "swap=((0, 1), (2, 3))" in mirror_note(UPSIDE, names)
    assert mirror_note(FLIP, names) == ""


@pytest.mark.parametrize("names", [DIGITS, ("A", "B", "plate"), ("b", "d", "p", "q")])
@pytest.mark.parametrize("policy", [FLIP, UPSIDE])
def test_characters_are_named_whichever_the_mirror(names, policy):
    note = mirror_note(policy, names)
    assert f"{names[0]!r}, {names[1]!r}" in note and "plate" not in note
    assert "(probability 0), or set swap in its entry" in note


def test_both_mirrors_are_in_one_note():
    note = mirror_note(FLIP + UPSIDE, DIGITS)
    assert note.count("config.augment.policy") == 1
    assert "flip_left_right mirrors '0'" in note and "flip_up_down mirrors '0'" in note


@pytest.mark.parametrize(
    "policy, expected",
    [
        ((), False),
        ((dict(name="flip_left_right", probability=0.0),), False),
        ((dict(name="flip_left_right", probability=(0.0, 0.5)),), True),
        (("flip_left_right",), True),
        ("yolov5_low", True),
        ((dict(name="yolov5_low", fliplr=0.0),), False),
        (("yolov5_low", dict(name="flip_left_right", probability=0.0)), False),
        ((dict(name="yolov5_low", fliplr=0.0, flipud=0.1),), False),
        ("randaugment", True),
        ((dict(name="choice", count=1, of=("identity", "flip_left_right")),), True),
        ((dict(name="quarter_turn"),), False),
    ],
)
def test_a_mirror_counts_wherever_the_policy_has_it(policy, expected):
    note = mirror_note(policy, ("left", "right"))
    assert bool(note) is expected


def test_what_swap_exchanges_needs_no_note():
    names = ("left", "right", "left up", "right up")
    entry = dict(name="flip_left_right", swap=((0, 1), (2, 3)))
    assert mirror_note((entry,), names) == ""
    part = dict(name="flip_left_right", swap=((0, 1),))
    assert "set swap=((0, 1), (2, 3)) in its entry" in mirror_note((part,), names)
    given = dict(name="flip_up_down", swap=((6, 9),))
    assert mirror_note((given,), DIGITS) == ""


@pytest.mark.parametrize("name", ["quickstart", "digits_classifier"])
def test_the_digits_of_the_quick_start_are_not_mirrored(name):
    path = Path(__file__).parents[2] / "configs" / f"{name}.py"
    config = runpy.run_path(str(path))["get_config"]("")
    assert mirror_note(config.augment.policy, DIGITS) == ""
