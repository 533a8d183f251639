import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.darknet import CFG, CLASSES
from tests.shared import shared
from yolojax.models.cfg import format_cfg, parse_cfg, read_cfg
from yolojax.models.darknet_graph import changed_spec, darknet_spec
from yolojax.models.detector import build_model
from yolojax.ops.grid import Decoding
from yolojax.trees import flatten
from yolojax.weights.darknet import read_darknet

NET = "[net]\nwidth=64\nheight=64\n"
CONV = "[convolutional]\nfilters=4\nactivation=linear\n"
HEAD = "[convolutional]\nfilters=7\nactivation=linear\n"
YOLO = "[yolo]\nanchors=4,6\nclasses=2\n"


def spec_of(text=CFG):
    return darknet_spec(parse_cfg(text))


def built(text=CFG, num_classes=CLASSES, **arguments):
    return build_model(
        "darknet", num_classes=num_classes, description=text, **arguments
    )


def test_nodes_are_named_by_layer_and_take_what_the_file_says():
    spec = spec_of()
    names = [f"{node.part}/{node.name}" for node in spec.nodes]
    taken = {
        name: tuple(names[i] if i >= 0 else "picture" for i in node.inputs)
        for name, node in zip(names, spec.nodes, strict=True)
    }
    assert taken == {
        "body/layer0": ("picture",),
        "body/layer1": ("body/layer0",),
        "body/layer2": ("body/layer1", "body/layer0"),
        "body/layer4": ("body/layer2",),  # dropout is left out
        "body/layer5": ("body/layer4",),
        "body/layer6": ("body/layer5",),
        "body/layer7": ("body/layer6",),
        "body/layer8": ("body/layer7", "body/layer6"),
        "head/layer9": ("body/layer8",),
        "body/layer12": ("body/layer8",),  # layer 11 is layer 8
        "body/layer13": ("body/layer12", "body/layer4"),
        "head/layer14": ("body/layer13",),
    }
    assert spec.nodes[0].where == "line 8, [convolutional]"


def test_levels_are_finest_first_with_their_own_anchors_and_scales():
    spec = spec_of()
    assert [spec.nodes[index].name for index in spec.outputs] == ["layer14", "layer9"]
    assert spec.strides == (4, 8)
    assert spec.max_stride == 8
    assert spec.features == (12, 8)
    assert spec.anchors == (((4, 6), (8, 10)), ((12, 8), (30, 40)))
    assert spec.priors == ((4, 6), (8, 10), (12, 8), (30, 40))
    assert spec.decoding == Decoding("exponential", (1.1, 1.05))
    assert spec.num_classes == 2
    assert spec.image_size == (64, 64)
    assert spec.training_hints == {
        "ignore_thresh": ".7",
        "iou_loss": "ciou",
        "obj_normalizer": "1, .4",
    }


def test_anchors_of_no_level_are_priors():
    text = CFG.replace("mask=0,1", "mask=1").replace("mask=2,3", "mask=2")
    spec = spec_of(text.replace("filters=14", "filters=7"))
    assert spec.anchors == (((8, 10),), ((12, 8),))
    assert len(spec.priors) == 4


def test_the_network_runs_and_its_maps_have_the_promised_shapes():
    model = built()
    assert (model.family, model.levels) == ("darknet", ("layer14", "layer9"))
    variables = model.init(0)
    images = jax.random.uniform(jax.random.key(0), (2, 24, 40, 3))
    apply = jax.jit(model.apply, static_argnames="train")
    maps, statistics = apply(variables, images, train=True)
    assert [m.shape for m in maps] == [(2, 6, 10, 2, 7), (2, 3, 5, 2, 7)]
    moved = flatten(statistics)["body/layer0/norm/mean"]
    before = flatten(variables)["batch_stats/body/layer0/norm/mean"]
    assert np.isfinite(maps[0]).all() and (moved != before).any()
    boxes, objectness, probabilities = model.decode(maps)
    assert boxes.shape == (2, 150, 4)
    assert objectness.shape == (2, 150) and probabilities.shape == (2, 150, 2)


def test_paths_are_those_that_the_changelog_promises():
    paths = list(flatten(built().shapes()))
    assert paths[:3] == [
        "params/body/layer0/conv/kernel",
        "params/body/layer0/norm/bias",
        "params/body/layer0/norm/scale",
    ]
    assert "params/head/layer14/kernel" in paths
    assert "batch_stats/body/layer1/norm/var" in paths


def test_running_statistics_move_by_a_hundredth():
    text = NET + CONV.replace("linear", "linear\nbatch_normalize=1") + HEAD + YOLO
    model = built(text)
    variables = model.init(0)
    images = jax.random.uniform(jax.random.key(1), (1, 4, 4, 3))
    kernel = variables["params"]["body"]["layer0"]["conv"]["kernel"]
    _, statistics = model.apply(variables, images, train=True)
    means = np.mean(np.asarray(images).reshape(-1, 3) @ kernel, axis=0)
    found = statistics["body"]["layer0"]["norm"]["mean"]
    np.testing.assert_allclose(found, 0.01 * means, rtol=1e-4, atol=1e-7)


