"""Other box, class and objectness losses in the losses of the detectors."""

import copy
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.losses.test_loss_detection import (
    ANCHORS,
    BALANCE,
    STRIDES,
    assert_same,
    listed_pairs,
    random_inputs,
    value_and_gradient,
)
from tests.losses.test_losses_darknet import BOTH, V3, V4, crowded_inputs, jit_loss
from yolojax import objectives, settings
from yolojax.losses.boxes import predicted_boxes
from yolojax.losses.detection import yolov5_loss
from yolojax.losses.table import BINARY_LOSSES, BOX_LOSSES, PartLosses, read_parts
from yolojax.losses.weights import balanced_weights
from yolojax.models.detector import build_model
from yolojax.ops.boxes import centres_to_corners
from yolojax.ops.iou import paired_ciou

COMBINATIONS = {
    "siou-varifocal-focal": {
        "box": {"name": "siou"},
        "classes": {"name": "varifocal", "alpha": 0.5, "quality": True},
        "objectness": {"name": "focal", "gamma": 1.5},
    },
    "l1-poly-quality": {
        "box": {"name": "l1"},
        "classes": {"name": "poly", "epsilon": 2.0},
        "objectness": {"name": "quality_focal"},
    },
}
# Of the slow ones, each part once with everything.
ALL = [
    {"box": {"name": box}, "classes": {"name": other}, "objectness": {"name": other}}
    for box, other in zip(
        BOX_LOSSES, [*BINARY_LOSSES, *list(BINARY_LOSSES)[:2]], strict=True
    )
]


def chosen(**changes):
    """`config.loss` with changes."""
    return {**copy.deepcopy(settings.DEFAULTS["loss"]), **changes}


def parts_of(parts, **changes):
    return read_parts(chosen(parts=parts, **changes), [30, 10, 5])[0]


def plain_loss(maps, levels, parts, weights):
    """The loss from its definition, with element-wise losses of the table."""
    box = objectness = classes = jnp.zeros((), jnp.float64)
    for raw, gain, pairs in zip(maps, BALANCE, levels, strict=True):
        image, cell, target, label, anchor = pairs
        flat = raw.reshape(len(raw), -1, raw.shape[-1])
        rows = flat[image, cell]
        predicted = predicted_boxes(rows[:, :4], jnp.asarray(anchor))
        corners = centres_to_corners(jnp.asarray(target))
        overlap = jnp.maximum(jax.lax.stop_gradient(paired_ciou(predicted, corners)), 0)
        last = {place: n for n, place in enumerate(zip(image, cell, strict=True))}
        place, n = tuple(np.transpose(list(last))), np.array(list(last.values()))
        truth = jnp.zeros_like(flat[..., 4]).at[place].set(overlap[n])
        wanted = jnp.asarray(np.eye(3)[label])
        if parts.quality:
            wanted = wanted * overlap[:, None]
        box += jnp.mean(parts.box(predicted, corners))
        objectness += gain * jnp.mean(parts.objectness(flat[..., 4], truth))
        factor = jnp.asarray(np.array(weights)[label])[:, None]
        classes += jnp.mean(factor * parts.classes(rows[:, 5:], wanted))
    return (0.05 * box + objectness + 0.5 * classes) * len(maps[0])


def ours(parts, weights=()):
    """Value and gradient of the loss, jitted."""
    loss = functools.partial(
        yolov5_loss,
        anchors=ANCHORS,
        strides=STRIDES,
        balance=BALANCE,
        parts=parts,
        class_weights=weights,
    )
    return jit_loss(loss)


