"""Names and shapes of published classifiers, written down by rules of their own."""

import functools
import json

import jax
import numpy as np
import pytest

from tests.weights.pickles import File, write
from yolojax.models.classifiers import CLASSIFIERS, build_classifier
from yolojax.models.detector import build_model
from yolojax.trees import flatten
from yolojax.weights.classifiers import has_names, published_names, recognised
from yolojax.weights.mapping import from_state_dict, to_state_dict
from yolojax.weights.published import read_published, write_published
from yolojax.weights.safetensors import write_safetensors

CLASSES = 5


def conv(name, outputs, inputs, size, bias=False):
    rows = {f"{name}.weight": (outputs, inputs, size, size)}
    return rows | ({f"{name}.bias": (outputs,)} if bias else {})


def norm(name, features):
    ends = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.{end}": (features,) for end in ends}


def linear(name, outputs, inputs):
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def resnet(blocks, *, bottleneck, form_d=False):
    """Names and shapes as torchvision's, or for form D timm's."""
    if form_d:
        found = {
            **(conv("conv1.0", 32, 3, 3) | norm("conv1.1", 32)),
            **(conv("conv1.3", 32, 32, 3) | norm("conv1.4", 32)),
            **conv("conv1.6", 64, 32, 3),
        }
    else:
        found = conv("conv1", 64, 3, 7)
    found |= norm("bn1", 64)
    came = 64
    for stage, count in enumerate(blocks):
        inside = 64 * 2**stage
        out = 4 * inside if bottleneck else inside
        kernels = (1, 3, 1) if bottleneck else (3, 3)
        widths = (inside, inside, out) if bottleneck else (inside, inside)
        for number in range(count):
            name = f"layer{stage + 1}.{number}"
            last = came
            for k, (size, width) in enumerate(zip(kernels, widths, strict=True), 1):
                found |= conv(f"{name}.conv{k}", width, last, size)
                found |= norm(f"{name}.bn{k}", width)
                last = width
            if number == 0 and (came != out or stage):
                one, two = ("1", "2") if form_d else ("0", "1")
                found |= conv(f"{name}.downsample.{one}", out, came, 1)
                found |= norm(f"{name}.downsample.{two}", out)
            came = out
    return found | linear("fc", CLASSES, came)


def vgg(column, *, normed):
    """By torchvision's list of layers: numbers are channels, M are maxima."""
    found, place, came = {}, 0, 3
    for item in column:
        if item == "M":
            place += 1
            continue
        found |= conv(f"features.{place}", item, came, 3, bias=True)
        if normed:
            found |= norm(f"features.{place + 1}", item)
        place, came = place + (3 if normed else 2), item
    return found | {
        **linear("classifier.0", 4096, 512 * 7 * 7),
        **linear("classifier.3", 4096, 4096),
        **linear("classifier.6", CLASSES, 4096),
    }


def alexnet():
    return {
        **conv("features.0", 64, 3, 11, bias=True),
        **conv("features.3", 192, 64, 5, bias=True),
        **conv("features.6", 384, 192, 3, bias=True),
        **conv("features.8", 256, 384, 3, bias=True),
        **conv("features.10", 256, 256, 3, bias=True),
        **linear("classifier.1", 4096, 256 * 6 * 6),
        **linear("classifier.4", 4096, 4096),
        **linear("classifier.6", CLASSES, 4096),
    }


def unit(name, outputs, inputs, size):
    return conv(f"{name}.conv", outputs, inputs, size) | norm(f"{name}.bn", outputs)


