import pytest

from yolojax import lookup


def test_pick_names_the_nearest_choice():
    with pytest.raises(ValueError, match="Did you mean 'resnet50'.*Choices: resnet50"):
        lookup.pick({"resnet50": 1, "yolov5s": 2}, "resnet5", "model")


def test_initials_are_a_name_to_be_hinted_at():
    keys = ("learning_rate", "final_ratio", "name")
    assert lookup.hint("lr", keys) == " Did you mean 'learning_rate'?"
    assert lookup.hint("xy", keys) == lookup.hint("n", keys) == ""


def test_pick_gives_the_entry():
    assert lookup.pick({"a": 1}, "a", "thing") == 1


def test_unknown_argument_is_named_with_the_choices():
    def component(*, width, depth=1):
        return width, depth

    with pytest.raises(ValueError, match="config.x has no argument 'wdth'.*'width'"):
        lookup.check_arguments(component, {"wdth": 1}, "config.x")
    with pytest.raises(ValueError, match="config.x needs width"):
        lookup.check_arguments(component, {"depth": 1}, "config.x")
    lookup.check_arguments(component, {"width": 1}, "config.x")
