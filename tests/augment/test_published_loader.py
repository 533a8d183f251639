"""What training steps see, against an independent simulation of the published loader.

Distributions are compared by the largest distance of their cumulative shares
(Kolmogorov and Smirnov). Two samples of 6,000 of the same law differ by less than .030
in 99 of 100 cases; boxes of one output hang together, and get .04.

What differs, and why:
- A partner from the whole set is never the output's own image; the published loader
  draws it again once in N draws.
- Partners from the batch (every cache but `device`): each image of a step stands in
  exactly four of its outputs, and in none of the next step's until its turn comes
  again, where the published loader has a binomial number with that mean.
- Sizes are not rounded after scaling, and HSV is not rounded to 8 bits.
"""

import cv2
import jax
import numpy as np
import pytest
from scipy import stats

from tests.augment import published_loader as published
from yolojax.augment.policy import make_augment, make_explain
from yolojax.records import Batch, Stored

pytestmark = pytest.mark.slow
SIDE, NUM, ROWS = 64, 96, 6
BATCH, STEPS = 64, 96
BORDER = 114 / 255

# Of the shipped configs: their policies as hyper-parameters, without colour.
RECIPES = {
    "coco128, bccd, masks, resnet50_masks": published.Recipe(1.0, 0.5, 0.1, 0.5),
    "quickstart, darknet, described, darknet53": published.Recipe(0.5, 0.3, 0.1, 0.0),
    "coco: yolov5_high": published.Recipe(1.0, 0.9, 0.1, 0.5, mixup=0.1),
    "end of training: no mosaic": published.Recipe(0.0, 0.5, 0.1, 0.5),
}


def policy_of(recipe):
    entries = (
        dict(name="mosaic", probability=recipe.mosaic),
        dict(name="affine", scale=recipe.scale, translate=recipe.translate),
        dict(name="flip_left_right", probability=recipe.mirror),
        dict(name="mixup", probability=recipe.mixup),
    )
    return tuple(e for e in entries if e.get("probability", 1.0) > 0)


def make_images(seed=0):
    """Dark images whose longer side is SIDE, with 1 to 6 boxes each."""
    rng = np.random.default_rng(seed)
    sizes = np.full((NUM, 2), SIDE)
    sizes[np.arange(NUM), rng.integers(0, 2, NUM)] = rng.integers(32, SIDE + 1, NUM)
    boxes = np.zeros((NUM, ROWS, 4), np.float32)
    counts = rng.integers(1, ROWS + 1, NUM)
    for image, count in enumerate(counts):
        limit = sizes[image, ::-1]
        sides = rng.uniform(4, 0.6 * limit.min(), (count, 2))
        low = rng.uniform(0, limit - sides)
        boxes[image, :count] = np.concatenate([low, low + sides], axis=1)
    return Batch(
        image=np.zeros((NUM, SIDE, SIDE, 3), np.uint8),
        size=sizes.astype(np.int32),
        boxes=boxes,
        labels=np.zeros((NUM, ROWS), np.int32),
        valid=np.arange(ROWS)[None] < counts[:, None],
        image_id=np.arange(NUM, dtype=np.int32),
        origin=np.zeros((NUM, 4), np.float32),
    )


