import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.losses.original import SIZE, STRIDES, Golden
from yolojax.losses.assign import assign_anchors, local_targets
from yolojax.ops.boxes import corners_to_centres

# Jitted, since each operation of its own takes as long to compile as all of them.
assign = jax.jit(assign_anchors, static_argnames=("grids", "anchor_ratio"))
GRIDS = tuple((SIZE[0] // stride, SIZE[1] // stride) for stride in STRIDES)


def pairs_of(boxes, *, grid=(6, 8), anchors=((2.0, 2.0),), valid=None, ratio=4.0):
    """The pairs of one picture on one level as a list of (row, column, anchor, box)."""
    boxes = jnp.asarray(boxes, jnp.float32).reshape(1, 1, -1, 4)
    valid = jnp.ones(boxes.shape[2], bool) if valid is None else jnp.asarray(valid)
    found = assign(
        boxes, valid[None], jnp.asarray([anchors]), grids=(grid,), anchor_ratio=ratio
    )
    found = jax.tree.map(np.asarray, found)
    place, anchor = np.divmod(found.cell[0, 0], len(anchors))
    rows, columns = np.divmod(place, grid[1])
    listed = zip(rows, columns, anchor, found.box[0, 0], found.valid[0, 0], strict=True)
    return [(int(r), int(c), int(a), int(n)) for r, c, a, n, v in listed if v]


def test_a_box_takes_its_cell_and_the_two_nearest():
    assert pairs_of([3.3, 2.8, 2, 2]) == [(2, 2, 0, 0), (2, 3, 0, 0), (3, 3, 0, 0)]


def test_no_neighbour_lies_across_the_edge():
    assert pairs_of([0.2, 0.2, 2, 2]) == [(0, 0, 0, 0)]
    assert pairs_of([7.8, 5.8, 2, 2]) == [(5, 7, 0, 0)]


def test_a_centre_on_the_border_takes_both_sides_and_its_own_cell_again():
    # x = 3 rounds to its own cell from the right half, which the original counts.
    found = pairs_of([3.0, 2.7, 2, 2])
    assert found == [(2, 2, 0, 0), (2, 3, 0, 0), (2, 3, 0, 0), (3, 3, 0, 0)]


def test_a_centre_in_the_middle_takes_no_neighbour():
    assert pairs_of([3.5, 2.5, 2, 2]) == [(2, 3, 0, 0)]


@pytest.mark.parametrize("side, taken", [(7.9, 1), (8.0, 0), (0.51, 1), (0.5, 0)])
def test_the_anchor_ratio_is_exclusive_in_both_directions(side, taken):
    assert len(pairs_of([3.5, 2.5, side, 2.0])) == taken


def test_each_anchor_decides_for_itself():
    found = pairs_of([3.5, 2.5, 2, 2], anchors=((0.4, 0.4), (2.0, 2.0), (5.0, 5.0)))
    assert found == [(2, 3, 1, 0), (2, 3, 2, 0)]


def test_pairs_of_a_cell_stand_in_the_order_of_offset_then_box():
    # Both centres fall into cell (2, 3); the first box also comes from the left.
    found = pairs_of([[4.2, 2.5, 2, 2], [3.5, 2.5, 2, 2]])
    assert [pair for pair in found if pair[1] == 3] == [(2, 3, 0, 1), (2, 3, 0, 0)]


def test_padding_takes_no_cell_wherever_it_stands():
    boxes = [[1.5, 1.5, 2, 2], [3.5, 2.5, 2, 2], [0, 0, 0, 0]]
    assert pairs_of(boxes, valid=[False, True, False]) == [(2, 3, 0, 1)]


def test_boxes_without_area_take_no_cell():
    assert pairs_of([[3.5, 2.5, 0, 2], [3.5, 2.5, 0, 0]]) == []


def test_a_centre_on_the_far_edge_stays_inside():
    assert (5, 7, 0, 0) in pairs_of([8.0, 6.0, 2, 2])


def test_no_boxes_give_no_pairs():
    assert pairs_of(np.zeros((0, 4))) == []


def test_more_cells_than_one_key_can_hold_are_sorted_all_the_same():
    # 400 x 400 cells of 3 anchors and 15 x 2,000 pairs: 1.4e10, beyond 32 bits.
    boxes = np.zeros((2000, 4))
    boxes[1999], boxes[3] = [250.3, 399.5, 2, 2], [3.3, 2.8, 2, 2]
    anchors = ((2.0, 2.0), (99.0, 99.0), (2.0, 2.0))
    found = pairs_of(boxes, anchors=anchors, grid=(400, 400))
    # By cell, in each cell by anchor.
    near = [(row, col, a, 3) for row, col in ((2, 2), (2, 3), (3, 3)) for a in (0, 2)]
    far = [(399, column, a, 1999) for column in (249, 250) for a in (0, 2)]
    assert found == [*near, *far]


@pytest.mark.parametrize("num_classes", [80, 1])
@pytest.mark.parametrize("case", ["base", "anchor_t2"])
def test_pairs_match_the_original_on_each_level(num_classes, case):
    golden = Golden(num_classes)
    corners, labels, valid = golden.targets(case)
    pixels = np.float32(np.reshape(STRIDES, (3, 1, 1)))
    boxes = corners_to_centres(jnp.asarray(corners))[:, None] / pixels[None]
    found = assign(
        boxes,
        jnp.asarray(valid),
        jnp.asarray(golden.anchors / pixels, jnp.float32),
        grids=GRIDS,
        anchor_ratio=golden.settings(case)["anchor_ratio"],
    )
    targets = local_targets(boxes, found, grids=GRIDS, num_anchors=3)
    found = jax.tree.map(np.asarray, found)
    for level, (_, width) in enumerate(GRIDS):
        image, slot = np.nonzero(found.valid[:, level])
        cell = np.asarray(found.cell[image, level, slot])
        label = labels[image, found.box[image, level, slot]]
        ours = np.column_stack(
            [image, cell // 3 // width, cell // 3 % width, cell % 3, label]
            + [np.asarray(targets)[image, level, slot]]
        )
        theirs = golden.pairs(case, level)
        # Same pairs as often, in any order.
        ours, theirs = (x[np.lexsort(np.round(x, 3).T)] for x in (ours, theirs))
        assert ours.shape == theirs.shape
        np.testing.assert_array_equal(ours[:, :5], theirs[:, :5])
        np.testing.assert_allclose(ours[:, 5:], theirs[:, 5:], atol=1e-5)


def test_pictures_are_independent_under_jit_and_vmap():
    rng = np.random.default_rng(0)
    boxes = jnp.asarray(rng.uniform(0.5, 6, (3, 2, 4, 4)), jnp.float32)
    valid = jnp.asarray(rng.random((3, 4)) < 0.7)
    anchors = jnp.asarray(rng.uniform(1, 4, (2, 3, 2)), jnp.float32)

    def found(boxes, valid):
        return assign(boxes, valid, anchors, grids=((6, 8), (3, 4)))

    together = found(boxes, valid)
    apart = jax.vmap(lambda b, v: found(b[None], v[None]))(boxes, valid)
    for ours, alone in zip(together, apart, strict=True):
        np.testing.assert_array_equal(ours, alone[:, 0])
