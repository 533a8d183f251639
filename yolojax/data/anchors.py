"""Anchors from the boxes of a data set: clustered, then evolved; and how well they fit.

The distance of the clustering is 1 - IoU of boxes with one centre (Redmon and Farhadi
2017, arXiv:1612.08242, section 2, "Dimension Clusters"). Best possible recall, the
fitness and the mutations that raise it are those of AutoAnchor as YOLOv5 v7.0
documents it. Departures: the published check draws a random scale for each picture,
here there is none; the published clustering is Euclidean in scaled sides; and both
work on all boxes, here on at most `MOST_BOXES` of them, drawn by the seed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from yolojax.lookup import pick
from yolojax.ops.letterbox import letterbox_shape
from yolojax.records import Example

# Anchors are fitted to so many boxes; they are measured on all.
MOST_BOXES = 20_000
# Published: the best possible recall below which anchors do not fit.
LEAST_RECALL = 0.98
# Published: share of the sides that change, standard deviation and limits of a change.
MUTATED, SPREAD, LOWEST, HIGHEST = 0.9, 0.1, 0.3, 3.0
GENERATIONS = 1000

_RESTARTS = 8
_ITERATIONS = 100
# Boxes that are compared with all anchors at a time: memory, not result.
_CHUNK = 100_000
# Anchors are pixels; more digits would only lengthen the config.
_DECIMALS = 2

Similarity = Callable[[np.ndarray, np.ndarray], np.ndarray]


class Fit(NamedTuple):
    """How well anchors fit boxes; all means are over the boxes.

    Attributes:
        recall: best possible recall, the share of boxes with an anchor in reach.
        per_target: anchors in reach of a box.
        fitness: a box's best `ratio_similarity`, or 0 where no anchor is in reach.
        mean_iou: a box's best `iou_similarity`.
    """

    recall: float
    per_target: float
    fitness: float
    mean_iou: float


class Distance(NamedTuple):
    """A distance to cluster by: 1 - `similarity`, and the centre of some boxes."""

    similarity: Similarity
    centre: Callable[[np.ndarray], np.ndarray]


def box_sides(
    examples: Iterable[Example], image_size: tuple[int, int], *, min_side: float = 0.0
) -> np.ndarray:
    """Sides of all boxes, as training shows them before augmentation.

    Args:
        examples: pictures; crowds, boxes without area and pictures without a size are
            left out.
        image_size: (height, width) that the pictures are fitted into, with their shape
            kept.
        min_side: pixels; boxes with a side that is not above it are left out.

    Returns:
        float64 [n, 2], width and height in pixels.
    """
    found = [np.zeros((0, 2))]
    for example in examples:
        if min(example.size) < 1:
            continue
        ratio = letterbox_shape(example.size, image_size).ratio
        boxes = np.asarray(example.boxes, np.float64).reshape(-1, 4)[~example.crowd]
        found.append((boxes[:, 2:] - boxes[:, :2]) * ratio)
    sides = np.concatenate(found)
    # NaN fails the comparison as well.
    use = (sides > max(min_side, 0.0)).all(axis=1) & np.isfinite(sides).all(axis=1)
    return sides[use]


def ratio_similarity(sides: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """The smaller over the larger side, in width or height, whichever is less.

    Args:
        sides: [n, 2], width and height.
        anchors: [k, 2], in the same unit.

    Returns:
        float64 [k, n] in (0, 1]; 1 for the same shape. An anchor takes a box in
        training where this is above 1 / `anchor_ratio`.
    """
    wide = _smaller_over_larger(sides[:, 0], anchors[:, :1])
    return np.minimum(wide, _smaller_over_larger(sides[:, 1], anchors[:, 1:]))


def iou_similarity(sides: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes with one centre.

    Args:
        sides: [n, 2], width and height.
        anchors: [k, 2], in the same unit.

    Returns:
        float64 [k, n] in (0, 1].

    Source: Redmon and Farhadi 2017, arXiv:1612.08242, section 2.
    """
    wide = np.minimum(sides[:, 0], anchors[:, :1])
    high = np.minimum(sides[:, 1], anchors[:, 1:])
    inner = wide * high
    return inner / (sides.prod(axis=1) + anchors.prod(axis=1)[:, None] - inner)


