import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.shared import shared
from yolojax.models.detector import build_model
from yolojax.models.specs import YOLOV5
from yolojax.trees import flatten
from yolojax.weights.mapping import yolov5_names

# Trainable parameters at 80 classes, as published with release 6.0.
PARAMETERS = {
    "yolov5n": 1_872_157,
    "yolov5s": 7_235_389,
    "yolov5m": 21_190_557,
    "yolov5l": 46_563_709,
    "yolov5x": 86_749_405,
    "yolov5n6": 3_246_940,
    "yolov5s6": 12_626_620,
    "yolov5m6": 35_731_932,
    "yolov5l6": 76_770_172,
    "yolov5x6": 140_794_780,
}


def tiny(**changes):
    # One block a stage: what a test of the network costs is its compilation.
    return build_model("yolov5n", num_classes=3, width=0.125, depth=0.1, **changes)


def pictures(*shape, seed=0):
    return np.random.default_rng(seed).random((*shape, 3), dtype=np.float32)


def equations(jaxpr):
    """All equations of a program, those of inner programs included."""
    for equation in jaxpr.eqns:
        yield equation
        for value in equation.params.values():
            if hasattr(value, "jaxpr"):
                yield from equations(value.jaxpr)


def test_parameter_counts_are_listed_for_every_model():
    assert set(PARAMETERS) == set(YOLOV5)


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_count_is_the_published_one(name):
    shapes = build_model(name, num_classes=80).shapes()["params"]
    assert sum(s.size for s in flatten(shapes).values()) == PARAMETERS[name]


@pytest.mark.parametrize("name", PARAMETERS)
def test_every_layer_has_as_many_parameters_as_the_published_one(name):
    published = json.loads(shared("golden", "arch.json").read_text())[f"{name}.yaml"]
    model = build_model(name, num_classes=80)
    shapes, counts = flatten(model.shapes()), {}
    for path, original in yolov5_names(model).items():
        if path.startswith("params/"):
            number = int(original.split(".")[1])
            counts[number] = counts.get(number, 0) + shapes[path].size
    assert counts == {row[0]: row[3] for row in published["layers"] if row[3]}
    assert list(model.strides) == published["stride"]
    cells = model.anchors / np.float32(model.strides)[:, None, None]
    np.testing.assert_allclose(cells, published["anchors_grid"], rtol=1e-6)


