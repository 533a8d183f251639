import math

import numpy as np
import pytest

from yolojax.models.detector import build_model
from yolojax.models.initial import anchor_prior, draw_variables
from yolojax.trees import flatten


class Shape:
    def __init__(self, *shape):
        self.shape = shape


def test_kernels_and_their_biases_fill_the_published_range():
    tree = {"params": {"a": {"kernel": Shape(3, 3, 40, 64), "bias": Shape(5000)}}}
    leaves = draw_variables(tree, 0)["params"]["a"]
    bound = 1 / math.sqrt(3 * 3 * 40)
    for values in leaves.values():
        assert values.dtype == np.float32
        assert np.abs(values).max() <= bound
        # A uniform variable in +-bound has this standard deviation.
        np.testing.assert_allclose(values.std(), bound / math.sqrt(3), rtol=0.03)
        np.testing.assert_allclose(values.mean(), 0, atol=0.03 * bound)
    assert not np.array_equal(leaves["kernel"].ravel()[:5000], leaves["bias"])


@pytest.mark.parametrize(
    "name, variance, limit",
    [
        ("he_normal", 2 / 360, None),
        ("he_uniform", 2 / 360, math.sqrt(6 / 360)),
        ("xavier_normal", 2 / (360 + 576), None),
        ("xavier_uniform", 2 / (360 + 576), math.sqrt(6 / (360 + 576))),
        ("lecun_normal", 1 / 360, None),
        ("orthogonal", 1 / 360, None),
    ],
)
def test_named_initialisers_have_the_published_variance(name, variance, limit):
    """Of a 3 x 3 kernel: 360 inputs of an output, 576 outputs of an input."""
    shapes = {"kernel": Shape(3, 3, 40, 64), "bias": Shape(64), "scale": Shape(64)}
    drawn, again, other = (
        draw_variables({"params": {"a": shapes}}, seed, kernels=name)["params"]["a"]
        for seed in (0, 0, 1)
    )
    kernel = drawn["kernel"]
    assert kernel.dtype == np.float32 and kernel.shape == (3, 3, 40, 64)
    np.testing.assert_allclose(kernel.var(), variance, rtol=0.02)
    np.testing.assert_allclose(kernel.mean(), 0, atol=0.02 * math.sqrt(variance))
    if limit is None and name != "orthogonal":
        # Of a normal variable 4.55 % are beyond two deviations.
        beyond = np.mean(np.abs(kernel) > 2 * math.sqrt(variance))
        np.testing.assert_allclose(beyond, 0.0455, atol=0.006)
    if limit is not None:
        assert 0.99 * limit < np.abs(kernel).max() <= limit
    np.testing.assert_array_equal(kernel, again["kernel"])
    assert not np.array_equal(kernel, other["kernel"])
    assert not drawn["bias"].any() and (drawn["scale"] == 1).all()


def test_parameters_may_start_from_constants_of_their_own():
    shapes = {
        "params": {
            "layer_scale": {"scale": Shape(3)},
            "other_layer_scale": {"scale": Shape(3)},
            "a": {"kernel": Shape(4, 5), "layer_scale": {"scale": Shape(2)}},
        }
    }
    plain = flatten(draw_variables(shapes, 1))
    given = flatten(draw_variables(shapes, 1, starts={"layer_scale/scale": 1e-6}))
    for path, values in given.items():
        if "/layer_scale/" in path:
            assert (values == np.float32(1e-6)).all() and values.dtype == np.float32
        else:
            np.testing.assert_array_equal(values, plain[path])


@pytest.mark.parametrize("ends", [(40, 64), (8, 300), (50, 50)])
def test_orthogonal_kernels_keep_lengths(ends):
    shapes = {"params": {"a": {"kernel": Shape(2, 1, *ends)}}}
    kernel = draw_variables(shapes, 3, kernels="orthogonal")["params"]["a"]["kernel"]
    matrix = kernel.reshape(-1, ends[1]).astype(np.float64)
    if matrix.shape[0] < matrix.shape[1]:
        matrix = matrix.T
    np.testing.assert_allclose(matrix.T @ matrix, np.eye(matrix.shape[1]), atol=1e-6)


def test_a_network_starts_from_the_named_initialiser():
    model = build_model("yolov5n", num_classes=2, width=0.125)
    published, named = (
        flatten(model.init(0)),
        flatten(model.init(0, kernels="he_normal")),
    )
    for path, values in named.items():
        drawn = path.endswith("/kernel") or "/head/" in path
        assert np.array_equal(values, published[path]) is not drawn, path
    prior = anchor_prior(2, 8, 3)
    np.testing.assert_array_equal(named["params/head/level3/bias"], prior)
    with pytest.raises(ValueError, match="no initialiser of kernels named 'he'"):
        model.init(0, kernels="he")


def test_a_parameter_depends_on_seed_and_path_and_on_nothing_else():
    few = build_model("yolov5n", num_classes=3, width=0.125)
    many = build_model("yolov5n", num_classes=80, width=0.125, depth=1.0)
    ours, theirs = flatten(few.init(7)), flatten(many.init(7))
    same = {k for k in ours if not k.startswith("params/head")}
    assert same < set(theirs)
    for path in same:
        np.testing.assert_array_equal(ours[path], theirs[path], err_msg=path)
        assert type(ours[path]) is np.ndarray and ours[path].dtype == np.float32


def test_seeds_differ_in_every_drawn_parameter_and_repeat_exactly():
    model = build_model("yolov5n", num_classes=2, width=0.125)
    first, again, other = (flatten(model.init(seed)) for seed in (0, 0, 1))
    for path, values in first.items():
        np.testing.assert_array_equal(values, again[path])
        drawn = path.endswith("/kernel") or "/head/" in path
        assert np.array_equal(values, other[path]) is not drawn, path


def test_norms_start_as_the_identity():
    model = build_model("yolov5n", num_classes=2, width=0.125)
    leaves = {p: v for p, v in flatten(model.init(0)).items() if "/norm/" in p}
    starts = {"scale": 1, "bias": 0, "mean": 0, "var": 1}
    for path, values in leaves.items():
        assert (values == starts[path.rpartition("/")[2]]).all(), path


def test_prior_of_the_head_by_hand():
    # Stride 32: 20 x 20 cells of a 640 px picture share 8 objects; .6/79.00001.
    prior = anchor_prior(80, 32, 3).reshape(3, 85)
    assert (prior[:, :4] == 0).all()
    np.testing.assert_allclose(prior[:, 4], -3.912023, rtol=1e-6)
    np.testing.assert_allclose(prior[:, 5:], -4.880274, rtol=1e-6)


def test_biases_of_the_head_start_near_their_prior():
    model = build_model("yolov5n6", num_classes=4)
    head = model.init(3)["params"]["head"]
    assert list(head) == ["level3", "level4", "level5", "level6"]
    for stride, level in zip((8, 16, 32, 64), head.values(), strict=True):
        away = np.abs(level["bias"] - anchor_prior(4, stride, 3))
        assert 0 < away.max() <= 1 / math.sqrt(level["kernel"].shape[0]) + 1e-6
