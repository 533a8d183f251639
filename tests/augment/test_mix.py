import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from yolojax.augment import mix
from yolojax.augment.mix import Mixed
from yolojax.ops.outlines import box_outlines

SIZE = (48, 64)
STEPS = ("mixup", "cutmix", "copy_paste")


@functools.cache
def compiled(name, **arguments):
    step = getattr(mix, name)(**arguments)

    @functools.partial(jax.jit, static_argnames="image_size")
    def run(sample, seed, applied, image_size):
        num = sample.image.shape[0]
        keys = jax.vmap(jax.random.fold_in, (None, 0))(
            jax.random.key(seed), jnp.arange(num)
        )
        draws = jax.vmap(lambda key: jax.random.uniform(key, (step.num_draws,)))(keys)
        keys = jax.vmap(lambda key: jax.random.fold_in(key, 7))(keys)
        return step.apply(sample, draws, applied, keys, image_size), draws

    return run


def run(name, sample, seed=0, applied=True, **arguments):
    """The mixed samples, and the partner of each."""
    num, height, width = sample.image.shape[:3]
    applied = np.broadcast_to(np.asarray(applied), (num,))
    out, draws = compiled(name, **arguments)(sample, seed, applied, (height, width))
    order = np.argsort(np.asarray(draws)[:, 0], kind="stable")
    partner = np.empty(num, int)
    partner[order] = np.roll(order, -1)
    return jax.tree.map(np.asarray, out), partner


