import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.losses import original
from tests.losses.original import CASES, Golden
from yolojax.engine.sharding import make_mesh, put_batch
from yolojax.losses import detection
from yolojax.losses.assign import assign_anchors, local_targets
from yolojax.losses.boxes import predicted_ciou
from yolojax.losses.detection import scale_gains, yolov5_loss
from yolojax.models.detector import build_model
from yolojax.ops.boxes import corners_to_centres

ANCHORS = np.array([[[10, 13], [33, 23]], [[30, 61], [62, 45]]], np.float32)
STRIDES = (8, 16)
BALANCE = (4.0, 1.0)
SIZE = 64
SLOW = pytest.mark.slow
QUICK = [(80, case) for case in CASES if case != "anchor_t2"] + [(1, "base")]


def random_inputs(num_boxes=6, batch=4, num_classes=3, seed=0, repeats=1):
    """Maps of two levels and boxes, of which the first of each picture are valid."""
    rng = np.random.default_rng(seed)
    shape = [(batch, SIZE // s, SIZE // s, 2, 5 + num_classes) for s in STRIDES]
    maps = tuple(rng.normal(size=s).astype(np.float32) for s in shape)
    low = rng.uniform(0, SIZE - 16, (batch, num_boxes, 2))
    high = np.minimum(low + rng.uniform(8, 40, low.shape), SIZE)
    boxes = np.concatenate([low, high], -1).astype(np.float32)
    labels = rng.integers(0, num_classes, (batch, num_boxes)).astype(np.int32)
    valid = np.arange(num_boxes)[None] < rng.integers(0, num_boxes + 1, (batch, 1))
    boxes = np.where(valid[..., None], boxes, np.float32(0))
    return maps, *(np.repeat(x, repeats, axis=1) for x in (boxes, labels, valid))


def loss(maps, boxes, labels, valid, **settings):
    return yolov5_loss(
        tuple(map(jnp.asarray, maps)),
        *map(jnp.asarray, (boxes, labels, valid)),
        anchors=ANCHORS,
        strides=STRIDES,
        balance=BALANCE,
        **settings,
    )


def value_and_gradient(maps, *targets):
    return jitted()(tuple(map(jnp.asarray, maps)), *targets)


@functools.cache
def jitted():
    """One function for all tests: the same shapes compile once."""
    return jax.jit(
        lambda maps, *targets: jax.value_and_grad(
            lambda m: loss(m, *targets), has_aux=True
        )(maps)
    )


@functools.cache
def golden_function(num_classes, settings):
    """Loss and gradient of the golden maps; cases that share settings share it."""
    return jax.jit(
        jax.value_and_grad(
            lambda maps, targets: yolov5_loss(
                maps,
                *targets,
                anchors=Golden(num_classes).anchors,
                strides=original.STRIDES,
                **dict(settings),
            ),
            has_aux=True,
        )
    )


def assert_same(ours, theirs, rtol=1e-5):
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-6)


@pytest.mark.parametrize(
    "num_classes, case",
    [
        # Each compiles for two seconds; the slow ones differ in nothing else.
        pytest.param(n, case, marks=() if (n, case) in QUICK else SLOW)
        for n in (80, 1, 3)
        for case in CASES
    ],
)
def test_parts_and_gradients_match_the_original(num_classes, case):
    golden = Golden(num_classes)
    targets = tuple(map(jnp.asarray, golden.targets(case)))
    function = golden_function(num_classes, tuple(golden.settings(case).items()))
    (total, parts), gradients = function(golden.maps, targets)
    if case in ("base", "anchor_t2"):
        pairs = [len(golden.pairs(case, level)) for level in range(3)]
        np.testing.assert_array_equal(parts["targets"], pairs)
    parts = [parts[name] for name in ("box", "objectness", "class")]
    np.testing.assert_allclose(
        parts, golden.arrays[f"{case}_box_obj_cls"], rtol=2e-6, atol=1e-9
    )
    np.testing.assert_allclose(total, golden.arrays[f"{case}_total"][0], rtol=2e-6)
    for level, gradient in enumerate(gradients):
        ours = np.asarray(gradient, np.float64).transpose(0, 3, 1, 2, 4)
        theirs = golden.arrays[f"{case}_grad_p{level}"]
        if theirs.shape == (2,):
            sums = [ours.sum(), np.abs(ours).sum()]
            np.testing.assert_allclose(sums, theirs, rtol=1e-6)
        else:
            error = np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)
            assert error < 1e-6