DISTANCES: dict[str, Distance] = {
    "iou": Distance(iou_similarity, lambda sides: sides.mean(axis=0)),
    # The centre of shapes whose distance is a ratio is their geometric mean.
    "ratio": Distance(
        ratio_similarity, lambda sides: np.exp(np.log(sides).mean(axis=0))
    ),
}


def measure(sides: np.ndarray, anchors: np.ndarray, anchor_ratio: float) -> Fit:
    """How well anchors fit boxes.

    Args:
        sides: [n, 2], width and height in pixels; n at least 1.
        anchors: [k, 2], in pixels.
        anchor_ratio: an anchor is in reach of a box where neither side is so many
            times longer than the other's.

    Raises:
        ValueError: there are no boxes.
    """
    _check_boxes(sides, 1)
    sums = np.zeros(4)
    for start in range(0, len(sides), _CHUNK):
        part = sides[start : start + _CHUNK]
        similar = ratio_similarity(part, anchors)
        best = similar.max(axis=0)
        reached = best > 1 / anchor_ratio
        sums += (
            reached.sum(),
            (similar > 1 / anchor_ratio).sum(),
            (best * reached).sum(),
            iou_similarity(part, anchors).max(axis=0).sum(),
        )
    return Fit(*(float(value) for value in sums / len(sides)))


def cluster(
    sides: np.ndarray, num_anchors: int, *, distance: str = "iou", seed: int = 0
) -> np.ndarray:
    """Anchors by k-means: the best of several starts, by the mean distance.

    Starts are drawn as by k-means++ (Arthur and Vassilvitskii 2007): each further one
    with a probability that grows with the square of its distance from those there are.

    Args:
        sides: [n, 2], width and height in pixels.
        num_anchors: k.
        distance: an entry of `DISTANCES`.
        seed: decides the starts.

    Returns:
        float64 [k, 2], by rising area.

    Raises:
        ValueError: fewer boxes, or fewer different ones, than anchors; or an unknown
            distance.
    """
    chosen = pick(DISTANCES, distance, "distance of the clustering")
    _check_boxes(sides, num_anchors)
    rng = np.random.default_rng((seed, 0))
    best, best_score = sides[:num_anchors], -1.0
    for _ in range(_RESTARTS):
        anchors = _first_centres(sides, num_anchors, chosen, rng)
        owner = np.full(len(sides), -1)
        for _ in range(_ITERATIONS):
            similar = chosen.similarity(sides, anchors)
            score = similar.max(axis=0).mean()
            if score > best_score:
                best, best_score = anchors, score
            before, owner = owner, similar.argmax(axis=0)
            if (owner == before).all():
                break
            anchors = _moved(sides, anchors, owner, similar.max(axis=0), chosen)
    return by_area(best)


def evolve(
    sides: np.ndarray,
    anchors: np.ndarray,
    *,
    anchor_ratio: float = 4.0,
    fitness: str = "ratio",
    generations: int = GENERATIONS,
    min_side: float = 2.0,
    seed: int = 0,
) -> np.ndarray:
    """Anchors that random changes have made fitter; never less fit.

    Args:
        sides: [n, 2], width and height in pixels.
        anchors: [k, 2], where to start.
        anchor_ratio: see `measure`.
        fitness: what rises: "ratio" for `Fit.fitness`, "iou" for `Fit.mean_iou`.
        generations: changes that are tried.
        min_side: pixels that no change makes a side shorter than.
        seed: decides the changes.

    Returns:
        float64 [k, 2], by rising area.

    Raises:
        ValueError: there are no boxes, or an unknown fitness.
    """
    similarity = pick(DISTANCES, fitness, "fitness of anchors").similarity
    _check_boxes(sides, 1)
    least = 1 / anchor_ratio if fitness == "ratio" else 0.0

    def fitness_of(candidate: np.ndarray) -> float:
        best = similarity(sides, candidate).max(axis=0)
        return float((best * (best > least)).mean())

    rng = np.random.default_rng((seed, 1))
    best, best_fitness = np.asarray(anchors, np.float64), fitness_of(anchors)
    for _ in range(generations):
        changed = rng.random(best.shape) < MUTATED
        change = changed * rng.random() * SPREAD * rng.normal(size=best.shape)
        candidate = np.clip(1 + change, LOWEST, HIGHEST) * best
        candidate = np.maximum(candidate, np.minimum(best, min_side))
        value = fitness_of(candidate)
        if value > best_fitness:
            best, best_fitness = candidate, value
    return by_area(best)


