"""Classifiers, and detectors on them, start from classifiers' weights."""

import numpy as np
import pytest

from yolojax import class_file, settings
from yolojax.engine import checkpoint
from yolojax.engine.warm_start import first_variables
from yolojax.models.classifiers import build_classifier
from yolojax.models.detector import build_model
from yolojax.trees import flatten
from yolojax.weights.published import write_published

NARROW = {"width": 0.125}


def equal(one, two, prefix):
    """Whether all arrays below a prefix, and some, are the same."""
    one, two = flatten(one), flatten(two)
    paths = [path for path in one if prefix in path]
    assert paths
    return all(np.array_equal(one[path], two[path]) for path in paths)


@pytest.fixture(scope="module")
def source():
    arguments = {"name": "resnet18", "num_classes": 7, **NARROW}
    model = build_classifier(**arguments)
    return arguments, model, model.init(5)


def test_a_detector_takes_the_backbone_of_a_classifier_from_a_file(source, tmp_path):
    arguments, model, trained = source
    path = tmp_path / "w.safetensors"
    write_published(path, model, trained, "abcdefg", {"model": arguments})
    detector = build_model(
        "yolo",
        backbone="resnet18",
        backbone_arguments=NARROW,
        width=0.125,
        num_classes=2,
    )
    start = first_variables(detector, seed=1, weights=str(path))
    assert equal(start.variables, trained, "/backbone/")
    fresh = detector.init(1)
    assert equal(start.variables, fresh, "/neck/")
    assert equal(start.variables, fresh, "/head/")
    count = sum("/backbone/" in p for p in flatten(trained))
    assert f"(resnet18): {count} of " in start.notes[0]
    assert start.notes[1].startswith("neck and head are fresh: the weights are those")
    other = build_model("yolo", backbone="resnet18", width=0.125, num_classes=2)
    with pytest.raises(ValueError, match="do not fit yolo with 2 classes"):
        first_variables(other, seed=1, weights=str(path))


@pytest.mark.slow
def test_a_classifier_of_other_classes_keeps_all_but_its_last_layer(source, tmp_path):
    arguments, model, trained = source
    settings.write_config(settings.complete({"model": arguments}), tmp_path)
    class_file.write_classes("abcdefg", range(7), tmp_path)
    checkpoint.save_weights(tmp_path, trained)
    target = build_classifier("resnet18", num_classes=3, **NARROW)
    start = first_variables(target, seed=1, weights=str(tmp_path))
    assert equal(start.variables, trained, "/backbone/")
    assert equal(start.variables, target.init(1), "/head/")
    assert start.notes[1] == (
        "the last layer is made anew: 7 classes in the weights, 3 here"
    )
    same = first_variables(model, seed=1, weights=str(tmp_path))
    assert equal(same.variables, trained, "/")


def test_hidden_layers_of_a_head_are_kept(tmp_path):
    one = build_classifier("cnn5", num_classes=4)
    trained = one.init(3)
    path = tmp_path / "w.safetensors"
    arguments = {"name": "cnn5", "num_classes": 4}
    write_published(path, one, trained, "abcd", {"model": arguments})
    two = build_classifier("cnn5", num_classes=9)
    start = first_variables(two, seed=0, weights=str(path))
    assert equal(start.variables, trained, "/head/dense0/")
    assert equal(start.variables, two.init(0), "/head/linear/")