def test_padding_changes_nothing():
    maps, boxes, labels, valid = random_inputs()
    rng = np.random.default_rng(1)
    # Padding of any content, in front of, between and behind the boxes.
    place = np.sort(rng.permuted(np.tile(np.arange(20), (4, 1)), axis=1)[:, :6], axis=1)
    padded = [
        rng.uniform(0, SIZE, (4, 20, 4)).astype(np.float32),
        rng.integers(0, 3, (4, 20)).astype(np.int32),
        np.zeros((4, 20), bool),
    ]
    for array, values in zip(padded, (boxes, labels, valid), strict=True):
        np.put_along_axis(
            array, place.reshape(4, 6, *[1] * (array.ndim - 2)), values, axis=1
        )
    assert_same(
        value_and_gradient(maps, *padded),
        value_and_gradient(maps, *random_inputs()[1:]),
    )


def test_order_of_boxes_that_share_no_cell_does_not_matter():
    maps = random_inputs(batch=1)[0]
    low = np.array([[4, 4], [44, 6], [6, 42]])
    boxes = np.concatenate([low, low + 13], axis=-1)[None].astype(np.float32)
    labels, valid = np.array([[0, 1, 2]], np.int32), np.ones((1, 3), bool)
    order = [2, 0, 1]
    assert_same(
        value_and_gradient(maps, boxes[:, order], labels[:, order], valid),
        value_and_gradient(maps, boxes, labels, valid),
    )


@pytest.mark.parametrize("order", [[0, 1], [1, 0]])
def test_the_last_box_of_a_cell_gives_its_objectness(order):
    # Both boxes in the middle of one cell of each level, and of no other.
    boxes = np.array([[[3, 3, 13, 13], [2, 4, 14, 12]]], np.float32)[:, order] - 4
    boxes, valid = np.float32(boxes), np.ones((1, 2), bool)
    maps = random_inputs(batch=1)[0]
    labels = np.zeros((1, 2), np.int32)

    @jax.jit
    def objectness(boxes, labels, valid):
        return loss(maps, boxes, labels, valid)[1]["objectness"]

    both = objectness(boxes, labels, valid)
    last = objectness(boxes[:, 1:], labels[:, 1:], valid[:, 1:])
    np.testing.assert_allclose(both, last, rtol=1e-6)
    assert abs(both - objectness(boxes[:, :1], labels[:, :1], valid[:, :1])) > 1e-6


@pytest.mark.slow
def test_chunks_change_nothing(monkeypatch):
    # Many boxes, each three times, so that runs of one cell are cut by a chunk's end.
    inputs = random_inputs(num_boxes=30, repeats=3)
    in_many = value_and_gradient(*inputs)
    assert in_many[0][1]["targets"].max() > 5 * detection.CHUNK
    monkeypatch.setattr(detection, "CHUNK", 3000)
    jitted.cache_clear()
    assert_same(in_many, value_and_gradient(*inputs))
    jitted.cache_clear()


def test_parts_can_be_differentiated_one_by_one():
    maps, *targets = random_inputs()

    @jax.jit
    @jax.grad
    def gradient(maps, weights):
        parts = loss(maps, *targets)[1]
        names = "box", "objectness", "class"
        return jnp.dot(weights, jnp.stack([parts[name] for name in names]))

    each = [gradient(maps, row) for row in len(maps[0]) * jnp.eye(3)]
    assert all(np.abs(levels[0]).sum() > 0 for levels in each)
    _, whole = value_and_gradient(maps, *targets)
    assert_same(jax.tree.map(lambda *x: sum(x), *each), whole)


