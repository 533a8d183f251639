import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.scenes import IMAGE_SIZE, assert_uniform, blank, run
from yolojax.augment import crops
from yolojax.augment.boxes import carry_boxes
from yolojax.augment.scene import letterboxed

NUM = 10_000


def boxed(num, seed=0, room=3, most=30.0):
    """Pictures of 40x60 with up to `room` boxes each, none of them thin."""
    generator = np.random.default_rng(seed)
    sides = generator.uniform(4, [[most, most]], (num, room, 2))
    sides = np.minimum(sides, [58, 38])
    corner = generator.uniform(0, 1, (num, room, 2)) * ([60, 40] - sides)
    return blank(num)._replace(
        boxes=jnp.asarray(np.concatenate([corner, corner + sides], -1), jnp.float32),
        labels=jnp.zeros((num, room), jnp.int32),
        valid=jnp.asarray(generator.random((num, room)) < 0.7),
    )


def test_pad_shrinks_to_a_random_place_where_all_of_it_shows():
    scene = run(crops.pad(largest=3), NUM)
    assert_uniform(1 / scene.gain, 1, 3)
    np.testing.assert_allclose(scene.view[:, 0, 0], scene.gain, rtol=1e-6)
    np.testing.assert_allclose(scene.view[:, 1, 1], scene.gain, rtol=1e-6)
    room = 1 - scene.gain
    some = room > 0.01
    assert_uniform((scene.view[:, 0, 2] / (60 * room))[some], 0, 1)
    assert_uniform((scene.view[:, 1, 2] / (40 * room))[some], 0, 1)
    assert crops.pad(largest=3).smallest((40, 60)) == 1 / 3


def window(view):
    """x1 y1 x2 y2 of what an upright view shows."""
    low = -view[:, :2, 2] / view[:, [0, 1], [0, 1]]
    return np.concatenate([low, low + [60, 40] / view[:, [0, 1], [0, 1]]], axis=1)


def test_random_crop_is_uniform():
    scene = run(crops.random_crop(smallest=0.4), NUM)
    shown = window(scene.view)
    share = (shown[:, 2] - shown[:, 0]) / 60
    assert_uniform(share, 0.4, 1)
    np.testing.assert_allclose((shown[:, 3] - shown[:, 1]) / 40, share, rtol=1e-4)
    np.testing.assert_allclose(scene.gain, 1 / share, rtol=1e-4)
    some = share < 0.98
    assert_uniform((shown[:, 0] / (60 * (1 - share)))[some], 0, 1)
    assert_uniform((shown[:, 1] / (40 * (1 - share)))[some], 0, 1)


def test_random_crop_shows_no_border_where_it_need_not():
    # Pictures of 40x20 lie in the middle third of the width.
    batch = blank(500, np.tile([40, 20], (500, 1)))
    shown = window(run(crops.random_crop(smallest=0.2), 500, batch=batch).view)
    narrow = shown[:, 2] - shown[:, 0] <= 20
    assert 20 < narrow.sum() < 200
    assert (shown[narrow, 0] >= 20 - 1e-3).all()
    assert (shown[narrow, 2] <= 40 + 1e-3).all()
    # Wider ones show the whole width.
    assert (shown[~narrow, 0] <= 20 + 1e-3).all()
    assert (shown[~narrow, 2] >= 40 - 1e-3).all()


def kept_shares(batch, step, num):
    """Of each box, the share of its area that stays in view, in its picture's scale."""
    draws = jax.random.uniform(jax.random.key(1), (num, step.num_draws))

    @jax.jit
    def shown(batch, draws):
        scene = letterboxed(batch, IMAGE_SIZE)
        scene = step.apply(scene, draws, jnp.ones((num,), bool), batch, IMAGE_SIZE)
        boxes, _, _ = carry_boxes(batch, scene, IMAGE_SIZE)
        total = jnp.matmul(scene.view, scene.placements[:, 0])
        scale = total[:, 0, 0] * total[:, 1, 1]
        return boxes, scale, total

    boxes, scale, total = map(np.asarray, shown(batch, draws))
    area = np.prod(boxes[..., 2:] - boxes[..., :2], axis=-1) / scale[:, None]
    before = np.asarray(batch.boxes)
    before = np.prod(before[..., 2:] - before[..., :2], axis=-1)
    return np.where(batch.valid, area / before, np.nan), total


@pytest.mark.parametrize("keep", [0.25, 0.7, 1.0])
@pytest.mark.parametrize("name", ["random_crop", "random_resized_crop"])
def test_crops_keep_a_share_of_every_box(name, keep):
    num = 2000
    step = getattr(crops, name)(smallest=0.1, keep=keep)
    shares, total = kept_shares(boxed(num), step, num)
    # Rounding of coordinates of up to 60 px, against boxes of 4 px and more.
    assert np.nanmin(shares) > keep - 1e-4
    if keep < 1:
        assert np.nanmin(shares) < keep + 0.05
    # Without boxes in the way, parts are as small as they would be.
    alone = ~np.asarray(boxed(num).valid).any(1)
    largest = total[alone, 0, 0].max()
    assert largest > (6 if name == "random_crop" else 2.5)


def test_random_crop_without_keep_may_lose_boxes():
    shares, _ = kept_shares(boxed(500), crops.random_crop(smallest=0.3), 500)
    assert np.nanmin(shares) == 0


def test_random_resized_crop_has_the_published_area_and_aspect():
    step = crops.random_resized_crop(smallest=0.05, largest=0.3, aspect=4 / 3)
    placement = run(step, NUM).placements[:, 0]
    width, height = 60 / placement[:, 0, 0], 40 / placement[:, 1, 1]
    assert_uniform(width * height / 2400, 0.05, 0.3)
    stretch = (width / 60) / (height / 40)
    assert_uniform(np.log(stretch), -np.log(4 / 3), np.log(4 / 3))
    left, top = -placement[:, 0, 2] * width / 60, -placement[:, 1, 2] * height / 40
    assert_uniform(left / (60 - width), 0, 1)
    assert_uniform(top / (40 - height), 0, 1)


def test_random_resized_crop_stays_in_the_picture():
    sizes = np.random.default_rng(0).integers(1, [41, 61], (NUM, 2))
    step = crops.random_resized_crop()
    placement = run(step, NUM, batch=blank(NUM, sizes)).placements[:, 0]
    scale = placement[:, [1, 0], [1, 0]]
    start = -placement[:, [1, 0], 2] / scale
    end = start + np.float32([40, 60]) / scale
    assert start.min() > -1e-4
    assert (end <= sizes + 1e-3).all()


def test_random_resized_crop_leaves_mosaics_alone():
    batch = blank(4)
    scene = letterboxed(batch, IMAGE_SIZE)
    mosaics = scene._replace(regions=jnp.zeros((4, 1, 4)).at[..., 2:].set(40.0))
    step = crops.random_resized_crop()
    draws = jnp.full((4, step.num_draws), 0.3)
    after = step.apply(mosaics, draws, jnp.ones((4,), bool), batch, IMAGE_SIZE)
    np.testing.assert_array_equal(after.placements, scene.placements)
