import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.painting import find_paint, make_batch, noisy, painted
from yolojax.augment.colour import ColourStep
from yolojax.augment.mix import MixStep
from yolojax.augment.policy import AUGMENTATIONS, make_augment
from yolojax.engine import sharding
from yolojax.records import Batch, Stored

POLICIES = {
    "letterbox": (),
    "mosaic": (dict(name="mosaic"),),
    "flip": (dict(name="flip_left_right", probability=0.3),),
    "shrink": (dict(name="affine", scale=0.9, translate=0.0),),
    "published": (
        dict(name="mosaic"),
        dict(name="affine"),
        dict(name="flip_left_right", probability=0.5),
    ),
    "flips": (
        dict(name="affine", translate=0.3),
        dict(name="flip_left_right", probability=0.5),
        dict(name="flip_up_down", probability=0.5),
    ),
    "rotation": (dict(name="affine", degrees=45, scale=0.2),),
    "perspective": (dict(name="affine", perspective=0.002, scale=0.3),),
    "geometry": (
        dict(name="mosaic", probability=0.7),
        dict(name="affine", degrees=20, shear=8, perspective=0.0007),
        dict(name="flip_left_right", probability=0.5),
        dict(name="flip_up_down", probability=0.5),
    ),
    "nine": (dict(name="mosaic9"), dict(name="flip_left_right", probability=0.5)),
    "crops": (
        dict(name="random_crop", smallest=0.6, keep=0.5, probability=0.7),
        dict(name="pad", largest=1.8, probability=0.5),
        dict(name="quarter_turn", probability=0.5),
        dict(name="flip_up_down", probability=0.5),
    ),
    "resized": (
        dict(name="letterbox", random_place=True),
        dict(name="random_resized_crop", smallest=0.3, probability=0.7),
    ),
    "everything": (
        dict(name="letterbox", random_place=True, probability=0.5),
        dict(name="random_resized_crop", smallest=0.4, probability=0.3),
        dict(name="mosaic", probability=0.3),
        dict(name="mosaic9", probability=0.3),
        dict(name="random_crop", smallest=0.6, probability=0.3),
        dict(name="pad", largest=1.5, probability=0.3),
        dict(name="affine", degrees=10, scale=0.2, shear=3, perspective=0.0005),
        dict(
            name="choice",
            count=2,
            of=("rotate", "shear_x", "shear_y", "translate_x", "translate_y"),
        ),
        dict(name="quarter_turn", probability=0.5),
        dict(name="flip_left_right", probability=0.5),
        dict(name="flip_up_down", probability=0.5),
    ),
    "alone": (dict(name="affine"), dict(name="hsv")),
    "full": (
        dict(name="mosaic", probability=0.8),
        dict(name="affine", degrees=10, shear=3, perspective=0.0005),
        dict(name="flip_left_right", probability=0.5),
        dict(name="flip_up_down", probability=0.5),
        dict(name="hsv"),
    ),
}


@functools.cache
def compiled(name, image_size, max_boxes):
    """One compiled augmentation for all tests that want the same."""
    augment = make_augment(POLICIES[name], image_size=image_size, max_boxes=max_boxes)
    return jax.jit(augment)


def augmented(batch, policy, *, image_size, seed=0, mosaic_on=True, max_boxes=5):
    augment = compiled(policy, image_size, max_boxes)
    out, cut = augment(jax.random.key(seed), batch, mosaic_on=mosaic_on)
    return jax.tree.map(np.asarray, out), int(cut)


@pytest.mark.parametrize(
    "name, image_size",
    [
        ("letterbox", (72, 120)),
        ("flips", (96, 96)),
        ("published", (72, 120)),
        ("rotation", (96, 96)),
        ("perspective", (72, 120)),
        ("geometry", (96, 96)),
        ("geometry", (120, 72)),
        ("nine", (72, 120)),
        ("crops", (96, 96)),
        ("resized", (72, 120)),
        pytest.param("everything", (96, 120), marks=pytest.mark.slow),
    ],
)
def test_paint_is_found_where_the_box_says(name, image_size):
    upright = name not in ("rotation", "perspective", "geometry", "everything")
    # A crop enlarges what little it leaves of a box.
    most = 40 if name in ("crops", "resized", "everything") else 12
    height, width = image_size
    found = slivers = 0
    for seed in range(12):
        batch = painted((80, 100), seed)
        out, cut = augmented(batch, name, image_size=image_size, seed=seed)
        assert cut == 0
        for image, boxes, labels, valid in zip(
            out.image, out.boxes, out.labels, out.valid, strict=True
        ):
            assert len(set(labels[valid])) == valid.sum()
            for box, label in zip(boxes[valid], labels[valid], strict=True):
                inside = (box[:2] > 1).all() and (
                    box[2:] < [width - 1, height - 1]
                ).all()
                # The border cuts a corner off a turned rectangle, so that less than
                # its enclosing box is left.
                if upright or inside:
                    paint = find_paint(image, label)
                    if name == "everything" and paint is None:
                        # A sliver that is turned has a box worth keeping.
                        slivers += 1
                        continue
                    assert paint is not None
                    np.testing.assert_allclose(paint, box, atol=1.0)
                    found += 1
            for label in set(range(6)) - set(labels[valid]):
                paint = find_paint(image, label)
                # What has no box is a sliver.
                assert paint is None or (paint[2:] - paint[:2]).min() <= most
    assert found > 30 and slivers <= 0.05 * found