def listed_pairs(shapes, boxes, labels, valid):
    """Per level: picture, cell, target, class and anchor of each pair, in order."""
    centres = corners_to_centres(jnp.asarray(boxes, jnp.float64))
    assign = jax.jit(assign_anchors, static_argnames="grids")
    for shape, stride, anchors in zip(shapes, STRIDES, ANCHORS, strict=True):
        grids, sizes = (shape[1:3],), anchors.astype(np.float64) / stride
        level = centres[:, None] / stride
        pairs = assign(level, jnp.asarray(valid), jnp.asarray(sizes)[None], grids=grids)
        targets = local_targets(level, pairs, grids=grids, num_anchors=len(anchors))
        image, _, slot = np.nonzero(np.asarray(pairs.valid))
        cell, box = (np.asarray(x)[image, 0, slot] for x in (pairs.cell, pairs.box))
        target, label = np.asarray(targets)[image, 0, slot], labels[image, box]
        yield image, cell, target, label, sizes[cell % len(anchors)]


def plain_loss(maps, levels):
    """The loss of `loss`, from its definition, with gradients left to JAX."""
    box = objectness = classes = jnp.zeros((), jnp.float64)
    for raw, gain, pairs in zip(maps, BALANCE, levels, strict=True):
        image, cell, target, label, anchor = pairs
        flat = raw.reshape(len(raw), -1, raw.shape[-1])
        rows = flat[image, cell]
        overlap = predicted_ciou(rows[:, :4], jnp.asarray(anchor), jnp.asarray(target))
        last = {place: n for n, place in enumerate(zip(image, cell, strict=True))}
        place, n = tuple(np.transpose(list(last))), np.array(list(last.values()))
        truth = jnp.maximum(jax.lax.stop_gradient(overlap), 0)[n]
        truth = jnp.zeros_like(flat[..., 4]).at[place].set(truth)
        one_hot = np.eye(3)[label]
        box += jnp.mean(1 - overlap)
        objectness += gain * jnp.mean(
            optax.sigmoid_binary_cross_entropy(flat[..., 4], truth)
        )
        classes += jnp.mean(
            optax.sigmoid_binary_cross_entropy(rows[:, 5:], jnp.asarray(one_hot))
        )
    return (0.05 * box + objectness + 0.5 * classes) * len(maps[0])


def test_value_and_gradient_are_those_of_the_definition():
    with jax.enable_x64(True):
        maps, *targets = random_inputs(num_boxes=8)
        maps = tuple(jnp.asarray(x, jnp.float64) for x in maps)
        ours = value_and_gradient(maps, *targets)
        levels = list(listed_pairs([x.shape for x in maps], *targets))
        plain = jax.jit(jax.value_and_grad(lambda maps: plain_loss(maps, levels)))
        value, gradients = plain(maps)
    np.testing.assert_allclose(ours[0][0], value, rtol=1e-12)
    for a, b in zip(ours[1], gradients, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("num_boxes", [0, 5])
def test_a_batch_without_boxes_has_objectness_loss_only(num_boxes):
    maps, boxes, labels, valid = random_inputs(num_boxes=num_boxes)
    (total, parts), gradients = value_and_gradient(maps, boxes, labels, valid & False)
    entropy = [np.mean(np.logaddexp(0, x[..., 4])) for x in maps]
    np.testing.assert_allclose(total, 4 * np.dot(BALANCE, entropy), rtol=1e-5)
    assert parts["box"] == 0 and parts["class"] == 0
    for gradient in gradients:
        assert np.isfinite(gradient).all()
        assert not np.delete(gradient, 4, axis=-1).any()


def test_boxes_without_area_and_extreme_maps_keep_everything_finite():
    maps, boxes, labels, valid = random_inputs()
    boxes[:, ::2, 2:] = boxes[:, ::2, :2]
    boxes[:, 1::2, 2] = boxes[:, 1::2, 0]
    valid[:] = True
    for scale in (0.0, 1.0, 1e3):
        value, gradients = value_and_gradient(
            [x * np.float32(scale) for x in maps], boxes, labels, valid
        )
        assert np.isfinite(value[0])
        assert all(np.isfinite(gradient).all() for gradient in gradients)


def test_each_picture_has_its_own_share_of_the_loss():
    maps, *targets = random_inputs()
    (total, parts), _ = value_and_gradient(maps, *targets)
    shares = parts["per_picture"]
    assert shares.shape == (4,) and shares.dtype == jnp.float32
    np.testing.assert_allclose(shares.mean(), total / 4, rtol=1e-6)
    # Another prediction for a picture changes nobody else's share.
    others = [np.concatenate([-x[:1], x[1:]]) for x in maps]
    changed = value_and_gradient(others, *targets)[0][1]["per_picture"]
    np.testing.assert_array_equal(changed[1:], shares[1:])
    assert abs(changed[0] - shares[0]) > 0.1


def test_half_precision_maps_are_reduced_in_float32():
    maps, *targets = random_inputs()
    halves = [jnp.asarray(x, jnp.bfloat16) for x in maps]
    singles = [x.astype(jnp.float32) for x in halves]
    (ours, _), gradients = value_and_gradient(halves, *targets)
    (theirs, _), _ = value_and_gradient(singles, *targets)
    assert ours.dtype == jnp.float32 and gradients[0].dtype == jnp.bfloat16
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)


