import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.shared import shared
from yolojax.ops import iou
from yolojax.ops.boxes import centres_to_corners

UNIT = jnp.array([[0.0, 0.0, 1.0, 1.0]])
PAIRED = {
    "iou": iou.paired_iou,
    "giou": iou.paired_giou,
    "diou": iou.paired_diou,
    "ciou": iou.paired_ciou,
}
every_form = pytest.mark.parametrize("form", PAIRED)

# Sides of 1e-6 at coordinates of up to 100: float32 corners cannot hold them.
TINY = range(40, 50)
# No size at all: the original's CIoU is NaN.
POINTS = range(50, 60)


def golden_boxes(dtype):
    golden = np.load(shared("golden", "boxes.npz"))
    return golden, *(golden[name].astype(dtype) for name in ("box1_xywh", "box2_xywh"))


def value_and_gradient(form, first, second):
    def values(centres):
        return PAIRED[form](centres_to_corners(centres), centres_to_corners(second))

    def both(centres):
        return values(centres), jax.grad(lambda x: jnp.sum(values(x)))(centres)

    second = jnp.asarray(second)
    return jax.jit(both)(jnp.asarray(first))


@pytest.mark.parametrize(
    "shift, expected",
    [(0.0, 1.0), (0.5, 1 / 3), (1.0, 0.0), (3.0, -0.5)],
    ids=["same", "half", "touching", "apart"],
)
def test_giou_of_unit_squares_moved_along_x(shift, expected):
    moved = UNIT + jnp.array([[shift, 0.0, shift, 0.0]])
    np.testing.assert_allclose(iou.paired_giou(UNIT, moved), [expected], atol=1e-6)


def test_diou_subtracts_the_share_of_the_diagonal():
    moved = UNIT + jnp.array([[0.5, 0.0, 0.5, 0.0]])
    expected = 1 / 3 - 0.25 / (1.5**2 + 1)
    np.testing.assert_allclose(iou.paired_diou(UNIT, moved), [expected], atol=1e-6)


def test_ciou_subtracts_the_difference_of_the_aspect():
    flat = jnp.array([[0.0, 0.25, 1.0, 0.75]])
    aspect = 4 / np.pi**2 * (np.arctan(1.0) - np.arctan(2.0)) ** 2
    expected = 0.5 - aspect * aspect / (aspect - 0.5 + 1)
    np.testing.assert_allclose(iou.paired_ciou(flat, UNIT), [expected], atol=1e-6)


@every_form
def test_equal_boxes_overlap_fully(form):
    boxes = jnp.array([[2.0, 3.0, 40.0, 9.0], [0.1, 0.2, 0.3, 0.9]])
    np.testing.assert_allclose(PAIRED[form](boxes, boxes), [1, 1], atol=2e-6)


@every_form
def test_values_and_gradients_match_the_original(form):
    golden, first, second = golden_boxes(np.float32)
    values, gradients = value_and_gradient(form, first, second)
    compared = np.setdiff1d(np.arange(len(first)), [*TINY, *POINTS])
    np.testing.assert_allclose(
        values[compared], golden[form][compared], rtol=0, atol=5e-6
    )
    np.testing.assert_allclose(
        gradients[compared], golden[f"{form}_grad_box1"][compared], rtol=1e-4, atol=5e-6
    )


def test_ciou_of_tiny_boxes_matches_the_original():
    with jax.enable_x64(True):
        golden, first, second = golden_boxes(np.float64)
        values, gradients = value_and_gradient("ciou", first, second)
    rows = np.asarray(TINY)
    # The original's own gradients, in float32, reach 5e4 here.
    np.testing.assert_allclose(values[rows], golden["ciou"][rows], atol=1e-4)
    np.testing.assert_allclose(
        gradients[rows], golden["ciou_grad_box1"][rows], rtol=1e-3, atol=1e-2
    )


@every_form
def test_boxes_without_size_are_finite_in_value_and_gradient(form):
    points = jnp.array([[3.0, 3.0, 3.0, 3.0], [5.0, 1.0, 5.0, 9.0], [0, 2, 7, 2]])
    others = jnp.concatenate([points, jnp.array([[1.0, 1.0, 4.0, 8.0]])])
    first = jnp.repeat(points, len(others), axis=0)
    second = jnp.tile(others, (len(points), 1))
    by_both = jax.value_and_grad(
        lambda a, b: jnp.sum(PAIRED[form](a, b)), argnums=(0, 1)
    )
    value, gradients = jax.jit(by_both)(first, second)
    assert np.isfinite(value)
    for gradient in gradients:
        assert np.isfinite(gradient).all()


@every_form
def test_points_of_the_golden_set_are_finite(form):
    _, first, second = golden_boxes(np.float32)
    values, gradients = value_and_gradient(form, first, second)
    rows = np.asarray(POINTS)
    assert np.isfinite(values[rows]).all() and np.isfinite(gradients[rows]).all()


def test_pairwise_matches_the_original():
    golden, first, second = golden_boxes(np.float32)
    # The matrix is of the second hundred of each.
    corners = [centres_to_corners(jnp.asarray(x[100:200])) for x in (first, second)]
    np.testing.assert_allclose(
        iou.pairwise_iou(*corners), golden["box_iou_matrix_100x100"], atol=2e-6
    )


def test_pairwise_holds_the_paired_values_on_its_diagonal():
    _, first, second = golden_boxes(np.float32)
    corners = [centres_to_corners(jnp.asarray(x[:20])) for x in (first, second)]
    table = iou.pairwise_iou(*corners)
    np.testing.assert_array_equal(jnp.diagonal(table), iou.paired_iou(*corners))


@every_form
def test_runs_under_jit_and_vmap_and_on_nothing(form):
    boxes = jnp.array([[[0.0, 0, 2, 2], [1, 1, 3, 4]], [[5, 5, 6, 9], [0, 0, 9, 1]]])
    targets = boxes[::-1]
    paired = PAIRED[form]
    once = paired(boxes, targets)
    np.testing.assert_allclose(jax.jit(paired)(boxes, targets), once, atol=1e-6)
    np.testing.assert_allclose(jax.vmap(paired)(boxes, targets), once, atol=1e-6)
    assert paired(jnp.zeros((0, 4)), jnp.zeros((0, 4))).shape == (0,)
    assert iou.pairwise_iou(jnp.zeros((0, 4)), boxes[0]).shape == (0, 2)
