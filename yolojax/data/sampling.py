"""Which picture stands where in the training stream, as a function of (seed, place).

Nothing about the order has to be stored: a run that goes on at step k asks for step k.
The draws are raw Philox words and an argsort, which no version of NumPy may change,
unlike the streams of `numpy.random.Generator`.
"""

from __future__ import annotations

import functools

import numpy as np

# Keeps these draws apart from others that are keyed by (seed, number) as well.
_DOMAIN = 1


def epoch_order(seed: int, epoch: int, num_pictures: int) -> np.ndarray:
    """The order of the pictures in one epoch.

    Args:
        seed: any integer; taken modulo 2**64.
        epoch: from 0.
        num_pictures: how many pictures there are.

    Returns:
        int64 [num_pictures], a permutation; read-only.
    """
    words = np.random.Philox(
        key=np.array([seed % 2**64, epoch], np.uint64),
        counter=np.array([0, 0, 0, _DOMAIN], np.uint64),
    ).random_raw(num_pictures)
    order = np.argsort(words, kind="stable")
    order.flags.writeable = False
    return order


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
    ):
        """Set up the stream.

        Args:
            seed: decides the order.
            num_pictures: at least 1.
            batch_size: pictures a batch, at least 1.
            steps_per_epoch: batches an epoch; None takes as many as hold every
                picture.

        Raises:
            ValueError: a number is not positive.
        """
        if steps_per_epoch is None:
            steps_per_epoch = -(-num_pictures // max(batch_size, 1))
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
        # Two epochs are alive while batches are prepared across their border.
        self._order = functools.lru_cache(maxsize=2)(
            lambda epoch: epoch_order(seed, epoch, num_pictures)
        )

    def places(self, step: int) -> np.ndarray:
        """Which pictures make the batch of `step`.

        Args:
            step: from 0; step k belongs to epoch `k // steps_per_epoch`.

        Returns:
            int64 [batch_size], each in [0, num_pictures).
        """
        epoch, within = divmod(step, self.steps_per_epoch)
        places = within * self.batch_size + np.arange(self.batch_size)
        return self._order(epoch)[places % self.num_pictures]


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