def test_other_classes_and_anchors_make_another_head_and_description():
    anchors = (((1, 2), (3, 4), (5, 6)), ((7, 8), (9, 10), (11.5, 12)))
    spec = changed_spec(spec_of(), num_classes=3, anchors=anchors)
    again = darknet_spec(parse_cfg(format_cfg(spec.sections)))
    for found in (spec, again):
        assert found.anchors == anchors
        assert found.num_classes == 3
        heads = [dict(found.nodes[i].arguments) for i in found.outputs]
        assert heads == [{"num_anchors": 3, "num_classes": 3}] * 2
        assert found.decoding == Decoding("exponential", (1.1, 1.05))
        assert len(found.nodes) == 12
    model = built(num_classes=3, anchors=anchors)
    shapes = {path: leaf.shape for path, leaf in flatten(model.shapes()).items()}
    assert shapes["params/head/layer9/kernel"] == (8, 24)


def test_the_builder_says_which_file_and_what_it_needs(tmp_path):
    with pytest.raises(ValueError, match="model 'darknet' needs path, the file of its"):
        build_model("darknet", num_classes=1)
    (tmp_path / "x.cfg").write_text(NET + CONV)
    with pytest.raises(ValueError, match=r"x\.cfg: no \[yolo\] section"):
        build_model("darknet", num_classes=1, path=str(tmp_path / "x.cfg"))
    with pytest.raises(ValueError, match="the description: line 1: .* before any"):
        build_model("darknet", num_classes=1, description="width=3")
    with pytest.raises(ValueError, match="anchors of darknet must be 2 levels"):
        built(anchors=(((1, 2),),))
    with pytest.raises(ValueError, match="num_classes of darknet is 0"):
        built(num_classes=0)


def test_logistic_outputs_before_a_yolo_with_new_coords_are_taken_raw():
    head = HEAD.replace("linear", "logistic")
    spec = spec_of(NET + CONV + head + YOLO + "new_coords=1\nscale_x_y=2\n")
    assert spec.decoding == Decoding("square", (2.0,))
    with pytest.raises(ValueError, match="activation=logistic, since it has new_coord"):
        spec_of(NET + CONV + HEAD + YOLO + "new_coords=1\n")
    with pytest.raises(ValueError, match="with activation=linear$"):
        spec_of(NET + CONV + head + YOLO)


@pytest.mark.parametrize("dtype", ["bfloat16", "float64"])
def test_raw_maps_are_wide(dtype):
    with jax.enable_x64(dtype == "float64"):
        model = built(dtype=dtype)
        images = jnp.zeros((1, 8, 8, 3), jnp.float32)
        shapes, _ = jax.eval_shape(
            lambda v, x: model.apply(v, x, train=False), model.shapes(), images
        )
        assert shapes[0].dtype == ("float64" if dtype == "float64" else "float32")


@pytest.fixture(scope="module")
def fastest():
    model = build_model(
        "darknet",
        num_classes=80,
        path=str(shared("weights", "yolo-fastest-1.1.cfg")),
    )
    path = shared("weights", "yolo-fastest-1.1.weights")
    return model, read_darknet(path, model).variables


def published_rows(model, boxes, objectness, probabilities, side):
    """Rows of each level as OpenCV orders them: cell after cell, then anchors.

    A row is centre and size as shares of the picture, objectness, and the score of
    every class, which OpenCV sets to 0 up to 0.2.
    """
    start, levels = 0, []
    for stride in model.strides:
        cells = side // stride
        count = cells * cells * 3
        part = slice(start, start + count)
        start += count
        low, high = boxes[0, part, :2], boxes[0, part, 2:]
        scores = objectness[0, part, None] * probabilities[0, part]
        rows = np.concatenate(
            [
                (low + high) / 2 / side,
                (high - low) / side,
                objectness[0, part, None],
                np.where(scores > 0.2, scores, 0),
            ],
            axis=1,
        )
        by_anchor = rows.reshape(3, cells * cells, -1)
        levels.append(by_anchor.swapaxes(0, 1).reshape(count, -1))
    return levels


def test_decoded_boxes_and_scores_are_those_of_opencv(fastest):
    model, variables = fastest
    run = jax.jit(lambda v, x: model.decode(model.apply(v, x, train=False)[0]))
    with np.load(shared("golden", "darknet_yolo-fastest-1.1_320.npz")) as file:
        golden = dict(file)
    for name in ("bus.jpg", "zidane.jpg"):
        images = jnp.asarray(golden[f"{name}_blob"].transpose(0, 2, 3, 1))
        found = [np.asarray(part, np.float64) for part in run(variables, images)]
        fine, coarse = published_rows(model, *found, side=320)
        for ours, theirs in ((fine, "out1"), (coarse, "out0")):
            expected = golden[f"{name}_{theirs}"]
            assert ours.shape == expected.shape
            pixels = np.abs(ours[:, :4] - expected[:, :4]) * 320
            assert pixels.max() < 1e-3
            np.testing.assert_allclose(ours[:, 4], expected[:, 4], rtol=5e-5)
            np.testing.assert_allclose(ours[:, 5:], expected[:, 5:], atol=5e-6)


def test_the_published_file_is_read_as_it_is(fastest):
    model, _ = fastest
    spec = model.spec
    assert spec.image_size == (320, 320)
    assert model.strides == (16, 32)
    assert model.levels == ("layer129", "layer120")
    assert model.decoding == Decoding("exponential", (1.0, 1.0))
    assert spec.training_hints["iou_thresh"] == "0.213"
    text = read_cfg(shared("weights", "yolo-fastest-1.1.cfg"))
    assert parse_cfg(format_cfg(spec.sections)) == parse_cfg(text)
