import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from yolojax.ops import warp

EYE = np.eye(3, dtype=np.float32)
EVERYWHERE = np.float32([-np.inf, -np.inf, np.inf, np.inf])
NOWHERE = np.zeros(4, np.float32)

warp_tiles = jax.jit(warp.warp_tiles, static_argnames=("output_size", "levels"))
transform_boxes = jax.jit(warp.transform_boxes)


def noise(*shape, seed=0):
    generator = np.random.default_rng(seed)
    return generator.integers(0, 256, shape, dtype=np.uint8)


def smooth(height, width, seed=0):
    coarse = noise(height // 8 + 2, width // 8 + 2, 3, seed=seed)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def translation(x, y):
    return np.float32([[1, 0, x], [0, 1, y], [0, 0, 1]])


def scaling(x, y):
    return np.diag(np.float32([x, y, 1]))


def warp_one(image, inverse, output_size, size=None):
    """One picture through one matrix from output to source pixels."""
    return np.asarray(
        warp_tiles(
            jnp.asarray(image)[None],
            jnp.asarray([size or image.shape[:2]], jnp.int32),
            jnp.zeros((1, 1), jnp.int32),
            jnp.asarray(EYE)[None, None],
            jnp.asarray(EVERYWHERE)[None, None],
            jnp.asarray(inverse, jnp.float32)[None],
            output_size=output_size,
        )[0]
    )


def random_inverse(generator, perspective):
    angle = generator.uniform(-np.pi, np.pi)
    gain = generator.uniform(0.6, 1.6)
    cosine, sine = np.cos(angle) * gain, np.sin(angle) * gain
    shear = generator.uniform(-0.3, 0.3)
    forward = (
        translation(*generator.uniform(15, 35, 2))
        @ np.float32([[1, shear, 0], [0, 1, 0], [0, 0, 1]])
        @ np.float32([[cosine, sine, 0], [-sine, cosine, 0], [0, 0, 1]])
        @ np.float32(
            [
                [1, 0, 0],
                [0, 1, 0],
                [*generator.uniform(-perspective, perspective, 2), 1],
            ]
        )
        @ translation(-24, -20)
    )
    return np.linalg.inv(forward.astype(np.float64))


def test_identity_is_exact():
    image = noise(7, 9, 3)
    np.testing.assert_array_equal(warp_one(image, EYE, (7, 9)), image)


def test_whole_pixel_shift_is_exact_and_fills_with_grey():
    image = noise(6, 5, 3)
    shifted = warp_one(image, translation(-2, 1), (6, 5))
    np.testing.assert_array_equal(shifted[:5, 2:], image[1:, :3])
    np.testing.assert_array_equal(shifted[5], 114)
    np.testing.assert_array_equal(shifted[:, :2], 114)


def test_flip_is_exact():
    image = noise(6, 5, 3)
    flip = np.float32([[-1, 0, 5], [0, -1, 6], [0, 0, 1]])
    np.testing.assert_array_equal(warp_one(image, flip, (6, 5)), image[::-1, ::-1])


def test_half_pixel_shift_is_the_mean_of_neighbours_and_of_grey_at_the_border():
    image = np.zeros((1, 3, 3), np.uint8)
    image[0, :, 0] = [10, 20, 40]
    image[0, :, 1] = 114
    moved = warp_one(image, translation(0.5, 0), (1, 3))
    np.testing.assert_allclose(moved[0, :, 0], [15, 30, (40 + 114) / 2])
    np.testing.assert_allclose(moved[0, :, 1], 114, rtol=1e-6)


@pytest.mark.parametrize("perspective", [0.0, 0.004], ids=["affine", "perspective"])
@pytest.mark.parametrize("seed", range(4))
def test_agrees_with_opencv(seed, perspective):
    image = smooth(40, 48, seed=seed)
    inverse = random_inverse(np.random.default_rng(seed), perspective)
    # OpenCV puts a pixel's centre at a whole number.
    shifted = translation(-0.5, -0.5) @ inverse @ translation(0.5, 0.5)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    if perspective:
        shown = cv2.warpPerspective(
            image, shifted, (52, 36), flags=flags, borderValue=(114, 114, 114)
        )
    else:
        shown = cv2.warpAffine(
            image, shifted[:2], (52, 36), flags=flags, borderValue=(114, 114, 114)
        )
    ours = warp_one(image, inverse, (36, 52))
    assert np.abs(ours - shown).mean() < 0.5
    assert (np.abs(ours - shown) > 6).mean() < 0.01


@pytest.mark.parametrize("seed, levels", [*((s, 0) for s in range(6)), (6, 2), (7, 2)])
def test_nothing_outside_of_the_valid_size_is_read(seed, levels):
    """Also not by halves and quarters, which the last two read."""
    generator = np.random.default_rng(seed)
    images = np.stack([noise(16, 20, 3, seed=seed + i) for i in range(3)])
    sizes = generator.integers(0, [17, 21], (3, 2)).astype(np.int32)
    sizes[0] = [1, 20]
    inverse = np.stack([random_inverse(generator, 0.003) for _ in range(3)])
    inverse = inverse @ np.diag([2.0**levels, 2.0**levels, 1.0])
    regions = np.stack([EVERYWHERE, np.float32([10, 10, 30, 30])])

    def render(sentinel):
        padded = np.full_like(images, sentinel)
        for target, image, (height, width) in zip(padded, images, sizes, strict=True):
            target[:height, :width] = image[:height, :width]
        return warp_tiles(
            jnp.asarray(padded),
            jnp.asarray(sizes),
            jnp.asarray([[0, 1], [1, 2], [2, 0]], jnp.int32),
            jnp.asarray(np.tile(EYE, (3, 2, 1, 1))),
            jnp.asarray(np.tile(regions, (3, 1, 1))),
            jnp.asarray(inverse, jnp.float32),
            output_size=(30, 30),
            levels=levels,
        )

    np.testing.assert_array_equal(render(0), render(255))


def test_picture_without_pixels_is_grey():
    out = warp_one(noise(4, 4, 3), EYE, (3, 3), size=(0, 0))
    np.testing.assert_array_equal(out, 114)


def test_single_pixel_source():
    image = np.full((1, 1, 3), 200, np.uint8)
    out = warp_one(image, EYE, (2, 3))
    assert out[0, 0, 0] == 200
    np.testing.assert_array_equal(out[1], 114)
    np.testing.assert_array_equal(out[0, 1:], 114)
    # Enlarged by 4, a tent of 4 px around the middle of 4x4.
    enlarged = warp_one(image, scaling(0.25, 0.25), (4, 4))[..., 0]
    weight = np.float32([0.625, 0.875, 0.875, 0.625])
    expected = 114 + (200 - 114) * weight[:, None] * weight
    np.testing.assert_allclose(enlarged, expected, rtol=1e-5)


def test_each_pixel_comes_from_the_tile_that_owns_it_and_the_last_one_wins():
    images = np.stack([np.full((8, 8, 3), v, np.uint8) for v in (10, 20, 30)])
    regions = np.stack(
        [
            np.float32([0, 0, 4, 8]),
            np.float32([4, 0, 8, 4]),
            np.float32([3, 3, 5, 5]),
            NOWHERE,
        ]
    )
    out = warp_tiles(
        jnp.asarray(images),
        jnp.full((3, 2), 8, jnp.int32),
        jnp.asarray([[0, 1, 2, 1]], jnp.int32),
        jnp.asarray(np.tile(EYE, (1, 4, 1, 1))),
        jnp.asarray(regions)[None],
        jnp.asarray(EYE)[None],
        output_size=(8, 9),
    )
    expected = np.full((8, 9), 114)
    expected[:, :4] = 10
    expected[:4, 4:8] = 20
    expected[3:5, 3:5] = 30
    np.testing.assert_allclose(np.asarray(out)[0, ..., 2], expected)


def test_behind_the_horizon_is_grey():
    inverse = np.float32([[1, 0, 0], [0, 1, 0], [-0.25, 0, 1]])
    out = warp_one(np.zeros((64, 64, 3), np.uint8), inverse, (2, 12))
    np.testing.assert_array_equal(out[:, 5:], 114)
    assert (out[:, :3] == 0).all()


def test_warp_runs_under_jit_and_vmap_and_has_a_finite_gradient():
    images = noise(2, 3, 8, 8, 3)
    matrix = np.tile(
        np.float32([[0.9, 0.1, 0.3], [0, 1.1, 0], [0.001, 0, 1]]), (3, 1, 1)
    )

    def render(images, matrix):
        return warp_tiles(
            images,
            jnp.full((3, 2), 8, jnp.int32),
            jnp.arange(3, dtype=jnp.int32)[:, None],
            jnp.asarray(np.tile(EYE, (3, 1, 1, 1))),
            jnp.asarray(np.tile(EVERYWHERE, (3, 1, 1))),
            matrix,
            output_size=(6, 6),
        )

    matrix = jnp.asarray(matrix)
    plain = [jax.jit(render)(jnp.asarray(i), matrix) for i in images]
    mapped = jax.vmap(jax.jit(render), in_axes=(0, None))(jnp.asarray(images), matrix)
    np.testing.assert_allclose(mapped, np.stack(plain), atol=1e-3)
    slope = jax.jit(jax.grad(lambda m: render(jnp.asarray(images[0]), m).sum()))(matrix)
    assert np.isfinite(slope).all()


def test_more_pixels_than_an_int32_counts_are_read_all_the_same(monkeypatch):
    images = noise(3, 5, 7, 3)
    arguments = (
        jnp.asarray(images),
        jnp.asarray([[5, 7], [4, 3], [5, 6]], jnp.int32),
        jnp.asarray([[2, 0], [1, 1], [0, 2]], jnp.int32),
        jnp.asarray(np.tile(scaling(0.9, 1.1), (3, 2, 1, 1))),
        jnp.asarray(np.tile(np.stack([EVERYWHERE, [0, 0, 3, 3]]), (3, 1, 1))),
        jnp.asarray(np.tile(EYE, (3, 1, 1))),
    )
    expected = warp_tiles(*arguments, output_size=(6, 6))
    monkeypatch.setattr(warp, "MOST_PIXELS", 10)
    many = jax.jit(lambda *a: warp.warp_tiles(*a, output_size=(6, 6)))(*arguments)
    np.testing.assert_array_equal(many, expected)
    with pytest.raises(ValueError, match="use a smaller batch"):
        warp.warp_tiles(*arguments, output_size=(6, 6), levels=1)


def test_matrices_agree_with_numpy():
    generator = np.random.default_rng(0)
    a, b = (generator.normal(size=(2, 5, 3, 3)).astype(np.float32) for _ in range(2))
    product = warp.multiply(jnp.asarray(a), jnp.asarray(b))
    np.testing.assert_allclose(product, a @ b, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        warp.invert(jnp.asarray(a)), np.linalg.inv(a), rtol=1e-3, atol=1e-4
    )


@pytest.mark.parametrize(
    "matrix, expected",
    [
        (EYE, [10, 20, 30, 60]),
        (translation(5, -3), [15, 17, 35, 57]),
        (np.float32([[-1, 0, 100], [0, 1, 0], [0, 0, 1]]), [70, 20, 90, 60]),
        (np.float32([[0, -1, 0], [1, 0, 0], [0, 0, 1]]), [-60, 10, -20, 30]),
        (scaling(2, 0.5), [20, 10, 60, 30]),
        (np.float32([[1, 0, 0], [0, 1, 0], [0, 0.05, 1]]), [2.5, 10, 15, 15]),
    ],
    ids=["same", "moved", "flipped", "turned", "scaled", "tilted"],
)
def test_boxes_by_hand(matrix, expected):
    boxes = jnp.asarray([[10.0, 20.0, 30.0, 60.0]])
    moved = transform_boxes(boxes, jnp.asarray(matrix))
    np.testing.assert_allclose(moved, [expected], rtol=1e-5)


@pytest.mark.parametrize("seed", range(4))
def test_box_encloses_its_points_and_no_more(seed):
    generator = np.random.default_rng(seed)
    matrix = np.linalg.inv(random_inverse(generator, 0.004))
    x1, y1, x2, y2 = box = np.float32([3, 5, 41, 30])
    x, y = np.meshgrid(np.linspace(x1, x2, 50), np.linspace(y1, y2, 50))
    points = matrix @ np.stack([x.ravel(), y.ravel(), np.ones(x.size)])
    points = points[:2] / points[2]
    expected = np.concatenate([points.min(1), points.max(1)])
    moved = transform_boxes(jnp.asarray(box)[None], jnp.float32(matrix))
    np.testing.assert_allclose(moved[0], expected, rtol=1e-4, atol=1e-3)


def test_box_across_the_horizon_keeps_the_part_before_it():
    # Depth is 1 - x / 10: the horizon lies at x = 10.
    matrix = jnp.asarray([[1.0, 0, 0], [0, 1, 0], [-0.1, 0, 1]])
    boxes = jnp.asarray([[5.0, 1, 20, 2], [11, 1, 20, 2]])
    across, behind = np.asarray(transform_boxes(boxes, matrix))
    np.testing.assert_allclose(across[:2], [10, 2], rtol=1e-5)
    assert (across[2:] > [5000, 1000]).all()
    np.testing.assert_array_equal(behind, 0)


def test_boxes_run_under_jit_and_vmap_without_boxes_and_with_a_finite_gradient():
    boxes = jnp.asarray([[[1.0, 2, 3, 4]], [[0, 0, 0, 0]]])
    matrix = jnp.asarray([[1.0, 0, 0], [0, 1, 0], [-0.3, 0, 1]])
    matrices = jnp.stack([matrix, matrix])
    mapped = jax.vmap(transform_boxes)(boxes, matrices)
    np.testing.assert_allclose(mapped, transform_boxes(boxes, matrices), rtol=1e-6)
    assert transform_boxes(boxes[0, :0], matrix).shape == (0, 4)
    total = lambda b, m: jnp.sum(transform_boxes(b, m))  # noqa: E731
    slopes = jax.jit(jax.grad(total, argnums=(0, 1)))(boxes, matrices)
    assert all(np.isfinite(slope).all() for slope in slopes)


def test_settle_changes_nothing():
    image = jnp.asarray(noise(4, 4, 3), jnp.float32)
    settled = jax.jit(lambda x: warp.settle(x * 2.0, jnp.any(x < 0)))(image)
    np.testing.assert_array_equal(settled, image * 2)


@pytest.mark.parametrize("position", [0.0, 0.5, 7.3, -1e30, 1e30, np.inf, -np.inf])
def test_taps_stay_inside_of_the_picture_wherever_they_are_asked_for(position):
    """The gather promises its indices to be in bounds: nothing checks them later."""
    valid = jnp.arange(9, dtype=jnp.int32)[None, None]
    where = jnp.full(valid.shape, position, jnp.float32)
    for last in (0, 6):
        index, weight, next_weight = warp._taps(where, valid, last)
        assert index.min() >= 0 and index.max() <= last
        np.testing.assert_array_equal(weight[index >= valid], 0)
        np.testing.assert_array_equal(next_weight[index + 1 >= valid], 0)
        assert np.isfinite(weight).all() and np.isfinite(next_weight).all()
