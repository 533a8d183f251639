"""Which losses go with which networks and data."""

import pytest

from yolojax import objectives, settings
from yolojax.models.classifiers import build_classifier
from yolojax.models.detector import build_model


class Data:
    """A source, as far as its kind goes."""


class Classes(Data):
    multi_label = False


class Tags(Data):
    multi_label = True


CLASSIFIER = build_classifier("cnn5", num_classes=3)
DETECTOR = build_model("yolov5n", num_classes=3)


def chosen(**loss):
    return settings.complete({"loss": {"name": "cross_entropy"} | loss})


@pytest.mark.parametrize("name", objectives.LABEL_LOSSES)
def test_every_loss_of_labels_can_be_made(name):
    assert callable(objectives.make_loss(chosen(name=name), CLASSIFIER))


def test_class_weights_and_smoothing_reach_the_loss():
    loss = objectives.make_loss(
        chosen(class_weights=(1.0, 2.0, 3.0), label_smoothing=0.1), CLASSIFIER
    )
    assert loss.keywords["class_weights"] == (1.0, 2.0, 3.0)
    assert loss.keywords["label_smoothing"] == 0.1
    balanced = objectives.make_loss(
        chosen(class_weights="balanced"), CLASSIFIER, [1, 2, 3]
    )
    assert balanced.keywords["class_weights"] == pytest.approx((2, 1, 2 / 3))


@pytest.mark.parametrize(
    "loss, model, message",
    [
        ({"name": "yolov5"}, CLASSIFIER, "not for the classifier cnn5. Choices: cross"),
        ({}, DETECTOR, "not for the detector yolov5n. Choices: yolov3"),
        ({"name": "cross_entrpy"}, CLASSIFIER, "Did you mean 'cross_entropy'"),
        ({"parts": {"box": {"name": "siou"}}}, CLASSIFIER, "parts is for detectors"),
        ({"arguments": {"margin": 2.0}}, CLASSIFIER, "has no 'margin'"),
        ({"arguments": {"auxilary": 1}}, CLASSIFIER, "Did you mean 'auxiliary'"),
        ({"arguments": {"auxiliary": -1}}, CLASSIFIER, "a number of at least 0"),
        ({"name": "hinge", "label_smoothing": 0.1}, CLASSIFIER, "no targets to smooth"),
        ({"class_weights": (1.0,)}, CLASSIFIER, "there are 3 classes"),
    ],
)
def test_what_does_not_go_together_is_refused(loss, model, message):
    with pytest.raises(ValueError, match=message):
        objectives.make_loss(chosen(**loss), model)


@pytest.mark.parametrize(
    "loss, model, source, message",
    [
        ("cross_entropy", CLASSIFIER, Data(), "is a classifier, but .*val has boxes"),
        ("yolov5", DETECTOR, Classes(), "is a detector, but .* classes of whole"),
        ("cross_entropy", CLASSIFIER, Tags(), "several labels .* Choices: multi_label"),
        ("multi_label", CLASSIFIER, Classes(), "one label .* Choices: cross_entropy"),
    ],
)
def test_data_of_another_kind_are_refused(loss, model, source, message):
    with pytest.raises(ValueError, match=message):
        objectives.check_kinds(chosen(name=loss), model, train=None, val=source)


def test_data_of_the_same_kind_pass():
    objectives.check_kinds(chosen(), CLASSIFIER, train=Classes(), val=None)
    objectives.check_kinds(chosen(name="multi_label"), CLASSIFIER, train=Tags())
    objectives.check_kinds(chosen(name="yolov5"), DETECTOR, train=Data())
