"""Weights of networks that a description in the file lists."""

import json

import jax
import numpy as np
import pytest

from tests.models.descriptions import DESCRIPTIONS, pyramid
from tests.models.test_described import first_release
from tests.models.test_described_blocks import every_module
from tests.shared import shared
from tests.weights.pickles import File, module, nested, write
from yolojax import converting, inference
from yolojax.models.detector import build_model
from yolojax.trees import flatten, unflatten
from yolojax.weights.contents import Contents
from yolojax.weights.descriptions import described_arguments, plain
from yolojax.weights.mapping import (
    from_state_dict,
    published_names,
    to_state_dict,
)
from yolojax.weights.published import read_published, write_published


def build(content, **changes):
    text = content if isinstance(content, str) else json.dumps(content)
    return build_model("yaml", **{"num_classes": 2, "description": text} | changes)


def small(content):
    """A description of next to no width."""
    return {**content, "width_multiple": 0.0625, "depth_multiple": 0.1}


def turned():
    """One whose Detect lists its levels from coarse to fine."""
    content = small(pyramid("n"))
    content["head"][-1][0] = content["head"][-1][0][::-1]
    return content


NETWORKS = {
    "every module": json.loads(every_module()),
    "ghost": small(DESCRIPTIONS["yolov5s-ghost"]),
    "attention": small(DESCRIPTIONS["yolov5s-transformer"]),
    "v1.0": small(first_release()),
    "v3.0": small(pyramid("s", stage="BottleneckCSP", focus=True)),
    "yolov3-tiny": small(DESCRIPTIONS["yolov3-tiny"]),
    "coarse first": turned(),
}


def same_bits(one, two):
    one, two = flatten(one), flatten(two)
    assert set(one) == set(two)
    for path, array in one.items():
        assert array.dtype == two[path].dtype
        assert array.tobytes() == two[path].tobytes(), path


def random_variables(model, seed=0):
    generator = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: generator.normal(size=leaf.shape).astype(np.float32),
        model.shapes(),
    )


def saved(path, state, kinds=(), **about):
    """A checkpoint of modules; `kinds` are modules of classes without parameters."""
    file = File()
    leaves = {name.replace(".", "/"): file.tensor(a) for name, a in state.items()}
    inner = nested(unflatten(leaves)["model"])
    parts = {str(i): module(f"torch.nn.{kind}") for i, kind in enumerate(kinds)}
    parts = {"first": module("models.X", modules=parts)} if parts else {}
    top = module("models.yolo.Model", about, modules={**parts, "model": inner})
    return write(path, file.zip({"model": top}))


def test_names_by_hand():
    names = published_names(build(every_module()))
    expected = {
        "params/backbone/layer0/unit/conv/kernel": "model.0.conv.conv.weight",
        "batch_stats/backbone/layer0/unit/norm/var": "model.0.conv.bn.running_var",
        "params/backbone/layer1/conv/kernel": "model.1.conv.weight",
        "params/backbone/layer2/repeat1/point/norm/scale": "model.2.1.cv1.bn.weight",
        "params/backbone/layer3/bypass/kernel": "model.3.cv2.weight",
        "params/backbone/layer3/after/kernel": "model.3.cv3.weight",
        "params/backbone/layer3/norm/bias": "model.3.bn.bias",
        "params/backbone/layer3/merge/conv/kernel": "model.3.cv4.conv.weight",
        "params/backbone/layer3/block0/spatial/conv/kernel": (
            "model.3.m.0.cv2.conv.weight"
        ),
        "params/backbone/layer4/conv/kernel": "model.4.conv.weight",
        "params/backbone/layer5/column/conv/kernel": "model.5.cv2.conv.weight",
        "params/backbone/layer6/cheap/conv/kernel": "model.6.cv2.conv.weight",
        "params/backbone/layer7/expand/primary/conv/kernel": (
            "model.7.conv.0.cv1.conv.weight"
        ),
        "params/backbone/layer7/depthwise/norm/scale": "model.7.conv.1.bn.weight",
        "params/backbone/layer7/project/cheap/conv/kernel": (
            "model.7.conv.2.cv2.conv.weight"
        ),
        "params/backbone/layer7/shortcut_depthwise/conv/kernel": (
            "model.7.shortcut.0.conv.weight"
        ),
        "params/backbone/layer7/shortcut_point/conv/kernel": (
            "model.7.shortcut.1.conv.weight"
        ),
        "params/backbone/layer8/block0/project/primary/conv/kernel": (
            "model.8.m.0.conv.2.cv1.conv.weight"
        ),
        "params/backbone/layer9/attention/position/bias": "model.9.m.linear.bias",
        "params/backbone/layer9/attention/layer0/key/kernel": "model.9.m.tr.0.k.weight",
        "params/backbone/layer9/attention/layer0/in_projection/kernel": (
            "model.9.m.tr.0.ma.in_proj_weight"
        ),
        "params/backbone/layer9/attention/layer0/in_projection/bias": (
            "model.9.m.tr.0.ma.in_proj_bias"
        ),
        "params/backbone/layer9/attention/layer0/out_projection/bias": (
            "model.9.m.tr.0.ma.out_proj.bias"
        ),
        "params/backbone/layer9/attention/layer0/second/kernel": (
            "model.9.m.tr.0.fc2.weight"
        ),
        "params/backbone/layer10/merge/conv/kernel": "model.10.cv2.conv.weight",
        "params/backbone/layer12/merge/conv/kernel": "model.12.cv3.conv.weight",
        "params/neck/layer15/conv/bias": "model.15.bias",
        "batch_stats/neck/layer16/mean": "model.16.running_mean",
        "params/neck/layer16/scale": "model.16.weight",
        "params/head/level3/kernel": "model.21.m.0.weight",
        "params/head/level4/bias": "model.21.m.1.bias",
    }
    assert {path: names.get(path) for path in expected} == expected
    assert len(set(names.values())) == len(names)


