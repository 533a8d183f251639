import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from yolojax.augment import erase
from yolojax.augment.mix import Mixed

SIZE = (48, 64)


@functools.cache
def compiled(name, **arguments):
    step = getattr(erase, name)(**arguments)

    @jax.jit
    def run(sample, seed, applied):
        num, height, width = sample.image.shape[:3]
        keys = jax.vmap(jax.random.fold_in, (None, 0))(
            jax.random.key(seed), jnp.arange(num)
        )
        draws = jax.vmap(lambda key: jax.random.uniform(key, (step.num_draws,)))(keys)
        keys = jax.vmap(lambda key: jax.random.fold_in(key, 7))(keys)
        return step.apply(sample, draws, applied, keys, (height, width))

    return run


def run(name, sample, seed=0, applied=True, **arguments):
    applied = np.broadcast_to(np.asarray(applied), sample.image.shape[:1])
    out = compiled(name, **arguments)(sample, seed, applied)
    return jax.tree.map(np.asarray, out)


def blank(num, size, boxes=None):
    """Pictures of -1, a value that nothing paints, with the same boxes each."""
    boxes = np.zeros((0, 4)) if boxes is None else np.asarray(boxes)
    boxes = np.tile(boxes.astype(np.float32), (num, 1, 1))
    return Mixed(
        image=np.full((num, *size, 3), -1, np.float32),
        boxes=boxes,
        labels=np.zeros(boxes.shape[:2], np.int32),
        valid=np.ones(boxes.shape[:2], bool),
    )


def painted(num=8, seed=0):
    """One white rectangle on a black picture each."""
    generator = np.random.default_rng(seed)
    sample = blank(num, SIZE, np.zeros((1, 4)))
    height, width = SIZE
    for i in range(num):
        x1, y1 = generator.integers(0, [width // 2, height // 2])
        x2 = generator.integers(x1 + 8, width + 1)
        y2 = generator.integers(y1 + 8, height + 1)
        sample.image[i, y1:y2, x1:x2] = 3
        sample.boxes[i, 0] = x1, y1, x2, y2
    return sample


def enclosing(mask):
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])


@pytest.mark.parametrize(
    "name, arguments",
    [
        ("random_erasing", {}),
        ("random_erasing", dict(area=(0.3, 0.4), fill=0.5)),
        ("cutout", dict(side=0.5, holes=3)),
        ("cutout", dict(side=0.7, max_covered=0.9, fill="noise")),
    ],
    ids=["published", "large", "three", "square"],
)
def test_boxes_are_those_of_what_is_not_painted_over(name, arguments):
    max_covered = arguments.get("max_covered", 0.6)
    kept = shrunk = dropped = 0
    for seed in range(10):
        sample = painted(seed=seed)
        out = run(name, sample, seed=seed, **arguments)
        for before, image, own, box, valid in zip(
            sample.image, out.image, sample.boxes, out.boxes, out.valid, strict=True
        ):
            left = (image == 3).all(-1)
            share = left.sum() / (before == 3).all(-1).sum()
            sides = np.diff(enclosing(left).reshape(2, 2), axis=0) if share else [0]
            if abs(share - (1 - max_covered)) > 1e-5:
                assert valid[0] == (share > 1 - max_covered and np.min(sides) > 2)
            if valid[0]:
                np.testing.assert_allclose(box[0], enclosing(left), atol=1e-4)
            kept += valid[0]
            dropped += not valid[0]
            shrunk += valid[0] and (box[0] != own[0]).any()
    assert kept > 20 and shrunk > 3
    assert dropped > 0 or name == "cutout"


def test_erased_rectangles_have_the_published_area_and_shape():
    num, side = 10_000, 24
    out = run("random_erasing", blank(num, (side, side)), fill=0.5)
    mask = (out.image != -1).all(-1)
    heights, widths = mask.any(2).sum(1), mask.any(1).sum(1)
    np.testing.assert_array_equal(mask.sum((1, 2)), heights * widths)
    generator = np.random.default_rng(0)
    area = generator.uniform(0.02, 0.4, 200_000) * side**2
    aspect = generator.uniform(0.3, 1 / 0.3, 200_000)
    sides = np.stack([np.sqrt(area * aspect), np.sqrt(area / aspect)])
    sides = np.clip(np.round(sides), 1, side)
    for found, wanted in zip((heights, widths), sides, strict=True):
        assert abs(found.mean() - wanted.mean()) < 0.15
        for q in (0.1, 0.3, 0.5, 0.7, 0.9):
            assert abs(np.quantile(found, q) - np.quantile(wanted, q)) <= 1
    # The corner is uniform over where the rectangle fits.
    for axis, length in ((1, heights), (2, widths)):
        first = mask.any(3 - axis).argmax(1)
        room = length < side - 4
        place = first[room] / (side - length[room])
        assert abs(place.mean() - 0.5) < 0.015
        assert abs((place < 0.25).mean() - 0.25) < 0.04