def order(seed=1):
    """The images of each step: epochs, each in an order of its own."""
    rng = np.random.default_rng(seed)
    epochs = [rng.permutation(NUM) for _ in range(-(-BATCH * STEPS // NUM))]
    return np.concatenate(epochs)[: BATCH * STEPS].reshape(STEPS, BATCH)


def ours(recipe):
    """Boxes of each output, grey shares, boxes given, sources [outputs, tiles]."""
    images = make_images()
    policy = policy_of(recipe)
    augment = jax.jit(make_augment(policy, image_size=(SIDE, SIDE), max_boxes=48))
    boxes, grey, cut = [], [], 0
    for step, rows in enumerate(order()):
        stored = Stored(images, rows.astype(np.int32))
        key = jax.random.fold_in(jax.random.key(0), step)
        shown, lost = augment(key, stored, mosaic_on=True)
        cut += int(lost)
        image = np.asarray(shown.image)[..., 0]
        grey += list((np.abs(image - BORDER) < 0.02).mean(axis=(1, 2)))
        for own, valid in zip(
            *map(np.asarray, (shown.boxes, shown.valid)), strict=True
        ):
            boxes.append(own[valid])
    assert cut == 0
    return boxes, np.array(grey)


def simulated(recipe, seed=2):
    images = make_images()
    rng = np.random.default_rng(seed)
    given = [b[v] for b, v in zip(images.boxes, images.valid, strict=True)]
    outputs = [
        published.draw(rng, images.size, given, own, SIDE, recipe)
        for own in order().reshape(-1)
    ]
    return [o.boxes for o in outputs], np.array([o.grey for o in outputs])


def distance(a, b):
    return stats.ks_2samp(a, b, method="asymp").statistic


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=list(RECIPES))
def test_boxes_and_grey_borders_are_spread_as_published(recipe):
    (own, own_grey), (theirs, their_grey) = ours(recipe), simulated(recipe)
    assert distance(*[[len(b) for b in x] for x in (own, theirs)]) < 0.03
    a, b = np.concatenate(own), np.concatenate(theirs)
    numbers = {
        "width": lambda x: x[:, 2] - x[:, 0],
        "height": lambda x: x[:, 3] - x[:, 1],
        "aspect": lambda x: (x[:, 2] - x[:, 0]) / (x[:, 3] - x[:, 1]),
        "x": lambda x: x[:, [0, 2]].mean(axis=1),
        "y": lambda x: x[:, [1, 3]].mean(axis=1),
    }
    found = {name: distance(value(a), value(b)) for name, value in numbers.items()}
    assert max(found.values()) < 0.04, found
    # Shares of the boxes that are kept, and of these that the border cuts.
    assert abs(len(a) / len(b) - 1) < 0.03
    clipped = [((x < 0.01) | (x > SIDE - 0.01)).any(axis=1).mean() for x in (a, b)]
    assert abs(clipped[0] - clipped[1]) < 0.015, clipped
    if not recipe.mixup:
        assert np.mean(own_grey) == pytest.approx(np.mean(their_grey), abs=0.015)
        # Borders of images are blurred over a pixel, which is no grey of the fill.
        assert distance(own_grey > 0.02, their_grey > 0.02) < 0.03
        assert distance(own_grey, their_grey) < 0.05


def sources(stored, steps=400, batch=16):
    """Images of each output, [steps, batch, 4]; partners of the batch or of all."""
    policy = (dict(name="mosaic", probability=1.0),)
    explain = jax.jit(make_explain(policy, image_size=(SIDE, SIDE)))
    images = make_images()
    rng = np.random.default_rng(3)
    epochs = [rng.permutation(NUM) for _ in range(-(-batch * steps // NUM))]
    rows = np.concatenate(epochs)[: batch * steps].reshape(steps, batch)
    shown = []
    for step, own in enumerate(rows.astype(np.int32)):
        key = jax.random.fold_in(jax.random.key(0), step)
        if stored:
            found = explain(key, Stored(images, own), mosaic_on=True)
            shown.append(np.asarray(found.scene.sources))
        else:
            part = jax.tree.map(lambda x, own=own: x[own], images._replace(polygons=()))
            found = explain(key, part, mosaic_on=True)
            shown.append(own[np.asarray(found.scene.sources)])
    return rows, np.array(shown)


def appearances(shown):
    """How often each image stands in the outputs of each step, [steps, NUM]."""
    return np.stack([np.bincount(s.reshape(-1), minlength=NUM) for s in shown])


def test_partners_from_the_whole_set_repeat_as_published():
    rows, shown = sources(stored=True)
    assert (shown[:, :, 0] == rows).all()
    # Never the own image, which is the departure named above.
    assert (shown[:, :, 1:] != rows[..., None]).all()
    rng = np.random.default_rng(4)
    drawn = rng.integers(NUM, size=(*rows.shape, 3))
    theirs = np.concatenate([rows[..., None], drawn], axis=2)
    counts = [appearances(x) for x in (shown, theirs)]
    for (own, other), bound in (
        (counts, 0.02),
        # With the step after: how often an image stands in both.
        ([np.minimum(c[1:], c[:-1]) for c in counts], 0.02),
        # In an epoch of six steps.
        ([c[:396].reshape(-1, 6, NUM).sum(axis=1) for c in counts], 0.03),
        # Images of a step that stand in several outputs.
        ([(c > 1).sum(axis=1) for c in counts], 0.12),
    ):
        assert distance(own.reshape(-1), other.reshape(-1)) < bound


def test_partners_from_the_batch_stand_in_four_outputs_of_their_step():
    rows, shown = sources(stored=False, steps=60)
    counts = appearances(shown)
    for own, count in zip(rows, counts, strict=True):
        assert (count[own] == 4).all()
        assert count.sum() == 4 * len(own)


def test_colour_gains_are_spread_as_published():
    gains = dict(hue=0.015, saturation=0.7, value=0.4)
    policy = (dict(name="hsv", **gains),)
    augment = jax.jit(make_augment(policy, image_size=(8, 8), max_boxes=1))
    colour = np.uint8([[[150, 100, 60]]])
    blank = make_images()
    image = np.broadcast_to(colour[0, 0], (NUM, 8, 8, 3))
    batch = blank._replace(image=image, size=np.full((NUM, 2), 8, np.int32))
    own = []
    for step in range(60):
        shown, _ = augment(jax.random.key(step), batch, mosaic_on=True)
        own.append(np.asarray(shown.image)[:, 4, 4])
    own = np.concatenate(own)[None].astype(np.float32)
    own = cv2.cvtColor(own, cv2.COLOR_RGB2HSV)[0] * [0.5, 255, 255]
    rng = np.random.default_rng(5)
    factors = rng.uniform(-1, 1, (own.shape[0], 3)) * list(gains.values()) + 1
    hue, saturation, value = (factors * cv2.cvtColor(colour, cv2.COLOR_RGB2HSV)[0, 0]).T
    theirs = hue % 180, np.clip(saturation, 0, 255), np.clip(value, 0, 255)
    for name, mine, other in zip(gains, own.T, theirs, strict=True):
        # 8 bits of the published table move a value by less than one.
        assert abs(mine.mean() - other.mean()) < 1.5, name
        assert abs(mine.std() - other.std()) < 1.5, name
        edges = np.quantile(other, np.linspace(0.05, 0.95, 10))
        shares = [np.searchsorted(np.sort(x), edges) / len(x) for x in (mine, other)]
        # A hue of 8 bits has few values: compared a value to either side.
        wide = np.searchsorted(np.sort(mine), edges + 1.0) / len(mine)
        low = np.searchsorted(np.sort(mine), edges - 1.0) / len(mine)
        assert (low - 0.03 <= shares[1]).all() and (shares[1] <= wide + 0.03).all(), (
            name
        )
