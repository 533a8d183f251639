"""Which picture stands where in the training stream, as a function of (seed, place).

Nothing about the order has to be stored: a run that goes on at step k asks for step k.
The draws are raw Philox words and an argsort, which no version of NumPy may change,
unlike the streams of `numpy.random.Generator`.

A sampler says how often each picture is expected in an epoch. An epoch then has it that
often, rounded up or down at random, so that no more is left to chance than must be:
once for each picture is a permutation, and weights are met as nearly as whole numbers
allow. To add one, write a function of the pictures' classes and put it into `SAMPLERS`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

# Keep these draws apart from each other, and from others that are keyed by (seed,
# number) as well.
_ORDER, _FRACTION, _SHARDS = 1, 3, 4

# What `image_weighted` goes by.
WEIGHTS = ("classes", "loss")

Labels = Sequence[np.ndarray]


def shuffle(labels: Labels) -> np.ndarray | None:
    """Each picture once."""
    return None


def repeat_factor(labels: Labels, *, threshold: float = 0.001) -> np.ndarray:
    """Pictures with rare classes more often, all others once.

    A class that a share f of the pictures shows has the factor `max(1, sqrt(threshold /
    f))`; a picture has the largest factor of its classes. Pictures without a box come
    once.

    Args:
        labels: the classes of each picture's boxes.
        threshold: share of the pictures below which a class is rare.

    Raises:
        ValueError: a threshold that is not in (0, 1].

    Source: Gupta et al. 2019, arXiv:1908.03195v2, appendix B.2.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold is {threshold}, expected above 0 and at most 1")
    share = _pictures_of_classes(labels) / len(labels)
    factors = np.maximum(1.0, np.sqrt(threshold / np.maximum(share, 1e-300)))
    return np.array([max([1.0, *factors[own]]) for own in labels])


def class_balanced(labels: Labels, *, background: float = 1.0) -> np.ndarray:
    """Each class as often as every other.

    As if for each place of an epoch first a class were drawn, then one of the pictures
    that show it; a picture with several classes is drawn through each.

    Args:
        labels: the classes of each picture's boxes.
        background: how often a picture without a box is expected in an epoch.

    Raises:
        ValueError: a negative background, or no picture with a box.
    """
    pictures = _pictures_of_classes(labels)
    weight = np.divide(1.0, pictures, where=pictures > 0, out=np.zeros(len(pictures)))
    return _normalised([weight[np.unique(own)].sum() for own in labels], background)


def image_weighted(
    labels: Labels,
    *,
    by: str = "classes",
    power: float = 1.0,
    background: float = 1.0,
    least: float = 0.1,
) -> np.ndarray:
    """Pictures in proportion to the rarity of their boxes, or to their last losses.

    A box weighs `1 / (boxes of its class) ** power`, a picture as much as its boxes
    together.

    Args:
        labels: the classes of each picture's boxes.
        by: "classes", or "loss" for the losses of the epoch before, see
            `weighing.weights_of_losses`; the first epoch has each picture once.
        power: 1 gives every class the same weight in all, 0 every box; likewise of
            losses.
        background: how often a picture without a box is expected in an epoch; by loss
            such a picture is one like the others.
        least: by loss, how often one that has none is expected.

    Raises:
        ValueError: an argument out of range, or no picture with a box.
    """
    if by not in WEIGHTS:
        raise ValueError(f"by is {by!r}, expected {' or '.join(map(repr, WEIGHTS))}")
    if power < 0:
        raise ValueError(f"power is {power}, expected at least 0")
    if not 0 < least <= 1:
        raise ValueError(f"least is {least}, expected above 0 and at most 1")
    if by == "loss":
        return np.ones(len(labels))
    boxes = np.bincount(np.concatenate([*labels, np.zeros(0, np.int64)]).astype(int))
    weight = np.maximum(boxes, 1).astype(np.float64) ** -power
    return _normalised([weight[own].sum() for own in labels], background)