def darknet53():
    found, came = unit("stem.conv1", 32, 3, 3), 32
    for stage, count in enumerate((1, 2, 8, 8, 4)):
        name, out = f"stages.{stage}", 64 * 2**stage
        found |= unit(f"{name}.conv_down", out, came, 3)
        for number in range(count):
            block = f"{name}.blocks.{number}"
            found |= unit(f"{block}.conv1", out // 2, out, 1)
            found |= unit(f"{block}.conv2", out, out // 2, 3)
        came = out
    return found | linear("head.fc", CLASSES, 1024)


def cspdarknet53():
    found, came = unit("stem.conv1", 32, 3, 3), 32
    for stage, count in enumerate((1, 2, 8, 8, 4)):
        name, out = f"stages.{stage}", 64 * 2**stage
        half = 32 * 2**stage if stage else 64
        hidden = half if stage else 32
        found |= unit(f"{name}.conv_down", out, came, 3)
        found |= unit(f"{name}.conv_exp", 2 * half, out, 1)
        for number in range(count):
            block = f"{name}.blocks.{number}"
            found |= unit(f"{block}.conv1", hidden, half, 1)
            found |= unit(f"{block}.conv2", half, hidden, 3)
        found |= unit(f"{name}.conv_transition_b", half, half, 1)
        found |= unit(f"{name}.conv_transition", out, 2 * half, 1)
        came = out
    return found | linear("head.fc", CLASSES, 1024)


def cspresnet50():
    found, came = unit("stem.conv1", 64, 3, 7), 64
    for stage, count in enumerate((3, 3, 5, 2)):
        name, out = f"stages.{stage}", 128 * 2**stage
        if stage:
            found |= unit(f"{name}.conv_down", came, came, 3)
        found |= unit(f"{name}.conv_exp", 2 * out, came, 1)
        for number in range(count):
            block = f"{name}.blocks.{number}"
            found |= unit(f"{block}.conv1", out // 2, out, 1)
            found |= unit(f"{block}.conv2", out // 2, out // 2, 3)
            found |= unit(f"{block}.conv3", out, out // 2, 1)
        found |= unit(f"{name}.conv_transition_b", out, out, 1)
        found |= unit(f"{name}.conv_transition", out, 2 * out, 1)
        came = out
    return found | linear("head.fc", CLASSES, 1024)


A = (64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M")
B = (64, 64, "M", 128, 128, *A[3:])
D = (*B[:6], 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M")
E = (*B[:6], *(256,) * 4, "M", *(512,) * 4, "M", *(512,) * 4, "M")
DEPTHS = {
    "18": ((2, 2, 2, 2), False),
    "34": ((3, 4, 6, 3), False),
    "50": ((3, 4, 6, 3), True),
    "101": ((3, 4, 23, 3), True),
    "152": ((3, 8, 36, 3), True),
}
RULES = {
    **{
        f"resnet{depth}{'d' * form}": functools.partial(
            resnet, blocks, bottleneck=deep, form_d=form
        )
        for depth, (blocks, deep) in DEPTHS.items()
        for form in (False, True)
    },
    **{
        f"vgg{depth}{'_bn' * normed}": functools.partial(vgg, column, normed=normed)
        for depth, column in (("11", A), ("13", B), ("16", D), ("19", E))
        for normed in (False, True)
    },
    "alexnet": alexnet,
    "darknet53": darknet53,
    "cspdarknet53": cspdarknet53,
    "cspresnet50": cspresnet50,
}


# One of each form; the others only where there is time.
QUICK = ("resnet18", "resnet50d", "vgg11_bn", "alexnet", "darknet53", "cspresnet50")
ALL = [
    name if name in QUICK else pytest.param(name, marks=pytest.mark.slow)
    for name in RULES
]


def zeros(shapes):
    """Arrays that take no memory."""
    return {name: np.broadcast_to(np.float32(0), s) for name, s in shapes.items()}


@pytest.mark.slow
def test_there_is_a_rule_for_every_classifier_with_published_names():
    models = (build_classifier(name, num_classes=2) for name in CLASSIFIERS)
    assert {model.name for model in models if has_names(model)} == set(RULES)


@pytest.mark.parametrize("name", ALL)
def test_names_and_shapes_are_the_published_ones(name):
    rules = RULES[name]()
    model = build_classifier(name, num_classes=CLASSES)
    shapes = {path: leaf.shape for path, leaf in flatten(model.shapes()).items()}
    names = published_names(model, model.shapes())
    assert sorted(names.values()) == sorted(rules)
    for path, published in names.items():
        theirs = rules[published]
        if len(theirs) == 4:
            theirs = (*theirs[2:], theirs[1], theirs[0])
            # A 1x1 convolution is a matrix, unless it has a stride.
            theirs = theirs[-len(shapes[path]) :]
        elif len(theirs) == 2:
            theirs = theirs[::-1]
        assert shapes[path] == theirs, path
    found = recognised(zeros(rules))
    leaky = {"activation": "leaky=0.01"} if "dark" in name or "csp" in name else {}
    expected = {"name": name, "num_classes": CLASSES, "normalise": "statistics"}
    assert found is not None and found.arguments == expected | leaky


def small(name, **changes):
    return build_classifier(name, num_classes=CLASSES, width=0.125, **changes)


@pytest.mark.parametrize(
    "name",
    [
        "vgg11_bn",
        *(
            pytest.param(n, marks=pytest.mark.slow)
            for n in ("alexnet", "resnet18", "darknet53")
        ),
    ],
)
def test_values_go_both_ways(name):
    model = small(name)
    shapes = model.shapes()
    rng = np.random.default_rng(1)
    state = {
        published: rng.normal(size=array.shape).astype(np.float32)
        for published, array in to_state_dict(
            model, jax.tree.map(lambda leaf: np.zeros(leaf.shape, "float32"), shapes)
        ).items()
    }
    variables = from_state_dict(model, state)
    assert jax.tree.map(np.shape, variables) == jax.tree.map(lambda x: x.shape, shapes)
    again = to_state_dict(model, variables)
    assert again.keys() == state.keys()
    for key, array in state.items():
        np.testing.assert_array_equal(again[key], array)
    # One of each kind by hand: a matrix is turned, a kernel has its channels last.
    leaves, names = flatten(variables), published_names(model, shapes)
    for path, published in names.items():
        ours, theirs = leaves[path], state[published]
        if theirs.ndim == 2:
            assert ours[1, 2] == theirs[2, 1]
        elif theirs.ndim == 4 and theirs.shape[-1] > 1:
            assert ours[0, 2, 1, 3] == theirs[3, 1, 0, 2]
        elif theirs.ndim == 4:
            assert ours.reshape(ours.shape[-2:])[0, 2] == theirs[2, 0, 0, 0]


@pytest.mark.slow
def test_prefixes_of_wrappers_and_counters_are_passed_over(tmp_path):
    model = build_classifier("resnet18", num_classes=CLASSES)
    rng = np.random.default_rng(0)
    state = {
        name: rng.normal(size=shape).astype(np.float16)
        for name, shape in RULES["resnet18"]().items()
    }
    file = File()
    saved = {f"module.{name}": file.tensor(array) for name, array in state.items()}
    saved["module.bn1.num_batches_tracked"] = file.tensor(np.array(7))
    path = write(tmp_path / "w.pt", file.zip({"state_dict": saved}))
    found = read_published(path)
    assert found.model.name == "resnet18" and found.model.num_classes == CLASSES
    assert found.class_names == ("class0", "class1", "class2", "class3", "class4")
    settings = found.settings
    assert settings["image_size"] == (224, 224)
    assert settings["loss"] == {"name": "cross_entropy"}
    # As torchvision and timm evaluate; pictures of ours lie whole on their canvas.
    assert settings["evaluate"] == {"letterbox": "centre_crop"}
    expected = from_state_dict(model, state)
    for path, leaf in flatten(found.variables).items():
        np.testing.assert_array_equal(leaf, flatten(expected)[path])


def test_the_linear_layers_of_timm_s_vgg_are_convolutions(tmp_path):
    rules = RULES["vgg11"]()
    state = zeros(rules)
    for ours, theirs in (("0", "pre_logits.fc1"), ("3", "pre_logits.fc2")):
        kernel = state.pop(f"classifier.{ours}.weight")
        side = 7 if ours == "0" else 1
        shape = (len(kernel), kernel.shape[1] // side**2, side, side)
        state[f"{theirs}.weight"] = np.broadcast_to(np.float32(0), shape)
        state[f"{theirs}.bias"] = state.pop(f"classifier.{ours}.bias")
    for end in ("weight", "bias"):
        state[f"head.fc.{end}"] = state.pop(f"classifier.6.{end}")
    found = recognised(state)
    assert found is not None and found.arguments["name"] == "vgg11"
    assert {name: array.shape for name, array in found.state.items()} == rules


@pytest.mark.parametrize(
    ("name", "changes", "letterbox"),
    [
        ("resnet18", dict(width=0.125, activation="silu", stem="deep"), "square"),
        pytest.param(
            "cspresnet50", dict(width=0.125), "square", marks=pytest.mark.slow
        ),
        ("cnn5", dict(dropout=0.5), "centre_crop"),
        pytest.param(
            "darknet19",
            dict(width=0.125, normalise={"name": "each"}),
            "square",
            marks=pytest.mark.slow,
        ),
    ],
    ids=["options", "cross-stage", "own paths", "own paths, normalised"],
)
def test_what_is_written_is_read_as_the_same_network_and_bits(
    name, changes, letterbox, tmp_path
):
    arguments = {"name": name, "num_classes": 3, **changes}
    model = build_classifier(**arguments)
    variables = model.init(2)
    settings = {"model": arguments, "image_size": (96, 64), "loss": {"name": "hinge"}}
    settings["evaluate"] = {"letterbox": letterbox}
    path = tmp_path / "w.safetensors"
    write_published(path, model, variables, ("a", "b", "c"), settings)
    found = read_published(path)
    assert found.arguments == arguments
    assert found.model.spec == model.spec and found.class_names == ("a", "b", "c")
    assert found.settings == settings
    one, two = flatten(found.variables), flatten(variables)
    assert one.keys() == two.keys()
    assert all(one[path].tobytes() == two[path].tobytes() for path in one)
    assert (found.model.normalise is None) == (model.normalise is None)


def test_a_detector_with_a_backbone_is_written_and_read(tmp_path):
    anchors = (((4.0, 5.0),), ((8.0, 9.0),), ((16.0, 17.5),))
    arguments = {
        "name": "yolo",
        "backbone": "resnet18",
        "backbone_arguments": {"width": 0.125},
        "num_classes": 2,
        "width": 0.125,
        "anchors": anchors,
    }
    model = build_model(**arguments)
    variables = model.init(0)
    settings = {"model": arguments, "image_size": (64, 96), "loss": {"name": "yolov5"}}
    path = tmp_path / "w.safetensors"
    write_published(path, model, variables, ("a", "b"), settings)
    found = read_published(path)
    assert json.loads(json.dumps(arguments)) == found.arguments
    assert found.settings["image_size"] == (64, 96)
    np.testing.assert_array_equal(found.model.anchors, model.anchors)
    one, two = flatten(found.variables), flatten(variables)
    assert one.keys() == two.keys()
    assert all(one[path].tobytes() == two[path].tobytes() for path in one)


def test_what_is_not_known_is_refused(tmp_path):
    def refused(state, message, about=None):
        path = tmp_path / "w.safetensors"
        write_safetensors(path, state, about or {})
        with pytest.raises(ValueError, match=message):
            read_published(path)

    fc = {f"fc.{n}": np.zeros(s, "f4") for n, s in (("weight", (2, 8)), ("bias", 2))}
    # Another number of blocks, or no last layer.
    layers = {
        f"layer{i}.0.conv1.weight": np.zeros((8, 8, 3, 3), "f4") for i in (1, 2, 3, 4)
    }
    refused(layers | fc, "nor a ResNet, VGG, AlexNet, Darknet-53")
    # The names of a ResNet-50, but other shapes.
    rules = RULES["resnet50"]()
    names = {name: np.zeros((1,) * len(shape), "f4") for name, shape in rules.items()}
    refused(names, "do not fit resnet50 with 1 classes: mis-shaped")
    del names["layer3.2.conv2.weight"]
    refused(names, r"missing \(1\): layer3.2.conv2.weight")
    # What stands beside the arrays is not believed.
    about = {"model": {"name": "resnet18", "num_classes": 2, "widht": 2}}
    refused(fc, "no argument 'widht'. Did you mean 'width'", about)
    about = {"model": {"name": "cnn11", "num_classes": 2}}
    own = {"params/head/linear/bias": np.zeros(3, "f4")}
    refused(own, "do not fit cnn11: 36 of its arrays are", about)
    about = {"model": {"name": ["darknet"], "path": "/etc/passwd"}}
    refused(fc, "not a YOLOv5 v6.0 detector", about)
    about = {"model": {"name": "darknet", "num_classes": 2, "path": "/etc/passwd"}}
    refused(fc, "not a YOLOv5 v6.0 detector", about)