@pytest.mark.parametrize("name", YOLOV5)
def test_every_model_maps_pictures_that_are_not_square(name):
    model = build_model(name, num_classes=5)
    h, w = 2 * model.max_stride, 3 * model.max_stride
    images = jax.ShapeDtypeStruct((2, h, w, 3), jnp.float32)
    shapes = model.shapes()
    maps, stats = jax.eval_shape(
        lambda v, x: model.apply(v, x, train=True), shapes, images
    )
    expected = [(2, h // s, w // s, 3, 10) for s in model.strides]
    assert [m.shape for m in maps] == expected
    assert {m.dtype for m in maps} == {jnp.dtype("float32")}
    assert jax.tree.map(lambda s: s.shape, stats) == jax.tree.map(
        lambda s: s.shape, shapes["batch_stats"]
    )


def test_feature_info_says_what_the_head_sees():
    model = build_model("yolov5s6", num_classes=2)
    assert model.feature_info == ((128, 8), (256, 16), (384, 32), (512, 64))
    head = model.shapes()["params"]["head"]
    assert [s["kernel"].shape[0] for s in head.values()] == [128, 256, 384, 512]


@pytest.mark.slow
def test_gradient_reaches_every_parameter():
    model = tiny()
    variables = model.init(0)
    images = pictures(2, 64, 96)
    sizes = [(2, 64 // s, 96 // s, 3, 8) for s in model.strides]
    rng = np.random.default_rng(1)
    weights = [rng.normal(size=size).astype(np.float32) for size in sizes]

    def value(params):
        maps, _ = model.apply({**variables, "params": params}, images, train=True)
        return sum(jnp.sum(m * w) for m, w in zip(maps, weights, strict=True))

    for path, gradient in flatten(
        jax.jit(jax.grad(value))(variables["params"])
    ).items():
        assert np.isfinite(gradient).all(), path
        assert np.abs(gradient).max() > 1e-6, path


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_keeps_parameters_statistics_and_maps_in_float32(dtype):
    model = tiny(dtype=dtype)
    shapes, images = model.shapes(), pictures(2, 64, 64)
    for train in (False, True):
        forward = functools.partial(model.apply, train=train)
        results = jax.eval_shape(forward, shapes, images)
        dtypes = {leaf.dtype for leaf in jax.tree.leaves((shapes, results))}
        assert dtypes == {jnp.dtype("float32")}
    program = jax.make_jaxpr(forward)(shapes, images)
    products = [
        e
        for e in equations(program.jaxpr)
        if e.primitive.name in ("conv_general_dilated", "dot_general")
    ]
    # A kernel has two axes or four.
    assert len(products) == sum(s.ndim > 1 for s in jax.tree.leaves(shapes))
    for product in products:
        assert {v.aval.dtype for v in product.invars} == {jnp.dtype(dtype)}


def test_float64_computes_wholly_in_float64():
    with jax.enable_x64(True):
        model = tiny(dtype="float64")
        variables = jax.tree.map(lambda x: np.asarray(x, np.float64), model.init(0))
        images = pictures(1, 32, 64).astype(np.float64)

        def value(params):
            maps, stats = model.apply(
                {**variables, "params": params}, images, train=True
            )
            return sum(jnp.sum(m) for m in maps), stats

        program = jax.make_jaxpr(jax.value_and_grad(value, has_aux=True))(
            variables["params"]
        )
    assert "f64[" in str(program)
    assert "f32[" not in str(program)


def test_evaluation_returns_the_statistics_as_they_came():
    model = tiny()

    def forward(variables, images):
        maps, stats = model.apply(variables, images, train=False)
        assert stats is variables["batch_stats"]
        return maps

    jax.eval_shape(forward, model.shapes(), pictures(1, 32, 32))


def test_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match="Did you mean 'yolov5n6'"):
        build_model("yolo5n6", num_classes=1)


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(num_classes=0), "num_classes of .* is 0; a network needs at least 1"),
        (dict(dtype="float8"), "no dtype named 'float8'. Choices: float32, bfloat16"),
        (dict(width=0.0), "width of yolov5n is 0.0; it must be above 0"),
        (dict(anchors=(((1, 2),),) * 2), "must be 3 levels of equally many"),
        (dict(anchors=(((1, 2),), (), ((3, 4),))), "must be 3 levels of equally many"),
        (dict(anchors=(((1, 2, 3),),) * 3), r"\(width, height\) pairs"),
        (dict(anchors=(((1, -2),),) * 3), "pairs above 0"),
    ],
)
def test_wrong_arguments_are_errors_with_the_way_out(changes, message):
    with pytest.raises(ValueError, match=message):
        build_model("yolov5n", **{"num_classes": 1, **changes})


def test_a_size_that_the_strides_do_not_divide_is_an_error():
    model = tiny()
    message = r"\(100, 128\) is not divisible by 32.*take \(96, 128\) or \(128, 128\)"
    with pytest.raises(ValueError, match=message):
        model.init(0, image_size=(100, 128))
    with pytest.raises(ValueError, match=message):
        model.apply(model.init(0), pictures(1, 100, 128), train=False)
    with pytest.raises(ValueError, match=r"must be \[b, h, w, 3\]; got \[64, 64, 3\]"):
        model.apply(model.init(0), pictures(64, 64), train=False)


def test_own_anchors_replace_the_published_ones():
    anchors = (((1, 2), (3, 4)),) * 3
    model = tiny(anchors=anchors)
    np.testing.assert_array_equal(model.anchors, np.float32(anchors))
    assert model.shapes()["params"]["head"]["level3"]["bias"].shape == (2 * 8,)
