"""What stands beside arrays is not believed: networks that files describe."""

import json
import time

import numpy as np
import pytest
from safetensors.numpy import save

from tests.weights.pickles import File, module, write
from tests.weights.test_pytorch_hostile import laughs
from yolojax.models.classifiers import build_classifier
from yolojax.weights import descriptions, own
from yolojax.weights.published import read_published

WEIGHT = {"a": np.zeros((4, 4), np.float32)}


def saved(path, about, arrays=None):
    text = json.dumps(about) if isinstance(about, dict) else about
    return write(path, save(arrays or WEIGHT, {"yolojax": text}))


def network(name, **arguments):
    return {"model": {"name": name, "num_classes": 2, **arguments}}


WRONG = {
    "no classes": ({"model": {"name": "resnet18"}}, "model 'resnet18' needs num_clas"),
    "infinite classes": (
        '{"model": {"name": "resnet18", "num_classes": 1e999}}',
        "num_classes must be a whole number, not inf",
    ),
    "classes in text": (network("resnet18", num_classes="2"), "num_classes must be a"),
    "list of classes": (network("resnet18", num_classes=[2]), "num_classes must be a"),
    "true classes": (network("resnet18", num_classes=True), "num_classes of resnet18"),
    "half a class": (network("resnet18", num_classes=2.5), "must be a whole number"),
    "no class": (network("resnet18", num_classes=0), "needs at least 1"),
    "a million and one": (
        network("resnet18", num_classes=1_000_001),
        "num_classes of resnet18 is 1,000,001; at most 1,000,000",
    ),
    "huge classes": (network("yolo", num_classes=2**62), "num_classes of yolo is 4,61"),
    "width in text": (network("resnet18", width="1"), "width must be a number, not '1"),
    "huge width": (network("resnet18", width=1e9), "must be above 0 and at most 100"),
    "width of nothing": (network("resnet18", width=0), "must be above 0 and at most"),
    "negative width": (network("resnet18", width=-1), "must be above 0 and at most"),
    "list as activation": (network("resnet18", activation=["relu"]), "must be text"),
    "unknown activation": (network("resnet18", activation="x\x1b"), r"x\\x1b"),
    "dict as dtype": (network("resnet18", dtype={}), "dtype must be text, not {}"),
    "list as stem": (network("resnet18", stem=[]), "stem must be text"),
    "dict as normalise": (
        network("resnet18", normalise={"name": []}),
        "must be a name",
    ),
    "number as normalise": (network("resnet18", normalise=3), "cannot be built"),
    "depth of a billion": (
        network("efficientnet_b0", depth=1e9),
        r"description has depth 1e\+09; at most 6 is read",
    ),
    "depth of seven": (network("yolo", backbone="resnet18", depth=7), "depth 7; at"),
    "depth of the backbone": (
        network("yolo", backbone="resnet18", backbone_arguments={"depth": 1e9}),
        "depth 1e",
    ),
    "list as backbone": (
        network("yolo", backbone=["resnet18"]),
        "backbone must be text",
    ),
    "arguments in text": (
        network("yolo", backbone="resnet18", backbone_arguments="x"),
        None,
    ),
    "anchors in text": (network("yolo", backbone="resnet18", anchors="abc"), None),
    "anchors of numbers": (
        network("yolo", backbone="resnet18", anchors=[1, 2, 3]),
        None,
    ),
    "anchors of text": (
        network("yolo", backbone="resnet18", anchors=[[["a", "b"]]] * 3),
        None,
    ),
    "nested": (
        network("resnet18", width=[[[[[[[[[[1]]]]]]]]]]),
        "too large, or contain",
    ),
    "unknown argument": (network("resnet18", **{"\x1b[31m": 1}), r"no argument '.x1b"),
    "long argument": (network("resnet18", **{"a" * 300_000: 1}), "too large, or conta"),
    "names of three classes": (
        {**network("cnn11"), "class_names": ["a", "b", "c"]},
        None,
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_description_is_one_clear_error(name, tmp_path):
    about, message = WRONG[name]
    path = saved(tmp_path / "a.safetensors", about)
    start = time.monotonic()
    with pytest.raises(ValueError, match=message) as caught:
        read_published(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    assert text.isprintable()
    assert len(text) < 1_500
    assert time.monotonic() - start < 60  # a hang limit


ROWS = [[-1, 1, "Conv", [8, 3, 2]]] * 3


def described(**changes):
    about = {
        "nc": 2,
        "depth_multiple": 1.0,
        "width_multiple": 1.0,
        "anchors": 3,
        "backbone": [*ROWS, [-1, 1, "C3", [8]]],
        "head": [[[3], 1, "Detect", ["nc", "anchors"]]],
    }
    return {**about, **changes}


# The description in a module, and what its error says.
HOSTILE_YAML = {
    "many blocks": (
        described(backbone=[*ROWS, [-1, 300, "C3", [8]]]),
        "its description has 304 blocks, and the file 1 arrays",
    ),
    "very many blocks": (
        described(backbone=[*ROWS, [-1, 399, "C3", [8]]], depth_multiple=100),
        "more than 400 layers up to here",
    ),
    "laughs": (described(anchors=laughs()), "too large, or contains itself"),
    "laughs of text": (described(activation=["x" * 10_000] * 100), "is too large"),
    "bytes": (described(backbone=b"abc"), "its description holds a bytes"),
    "complex key": (described(head=[{1: 2}]), "its description holds a dict"),
    "large number": (described(nc=2**70), "its description holds a int"),
    "infinite depth": (described(depth_multiple=float("inf")), "depth_multiple must"),
    "no depth": (described(depth_multiple=float("nan")), "depth_multiple must be"),
    "text as rows": (described(backbone="abc"), "backbone must be a list of rows"),
    "set": (described(head={1, 2}), "its description holds a set"),
    "escape": (described(activation="\x1b[31m"), r"activation '.x1b.31m' is not known"),
    "module with an escape": (
        described(backbone=[*ROWS, [-1, 1, "C3\x1b[2J", [8]]]),
        r"'C3.x1b.2J' is no module's name",
    ),
}


@pytest.mark.parametrize("name", HOSTILE_YAML)
def test_a_hostile_description_in_a_checkpoint_is_one_clear_error(name, tmp_path):
    about, message = HOSTILE_YAML[name]
    file = File()
    buffers = {"w": file.tensor(np.zeros(3, np.float32))}
    top = module("models.yolo.Model", {"yaml": about}, buffers=buffers)
    path = write(tmp_path / "a.pt", file.zip({"model": top}))
    with pytest.raises(ValueError, match=message) as caught:
        read_published(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1_000


def test_what_a_checkpoint_says_of_a_classifier_of_ours_is_typed_too(tmp_path):
    """Only a `.safetensors` has such metadata; a checkpoint may pretend to."""
    model = build_classifier("cnn11", num_classes=2)
    arrays = own.to_own(model, model.init(0))
    about = {
        "model": {"name": "cnn11", "num_classes": 2},
        "image_size": [2**31, 64],
        "letterbox": [laughs()],
        "loss": laughs(),
    }
    file = File()
    tensors = {name: file.tensor(array) for name, array in arrays.items()}
    path = write(tmp_path / "a.pt", file.zip({**tensors, "yaml": about}))
    assert read_published(path).settings == {
        "model": {"name": "cnn11", "num_classes": 2},
        "image_size": (224, 224),
        "loss": {"name": "cross_entropy"},
        "evaluate": {"letterbox": "square"},
    }


def test_names_of_tensors_and_classes_in_errors_have_no_escapes(tmp_path):
    file = File()
    odd = "x\x1b]0;t\x07\u202e\n"
    parts = {odd: module("m.K\x1b[2J", buffers={"w": file.tensor(np.zeros(3, "f4"))})}
    path = write(tmp_path / "a.pt", file.zip({"model": module("m.M", modules=parts)}))
    with pytest.raises(ValueError, match="not a YOLOv5") as caught:
        read_published(path)
    assert str(caught.value).isprintable()
    assert r"x\x1b]0;t\x07\u202e\n.w (3,)" in str(caught.value)
    assert r"built from M, K\x1b[2J" in str(caught.value)


def test_what_a_description_may_hold_is_counted():
    with pytest.raises(ValueError, match="too large"):
        descriptions.plain(["x" * 1_000] * 201)
    assert descriptions.plain({"a": (1, [None, 2.5])}) == {"a": [1, [None, 2.5]]}