@pytest.mark.slow
def test_four_devices_give_the_same_as_one():
    inputs = random_inputs(batch=8, num_boxes=12)
    alone = jitted()(*inputs)
    together = jitted()(*put_batch(inputs, make_mesh(4)))
    assert_same(together, alone, rtol=1e-6)
    assert len(together[1][0].sharding.device_set) == 4


@pytest.mark.slow
def test_runs_under_vmap():
    several = [random_inputs(seed=seed, batch=2) for seed in (0, 1)]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *several)

    @jax.jit
    def once(maps, *targets):
        return jax.value_and_grad(lambda m: loss(m, *targets)[0])(maps)

    values, gradients = jax.jit(jax.vmap(once))(*stacked)
    for index, inputs in enumerate(several):
        value, gradient = once(*inputs)
        np.testing.assert_allclose(values[index], value, rtol=1e-5)
        assert_same([x[index] for x in gradients], gradient)


def test_gains_scale_with_levels_classes_and_size():
    gains = scale_gains(
        box=0.05,
        objectness=1.0,
        classes=0.5,
        num_levels=4,
        num_classes=20,
        image_size=320,
    )
    assert gains == pytest.approx(
        {"box_gain": 0.0375, "objectness_gain": 0.1875, "class_gain": 0.09375}
    )


@pytest.mark.parametrize("num_classes", [80, 3, 1])
def test_gains_of_the_golden_files_are_those_scaled(num_classes):
    golden = Golden(num_classes).settings("base")
    gains = scale_gains(
        box=0.05,
        objectness=1.0,
        classes=0.5,
        num_levels=3,
        num_classes=num_classes,
        image_size=(640, 640),
    )
    assert gains == pytest.approx({name: golden[name] for name in gains})


@pytest.mark.parametrize("name", ["yolov5n", "yolov5n6"])
def test_objectness_of_every_level_has_its_published_weight(name):
    """A zero map has a cross entropy of log 2 in each cell."""
    model = build_model(name, num_classes=2)
    maps = [jnp.zeros((1, 128 // s, 128 // s, 3, 7)) for s in model.strides]
    nothing = (jnp.zeros((1, 1, 4)), jnp.zeros((1, 1), jnp.int32), jnp.zeros((1, 1)))
    total, _ = yolov5_loss(
        maps,
        *nothing[:2],
        nothing[2] > 0,
        anchors=model.anchors,
        strides=model.strides,
    )
    weights = {3: 4 + 1 + 0.4, 4: 4 + 1 + 0.25 + 0.06}[len(maps)]
    assert float(total) == pytest.approx(weights * np.log(2), rel=1e-5)


def test_a_number_of_levels_without_published_balance_is_refused():
    maps, *targets = random_inputs()
    with pytest.raises(ValueError, match="6 levels, only for 1, 2, 3, 4, 5; give"):
        yolov5_loss(
            tuple(map(jnp.asarray, maps)) * 3,
            *map(jnp.asarray, targets),
            anchors=np.tile(ANCHORS, (3, 1, 1)),
            strides=STRIDES * 3,
        )
