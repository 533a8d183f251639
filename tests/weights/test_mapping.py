import numpy as np
import pytest

from tests.shared import shared
from yolojax.models.detector import build_model
from yolojax.models.specs import YOLOV5
from yolojax.trees import flatten
from yolojax.weights.mapping import (
    from_state_dict,
    published_anchors,
    to_state_dict,
    yolov5_names,
)


@pytest.fixture(scope="module")
def model():
    return build_model("yolov5n", num_classes=2, width=0.125)


@pytest.fixture(scope="module")
def state(model):
    return to_state_dict(model, model.init(0))


def test_names_by_hand(model):
    names = yolov5_names(model)
    expected = {
        "params/backbone/stem/conv/kernel": "model.0.conv.weight",
        "params/backbone/stage3/block1/spatial/norm/scale": "model.4.m.1.cv2.bn.weight",
        "batch_stats/backbone/pool/merge/norm/var": "model.9.cv2.bn.running_var",
        "params/neck/top_down3/merge/conv/kernel": "model.17.cv3.conv.weight",
        "batch_stats/neck/bottom_up5/bypass/norm/mean": "model.23.cv2.bn.running_mean",
        "params/head/level4/bias": "model.24.m.1.bias",
    }
    assert {path: names[path] for path in expected} == expected


@pytest.mark.parametrize("name", YOLOV5)
def test_no_two_variables_share_a_name(name):
    names = yolov5_names(build_model(name, num_classes=1))
    assert len(set(names.values())) == len(names)


def test_published_parameters_survive_the_round_trip_bit_for_bit():
    model = build_model("yolov5n", num_classes=80)
    with np.load(shared("golden", "state_n_real.npz")) as file:
        published = dict(file)
    back = to_state_dict(model, from_state_dict(model, published))
    left_out = set(published) - set(back)
    assert {name.rpartition(".")[2] for name in left_out} == {
        "num_batches_tracked",
        "anchors",
    }
    for name, array in back.items():
        assert array.shape == published[name].shape
        np.testing.assert_array_equal(array, published[name], err_msg=name)


def test_our_variables_survive_the_round_trip_bit_for_bit(model, state):
    ours, back = flatten(model.init(0)), flatten(from_state_dict(model, state))
    assert set(ours) == set(back)
    for path, array in ours.items():
        np.testing.assert_array_equal(array, back[path], err_msg=path)


def test_a_convolution_changes_axes_and_a_1x1_becomes_a_matrix(model, state):
    variables = from_state_dict(model, state)["params"]["backbone"]
    stem, squeeze = variables["stem"]["conv"], variables["pool"]["squeeze"]["conv"]
    assert stem["kernel"].shape == (6, 6, 3, 8)
    assert stem["kernel"][1, 2, 0, 5] == state["model.0.conv.weight"][5, 0, 1, 2]
    assert squeeze["kernel"][3, 4] == state["model.9.cv1.conv.weight"][4, 3, 0, 0]


def test_half_precision_becomes_float32_and_float64_stays(model, state):
    for given, expected in (("float16", "float32"), ("float64", "float64")):
        cast = {name: array.astype(given) for name, array in state.items()}
        leaves = flatten(from_state_dict(model, cast)).values()
        assert {str(leaf.dtype) for leaf in leaves} == {expected}


def test_every_misfit_is_listed_at_once(model, state):
    changed = dict(state)
    del changed["model.0.conv.weight"]
    changed["model.99.weight"] = np.zeros(3, np.float32)
    changed["model.24.m.0.bias"] = np.zeros(255, np.float32)
    with pytest.raises(ValueError) as caught:
        from_state_dict(model, changed)
    message = str(caught.value)
    assert "do not fit yolov5n with 2 classes" in message
    assert (
        "missing (1): model.0.conv.weight (params/backbone/stem/conv/kernel)" in message
    )
    assert "unused (1): model.99.weight" in message
    assert "mis-shaped (1): model.24.m.0.bias (params/head/level3/bias): " in message
    assert "expected (21,), came (255,)" in message


def test_another_size_is_told_with_the_first_misfits(state):
    with pytest.raises(ValueError, match=r"mis-shaped \(\d+\): .*, and \d+ more$"):
        from_state_dict(build_model("yolov5n", num_classes=2), state)


def test_a_kernel_of_another_rank_is_mis_shaped(model, state):
    flat = state["model.0.conv.weight"].reshape(8, -1)
    with pytest.raises(ValueError, match=r"expected \(8, 3, 6, 6\), came \(8, 108\)"):
        from_state_dict(model, {**state, "model.0.conv.weight": flat})


def test_anchors_are_read_in_pixels():
    with np.load(shared("golden", "state_n_real.npz")) as file:
        anchors = published_anchors(dict(file), (8, 16, 32))
    expected = build_model("yolov5n", num_classes=80).anchors
    np.testing.assert_allclose(anchors, expected, rtol=1e-3)
    assert published_anchors({}, (8, 16, 32)) is None
    with pytest.raises(ValueError, match=r"expected \[3, anchors, 2\]"):
        published_anchors({"model.33.anchors": np.zeros((4, 3, 2))}, (8, 16, 32))
