"""Every box loss against its published formula in NumPy float64."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from yolojax.losses.table import BOX_LOSSES

measures = [name for name in BOX_LOSSES if "l1" not in name]


def random_pairs(count=40, seed=0):
    """Boxes that overlap, and ones apart; no coordinates in common."""
    rng = np.random.default_rng(seed)
    centres, sides = (
        rng.uniform(0, 6, (2, count, 2)),
        rng.uniform(0.5, 5, (2, count, 2)),
    )
    return np.concatenate([centres - sides / 2, centres + sides / 2], axis=-1)


def terms(box, target):
    """What the formulas are made of, for one pair."""
    (ax, ay, bx, by), (cx, cy, dx, dy) = box, target
    w, h, tw, th = bx - ax, by - ay, dx - cx, dy - cy
    inter = max(min(bx, dx) - max(ax, cx), 0) * max(min(by, dy) - max(ay, cy), 0)
    union = w * h + tw * th - inter
    hull_w, hull_h = max(bx, dx) - min(ax, cx), max(by, dy) - min(ay, cy)
    away = ((cx + dx - ax - bx) / 2, (cy + dy - ay - by) / 2)
    return inter / union, union, (hull_w, hull_h), away, (w, h), (tw, th)


def penalties(name, box, target, held=None):
    """The terms that a measure subtracts from the IoU."""
    iou, union, (cw, ch), (dx, dy), (w, h), (tw, th) = terms(box, target)
    distance = (dx**2 + dy**2) / (cw**2 + ch**2)
    if name == "iou":
        return []
    if name == "giou":
        return [(cw * ch - union) / (cw * ch)]
    if name == "diou":
        return [distance]
    if name == "ciou":
        v = 4 / math.pi**2 * (math.atan(tw / th) - math.atan(w / h)) ** 2
        return [distance, (v / (1 - iou + v) if held is None else held) * v]
    if name == "eiou":
        return [distance, (w - tw) ** 2 / cw**2, (h - th) ** 2 / ch**2]
    sine = abs(dy) / math.hypot(dx, dy)
    angle = 1 - 2 * math.sin(math.asin(sine) - math.pi / 4) ** 2
    gamma = 2 - angle
    delta = 2 - math.exp(-gamma * (dx / cw) ** 2) - math.exp(-gamma * (dy / ch) ** 2)
    omega = sum(
        (1 - math.exp(-abs(a - b) / max(a, b))) ** 4 for a, b in ((w, tw), (h, th))
    )
    return [(delta + omega) / 2]


def plain(name, box, target, power=1.0, beta=1.0, held=None):
    """The loss of one pair, from its definition."""
    iou, _, (cw, ch), (dx, dy), (w, h), (tw, th) = terms(box, target)
    apart = [abs(x) for x in (dx, dy, w - tw, h - th)]
    if name == "l1":
        return sum(apart)
    if name == "smooth_l1":
        return sum(d * d / 2 / beta if d < beta else d - beta / 2 for d in apart)
    if name == "wise_iou":
        weight = math.exp((dx**2 + dy**2) / (held or cw**2 + ch**2))
        return weight * (1 - iou**power)
    return 1 - iou**power + sum(x**power for x in penalties(name, box, target, held))


def held_factor(name, box, target):
    """What counts as a constant: alpha of CIoU, the diagonal of Wise-IoU."""
    iou, _, (cw, ch), _, (w, h), (tw, th) = terms(box, target)
    v = 4 / math.pi**2 * (math.atan(tw / th) - math.atan(w / h)) ** 2
    return {"ciou": v / (1 - iou + v), "wise_iou": cw**2 + ch**2}.get(name)


CASES = [
    *((name, {}) for name in BOX_LOSSES),
    ("smooth_l1", {"beta": 0.4}),
    *((name, {"power": 3.0}) for name in measures),
    ("giou", {"power": 0.5}),
    ("ciou", {"power": 0.5}),
    ("iou", {"power": 1.0}),
]
every_case = pytest.mark.parametrize("index", range(len(CASES)), ids=str)


@functools.cache
def everything(dtype):
    """Values and gradients of all cases: 40 pairs compile once for each dtype."""

    def all_cases(boxes, targets):
        found = []
        for name, settings in CASES:
            values, pull = jax.vjp(
                lambda x, n=name, s=settings: BOX_LOSSES[n](x, targets, **s), boxes
            )
            found.append((values, pull(jnp.ones_like(values))[0]))
        return found

    compiled = jax.jit(all_cases)

    def run(boxes, targets):
        with jax.enable_x64(dtype == jnp.float64):
            pair = [jnp.asarray(np.resize(x, (40, 4)), dtype) for x in (boxes, targets)]
            return compiled(*pair)

    return run


@functools.cache
def of_random_pairs(dtype):
    return everything(dtype)(*random_pairs())


@every_case
def test_values_are_those_of_the_definition(index):
    name, settings = CASES[index]
    pairs = list(zip(*random_pairs(), strict=True))
    expected = [plain(name, *pair, **settings) for pair in pairs]
    # The small number in the denominators is 1e-7.
    values, _ = of_random_pairs(jnp.float64)[index]
    np.testing.assert_allclose(values, expected, rtol=2e-6, atol=2e-6)
    values, _ = of_random_pairs(jnp.float32)[index]
    np.testing.assert_allclose(values, expected, rtol=2e-5, atol=1e-5)


@every_case
def test_gradients_are_central_differences_of_the_definition(index):
    name, settings = CASES[index]
    _, found = of_random_pairs(jnp.float64)[index]
    for row, (box, target) in enumerate(zip(*random_pairs(), strict=True)):
        # What counts as a constant in the gradient stays where it is.
        held = held_factor(name, box, target)
        slope = [
            (
                plain(name, box + step, target, held=held, **settings)
                - plain(name, box - step, target, held=held, **settings)
            )
            / 2e-6
            for step in np.eye(4) * 1e-6
        ]
        np.testing.assert_allclose(found[row], slope, rtol=1e-4, atol=5e-6)


@pytest.mark.parametrize(
    "dtype",
    [jnp.float32, jnp.float16, pytest.param(jnp.bfloat16, marks=pytest.mark.slow)],
)
def test_boxes_without_size_are_finite(dtype):
    # A point, lines, and boxes near and far.
    shapes = np.array(
        [[3, 3, 3, 3], [5, 1, 5, 9], [0, 2, 7, 2], [1, 1, 4, 8], [600, 600, 640, 640]]
        + [[5e-4, 0, 1e-3, 640]]
    )
    pairs = np.repeat(shapes, len(shapes), axis=0), np.tile(shapes, (len(shapes), 1))
    for case, (values, gradients) in zip(CASES, everything(dtype)(*pairs), strict=True):
        assert values.dtype == gradients.dtype == dtype
        assert jnp.isfinite(values).all(), case
        assert jnp.isfinite(gradients).all(), case


def test_half_precision_is_single_precision_rounded():
    pairs = [np.float16(x) for x in random_pairs()]
    ours, theirs = (everything(t)(*pairs) for t in (jnp.float16, jnp.float32))
    for case, half, single in zip(CASES, ours, theirs, strict=True):
        for a, b in zip(half, single, strict=True):
            np.testing.assert_allclose(
                a, b.astype(jnp.float16), rtol=2e-3, atol=1e-6, err_msg=str(case)
            )


def test_equal_boxes_have_no_loss():
    boxes = np.array([[2, 3, 40, 9], [0.1, 0.2, 0.3, 0.9]])
    for case, (values, _) in zip(
        CASES, everything(jnp.float32)(boxes, boxes), strict=True
    ):
        # Rounding at 40 pixels, to a power of a half.
        limit = 2e-3 if case[1].get("power") == 0.5 else 3e-6
        np.testing.assert_allclose(values, 0, atol=limit, err_msg=str(case))


def test_a_power_of_1_is_no_power():
    for ours, theirs in zip(
        of_random_pairs(jnp.float32)[-1], of_random_pairs(jnp.float32)[0], strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


def of_unit_square(name, moved):
    """The loss of a box against [0, 0, 1, 1]."""
    index = CASES.index((name, {}))
    return everything(jnp.float32)([moved], [[0, 0, 1, 1]])[index][0][0]


def test_costs_of_siou_by_hand():
    """Unit squares apart by (1, 1): at 45 degrees gamma is 1; by (1, 0) it is 2."""
    # Hulls of 2 x 2 and of 2 x 1; no overlap, no difference of shape.
    diagonal = of_unit_square("siou", [1, 1, 2, 2])
    assert diagonal == pytest.approx(1 + (1 - math.exp(-0.25)), rel=1e-6)
    beside = of_unit_square("siou", [1, 0, 2, 1])
    assert beside == pytest.approx(1 + (1 - math.exp(-0.5)) / 2, rel=1e-6)


def test_other_costs_by_hand():
    # Centres 1 apart, a hull of 2 x 1.
    assert of_unit_square("wise_iou", [1, 0, 2, 1]) == pytest.approx(math.exp(1 / 5))
    # Half the width within it: centres 1/4 apart, a hull of 1 x 1.
    half = of_unit_square("eiou", [0, 0, 0.5, 1])
    assert half == pytest.approx(0.5 + 0.25**2 / 2 + 0.25, rel=1e-5)
    # Half as wide and moved by 1/4.
    assert of_unit_square("l1", [0, 0, 0.5, 1]) == pytest.approx(0.75)
    smooth = of_unit_square("smooth_l1", [0, 0, 2, 1])
    assert smooth == pytest.approx(0.5**2 / 2 + 0.5)


def test_a_power_above_1_weighs_good_boxes_up():
    """As published: d(u^3) = 3 u^2 du, which is larger than du above 0.58."""
    boxes = np.array([[0, 0, 0.5, 1], [0, 0, 0.7, 1]])
    found = everything(jnp.float64)(boxes, [[0, 0, 1, 1]])
    slopes = [found[CASES.index(("iou", s))][1][:2, 2] for s in ({}, {"power": 3.0})]
    np.testing.assert_allclose(slopes[1] / slopes[0], [0.75, 1.47], rtol=1e-5)


def test_box_losses_run_under_vmap_and_on_nothing():
    boxes, targets = (jnp.asarray(np.float32(x)) for x in random_pairs())
    halves = boxes.reshape(2, 20, 4), targets.reshape(2, 20, 4)
    for name in ("siou", "smooth_l1"):
        function = BOX_LOSSES[name]
        mapped = jax.jit(jax.vmap(function))(*halves).reshape(-1)
        once = of_random_pairs(jnp.float32)[CASES.index((name, {}))][0]
        np.testing.assert_allclose(mapped, once, rtol=1e-5)
        assert function(jnp.zeros((0, 4)), jnp.zeros((0, 4))).shape == (0,)