def samples(num=6, size=SIZE, seed=0):
    """Pictures of one grey each, a fifth apart, with one painted rectangle each."""
    generator = np.random.default_rng(seed)
    height, width = size
    image = np.zeros((num, *size, 3), np.float32)
    boxes = np.zeros((num, 1, 4), np.float32)
    for i in range(num):
        x1, y1 = generator.integers(0, [width // 2, height // 2])
        x2 = generator.integers(x1 + 6, width + 1)
        y2 = generator.integers(y1 + 6, height + 1)
        image[i, ..., 0] = i / 10
        image[i, y1:y2, x1:x2, 1] = 1
        boxes[i, 0] = x1, y1, x2, y2
    return Mixed(
        image=image,
        boxes=boxes,
        labels=np.arange(num, dtype=np.int32)[:, None],
        valid=np.ones((num, 1), bool),
    )


def find_paint(image, label):
    """The box around the painted pixels of the picture of this number, and a count."""
    mask = (np.abs(image[..., 0] - label / 10) < 0.01) & (image[..., 1] == 1)
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return None, 0
    box = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
    return np.array(box), mask.sum()


def assert_paint_is_where_boxes_say(before, after, max_covered):
    """Every box is that of its paint; what has none is mostly hidden."""
    areas = np.prod(before.boxes[..., 2:] - before.boxes[..., :2], axis=-1)[:, 0]
    found = 0
    for image, boxes, labels, valid in zip(
        after.image, after.boxes, after.labels, after.valid, strict=True
    ):
        assert len(set(labels[valid])) == valid.sum()
        for box, label in zip(boxes[valid], labels[valid], strict=True):
            paint, count = find_paint(image, label)
            np.testing.assert_allclose(paint, box, atol=1.0)
            assert count >= (1 - max_covered) * areas[label] - 1e-3
            found += 1
        for label in set(range(len(after.image))) - set(labels[valid]):
            paint, count = find_paint(image, label)
            assert (
                paint is None
                or count <= (1 - max_covered) * areas[label] + 1e-3
                or (paint[2:] - paint[:2]).min() <= 2
            )
    return found


@pytest.mark.parametrize("num", [1, 2, 5, 1000])
def test_partners_make_one_ring_of_the_batch(num):
    partner = np.asarray(mix.partners_of(jax.random.uniform(jax.random.key(0), (num,))))
    place, seen = 0, []
    for _ in range(num):
        seen.append(place)
        place = partner[place]
    assert sorted(seen) == list(range(num)) and place == 0


def test_mixup_is_the_weighted_mean_with_the_boxes_of_both():
    sample = samples()
    out, partner = run("mixup", sample)
    for i, other in enumerate(partner):
        # Grey i / 10 and grey other / 10: the weight follows from the first channel.
        weight = (out.image[i, 0, 0, 0] - other / 10) / (i / 10 - other / 10)
        assert 0 < weight < 1
        expected = weight * sample.image[i] + (1 - weight) * sample.image[other]
        np.testing.assert_allclose(out.image[i], expected, atol=1e-5)
        np.testing.assert_array_equal(out.boxes[i], sample.boxes[[i, other], 0])
        np.testing.assert_array_equal(out.labels[i], [i, other])
        assert out.valid[i].all()


@pytest.mark.parametrize("alpha, spread", [(32.0, 0.06202), (1.0, 0.28868)])
def test_mixup_weights_are_beta(alpha, spread):
    # The standard deviation of Beta(a, a) is 1 / (2 sqrt(2 a + 1)).
    num = 10_000
    image = np.zeros((num, 1, 1, 3), np.float32)
    image[:, 0, 0] = np.random.default_rng(0).uniform(0, 1, (num, 1))
    none = np.zeros((num, 0))
    sample = Mixed(image, none[..., None].repeat(4, -1).astype(np.float32), *[None] * 2)
    sample = sample._replace(labels=none.astype(np.int32), valid=none.astype(bool))
    out, partner = run("mixup", sample, alpha=alpha)
    own, other = image[:, 0, 0, 0], image[partner, 0, 0, 0]
    apart = np.abs(own - other) > 0.1
    weight = ((out.image[:, 0, 0, 0] - other) / np.where(apart, own - other, 1))[apart]
    assert -1e-4 <= weight.min() and weight.max() <= 1 + 1e-4
    assert abs(weight.mean() - 0.5) < 0.01
    assert abs(weight.std() - spread) < 0.03 * spread
    quantiles = np.quantile(weight, [0.1, 0.25, 0.75, 0.9])
    if alpha == 1:
        np.testing.assert_allclose(quantiles, [0.1, 0.25, 0.75, 0.9], atol=0.02)
    else:
        # Nearly normal: .6745 and 1.2816 standard deviations.
        normal = 0.5 + spread * np.array([-1.2816, -0.6745, 0.6745, 1.2816])
        np.testing.assert_allclose(quantiles, normal, atol=0.005)


@pytest.mark.parametrize("max_covered", [0.9, 0.5])
def test_cutmix_boxes_are_those_of_what_is_still_to_be_seen(max_covered):
    found = 0
    for seed in range(12):
        sample = samples(seed=seed)
        out, partner = run("cutmix", sample, seed=seed, max_covered=max_covered)
        found += assert_paint_is_where_boxes_say(sample, out, max_covered)
        np.testing.assert_array_equal(out.labels[:, 1], partner)
    assert found > 60


def test_cutmix_rectangles_are_those_of_the_paper():
    num, side = 10_000, 16
    whole = np.tile(np.float32([0, 0, side, side]), (num, 1, 1))
    sample = Mixed(
        np.zeros((num, side, side, 3), np.float32),
        whole,
        np.zeros((num, 1), np.int32),
        np.ones((num, 1), bool),
    )
    # A partner's box as large as its picture becomes the rectangle.
    out, _ = run("cutmix", sample, max_covered=1.0)
    found = out.boxes[:, 1]
    assert (found == np.round(found)).all()
    generator = np.random.default_rng(1)
    half = side * np.sqrt(1 - generator.uniform(0, 1, (200_000, 1))) / 2
    centre = generator.uniform(0, side, (200_000, 2))
    low, high = np.clip(centre - half, 0, side), np.clip(centre + half, 0, side)
    for given, wanted in (
        (found[:, :2], low),
        (found[:, 2:], high),
        (found[:, 2:] - found[:, :2], high - low),
    ):
        for q in (0.1, 0.3, 0.5, 0.7, 0.9):
            difference = np.quantile(given, q, axis=0) - np.quantile(wanted, q, axis=0)
            # Whole pixels are up to half a pixel off.
            assert np.abs(difference).max() < 0.75
        np.testing.assert_allclose(given.mean(0), wanted.mean(0), atol=0.15)


def test_pasted_boxes_are_seen_and_those_beneath_shrink():
    found = 0
    for seed in range(12):
        sample = samples(seed=seed)
        out, partner = run("copy_paste", sample, seed=seed, share=0.6)
        found += out.valid[:, 1].sum()
        assert_paint_is_where_boxes_say(sample, out, 0.9)
        np.testing.assert_array_equal(out.labels[:, 1], partner)
        for i in np.flatnonzero(~out.valid[:, 1]):
            np.testing.assert_array_equal(out.image[i], sample.image[i])
    assert abs(found / 72 - 0.6) < 0.2


def test_copy_paste_takes_what_lies_inside_of_a_polygon():
    # A right angle at the top left, of legs 20: of pixel (column, row) the centre is
    # inside where (column + .5) + (row + .5) < 20, shifted by the corner (10, 5).
    corners = np.float32([[10, 5], [30, 5], [10, 25]])
    triangle = np.concatenate([corners, np.roll(corners, -1, 0)], axis=-1)
    image = np.zeros((2, *SIZE, 3), np.float32)
    image[1] = 1
    sample = Mixed(
        image,
        np.tile(np.float32([[10, 5, 30, 25]]), (2, 1, 1)),
        np.int32([[0], [1]]),
        np.array([[False], [True]]),
        np.tile(triangle, (2, 1, 1, 1)),
    )
    out, _ = run("copy_paste", sample, share=1.0)
    row, column = np.mgrid[: SIZE[0], : SIZE[1]] + 0.5
    inside = (column > 10) & (row > 5) & (column - 10 + row - 5 < 20)
    np.testing.assert_array_equal(out.image[0, ..., 0], inside)
    np.testing.assert_array_equal(out.image[1], image[1])
    np.testing.assert_array_equal(out.valid, [[False, True], [True, False]])
    np.testing.assert_array_equal(out.boxes[0, 1], [10, 5, 30, 25])
    assert out.polygons == ()


def test_boxes_and_their_polygons_paste_the_same():
    sample = samples(seed=3)
    polygons = np.asarray(box_outlines(jnp.asarray(sample.boxes)))
    by_box, _ = run("copy_paste", sample, seed=3)
    by_polygon, _ = run("copy_paste", sample._replace(polygons=polygons), seed=3)
    for a, b in zip(jax.tree.leaves(by_box), jax.tree.leaves(by_polygon), strict=True):
        np.testing.assert_array_equal(a, b)


def test_copy_paste_chooses_the_share_of_objects():
    num, room = 2000, 5
    sample = Mixed(
        np.zeros((num, 2, 2, 3), np.float32),
        np.tile(np.float32([0, 0, 2, 2]), (num, room, 1)),
        np.zeros((num, room), np.int32),
        np.tile([True, True, True, True, False], (num, 1)),
    )
    out, _ = run("copy_paste", sample, share=0.3)
    pasted = out.valid[:, room:]
    np.testing.assert_allclose(pasted[:, :4].mean(0), 0.3, atol=0.035)
    assert not pasted[:, 4].any()


@pytest.mark.parametrize("name", STEPS)
def test_samples_that_are_not_applied_keep_every_bit(name):
    sample = samples(seed=1)
    sample = sample._replace(boxes=sample.boxes + np.float32(0.3))
    applied = np.array([True, False, False, True, True, True])
    out, _ = run(name, sample, applied=applied)
    np.testing.assert_array_equal(out.image[1:3], sample.image[1:3])
    np.testing.assert_array_equal(out.boxes[1:3, :1], sample.boxes[1:3])
    np.testing.assert_array_equal(out.valid[1:3], [[True, False]] * 2)
    assert (out.image[0] != sample.image[0]).any()


@pytest.mark.parametrize("name", STEPS)
def test_one_picture_of_one_pixel_without_boxes_is_mixed_with_itself(name):
    tiny = Mixed(
        np.full((1, 1, 1, 3), 0.25, np.float32),
        np.zeros((1, 0, 4), np.float32),
        np.zeros((1, 0), np.int32),
        np.zeros((1, 0), bool),
    )
    out, partner = run(name, tiny)
    assert partner == [0]
    np.testing.assert_allclose(out.image, 0.25)
    assert out.boxes.shape == (1, 0, 4) and not out.valid.any()


@pytest.mark.parametrize("name", STEPS)
def test_vmap_over_batches_is_the_loop(name):
    both = [samples(seed=seed) for seed in (0, 1)]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *both)
    step = functools.partial(compiled(name), image_size=SIZE)
    applied = jnp.ones((6,), bool)
    together, _ = jax.jit(jax.vmap(step, (0, 0, None)))(stacked, jnp.arange(2), applied)
    for i in range(2):
        alone, _ = run(name, both[i], seed=i)
        pairs = zip(jax.tree.leaves(alone), jax.tree.leaves(together), strict=True)
        for a, b in pairs:
            np.testing.assert_allclose(a, b[i], atol=1e-6)


@pytest.mark.parametrize(
    "name, arguments, message",
    [
        ("mixup", dict(alpha=0), "mixup: alpha is 0, expected more than 0"),
        ("cutmix", dict(alpha=-1.0), "cutmix: alpha is -1.0, expected more than 0"),
        ("cutmix", dict(max_covered=1.5), "cutmix: max_covered is 1.5, expected 0"),
        ("copy_paste", dict(share=-0.1), "copy_paste: share is -0.1, expected 0 to 1"),
        ("copy_paste", dict(max_covered=2), "copy_paste: max_covered is 2, expected"),
    ],
)
def test_arguments_out_of_range_are_refused(name, arguments, message):
    with pytest.raises(ValueError, match=message):
        getattr(mix, name)(**arguments)