def test_matrices_are_turned_and_convolutions_keep_their_axes():
    model = build(every_module())
    variables = random_variables(model)
    state = to_state_dict(model, variables)
    layer = variables["params"]["backbone"]["layer9"]["attention"]["layer0"]
    projection = layer["in_projection"]["kernel"]
    assert projection.shape == (8, 24)
    np.testing.assert_array_equal(
        state["model.9.m.tr.0.ma.in_proj_weight"], projection.T
    )
    np.testing.assert_array_equal(
        state["model.9.m.tr.0.q.weight"], layer["query"]["kernel"].T
    )
    assert state["model.9.cv1.conv.weight"].shape == (8, 16, 1, 1)
    assert state["model.4.conv.weight"].shape == (16, 1, 3, 3)
    assert state["model.15.weight"].shape == (16, 32, 1, 1)
    wrong = {**state, "model.9.m.tr.0.q.weight": np.zeros((8, 8, 1, 1), np.float32)}
    with pytest.raises(ValueError, match=r"expected \(8, 8\), came \(8, 8, 1, 1\)"):
        from_state_dict(model, wrong)


@pytest.mark.parametrize("name", NETWORKS)
def test_what_is_written_is_read_as_the_same_network_and_bits(name, tmp_path):
    model = build(NETWORKS[name])
    variables, path = random_variables(model), tmp_path / "a.safetensors"
    same_bits(from_state_dict(model, to_state_dict(model, variables)), variables)
    write_published(path, model, variables, ("ä", "b"))
    found = read_published(path)
    assert found.class_names == ("ä", "b")
    # Of "coarse first", the order of Detect's inputs alone is not that of v6.0.
    assert found.model.family == "yaml"
    same_bits(found.variables, variables)
    assert found.model.strides == model.strides
    np.testing.assert_array_equal(found.model.anchors, model.anchors)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_pytorch_file_is_built_from_its_own_description(name, tmp_path):
    content = NETWORKS[name]
    model = build(content)
    variables = random_variables(model)
    state = to_state_dict(model, variables)
    strides = model.strides if name != "coarse first" else model.strides[::-1]
    anchors = model.anchors * 1.5
    if name == "coarse first":
        anchors = anchors[::-1]
    row = len(content["backbone"] + content["head"]) - 1
    cells = anchors / np.float32(strides)[:, None, None]
    state[f"model.{row}.anchors"] = cells
    path = saved(tmp_path / "a.pt", state, yaml={**content, "nc": 2, "ch": 3})
    found = read_published(path)
    same_bits(found.variables, variables)
    assert found.arguments["name"] == "yaml"
    assert found.model.num_classes == 2
    np.testing.assert_allclose(found.model.anchors, model.anchors * 1.5, rtol=1e-6)


def test_classes_and_activations_are_those_of_the_arrays_and_modules(tmp_path):
    content = small(pyramid("s", stage="BottleneckCSP", focus=True))
    model = build(content, num_classes=5)
    state = to_state_dict(model, random_variables(model))
    kinds = ("Conv2d", "Hardswish", "BottleneckCSP", "LeakyReLU", "Identity")
    path = saved(tmp_path / "a.pt", state, kinds, yaml=content, names=list("abcde"))
    found = read_published(path)
    assert found.class_names == tuple("abcde")
    nodes = {node.name: node.arguments for node in found.model.spec.nodes}
    assert nodes["layer2"]["activation"] == "hard_swish"
    assert nodes["layer2"]["joint_activation"] == "leaky=0.1"
    path = saved(tmp_path / "b.pt", state, ("SiLU",), yaml=content)
    nodes = read_published(path).model.spec.nodes
    assert nodes[2].arguments["joint_activation"] == "silu"