def fit_anchors(
    sides: np.ndarray,
    num_anchors: int,
    *,
    anchor_ratio: float = 4.0,
    distance: str = "iou",
    fitness: str = "ratio",
    min_side: float = 2.0,
    seed: int = 0,
) -> np.ndarray:
    """Anchors for these boxes: `cluster`, then `evolve`.

    Args:
        sides: [n, 2], width and height in pixels.
        num_anchors: k.
        anchor_ratio: see `measure`.
        distance: of the clustering.
        fitness: of the evolution.
        min_side: see `evolve`.
        seed: with the boxes decides every bit.

    Returns:
        float64 [k, 2] in pixels with two decimals, by rising area.

    Raises:
        ValueError: see `cluster` and `evolve`.
    """
    if len(sides) > MOST_BOXES:
        rng = np.random.default_rng((seed, 2))
        sides = sides[np.sort(rng.permutation(len(sides))[:MOST_BOXES])]
    clustered = cluster(sides, num_anchors, distance=distance, seed=seed)
    evolved = evolve(
        sides,
        clustered,
        anchor_ratio=anchor_ratio,
        fitness=fitness,
        generations=GENERATIONS,
        min_side=min_side,
        seed=seed,
    )
    return np.maximum(evolved.round(_DECIMALS), 10**-_DECIMALS)


def by_area(anchors: np.ndarray) -> np.ndarray:
    """The anchors by rising area."""
    return anchors[np.argsort(anchors.prod(axis=1), kind="stable")]


def _smaller_over_larger(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.minimum(one, other) / np.maximum(one, other)


def _check_boxes(sides: np.ndarray, num_anchors: int) -> None:
    if len(sides) == 0:
        raise ValueError("there are no boxes, so no anchors can be fitted to them")
    if len(sides) < num_anchors:
        raise ValueError(
            f"{len(sides)} boxes are fewer than the {num_anchors} anchors; give the "
            "anchors by hand, or more boxes"
        )
    # Looked at only as far as it takes: most sets have far more shapes than anchors.
    if num_anchors > 1:
        shapes: set[tuple[float, float]] = set()
        for wide, high in sides:
            shapes.add((wide, high))
            if len(shapes) == num_anchors:
                return
        raise ValueError(
            f"the {len(sides)} boxes have {len(shapes)} different shapes, fewer than "
            f"the {num_anchors} anchors; give the anchors by hand"
        )


def _first_centres(
    sides: np.ndarray, count: int, chosen: Distance, rng: np.random.Generator
) -> np.ndarray:
    centres = sides[rng.integers(len(sides), size=1)]
    while len(centres) < count:
        far = 1 - chosen.similarity(sides, centres).max(axis=0)
        # Rounding must not let a box that is a centre be drawn again.
        far = np.square(np.where(far > 1e-12, far, 0.0))
        total = far.sum()
        if not total > 0:
            far, total = np.ones_like(far), float(len(far))
        place = rng.choice(len(sides), p=far / total)
        centres = np.concatenate([centres, sides[place][None]])
    return centres


def _moved(
    sides: np.ndarray,
    anchors: np.ndarray,
    owner: np.ndarray,
    best: np.ndarray,
    chosen: Distance,
) -> np.ndarray:
    """The centres of each anchor's boxes; one without any goes where it is needed."""
    moved = np.array(anchors, np.float64)
    farthest = iter(np.argsort(best, kind="stable"))
    for index in range(len(anchors)):
        mine = sides[owner == index]
        moved[index] = chosen.centre(mine) if len(mine) else sides[next(farthest)]
    return moved


def config_line(anchors: np.ndarray) -> str:
    """The line of a config that sets anchors, [levels, a, 2].

    Returns:
        Python that reads back as the same numbers.
    """
    rows = (
        "(" + ", ".join(f"({_number(w)}, {_number(h)})" for w, h in level) + ",)"
        for level in anchors.tolist()
    )
    return f"c.model.anchors = ({', '.join(rows)},)"


def _number(side: float) -> str:
    return str(int(side)) if math.isclose(side, round(side)) else f"{side:g}"