def assert_defined(given):
    weights = (0.5, 2.0, 1.5)
    with jax.enable_x64(True):
        maps, *targets = random_inputs(num_boxes=8)
        maps = tuple(jnp.asarray(x, jnp.float64) for x in maps)
        parts = parts_of(given)
        (total, found), gradients = ours(parts, weights)(maps, *targets)
        levels = list(listed_pairs([x.shape for x in maps], *targets))
        value, expected = jax.jit(
            jax.value_and_grad(lambda x: plain_loss(x, levels, parts, weights))
        )(maps)
    np.testing.assert_allclose(total, value, rtol=1e-12)
    np.testing.assert_allclose(
        np.mean(np.asarray(found["per_picture"])), float(value) / 4, rtol=1e-12
    )
    for a, b in zip(gradients, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("name", COMBINATIONS)
def test_other_losses_come_in_where_the_published_ones_were(name):
    assert_defined(COMBINATIONS[name])


@pytest.mark.slow
@pytest.mark.parametrize(
    "given", ALL, ids=lambda x: "-".join(v["name"] for v in x.values())
)
def test_any_loss_comes_in_where_the_published_ones_were(given):
    assert_defined(given)


@pytest.mark.slow
def test_published_losses_by_name_change_nothing():
    given = {"box": "ciou", "classes": "bce", "objectness": "bce"}
    named = parts_of({part: {"name": name} for part, name in given.items()})
    inputs = random_inputs()
    assert_same(ours(named)(*inputs), value_and_gradient(*inputs), rtol=1e-6)


@pytest.mark.parametrize("name", [pytest.param("v3", marks=pytest.mark.slow), "v4"])
def test_losses_of_darknet_take_other_parts(name):
    maps, *targets = crowded_inputs()
    given = {
        "box": {"name": "giou"},
        "classes": {"name": "bce"},
        "objectness": {"name": "poly"},
    }
    loss = functools.partial(
        {"v3": V3, "v4": V4}[name],
        parts=parts_of(given),
        class_weights=(3.0, 3.0, 3.0),
    )
    (_, found), gradients = jit_loss(loss)(maps, *targets)
    (_, published), _ = BOTH[name](maps, *targets)
    assert abs(found["box"] - published["box"]) > 1e-3
    # What Poly-1 adds is at least 0 and at most 1 a cell, of 4 pictures by 64.
    more = found["objectness"] - published["objectness"]
    assert 1e-3 < more < sum(x[..., 0].size for x in maps) / 4 / 64
    np.testing.assert_allclose(found["class"], 3 * published["class"], rtol=1e-5)
    assert all(np.isfinite(x).all() and np.abs(x).sum() > 0 for x in gradients)


@pytest.mark.slow
def test_quality_changes_the_class_part_of_darknet_only():
    maps, *targets = crowded_inputs()
    loss = functools.partial(V4, parts=PartLosses(quality=True))
    (_, found), _ = jit_loss(loss)(maps, *targets)
    (_, published), _ = BOTH["v4"](maps, *targets)
    assert abs(found["class"] - published["class"]) > 1e-3
    for part in ("box", "objectness"):
        np.testing.assert_allclose(found[part], published[part], rtol=1e-6)


def test_weights_come_from_the_config_or_from_counts():
    counts = [30, 10, 5]
    assert read_parts(chosen(), counts) == (PartLosses(), ())
    given = chosen(class_weights=(1, 2.0, 0))
    assert read_parts(given, counts)[1] == (1.0, 2.0, 0.0)
    for rule in ("balanced", "effective"):
        whole = settings.complete({"loss": {"class_weights": rule}})
        weights = read_parts(whole["loss"], counts)[1]
        assert weights[0] < weights[1] < weights[2]
    assert read_parts(chosen(class_weights=("balanced",)), counts)[1] == (
        balanced_weights(counts)
    )
    balanced = {"classes": {"name": "class_balanced", "beta": 0.9, "gamma": 1.0}}
    parts, weights = read_parts(chosen(parts=balanced), counts)
    assert len(weights) == 3 and sum(weights) == pytest.approx(3)
    assert parts.classes.keywords == {"gamma": 1.0}


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"parts": {"boxes": {}}}, "no part 'boxes'. Did you mean 'box'"),
        ({"parts": {"box": "siou"}}, "parts.box must be a dict with a name"),
        (
            {"parts": {"box": {"name": "suio"}}},
            "no box loss named 'suio'. Did you mean",
        ),
        (
            {"parts": {"box": {"name": "giou", "powr": 2}}},
            "parts.box: loss 'giou' has no argument 'powr'. Did you mean 'power'",
        ),
        ({"parts": {"box": {"name": "l1", "power": 2}}}, "Choices: none"),
        (
            {"parts": {"box": {"name": "giou", "power": 0}}},
            "power must be at least 0.1",
        ),
        (
            {"parts": {"classes": {"name": "focal", "alpha": 2}}},
            "classes.alpha must be from 0 to 1, not 2",
        ),
        (
            {"parts": {"classes": {"name": "focal", "gamma": "big"}}},
            "gamma must be at least 0, not 'big'",
        ),
        (
            {"parts": {"classes": {"name": "focal", "quality": 1}}},
            "quality must be True or False, not 1",
        ),
        (
            {"parts": {"objectness": {"name": "class_balanced"}}},
            "no objectness loss named 'class_balanced'",
        ),
        (
            {"parts": {"classes": {"name": "varifocal"}}, "label_smoothing": 0.1},
            "set config.loss.label_smoothing to 0",
        ),
        (
            {"parts": {"objectness": {"name": "bce"}}, "focal_gamma": 1.0},
            "focal_gamma is of the losses that config.loss.parts replaces",
        ),
        (
            {
                "parts": {"classes": {"name": "class_balanced"}},
                "class_weights": ("balanced",),
            },
            "class_balanced has weights of its own",
        ),
        ({"class_weights": (1.0, 2.0)}, "has 2 weights, but there are 3 classes"),
        ({"class_weights": ("even",)}, "no rule of config.loss.class_weights named"),
        ({"class_weights": (1, -2, 1)}, "numbers of at least 0, not -2"),
    ],
)
def test_what_cannot_be_is_refused(changes, message):
    with pytest.raises(ValueError) as caught:
        read_parts(chosen(**changes), [1, 2, 3])
    assert message in str(caught.value)


@pytest.mark.parametrize("name", ["yolov5n", "yolov4-tiny"])
def test_a_config_names_the_losses(name):
    model = build_model(name, num_classes=3)
    parts = {"box": {"name": "eiou", "power": 2.0}, "classes": {"name": "poly"}}
    given = settings.complete(
        {
            "image_size": 64,
            "loss": {
                "name": name.split("-")[0].rstrip("n"),
                "parts": parts,
                "class_weights": "balanced",
            },
        }
    )
    loss = objectives.make_loss(given, model, [4, 2, 2])
    assert loss.keywords["parts"].box.keywords == {"power": 2.0}
    assert loss.keywords["class_weights"] == balanced_weights([4, 2, 2])
    given["loss"]["parts"] = {"box": {"name": "nothing"}}
    with pytest.raises(ValueError, match="no box loss named 'nothing'"):
        objectives.make_loss(given, model)
