import functools
import re

import jax
import numpy as np
import pytest

from tests.shared import shared
from tests.weights.pickles import File, module, nested, odict, write
from yolojax.models.detector import build_model
from yolojax.models.specs import YOLOV5
from yolojax.trees import flatten, unflatten
from yolojax.weights.mapping import from_state_dict, to_state_dict, yolov5_names
from yolojax.weights.published import (
    infer_arguments,
    placeholder_names,
    read_published,
    write_published,
)


def tiny(**changes):
    return build_model(
        "yolov5n", **{"num_classes": 2, "width": 0.125, "depth": 0.33} | changes
    )


@functools.cache
def _first():
    model = tiny()
    variables = model.init(0)
    return variables, to_state_dict(model, variables)


def first_variables():
    return _first()[0]


def first_state():
    """A fresh copy: tests change it."""
    return dict(_first()[1])


def same_bits(one, two):
    one, two = flatten(one), flatten(two)
    assert set(one) == set(two)
    for path, array in one.items():
        assert array.dtype == two[path].dtype
        np.testing.assert_array_equal(array, two[path], err_msg=path)


def saved(path, state, **about):
    """A training checkpoint as YOLOv5 writes it: modules in half precision."""
    file = File()
    halves = {
        name.replace(".", "/"): file.tensor(np.asarray(array, np.float16))
        for name, array in state.items()
    }
    inner = nested(unflatten(halves)["model"])
    top = module("models.yolo.Model", about, modules={"model": inner})
    return write(path, file.zip({"epoch": 3, "model": top, "ema": None}))


def test_the_published_file_becomes_the_same_variables_as_the_golden_state():
    found = read_published(shared("weights", "yolov5n.pt"))
    with np.load(shared("golden", "state_n_real.npz")) as file:
        expected = from_state_dict(found.model, dict(file))
    same_bits(found.variables, expected)
    assert found.arguments["name"] == found.model.name == "yolov5n"
    assert not {"width", "depth"} & set(found.arguments)
    np.testing.assert_array_equal(
        found.model.anchors[0], [[10, 13], [16, 30], [33, 23]]
    )
    assert found.class_names[79] == "toothbrush"
    assert found.settings["image_size"] == (640, 640)


@pytest.mark.parametrize("name", YOLOV5)
def test_each_published_size_is_told_from_its_names_and_shapes(name):
    model = build_model(name, num_classes=7)
    shapes, names = flatten(model.shapes()), yolov5_names(model)
    state = {}
    for path, published in names.items():
        # Zeros that take no memory, turned as the original has them.
        shape = shapes[path].shape
        if path.endswith("/kernel"):
            h, w, i, o = (1, 1, *shape)[-4:]
            shape = (o, i, h, w)
        state[published] = np.broadcast_to(np.float32(0), shape)
    assert infer_arguments(state, {}) == {"name": name, "num_classes": 7}


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("yolov5n", {"width": 0.125}),
        ("yolov5n", {"width": 0.125, "depth": 0.67}),
        ("yolov5n6", {"width": 0.125, "num_classes": 1}),
        ("yolov5n", {"width": 0.125, "anchors": [[[3.3, 4.1], [5, 6]]] * 3}),
    ],
    ids=["narrow", "deep", "four levels", "anchors"],
)
def test_what_is_written_is_read_as_the_same_network_and_bits(name, changes, tmp_path):
    model = build_model(name, **{"num_classes": 3} | changes)
    variables, classes = model.init(1), ("ä", "b", "c")[: model.num_classes]
    path = tmp_path / "a.safetensors"
    write_published(path, model, variables, classes)
    found = read_published(path)
    same_bits(found.variables, variables)
    assert found.class_names == classes
    assert found.model.spec.stage_features == model.spec.stage_features
    assert found.model.strides == model.strides
    np.testing.assert_array_equal(found.model.anchors, model.anchors)


def test_a_training_checkpoint_gives_classes_anchors_and_half_precision(tmp_path):
    state = first_state()
    cells = np.arange(1, 19, dtype=np.float32).reshape(3, 3, 2)
    state["model.24.anchors"] = cells
    state["model.0.bn.num_batches_tracked"] = np.zeros(())
    path = saved(tmp_path / "a.pt", state, names=["cat", "dog"], yaml={"nc": 2})
    found = read_published(path)
    assert found.class_names == ("cat", "dog")
    np.testing.assert_array_equal(
        found.model.anchors, cells * np.array([8, 16, 32])[:, None, None]
    )
    halves = jax.tree.map(lambda a: np.float32(np.float16(a)), first_variables())
    same_bits(found.variables, halves)


