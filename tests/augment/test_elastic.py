"""Bent pictures, and boxes of objects with outlines."""

import functools

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.painting import PAINTS, find_paint, make_batch, painted
from tests.scenes import IMAGE_SIZE, assert_uniform, blank, run
from yolojax.augment.boxes import carry_boxes, carry_outlines
from yolojax.augment.elastic import elastic
from yolojax.augment.policy import AUGMENTATIONS, make_augment
from yolojax.augment.scene import GeometryStep, letterboxed
from yolojax.ops.bending import displacements
from yolojax.ops.warp import invert, warp_tiles

GEOMETRY = [n for n, f in AUGMENTATIONS.items() if isinstance(f(), GeometryStep)]
SIZE = (72, 96)


@functools.cache
def shown_of(bent):
    """Pictures and boxes of a scene, one compile for each number of tiles."""

    @jax.jit
    def shown(batch, scene):
        image = warp_tiles(
            batch.image,
            batch.size,
            scene.sources,
            invert(scene.placements),
            scene.regions,
            invert(scene.view),
            output_size=SIZE,
            displacement=displacements(scene.bend, SIZE) if bent else None,
        )
        return image / 255, carry_boxes(batch, scene, SIZE)

    return shown


@pytest.mark.parametrize("name", GEOMETRY)
def test_every_geometric_augmentation_moves_paint_and_boxes_alike(name):
    found = 0
    for seed in range(3):
        batch = jax.tree.map(jnp.asarray, painted((80, 100), seed))
        scene = run(AUGMENTATIONS[name](), 9, seed, batch=batch, image_size=SIZE)
        shown = shown_of(scene.bend is not None)
        images, (boxes, labels, valid) = jax.device_get(shown(batch, scene))
        for image, own, classes, kept in zip(images, boxes, labels, valid, strict=True):
            for box, label in zip(own[kept], classes[kept], strict=True):
                if (box[:2] > 1).all() and (box[2:] < [95, 71]).all():
                    paint = find_paint(image, label)
                    assert paint is not None
                    np.testing.assert_allclose(paint, box, atol=1.0)
                    found += 1
    assert found >= 4


def test_a_bent_picture_is_that_of_opencv():
    generator = np.random.default_rng(0)
    coarse = generator.integers(0, 256, (2, 6, 8, 3), np.uint8)
    images = [cv2.resize(c, SIZE[::-1], interpolation=cv2.INTER_CUBIC) for c in coarse]
    batch = make_batch(np.stack(images), np.full((2, 2), SIZE), np.zeros((2, 0, 4)))
    batch = jax.tree.map(jnp.asarray, batch)
    scene = run(elastic(cells=3, strength=0.15), 2, batch=batch, image_size=SIZE)
    found, _ = shown_of(True)(batch, scene)
    moved = np.asarray(displacements(jnp.asarray(scene.bend), SIZE))
    y, x = np.mgrid[: SIZE[0], : SIZE[1]].astype(np.float32)
    for i in range(2):
        assert np.abs(moved[i]).max() > 1
        expected = cv2.remap(
            images[i],
            x + moved[i, 0],
            y + moved[i, 1],
            cv2.INTER_LINEAR,
            borderValue=(114, 114, 114),
        )
        assert np.abs(np.asarray(found[i]) * 255 - expected).mean() < 1.0