def test_mosaic_off_gives_the_letterboxed_picture():
    batch = painted((64, 64), 0)._replace(
        size=np.tile(np.int32([48, 64]), (9, 1)),
    )
    out, _ = augmented(batch, "mosaic", image_size=(64, 64), mosaic_on=False)
    np.testing.assert_array_equal(
        out.image[:, 8:56], batch.image[:, :48] / np.float32(255)
    )
    grey = np.float32(114) / np.float32(255)
    np.testing.assert_allclose(out.image[:, :8], grey, rtol=1e-6)
    np.testing.assert_allclose(out.image[:, 56:], grey, rtol=1e-6)


def test_a_step_is_applied_to_the_share_that_its_probability_says():
    num = 2000
    image = np.zeros((num, 2, 2, 3))
    image[:, :, 0] = 255
    batch = make_batch(image, np.full((num, 2), 2), np.zeros((num, 0, 4)))
    out, _ = augmented(batch, "flip", image_size=(2, 2))
    assert abs((out.image[:, 0, 1, 0] == 1).mean() - 0.3) < 0.03


def test_same_key_same_result_and_another_key_another():
    batch = noisy()
    first, again, other = (
        augmented(batch, "full", image_size=(16, 16), seed=seed)[0]
        for seed in (1, 1, 2)
    )
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    assert np.abs(first.image - other.image).mean() > 0.01


def test_the_order_of_the_policy_does_not_matter():
    forward, backward = (
        jax.make_jaxpr(
            functools.partial(
                make_augment(policy, image_size=(16, 16), max_boxes=5), mosaic_on=True
            )
        )(jax.random.key(0), noisy())
        for policy in (POLICIES["full"], POLICIES["full"][::-1])
    )
    assert str(forward.jaxpr) == str(backward.jaxpr)


def test_a_sample_depends_on_its_place_and_not_on_its_neighbours():
    batch = noisy()
    part = Batch(*(x[:3] for x in batch))
    whole, _ = augmented(batch, "alone", image_size=(16, 16))
    part, _ = augmented(part, "alone", image_size=(16, 16))
    np.testing.assert_allclose(part.image, whole.image[:3], atol=1e-6)
    np.testing.assert_allclose(part.boxes, whole.boxes[:3], atol=1e-4)


@pytest.mark.slow
def test_four_devices_give_what_one_gives():
    batch = noisy()
    augment = compiled("full", (16, 16), 5)
    results = []
    for num_devices in (1, 4):
        mesh = sharding.make_mesh(num_devices)
        key = sharding.put_replicated(jax.random.key(3), mesh)
        out, cut = augment(key, sharding.put_batch(batch, mesh), mosaic_on=True)
        assert out.image.sharding.is_equivalent_to(sharding.split(mesh), 4)
        results.append(jax.tree.map(np.asarray, (out, cut)))
    for one, four in zip(*map(jax.tree.leaves, results), strict=True):
        np.testing.assert_allclose(one, four, atol=1e-6)


def test_rows_of_a_store_give_what_the_batch_of_them_gives():
    store, rows = noisy(), np.int32([5, 2, 2, 7])
    batch = jax.tree.map(lambda x: x[rows], store)
    expected, _ = augmented(batch, "alone", image_size=(16, 16))
    stored, _ = augmented(Stored(store, rows), "alone", image_size=(16, 16))
    for name, a, b in zip(Batch._fields, stored, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5, err_msg=name)


