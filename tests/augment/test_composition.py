"""Whole policies of geometry, against OpenCV and against what must not matter."""

import functools

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.augment.test_policy import POLICIES, augmented
from tests.painting import find_paint, make_batch, noisy, painted
from yolojax.augment.policy import make_augment, make_explain
from yolojax.data import pipeline
from yolojax.data.report import Report
from yolojax.records import Example

SIZE = (96, 120)


def smooth(seed):
    """Nine pictures of 80x100 without small detail, and a box in each."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 256, (9, 8, 10, 3), np.uint8)
    resized = [cv2.resize(c, (100, 80), interpolation=cv2.INTER_CUBIC) for c in coarse]
    sizes = generator.integers([50, 60], [81, 101], (9, 2))
    boxes = np.tile(np.float32([10, 10, 40, 40]), (9, 1, 1))
    return make_batch(np.stack(resized), sizes, boxes)


@functools.cache
def compiled_scene(name):
    return jax.jit(make_explain(POLICIES[name], image_size=SIZE))


def by_opencv(batch, scene, row):
    """A sample by one warp of each tile's picture, and masks on the canvas."""
    shifted = np.array([[1, 0, -0.5], [0, 1, -0.5], [0, 0, 1]])
    view = scene.view[row].astype(np.float64)
    y, x = np.mgrid[: SIZE[0], : SIZE[1]] + 0.5
    canvas = np.linalg.inv(view) @ np.stack([x.ravel(), y.ravel(), np.ones(x.size)])
    ahead = (canvas[2] > 0).reshape(SIZE)
    canvas = (canvas[:2] / canvas[2]).reshape(2, *SIZE)
    out = np.full((*SIZE, 3), 114.0)
    for source, placement, region in zip(
        scene.sources[row], scene.placements[row], scene.regions[row], strict=True
    ):
        height, width = batch.size[source]
        forward = shifted @ view @ placement.astype(np.float64) @ np.linalg.inv(shifted)
        shown = cv2.warpPerspective(
            batch.image[source, :height, :width],
            forward,
            SIZE[::-1],
            flags=cv2.INTER_LINEAR,
            borderValue=(114, 114, 114),
        )
        mine = (canvas[0] >= region[0]) & (canvas[0] < region[2])
        mine &= (canvas[1] >= region[1]) & (canvas[1] < region[3])
        out = np.where((mine & ahead)[..., None], shown, out)
    return out


@pytest.mark.parametrize("name", ["geometry", "everything"])
def test_composition_agrees_with_opencv(name):
    errors = []
    for seed in range(4):
        batch = smooth(seed)
        found = compiled_scene(name)(jax.random.key(seed), batch, mosaic_on=True)
        scene = jax.tree.map(np.asarray, found.scene)
        out, _ = augmented(batch, name, image_size=SIZE, seed=seed)
        for row in range(9):
            expected = by_opencv(batch, scene, row)
            errors.append(np.abs(out.image[row] * 255 - expected).mean())
    assert max(errors) < 1.0
    assert np.mean(errors) < 0.5


def test_boxes_go_where_the_corners_of_their_rectangles_go():
    batch = smooth(0)
    found = compiled_scene("everything")(jax.random.key(0), batch, mosaic_on=True)
    scene = jax.tree.map(np.asarray, found.scene)
    out, _ = augmented(batch, "everything", image_size=SIZE)
    checked = 0
    for row in range(9):
        for tile, source in enumerate(scene.sources[row]):
            box = batch.boxes[source, 0][[[0, 2, 2, 0], [1, 1, 3, 3]]]
            on_canvas = scene.placements[row, tile] @ np.vstack([box, np.ones(4)])
            low, high = on_canvas[:2].min(1), on_canvas[:2].max(1)
            region = scene.regions[row, tile]
            if (low < region[:2]).any() or (high > region[2:]).any():
                continue
            corners = scene.view[row] @ on_canvas
            corners = corners[:2] / corners[2]
            if corners.min() < 0 or (corners.max(1) > SIZE[::-1]).any():
                continue
            expected = [*corners.min(1), *corners.max(1)]
            mine = out.valid[row] & (out.labels[row] == source)
            np.testing.assert_allclose(out.boxes[row, mine], [expected], atol=0.01)
            checked += 1
    assert checked >= 5


def test_what_lies_outside_of_a_picture_is_never_read():
    """Also not by the halves that `everything` reads where it shrinks a picture."""
    results = []
    for sentinel in (0, 255):
        batch = painted((80, 100), 3)
        for image, (height, width) in zip(batch.image, batch.size, strict=True):
            image[height:] = sentinel
            image[:, width:] = sentinel
        results.append(augmented(batch, "everything", image_size=SIZE, seed=3)[0])
    for one, other in zip(*results, strict=True):
        np.testing.assert_array_equal(one, other)


def test_gray_pictures_stay_gray():
    batch = smooth(1)
    gray = batch._replace(image=np.repeat(batch.image[..., :1], 3, axis=-1))
    out, _ = augmented(gray, "everything", image_size=SIZE)
    np.testing.assert_array_equal(out.image[..., 0], out.image[..., 1])
    np.testing.assert_array_equal(out.image[..., 0], out.image[..., 2])