def test_a_bare_state_dict_has_made_up_class_names_and_any_prefix(tmp_path):
    for prefix in ("", "model.model."):
        file = File()
        state = {prefix + k: file.tensor(a) for k, a in first_state().items()}
        path = write(tmp_path / "a.pth", file.legacy({"state_dict": odict(state)}))
        found = read_published(path)
        assert found.class_names == placeholder_names(2) == ("class0", "class1")
        same_bits(found.variables, first_variables())


def test_double_precision_becomes_float32(tmp_path):
    file = File()
    state = {k: file.tensor(a.astype(np.float64)) for k, a in first_state().items()}
    found = read_published(write(tmp_path / "a.pt", file.zip(state)))
    same_bits(found.variables, first_variables())


def test_anchors_of_the_description_count_where_there_are_no_others():
    state = first_state()
    state["model.24.m.0.weight"] = np.zeros((14, 32, 1, 1))
    arguments = infer_arguments(state, {"anchors": [[1, 2, 3, 4]] * 3})
    assert arguments["anchors"] == (((1, 2), (3, 4)),) * 3
    assert arguments["num_classes"] == 2
    assert "anchors" not in infer_arguments(first_state(), {"anchors": 3})
    assert "anchors" not in infer_arguments(first_state(), {"anchors": [["a"]]})


def found_in(tmp_path, state, **about):
    with pytest.raises(ValueError) as caught:
        read_published(saved(tmp_path / "a.pt", state, **about))
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'a.pt'}: ")
    return message


def test_another_network_is_refused_with_what_was_found(tmp_path):
    focus = {"model.0.conv.conv.weight": np.zeros((8, 12, 3, 3))}
    message = found_in(tmp_path, focus)
    assert "not a YOLOv5 v6.0 detector: it has no model.0.conv.weight" in message
    assert "found: 1 tensors (model.0.conv.conv.weight (8, 12, 3, 3), ...)" in message
    assert "built from Model, Module" in message


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("model.0.conv.weight", (9, 3, 6, 6), "no YOLOv5 v6.0 has 9, 16, 32, 64, 128"),
        ("model.0.conv.weight", (), "no YOLOv5 v6.0 has 0, 16, 32, 64, 128 channels"),
        ("model.2.m.7.cv1.conv.weight", (1,), "and 2, 2, 3, 1 blocks in its stages"),
        ("model.24.m.0.weight", (22, 32, 1, 1), "has 22 outputs, which 3 anchors"),
        ("model.24.m.0.weight", (15, 32, 1, 1), "has 15 outputs, which 3 anchors"),
        ("model.24.m.1.weight", (18, 64, 1, 1), r"came \(18, 64, 1, 1\)"),
        ("model.24.proto.weight", (1,), r"unused \(1\): model.24.proto.weight"),
        ("model.24.anchors", (5, 3, 2), r"expected \[3, anchors, 2\]"),
        ("model.24.anchors", (3, 0, 2), "must be 3 levels of equally many"),
        ("model.24.anchors", (3, 3, 2), "must be 3 levels of equally many"),
    ],
)
def test_a_part_that_does_not_fit_is_named(name, shape, message, tmp_path):
    state = first_state() | {name: np.zeros(shape)}
    assert re.search(message, found_in(tmp_path, state))


def test_a_missing_array_is_named(tmp_path):
    state = first_state()
    del state["model.9.cv1.bn.running_var"]
    assert "missing (1): model.9.cv1.bn.running_var" in found_in(tmp_path, state)


def test_other_strides_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"its strides are \(4, 8, 16\), not"):
        file = File()
        state = first_state()
        halves = {k.replace(".", "/"): file.tensor(v) for k, v in state.items()}
        stride = file.tensor(np.array([4.0, 8, 16], np.float32))
        inner = nested(unflatten(halves)["model"])
        top = module("models.yolo.Model", {"stride": stride}, modules={"model": inner})
        read_published(write(tmp_path / "a.pt", file.zip({"model": top})))


def test_only_safetensors_are_written(tmp_path):
    with pytest.raises(ValueError, match="written as .safetensors only"):
        write_published(tmp_path / "a.pt", tiny(), first_variables(), ("a", "b"))


def test_a_missing_file_says_so(tmp_path):
    with pytest.raises(ValueError, match="there is no such file"):
        read_published(tmp_path / "nothing.pt")