def test_a_v6_network_goes_by_its_name_unless_it_computes_something_else(tmp_path):
    content = small(pyramid("n"))
    head = content["head"]
    model = build(content)
    state = to_state_dict(model, random_variables(model))
    found = read_published(saved(tmp_path / "a.pt", state, yaml=content))
    assert found.model.name == "yolov5n"
    names = published_names(found.model)
    leaves = flatten(found.variables)
    again = {names[path]: leaves[path] for path in leaves}
    assert set(again) == set(state)
    # Without the arguments after the channels, shortcuts are on.
    stages = [row[:3] + [row[3][:1]] if row[2] == "C3" else row for row in head]
    for change in (
        {"activation": "nn.LeakyReLU(0.1)"},
        {"head": stages},
        {"backbone": [*content["backbone"][:-1], [-1, 1, "SPPF", [1024, 7]]]},
    ):
        path = saved(tmp_path / "b.pt", state, yaml={**content, **change})
        assert read_published(path).model.family == "yaml", change
    path = saved(tmp_path / "c.pt", state, ("LeakyReLU",), yaml=content)
    assert read_published(path).model.family == "yaml"


def test_the_published_file_is_a_v6_network_by_its_description():
    found = read_published(shared("weights", "yolov5n.pt"))
    assert found.contents.description["head"]
    assert found.arguments["name"] == "yolov5n"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"head": [[-1, 1, "Foo", []]]}, r"row 1[0-9] \(Foo\): no module named 'Foo'"),
        ({"backbone": "x"}, "backbone must be a list of rows, not 'x'"),
        ({"backbone": [[-1, 1, "Conv", [8]]]}, "row|missing"),
        ({"width_multiple": 0.5}, "mis-shaped"),
        ({"anchors": [[1, 2]]}, "for 3 levels|1 rows of anchors"),
        ({"anchors": {1: 2}}, "its description holds a dict"),
        ({"nc": object}, "its description holds a"),
        ({"backbone": [[1] * 40_000]}, "too large, or contains itself"),
    ],
    ids=["module", "rows", "short", "width", "anchors", "keys", "class", "large"],
)
def test_a_description_that_does_not_fit_is_said_to_be_wrong(
    changes, message, tmp_path
):
    content = small(DESCRIPTIONS["yolov5s-ghost"])
    model = build(content)
    state = to_state_dict(model, random_variables(model))
    given = {**content, **changes}
    if given["nc"] is object:
        given["nc"] = module("torch.nn.Identity")
    with pytest.raises(ValueError, match=message) as caught:
        read_published(saved(tmp_path / "a.pt", state, yaml=given))
    assert str(caught.value).startswith(f"{tmp_path / 'a.pt'}: ")


def test_values_that_contain_themselves_or_double_are_refused():
    loop = []
    loop.append(loop)
    with pytest.raises(ValueError, match="too large, or contains itself"):
        plain(loop)
    bomb = [1]
    for _ in range(7):
        bomb = [bomb] * 10
    with pytest.raises(ValueError, match="too large, or contains itself"):
        plain(bomb)
    with pytest.raises(ValueError, match="holds a int"):
        plain(10**400)


def test_a_head_that_the_arrays_do_not_have_is_named():
    content = small(pyramid("n"))
    with pytest.raises(ValueError, match="head at model.24.m.0.weight, which is not"):
        described_arguments({}, Contents({}, description=content))
    state = {"model.24.m.0.weight": np.zeros((16, 8, 1, 1))}
    with pytest.raises(ValueError, match="has 16 outputs, which 3 anchors do not"):
        described_arguments(state, Contents(state, description=content))
    assert described_arguments(state, Contents(state)) is None


def test_a_run_from_a_file_needs_no_description_beside_it(tmp_path):
    content = small(DESCRIPTIONS["yolov3-tiny"])
    model = build(content)
    variables = random_variables(model)
    path = saved(tmp_path / "a.pt", to_state_dict(model, variables), yaml=content)
    table = converting.convert(path, tmp_path / "run")
    rows = dict(line.split(maxsplit=1) for line in table.splitlines())
    assert rows["model"] == "yaml (width 0.0625, depth 0.1)"
    assert rows["unused"] == "0"
    assert rows["strides"] == "16, 32"
    loaded = inference.load(tmp_path / "run")
    same_bits(loaded.variables, variables)
    converting.export(tmp_path / "run", tmp_path / "b.safetensors")
    same_bits(inference.load(tmp_path / "b.safetensors").variables, variables)
    assert loaded.settings["image_size"] == (640, 640)
