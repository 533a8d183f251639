"""Detectors with classifiers as their backbones."""

import functools

import jax
import numpy as np
import pytest

from yolojax.models.classifiers import CLASSIFIERS, build_classifier
from yolojax.models.detector import build_model
from yolojax.trees import flatten
from yolojax.weights.mapping import layer_numbers

# Their windows are not all padded, or their maps end before stride 32.
NO_BACKBONES = ("alexnet", "cnn5", "squeezenet")


def build(backbone, **changes):
    return build_model(
        "yolo", **{"backbone": backbone, "num_classes": 4, "width": 0.125} | changes
    )


def shapes_of(tree, prefix):
    leaves = flatten(tree)
    return {path: leaves[path].shape for path in leaves if prefix in path}


@pytest.mark.slow
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_any_classifier_is_a_backbone_or_says_why_not(name):
    if name.startswith(NO_BACKBONES):
        with pytest.raises(ValueError, match=f"{name} cannot be a detector's backbone"):
            build(name)
        return
    check_detector(name)


def check_detector(name):
    model = build(name)
    shapes = model.shapes()
    classifier = build_classifier(name, num_classes=2).shapes()
    # So that a classifier's weights fit.
    assert shapes_of(shapes, "/backbone/") == shapes_of(classifier, "/backbone/")
    run = functools.partial(model.apply, train=False)
    images = jax.ShapeDtypeStruct((2, 64, 96, 3), "float32")
    maps, _ = jax.eval_shape(run, shapes, images)
    assert [x.shape for x in maps] == [
        (2, 8, 12, 3, 9),
        (2, 4, 6, 3, 9),
        (2, 2, 3, 3, 9),
    ]
    assert [stride for _, stride in model.feature_info] == [8, 16, 32]


def test_the_maps_of_a_residual_network_become_those_of_a_detector():
    check_detector("resnet18")


def test_the_neck_is_that_of_a_yolov5_of_the_same_width_and_depth():
    ours = build("resnet18", width=0.25, depth=0.67).shapes()
    theirs = build_model("yolov5n", num_classes=4, width=0.25, depth=0.67).shapes()
    ours, theirs = (
        shapes_of(s, "/neck/") | shapes_of(s, "/head/") for s in (ours, theirs)
    )
    # What the neck gets from the backbone: 512, 256 and 128 channels, where it is 256,
    # 128 and 64 there.
    other = {p: (ours[p], theirs[p]) for p in theirs if ours[p] != theirs[p]}
    assert ours.keys() == theirs.keys()
    assert other == {
        "params/neck/lateral5/conv/kernel": ((512, 128), (256, 128)),
        "params/neck/top_down4/main/conv/kernel": ((384, 64), (256, 64)),
        "params/neck/top_down4/bypass/conv/kernel": ((384, 64), (256, 64)),
        "params/neck/top_down3/main/conv/kernel": ((192, 32), (128, 32)),
        "params/neck/top_down3/bypass/conv/kernel": ((192, 32), (128, 32)),
    }


def test_layers_count_in_the_order_of_their_calls():
    numbers = layer_numbers(build("resnet18"))
    assert list(numbers) == [
        *("backbone/stem", *(f"backbone/stage{level}" for level in (2, 3, 4, 5))),
        *("neck/lateral5", "neck/top_down4", "neck/lateral4", "neck/top_down3"),
        *("neck/down4", "neck/bottom_up4", "neck/down5", "neck/bottom_up5"),
        *("head/level3", "head/level4", "head/level5"),
    ]
    assert list(numbers.values()) == list(range(16))
    classifier = build_classifier("vgg11", num_classes=2)
    assert list(layer_numbers(classifier)) == [
        *(f"backbone/stage{level}" for level in range(5)),
        *("head/dense0", "head/dense1", "head/linear"),
    ]


def test_arguments_of_the_backbone_reach_it():
    narrow = {"width": 0.125, "stem": "deep", "zero_init": True}
    model = build("resnet18", backbone_arguments=narrow)
    assert model.feature_info == ((16, 8), (32, 16), (64, 32))
    variables = model.init(0)
    params = flatten(variables["params"])
    assert params["backbone/stem/unit2/conv/kernel"].shape == (3, 3, 4, 8)
    zeros = {path for path, leaf in params.items() if not np.any(leaf)}
    last = {f"stage{s}/block{b}/second" for s in (2, 3, 4, 5) for b in (0, 1)}
    assert {f"backbone/{name}/norm/scale" for name in last} <= zeros
    # Biases are the rest, with the head's prior of objectness.
    assert all(path.endswith(("norm/scale", "norm/bias")) for path in zeros)
    bias = params["head/level4/bias"].reshape(3, 9)
    expected = np.log(8 / (640 / 16) ** 2)
    np.testing.assert_allclose(bias[:, 4], expected, atol=0.2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone": ""}, "model 'yolo' needs backbone, the name of a classifier"),
        (
            {"backbone": "resnet5"},
            "no backbone named 'resnet5'. Did you mean 'resnet50'",
        ),
        ({"width": -1.0}, "width of yolo is -1.0; it must be above 0"),
        ({"depth": "1"}, "'yolo': depth must be a number, not '1'"),
        ({"anchors": ()}, "anchors of yolo must be 3 levels"),
        (
            {"backbone_arguments": {"widht": 1}},
            "backbone_arguments of yolo has no argument 'widht'. Did you mean 'width'",
        ),
        (
            {"backbone_arguments": {"num_classes": 1}},
            "backbone_arguments of yolo has num_classes, which is an argument of yolo",
        ),
        (
            {"backbone_arguments": {"stem": "deeep"}},
            "no stem of resnet18 named 'deeep'. Did you mean 'deep'",
        ),
        (
            {"backbone": "alexnet"},
            "alexnet cannot be a detector's backbone: of 64 px its map of stride 8 has "
            "7 rows, not 8",
        ),
    ],
)
def test_what_does_not_fit_is_named(changes, message):
    with pytest.raises(ValueError, match=message):
        build(**{"backbone": "resnet18"} | changes)
