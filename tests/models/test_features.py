"""Features of named layers: what is captured is what the network computes with."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from yolojax.models import features
from yolojax.models.classifier import BackboneAndHead, Classifier, LinearHead
from yolojax.models.cnn import Blocks
from yolojax.models.detector import build_model

CHANNELS = (4, 6)


@pytest.fixture(scope="module")
def classifier():
    """Two blocks and a linear layer, on pictures of 4 px and more."""
    backbone = Blocks(CHANNELS)
    return Classifier(
        name="two-blocks",
        family="cnn",
        num_classes=3,
        max_stride=1,
        feature_info=((4, 2), (6, 4)),
        dtype="float32",
        spec=None,
        module=BackboneAndHead(backbone, LinearHead(3, dropout=0.5)),
        normalise=lambda images: 2 * images - 1,
        backbone=backbone,
        smallest=4,
    )


@pytest.fixture(scope="module")
def detector():
    return build_model("yolov5n", num_classes=2, width=0.0625, depth=0.33)


def test_the_default_layer_is_what_the_last_linear_layer_sees(classifier):
    assert features.default_layer(classifier) == "head/linear:input"
    variables = classifier.init(0)
    images = jax.random.uniform(jax.random.key(0), (2, 8, 8, 3))
    found = features.layer_features(classifier, variables, images, "head/linear:input")
    assert found.shape == (2, 6) and found.dtype == jnp.float32
    linear = variables["params"]["head"]["linear"]
    (logits,), _ = classifier.apply(variables, images, train=False)
    expected = np.asarray(found) @ linear["kernel"] + linear["bias"]
    np.testing.assert_allclose(expected, logits, atol=1e-6)
    # The head takes the mean of the last map, as is done with any map.
    whole = features.layer_features(classifier, variables, images, "backbone")
    np.testing.assert_allclose(whole, found, atol=1e-6)
    direct = features.layer_features(classifier, variables, images, "head/linear")
    np.testing.assert_allclose(direct, logits, atol=1e-6)


def test_a_layers_input_is_what_the_network_is_given(classifier):
    images = jax.random.uniform(jax.random.key(1), (2, 8, 8, 3))
    name = "backbone/block0/conv:input"
    found = features.layer_features(classifier, classifier.init(0), images, name)
    np.testing.assert_allclose(found, 2 * images.mean((1, 2)) - 1, atol=1e-6)


def test_names_come_in_the_order_of_the_calls(classifier):
    assert features.layer_names(classifier) == (
        "backbone",
        *(
            f"backbone/block{i}{part}"
            for i in range(2)
            for part in ("", "/conv", "/norm")
        ),
        "head",
        "head/dropout",
        "head/linear",
    )


def test_detectors_have_features_of_maps(detector):
    assert features.default_layer(detector) == "head/level5:input"
    images = jax.ShapeDtypeStruct((2, 64, 64, 3), "float32")
    shape = jax.eval_shape(
        lambda v, x: features.layer_features(detector, v, x, "head/level5:input"),
        detector.shapes(),
        images,
    )
    channels, _ = detector.feature_info[-1]
    assert (shape.shape, shape.dtype) == ((2, channels), jnp.float32)


@pytest.mark.parametrize(
    "name, message",
    [
        ("backbone/blok1", "Did you mean 'backbone/block1'.*Choices: backbone, "),
        ("head/linear:output", "no layer named 'head/linear:output'"),
        ("", "two-blocks has no layer named ''"),
    ],
)
def test_an_unknown_layer_is_refused(classifier, name, message):
    images = jnp.zeros((1, 8, 8, 3))
    with pytest.raises(ValueError, match=message):
        features.layer_features(classifier, classifier.shapes(), images, name)


def test_of_many_names_the_outer_ones_are_listed(detector):
    with pytest.raises(ValueError, match=r"neck/lateral5.*in all, with those inside"):
        features.check_layer(detector, "backbone/none")