@pytest.mark.slow
def test_the_second_half_of_a_stored_batch_knows_its_place():
    store, rows = noisy(), np.int32([5, 2, 2, 7])
    whole, _ = augmented(Stored(store, rows), "full", image_size=(16, 16))
    half = Stored(store, rows[2:], np.int32(2))
    half, _ = augmented(half, "full", image_size=(16, 16))
    np.testing.assert_allclose(half.image, whole.image[2:], atol=1e-5)
    np.testing.assert_allclose(half.boxes, whole.boxes[2:], atol=1e-4)


def test_mosaic_of_a_store_shows_all_its_pictures_but_no_empty_row():
    num, count = 2000, 7
    store = noisy(8, side=8)._replace(
        boxes=np.tile(np.float32([0, 0, 8, 8]), (8, 1, 1)),
        labels=np.arange(8, dtype=np.int32)[:, None],
        valid=np.ones((8, 1), bool),
    )
    rows = np.arange(num, dtype=np.int32) % count
    stored = Stored(store, rows, np.int32(0), np.int32(count))
    out, _ = augmented(stored, "mosaic", image_size=(64, 64))
    own = (out.labels == rows[:, None]) & out.valid
    assert (own.sum(1) <= 1).all() and own.sum() > 0.6 * num
    others = np.bincount(out.labels[out.valid & ~own], minlength=8)
    assert others[count] == 0
    np.testing.assert_allclose(others[:count] / others.sum(), 1 / count, atol=0.015)


@pytest.mark.slow
def test_colour_and_mix_steps_get_a_key_for_each_sample(monkeypatch):
    def paint(image, draws, applied, keys):
        noise = jax.vmap(lambda key: jax.random.uniform(key, image.shape[1:]))(keys)
        return jnp.where(applied[:, None, None, None], noise, image)

    def double(sample, draws, applied, keys, image_size):
        twice = [jnp.concatenate([x, x], axis=1) for x in sample[1:4]]
        noise = jax.vmap(lambda key: jax.random.uniform(key, image_size))(keys)
        kept = noise[..., None] * 0.5 + sample.image * 0.5
        return type(sample)(kept, *twice)

    monkeypatch.setitem(AUGMENTATIONS, "paint", lambda: ColourStep(1, paint))
    monkeypatch.setitem(AUGMENTATIONS, "double", lambda: MixStep(0, False, double))
    policy = (dict(name="double"), dict(name="paint", probability=0.5))
    augment = jax.jit(make_augment(policy, image_size=(16, 16), max_boxes=5))
    batch = noisy()
    out, cut = augment(jax.random.key(0), batch, mosaic_on=False)
    assert out.boxes.shape == (8, 5, 4)
    assert cut == 8
    np.testing.assert_array_equal(out.boxes[:, 3:], out.boxes[:, :2])
    assert len(np.unique(np.asarray(out.image[:, 0, 0, 0]))) == 8
    half, _ = augment(
        jax.random.key(0), Stored(batch, np.int32([4, 5]), np.int32(4)), mosaic_on=False
    )
    np.testing.assert_allclose(half.image, out.image[4:6], atol=1e-6)


def test_size_is_that_of_the_output_and_ids_are_kept():
    batch = noisy()
    out, cut = compiled("letterbox", (20, 24), 4)(
        jax.random.key(0), batch, mosaic_on=False
    )
    assert out.image.shape == (8, 20, 24, 3)
    assert out.image.dtype == jnp.float32
    assert cut.dtype == jnp.int32
    np.testing.assert_array_equal(out.size, np.tile([20, 24], (8, 1)))
    np.testing.assert_array_equal(out.image_id, batch.image_id)
    np.testing.assert_array_equal(out.origin, batch.origin)


def test_one_picture_of_one_pixel_passes():
    batch = make_batch(
        np.full((1, 1, 1, 3), 9), np.ones((1, 2)), np.zeros((1, 2, 4), np.float32)
    )
    out, _ = augmented(batch, "full", image_size=(8, 8))
    assert np.isfinite(out.image).all()
    assert (0 <= out.image).all() and (out.image <= 1).all()
    assert not out.valid.any()


def test_pictures_without_boxes_pass():
    batch = noisy()
    none = batch._replace(
        boxes=batch.boxes[:, :0], labels=batch.labels[:, :0], valid=batch.valid[:, :0]
    )
    out, cut = augmented(none, "full", image_size=(16, 16))
    assert out.boxes.shape == (8, 5, 4)
    assert not out.valid.any() and not out.boxes.any() and cut == 0