# Each gives, from the classes of the boxes of each picture (int [boxes]), how often a
# picture is expected in an epoch, float64 [pictures]; None: once.
SAMPLERS: dict[str, Callable[..., np.ndarray | None]] = {
    "shuffle": shuffle,
    "repeat_factor": repeat_factor,
    "class_balanced": class_balanced,
    "image_weighted": image_weighted,
}


def _pictures_of_classes(labels: Labels) -> np.ndarray:
    """float64 [classes]: the number of pictures that show each class."""
    shown = np.concatenate([*map(np.unique, labels), np.zeros(0, np.int64)])
    return np.bincount(shown.astype(np.int64)).astype(np.float64)


def _normalised(weights: Sequence[float], background: float) -> np.ndarray:
    """Weights with a mean of 1 over the pictures that have any."""
    if background < 0:
        raise ValueError(f"background is {background}, expected at least 0")
    given = np.asarray(weights, np.float64)
    some = given > 0
    if not some.any():
        raise ValueError("no picture has a box, so that there is nothing to balance")
    return np.where(some, given / given[some].mean(), background)


def fraction_of(seed: int, num_pictures: int, fraction: float) -> np.ndarray:
    """A random part of the pictures, always the same for the same seed.

    Args:
        seed: any integer.
        num_pictures: how many there are.
        fraction: the share to take, above 0 and at most 1.

    Returns:
        int64, rising, at least one; a smaller fraction is a part of a larger one.

    Raises:
        ValueError: a fraction out of range.
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction is {fraction}, expected above 0 and at most 1")
    count = max(1, round(fraction * num_pictures))
    order = np.argsort(_words(seed, 0, _FRACTION, num_pictures), kind="stable")
    return np.sort(order[:count])


def shard_pictures(seed: int, num_pictures: int, num_shards: int) -> list[np.ndarray]:
    """The pictures, dealt at random to shards whose sizes differ by one at most.

    At random, since a data set may be sorted or repeat itself; a single shard has all
    in their order.

    Returns:
        int64 for each shard, rising; together each picture once.
    """
    if num_shards == 1:
        return [np.arange(num_pictures)]
    order = np.argsort(_words(seed, 0, _SHARDS, num_pictures), kind="stable")
    return [np.sort(order[shard::num_shards]) for shard in range(num_shards)]


def epoch_length(num_pictures: int, repeats: np.ndarray | None) -> int:
    """Places in an epoch: as many as pictures are expected, at least one."""
    return num_pictures if repeats is None else max(1, round(float(repeats.sum())))


def epoch_order(
    seed: int,
    epoch: int,
    num_pictures: int,
    *,
    repeats: np.ndarray | None = None,
    shard: int = 0,
) -> np.ndarray:
    """The order of the pictures in one epoch.

    Args:
        seed: any integer; taken modulo 2**64.
        epoch: from 0.
        num_pictures: how many pictures there are.
        repeats: float64 [num_pictures], how often each is expected, from 0; scaled so
            that their sum is `epoch_length`. None: once.
        shard: which part of the data this is; each has draws of its own.

    Returns:
        int64 [epoch_length], read-only: a permutation, or, with `repeats`, each picture
        as often as they say, rounded up or down.
    """
    if repeats is None:
        words = _words(seed, epoch, _ORDER, num_pictures, shard)
        order = np.argsort(words, kind="stable")
    else:
        length = epoch_length(num_pictures, repeats)
        words = _words(seed, epoch, _ORDER, num_pictures + 1 + length, shard)
        # Systematic sampling: pictures lie on a line in random order, as long as they
        # are to come often; a comb of pitch 1, laid on at random, picks from them.
        line = np.argsort(words[:num_pictures], kind="stable")
        ends = np.cumsum(repeats[line])
        ends *= length / ends[-1]
        ends[-1] = length
        picked = np.floor(ends + words[num_pictures] * 2.0**-64).astype(np.int64)
        counts = np.diff(picked, prepend=0)
        places = np.argsort(words[num_pictures + 1 :], kind="stable")
        order = np.repeat(line, counts)[:length][places]
    order.flags.writeable = False
    return order


def _words(seed: int, epoch: int, domain: int, count: int, shard: int = 0) -> Any:
    """uint64 [count], random numbers of their own for each set of arguments."""
    return np.random.Philox(
        key=np.array([seed % 2**64, epoch], np.uint64),
        counter=np.array([0, 0, shard, domain], np.uint64),
    ).random_raw(count)


class _Weights:
    """How often pictures are expected, as a key by itself and not by its numbers."""

    def __init__(self, repeats: np.ndarray | None):
        self.repeats = repeats


class Stream:
    """The endless training stream, cut into batches; every step is random access.

    An epoch has `steps_per_epoch` batches. Its place q holds `order[q % n]`: with the
    derived number of steps every picture comes once, and the last batch is filled up
    from the same epoch's start. There may be fewer pictures than a batch holds.
    """

    def __init__(
        self,
        *,
        seed: int,
        num_pictures: int,
        batch_size: int,
        steps_per_epoch: int | None = None,
        repeats: np.ndarray | None = None,
        shard: int = 0,
        own: np.ndarray | None = None,
    ):
        """Set up the stream.

        Args:
            seed: decides the order.
            num_pictures: at least 1.
            batch_size: pictures a batch, at least 1.
            steps_per_epoch: batches an epoch; None takes as many as hold every
                picture.
            repeats: see `epoch_order`.
            shard: see `epoch_order`.
            own: int64 [num_pictures], what `reweigh` calls these pictures; None: by
                their places.

        Raises:
            ValueError: a number is not positive.
        """
        if steps_per_epoch is None:
            length = epoch_length(num_pictures, repeats)
            steps_per_epoch = -(-length // max(batch_size, 1))
        for name, value in (
            ("pictures to train on", num_pictures),
            ("pictures a batch", batch_size),
            ("steps an epoch", steps_per_epoch),
        ):
            if value < 1:
                raise ValueError(f"there must be at least 1 {name}, not {value}")
        self.num_pictures = num_pictures
        self.batch_size = batch_size
        self.steps_per_epoch = steps_per_epoch
        self._own = own
        self._weights = _Weights(repeats)
        # Two epochs are alive while batches are prepared across their border. By the
        # weights, too: a thread may still be at an order that is no longer wanted.
        self._order = functools.lru_cache(maxsize=2)(
            lambda epoch, weights: epoch_order(
                seed, epoch, num_pictures, repeats=weights.repeats, shard=shard
            )
        )

    def reweigh(self, repeats: np.ndarray) -> None:
        """Let pictures come so often from now on, in as many steps an epoch as before.

        Args:
            repeats: see `epoch_order`; of all pictures that `own` counts.
        """
        self._weights = _Weights(repeats if self._own is None else repeats[self._own])

    def places(self, step: int) -> np.ndarray:
        """Which pictures make the batch of `step`.

        Args:
            step: from 0; step k belongs to epoch `k // steps_per_epoch`.

        Returns:
            int64 [batch_size], each in [0, num_pictures).
        """
        epoch, within = divmod(step, self.steps_per_epoch)
        order = self._order(epoch, self._weights)
        places = within * self.batch_size + np.arange(self.batch_size)
        return order[places % len(order)]


def shard_rows(batch_size: int, shard: tuple[int, int]) -> slice:
    """The rows of a global batch that one host prepares.

    Args:
        batch_size: pictures in the global batch.
        shard: (index, count) of this host; the rows of all hosts in order are the
            global batch.

    Raises:
        ValueError: the batch cannot be divided evenly, or there is no such host.
    """
    index, count = shard
    if not 0 <= index < count:
        raise ValueError(f"shard {index} of {count} does not exist")
    if batch_size % count:
        raise ValueError(
            f"a batch of {batch_size} cannot be divided among {count} hosts; choose a "
            f"multiple of {count}"
        )
    size = batch_size // count
    return slice(index * size, (index + 1) * size)