def test_cutout_is_a_square_around_a_uniform_centre():
    num, side = 10_000, 32
    mask = (run("cutout", blank(num, (side, side))).image != -1).all(-1)
    heights, widths = mask.any(2).sum(1), mask.any(1).sum(1)
    np.testing.assert_array_equal(mask.sum((1, 2)), heights * widths)
    # Side 8 of 32: a centre nearer than 4 to a border, 1/4 of them, is cut.
    for length in (heights, widths):
        assert length.max() == 8 and length.min() >= 4
        assert abs((length == 8).mean() - 0.75) < 0.04
    centre = mask.any(1).argmax(1) + widths / 2
    whole = (widths == 8) & (heights == 8)
    assert abs(centre[whole].mean() - 16) < 0.2
    assert abs(np.quantile(centre[whole], 0.25) - 10) <= 1


def test_noise_is_uniform_and_differs_between_samples_and_grey_is_grey():
    sample = blank(4, (64, 64))
    noise = run("random_erasing", sample, area=(1.0, 1.0), aspect=1.0).image
    assert 0 <= noise.min() and noise.max() < 1
    quantiles = np.quantile(noise, [0.25, 0.5, 0.75])
    np.testing.assert_allclose(quantiles, [0.25, 0.5, 0.75], atol=0.01)
    assert np.abs(noise[0] - noise[1]).mean() > 0.2
    grey = run("random_erasing", sample, area=(1.0, 1.0), aspect=1.0, fill=0.5).image
    assert (grey == 0.5).all()
    published = run("cutout", sample).image
    np.testing.assert_allclose(np.unique(published), [-1, 114 / 255], rtol=1e-6)


@pytest.mark.parametrize("name", ["random_erasing", "cutout"])
def test_samples_that_are_not_applied_keep_every_bit(name):
    sample = painted()
    sample = sample._replace(boxes=sample.boxes + np.float32(0.3))
    out = run(name, sample, applied=np.arange(8) < 4)
    for before, after in zip(sample[:4], out[:4], strict=True):
        np.testing.assert_array_equal(after[4:], before[4:])
    assert (out.image[:4] != sample.image[:4]).any((1, 2, 3)).all()


@pytest.mark.parametrize("name", ["random_erasing", "cutout"])
def test_one_pixel_and_full_boxes_pass(name):
    out = run(name, blank(3, (1, 1)))
    assert out.image.shape == (3, 1, 1, 3) and out.boxes.shape == (3, 0, 4)
    out = run(name, blank(3, (1, 1), [[0, 0, 1, 1]]))
    np.testing.assert_array_equal(out.valid[:, 0], (out.image == -1).all((1, 2, 3)))
    full = run(name, blank(8, SIZE, [[0, 0, SIZE[1], SIZE[0]]]))
    assert full.valid.all()
    np.testing.assert_array_equal(full.boxes, blank(8, SIZE, [[0, 0, 64, 48]]).boxes)


def test_neither_step_is_off_when_mixing_is():
    assert not erase.random_erasing().mixes and not erase.cutout().mixes


@pytest.mark.parametrize(
    "name, arguments, message",
    [
        ("random_erasing", dict(area=(0.4, 0.1)), r"area is \(0.4, 0.1\), expected"),
        ("random_erasing", dict(area=(0, 0.1)), r"area is \(0, 0.1\), expected the"),
        ("random_erasing", dict(aspect=2.0), "aspect is 2.0, expected more than 0"),
        ("random_erasing", dict(max_covered=-1), "max_covered is -1, expected 0 to 1"),
        ("random_erasing", dict(fill="white"), "fill is 'white', expected 'noise' or"),
        ("cutout", dict(fill=3), "cutout: fill is 3, expected 'noise' or"),
        ("cutout", dict(holes=0), "cutout: holes is 0, expected 1 to 16"),
        ("cutout", dict(side=0.0), "cutout: side is 0.0, expected more than 0"),
        ("cutout", dict(max_covered=7), "cutout: max_covered is 7, expected 0 to 1"),
    ],
)
def test_arguments_out_of_range_are_refused(name, arguments, message):
    with pytest.raises(ValueError, match=message):
        getattr(erase, name)(**arguments)
