"""Inception v1 and v3, their auxiliary heads, and SqueezeNet's maps."""

import functools

import jax
import jax.numpy as jnp
import pytest

from yolojax.models.classifiers import build_classifier


def images(*size):
    return jax.ShapeDtypeStruct((2, *size, 3), jnp.float32)


@pytest.mark.parametrize(
    "name, heads",
    [("googlenet", 2), pytest.param("inception_v3", 1, marks=pytest.mark.slow)],
)
def test_auxiliary_heads_speak_after_the_main_one_in_training(name, heads):
    model = build_classifier(name, num_classes=5, width=0.1)
    shapes = model.shapes()
    assert shapes["params"].keys() == {"backbone", "head", "auxiliary"}
    size = images(model.smallest, model.smallest + 1)
    run = functools.partial(model.apply, train=True)
    logits, _ = jax.eval_shape(run, shapes, size)
    assert [row.shape for row in logits] == [(2, 5)] * (1 + heads)
    without = build_classifier(name, num_classes=5, width=0.1, auxiliary=False)
    params = without.shapes()["params"]
    assert params == {key: shapes["params"][key] for key in ("backbone", "head")}


def test_whether_there_are_auxiliary_heads_is_true_or_false():
    for name in ("googlenet", "inception_v3"):
        with pytest.raises(ValueError, match=f"{name}': auxiliary must be True or"):
            build_classifier(name, num_classes=2, auxiliary="no")
    with pytest.raises(ValueError, match="has no argument 'drop_path'"):
        build_classifier("googlenet", num_classes=2, drop_path=0.1)


def sizes(backbone, *size):
    def run(images):
        return backbone.init_with_output(jax.random.key(0), images, train=False)[0]

    return [x.shape[1:3] for x in jax.eval_shape(run, images(*size))]


@pytest.mark.parametrize(
    "name, size, published",
    [
        # The sides in the papers' tables.
        ("googlenet", 224, [56, 28, 14, 7]),
        ("inception_v3", 299, [71, 35, 17, 8]),
        # (224 - 7) / 2 + 1 = 109.5, then windows of 3 that the border cuts count.
        ("squeezenet1_0", 224, [54, 27, 13]),
        ("squeezenet1_1", 224, [55, 27, 13]),
    ],
)
def test_maps_have_the_published_sizes(name, size, published):
    backbone = build_classifier(name, num_classes=2, width=0.1).module.backbone
    found = sizes(backbone, size, size)[: len(published)]
    assert found == [(side, side) for side in published]


@pytest.mark.parametrize("name", ["googlenet", "inception_v3", "squeezenet1_0"])
def test_maps_of_a_detector_are_as_large_as_their_strides_say(name):
    model = build_classifier(name, num_classes=2, width=0.1)
    strides = [stride for _, stride in model.feature_info]
    assert sizes(model.backbone, 64, 96) == [(64 // s, 96 // s) for s in strides]
