import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.losses.plain_darknet import Setting, plain_loss
from yolojax.engine.sharding import make_mesh, put_batch
from yolojax.losses.darknet import yolov3_loss, yolov4_loss
from yolojax.ops.grid import Decoding, decode_maps

# The second anchor of the first level is the first one of the second level, as
# YOLOv4-tiny has it; no level uses the last prior.
PRIORS = np.array([[10, 14], [23, 27], [37, 20], [16, 50]], np.float32)
ANCHORS = PRIORS[[[0, 1], [1, 2]]]
STRIDES = (8, 16)
SIZE = 64, 80
LN2 = math.log(2)
HEAD = {"anchors": ANCHORS, "strides": STRIDES, "priors": PRIORS}
V3 = functools.partial(yolov3_loss, **HEAD, scales=(1.0, 1.0))
V4 = functools.partial(yolov4_loss, **HEAD, scales=(1.2, 1.1))


def random_inputs(num_boxes=6, batch=4, num_classes=3, seed=0):
    """Maps of two levels and boxes, of which the first of each picture are valid."""
    rng = np.random.default_rng(seed)
    shapes = [(SIZE[0] // s, SIZE[1] // s, 2, 5 + num_classes) for s in STRIDES]
    maps = tuple(rng.normal(size=(batch, *s)).astype(np.float32) for s in shapes)
    centres = rng.uniform((0, 0), SIZE[::-1], (batch, num_boxes, 2))
    sides = rng.uniform(6, 40, centres.shape)
    boxes = np.concatenate([centres - sides / 2, centres + sides / 2], axis=-1)
    labels = rng.integers(0, num_classes, (batch, num_boxes)).astype(np.int32)
    valid = np.arange(num_boxes)[None] < rng.integers(1, num_boxes + 1, (batch, 1))
    return maps, boxes.astype(np.float32), labels, valid


def crowded_inputs(num_classes=3):
    """As above, with boxes that share a cell, leave the picture or have no area."""
    maps, boxes, labels, valid = random_inputs(num_classes=num_classes)
    boxes[0, :3] = [[20, 20, 30, 33], [21, 19, 31, 34], [19, 21, 29, 36]]
    boxes[1, :3] = [[-30, -8, 10, 30], [60, 50, 95, 90], [-50, -50, 180, 180]]
    boxes[2, :2] = [[30, 30, 30, 44], [50, 40, 50, 40]]
    # A good prediction of a box by a cell that has not taken it.
    boxes[1, 3], maps[0][1, 5, 6, 1, :4] = [36, 30.5, 59, 57.5], [-3, 0, 0, 0]
    valid[1, 3] = True
    valid[:3] = True
    valid[3] = False
    return maps, boxes, labels, valid


def jit_loss(loss):
    """Value and gradient by the maps, jitted."""

    @jax.jit
    def function(maps, *targets):
        return jax.value_and_grad(lambda m: loss(m, *targets), has_aux=True)(maps)

    return lambda maps, *targets: function(
        tuple(map(jnp.asarray, maps)), *map(jnp.asarray, targets)
    )


# One function of each loss for all tests: the same shapes compile once.
BOTH = {"v3": jit_loss(V3), "v4": jit_loss(V4)}
both = pytest.mark.parametrize("name", BOTH)


def parts_of(parts):
    return np.array([parts[name] for name in ("box", "objectness", "class")])


def assert_same(ours, theirs, rtol=1e-5):
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-7)


def plain(**changes):
    doubles = {"anchors": np.float64(ANCHORS), "priors": np.float64(PRIORS)}
    return Setting(**doubles, strides=STRIDES, **changes)


PLAIN_V3 = plain(scales=(1.0, 1.0), squared=True)
PLAIN_V4 = plain(
    scales=(1.2, 1.1), squared=False, gains=(0.07, 1.0, 1.0), ignore=0.7, match=0.213
)


CASES = {
    "v3": (V3, PLAIN_V3, 3),
    "v3 options": (
        functools.partial(
            yolov3_loss,
            **HEAD,
            scales=(1.2, 1.05),
            box_gain=0.5,
            objectness_gain=2.0,
            class_gain=3.0,
            ignore_threshold=0.3,
            match_threshold=0.4,
            label_smoothing=0.1,
            focal_gamma=1.5,
        ),
        plain(
            scales=(1.2, 1.05),
            squared=True,
            gains=(0.5, 2.0, 3.0),
            ignore=0.3,
            match=0.4,
            smoothing=0.1,
            gamma=1.5,
        ),
        3,
    ),
    "v3 single class": (V3, PLAIN_V3, 1),
    "v4": (V4, PLAIN_V4, 3),
    "v4 options": (
        functools.partial(
            yolov4_loss,
            **HEAD,
            scales=(2.0, 2.0),
            sizes="square",
            objectness_smooth=0.6,
            ignore_threshold=0.4,
            label_smoothing=0.2,
        ),
        dataclasses.replace(
            PLAIN_V4,
            scales=(2.0, 2.0),
            sizes="square",
            smooth=0.6,
            ignore=0.4,
            smoothing=0.2,
        ),
        3,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_value_and_gradient_are_those_of_the_definition(case):
    loss, setting, num_classes = CASES[case]
    maps, *targets = crowded_inputs(num_classes)
    total, parts, gradients, pairs, ignored = plain_loss(setting, maps, *targets)
    assert ignored > 0 and parts.all() and pairs.all()
    with jax.enable_x64(True):
        doubles = [np.asarray(x, np.float64) for x in maps]
        (ours, found), slopes = jit_loss(loss)(doubles, *targets)
        assert ours.dtype == jnp.float64 and found["targets"].dtype == jnp.int32
    np.testing.assert_array_equal(found["targets"], pairs)
    np.testing.assert_allclose(parts_of(found), parts, rtol=1e-12)
    np.testing.assert_allclose(ours, total, rtol=1e-12)
    for a, b in zip(slopes, gradients, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-11)


@both
@pytest.mark.parametrize("inputs", [random_inputs, crowded_inputs])
def test_single_precision_agrees_with_the_definition(name, inputs):
    setting = CASES[name][1]
    maps, *targets = inputs()
    total, parts, gradients, _, _ = plain_loss(setting, maps, *targets)
    (ours, found), slopes = BOTH[name](maps, *targets)
    np.testing.assert_allclose(parts_of(found), parts, rtol=1e-6)
    np.testing.assert_allclose(ours, total, rtol=1e-6)
    for a, b in zip(slopes, gradients, strict=True):
        assert np.linalg.norm(a - b) < 1e-6 * np.linalg.norm(b)


@both
def test_the_share_of_a_picture_is_its_loss_alone(name):
    maps, *targets = crowded_inputs()
    (total, parts), _ = BOTH[name](maps, *targets)
    shares = parts["per_picture"]
    np.testing.assert_allclose(shares.mean(), total / 4, rtol=1e-6)
    for index, share in enumerate(shares):
        alone = plain_loss(
            CASES[name][1],
            [x[index : index + 1] for x in maps],
            *(x[index : index + 1] for x in targets),
        )
        np.testing.assert_allclose(share, alone[0], rtol=1e-6)


def test_a_gradient_is_that_of_the_value():
    """Central differences of the whole loss along random directions."""
    maps, *targets = crowded_inputs()
    rng = np.random.default_rng(1)
    with jax.enable_x64(True):
        function = jit_loss(V3)
        start = [np.asarray(x, np.float64) for x in maps]
        gradients = function(start, *targets)[1]
        for _ in range(3):
            way = [rng.normal(size=x.shape) for x in start]
            ends = [
                function(
                    [x + h * d for x, d in zip(start, way, strict=True)], *targets
                )[0][0]
                for h in (1e-6, -1e-6)
            ]
            along = sum(np.vdot(g, d) for g, d in zip(gradients, way, strict=True))
            np.testing.assert_allclose((ends[0] - ends[1]) / 2e-6, along, rtol=1e-7)


# One cell of 32 pixels with one anchor; the box has its centre at (0.5, 0.375).
CELL = {
    "anchors": np.array([[[8, 16]]], np.float32),
    "priors": np.array([[8, 16]], np.float32),
    "strides": (32,),
    "scales": (1.0,),
}
CELL_TARGETS = (
    np.array([[[8, 4, 24, 20]]], np.float32),
    np.array([[1]], np.int32),
    np.array([[True]]),
)


def test_one_cell_of_zeros_has_the_v3_loss_worked_out_by_hand():
    maps = [np.zeros((1, 1, 1, 1, 7), np.float32)]
    loss = functools.partial(yolov3_loss, **CELL)
    (total, parts), (gradient,) = jit_loss(loss)(maps, *CELL_TARGETS)
    # A quarter of the picture; twice as wide as the anchor.
    expected = [1.75 * (2 * LN2 + LN2**2 / 2), LN2, 2 * LN2]
    np.testing.assert_allclose(64 * parts_of(parts), expected, rtol=1e-6)
    np.testing.assert_allclose(total, sum(expected) / 64, rtol=1e-6)
    slopes = [0, 1.75 * 0.125, -1.75 * LN2, 0, -0.5, 0.5, -0.5]
    np.testing.assert_allclose(gradient.ravel() * 64, slopes, rtol=1e-6, atol=1e-7)


def test_one_cell_of_zeros_has_the_v4_loss_worked_out_by_hand():
    maps = [np.zeros((1, 1, 1, 1, 7), np.float32)]
    maps[0][..., 4] = 1
    loss = functools.partial(yolov4_loss, **CELL, objectness_smooth=0.5)
    (_, parts), (gradient,) = jit_loss(loss)(maps, *CELL_TARGETS)
    # Predicted is (12, 8, 20, 24): 96 of 288 square pixels in common, the centres are
    # 4 pixels apart in a hull of 16 by 20.
    aspect = 4 / math.pi**2 * (math.atan(1) - math.atan(0.5)) ** 2
    ciou = 1 / 3 - 16 / 656 - aspect**2 / (aspect + 2 / 3)
    truth = 0.5 + 0.5 / 3
    expected = [0.07 * (1 - ciou), math.log1p(math.exp(-1)) + 1 - truth, 2 * LN2]
    np.testing.assert_allclose(64 * parts_of(parts), expected, rtol=1e-6)
    slope = 1 / (1 + math.exp(-1)) - truth
    np.testing.assert_allclose(gradient[..., 4] * 64, [[[[slope]]]], rtol=1e-6)


@pytest.mark.parametrize("threshold, cells", [(0.25, 2), (0.2499, 1)])
@pytest.mark.parametrize("loss", [yolov3_loss, yolov4_loss])
def test_the_ignore_threshold_is_exclusive(loss, threshold, cells):
    # Of two cells, the left one takes the box; the right one predicts (32, 0, 64, 32),
    # a quarter of the union with it in common.
    square = np.array([[32, 32]], np.float32)
    head = {"anchors": square[None], "strides": (32,), "scales": (1.0,)}
    chosen = functools.partial(loss, **head, priors=square, ignore_threshold=threshold)
    maps = [np.zeros((1, 1, 2, 1, 6), np.float32)]
    targets = [np.array([[[0, 0, 48, 32]]], np.float32), *CELL_TARGETS[1:]]
    (_, parts), (gradient,) = jit_loss(chosen)(maps, *targets)
    np.testing.assert_allclose(64 * parts["objectness"], cells * LN2, rtol=1e-6)
    slopes = [-0.5, 0.5 if cells == 2 else 0]
    np.testing.assert_allclose(gradient[0, 0, :, 0, 4] * 64, slopes, atol=1e-7)


@both
def test_padding_changes_nothing(name):
    maps, boxes, labels, valid = random_inputs()
    valid[:, 3:] = False
    rng = np.random.default_rng(1)
    # Padding of any content, in front of, between and behind the boxes.
    place = np.array([1, 2, 4])
    padded = (
        rng.uniform(0, 64, boxes.shape).astype(np.float32),
        rng.integers(0, 3, labels.shape).astype(np.int32),
        np.zeros_like(valid),
    )
    padded[0][:, 0] = np.nan
    for array, values in zip(padded, (boxes, labels, valid), strict=True):
        array[:, place] = values[:, :3]
    assert_same(BOTH[name](maps, *padded), BOTH[name](maps, boxes, labels, valid))


@both
@pytest.mark.parametrize("num_boxes", [0, 6])
def test_a_batch_without_boxes_has_objectness_loss_only(name, num_boxes):
    maps, boxes, labels, valid = random_inputs(num_boxes=num_boxes or 1)
    targets = (x[:, :num_boxes] for x in (boxes, labels, valid & False))
    (total, parts), gradients = BOTH[name](maps, *targets)
    entropy = sum(np.logaddexp(0, x[..., 4]).sum() for x in maps)
    np.testing.assert_allclose(total, entropy / 64, rtol=1e-6)
    np.testing.assert_allclose(64 * parts_of(parts), [0, entropy / 4, 0], rtol=1e-6)
    assert not parts["targets"].any()
    for gradient in gradients:
        assert not np.delete(gradient, 4, axis=-1).any()


@both
@pytest.mark.parametrize("order", [[0, 1], [1, 0]])
def test_the_last_box_of_a_cell_is_its_target_and_all_give_classes(name, order):
    maps = random_inputs()[0]
    boxes, labels, valid = (np.zeros_like(x) for x in random_inputs()[1:])
    boxes[:, :2] = np.array([[20, 20, 30, 34], [19.5, 20.5, 30.5, 33.5]])[order]
    labels[:, :2] = np.array([0, 2])[order]
    valid[:, :2] = True
    (_, parts), (gradient, _) = BOTH[name](maps, boxes, labels, valid)
    valid[:, 0] = False
    (_, last), (alone, _) = BOTH[name](maps, boxes, labels, valid)
    np.testing.assert_allclose(parts["box"], last["box"], rtol=1e-6)
    np.testing.assert_allclose(gradient[..., :4], alone[..., :4], atol=1e-8)
    # Row 3, column 3, the smaller anchor.
    chances = 1 / (1 + np.exp(-maps[0][:, 3, 3, 0, 5:].astype(np.float64)))
    slopes = (chances - [1, 0, 1]) / 64
    np.testing.assert_allclose(gradient[:, 3, 3, 0, 5:], slopes, rtol=1e-5, atol=1e-8)


@both
def test_boxes_without_area_and_extreme_maps_keep_everything_finite(name):
    maps, boxes, labels, valid = random_inputs()
    valid[:] = True
    boxes[:, 0, 2:] = boxes[:, 0, :2]
    boxes[:, 1, 2] = boxes[:, 1, 0]
    boxes[:, 2] = boxes[:, 2][:, [2, 3, 0, 1]]  # corners swapped
    boxes[:, 3, 2:] = boxes[:, 3, :2] + 1e-3
    for scale in (0.0, 1.0, 1e3):
        value, gradients = BOTH[name](
            [x * np.float32(scale) for x in maps], boxes, labels, valid
        )
        assert np.isfinite(value[0])
        assert all(np.isfinite(gradient).all() for gradient in gradients)
    valid[:, 3:] = False
    (_, parts), _ = BOTH[name](maps, boxes, labels, valid)
    assert not parts["targets"].any() and parts["box"] == 0


@both
def test_half_precision_maps_are_reduced_in_float32(name):
    maps, *targets = random_inputs()
    halves = [jnp.asarray(x, jnp.bfloat16) for x in maps]
    singles = [x.astype(jnp.float32) for x in halves]
    (ours, _), gradients = BOTH[name](halves, *targets)
    (theirs, _), _ = BOTH[name](singles, *targets)
    assert ours.dtype == jnp.float32 and gradients[0].dtype == jnp.bfloat16
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)


@both
def test_four_devices_give_the_same_as_one(name):
    inputs = crowded_inputs()
    alone = BOTH[name](*inputs)
    together = BOTH[name](*put_batch(inputs, make_mesh(4)))
    assert_same(together, alone, rtol=1e-6)
    assert len(together[1][0].sharding.device_set) == 4


@pytest.mark.slow
def test_runs_under_vmap():
    several = [random_inputs(seed=seed) for seed in (0, 1)]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *several)
    gradient = jax.grad(lambda maps, *targets: V4(maps, *targets)[0])
    together = jax.jit(jax.vmap(gradient))(*stacked)
    for index, inputs in enumerate(several):
        assert_same([x[index] for x in together], BOTH["v4"](*inputs)[1])


@pytest.mark.parametrize(
    "loss, decoding",
    [
        (V3, Decoding("exponential", (1.0, 1.0))),
        (V4, Decoding("exponential", (1.2, 1.1))),
    ],
    ids=["v3", "v4"],
)
def test_descent_on_the_maps_finds_the_boxes(loss, decoding):
    boxes = np.array([[[3, 5, 14, 18], [40, 20, 66, 45]]], np.float32)
    targets = jnp.asarray(boxes), jnp.array([[1, 2]]), jnp.ones((1, 2), bool)
    maps = tuple(jnp.zeros_like(x[:1]) for x in random_inputs()[0])

    def step(_, maps):
        slopes = jax.grad(lambda m: loss(m, *targets)[0])(maps)
        # 64 takes back the division by the nominal batch.
        return jax.tree.map(lambda x, slope: x - 64 * 0.3 * slope, maps, slopes)

    found, objectness, probabilities = decode_maps(
        jax.jit(lambda maps: jax.lax.fori_loop(0, 800, step, maps))(maps),
        anchors=ANCHORS,
        strides=STRIDES,
        decoding=decoding,
    )
    found, objectness, probabilities = (
        np.asarray(x)[0] for x in (found, objectness, probabilities)
    )
    for corners, label in zip(boxes[0], (1, 2), strict=True):
        near = np.abs(found - corners).max(axis=-1) < 0.5
        near &= objectness > 0.9
        assert near.any()
        assert (probabilities[near].argmax(axis=-1) == label).all()
        assert (probabilities[near].max(axis=-1) > 0.9).all()
    distance = np.abs(found[objectness > 0.5][:, None] - boxes).max(axis=-1)
    assert (distance.min(axis=1) < 1.0).all()


def test_an_unknown_kind_of_sizes_is_refused():
    maps, *targets = random_inputs()
    with pytest.raises(ValueError, match="square or exponential, not 'cubic'"):
        jit_loss(functools.partial(V4, sizes="cubic"))(maps, *targets)