def test_elastic_draws_are_uniform_and_its_pictures_straight_where_not_applied():
    scene = run(elastic(cells=2, strength=0.1), 10_000)
    assert_uniform(scene.bend[:, 0, 1, 3], -2, 2)
    assert_uniform(scene.bend[:, 1, 4, 0], -2, 2)
    assert abs(np.corrcoef(scene.bend[:, 0, 0, 0], scene.bend[:, 1, 0, 0])[0, 1]) < 0.04
    batch = blank(3)
    draws = jax.random.uniform(jax.random.key(0), (3, 50))
    applied = jnp.asarray([True, False, True])
    scene = letterboxed(batch, IMAGE_SIZE)
    scene = elastic(cells=2).apply(scene, draws, applied, batch, IMAGE_SIZE)
    np.testing.assert_array_equal(np.any(scene.bend != 0, axis=(1, 2, 3)), applied)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(cells=0), "elastic: cells is 0, expected 1 to 16"),
        (dict(strength=0.5), "elastic: strength is 0.5, expected 0 to 0.15"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        elastic(**arguments)


def inside(points, size):
    """The pixels whose centre lies inside of a convex polygon, clockwise."""
    y, x = np.mgrid[: size[0], : size[1]] + 0.5
    result = np.ones(size, bool)
    for (x1, y1), (x2, y2) in zip(points, np.roll(points, -1, 0), strict=True):
        result &= (x2 - x1) * (y - y1) - (y2 - y1) * (x - x1) >= 0
    return result


def octagons(seed):
    """Pictures of 80x100 with a painted octagon each, and its edges."""
    generator = np.random.default_rng(seed)
    images = np.zeros((6, 80, 100, 3), np.uint8)
    angle = np.arange(8) * np.pi / 4 + generator.uniform(0, 1, (6, 1))
    radius = generator.uniform(12, 30, (6, 1, 2))
    ring = np.stack([np.cos(angle), np.sin(angle)], -1) * radius
    points = generator.uniform(32, [68, 48], (6, 1, 2)) + ring
    for i in range(6):
        images[i, inside(points[i], (80, 100))] = 255 * PAINTS[i]
    edges = np.concatenate([points, np.roll(points, -1, axis=1)], axis=-1)
    boxes = np.concatenate([points.min(1), points.max(1)], axis=-1)[:, None]
    batch = make_batch(images, np.tile([80, 100], (6, 1)), boxes)
    return batch._replace(polygons=edges[:, None].astype(np.float32))


OUTLINED = (
    dict(name="mosaic", probability=0.6),
    dict(name="affine", degrees=45, scale=0.2, shear=5, perspective=0.0005),
    dict(name="flip_left_right", probability=0.5),
    dict(name="elastic", strength=0.15, probability=0.5),
)


@pytest.mark.parametrize(
    "bent",
    [
        pytest.param(False, marks=pytest.mark.slow, id="straight"),
        pytest.param(True, id="bent"),
    ],
)
def test_boxes_of_outlined_objects_are_those_of_what_is_shown_of_them(bent):
    """Also where the border or a mosaic's seam cuts them, to a pixel.

    Where a bend and the border do, to the bend's largest displacement, 2.7 pixels.
    """
    policy = OUTLINED if bent else OUTLINED[:-1]
    augment = make_augment(policy, image_size=SIZE, max_boxes=12)
    compiled = jax.jit(functools.partial(augment, mosaic_on=True))
    errors = {False: [], True: []}
    for seed in range(8):
        out, _ = jax.device_get(compiled(jax.random.key(seed), octagons(seed)))
        for image, boxes, labels, valid in zip(
            out.image, out.boxes, out.labels, out.valid, strict=True
        ):
            for box, label in zip(boxes[valid], labels[valid], strict=True):
                error = np.abs(find_paint(image, label) - box).max()
                cut = (box[:2] == 0).any() or (box[2:] == SIZE[::-1]).any()
                errors[bool(cut)].append(error)
    assert min(map(len, errors.values())) > 15
    assert max(errors[False]) < 1.1
    assert max(errors[True]) < (4.5 if bent else 1.6)


def test_outlines_come_to_the_mixing_steps_where_the_pictures_are():
    batch = octagons(0)

    @jax.jit
    def carried(batch, sign):
        scene = letterboxed(batch, SIZE)
        boxes, _, _ = carry_boxes(batch, scene, SIZE)
        scene = scene._replace(view=scene.view.at[:, 2].multiply(sign))
        return boxes, carry_outlines(batch, scene, boxes, SIZE)

    boxes, outlines = jax.device_get(carried(batch, 1.0))
    # 80x100 into 72x96: 0.9 and 90 pixels wide, three to the left.
    expected = np.asarray(batch.polygons) * 0.9 + np.float32([3, 0, 3, 0])
    np.testing.assert_allclose(outlines, expected, atol=1e-4)
    # What a perspective puts behind is replaced by the sides of its box.
    _, sides = jax.device_get(carried(batch, -1.0))
    ends = sides[:, 0, :4, :2]
    np.testing.assert_allclose(ends.min(1), boxes[:, 0, :2])
    np.testing.assert_allclose(ends.max(1), boxes[:, 0, 2:])
    np.testing.assert_array_equal(sides[:, :, 4:, :2], sides[:, :, 4:, 2:])
    assert carried(batch._replace(polygons=()), 1.0)[1] == ()


def test_copy_paste_takes_the_outlines_of_the_policys_pictures():
    policy = (dict(name="flip_left_right"), dict(name="copy_paste", share=1.0))
    augment = make_augment(policy, image_size=(80, 100), max_boxes=12)
    compiled = jax.jit(functools.partial(augment, mosaic_on=True))
    batch = octagons(1)
    out, _ = jax.device_get(compiled(jax.random.key(0), batch))
    flipped = batch.image[:, :, ::-1] / 255
    for i in range(6):
        (other,) = set(out.labels[i][out.valid[i]]) - {i}
        pasted = flipped[other].any(-1, keepdims=True)
        expected = np.where(pasted, flipped[other], flipped[i])
        # Not the black corners of the other one's box.
        assert (np.abs(out.image[i] - expected).max(-1) > 0.1).mean() < 0.01
        assert (flipped[i].any(-1) & ~pasted[..., 0]).any()