@pytest.mark.slow
def test_runs_under_vmap():
    policy = (dict(name="mosaic", probability=0.5), *POLICIES["rotation"])
    augment = make_augment(policy, image_size=(16, 16), max_boxes=5)
    augment = functools.partial(augment, mosaic_on=True)
    keys, batch = jax.random.split(jax.random.key(0), 3), noisy()
    mapped, cut = jax.jit(jax.vmap(augment, in_axes=(0, None)))(keys, batch)
    one = jax.jit(augment)
    for i, key in enumerate(keys):
        alone, alone_cut = one(key, batch)
        assert cut[i] == alone_cut
        for name in ("image", "boxes", "labels", "valid"):
            mine = getattr(mapped, name)[i]
            np.testing.assert_allclose(mine, getattr(alone, name), atol=1e-4)


@pytest.mark.slow
def test_pictures_full_of_boxes_lose_what_has_no_room_and_say_so():
    generator = np.random.default_rng(0)
    corner = generator.uniform(0, 80, (9, 40, 2))
    boxes = np.concatenate([corner, corner + 15], axis=-1)
    batch = make_batch(np.zeros((9, 96, 96, 3)), np.full((9, 2), 96), boxes)
    key, found = jax.random.key(0), {}
    for room in (400, 20):
        policy = (dict(name="mosaic9", probability=0.5), dict(name="affine"))
        augment = make_augment(policy, image_size=(96, 96), max_boxes=room)
        boxes_only = jax.jit(lambda *a: augment(*a, mosaic_on=True))  # noqa: B023
        out, cut = boxes_only(key, batch)
        found[room] = np.asarray(out.valid).sum(1), int(cut)
    all_of_them, none = found[400]
    assert none == 0 and all_of_them.max() > 20
    np.testing.assert_array_equal(found[20][0], np.minimum(all_of_them, 20))
    assert found[20][1] == np.maximum(all_of_them - 20, 0).sum()


class OneLargePicture:
    """A black JPEG of 9000x6000 with a red rectangle."""

    class_names = ("thing",)
    report = Report()

    def __init__(self):
        image = np.zeros((6000, 9000, 3), np.uint8)
        image[1200:3000, 3000:7200, 2] = 255
        self.data = cv2.imencode(".jpg", image)[1].tobytes()

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return Example(
            image=self.data,
            boxes=np.float32([[3000, 1200, 7200, 3000]]),
            labels=np.zeros(1, np.int32),
            crowd=np.zeros(1, bool),
            areas=np.float32([4200 * 1800]),
            image_id=0,
            size=(6000, 9000),
            name="large.jpg",
        )


def test_a_picture_of_54_megapixels_comes_small_to_the_device():
    batches = pipeline.make_train_batches(
        OneLargePicture(),
        np.arange(1),
        image_size=(80, 100),
        batch_size=1,
        max_boxes=1,
        seed=0,
        steps_per_epoch=1,
        num_threads=1,
        cache="none",
    )
    batch = next(batches)
    batches.close()
    assert batch.image.shape == (1, 80, 100, 3)
    np.testing.assert_array_equal(batch.size, [[67, 100]])
    scene = jax.jit(make_augment((), image_size=(80, 100), max_boxes=1))
    out, _ = scene(jax.random.key(0), batch, mosaic_on=True)
    paint = find_paint(np.asarray(out.image[0]), 0)
    np.testing.assert_allclose(paint, out.boxes[0, 0], atol=1.0)


@pytest.mark.parametrize("scale", [0.45, 0.3, 0.2, 0.13])
def test_shrinking_below_a_half_does_not_alias(scale):
    """Against area resampling, on the finest stripes and on noise."""
    generator = np.random.default_rng(0)
    stripes = np.zeros((256, 320, 3), np.uint8)
    stripes[:, ::2] = 255
    images = [stripes, generator.integers(0, 256, (256, 320, 3), np.uint8)]
    batch = make_batch(
        np.stack(images), np.full((2, 2), [256, 320]), np.zeros((2, 0, 4))
    )
    size = (round(256 * scale), round(320 * scale))
    out = [
        jax.jit(
            make_augment(
                (dict(name="letterbox", stretch=True),),
                image_size=size,
                max_boxes=1,
                source_size=source,
            )
        )(jax.random.key(0), batch, mosaic_on=True)[0]
        for source in ((256, 320), size)
    ]
    for row, most in ((0, 26), (1, 16)):
        area = cv2.resize(images[row], size[::-1], interpolation=cv2.INTER_AREA)
        halved, plain = (
            np.abs(np.asarray(o.image[row]) * 255 - area)[1:-1, 1:-1].mean()
            for o in out
        )
        assert halved < most
        assert halved < 0.5 * plain


def test_levels_are_taken_only_where_a_policy_shrinks_below_a_half():
    def text(scale):
        policy = (dict(name="affine", scale=scale),)
        augment = make_augment(policy, image_size=(32, 32), max_boxes=1)
        augment = functools.partial(augment, mosaic_on=True)
        return str(jax.make_jaxpr(augment)(jax.random.key(0), noisy()))

    assert "u16" not in text(0.5)
    assert "u16" in text(0.6)
    assert jnp.iinfo(jnp.uint16).max > 4 * 255