def test_valid_boxes_come_first_in_their_order_and_the_rest_is_counted():
    x = np.arange(6, dtype=np.float32)
    boxes = np.stack([x, x, x + 5, x + 5], axis=-1)[None].repeat(2, 0)
    valid = np.array([[0, 1, 0, 1, 1, 1], [0, 0, 0, 0, 1, 0]], bool)
    labels = np.arange(12).reshape(2, 6)
    batch = make_batch(
        np.zeros((2, 16, 16, 3)), np.full((2, 2), 16), boxes, labels, valid
    )
    out, cut = augmented(batch, "letterbox", image_size=(16, 16), max_boxes=3)
    assert cut == 1
    np.testing.assert_array_equal(out.labels, [[1, 3, 4], [10, 0, 0]])
    np.testing.assert_array_equal(out.valid, [[1, 1, 1], [1, 0, 0]])
    np.testing.assert_array_equal(out.boxes[0], boxes[0, [1, 3, 4]])
    np.testing.assert_array_equal(out.boxes[1, 1:], 0)


@pytest.mark.parametrize(
    "box, kept",
    [
        ([10, 10, 12, 30], False),
        ([10, 10, 12.5, 30], True),
        ([10, 10, 30, 12], False),
        ([-85, 0, 15, 100], True),
        ([-95, 0, 5, 100], False),
        ([0, 10, 250, 12.6], True),
        ([0, 10, 250, 12.4], False),
        ([-20, -20, -5, -5], False),
        ([10, 10, 10, 10], False),
    ],
    ids=["thin", "2.5px", "flat", "15%", "5%", "96:1", "104:1", "outside", "point"],
)
def test_published_rule_for_boxes(box, kept):
    batch = make_batch(
        np.zeros((1, 256, 256, 3)), [[256, 256]], np.float32(box).reshape(1, 1, 4)
    )
    out, _ = augmented(batch, "letterbox", image_size=(256, 256))
    assert out.valid.any() == kept
    if kept:
        np.testing.assert_array_equal(out.boxes[0, 0], np.clip(np.float32(box), 0, 256))


def test_a_box_that_shrinks_with_its_picture_is_kept():
    num = 64
    boxes = np.tile(np.float32([12, 12, 52, 52]), (num, 1, 1))
    batch = make_batch(np.zeros((num, 64, 64, 3)), np.full((num, 2), 64), boxes)
    out, _ = augmented(batch, "shrink", image_size=(64, 64))
    assert (out.boxes[:, 0, 2] - out.boxes[:, 0, 0]).min() < 10
    assert out.valid[:, 0].all()


def test_mosaic_cuts_boxes_at_the_canvas_before_the_area_counts():
    # A box as large as its picture reaches over the canvas when the centre is off.
    batch = painted((64, 64), 0)._replace(
        size=np.full((9, 2), 64, np.int32),
        valid=np.ones((9, 1), bool),
        boxes=np.tile(np.float32([0, 0, 64, 64]), (9, 1, 1)),
    )
    out, _ = augmented(batch, "mosaic", image_size=(64, 64))
    areas = np.prod(out.boxes[..., 2:] - out.boxes[..., :2], axis=-1)
    # The view is the middle of the canvas and the four tiles share it out.
    assert (areas.sum(1) <= 64 * 64 + 1e-3).all()
    assert (areas.sum(1) > 0.9 * 64 * 64).all()


def test_every_augmentation_works_alone_with_its_defaults():
    for name in AUGMENTATIONS:
        augment = make_augment((dict(name=name),), image_size=(12, 16), max_boxes=4)
        out, _ = jax.eval_shape(
            functools.partial(augment, mosaic_on=True), jax.random.key(0), noisy()
        )
        assert out.image.shape == (8, 12, 16, 3)
        assert out.boxes.shape == (8, 4, 4)


@pytest.mark.parametrize(
    "policy, message",
    [
        (
            (dict(name="mosiac"),),
            "no augmentation named 'mosiac'. Did you mean 'mosaic'",
        ),
        ((dict(name="affine", scales=1),), "'affine' has no argument 'scales'"),
        ((dict(name="hsv", probability=1.2),), "probability of 'hsv' is 1.2"),
        ((dict(name="hsv", probability=-1),), "probability of 'hsv' is -1"),
        ((dict(name="hsv"), dict(name="hsv")), "entry 1: 'hsv' is there twice"),
        ((dict(probability=1.0),), "entry 0: needs a name, got"),
    ],
    ids=["name", "argument", "above", "below", "twice", "nameless"],
)
def test_a_wrong_policy_is_refused(policy, message):
    with pytest.raises(ValueError, match=message):
        make_augment(policy, image_size=(8, 8), max_boxes=4)
