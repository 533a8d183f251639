import math

import jax
import numpy as np
import pytest

from yolojax.models.cfg import format_cfg
from yolojax.models.darknet import DARKNET
from yolojax.models.detector import MODELS, build_model
from yolojax.ops.grid import Decoding
from yolojax.trees import flatten

# Bytes of the published .weights files, as their download pages and the lists of
# other readers state them; 20 of them are the header.
FILES = {
    "yolov3": 248_007_048,
    "yolov3-spp": 252_209_544,
    "yolov3-tiny": 35_434_956,
    "yolov4": 257_717_640,
    "yolov4-tiny": 24_251_276,
    "yolov4-csp": 211_944_840,
}
PARAMETERS = {"yolov3": 61_949_149, "yolov3-spp": 62_998_749, "yolov3-tiny": 8_852_366}
# Numbers of the [yolo] layers in Darknet's own listings.
HEADS = {
    "yolov3": (82, 94, 106),
    "yolov3-spp": (89, 101, 113),
    "yolov3-tiny": (16, 23),
    "yolov4": (139, 150, 161),
    "yolov4-tiny": (30, 37),
    "yolov4-csp": (144, 159, 174),
}
# Some lines of these listings: what a layer takes.
ROUTES = {
    "yolov3": {83: (79,), 86: (85, 61), 98: (97, 36)},
    "yolov3-spp": {83: (82, 80, 78, 77), 93: (92, 61)},
    "yolov3-tiny": {20: (19, 8)},
    "yolov4": {
        9: (8, 2),
        7: (6, 4),
        53: (52, 25),
        84: (83, 56),
        113: (112, 110, 108, 107),
    },
    "yolov4-tiny": {3: (2,), 6: (5, 4), 8: (2, 7), 34: (33, 23)},
    "yolov4-csp": {16: (15, 6), 112: (111, 99), 147: (146, 127), 162: (161, 113)},
}


def sizes(model):
    trees = model.shapes()
    return [
        sum(math.prod(leaf.shape) for leaf in flatten(trees[part]).values())
        for part in ("params", "batch_stats")
    ]


@pytest.fixture(scope="module", params=DARKNET)
def model(request):
    return build_model(request.param, num_classes=80)


def test_numbers_are_as_many_as_in_the_published_file(model):
    trained, statistics = sizes(model)
    assert 4 * (trained + statistics) + 20 == FILES[model.name]
    assert trained == PARAMETERS.get(model.name, trained)


def test_layers_have_their_published_numbers(model):
    kinds = [section.kind for section in DARKNET[model.name].layers]
    found = tuple(number for number, kind in enumerate(kinds) if kind == "yolo")
    assert found == HEADS[model.name]
    heads = {f"layer{number - 1}" for number in found}
    assert set(model.levels) == heads


def test_routes_and_shortcuts_take_their_published_layers(model):
    nodes = {int(node.name.removeprefix("layer")): node for node in model.spec.nodes}
    # A route of one layer is that layer, and has no node of its own.
    layers = list(nodes)
    for number, expected in ROUTES[model.name].items():
        if number not in nodes:
            continue
        taken = [layers[index] for index in nodes[number].inputs]
        assert taken == list(expected), number
    groups = [dict(n.arguments) for n in nodes.values() if n.kind == "route"]
    halves = [g for g in groups if g["groups"] == 2]
    assert len(halves) == (3 if model.name == "yolov4-tiny" else 0)
    assert all(half["group"] == 1 for half in halves)


def test_decoding_and_activations_are_those_of_the_generation(model):
    kinds = {"yolov3": (1.0,) * 3, "yolov3-spp": (1.0,) * 3, "yolov3-tiny": (1.0,) * 2}
    kinds |= {"yolov4": (1.2, 1.1, 1.05), "yolov4-tiny": (1.05, 1.05)}
    squared = model.name == "yolov4-csp"
    scales = (2.0,) * 3 if squared else kinds[model.name]
    assert model.decoding == Decoding("square" if squared else "exponential", scales)
    found = {
        node.arguments["activation"]
        for node in model.spec.nodes
        if node.kind == "convolutional"
    }
    expected = {"yolov4": {"mish", "leaky"}, "yolov4-csp": {"mish"}}
    assert found == expected.get(model.name, {"leaky"})


def test_levels_are_finest_first_with_growing_anchors(model):
    tiny = model.name.endswith("-tiny")
    assert model.strides == ((16, 32) if tiny else (8, 16, 32))
    assert model.max_stride == 32
    areas = model.anchors.prod(-1).mean(-1)
    assert (np.diff(areas) > 0).all()
    assert len(model.priors) == (6 if tiny else 9)


def test_a_description_of_the_table_makes_the_same_network(model):
    text = format_cfg(DARKNET[model.name].sections)
    other = build_model("darknet", num_classes=80, description=text)
    shapes, others = flatten(model.shapes()), flatten(other.shapes())
    assert {p: s.shape for p, s in shapes.items()} == {
        p: s.shape for p, s in others.items()
    }
    for one, two in zip(model.spec.nodes, other.spec.nodes, strict=True):
        assert (one.kind, one.inputs, one.name) == (two.kind, two.inputs, two.name)
        assert one.arguments == two.arguments
    assert other.spec.training_hints == model.spec.training_hints
    assert other.spec.image_size == (DARKNET[model.name].side,) * 2


def test_maps_fit_the_strides(model):
    images = jax.ShapeDtypeStruct((2, 64, 96, 3), "float32")
    maps, _ = jax.eval_shape(
        lambda v, x: model.apply(v, x, train=False), model.shapes(), images
    )
    assert [m.shape for m in maps] == [
        (2, 64 // stride, 96 // stride, 3, 85) for stride in model.strides
    ]


def test_published_anchors_of_the_tiny_networks():
    for name, coarse, fine in (
        ("yolov3-tiny", (81, 82), (10, 14)),
        ("yolov4-tiny", (81, 82), (23, 27)),
    ):
        anchors = build_model(name, num_classes=80).anchors
        assert tuple(anchors[1][0]) == coarse and tuple(anchors[0][0]) == fine


def test_another_number_of_classes_changes_the_head_alone():
    one, two = (build_model("yolov4-tiny", num_classes=n) for n in (80, 3))
    shapes, others = flatten(one.shapes()), flatten(two.shapes())
    changed = {p for p in shapes if shapes[p].shape != others[p].shape}
    assert {path.split("/")[1] for path in changed} == {"head"}
    assert others["params/head/layer36/kernel"].shape == (256, 24)


def test_all_tables_are_models():
    assert set(DARKNET) | {"darknet"} <= set(MODELS)
    with pytest.raises(ValueError, match="Did you mean 'yolov4-csp'"):
        build_model("yolov4-cps", num_classes=1)
    with pytest.raises(ValueError, match="model 'yolov3' has no argument 'path'"):
        build_model("yolov3", num_classes=1, path="x.cfg")
    with pytest.raises(ValueError, match="anchors of yolov3 must be 3 levels"):
        build_model("yolov3", num_classes=1, anchors=(((1, 2),),))
